"""Signals by which a scheduler wants its machine back."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

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
        """Let him react who listened before us, if anybody did.

        Args:
            number: Of the signal.
        """
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
