"""Log values that stay on the device until they are read."""

from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count


class LazyBuffer(HistoryBuffer):
    """A buffer of MMEngine's whose latest values may still be on the device.

    They arrive in one transfer when the buffer is read, or once ``limit`` are pending. Copied or
    pickled, as into a checkpoint, it is a plain ``HistoryBuffer``.
    """

    _logs: np.ndarray
    _counts: np.ndarray

    def __init__(self, buffer: HistoryBuffer, limit: int = 1000) -> None:
        self._pending: list[Any] = []
        self._kind: Any = None  # device and dtype of the pending tensors
        self._limit = limit
        super().__init__(*buffer.data, buffer.max_length)

    def append(self, value: int | float | Tensor) -> None:
        """Append a value without waiting for the device."""
        kind = (value.device, value.dtype) if isinstance(value, Tensor) else None
        if kind != self._kind:
            self._receive()
            self._kind = kind
        if isinstance(value, Tensor):
            # A copy: compiled with CUDA graphs, the next step overwrites what this one returned.
            value = value.detach().reshape(()).clone()
        self._pending.append(value)
        if len(self._pending) >= self._limit:
            self._receive()

    def update(self, log_val: int | float, count: int = 1) -> None:
        """Append a value, as MMEngine's own hooks do."""
        if count == 1 and isinstance(log_val, (int, float)):
            self.append(log_val)
        else:
            super().update(log_val, count)

    def current(self) -> Any:
        """Return the latest value; of numbers without a look at the history."""
        return self._pending[-1] if self._pending and not self._kind else super().current()

    def _receive(self) -> None:
        values, self._pending = self._pending, []
        if values:
            # One copy of the history for all values; MMEngine copies it for each.
            new = np.array(torch.stack(values).tolist() if self._kind else values)
            # An empty history is an array of floats, and integers stay integers.
            logs = np.append(self._logs, new) if len(self._logs) else new
            counts = np.append(self._counts, np.ones(len(new), int)).astype(int)
            self._logs, self._counts = logs[-self.max_length :], counts[-self.max_length :]

    @property
    def _log_history(self) -> np.ndarray:
        self._receive()
        return self._logs

    @_log_history.setter
    def _log_history(self, logs: np.ndarray) -> None:
        self._logs = logs

    @property
    def _count_history(self) -> np.ndarray:
        self._receive()
        return self._counts

    @_count_history.setter
    def _count_history(self, counts: np.ndarray) -> None:
        self._counts = counts

    def __reduce__(self) -> tuple:
        return HistoryBuffer, (*self.data, self.max_length)


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, without waiting for the device at every iteration.

    MMEngine copies each logged tensor to the host when its iteration ends, so that the host cannot
    prepare the next one ahead. Here the values of many iterations stay on the device. They arrive
    together when a logged value is read, by a log line, a checkpoint or another hook. Log
    lines, JSON files and checkpoints are MMEngine's, digit for digit. With a log line every 100
    iterations the host waits once in 100; the ``time`` in it is then that of the host, which runs
    ahead of a GPU, while ``eta`` remains right.

    A long run does not slow down: MMEngine copies the whole history of a value to append one. The
    times that ``IterTimerHook`` logs are appended like the others.

    Use it as ``default_hooks=dict(runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'))``.

    Args:
        limit: Number of iterations after which values are transferred at the latest.

    Raises:
        ValueError: If ``limit`` is not a positive integer.
    """

    changes_training = False

    def __init__(self, limit: int = 1000) -> None:
        self.limit = check_count("limit", limit)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Note the iteration and the learning rates."""
        runner.message_hub.update_info("iter", runner.iter)
        for key in ("train/time", "train/data_time"):  # of IterTimerHook
            if key in runner.message_hub.log_scalars:
                self._buffer(runner.message_hub, key)
        for name, values in runner.optim_wrapper.get_lr().items():
            self._note(runner.message_hub, f"train/{name}", values[0])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Note what the model logs."""
        for name, value in (outputs or {}).items():
            self._note(runner.message_hub, f"train/{name}", value)

    def _note(self, hub: MessageHub, key: str, value: Any) -> None:
        single = isinstance(value, Tensor) and value.numel() == 1
        if not single and not isinstance(value, (int, float)):
            hub.update_scalar(key, value)  # MMEngine converts it, or says what is wrong with it
            return
        self._buffer(hub, key).append(value)

    def _buffer(self, hub: MessageHub, key: str) -> LazyBuffer:
        buffer = hub.log_scalars.get(key)
        if buffer is None:
            hub.update_scalar(key, 0)  # which lets checkpoints hold it
            buffer = HistoryBuffer()
        if not isinstance(buffer, LazyBuffer):  # at first, and after a checkpoint was loaded
            buffer = hub.log_scalars[key] = LazyBuffer(buffer, self.limit)
        return buffer
