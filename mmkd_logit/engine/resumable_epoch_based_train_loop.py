"""Training by epochs that can go on within one."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd_logit.hooks._place import Place
from mmkd_logit.registry import LOOPS

from ._loader_workers import say_what_workers_draw
from ._served_batches import ServedBatches
from ._validation import validate_if_due


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    A checkpoint may be written after any iteration. The epoch is then entered where it was left:
    batches that were served are passed over in the batch sampler and not loaded, iterations keep
    their numbers, and hooks see each iteration once. A validation that a run did not live to do
    is done first. Without interruption it does what MMEngine's does, bit for bit.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_epochs: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_epochs: int, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, max_epochs, **kwargs)
        self.place = Place()
        self._served = ServedBatches.install(self.dataloader)
        self._resumed = False
        self._passed_over = 0

    def go_on_from(self, place: Place) -> None:
        """Begin elsewhere than at the beginning.

        Args:
            place: Of a checkpoint.
        """
        size = len(self.dataloader)
        self.place = place._replace(batch=place.batch if 0 <= place.batch <= size else 0)
        self._resumed = True

    def batches_before(self, epoch: int) -> int:
        """Return how many batches the epochs before one have.

        Args:
            epoch: From 0 on.
        """
        return epoch * len(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        if self._resumed:
            self._go_on()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            validate_if_due(self, self._epoch, self._max_epochs)
        self.runner.call_hook("after_train")
        return self.runner.model

    def _go_on(self) -> None:
        self._passed_over = self.place.batch
        say_what_workers_draw(self.dataloader, self.runner, within=bool(self.place.batch))
        if not self.place.batch:
            self.runner.call_hook("restore_state")
            if not self.place.validated:
                validate_if_due(self, self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """Train for an epoch, or for the rest of one."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        first, self._passed_over = self._passed_over, 0
        for idx, data_batch in enumerate(self._open(first), first):
            self.run_iter(idx, data_batch)
        self.place = Place(self._epoch + 1, self._iter, 0, validated=False)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Train for an iteration.

        Args:
            idx: Of the batch in the epoch.
            data_batch: Of the data loader.
        """
        # What hooks save of this iteration goes on after it.
        self.place = Place(self._epoch, self._iter + 1, idx + 1)
        super().run_iter(idx, data_batch)

    def _open(self, first: int) -> Iterator:
        """Make the loader ready; afterwards the random states are those of a run without a stop."""
        if not self._resumed:
            return iter(self.dataloader)
        self._resumed = False
        if first:
            self._served.pass_over(first)
            batches = iter(self.dataloader)
            self.runner.call_hook("restore_state")
            return batches
        with self._as_before():
            return iter(self.dataloader)

    def _as_before(self) -> Any:
        """Keep the random states where the run had its workers already."""
        # Not above: command lines read this before they silence mmpretrain's warnings.
        from mmkd_logit.models._random_state import preserve_random_state

        had = self.dataloader.persistent_workers and self._iter > 0
        return preserve_random_state() if had else nullcontext()
