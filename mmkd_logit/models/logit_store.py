"""Where cached logits are kept: in memory, on the device or on disk."""

import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from mmkd_logit.utils.files import write_text


def available_memory() -> int | None:
    """Return the bytes left on this machine, or in the container; None where nobody says."""
    found = [_of_the_machine(), _of_the_container()]
    return min((number for number in found if number is not None), default=None)


def _of_the_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_the_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        # Pages of files count as used and are given up when memory is wanted.
        files = next((int(x.split()[1]) for x in lines if x.startswith("inactive_file ")), 0)
    except (OSError, ValueError, IndexError):  # no limit reads "max"
        return None
    return max(0, limit - used + files)


# Rows of numbers in a sparse file, read where they are.


class RowFile:
    """What :class:`DiskStore` needs of a mapped array, by calls of the system.

    On a disk in memory (tmpfs), to look at a place of a mapped file that was never written takes
    memory of the disk; where it has none left, that ends the process (SIGBUS).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self._file)

    def take(self, numbers: np.ndarray, axis: int = 0) -> np.ndarray:
        """Return rows."""
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
    """Return the rows of a file, mapped where that is safe."""
    if lies_in_memory(path):
        return RowFile(path, shape)
    return np.asarray(np.memmap(path, np.uint32, "r", shape=shape))


def lies_in_memory(path: Path) -> bool:
    """Whether a file lies on a tmpfs (Linux)."""
    number = os.stat(path).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[2] == device:
                return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    return False


# Rows of logits at fixed places in memory, each with a checksum.


_DTYPES = dict(float32=np.float32, float16=np.float16)
TOO_LARGE = (
    "a logit of the teacher does not fit float16, whose largest number is 65504; set "
    "dtype='float32' in the teacher's cache"
)
_PENDING = 8  # copies from a device that may be under way


class LogitStore:
    """Logits (K,) for each of ``size`` numbers, in host memory.

    A row is believed only if its checksum, which is written after it, fits its content and its
    number; 0 stands for an empty place. What was cut short, torn between two writers or damaged
    is therefore missing, never wrong.
    """

    def __init__(self, size: int, num_classes: int, dtype: str) -> None:
        self.size, self.num_classes, self.dtype = size, num_classes, dtype
        self._weights = _weights(words_of_row(num_classes, dtype))
        self._pending: deque[tuple[Any, np.ndarray, Tensor]] = deque()
        self._rows, self._sums = self._allocate()

    def _allocate(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows as 32-bit words and their checksums."""
        size = max(1, self.size)  # of none too, one can be looked up
        rows = np.zeros((size, len(self._weights)), np.uint32)  # the system fills it lazily
        return rows, np.zeros(size, np.uint32)

    def get(self, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, np.ndarray]:
        """Look rows up."""
        known = numbers < self.size
        places = numbers if known.all() else np.where(known, numbers, 0)
        words = self._rows.take(places, axis=0)
        # Compared with a copy: another process may be writing the row this moment.
        found = known & (self._sums.take(places) == self._checksum(words, numbers))
        logits = words.view(_DTYPES[self.dtype])[:, : self.num_classes]
        return torch.from_numpy(logits).to(device, non_blocking=True), found

    def put(self, numbers: np.ndarray, logits: Tensor) -> None:
        """Store rows.

        Those on a GPU are stored at a later call, once they have arrived, so that nobody waits.
        """
        check_shape(logits, len(numbers), self.num_classes)
        if not logits.is_cuda:
            self._store(numbers, logits)
            return
        self.flush(wait=len(self._pending) >= _PENDING)
        host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        host.copy_(logits, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending.append((event, numbers, host))

    def flush(self, wait: bool = True) -> None:
        """Store what has arrived from the GPU."""
        while self._pending and (wait or self._pending[0][0].query()):
            event, numbers, host = self._pending.popleft()
            event.synchronize()
            self._store(numbers, host)

    def _store(self, numbers: np.ndarray, logits: Tensor) -> None:
        known = numbers < self.size
        rows, numbers = logits.numpy()[known], numbers[known]
        if self.dtype == "float16" and not np.isfinite(rows).all():
            raise ValueError(TOO_LARGE)
        padded = np.zeros((len(rows), len(self._weights) * 4 // rows.itemsize), rows.dtype)
        padded[:, : self.num_classes] = rows
        words = padded.view(np.uint32)
        self._write(numbers, words, self._checksum(words, numbers))

    def _write(self, numbers: np.ndarray, words: np.ndarray, sums: np.ndarray) -> None:
        self._rows[numbers] = words
        self._sums[numbers] = sums

    def _checksum(self, words: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        # Multiply-shift hashing (Dietzfelbinger 1996): two different rows agree by a chance of
        # 2**-32, also those whose words end in zeros, as bfloat16 kept as float32 does.
        total = words.astype(np.uint64) @ self._weights
        total += numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.maximum((total >> np.uint64(32)).astype(np.uint32), np.uint32(1))

    @property
    def words(self) -> int:
        """How many 32-bit words a row takes, without its checksum."""
        return len(self._weights)

    def filled(self) -> int:
        """Count the rows that have a checksum, right or wrong."""
        self.flush()
        return int(np.count_nonzero(self._sums[:]))

    def damaged(self, rows: int = 65536) -> int:
        """Count the rows whose checksum does not fit, by reading all."""
        wrong = 0
        for start in range(0, self.size, rows):
            sums = self._sums[start : start + rows]
            numbers = start + np.flatnonzero(sums)
            words = self._rows.take(numbers, axis=0)
            wrong += int((self._sums.take(numbers) != self._checksum(words, numbers)).sum())
        return wrong


def check_shape(logits: Tensor, images: int, num_classes: int) -> None:
    """Make sure that there is a row of logits for each image."""
    if logits.shape != (images, num_classes):
        raise ValueError(
            f"the teacher cache is for {num_classes} classes, got logits of shape "
            f"{tuple(logits.shape)} for {images} images"
        )


def words_of_row(num_classes: int, dtype: str) -> int:
    """Return how many 32-bit words a row takes."""
    return -(-num_classes * np.dtype(_DTYPES[dtype]).itemsize // 4)


def _weights(count: int) -> np.ndarray:
    """Return odd 64-bit numbers that look drawn (splitmix64), the same ones for ever."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed | np.uint64(1)


# Rows of logits where the network computes.


class DeviceStore:
    """Logits (K,) for each of ``size`` numbers, in a tensor on a device.

    Which rows are there is known on the host, so that looking up waits for nothing.
    """

    def __init__(self, size: int, num_classes: int, dtype: str, device: torch.device) -> None:
        self.size, self.num_classes, self.dtype = size, num_classes, dtype
        try:
            self._rows = torch.zeros(size, num_classes, dtype=getattr(torch, dtype), device=device)
            self._there = np.zeros(size, bool)
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
            raise ValueError(
                f"{device} has no room for a teacher cache of "
                f"{size * num_classes * (4 if dtype == 'float32' else 2) / 2**30:.2f} GiB; set a "
                f"smaller max_gib, or storage='memory' or 'disk' ({error})"
            ) from None

    def get(self, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, np.ndarray]:
        """Look rows up; as :meth:`LogitStore.get`."""
        known = numbers < self.size
        places = numbers if known.all() else np.where(known, numbers, 0)
        where = torch.from_numpy(places).to(device, non_blocking=True)
        return self._rows.index_select(0, where), known & self._there.take(places)

    def put(self, numbers: np.ndarray, logits: Tensor) -> None:
        """Store rows; as :meth:`LogitStore.put`."""
        check_shape(logits, len(numbers), self.num_classes)
        if self.dtype == "float16" and not torch.isfinite(logits).all():
            raise ValueError(TOO_LARGE)
        known = np.flatnonzero(numbers < self.size)
        if len(known) < len(numbers):
            chosen = torch.from_numpy(known).to(logits.device, non_blocking=True)
            numbers, logits = numbers[known], logits.index_select(0, chosen)
        where = torch.from_numpy(numbers).to(logits.device, non_blocking=True)
        self._rows.index_copy_(0, where, logits)
        self._there[numbers] = True

    def flush(self, wait: bool = True) -> None:
        """Do nothing; rows are stored at once."""

    def filled(self) -> int:
        """Count the rows that are there."""
        return int(np.count_nonzero(self._there))


# Rows of logits in files that several processes read and write at once.


META, ROWS, SUMS, LOCK = "meta.json", "logits.bin", "checksums.bin", "lock"


class DiskStore(LogitStore):
    """A :class:`LogitStore` in a folder, memory-mapped.

    The files are sparse and as long as the whole data set needs; places are written as they are
    filled. Reading goes through the mapping and writing through ``pwrite``, as a full disk is
    then an error that can be caught and not a signal that ends the process. Files need no lock:
    whatever two writers leave behind is checked by its checksum.
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
    """Return what the folder of a cache is for, or None where nobody can tell."""
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
