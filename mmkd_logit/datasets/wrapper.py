"""The base of data sets that wrap another one."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.structures import BaseDataElement
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS, TRANSFORMS

from mmkd_logit.registry import find_class
from mmkd_logit.utils.arguments import check_flag, first_line

from .draws import Keys, SampleKey, read_keys, seeded


class SampleWrapper:
    """A data set whose samples are another's, chosen or changed before its pipeline.

    It has the interface of mmpretrain's ``BaseDataset``, so that the wrappers of MMEngine and
    mmpretrain (``KFoldDataset``, ``ConcatDataset`` and so on) may stand around it. They may stand
    inside as well, if their samples all pass the same pipeline. ``get_data_info`` and ``pipeline``
    are used, not ``__getitem__``, which may replace a sample that it cannot read.
    """

    def __init__(self, dataset: Any, lazy_init: bool = False) -> None:
        check_flag("lazy_init", lazy_init)
        name = type(self).__name__
        self.dataset = _build(name, dataset) if isinstance(dataset, dict) else dataset
        if not all(hasattr(self.dataset, each) for each in ("full_init", "metainfo", "__len__")):
            raise ValueError(
                f"{name} wraps a BaseDataset, such as those of mmpretrain, a wrapper of one, or "
                f"its config; got {type(self.dataset).__name__}"
            )
        self._check_dataset()
        self._fully_initialized = False
        self._description: dict[str, dict] = {}
        if not lazy_init:
            self.full_init()

    def _check_dataset(self) -> None:
        """Refuse a data set that cannot be wrapped."""
        name, pipelines = type(self).__name__, set()
        for layer in layers(self.dataset):
            kind = type(layer).__name__
            if isinstance(layer, BaseDataset):
                pipelines.add(str(layer.pipeline))
                own = (type(layer).__getitem__, type(layer).prepare_data)
                if own != (BaseDataset.__getitem__, BaseDataset.prepare_data):
                    raise ValueError(
                        f"{kind} makes its samples in a way of its own; {name} needs those of "
                        "get_data_info and the pipeline"
                    )
            elif not wrapped(layer):
                raise ValueError(f"{name} needs a BaseDataset at the bottom, got {kind}")
            elif not isinstance(layer, SampleWrapper) and any(
                getattr(inner, "in_memory", False) for inner in wrapped(layer)
            ):
                raise ValueError(
                    f"{kind} makes no batches of the images in memory inside it; put "
                    f"mmkd_logit.InMemoryDataset around {kind}, and {name} around both"
                )
        if len(pipelines) > 1:
            raise ValueError(
                f"the data sets inside {name} have different pipelines; give them the same one, "
                f"or put a {name} around each of them"
            )

    def full_init(self) -> None:
        """Read the wrapped data set."""
        if not self._fully_initialized:
            _read(self.dataset)
            self._kept = np.arange(len(self.dataset))  # samples of the wrapped one
            self._prepare()
            self._fully_initialized = True

    def _prepare(self) -> None:
        """Do what needs the whole of the wrapped data set."""

    @property
    def in_memory(self) -> bool:
        """Whether batches are made as a whole, by an :class:`InMemoryDataset`."""
        return getattr(self.dataset, "in_memory", False)

    @property
    def seeded(self) -> bool:
        """Whether there is a :class:`SeededDataset`."""
        return getattr(self.dataset, "seeded", False)

    @property
    def description(self) -> dict[str, dict]:
        """``label_noise`` and ``data_subset`` of this and the wrapped data sets, once read."""
        return {**describe_data(self.dataset), **copy.deepcopy(self._description)}

    @property
    def CLASSES(self) -> Any:
        """Names of the classes, or None."""
        return self.metainfo.get("classes")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Index of each class."""
        return {name: index for index, name in enumerate(self.CLASSES)}

    @property
    def _innermost(self) -> BaseDataset:
        return next(layer for layer in layers(self.dataset) if isinstance(layer, BaseDataset))

    @property
    def pipeline(self) -> Any:
        """The innermost data set's, which an assignment changes."""
        return self._innermost.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        for layer in layers(self.dataset):
            if isinstance(layer, (SampleWrapper, BaseDataset)):
                layer.pipeline = pipeline

    metainfo = property(attrgetter("dataset.metainfo"))
    test_mode = property(attrgetter("_innermost.test_mode"))  # an unreadable sample is an error
    max_refetch = property(attrgetter("_innermost.max_refetch"))

    @force_full_init
    def __len__(self) -> int:
        return len(self._kept)

    @force_full_init
    def get_subset_(self, indices: int | Sequence[int]) -> None:
        """Keep the first N samples, for ``-N`` the last, or those listed."""
        if isinstance(indices, int):
            self._kept = self._kept[:indices] if indices >= 0 else self._kept[indices:]
        else:
            self._kept = self._kept[np.asarray(indices, dtype=np.int64)]

    @force_full_init
    def get_subset(self, indices: int | Sequence[int]) -> "SampleWrapper":
        """Return the first N samples, for ``-N`` the last, or those listed."""
        part = copy.copy(self)
        part.get_subset_(indices)
        return part

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """Return what is known of a sample before the pipeline."""
        return self.dataset.get_data_info(int(self._kept[idx]))

    @force_full_init
    def get_gt_labels(self) -> np.ndarray:
        """Return the labels that training sees (N,)."""
        return self.table().labels

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
        self.full_init()
        identity = int(self.identity(np.array([key.idx]))[0])
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
        return self._fetch(read_keys(keys))

    def _fetch(self, keys: Keys) -> dict:
        """Return a batch, whose keys hold indices of this data set, from the images in memory."""
        return self.dataset._fetch(keys._replace(idx=self._kept[keys.idx]))

    def identity(self, idx: np.ndarray) -> np.ndarray:
        """Return the samples' indices in the innermost data set."""
        inner = self._kept[idx]
        return self.dataset.identity(inner) if isinstance(self.dataset, SampleWrapper) else inner

    @cached_property
    def _table(self) -> "SampleTable":
        """What is known of all samples of the wrapped data set, which need a single label."""
        if isinstance(self.dataset, SampleWrapper):
            return self.dataset.table()
        return make_table(map(self.dataset.get_data_info, range(len(self.dataset))))

    @force_full_init
    def table(self) -> "SampleTable":
        """Return what is known of all samples of this data set."""
        return SampleTable(*(column[self._kept] for column in self._table))


def _build(name: str, cfg: dict) -> Any:
    """Build the data set that is wrapped."""
    cls = find_class(name, DATASETS, cfg.get("type"))
    if isinstance(cls, type) and issubclass(cls, (BaseDataset, SampleWrapper)):
        cfg = {"lazy_init": True, **cfg}  # full_init explains what goes wrong
    try:
        return DATASETS.build(cfg)
    except AssertionError as error:  # of MMCV, often without a word
        for number, step in enumerate(cfg.get("pipeline", ())):
            try:
                TRANSFORMS.build(step)
            except AssertionError:
                reason = f"pipeline.{number} of {cls.__name__} has wrong arguments: {step}"
                raise ValueError(f"{reason} ({first_line(error)})") from error
        raise


def wrapped(dataset: Any) -> list[Any]:
    """Return what a wrapper of ours, MMEngine's or mmpretrain's is around; of others nothing."""
    if isinstance(dataset, BaseDataset):
        return []
    inner = getattr(dataset, "dataset", None)
    return list(getattr(dataset, "datasets", [] if inner is None else [inner]))


def layers(dataset: Any) -> Iterator[Any]:
    """Give a data set, those that it wraps, and so on."""
    yield dataset
    for inner in wrapped(dataset):
        yield from layers(inner)


def describe_data(dataset: Any) -> dict[str, dict]:
    """Return the ``description`` of the wrappers in a data set, those of joined ones together."""
    if hasattr(dataset, "description"):
        return dataset.description
    found: dict[str, list[dict]] = {}
    for inner in wrapped(dataset):
        for key, value in describe_data(inner).items():
            found.setdefault(key, []).append(value)
    return {key: parts[0] if len(parts) == 1 else _join(parts) for key, parts in found.items()}


def _join(parts: list[dict]) -> dict:
    digest = hashlib.sha256("".join(part["sha256"] for part in parts).encode())
    samples = sum(part["samples"] for part in parts)
    return dict(samples=samples, sha256=digest.hexdigest(), parts=parts)


class SampleTable(NamedTuple):
    """What selecting and noising need to know of N samples."""

    labels: np.ndarray  # what training sees (N,), int64
    clean: np.ndarray  # the true labels (N,); the same where nothing is noisy
    identity: np.ndarray  # index of each sample in the innermost data set (N,)


def make_table(infos: Iterable[dict]) -> SampleTable:
    """Put the labels of all samples of a data set, which wraps none of ours, together."""
    rows = []
    for index, info in enumerate(infos):
        label, clean = info.get("gt_label"), info.get("clean_label")
        number = np.asarray(label)
        if number.size != 1 or number.dtype.kind not in "iu":
            raise ValueError(
                f"each sample needs one label, an integer; gt_label of sample {index} is {label!r} "
                "(data with several labels a sample are not supported)"
            )
        rows.append((number.item(), number.item() if clean is None else clean, index))
    return SampleTable(*np.array(rows, dtype=np.int64).reshape(-1, 3).T.copy())


def _read(dataset: Any) -> None:
    """Let a data set read its files; an error says where they should be and what to do."""
    root, folder = getattr(dataset, "data_root", None), None
    if isinstance(dataset, CIFAR10):
        folder = Path(str(dataset.data_prefix["root"]), dataset.base_folder)
        if any(folder.glob("*")):
            dataset.download = False  # it would overwrite files that are damaged
    try:
        dataset.full_init()
    except (OSError, RuntimeError, AssertionError) as error:
        if not isinstance(dataset, BaseDataset) or not root:
            raise
        problem = f"the data of {type(dataset).__name__} cannot be read from {root!r}"
        if folder is not None and not dataset._check_integrity():
            problem += (
                f": files of {str(folder)!r} are missing or damaged, as their MD5 is not the "
                "published one. Remove the folder to have it downloaded again, or unpack "
                f"{dataset.url} there"
            )
        raise ValueError(
            f"{problem} ({first_line(error)}); put the files there, or say where they are with "
            "--cfg-options data_root=FOLDER (our configs also look at CIFAR100_ROOT and "
            "IMAGENET_ROOT)"
        ) from error
