"""Saving when the machine is wanted back."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any

import torch
import torch.distributed as dist
from mmengine.dist import barrier, get_comm_device, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmkd_logit.registry import HOOKS

from .save import INTERRUPTED, point_to, save_atomically

_LAG = 10  # iterations after which a GPU has surely come as far


class Agreement:
    """The largest number that any process gives, known to all at the same call.

    The answer is that of an earlier call, of the one before on CPUs: by then it has arrived, and
    neither a process nor its GPU stands still for it.
    """

    def __init__(self) -> None:
        self._alone = get_world_size() == 1
        self._waiting: deque[tuple[Any, Tensor, Any]] = deque()

    def __call__(self, number: int) -> int:
        """Give a number and learn what was agreed on; all processes call this equally often."""
        if self._alone:
            return number
        self._waiting.append(_ask(number))
        on_gpu = self._waiting[0][2] is not None
        return self._answer() if len(self._waiting) > (_LAG if on_gpu else 1) else 0

    def finish(self, number: int) -> int:
        """Give a last number and wait for all answers."""
        if self._alone:
            return number
        self._waiting.append(_ask(number))
        return max(self._answer() for _ in range(len(self._waiting)))

    def _answer(self) -> int:
        work, value, arrived = self._waiting.popleft()
        if arrived is None:
            work.wait()
        else:
            arrived.synchronize()
        return int(value)


def _ask(number: int) -> tuple[Any, Tensor, Any]:
    value = torch.tensor([number], device=get_comm_device())
    work = dist.all_reduce(value, op=dist.ReduceOp.MAX, async_op=True)
    if not value.is_cuda:
        return work, value, None
    work.wait()  # the stream does, the process does not
    host = torch.empty(1, dtype=value.dtype, pin_memory=True)
    host.copy_(value, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return work, host, arrived


# Signals by which a scheduler wants its machine back.


EXIT_CODES = {
    signal.SIGTERM: 128 + signal.SIGTERM,  # what shells and schedulers show of it
    signal.SIGUSR1: os.EX_TEMPFAIL,  # 75: try again later
    signal.SIGUSR2: os.EX_TEMPFAIL,
}
_ONE_EVENT = 2.0  # seconds: a scheduler may tell torchrun and the processes that it started


class StopSignals:
    """Notes SIGTERM and SIGUSR1; a second one ends the process at once.

    SIGUSR2 is noted where somebody listens to it already, as submitit does. Signals are for the
    main thread; in another, none are noted.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Begin."""
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        for number in EXIT_CODES:
            before = signal.getsignal(number)
            if number != signal.SIGUSR2 or callable(before):
                self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Let those have the signals who had them before."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def hand_over(self, number: int) -> None:
        """Let him react who listened before us, if anybody did."""
        handler: Callable | Any = self._before.get(number)
        self.restore()
        if callable(handler):
            signal.raise_signal(number)

    def _note(self, number: int, frame: Any) -> None:
        if not self.asked:
            self.asked, self._since = number, time.monotonic()
            if os.environ.get("LOCAL_RANK", "0") == "0":
                name = signal.Signals(number).name
                text = f"{name}: stops after this iteration; a second one stops at once\n"
                os.write(2, text.encode())  # print may be what was interrupted
        elif time.monotonic() - self._since >= _ONE_EVENT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


# Signals to the workers of data loaders.


class StaysUntilToldTwice:
    """Start of a data loader's worker that leaves the first signal to the process that it is of.

    Launchers send signals to all processes of a run, and one that loses its workers fails. Its own
    process ends a worker by SIGTERM too: that one is obeyed at once, or the run would wait for it
    for ever. Who sent a signal is known where no other thread can take it: in workers that are
    forked, MMEngine's default, on Linux. Others end at the first SIGTERM, whoever sends it. SIGTERM
    stays blocked in programs that a transform starts.
    """

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self._start = start

    def __call__(self, worker: int) -> None:
        """Prepare a worker."""
        if _is_alone() and hasattr(signal, "sigwaitinfo"):  # which says who sent it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_wait, args=(_owner(),), daemon=True).start()
        elif hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if self._start is not None:
            self._start(worker)


def start_protected(loader: DataLoader) -> None:
    """Protect the workers of a loader from their first moment on, not when they are ready."""
    forks = multiprocessing.get_start_method() == "fork"
    if loader.num_workers and loader.multiprocessing_context is None and forks:
        loader.multiprocessing_context = _ProtectedContext()


class _ProtectedProcess(ForkProcess):
    def start(self) -> None:
        """Start with SIGTERM blocked, which waits until the worker looks at its sender."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _ProtectedContext(ForkContext):
    Process = _ProtectedProcess


def _is_alone() -> bool:
    """Whether this process has one thread; those that are there keep taking signals."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _owner() -> int | None:
    parent = multiprocessing.parent_process()
    return os.getppid() if parent is None else parent.pid


def _wait(owner: int | None) -> None:
    for _ in range(2):
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == owner:
            os._exit(0)  # as torch's workers do; the loader takes other statuses for failures
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.kill(os.getpid(), signal.SIGTERM)


# A run whose machine is wanted back.


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
