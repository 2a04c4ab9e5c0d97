"""Training by iterations that goes on where it was."""

from typing import Any

import torch
from mmengine.runner import IterBasedTrainLoop, Runner

from mmkd_logit.hooks._place import Place
from mmkd_logit.registry import LOOPS

from ._endless_batches import EndlessBatches
from ._loader_workers import say_what_workers_draw
from ._served_batches import ServedBatches
from ._validation import validate_if_due


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """MMEngine's loop, exact when a run is resumed; see :class:`ResumeStateHook`.

    Batches that were served are passed over in the batch sampler and not loaded, with an
    endless sampler and with others, and a validation that a run did not live to do is done first.

    Args:
        runner: Of the run.
        dataloader: As of MMEngine's loop.
        max_iters: As of MMEngine's loop.
        **kwargs: As of MMEngine's loop: when to validate, and whether nothing is passed over.
    """

    def __init__(self, runner: Runner, dataloader: Any, max_iters: int, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            # MMEngine 0.10 opens the loader here, and workers would read ahead in an endless
            # sampler, which nobody puts back.
            diff_rank_seed = runner._randomness_cfg.get("diff_rank_seed", False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        self._served = ServedBatches.install(dataloader)
        with self._served.closed():
            super().__init__(runner, dataloader, max_iters, **kwargs)
        self.dataloader_iterator = EndlessBatches(self.dataloader)
        self.place = Place()
        self._resumed = False
        self._ahead = 0  # of batches before iterations, where these have another size now

    def go_on_from(self, place: Place) -> None:
        """Begin elsewhere than at the beginning.

        Args:
            place: Of a checkpoint.
        """
        self.place = place
        self._resumed = True

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook("before_train")
        # The whole training is one epoch to hooks.
        self.runner.call_hook("before_train_epoch")
        if self._resumed:
            self._go_on()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            validate_if_due(self, self._iter, self._max_iters)
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _go_on(self) -> None:
        self._resumed = False
        self._ahead = self.place.batch - self.place.iter
        say_what_workers_draw(self.dataloader, self.runner, within=True)
        if not getattr(self, "fast_forward_on_resume", False):
            self._served.pass_over(self.place.batch, self.dataloader_iterator.begin_pass)
        self.dataloader_iterator.open()
        self.runner.call_hook("restore_state")
        if not self.place.validated:
            validate_if_due(self, self._iter, self._max_iters)

    def run_iter(self, data_batch: Any) -> None:
        """Train for an iteration.

        Args:
            data_batch: Of the data loader.
        """
        done = self._iter + 1
        self.place = Place(self._epoch, done, done + self._ahead, validated=False)
        super().run_iter(data_batch)
