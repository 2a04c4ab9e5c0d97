"""Where a teacher's logits are kept, and how many of them."""

import logging
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from mmkd_logit._atomic_files import FULL
from mmkd_logit.datasets.views import Views

from ._available_memory import available_memory
from ._cache_identity import as_identity
from ._device_store import DeviceStore
from ._logit_store import LogitStore, words_of_row


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
    """Make or open the store for the views of a data set.

    Args:
        settings: Of a :class:`TeacherCache`.
        device: Where the teacher computes.
        views: Any of that data set.
        content: What decides the logits, with ``num_classes``.

    Raises:
        ValueError: If it does not fit into memory, or not one image into ``max_gib``.
        OSError: If its folder can neither be written nor read.
    """
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
    from ._disk_store import DiskStore  # needs a POSIX system

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
