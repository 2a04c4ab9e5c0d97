"""The logits of a frozen teacher, computed once for each picture."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkd_logit.datasets.views import Views

from ._logit_store import words_of_row
from ._open_store import Store, open_store

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
