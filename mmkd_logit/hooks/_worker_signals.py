"""Signals to the workers of data loaders."""

import signal
from collections.abc import Callable
from typing import Any


class StaysUntilToldTwice:
    """Start of a data loader's worker that leaves the first signal to the process that it is of.

    Launchers send signals to all processes of a run, and one that loses its workers fails.

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
        signal.signal(signal.SIGTERM, _end_next_time)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        if self._start is not None:
            self._start(worker)


def _end_next_time(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_DFL)
