"""The base of data sets that wrap another one."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.structures import BaseDataElement
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from mmkd_logit.registry import find_class
from mmkd_logit.utils.arguments import check_flag, first_line

from .draws import Keys, SampleKey, read_keys, seeded


class SampleWrapper:
    """A data set whose samples are another's, chosen or changed before its pipeline.

    It has the interface of mmpretrain's ``BaseDataset``. The wrapped one's ``get_data_info`` and
    ``pipeline`` are used, not its ``__getitem__``, which may replace a sample that it cannot read.
    """

    def __init__(self, dataset: Any, lazy_init: bool = False) -> None:
        check_flag("lazy_init", lazy_init)
        name = type(self).__name__
        if isinstance(dataset, dict):
            kind = dataset.get("type")
            if not kind:
                raise ValueError(
                    f"{name} wraps a data set such as dict(type='CIFAR100', data_root=...), got "
                    f"{dataset!r}"
                )
            cls = find_class(name, DATASETS, kind)
            if isinstance(cls, type) and issubclass(cls, (BaseDataset, SampleWrapper)):
                dataset = {"lazy_init": True, **dataset}  # full_init explains what goes wrong
            dataset = DATASETS.build(dataset)
        self.dataset = dataset
        self._check_dataset()
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def _check_dataset(self) -> None:
        """Refuse a data set that cannot be wrapped."""
        name, inner = type(self).__name__, self.layers()[-1]
        if not isinstance(inner, BaseDataset):
            raise ValueError(
                f"{name} wraps a BaseDataset, such as those of mmpretrain, or its config; got "
                f"{type(inner).__name__}"
            )
        own = (type(inner).__getitem__, type(inner).prepare_data)
        if own != (BaseDataset.__getitem__, BaseDataset.prepare_data):
            raise ValueError(
                f"{type(inner).__name__} makes its samples in a way of its own; {name} needs those "
                "of get_data_info and the pipeline"
            )

    def full_init(self) -> None:
        """Read the wrapped data set."""
        if not self._fully_initialized:
            with _explaining(self.dataset):
                self.dataset.full_init()
            self._prepare()
            self._fully_initialized = True

    def _prepare(self) -> None:
        """Do what needs the whole of the wrapped data set."""

    def layers(self) -> list[Any]:
        """Return the wrapped data set, the one that this one wraps, and so on."""
        layers = [self.dataset]
        while isinstance(layers[-1], SampleWrapper):
            layers.append(layers[-1].dataset)
        return layers

    @property
    def in_memory(self) -> bool:
        """Whether batches are made as a whole, by an :class:`InMemoryDataset`."""
        return isinstance(self.dataset, SampleWrapper) and self.dataset.in_memory

    @property
    def seeded(self) -> bool:
        """Whether there is a :class:`SeededDataset`."""
        return isinstance(self.dataset, SampleWrapper) and self.dataset.seeded

    @property
    def metainfo(self) -> dict:
        """The wrapped data set's; wrappers add their own once it is known."""
        return copy.deepcopy(self.dataset.metainfo)

    @property
    def CLASSES(self) -> Any:
        """Names of the classes, or None."""
        return self.metainfo.get("classes")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Index of each class."""
        return {name: index for index, name in enumerate(self.CLASSES)}

    pipeline = property(attrgetter("dataset.pipeline"))
    test_mode = property(attrgetter("dataset.test_mode"))  # an unreadable sample is an error
    max_refetch = property(attrgetter("dataset.max_refetch"))
    picture_shape = property(attrgetter("dataset.picture_shape"))  # in memory: (C, H, W)

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return what is known of a sample before the pipeline."""
        return self.dataset.get_data_info(idx)

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the labels that training sees (N,)."""
        return gather(self).labels.copy()

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label that training sees."""
        return [int(self.get_data_info(idx)["gt_label"])]

    def prepare_data(self, idx: int) -> Any:
        """Return a sample after the pipeline; it carries ``clean_label`` where there is one."""
        info = self.get_data_info(idx)
        clean = info.get("clean_label")
        data = self.pipeline(info)
        sample = data.get("data_samples") if isinstance(data, dict) else None
        if clean is not None and isinstance(sample, BaseDataElement):
            sample.set_field(clean, "clean_label", field_type="metainfo")
        return data

    def __getitem__(self, key: Any) -> Any:
        if self.in_memory:
            batch = self._get_batch([key])
            return {name: values[0] for name, values in batch.items()}
        if not isinstance(key, SampleKey):
            return self._get(key)
        if not self.seeded:
            raise ValueError(
                "the loader's sampler is a SeededSampler, and nothing here is seeded: wrap the "
                "data set in dict(type='mmkd_logit.SeededDataset', dataset=...)"
            )
        identity = int(self._identity(np.array([key.idx]))[0])
        with seeded(key.seed, key.epoch, identity):
            return self._get(key.idx)

    @force_full_init
    def _get(self, idx: int) -> Any:
        for _ in range(1 if self.test_mode else self.max_refetch + 1):
            data = self.prepare_data(idx)
            if data is not None:
                return data
            idx = np.random.randint(len(self))
        raise ValueError("the pipeline gave no sample; check the images and the transforms")

    @property
    def __getitems__(self) -> Callable[[Sequence[Any]], dict]:
        """Make a batch as a whole; torch's loaders ask whether there is such a method."""
        if not self.in_memory:
            raise AttributeError(f"{type(self).__name__} has no __getitems__ here")
        return self._get_batch

    @force_full_init
    def _get_batch(self, keys: Sequence[Any]) -> dict:
        read = read_keys(keys)
        if read.source is None:  # samplers do not count from the end, users do
            read = read._replace(idx=np.where(read.idx < 0, len(self), 0) + read.idx)
        return self._fetch(read)

    def _fetch(self, keys: Keys) -> dict:
        """Return a batch, whose keys hold indices of this data set, from the images in memory."""
        return self.dataset._fetch(keys)

    @force_full_init
    def _identity(self, idx: np.ndarray) -> np.ndarray:
        """Return the samples' indices in the innermost data set."""
        return self.dataset._identity(idx) if isinstance(self.dataset, SampleWrapper) else idx

    def _sample_table(self) -> "SampleTable":
        """Return what is known of all samples of this data set, which is read."""
        return gather(self.dataset)


class SampleTable(NamedTuple):
    """What selecting and noising need to know of N samples.

    Attributes:
        labels: What training sees (N,), int64.
        clean: The true labels (N,); the same where nothing is noisy.
        identity: Index of each sample in the innermost data set (N,).
    """

    labels: np.ndarray
    clean: np.ndarray
    identity: np.ndarray


def gather(dataset: Any) -> SampleTable:
    """Read the labels of a single-label data set."""
    if isinstance(dataset, SampleWrapper):
        return dataset._sample_table()
    return make_table(dataset.get_data_info(index) for index in range(len(dataset)))


SAMPLE_FIELDS = ("gt_label", "clean_label", "sample_idx")  # of get_data_info, for a table


def make_table(infos: Iterable[dict]) -> SampleTable:
    """Put the labels of N samples together."""
    rows = []
    for index, info in enumerate(infos):
        label, clean, identity = (info.get(name) for name in SAMPLE_FIELDS)
        number = np.asarray(label)
        if number.size != 1 or number.dtype.kind not in "iu":
            raise ValueError(
                f"each sample needs one label, an integer; gt_label of sample {index} is {label!r} "
                "(data with several labels a sample are not supported)"
            )
        label = number.item()
        rows.append(
            (label, label if clean is None else clean, index if identity is None else identity)
        )
    return SampleTable(*np.array(rows, dtype=np.int64).reshape(-1, 3).T.copy())


# What to do where the files of a data set cannot be read.


@contextmanager
def _explaining(dataset: Any) -> Iterator[None]:
    """Say where the data should lie and what to do, if they cannot be read.

    Files of CIFAR that are there and damaged are not downloaded again: that would overwrite them.
    """
    cifar = isinstance(dataset, CIFAR10)
    download = getattr(dataset, "download", None)
    if cifar and any(path.is_file() for path, _ in _files(dataset)):
        dataset.download = False
    try:
        yield
    except (OSError, RuntimeError, AssertionError) as error:
        root = getattr(dataset, "data_root", None)
        if not isinstance(dataset, BaseDataset) or not root:
            raise
        problem = f"the data of {type(dataset).__name__} cannot be read from {root!r}"
        wrong = [str(path) for path, md5 in _files(dataset) if _md5(path) != md5] if cifar else []
        if wrong:
            problem += (
                f": {', '.join(wrong)} are missing or damaged, as the MD5 is not the published "
                f"one. Remove the folder {str(Path(root, dataset.base_folder))!r} to have it "
                f"downloaded again, or unpack {dataset.url} there"
            )
        raise ValueError(
            f"{problem} ({first_line(error)}); put the files there, or say where they are with "
            "--cfg-options data_root=FOLDER (our configs also look at CIFAR100_ROOT and "
            "IMAGENET_ROOT)"
        ) from error
    finally:
        if download is not None:
            dataset.download = download


def _files(dataset: CIFAR10) -> list[tuple[Path, str]]:
    folder = Path(str(dataset.data_prefix["root"]), dataset.base_folder)
    return [(folder / name, md5) for name, md5 in (*dataset.train_list, *dataset.test_list)]


def _md5(path: Path) -> str | None:
    if not path.is_file():
        return None
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
