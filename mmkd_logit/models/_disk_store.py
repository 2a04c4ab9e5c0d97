"""Rows of logits in files that several processes read and write at once."""

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmkd_logit._atomic_files import write_text

from ._logit_store import LogitStore, words_of_row
from ._row_file import open_rows

META, ROWS, SUMS, LOCK = "meta.json", "logits.bin", "checksums.bin", "lock"


class DiskStore(LogitStore):
    """A :class:`LogitStore` in a folder, memory-mapped.

    The files are sparse and as long as the whole data set needs; places are written as they are
    filled. Reading goes through the mapping and writing through ``pwrite``, as a full disk is
    then an error that can be caught and not a signal that ends the process. Files need no lock:
    whatever two writers leave behind is checked by its checksum.

    Args:
        folder: Made where it does not exist.
        meta: What the folder is for, with ``rows`` (how many there are), ``num_classes`` and
            ``dtype``; written to ``meta.json`` by the first process.
        size: How many rows, from the first on, are used.
        look: Only look at what is there; the time of the last use stays.

    Raises:
        OSError: If the folder can neither be made nor read.
        ValueError: If only to be looked at, and the files are not as long as ``meta`` says.
    """

    def __init__(
        self, folder: str | Path, meta: dict[str, Any], size: int, look: bool = False
    ) -> None:
        self.folder, self.meta = Path(folder), meta
        self.writable = not look
        self._files: list[int] = []
        super().__init__(size, meta["num_classes"], meta["dtype"])

    def _allocate(self) -> tuple[np.ndarray, np.ndarray]:
        rows, words = self.meta["rows"], words_of_row(self.meta["num_classes"], self.meta["dtype"])
        lengths = {ROWS: rows * words * 4, SUMS: rows * 4}
        if self.writable:
            self._prepare(lengths)
        elif not self._complete(lengths):
            raise ValueError(f"{self.folder} lacks files, or they were cut short")
        mode = os.O_RDWR if self.writable else os.O_RDONLY
        self._files = [os.open(self.folder / name, mode) for name in lengths]
        shapes = {ROWS: (rows, words), SUMS: (rows,)}
        found = [open_rows(self.folder / name, shape) for name, shape in shapes.items()]
        return found[0], found[1]

    def _prepare(self, lengths: dict[str, int]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / LOCK):
                self._create(lengths)
        except OSError as error:
            if not self._complete(lengths):
                raise
            self._read_only(str(error))

    def _create(self, lengths: dict[str, int]) -> None:
        """Bring the files to their length, and note what they hold once they have it."""
        for name, length in lengths.items():
            file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                # Cut short by somebody, the rest reads as zeros, that is, as missing.
                if os.fstat(file).st_size != length:
                    os.ftruncate(file, length)
            finally:
                os.close(file)
        path = self.folder / META
        if read_meta(path) == self.meta:
            os.utime(path)  # the time of the last use
            return
        write_text(path, json.dumps(self.meta, indent=1))

    def _complete(self, lengths: dict[str, int]) -> bool:
        try:
            return all((self.folder / n).stat().st_size == size for n, size in lengths.items())
        except OSError:
            return False

    def _read_only(self, why: str) -> None:
        self.writable = False
        print_log(
            f"The teacher cache {self.folder} is only read from now on: {why}. What it lacks is "
            "computed each time; results do not change.",
            "current",
            level=logging.WARNING,
        )

    def _write(self, numbers: np.ndarray, words: np.ndarray, sums: np.ndarray) -> None:
        if not self.writable:
            return
        try:
            for array, file in zip((words, sums), self._files, strict=True):
                _write_runs(file, numbers, array)
        except OSError as error:  # most likely the disk is full; training need not end for it
            self._read_only(str(error))

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            os.close(file)

    def allocated(self) -> int:
        """Return how many bytes of the disk the files take."""
        return sum((self.folder / name).stat().st_blocks * 512 for name in (ROWS, SUMS))

    def space(self) -> tuple[int, int]:
        """Return how many bytes the used rows may still take, and how many the disk has."""
        wanted = self.size * (self._rows.shape[1] + 1) * 4
        return max(0, wanted - self.allocated()), shutil.disk_usage(self.folder).free


def _write_runs(file: int, numbers: np.ndarray, array: np.ndarray) -> None:
    """Write rows to their places, neighbours together."""
    order = np.argsort(numbers, kind="stable")
    numbers, array = numbers[order], np.ascontiguousarray(array[order])
    length = array.nbytes // max(1, len(array))
    cuts = np.flatnonzero(np.diff(numbers) != 1) + 1
    for start, stop in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
        if start < stop:
            content = memoryview(array[start:stop].tobytes())
            place = int(numbers[start]) * length
            while content:
                written = os.pwrite(file, content, place)
                content, place = content[written:], place + written


def read_meta(path: Path) -> dict[str, Any] | None:
    """Return what the folder of a cache is for, or None where nobody can tell.

    Args:
        path: Its ``meta.json``.
    """
    try:
        meta = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
