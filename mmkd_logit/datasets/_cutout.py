"""Random holes in a whole batch, with given parameters; see ``_crop.py``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._counter_hash import unit


class Cutout:
    """mmpretrain's ``Cutout`` of a fixed shape."""

    draws = 3
    views: int | None = None  # its centre is a point of the plane

    def __init__(self, transform: Any, shape: tuple[int, int, int]) -> None:
        size = transform.shape
        size = (size, size) if isinstance(size, int) else size
        if not isinstance(size, tuple) or len(size) != 2:
            raise ValueError(f"Cutout(shape={size!r}) is not done in memory, only a fixed shape")
        value = np.array(transform.pad_val, dtype=np.uint8)
        if value.ndim and len(value) != shape[0]:
            raise ValueError(f"Cutout's pad_val has {len(value)} values for {shape[0]} channels")
        self._value = torch.from_numpy(np.broadcast_to(value, shape[:1]).copy())[:, None, None]
        self._size, self._prob, self.shape = size, transform.prob, shape

    def choose(self, bits: np.ndarray) -> np.ndarray:
        """Return top, bottom, left and right of each hole (4, N), the second pair excluded."""
        return self.holes(unit(bits[0]), unit(bits[1:]))

    def holes(self, whether: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Do what mmpretrain does with random numbers in [0, 1).

        Args:
            whether: (N,).
            where: (2, N); the vertical first.

        Returns:
            As of :meth:`choose`.
        """
        edges = []
        for length, hole, place in zip(self.shape[1:], self._size, where, strict=True):
            centre = length + (1.0 - length) * place  # np.random.uniform(length), as mmcv has it
            start = np.maximum(0, centre - hole / 2.0).astype(np.int64)
            edges += [start, np.minimum(length, start + hole)]
        edges[1] = np.where(whether > self._prob, edges[0], edges[1])
        return np.stack(edges)

    def apply(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Return the pictures."""
        inside = []
        for length, start, stop in zip(self.shape[1:], chosen[::2], chosen[1::2], strict=True):
            place = torch.arange(length, device=images.device)
            inside.append((place >= start[:, None]) & (place < stop[:, None]))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hole, self._value.to(images.device), images)

    def describe(self) -> list:
        """Return what decides a picture beside its parameters."""
        return ["cutout", *self._size, *self._value.flatten().tolist()]
