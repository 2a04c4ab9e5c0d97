"""A run whose machine is wanted back."""

import signal
from typing import Any

from mmengine.dist import barrier
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd_logit.registry import HOOKS

from ._agreement import Agreement
from ._saving import INTERRUPTED, point_to, save_atomically
from ._stop_signals import EXIT_CODES, StopSignals
from ._worker_signals import StaysUntilToldTwice, start_protected


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save a checkpoint and end the run when SIGTERM or SIGUSR1 comes.

    After the current iteration, the same one for all processes, ``interrupted.pth`` is written,
    from which the run goes on with ``--resume``. The exit status is 143 (128 + SIGTERM) or, for
    SIGUSR1 and for the SIGUSR2 of submitit, 75 (EX_TEMPFAIL, to be tried again); a handler that was
    there before ours, such as submitit's, which queues the job anew, is called first. A second
    signal, two seconds or more later, ends the process at once: the last checkpoint is whole.

    Of a training loop of MMEngine's that cannot go on within an epoch, nothing is written, and the
    last checkpoint stays the one to resume from. One process learns at each iteration of a signal
    that came, several at the next one (after ten on GPUs), without waiting for each other.
    """

    changes_training = False
    priority = "LOWEST"

    def __init__(self) -> None:
        self.stopped: str | None = None
        self._signals = StopSignals()
        self._agree = Agreement()

    def before_train(self, runner: Runner) -> None:
        """Listen from now on."""
        self.stopped, self._agree = None, Agreement()
        self._signals.listen()
        loops = (runner.train_loop, runner.val_loop)
        for loader in (getattr(loop, "dataloader", None) for loop in loops):
            start = getattr(loader, "worker_init_fn", None)
            if loader is not None and not isinstance(start, StaysUntilToldTwice):
                loader.worker_init_fn = StaysUntilToldTwice(start)
                start_protected(loader)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Save and end the run, if all processes have agreed to.

        Raises:
            SystemExit: Then.
        """
        number = self._agree(self._signals.asked)
        if number:
            self._save(runner, signal.Signals(number).name)
            self._end(number)

    def after_train(self, runner: Runner) -> None:
        """End the run if the signal came after its last iteration; else listen no more.

        Raises:
            SystemExit: Then.
        """
        number = self._agree.finish(self._signals.asked)
        if number:
            self.stopped = f"stopped by {signal.Signals(number).name} at the end of training"
            self._end(number)
        self.release()

    def release(self) -> None:
        """Listen no more."""
        self._signals.restore()

    def _save(self, runner: Runner, name: str) -> None:
        done = f"stopped by {name} after iteration {runner.iter + 1} of {runner.max_iters}"
        if not _goes_on_within_epochs(runner):
            self.stopped = f"{done}, to go on from the last checkpoint"
            return
        hook = next((each for each in runner.hooks if isinstance(each, CheckpointHook)), None)
        if getattr(hook, "saved_after", None) == runner.iter + 1:
            self.stopped = f"{done}, which is saved"
            barrier()
            return
        folder = getattr(hook, "out_dir", None) or runner.work_dir
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        backend = getattr(hook, "backend_args", None)
        save_atomically(runner, folder, INTERRUPTED, meta=meta, backend_args=backend)
        path = f"{folder.rstrip('/')}/{INTERRUPTED}"
        point_to(runner, path)
        barrier()  # a process that ends has the others ended
        self.stopped = f"{done}, saved as {path}"

    def _end(self, number: int) -> None:
        self._signals.hand_over(number)
        raise SystemExit(EXIT_CODES[signal.Signals(number)])


def _goes_on_within_epochs(runner: Runner) -> bool:
    """Whether a checkpoint of this iteration can be resumed exactly."""
    loop = runner.train_loop
    return not isinstance(loop, EpochBasedTrainLoop) or hasattr(loop, "place")
