"""A data set's transforms, taken apart: what is done once, and what is random."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import CenterCrop, LoadImageFromFile, RandomFlip, Resize
from mmpretrain.datasets import transforms as mmpretrain_transforms
from torch import Tensor

from ._counter_hash import counter_bits
from ._crop import Crop
from ._cutout import Cutout
from ._flip import Flip
from .sample_key import _Keys

_LOADING = (LoadImageFromFile, Resize, CenterCrop, mmpretrain_transforms.ResizeEdge)
_RANDOM: dict[type, Any] = {
    mmpretrain_transforms.RandomCrop: Crop,
    RandomFlip: Flip,
    mmpretrain_transforms.Cutout: Cutout,
}
MOST_VIEWS = 4096  # with more, the same picture hardly comes again


def split_pipeline(pipeline: Any) -> tuple[list, list]:
    """Tell transforms that are done once from those that are random.

    Args:
        pipeline: An mmengine ``Compose``.

    Returns:
        The built transforms for reading, and the random ones.

    Raises:
        ValueError: If there is one that is neither, or the order is another.
    """
    steps = list(pipeline.transforms)
    if not steps or type(steps[-1]) is not mmpretrain_transforms.PackInputs:
        raise _refusal(steps[-1] if steps else "nothing", "the transforms must end in PackInputs")
    pack = steps.pop()
    if pack.input_key != "img" or pack.algorithm_keys:
        raise _refusal(pack, "it packs gt_label and img alone")
    loading: list[Any] = []
    while steps and type(steps[0]) in _LOADING:
        loading.append(steps.pop(0))
    for step in steps:
        if type(step) in _LOADING:
            raise _refusal(step, "it comes after a random transform")
        if type(step) not in _RANDOM:
            known = [each.__name__ for each in (*_LOADING, *_RANDOM)]
            raise _refusal(step, f"only {', '.join(known)} and PackInputs can be")
    return loading, steps


def _refusal(step: Any, why: str) -> ValueError:
    name = step if isinstance(step, str) else type(step).__name__
    return ValueError(
        f"{name} is not done in memory: {why}. Use mmkd_logit.SeededDataset instead of "
        "mmkd_logit.InMemoryDataset for these transforms"
    )


class Augmentation:
    """Random transforms of images of one shape, whose parameters a hash gives.

    Args:
        transforms: Those of :func:`split_pipeline`.
        shape: (C, H, W) of the images.

    Attributes:
        shape: (C, H, W) of the pictures.
        views: How many pictures of an image there are, or None: with Cutout, whose holes have
            no number, and above ``MOST_VIEWS``.

    Raises:
        ValueError: If one has arguments that are not supported.
    """

    def __init__(self, transforms: Sequence[Any], shape: tuple[int, int, int]) -> None:
        self._steps: list[Any] = []
        self.shape = shape
        for transform in transforms:
            self._steps.append(_RANDOM[type(transform)](transform, self.shape))
            self.shape = self._steps[-1].shape
        views = [step.views for step in self._steps]
        number = None if None in views else math.prod(views)
        self.views = number if number is not None and number <= MOST_VIEWS else None

    @property
    def crop(self) -> Crop | None:
        """The crop that comes first, whose borders images are kept with; or None."""
        return self._steps[0] if self._steps and isinstance(self._steps[0], Crop) else None

    def choose(self, keys: _Keys, identity: np.ndarray) -> list[np.ndarray]:
        """Return the parameters of each transform (P, N), a function of seed, epoch, sample.

        Args:
            keys: Of N samples.
            identity: Index of each in the innermost data set (N,).

        Raises:
            ValueError: If something is random and the keys have no seed.
        """
        if not self._steps:
            return []
        if keys.source is None:
            raise ValueError(
                "these images are augmented by a function of (seed, epoch, sample), and the "
                "loader's sampler gives the sample alone. Set train_dataloader.sampler="
                "dict(type='mmkd_logit.SeededSampler', sampler=dict(type='DefaultSampler', "
                "shuffle=True)), or ask for mmkd_logit.datasets.SampleKey(seed, epoch, idx)"
            )
        words = np.concatenate([keys.source, identity[None]])
        bits = counter_bits(words, sum(step.draws for step in self._steps))
        chosen = []
        for step in self._steps:
            chosen.append(step.choose(bits[: step.draws]))
            bits = bits[step.draws :]
        return chosen

    def number(self, chosen: list[np.ndarray], count: int) -> np.ndarray | None:
        """Return the number of each picture, in ``[0, views)``; None if there is none.

        Args:
            chosen: Of :meth:`choose`.
            count: N.
        """
        if self.views is None:
            return None
        view = np.zeros(count, dtype=np.int64)
        for step, parameters in zip(self._steps, chosen, strict=True):
            view = view * step.views + step.number(parameters)
        return view

    def of_number(self, view: np.ndarray) -> list[np.ndarray]:
        """Return the parameters of pictures by their numbers, the inverse of :meth:`number`.

        Args:
            view: In ``[0, views)`` (N,).
        """
        chosen = []
        for step in reversed(self._steps):
            view, number = np.divmod(view, step.views)
            chosen.append(step.of_number(number))
        return chosen[::-1]

    def apply(self, images: Tensor, rows: np.ndarray, chosen: list[np.ndarray]) -> Tensor:
        """Make N pictures.

        Args:
            images: All M images, with the borders of :attr:`crop`.
            rows: Which of them (N,).
            chosen: Of :meth:`choose`.
        """
        table = torch.from_numpy(np.concatenate([rows[None], *chosen]))
        if images.device.type != "cpu":
            table = table.pin_memory().to(images.device, non_blocking=True)
        where, *rest = table.split([1, *map(len, chosen)])
        if self.crop is None:
            pictures = images.index_select(0, where[0])
            steps = self._steps
        else:
            pictures = self.crop.cut(images, where[0], rest.pop(0))
            steps = self._steps[1:]
        for step, parameters in zip(steps, rest, strict=True):
            pictures = step.apply(pictures, parameters)
        return pictures

    def describe(self) -> bytes:
        """Return what a picture's number means."""
        return json.dumps([step.describe() for step in self._steps]).encode()
