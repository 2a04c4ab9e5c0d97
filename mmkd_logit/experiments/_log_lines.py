"""What a run prints."""

import time
from pathlib import Path


class LogLines:
    """The lines that are added to a log from now on.

    Args:
        log: It need not exist yet.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._looked = time.monotonic()
        self._place = log.stat().st_size if log.is_file() else 0

    def age(self) -> float:
        """Return the seconds since they were read last."""
        return time.monotonic() - self._looked

    def read(self) -> list[str]:
        """Return the lines since they were read last."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as file:
            file.seek(self._place)
            text = file.read().decode(errors="replace")
            self._looked, self._place = time.monotonic(), file.tell()
        return text.splitlines()
