"""Log values that stay on the device until a log is read."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_count


class PendingValues:
    """Values that their buffers are still to receive, in the order of iterations."""

    def __init__(self) -> None:
        # For each iteration and kind of value: the kind, the buffers, and a value for each.
        self._rows: list[tuple[Any, list[HistoryBuffer], Any]] = []
        self._waiting: set[int] = set()

    def has(self, buffer: HistoryBuffer) -> bool:
        """Return whether values of a buffer are pending."""
        return id(buffer) in self._waiting

    def add(self, values: Iterable[tuple[HistoryBuffer, int | float | Tensor]]) -> None:
        """Keep numbers, and copies of tensors by one operation for each device and dtype."""
        kinds: dict[Any, list] = {}
        for buffer, value in values:
            kind = (value.device, value.dtype) if isinstance(value, Tensor) else None
            kinds.setdefault(kind, []).append((buffer, value))
        for kind, pairs in kinds.items():
            buffers: list[HistoryBuffer] = [buffer for buffer, _ in pairs]
            kept: Any = [value for _, value in pairs]
            if kind is not None:
                # A copy: compiled with CUDA graphs, the next step overwrites what this returned.
                kept = torch.stack([value.detach().reshape(()) for value in kept])
            self._rows.append((kind, buffers, kept))
            self._waiting.update(map(id, buffers))

    def flush(self) -> None:
        """Give the buffers their values: one transfer for each device and dtype."""
        rows, self._rows, self._waiting = self._rows, [], set()
        tensors: dict[Any, list[Tensor]] = {}
        for kind, _, values in rows:
            if kind is not None:
                tensors.setdefault(kind, []).append(values)
        arrived = {kind: iter(torch.cat(values).tolist()) for kind, values in tensors.items()}
        found: dict[int, tuple[HistoryBuffer, list]] = {}
        for kind, buffers, values in rows:
            for buffer, value in zip(buffers, arrived.get(kind, values), strict=False):
                found.setdefault(id(buffer), (buffer, []))[1].append(value)
        for buffer, new in found.values():
            _extend(buffer, new)


def _extend(buffer: HistoryBuffer, values: list) -> None:
    """Append values by one copy of the history, where ``update`` copies it for each value."""
    history, counts = buffer.data
    # An empty history is an array of floats, and integers stay integers.
    logs = np.append(history, values) if len(history) else np.array(values)
    buffer._log_history = logs[-buffer.max_length :]
    buffer._count_history = np.append(counts, [1] * len(values)).astype(int)[-buffer.max_length :]


class LazyScalars(OrderedDict):
    """The buffers of a message hub, which receive what is pending before one is read.

    Copied or pickled, as into a checkpoint, it is a plain ``OrderedDict``.
    """

    def __init__(self, buffers: dict[str, HistoryBuffer], pending: PendingValues) -> None:
        super().__init__(buffers)
        self.pending = pending

    def __getitem__(self, key: str) -> HistoryBuffer:
        buffer = super().__getitem__(key)
        if self.pending.has(buffer):  # MMEngine's timer reads its own in every iteration
            self.pending.flush()
        return buffer

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def items(self) -> Any:
        self.pending.flush()
        return super().items()

    def values(self) -> Any:
        self.pending.flush()
        return super().values()

    def __reduce__(self) -> tuple:
        return OrderedDict, (list(self.items()),)


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook``, without waiting for the device at every iteration.

    MMEngine copies each logged tensor to the host when its iteration ends, so that the host cannot
    prepare the next one ahead. Here the values of many iterations stay on the device. They arrive
    in one transfer when a logged value is read, by a log line, a checkpoint or another hook. Log
    lines, JSON files and checkpoints are MMEngine's, digit for digit. With a log line every 100
    iterations the host waits once in 100; the ``time`` in it is then that of the host, which runs
    ahead of a GPU, while ``eta`` remains right.

    A long run does not slow down: MMEngine copies the whole history of a value to append one.

    Use it as ``default_hooks=dict(runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'))``.

    Args:
        limit: Number of iterations after which values are transferred at the latest.

    Raises:
        ValueError: If ``limit`` is not a positive integer.
    """

    changes_training = False

    def __init__(self, limit: int = 1000) -> None:
        self.limit = check_count("limit", limit)
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
        """Leave plain buffers behind."""
        self._pending.flush()
        runner.message_hub._log_scalars = OrderedDict(runner.message_hub.log_scalars)
        super().after_train(runner)

    def _note(self, hub: MessageHub, values: Iterable[tuple[str, Any]]) -> None:
        scalars = hub.log_scalars
        if not isinstance(scalars, LazyScalars):  # at first, and after a checkpoint was loaded
            scalars = hub._log_scalars = LazyScalars(scalars, self._pending)
        noted = []
        for name, value in values:
            key = f"train/{name}"
            single = isinstance(value, Tensor) and value.numel() == 1
            if single or isinstance(value, (int, float)):
                if key not in scalars:
                    hub.update_scalar(key, 0)  # which lets checkpoints hold it
                    scalars[key] = HistoryBuffer()
                noted.append((OrderedDict.__getitem__(scalars, key), value))
            else:  # MMEngine converts it, or says what is wrong with it
                hub.update_scalar(key, value)
        self._pending.add(noted)
