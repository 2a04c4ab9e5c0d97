"""Images in memory, served by the batch."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mmcv.transforms import TestTimeAug
from mmengine.dataset import Compose, default_collate
from mmengine.logging import print_log
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import get_worker_info

from mmkd_logit.registry import DATASETS, FUNCTIONS
from mmkd_logit.utils.arguments import check_choice

from .augment import Augmentation, split_pipeline
from .draws import Keys
from .wrapper import SampleWrapper, make_table


@dataclass(frozen=True)
class Views:
    """Which picture of each sample a batch shows, where augmentation can be numbered."""

    pictures: str  # hash of all the pictures: of the images and of how a view is made of one
    samples: int  # how many images there are
    per_sample: int  # how many views there are of an image, V
    index: np.ndarray  # of the image, in [0, samples) (N,), int64
    view: np.ndarray  # in [0, V) (N,), int64


@dataclass(frozen=True)
class SampleBatch:
    """The annotations of N samples.

    It stands where mmpretrain has a list of N ``DataSample`` and makes them when they are indexed
    or iterated over, the same ones every time. It is not registered as a ``Sequence``, since torch
    and MMEngine take those apart.

    Attributes:
        gt_label: What training sees (N,), int64.
        index: Of the samples in the innermost data set (N,), int64; ``sample_idx`` of each.
        img_shape: Height and width of the pictures.
        clean_label: The true labels (N,), where others were made noisy; on the CPU.
        views: Which pictures these are; None where augmentation cannot be numbered.

    Example:
        >>> batch = SampleBatch(torch.tensor([3, 1]), np.array([7, 9]), (8, 8))
        >>> len(batch), [sample.gt_label.item() for sample in batch]
        (2, [3, 1])
    """

    gt_label: Tensor
    index: np.ndarray
    img_shape: tuple[int, ...]
    clean_label: Tensor | None = None
    views: Views | None = None
    _made: list[DataSample] = field(default_factory=list, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.gt_label)

    def __getitem__(self, index: int) -> DataSample:
        return self.as_list()[index]

    def __iter__(self) -> Iterator[DataSample]:
        return iter(self.as_list())

    @property
    def labels(self) -> Tensor | None:
        """``gt_label``, or None once there are objects, which others may have changed."""
        return None if self._made else self.gt_label

    def as_list(self) -> list[DataSample]:
        """Return one ``DataSample`` each, with the labels on the device of ``gt_label``."""
        for row in range(len(self._made), len(self)):
            meta = dict(sample_idx=int(self.index[row]), img_shape=tuple(self.img_shape))
            if self.clean_label is not None:
                meta["clean_label"] = int(self.clean_label[row])
            self._made.append(DataSample(metainfo=meta).set_gt_label(self.gt_label[row : row + 1]))
        return self._made

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SampleBatch":
        """Return the same with ``gt_label`` on a device."""
        return replace(self, gt_label=self.gt_label.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "SampleBatch":
        """Return the same with ``gt_label`` in pinned memory; torch's loader calls this."""
        return replace(self, gt_label=self.gt_label.pin_memory())


@FUNCTIONS.register_module()
def batch_collate(data: Any, _scope_: str | None = None) -> Any:
    """Pass a batch that the data set made as a whole; join single samples.

    Args:
        data: Of :class:`InMemoryDataset`, the batch as a dict; of any other data set the list of
            samples, which MMEngine's ``default_collate`` joins.
        _scope_: Ignored; MMEngine passes it where the config has a ``_base_`` of a package.

    Raises:
        ValueError: If it is neither, or no sample.

    Example:
        >>> batch_collate(dict(inputs=1)), batch_collate([dict(inputs=1), dict(inputs=2)])
        ({'inputs': 1}, {'inputs': tensor([1, 2])})
    """
    if isinstance(data, dict):
        return data
    if not isinstance(data, (list, tuple)) or not data or data[0] is None:
        raise ValueError(
            "batch_collate joins a list of samples, or passes a batch that is a dict, got "
            f"{data!r}; does the pipeline end in PackInputs?"
        )
    return default_collate(data)


@DATASETS.register_module()
class InMemoryDataset(SampleWrapper):
    """Serve another data set's images as whole batches, from one uint8 tensor.

    Transforms of the wrapped data set that are not random (loading, resizing, cropping the centre)
    are applied once, when the images are read. ``RandomCrop`` and ``RandomFlip`` are applied to
    the whole batch, and a picture equals, bit for bit, what mmpretrain's transform makes of the
    image with the same parameters. These are a function of seed, epoch and ``sample_idx`` alone,
    so that neither the number of workers or processes nor the batch size, resuming, or a
    :class:`DataSubset` or :class:`NoisyLabelDataset` around this one changes a picture. Seed and
    epoch come from :class:`SeededSampler`; where nothing is random, any sampler will do. The
    loader needs ``collate_fn=dict(type='mmkd_logit.batch_collate')``.

    A batch is ``dict(inputs=..., data_samples=SampleBatch(...))``. Its ``views`` number the
    pictures where an image has at most 4,096 (CIFAR's 9 x 9 crops times 2 flips: 162; 1 without
    augmentation); with more they are None. Of a sample's meta information
    ``sample_idx``, ``img_shape`` and ``clean_label`` are kept.

    Loader workers that are forked share the images; nothing is copied for them. Small images
    need none: ``num_workers=0`` is faster.

    Args:
        dataset: Config or instance of a data set with one label a sample.
        device: Where images are kept and batches made: ``'cpu'``; ``'cuda'``, the process's
            GPU; or ``'auto'``, the GPU if there is one and the loader has no workers. On a GPU
            set ``pin_memory=False``.
        lazy_init: Read nothing until needed.
        pipeline: Transforms in place of those of the wrapped data set. Tools such as mmpretrain's
            inferencer look for those of ``test_dataloader.dataset`` here. With ``TestTimeAug``
            samples are made one by one, as they are once ``pipeline`` is assigned to.

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

    in_memory = True
    seeded = property(lambda self: not self.in_memory)  # then samples are made one by one

    def __init__(
        self,
        dataset: Any,
        device: str = "cpu",
        lazy_init: bool = False,
        pipeline: Sequence[dict] | None = None,
    ) -> None:
        self.device = check_choice("device", device, ("cpu", "cuda", "auto"))
        if not isinstance(pipeline, (list, tuple, type(None))):
            raise ValueError(f"pipeline must be a list of transforms or None, got {pipeline!r}")
        self._given = pipeline
        super().__init__(dataset, lazy_init)

    def _check_dataset(self) -> None:
        super()._check_dataset()
        if getattr(self.dataset, "in_memory", False):
            raise ValueError("the data set is in memory already; wrap it once")
        if self._given is not None:
            if self.pipeline.transforms:
                text = "InMemoryDataset(pipeline=...) replaces the transforms inside."
                print_log(text, "current", logging.WARNING)
            self.dataset.pipeline = Compose(self._given)
        self.in_memory = not any(isinstance(t, TestTimeAug) for t in self.pipeline.transforms)
        if self.in_memory:
            self._loading, self._random = split_pipeline(self.pipeline)

    @SampleWrapper.pipeline.setter  # type: ignore[attr-defined]
    def pipeline(self, pipeline: Any) -> None:
        """Make samples one by one from now on."""
        self.dataset.pipeline, self.in_memory = pipeline, False

    def _prepare(self) -> None:
        if not self.in_memory:
            return
        count = len(self.dataset)
        if not count:
            raise ValueError("the data set is empty")
        infos = []
        for place in range(count):
            info = self.dataset.get_data_info(place)
            infos.append({name: info.get(name) for name in ("gt_label", "clean_label")})
            image = self._read(info, place)
            if place == 0:
                images = np.empty((count, *image.shape), dtype=np.uint8)
                self._augmentation = Augmentation(self._random, image.shape)
            elif image.shape != images.shape[1:]:
                raise ValueError(
                    f"images differ in size: (C, H, W) is {images.shape[1:]} of the first and "
                    f"{image.shape} of sample {place}. Add a transform such as Resize, or use "
                    "mmkd_logit.SeededDataset instead of mmkd_logit.InMemoryDataset"
                )
            images[place] = image
        identity = super().identity(self._kept)
        self._table = make_table(infos)._replace(identity=identity)
        self._noisy = any(info["clean_label"] is not None for info in infos)  # of joined ones some
        digest = hashlib.sha256(images.data)
        digest.update(repr(images.shape[1:]).encode() + self._augmentation.describe())
        self._pictures = digest.hexdigest()
        self._images = self._augmentation.pad(torch.from_numpy(images))
        self._on_gpu: Tensor | None = None  # a copy; workers are forked with both

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
        return image.transpose(2, 0, 1)

    def _images_on_device(self) -> Tensor:
        """Return the images, copied once to their device."""
        if self.device == "cpu":
            return self._images
        worker = get_worker_info() is not None
        if not worker and self._on_gpu is None and torch.cuda.is_available():
            self._on_gpu = self._images.cuda()
        if not worker and self._on_gpu is not None:
            return self._on_gpu
        if self.device == "cuda":
            what = "a loader without workers (num_workers=0)" if worker else "a GPU"
            raise ValueError(f"InMemoryDataset(device='cuda') needs {what}; or say device='auto'")
        return self._images

    def _fetch(self, keys: Keys) -> dict:
        rows = self._kept[keys.idx]
        identity = self._table.identity[rows]
        chosen = self._augmentation.choose(keys, identity)
        views = None
        if self._augmentation.views is not None:
            count, view = self._augmentation.views, self._augmentation.number(chosen)
            views = Views(self._pictures, len(self._images), count, rows, view)
        samples = SampleBatch(
            gt_label=torch.from_numpy(self._table.labels[rows]),
            index=identity,
            img_shape=self._augmentation.shape[1:],
            clean_label=torch.from_numpy(self._table.clean[rows]) if self._noisy else None,
            views=views,
        )
        pictures = self._augmentation.apply(self._images_on_device(), rows, chosen)
        return dict(inputs=pictures, data_samples=samples)
