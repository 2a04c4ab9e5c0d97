"""Signals to the workers of data loaders."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.context import ForkContext, ForkProcess

from torch.utils.data import DataLoader


class StaysUntilToldTwice:
    """Start of a data loader's worker that leaves the first signal to the process that it is of.

    Launchers send signals to all processes of a run, and one that loses its workers fails. Its own
    process ends a worker by SIGTERM too: that one is obeyed at once, or the run would wait for it
    for ever. Who sent a signal is known where no other thread can take it: in workers that are
    forked, MMEngine's default, on Linux. Others end at the first SIGTERM, whoever sends it. SIGTERM
    stays blocked in programs that a transform starts.

    Args:
        start: What the worker did before.
    """

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self._start = start

    def __call__(self, worker: int) -> None:
        """Prepare a worker.

        Args:
            worker: Its number.
        """
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
    """Have the workers of a loader protected from their first moment on, not when they are ready.

    Args:
        loader: Whose workers are forked; others are left alone.
    """
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
