"""A history that is written when it is read."""

from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer

from ._pending_values import PendingValues


class LazyHistory(HistoryBuffer):
    """MMEngine's buffer of logged values, which asks for those that are pending when it is read.

    Copied or pickled, as into a checkpoint, it is a plain ``HistoryBuffer``.

    Args:
        before: The values so far.
        pending: Where later ones are kept.
    """

    def __init__(self, before: HistoryBuffer, pending: PendingValues) -> None:
        self._pending = pending
        self._logs: np.ndarray = np.array([])
        self._counts: np.ndarray = np.array([])
        super().__init__(max_length=before.max_length)
        self._logs, self._counts = before.data

    @property
    def _log_history(self) -> np.ndarray:
        self._pending.flush()
        return self._logs

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self._logs = values

    @property
    def _count_history(self) -> np.ndarray:
        self._pending.flush()
        return self._counts

    @_count_history.setter
    def _count_history(self, values: np.ndarray) -> None:
        self._counts = values

    def extend(self, values: list) -> None:
        """Append values, in one copy of those before, where ``update`` copies them for each.

        Args:
            values: Numbers.
        """
        counts = [1] * len(values)
        if not len(self._logs):  # an empty array is one of floats, and integers stay integers
            self._logs, self._counts = np.array(values), np.array(counts)
            return
        self._logs = np.append(self._logs, values)[-self.max_length :]
        self._counts = np.append(self._counts, counts)[-self.max_length :]

    def belongs_to(self, pending: PendingValues) -> bool:
        """Say whether later values are kept there.

        Args:
            pending: The place.
        """
        return self._pending is pending

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return HistoryBuffer, (*self.data, self.max_length)
