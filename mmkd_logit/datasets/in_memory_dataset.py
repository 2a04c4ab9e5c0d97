"""A set of small images as one tensor."""

import hashlib
from typing import Any

import numpy as np
import torch
from mmengine.dataset import force_full_init
from torch import Tensor
from torch.utils.data import get_worker_info

from mmkd_logit._checks import check_flag
from mmkd_logit.registry import DATASETS

from ._augmentation import Augmentation, split_pipeline
from ._sample_wrapper import _SampleTable, _SampleWrapper, as_sample_table
from .sample_batch import SampleBatch
from .sample_key import _Keys
from .views import Views

_DEVICES = ("cpu", "cuda", "auto")


@DATASETS.register_module()
class InMemoryDataset(_SampleWrapper):
    """Serve another data set's images as whole batches, from one uint8 tensor.

    What the wrapped data set's ``pipeline`` does without chance (loading, resizing, cropping the
    centre) is done once, when the images are read. ``RandomCrop``, ``RandomFlip`` and ``Cutout``
    are done on the whole batch, and a picture equals, bit for bit, what mmpretrain's transform
    makes of the image with the same parameters. These are a function of seed, epoch and
    ``sample_idx`` alone, so that neither the number of workers or processes nor the batch size,
    resuming, or a :class:`DataSubset` or :class:`NoisyLabelDataset` around this one changes a
    picture. Seed and epoch come from :class:`SeededSampler`; where nothing is random, any sampler
    will do. The loader needs ``collate_fn=dict(type='mmkd_logit.batch_collate')``.

    A batch is ``dict(inputs=..., data_samples=SampleBatch(...))``. Its ``views`` number the
    pictures where an image has at most 4,096 (CIFAR's 9 x 9 crops times 2 flips: 162; 1 without
    augmentation); with more, or with Cutout, they are None. Of a sample's meta information
    ``sample_idx``, ``img_shape`` and ``clean_label`` are kept.

    Loader workers that are forked share the images; nothing is copied for them. Small images
    need none: ``num_workers=0`` is faster.

    Args:
        dataset: Config or instance of a data set with one label a sample.
        device: Where images are kept and batches made: ``'cpu'``; ``'cuda'``, the process's
            GPU; or ``'auto'``, the GPU if there is one and the loader has no workers. On a GPU
            say ``pin_memory=False``.
        lazy_init: Read nothing until needed.

    Raises:
        ValueError: If an argument or a transform is not supported, the images differ in size or
            are no 8-bit ones, or a sample has not one label.

    Example:
        >>> from mmkd_logit.datasets import SampleKey
        >>> crop = dict(type='mmpretrain.RandomCrop', crop_size=8, padding=1)
        >>> digits = dict(type='mmkd_logit.Digits',
        ...               pipeline=[crop, dict(type='mmpretrain.PackInputs')])
        >>> dataset = InMemoryDataset(digits)
        >>> batch = dataset.__getitems__([SampleKey(seed=0, epoch=3, idx=i) for i in (5, 7)])
        >>> batch['inputs'].shape, batch['data_samples'].views.per_sample
        (torch.Size([2, 1, 8, 8]), 9)
    """

    def __init__(self, dataset: Any, device: str = "cpu", lazy_init: bool = False) -> None:
        if device not in _DEVICES:
            raise ValueError(f"device must be one of {list(_DEVICES)}, got {device!r}")
        self.device = device
        check_flag("lazy_init", lazy_init)
        super().__init__(dataset, lazy_init=True)
        if isinstance(self.dataset, _SampleWrapper) and self.dataset.in_memory:
            raise ValueError("the data set is in memory already; wrap it once")
        self._loading, self._random = split_pipeline(self.pipeline)
        if not lazy_init:
            self.full_init()

    @property
    def in_memory(self) -> bool:
        """Yes."""
        return True

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the pictures."""
        self.full_init()
        return self._augmentation.shape

    def _prepare(self) -> None:
        count = len(self.dataset)
        if not count:
            raise ValueError("the data set is empty")
        rows: list[tuple] = []
        digest = hashlib.sha256()
        for place in range(count):
            info = self.dataset.get_data_info(place)
            rows.append((info.get("gt_label"), info.get("clean_label"), info.get("sample_idx")))
            image = self._read(info, place)
            if place == 0:
                self._augmentation = Augmentation(self._random, image.shape)
                self._shape = image.shape
                self._images, inner = self._allocate(count)
                inside = inner.numpy()
            elif image.shape != self._shape:
                raise ValueError(
                    f"images differ in size: (C, H, W) is {self._shape} of the first and "
                    f"{image.shape} of sample {place}. Add a transform such as Resize, or use "
                    "mmkd_logit.SeededDataset instead of mmkd_logit.InMemoryDataset"
                )
            inside[place] = image
            digest.update(image.tobytes())
        self._table = as_sample_table(rows)
        self._noisy = rows[0][1] is not None
        digest.update(repr(self._shape).encode() + self._augmentation.describe())
        self._pictures = digest.hexdigest()

    def _read(self, info: dict, place: int) -> np.ndarray:
        """Return an image (C, H, W)."""
        data: Any = info
        for transform in self._loading:
            data = transform(data)
            if data is None:
                raise ValueError(f"the image of sample {place} cannot be read")
        image = data.get("img")
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim not in (2, 3):
            what = getattr(image, "dtype", type(image).__name__)
            raise ValueError(
                f"in memory images are uint8 arrays; sample {place} has {what} (LoadImageFromFile "
                "must be among the transforms of files, without to_float32)"
            )
        if "gt_score" in data:
            raise ValueError("samples with gt_score are not done in memory; use SeededDataset")
        image = image[..., None] if image.ndim == 2 else image
        return np.ascontiguousarray(image.transpose(2, 0, 1))

    def _allocate(self, count: int) -> tuple[Tensor, Tensor]:
        """Return a tensor for all images with their borders, and the part inside these."""
        crop = self._augmentation.crop
        if crop is None:
            images = torch.empty((count, *self._shape), dtype=torch.uint8)
            return images, images
        _, height, width = self._shape
        left, top, right, bottom = crop.padding
        images = torch.empty(
            (count, self._shape[0], height + top + bottom, width + left + right), dtype=torch.uint8
        )
        images[:] = torch.from_numpy(crop.border)[:, None, None]
        return images, images[:, :, top : top + height, left : left + width]

    def _at_home(self) -> Tensor:
        """Return the images, moved once to where they are wanted."""
        if self.device == "cpu" or self._images.device.type != "cpu":
            return self._images
        worker = get_worker_info() is not None
        if self.device == "cuda" and (worker or not torch.cuda.is_available()):
            what = "a loader without workers (num_workers=0)" if worker else "a GPU"
            raise ValueError(f"InMemoryDataset(device='cuda') needs {what}; or say device='auto'")
        if not worker and torch.cuda.is_available():
            self._images = self._images.cuda()
        return self._images

    def _sample_table(self) -> _SampleTable:
        return self._table

    def _identity(self, idx: np.ndarray) -> np.ndarray:
        return self._table.identity[idx]

    @force_full_init
    def _fetch(self, keys: _Keys) -> dict:
        rows, size = keys.idx, len(self._images)
        if len(rows) and not 0 <= rows.min() <= rows.max() < size:  # a GPU would not say
            raise IndexError(f"samples are numbered from 0 to {size - 1}, got {rows.tolist()}")
        identity = self._table.identity[rows]
        chosen = self._augmentation.choose(keys, identity)
        pictures = self._augmentation.apply(self._at_home(), rows, chosen)
        view = self._augmentation.number(chosen, len(rows))
        views = None
        if view is not None:
            count = self._augmentation.views
            assert count is not None
            views = Views(self._pictures, size, count, rows, view)
        samples = SampleBatch(
            gt_label=torch.from_numpy(self._table.labels[rows]),
            index=identity,
            img_shape=self._augmentation.shape[1:],
            clean_label=torch.from_numpy(self._table.clean[rows]) if self._noisy else None,
            views=views,
        )
        return dict(inputs=pictures, data_samples=samples)

    @force_full_init
    def show(self, index: np.ndarray, view: np.ndarray) -> Tensor:
        """Return pictures by their numbers, as :class:`Views` has them.

        Args:
            index: Of the images (N,).
            view: Of the view of each (N,).

        Returns:
            (N, C, H, W), uint8.

        Raises:
            ValueError: If views of this data set have no numbers, or not these.
        """
        if self._augmentation.views is None:
            raise ValueError("the pictures of this data set have no numbers: they are too many")
        for what, numbers, count in (
            ("images", index, len(self._images)),
            ("views", view, self._augmentation.views),
        ):
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
                raise ValueError(
                    f"{what} are numbered from 0 to {count - 1}, got {numbers.min()} to "
                    f"{numbers.max()}"
                )
        return self._augmentation.apply(self._at_home(), index, self._augmentation.of_number(view))
