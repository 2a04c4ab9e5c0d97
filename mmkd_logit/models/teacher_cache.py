"""A cache of a teacher's logits, by the view of each image."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmkd_logit.checkpoint import state_hash
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.utils.files import FULL

from .logit_store import DeviceStore, LogitStore, available_memory, words_of_row

_FORMAT = 1  # of the files; another number where their layout or checksum changes


def weights_hash(model: nn.Module) -> str:
    """Hash a network's parameters and buffers, wherever and however they lie in memory."""
    return state_hash({**dict(model.named_buffers()), **model.state_dict()})


def describe_preprocessor(preprocessor: Any) -> dict[str, Any]:
    """Say how a data preprocessor makes a network's input of the pictures."""
    # A class of its own may do anything with the pictures.
    described: dict[str, Any] = dict(type=type(preprocessor).__name__)
    for name in ("mean", "std"):
        value = getattr(preprocessor, name, None)
        described[name] = value.flatten().tolist() if isinstance(value, Tensor) else value
    for name in ("_enable_normalize", "_channel_conversion", "to_rgb"):
        described[name] = getattr(preprocessor, name, None)
    for name in ("pad_size_divisor", "pad_value"):
        described[name] = getattr(preprocessor, name, None)
    return described


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Name what computes; other kinds of processor and versions of torch round otherwise."""
    if device.type == "cuda":
        return dict(
            torch=torch.__version__,
            device=torch.cuda.get_device_name(device),
            tf32=[torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
            benchmark=torch.backends.cudnn.benchmark,
        )
    return dict(
        torch=torch.__version__,
        device=f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
        half=[
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
            bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
        ],
    )


def as_identity(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Hash a description."""
    text = json.dumps(dict(content, format=_FORMAT), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32], json.loads(text)


# Where a teacher's logits are kept, and how many of them.


class Store(Protocol):
    """What :class:`LogitStore` and :class:`DeviceStore` have in common."""

    size: int
    num_classes: int
    dtype: str

    def get(self, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, np.ndarray]:
        """Look rows up."""

    def put(self, numbers: np.ndarray, logits: Tensor) -> None:
        """Store rows."""

    def flush(self, wait: bool = True) -> None:
        """Store what is under way."""

    def filled(self) -> int:
        """Count the rows that are there."""


class _Settings(Protocol):
    """What is asked for."""

    storage: str
    dtype: str
    max_gib: float
    root: Path


def open_store(
    settings: _Settings, device: torch.device, views: Views, content: dict[str, Any]
) -> Store:
    """Make or open the store for the views of a data set."""
    classes = content["num_classes"]
    row = 4 * (words_of_row(classes, settings.dtype) + 1)
    images = min(views.samples, int(settings.max_gib * 2**30 / (row * views.per_sample)))
    size, wanted = images * views.per_sample, views.samples * views.per_sample * row
    if images == 0:
        raise ValueError(
            f"max_gib={settings.max_gib:g} has no room for the {views.per_sample} views of one "
            f"image, {row * views.per_sample / 2**30:.3g} GiB; raise it, or leave the cache out"
        )
    if images < views.samples:
        print_log(
            f"The teacher cache keeps images 0 to {images - 1} of {views.samples}: all would take "
            f"{wanted / 2**30:.2f} GiB and max_gib is {settings.max_gib:g}.",
            "current",
        )
    if settings.storage == "device":
        return DeviceStore(size, classes, settings.dtype, device)
    if settings.storage == "memory":
        _check_memory(size * row)
        return LogitStore(size, classes, settings.dtype)
    return _open_on_disk(settings, size, views, content)


def _check_memory(wanted: int) -> None:
    free = available_memory()
    if free is not None and wanted > free:
        raise ValueError(
            f"the teacher cache may grow to {wanted / 2**30:.2f} GiB and this machine has "
            f"{free / 2**30:.2f} GiB of memory left; set a smaller max_gib, dtype='float16' or "
            "storage='disk'"
        )


def _open_on_disk(settings: _Settings, size: int, views: Views, content: dict[str, Any]) -> Store:
    from .logit_store import DiskStore  # needs a POSIX system

    name, meta = as_identity(
        dict(
            content,
            dtype=settings.dtype,
            pictures=views.pictures,
            samples=views.samples,
            per_sample=views.per_sample,
            rows=views.samples * views.per_sample,
        )
    )
    try:
        store = DiskStore(settings.root / name, meta, size)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print_log(
            f"No teacher cache: {error}. Every logit is computed; results do not change.",
            "current",
            level=logging.WARNING,
        )
        return LogitStore(0, content["num_classes"], settings.dtype)
    print_log(
        f"The teacher cache {store.folder} holds {store.filled()} of {size} logits.", "current"
    )
    more, free = store.space()
    if more > free and store.writable:
        print_log(
            f"The teacher cache {store.folder} may take {more / 2**30:.2f} GiB more and the disk "
            f"has {free / 2**30:.2f} GiB; what does not fit is computed each time.",
            "current",
            level=logging.WARNING,
        )
    return store


# The logits of a frozen teacher, computed once for each picture.


ROOT_VARIABLE = "MMKD_LOGIT_TEACHER_CACHE"
DEFAULT_ROOT = "work_dirs/teacher_cache"

UNKEYED = (
    "a teacher with a cache needs pictures that have a number (Views), and these have none: after "
    "MixUp, CutMix, Cutout or noise no picture comes twice, and mmpretrain's own pipelines do not "
    "say which one they drew. Take the data from mmkd_logit.InMemoryDataset with crops and flips "
    "alone, or leave out the teacher's cache"
)


def default_root() -> Path:
    """Return the folder of caches where a config names none."""
    return Path(os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser()


class TeacherCache:
    """Keep a teacher's logits by the number of image and view.

    A hit gives the very bits that a miss gives: misses are computed in micro-batches of one
    shape, rounded to ``dtype`` and only then used. So cold, warm and resumed runs agree, and it
    is of no importance who filled the cache. It is told apart by the hash of the teacher's
    weights and config, the normalisation of its input, the pictures, the settings of its
    computation, torch's version and the kind of processor; a change of any of these begins
    another cache.

    Size: images x views x classes x 4 or 2 bytes, and 4 for a checksum. The 162 views of
    CIFAR-100's 50,000 training images (9 x 9 crops, two flips) take 3.24 GB in float32 and
    1.62 GB in float16. 200 epochs draw 162 (1 - (161/162)^200) = 115 of an image's views, so
    that 57.5 % of what a first run looks up is missing.

    Bound: where not all views of all images fit into ``max_gib``, those of the images with the
    lowest numbers are kept and the teacher is asked for the others each time. Nothing is ever
    thrown out. A teacher has its own bound, also in an ensemble.

    Where memory is short from the start, that is an error: it is better known now than at the
    hundredth epoch. A disk that cannot be written is one too, unless the cache is there to be
    read. A disk that fills up while training only ends the filling, with a warning.

    Args:
        storage: ``'memory'`` of each process; ``'disk'``, for all processes and later runs;
            ``'device'``, where the teacher computes.
        dtype: ``'float32'``, or ``'float16'``, which rounds the logits to 11 bits.
        root: Folder of the caches on disk; by default that of the environment variable
            ``MMKD_LOGIT_TEACHER_CACHE``, or ``work_dirs/teacher_cache``.
        max_gib: The most memory or disk it may take.

    Raises:
        ValueError: If a value is none of these.

    Example:
        >>> import numpy as np
        >>> cache = TeacherCache(storage='memory')
        >>> views = Views('crops of tens', 10, 2, index=np.array([3, 4]), view=np.array([0, 1]))
        >>> for _ in range(2):
        ...     _ = cache(torch.ones(2, 5), views, lambda x: x, lambda views: dict(num_classes=5))
        >>> cache.report()['hits'], cache.report()['misses']
        (2, 2)
    """

    def __init__(
        self,
        storage: str = "disk",
        dtype: str = "float32",
        root: str | None = None,
        max_gib: float = 4.0,
    ) -> None:
        if storage not in ("memory", "disk", "device"):
            raise ValueError(
                f"a teacher cache's storage is 'memory', 'disk' or 'device', got {storage!r}"
            )
        if dtype not in ("float32", "float16"):
            raise ValueError(f"a teacher cache's dtype is 'float32' or 'float16', got {dtype!r}")
        if root is not None and (not isinstance(root, (str, Path)) or not str(root)):
            raise ValueError(f"a teacher cache's root is the name of a folder, got {root!r}")
        number = isinstance(max_gib, (int, float)) and not isinstance(max_gib, bool)
        if not number or not 0 < max_gib < float("inf"):
            raise ValueError(f"a teacher cache's max_gib is a number above 0, got {max_gib!r}")
        self.storage, self.dtype, self.max_gib = storage, dtype, float(max_gib)
        self.root = Path(root).expanduser() if root else default_root()
        if storage == "disk" and self.root.exists() and not self.root.is_dir():
            raise ValueError(f"a teacher cache's root is a folder, and {self.root} is a file")
        self.hits = self.misses = 0
        self._stores: dict[tuple, Store] = {}
        self._bytes = 0

    def __call__(
        self,
        inputs: Tensor,
        views: Views | None,
        compute: Callable[[Tensor], Tensor],
        describe: Callable[[Views], dict[str, Any]],
    ) -> Tensor:
        """Return the logits of a batch.

        Args:
            inputs: The pictures (N, ...) as the teacher takes them.
            views: Which ones they are.
            compute: Gives the logits (N, K) of some of them.
            describe: Names all that decides them, with ``num_classes``; asked once.

        Returns:
            (N, K), float32.

        Raises:
            ValueError: If the pictures have no numbers or not those of this batch, or the cache
                does not fit anywhere.
            OSError: If its folder can neither be written nor read.
        """
        if views is None:
            raise ValueError(UNKEYED)
        if not len(views.index) == len(views.view) == len(inputs):
            raise ValueError(
                f"{len(inputs)} pictures have {len(views.index)} numbers of images and "
                f"{len(views.view)} of views; one each is needed"
            )
        store = self._store(inputs, views, describe)
        numbers = _numbers(views)
        logits, there = store.get(numbers, inputs.device)
        missing = np.flatnonzero(~there)
        self.hits += len(numbers) - len(missing)
        self.misses += len(missing)
        if len(missing):
            where = torch.from_numpy(missing).to(inputs.device, non_blocking=True)
            whole = len(missing) == len(numbers)
            fresh = compute(inputs if whole else inputs.index_select(0, where))
            fresh = fresh.to(getattr(torch, self.dtype))
            store.put(numbers[missing], fresh)
            logits = fresh if whole else logits.index_copy_(0, where, fresh)
        return logits.float()

    def _store(
        self, inputs: Tensor, views: Views, describe: Callable[[Views], dict[str, Any]]
    ) -> Store:
        # All of it may change from batch to batch: validation has other pictures, AMP may be on.
        device = inputs.device
        precision = torch.is_autocast_enabled(device.type)
        key = (
            views.pictures,
            device,
            inputs.dtype,
            precision and torch.get_autocast_dtype(device.type),
        )
        if key not in self._stores:
            store = open_store(self, device, views, describe(views))
            self._stores[key] = store
            self._bytes += store.size * 4 * (words_of_row(store.num_classes, self.dtype) + 1)
        return self._stores[key]

    def lacking(
        self, inputs: Tensor, views: Views, describe: Callable[[Views], dict[str, Any]]
    ) -> np.ndarray:
        """Tell which pictures are not there but may be kept.

        Args:
            inputs: As for a call, of which only device and type are looked at.
            views: Which pictures they are.
            describe: As for a call.

        Returns:
            Bools (N,).
        """
        store = self._store(inputs, views, describe)
        numbers = _numbers(views)
        return ~store.get(numbers, torch.device("cpu"))[1] & (numbers < store.size)

    @property
    def folders(self) -> list[Path]:
        """Where what is open lies on disk."""
        return [store.folder for store in self._stores.values() if hasattr(store, "folder")]

    @property
    def stores(self) -> list[Store]:
        """Where the logits are, for each kind of pictures that was asked for."""
        return list(self._stores.values())

    def forget(self) -> None:
        """Let go of what is open; the next batch opens the cache that fits then."""
        for store in self._stores.values():
            store.flush()
        self._stores.clear()
        self._bytes = 0

    def report(self) -> dict[str, int]:
        """Return ``hits`` and ``misses`` so far, ``entries`` there, and ``bytes`` when full.

        Hits and misses are those of this process.
        """
        entries = sum(store.filled() for store in self._stores.values())
        return dict(hits=self.hits, misses=self.misses, entries=entries, bytes=self._bytes)


def _numbers(views: Views) -> np.ndarray:
    """Return the place of each picture among all; ValueError if one is outside."""
    shape = (views.samples, views.per_sample)
    try:
        numbers = np.ravel_multi_index((views.index, views.view), shape)
    except ValueError:
        raise ValueError(
            f"an image of {views.samples} or a view of {views.per_sample} has a number outside: "
            f"images {views.index.min()} to {views.index.max()}, views {views.view.min()} to "
            f"{views.view.max()}"
        ) from None
    return numbers.astype(np.int64, copy=False)
