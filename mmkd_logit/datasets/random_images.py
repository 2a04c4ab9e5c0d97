"""Images of noise, where only the time counts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmkd_logit._checks import check_count
from mmkd_logit.registry import DATASETS

from ._base_arguments import check_base_arguments, check_indices


@DATASETS.register_module()
class RandomImages(BaseDataset):
    """Uniform noise with random labels, in the form of mmpretrain's CIFAR.

    Args:
        num_samples: N.
        num_classes: K.
        img_shape: Height, width and channels.
        seed: Of the noise.
        **kwargs: Of mmpretrain's ``BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: If an argument is not such a number.

    Example:
        >>> from mmkd_logit.datasets import RandomImages
        >>> dataset = RandomImages(num_samples=3)
        >>> len(dataset), dataset[0]['img'].shape, dataset[0]['img'].dtype
        (3, (32, 32, 3), dtype('uint8'))
    """

    def __init__(
        self,
        num_samples: int = 2048,
        num_classes: int = 100,
        img_shape: Sequence[int] = (32, 32, 3),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.num_samples = check_count("num_samples", num_samples)
        self.num_classes = check_count("num_classes", num_classes)
        three = isinstance(img_shape, (list, tuple)) and len(img_shape) == 3
        if not three or any(type(size) is not int or size < 1 for size in img_shape):
            raise ValueError(
                "img_shape must be (height, width, channels), integers from 1 on, got "
                f"{img_shape!r}"
            )
        self.img_shape = tuple(img_shape)
        self.seed = check_count("seed", seed, 0)
        check_base_arguments(kwargs)
        check_indices(kwargs.get("indices"), self.num_samples)
        kwargs.setdefault("metainfo", dict(classes=[str(k) for k in range(num_classes)]))
        super().__init__(ann_file="", **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the images.

        Returns:
            Dicts with ``img`` (H, W, C) uint8 and ``gt_label``.
        """
        rng = np.random.default_rng(self.seed)
        shape = (self.num_samples, *self.img_shape)
        images = rng.integers(256, size=shape, dtype=np.uint8)
        labels = rng.integers(self.num_classes, size=self.num_samples)
        pairs = zip(images, labels.tolist(), strict=True)
        return [dict(img=image, gt_label=label) for image, label in pairs]
