"""Saving when a scheduler wants the machine back."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.util import Finalize
from typing import Any, NoReturn

import torch
from mmengine.dist import all_reduce, barrier, get_comm_device, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmkd_logit.registry import HOOKS

from .save import INTERRUPTED, record_checkpoint, save_atomically

EXIT_CODES = {
    signal.SIGTERM: 128 + signal.SIGTERM,  # what shells and schedulers show of it
    signal.SIGUSR1: os.EX_TEMPFAIL,  # 75: try again later
    signal.SIGUSR2: os.EX_TEMPFAIL,
}
_ONE_EVENT = 2.0  # seconds: a scheduler may notify torchrun and the processes that it started
_GPU_INTERVAL = 10  # iterations: to agree on a stop, the host waits for the GPU


# Launchers send signals to all processes of a run, and one that loses its workers fails. A worker
# ends when its loader tells it to, and when its process is gone.


class _Worker(ForkProcess):
    """A data loader's worker, in which the signals to stop are blocked from its start on."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _WorkerContext(ForkContext):
    Process = _Worker


def protect_workers(loader: DataLoader) -> None:
    """Leave the signals to stop to the process that the workers of a loader work for."""
    context: Any = loader.multiprocessing_context or multiprocessing
    if loader.num_workers and context.get_start_method() == "fork":
        loader.multiprocessing_context = _WorkerContext()
    # A program that ends sends SIGTERM to the workers that are left, and waits for them.
    Finalize(None, _kill_workers, exitpriority=0)


def _kill_workers() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for killed workers
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save a checkpoint and end the run when SIGTERM or SIGUSR1 comes.

    After the current iteration, the same one for all processes, ``interrupted.pth`` is written,
    from which the run goes on with ``--resume``. The exit status is 143 (128 + SIGTERM) or, for
    SIGUSR1 and for the SIGUSR2 of submitit, 75 (EX_TEMPFAIL, to be tried again); a handler that was
    there before ours, such as submitit's, which queues the job anew, is called first. A second
    signal, two seconds or more later, ends the process at once: the last checkpoint is whole.

    Of a training loop of MMEngine's that cannot go on within an epoch, nothing is written, and the
    last checkpoint stays the one to resume from. Several processes on GPUs agree on a stop every
    tenth iteration. Signals are for the main thread; in another, none are noted.
    """

    changes_training = False
    priority = "LOWEST"

    def __init__(self) -> None:
        self.stopped: str | None = None
        self._asked = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Listen from now on."""
        self.stopped = None
        self.listen()
        for loop in (runner.train_loop, runner.val_loop):
            if isinstance(getattr(loop, "dataloader", None), DataLoader):
                protect_workers(loop.dataloader)

    def listen(self) -> None:
        """Install the handlers; of SIGUSR2, where another one exists already."""
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        for number in EXIT_CODES:
            before = signal.getsignal(number)
            if number != signal.SIGUSR2 or callable(before):
                self._before[number] = signal.signal(number, self._note)

    def release(self) -> None:
        """Put the handlers back that were there before."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: Any) -> None:
        if not self._asked:
            self._asked, self._since = number, time.monotonic()
            if os.environ.get("LOCAL_RANK", "0") == "0":
                name = signal.Signals(number).name
                text = f"{name}: stops after this iteration; a second one stops at once\n"
                os.write(2, text.encode())  # print may be what was interrupted
        elif time.monotonic() - self._since >= _ONE_EVENT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Save and end the run, if a signal came to any process."""
        wait = _GPU_INTERVAL if get_comm_device().type == "cuda" and get_world_size() > 1 else 1
        number = self._agree() if (runner.iter + 1) % wait == 0 else 0
        if number:
            done = f"after iteration {runner.iter + 1} of {runner.max_iters}"
            self._end(number, f"{done}, {self._save(runner)}")

    def after_train(self, runner: Runner) -> None:
        """End the run if the signal came after its last iteration; else listen no more."""
        number = self._agree()
        if number:
            self._end(number, "at the end of training")
        self.release()

    def _agree(self) -> int:
        """Return the largest number of a signal that came to any process; all call this."""
        if get_world_size() == 1:
            return self._asked
        number = torch.tensor(self._asked, device=get_comm_device())
        all_reduce(number, "max")
        return int(number)

    def _save(self, runner: Runner) -> str:
        """Save a checkpoint where it can be resumed exactly, and say so."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop) and not hasattr(loop, "progress"):
            return "to go on from the last checkpoint"
        hook = next((each for each in runner.hooks if isinstance(each, CheckpointHook)), None)
        folder = getattr(hook, "out_dir", None) or runner.work_dir
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        backend = getattr(hook, "backend_args", None)
        save_atomically(runner, folder, INTERRUPTED, meta=meta, backend_args=backend)
        path = f"{folder.rstrip('/')}/{INTERRUPTED}"
        record_checkpoint(runner, path)
        barrier()  # a process that ends has the others ended
        return f"saved as {path}"

    def _end(self, number: int, where: str) -> NoReturn:
        self.stopped = f"stopped by {signal.Signals(number).name} {where}"
        before = self._before.get(number)
        self.release()
        if callable(before):
            signal.raise_signal(number)
        raise SystemExit(EXIT_CODES[signal.Signals(number)])
