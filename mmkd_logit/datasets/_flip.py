"""Random flips of a whole batch, with given parameters; see ``_crop.py``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._counter_hash import unit

_FLIPS = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))


class Flip:
    """mmcv's ``RandomFlip``; a direction each, or none, is chosen by its probability."""

    draws = 1

    def __init__(self, transform: Any, shape: tuple[int, int, int]) -> None:
        directions, prob = transform.direction, transform.prob
        self._directions = [directions] if isinstance(directions, str) else list(directions)
        count = len(self._directions)
        probs = prob if isinstance(prob, list) else [prob / count] * count
        self._edges = np.cumsum(probs)
        self.shape = shape
        self.views: int | None = count + 1

    def choose(self, bits: np.ndarray) -> np.ndarray:
        """Return the direction of each by its place in the list, or the list's length (1, N)."""
        return np.searchsorted(self._edges, unit(bits), side="right").astype(np.int64)

    def number(self, chosen: np.ndarray) -> np.ndarray:
        """Return the number of each picture: 0 as it is, or of the direction from 1 on."""
        return (chosen[0] + 1) % (len(self._directions) + 1)

    def of_number(self, number: np.ndarray) -> np.ndarray:
        """Return what :meth:`choose` would for pictures of these numbers."""
        return (number[None] - 1) % (len(self._directions) + 1)

    def apply(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Return the pictures; on the CPU in the place of the images."""
        flip = flip_on_host if images.device.type == "cpu" else flip_on_device
        for place, direction in enumerate(self._directions):
            images = flip(images, chosen[0] == place, _FLIPS[direction])
        return images

    def describe(self) -> list:
        """Return what a picture's number means."""
        return ["flip", *self._directions]


def flip_on_host(images: Tensor, which: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Flip some of the images, in place: numpy picks better, and torch flips better."""
    pictures, some = images.numpy(), np.flatnonzero(which.numpy())
    pictures[some] = torch.from_numpy(pictures[some]).flip(axes).numpy()
    return images


def flip_on_device(images: Tensor, which: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Flip some of the images without asking the device how many."""
    return torch.where(which[:, None, None, None], images.flip(axes), images)
