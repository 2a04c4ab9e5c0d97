"""Rows of numbers in a sparse file, read where they are."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np


class RowFile:
    """What :class:`DiskStore` needs of a mapped array, by calls of the system.

    On a disk in memory (tmpfs), to look at a place of a mapped file that was never written takes
    memory of the disk; where it has none left, that ends the process (SIGBUS).

    Args:
        path: Of the file.
        shape: Of its 32-bit words, (N, W) or (N,).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self._file)

    def take(self, numbers: np.ndarray, axis: int = 0) -> np.ndarray:
        """Return rows.

        Args:
            numbers: Which ones, (M,).
            axis: The first.
        """
        assert axis == 0
        size = 4 * int(np.prod(self.shape[1:], dtype=np.int64))
        parts = [os.pread(self._file, size, number * size) for number in numbers.tolist()]
        return self._words(parts, len(numbers))

    def __getitem__(self, rows: slice) -> np.ndarray:
        size = 4 * int(np.prod(self.shape[1:], dtype=np.int64))
        start, stop, _ = rows.indices(self.shape[0])
        content = os.pread(self._file, (stop - start) * size, start * size)
        return self._words([content], stop - start)

    def _words(self, parts: list[bytes], rows: int) -> np.ndarray:
        words = np.zeros((rows, *self.shape[1:]), np.uint32)
        content = b"".join(parts)
        flat = np.frombuffer(content[: len(content) // 4 * 4], np.uint32)
        words.reshape(-1)[: len(flat)] = flat  # of a file that was cut short, the rest is missing
        return words


def open_rows(path: Path, shape: tuple[int, ...]) -> Any:
    """Return the rows of a file, mapped where that is safe.

    Args:
        path: Of the file.
        shape: Of its 32-bit words.
    """
    if lies_in_memory(path):
        return RowFile(path, shape)
    return np.asarray(np.memmap(path, np.uint32, "r", shape=shape))


def lies_in_memory(path: Path) -> bool:
    """Whether a file lies on a tmpfs (Linux).

    Args:
        path: Of the file.
    """
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == device:
                return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    return False
