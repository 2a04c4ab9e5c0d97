"""Log values that do not keep the device waiting."""

from collections.abc import Iterable
from typing import Any

from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from mmkd_logit.registry import HOOKS

from ._lazy_history import LazyHistory
from ._pending_values import PendingValues


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
