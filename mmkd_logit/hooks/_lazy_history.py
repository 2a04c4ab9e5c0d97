"""Logged values that stay on their device until somebody reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor


class PendingValues:
    """What buffers are still to be given, in the order in which it came."""

    def __init__(self) -> None:
        # For each buffer numbers, or where among the tensors of one kind its value stands.
        self._entries: dict[int, tuple[LazyHistory, list]] = {}
        self._rows: dict[tuple, list[Tensor]] = {}

    def add(self, values: Iterable[tuple[LazyHistory, int | float | Tensor]]) -> None:
        """Keep values, or copies of them, with one operation for each device and dtype.

        Args:
            values: Numbers, and tensors of one element each.
        """
        members: dict[tuple, list[Tensor]] = {}
        for buffer, value in values:
            entry: Any = value
            if isinstance(value, Tensor):
                kind = (value.device, value.dtype)
                group = members.setdefault(kind, [])
                entry = (kind, len(self._rows.get(kind, ())), len(group))
                group.append(value.detach().reshape(()))
            self._entries.setdefault(id(buffer), (buffer, []))[1].append(entry)
        for kind, group in members.items():
            # A copy: compiled with CUDA graphs, the next step overwrites what this one returned.
            self._rows.setdefault(kind, []).append(torch.stack(group))

    def flush(self) -> None:
        """Give the buffers their values: one transfer for each device and dtype."""
        entries, pending = self._entries, self._rows
        self._entries, self._rows = {}, {}
        rows = {kind: _to_lists(tensors) for kind, tensors in pending.items()}
        for buffer, mine in entries.values():
            values = (rows[e[0]][e[1]][e[2]] if isinstance(e, tuple) else e for e in mine)
            buffer.extend(list(values))


def _to_lists(rows: list[Tensor]) -> list[list]:
    values = iter(torch.cat(rows).tolist())
    return [[next(values) for _ in range(len(row))] for row in rows]


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
