"""What the wrappers of data sets share."""

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.structures import BaseDataElement
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from mmkd_logit.registry import DATASETS as OURS
from mmkd_logit.utils.arguments import check_count, check_flag, did_you_mean

from .draws import SampleKey, _Keys, read_keys, seeded


def check_base_arguments(given: Mapping[str, Any]) -> None:
    """Check what a data set of ours hands on to its parent."""
    for name in ("test_mode", "lazy_init", "serialize_data"):
        if name in given:
            check_flag(name, given[name])
    if "max_refetch" in given:
        check_count("max_refetch", given["max_refetch"], 0)
    pipeline = given.get("pipeline", ())
    if not isinstance(pipeline, (list, tuple)) or not all(
        callable(step) or (isinstance(step, Mapping) and step.get("type")) for step in pipeline
    ):
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
        raise ValueError(
            f"metainfo must be a dict such as dict(classes=[...]), got {given['metainfo']!r}"
        )


def check_indices(indices: Any, size: int) -> None:
    """Check which samples are wanted."""
    if indices is None:
        return
    whole = isinstance(indices, int) and not isinstance(indices, bool)
    if whole and 0 < abs(indices) <= size:
        return
    listed = isinstance(indices, (list, tuple)) and len(indices) > 0
    if not whole and listed and all(type(i) is int and -size <= i < size for i in indices):
        return
    raise ValueError(
        f"indices must be a number of samples from 1 to {size} (-N: the last N), or a list of "
        f"sample numbers from 0 to {size - 1}, got {indices!r}"
    )


# Building and reading the data set that another wraps, with words for what goes wrong.


def build_dataset(spec: dict, wrapper: str) -> Any:
    """Build a data set from its config."""
    kind = spec.get("type")
    if not kind:
        raise ValueError(
            f"{wrapper} wraps a data set such as dict(type='CIFAR100', data_root=...), got {spec!r}"
        )
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            try:
                found = registry.get(kind)
            except Exception:  # MMEngine raises what it likes
                found = None
            known = [*registry.module_dict, *(f"mmkd_logit.{name}" for name in OURS.module_dict)]
        if found is None:
            hint = did_you_mean(kind, known) or "; check its spelling and scope"
            raise ValueError(f"{wrapper}: no data set {kind!r} is registered{hint}")
    return DATASETS.build(spec)


@contextmanager
def reading(dataset: Any) -> Iterator[None]:
    """Say where the data should lie and what to do, if they cannot be read.

    Files of CIFAR that are there and damaged are not downloaded again, which would write over them.
    """
    download = getattr(dataset, "download", None)
    if isinstance(dataset, CIFAR10) and any(path.is_file() for path, _ in _files(dataset)):
        dataset.download = False
    try:
        yield
    except (OSError, RuntimeError, AssertionError) as error:
        root = getattr(dataset, "data_root", None)
        if not isinstance(dataset, BaseDataset) or not root:
            raise
        raise ValueError(_explain(dataset, root, error)) from error
    finally:
        if download is not None:
            dataset.download = download


def _files(dataset: CIFAR10) -> list[tuple[Path, str]]:
    folder = Path(str(dataset.data_prefix["root"]), dataset.base_folder)
    return [(folder / name, md5) for name, md5 in (*dataset.train_list, *dataset.test_list)]


def _explain(dataset: Any, root: str, error: Exception) -> str:
    name = type(dataset).__name__
    advice = (
        "put the files there, or say where they are with --cfg-options data_root=FOLDER (our "
        "configs also look at CIFAR100_ROOT and IMAGENET_ROOT)"
    )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if not isinstance(dataset, CIFAR10):
        return f"the data of {name} cannot be read from {root!r} ({reason}); {advice}"
    missing = [str(path) for path, _ in _files(dataset) if not path.is_file()]
    damaged = [str(path) for path, md5 in _files(dataset) if path.is_file() and not _has(path, md5)]
    if damaged:
        return (
            f"{', '.join(damaged)} of {name} {'are' if len(damaged) > 1 else 'is'} damaged: cut "
            "short or another file, as the MD5 is not the published one. Remove the folder "
            f"{str(Path(root, dataset.base_folder))!r} to have it downloaded again, or unpack "
            f"{dataset.url} there"
        )
    if missing:
        return (
            f"{', '.join(missing)} of {name} {'are' if len(missing) > 1 else 'is'} missing and "
            f"cannot be downloaded ({reason}). Unpack {dataset.url} in {root!r}, or {advice}"
        )
    return f"the data of {name} cannot be read from {root!r} ({reason}); {advice}"


def _has(path: Path, md5: str) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == md5


# What our data sets that wrap another have in common.


class SampleWrapper:
    """A data set whose samples are another's, chosen or changed before its pipeline.

    It offers what samplers, loaders and hooks of mmengine and mmpretrain ask of a
    ``BaseDataset``. The wrapped one's ``get_data_info`` and ``pipeline`` are used, not its
    ``__getitem__``, which may replace a sample it cannot read by another.
    """

    def __init__(self, dataset: Any, lazy_init: bool) -> None:
        check_flag("lazy_init", lazy_init)
        if isinstance(dataset, dict):
            dataset = dict(dataset)
            if lazy_init and "lazy_init" not in dataset and _can_be_lazy(dataset.get("type")):
                dataset["lazy_init"] = True
            dataset = build_dataset(dataset, type(self).__name__)
        self._check(dataset)
        self.dataset = dataset
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @classmethod
    def _check(cls, dataset: Any) -> None:
        while isinstance(dataset, SampleWrapper):
            dataset = dataset.dataset
        if not isinstance(dataset, BaseDataset):
            raise ValueError(
                f"{cls.__name__} wraps a BaseDataset, such as those of mmpretrain, or its "
                f"config; got {type(dataset).__name__}"
            )
        own = (type(dataset).__getitem__, type(dataset).prepare_data)
        if own != (BaseDataset.__getitem__, BaseDataset.prepare_data):
            raise ValueError(
                f"{type(dataset).__name__} makes its samples in a way of its own; "
                f"{cls.__name__} needs those of get_data_info and the pipeline"
            )

    def full_init(self) -> None:
        """Read the wrapped data set."""
        if not self._fully_initialized:
            with reading(self.dataset):
                self.dataset.full_init()
            self._prepare()
            self._fully_initialized = True

    def _prepare(self) -> None:
        """Do what needs the whole of the wrapped data set."""
        raise NotImplementedError

    def _layers(self) -> Iterator[Any]:
        """Yield the wrapped data set, the one that this one wraps, and so on."""
        layer = self.dataset
        yield layer
        while isinstance(layer, SampleWrapper):
            layer = layer.dataset
            yield layer

    @property
    def in_memory(self) -> bool:
        """Whether batches are made as a whole, by an :class:`InMemoryDataset`."""
        return isinstance(self.dataset, SampleWrapper) and self.dataset.in_memory

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the pictures of an :class:`InMemoryDataset`, this one or a wrapped one."""
        return self.dataset.picture_shape

    @property
    def seeded(self) -> bool:
        """Whether there is a :class:`SeededDataset`."""
        return isinstance(self.dataset, SampleWrapper) and self.dataset.seeded

    @property
    def metainfo(self) -> dict:
        """The wrapped data set's; ours is added once it is known."""
        return copy.deepcopy(self.dataset.metainfo)

    @property
    def CLASSES(self) -> Any:
        """Names of the classes, or None."""
        return self.metainfo.get("classes")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Index of each class."""
        return {name: index for index, name in enumerate(self.CLASSES)}

    @property
    def pipeline(self) -> Any:
        """The wrapped data set's transforms."""
        return self.dataset.pipeline

    @property
    def test_mode(self) -> bool:
        """Whether an unreadable sample is an error."""
        return self.dataset.test_mode

    @property
    def max_refetch(self) -> int:
        """How often an unreadable sample is replaced by another."""
        return self.dataset.max_refetch

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
        return gather(self).labels

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
        if read.source is None:  # only people count from the end
            read = read._replace(idx=np.where(read.idx < 0, len(self), 0) + read.idx)
        return self._fetch(read)

    def _fetch(self, keys: _Keys) -> dict:
        """Return a batch, whose keys hold indices of this data set, from the images in memory."""
        return self.dataset._fetch(keys)

    @force_full_init
    def _identity(self, idx: np.ndarray) -> np.ndarray:
        """Return the samples' indices in the innermost data set."""
        wraps = isinstance(self.dataset, SampleWrapper)
        return self.dataset._identity(idx) if wraps else idx

    def _sample_table(self) -> "_SampleTable":
        """Return what is known of all samples of this data set, which is read."""
        return gather(self.dataset)


def _can_be_lazy(type_: Any) -> bool:
    found = DATASETS.get(type_) if isinstance(type_, str) else type_
    return isinstance(found, type) and issubclass(found, (BaseDataset, SampleWrapper))


class _SampleTable(NamedTuple):
    """What selecting and noising need to know of N samples.

    Attributes:
        labels: What training sees (N,).
        clean: The true labels (N,); the same where nothing is noisy.
        identity: Index of each sample in the innermost data set (N,).
    """

    labels: np.ndarray
    clean: np.ndarray
    identity: np.ndarray


def gather(dataset: Any) -> _SampleTable:
    """Read the labels of a single-label data set."""
    if isinstance(dataset, SampleWrapper):
        return dataset._sample_table()
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    names = ("gt_label", "clean_label", "sample_idx")
    return as_sample_table([tuple(info.get(name) for name in names) for info in infos])


def as_sample_table(samples: Sequence[tuple[Any, Any, Any]]) -> _SampleTable:
    """Put the labels of N samples together."""
    rows = np.empty((3, len(samples)), dtype=np.int64)
    for index, (label, clean, identity) in enumerate(samples):
        number = np.asarray(label)
        if label is None or number.size != 1 or number.dtype.kind not in "iu":
            raise ValueError(
                f"each sample needs one label, an integer; gt_label of sample {index} is {label!r} "
                "(data with several labels a sample are not supported)"
            )
        label = number.item()
        rows[:, index] = (
            label,
            label if clean is None else clean,
            index if identity is None else identity,
        )
    return _SampleTable(*rows)
