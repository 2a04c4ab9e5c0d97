"""Rows of logits at fixed places in memory, each with a checksum."""

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

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

    Args:
        size: How many rows there are.
        num_classes: K.
        dtype: ``'float32'`` or ``'float16'``.
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
        """Look rows up.

        Args:
            numbers: Of the rows (N,), int64, from 0; those from ``size`` on are missing.
            device: Where the logits are wanted.

        Returns:
            Logits (N, K) in ``dtype``, of any value where missing; and which are there (N,).
        """
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

        Args:
            numbers: Of the rows (N,), int64; those from ``size`` on are passed over.
            logits: (N, K), in ``dtype``.

        Raises:
            ValueError: If logits of another number of classes come, or too large ones for
                float16.
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
        """Store what has arrived from the GPU.

        Args:
            wait: Also what is still under way.
        """
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
        """Count the rows whose checksum does not fit, by reading all.

        Args:
            rows: How many are read at a time.
        """
        wrong = 0
        for start in range(0, self.size, rows):
            sums = self._sums[start : start + rows]
            numbers = start + np.flatnonzero(sums)
            words = self._rows.take(numbers, axis=0)
            wrong += int((self._sums.take(numbers) != self._checksum(words, numbers)).sum())
        return wrong


def check_shape(logits: Tensor, images: int, num_classes: int) -> None:
    """Make sure that there is a row of logits for each image.

    Args:
        logits: Those of the teacher.
        images: How many there should be.
        num_classes: K.

    Raises:
        ValueError: If there are others.
    """
    if logits.shape != (images, num_classes):
        raise ValueError(
            f"the teacher cache is for {num_classes} classes, got logits of shape "
            f"{tuple(logits.shape)} for {images} images"
        )


def words_of_row(num_classes: int, dtype: str) -> int:
    """Return how many 32-bit words a row takes.

    Args:
        num_classes: K.
        dtype: ``'float32'`` or ``'float16'``.
    """
    return -(-num_classes * np.dtype(_DTYPES[dtype]).itemsize // 4)


def _weights(count: int) -> np.ndarray:
    """Return odd 64-bit numbers that look drawn (splitmix64), the same ones for ever."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed | np.uint64(1)
