"""Log values that wait on the device until a line is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.registry import HOOKS


class PendingValues:
    """What buffers are still to be given, in the order in which it came."""

    def __init__(self) -> None:
        # For each buffer numbers, or where among the tensors of one kind its value stands.
        self._entries: dict[int, tuple[LazyHistory, list]] = {}
        self._rows: dict[tuple, list[Tensor]] = {}

    def add(self, values: Iterable[tuple[LazyHistory, int | float | Tensor]]) -> None:
        """Keep values, or copies of them, with one operation for each device and dtype."""
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


# A history that is written when it is read.


class LazyHistory(HistoryBuffer):
    """MMEngine's buffer of logged values, which asks for those that are pending when it is read.

    Copied or pickled, as into a checkpoint, it is a plain ``HistoryBuffer``.
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
        """Append values, in one copy of those before, where ``update`` copies them for each."""
        counts = [1] * len(values)
        if not len(self._logs):  # an empty array is one of floats, and integers stay integers
            self._logs, self._counts = np.array(values), np.array(counts)
            return
        self._logs = np.append(self._logs, values)[-self.max_length :]
        self._counts = np.append(self._counts, counts)[-self.max_length :]

    def belongs_to(self, pending: PendingValues) -> bool:
        """Say whether later values are kept there."""
        return self._pending is pending

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return HistoryBuffer, (*self.data, self.max_length)


# Log values that do not keep the device waiting.


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, without waiting for the device at every iteration.

    MMEngine takes each logged tensor to the host when its iteration ends, and so the host cannot
    prepare the next one ahead. Here the values of many iterations stay where they are. They arrive
    in one transfer when somebody reads a logged value of training, whoever it is: a log line, a
    checkpoint, another hook. Log lines, JSON files and checkpoints are MMEngine's, digit for
    digit. A log line every 100 iterations waits once in 100; the ``time`` in it is then what the
    host took, which runs ahead of a GPU, while ``eta`` remains right.

    Nor does a long run slow down: MMEngine copies the whole history of a value to append one.

    To be used as ``default_hooks=dict(runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'))``.

    Args:
        limit: Of how many iterations values are kept on the device at most.

    Raises:
        ValueError: If ``limit`` is not a positive integer.
    """

    changes_training = False

    def __init__(self, limit: int = 1000) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ValueError(f"limit must be a number of iterations from 1 on, got {limit!r}")
        self.limit = limit
        self._pending, self._iterations = PendingValues(), 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the iteration and the learning rates."""
        runner.message_hub.update_info("iter", runner.iter)
        rates = runner.optim_wrapper.get_lr()
        self._note(runner.message_hub, ((name, values[0]) for name, values in rates.items()))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Note what the model logs."""
        self._note(runner.message_hub, (outputs or {}).items())
        self._iterations += 1
        if self._iterations % self.limit == 0:
            self._pending.flush()

    def after_train(self, runner: Runner) -> None:
        """Leave plain values behind."""
        self._pending.flush()
        super().after_train(runner)

    def _note(self, hub: MessageHub, values: Iterable[tuple[str, Any]]) -> None:
        noted = []
        for name, value in values:
            key = f"train/{name}"
            one = isinstance(value, Tensor) and value.numel() == 1
            if one or isinstance(value, (int, float)):
                noted.append((self._buffer(hub, key), value))
            else:  # MMEngine says what is wrong with it, or converts it
                hub.update_scalar(key, value)
        self._pending.add(noted)

    def _buffer(self, hub: MessageHub, key: str) -> LazyHistory:
        buffer = hub.log_scalars.get(key)
        if isinstance(buffer, LazyHistory) and buffer.belongs_to(self._pending):
            return buffer
        if buffer is None:
            hub.update_scalar(key, 0)  # has it saved in checkpoints
            buffer = HistoryBuffer()
        buffer = LazyHistory(buffer, self._pending)
        hub.log_scalars[key] = buffer
        return buffer
