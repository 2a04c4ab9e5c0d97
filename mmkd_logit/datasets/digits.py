"""Small data that need no download: scikit-learn's digits and random images."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmkd_logit.registry import DATASETS
from mmkd_logit.utils.arguments import check_count, check_flag

# Out of every ten images of a class, in the order of the published file.
_SPLITS = {"train": (0, 2, 4, 6, 8), "val": (1, 5), "test": (3, 7, 9)}
_SIZES = {"train": 901, "val": 362, "test": 534}


@DATASETS.register_module()
class Digits(BaseDataset):
    """The 1,797 real 8x8 grey images of digits that scikit-learn ships.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998; scikit-learn's ``load_digits`` holds its test part. Grey levels
    0 to 16 are scaled to 0 to 255.

    The split is fixed and stratified without a random number: of every ten consecutive images
    of one class five go to ``train`` (901 images), two to ``val`` (362) and three to ``test``
    (534). Choose on ``val``; ``test`` is for reporting.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``.
        **kwargs: Of mmpretrain's ``BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: If ``split`` is another word, or another argument of another kind.

    Example:
        >>> from mmkd_logit.datasets import Digits
        >>> dataset = Digits(split='test')
        >>> len(dataset), dataset[0]['img'].shape, dataset[0]['img'].dtype
        (534, (8, 8, 1), dtype('uint8'))
    """

    METAINFO: ClassVar[dict] = {"classes": [str(digit) for digit in range(10)]}

    def __init__(self, split: str = "train", **kwargs: Any) -> None:
        if split not in list(_SPLITS):
            raise ValueError(f"split must be one of {list(_SPLITS)}, got {split!r}")
        _check_arguments(kwargs, _SIZES[split])
        self.split = split
        # MMEngine would collect garbage after serializing, half a second for a megabyte of images.
        kwargs.setdefault("serialize_data", False)
        super().__init__(ann_file="", **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return dicts with ``img`` (8, 8, 1) uint8, ``gt_label`` and ``digits_index``.

        The latter is the position in scikit-learn's file.
        """
        # Its file, since importing scikit-learn and SciPy takes longer than training on it.
        spec = find_spec("sklearn")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("Digits reads scikit-learn's file; pip install scikit-learn")
        file = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
        *pixels, labels = np.loadtxt(file, delimiter=",", dtype=np.int64, unpack=True)
        images = np.round(np.stack(pixels, axis=1) * (255 / 16)).astype(np.uint8)
        images = images.reshape(-1, 8, 8, 1)
        indices = split_indices(labels, self.split)
        return [dict(img=images[i], gt_label=int(labels[i]), digits_index=int(i)) for i in indices]


def split_indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Return the positions of a split, in ascending order."""
    rank = np.empty(len(labels), dtype=int)  # how many of the same class came before
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return np.flatnonzero(np.isin(rank % 10, _SPLITS[split]))


@DATASETS.register_module()
class RandomImages(BaseDataset):
    """Uniform noise with random labels, in the form of mmpretrain's CIFAR, to measure speed.

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
        _check_arguments(kwargs, self.num_samples)
        kwargs.setdefault("metainfo", dict(classes=[str(k) for k in range(num_classes)]))
        super().__init__(ann_file="", **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return dicts with ``img`` (H, W, C) uint8 and ``gt_label``."""
        rng = np.random.default_rng(self.seed)
        shape = (self.num_samples, *self.img_shape)
        images = rng.integers(256, size=shape, dtype=np.uint8)
        labels = rng.integers(self.num_classes, size=self.num_samples)
        pairs = zip(images, labels.tolist(), strict=True)
        return [dict(img=image, gt_label=label) for image, label in pairs]


def _check_arguments(given: Mapping[str, Any], size: int) -> None:
    """Check arguments of ``BaseDataset``, which does not."""
    for name in ("test_mode", "lazy_init", "serialize_data"):
        check_flag(name, given.get(name, False))
    check_count("max_refetch", given.get("max_refetch", 0), 0)
    pipeline = given.get("pipeline", ())
    if not isinstance(pipeline, (list, tuple)):
        raise ValueError(
            "pipeline must be a list of transforms such as dict(type='PackInputs'), got "
            f"{pipeline!r}"
        )
    classes = given.get("classes")
    if isinstance(classes, str) and not Path(classes).expanduser().is_file():
        raise FileNotFoundError(f"classes={classes!r}: there is no such file of names")
    if not isinstance(classes, (str, list, tuple, type(None))):
        raise ValueError(f"classes must be a list of names, or a file of them, got {classes!r}")
    if not isinstance(given.get("metainfo"), (Mapping, type(None))):
        raise ValueError(f"metainfo must be a dict, got {given['metainfo']!r}")
    indices = given.get("indices")
    if type(indices) is int:
        right = 0 < abs(indices) <= size
    else:
        listed = indices if isinstance(indices, (list, tuple)) else ()
        right = bool(listed) and all(type(i) is int and -size <= i < size for i in listed)
    if indices is not None and not right:
        raise ValueError(
            f"indices must be a number of samples from 1 to {size} (-N: the last N), or a list of "
            f"sample numbers from 0 to {size - 1}, got {indices!r}"
        )
