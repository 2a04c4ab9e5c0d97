"""A cache of a teacher's logits, by the view of each image."""

import hashlib
import json
import logging
import mmap
import os
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MessageHub, print_log
from torch import Tensor, nn

from mmkd_logit.checkpoint import state_hash
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.utils.arguments import check_choice, check_number
from mmkd_logit.utils.files import open_in_place, write_text

# What decides a teacher's logits. The hash of it names the folder of a cache, so a change of these
# descriptions makes every cache on disk useless.

_FORMAT = 1  # of the files; another number where their layout or checksum changes


def weights_hash(model: nn.Module) -> str:
    """Hash a network's parameters and buffers, whatever their device and memory layout."""
    return state_hash({**dict(model.named_buffers()), **model.state_dict()})


def describe_preprocessor(preprocessor: Any) -> dict[str, Any]:
    """Describe how a data preprocessor turns images into a network's input."""
    names = ("mean", "std", "_enable_normalize", "_channel_conversion", "to_rgb")
    # With the type, since a class of its own may do anything with the images.
    described: dict[str, Any] = dict(type=type(preprocessor).__name__)
    for name in (*names, "pad_size_divisor", "pad_value"):
        value = getattr(preprocessor, name, None)
        described[name] = value.flatten().tolist() if isinstance(value, Tensor) else value
    return described


def describe_tf32() -> dict[str, bool]:
    """Say which float32 operations of a GPU round their operands to TensorFloat-32 (11 bits)."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # from torch 2.9 on; where it was set, reading allow_tf32 raises
        found = [each.fp32_precision == "tf32" for each in (cudnn.conv, matmul)]
    else:
        found = [cudnn.allow_tf32, matmul.allow_tf32]
    return dict(zip(("convolutions", "matmul"), found, strict=True))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the processor, its libraries and their settings: others round differently."""
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        return dict(
            torch=torch.__version__,
            device=torch.cuda.get_device_name(device),
            cudnn=cudnn.version(),
            tf32=describe_tf32(),
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic or torch.are_deterministic_algorithms_enabled(),
        )
    return dict(
        torch=torch.__version__,
        device=f"{device.type} {torch.backends.cpu.get_cpu_capability()}",
        half=[
            bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
            bool(torch.ops.mkldnn._is_mkldnn_fp16_supported()),
        ],
    )


# Rows of logits, each with a checksum.

META, ROWS, SUMS = "meta.json", "logits.bin", "checksums.bin"


def words_of_row(num_classes: int, dtype: str) -> int:
    """Return how many 32-bit words the logits of a view take."""
    return -(-num_classes * np.dtype(dtype).itemsize // 4)


def bytes_of_rows(size: int, num_classes: int, dtype: str) -> int:
    """Return how much the logits of some views take with their checksums."""
    return 4 * size * (words_of_row(num_classes, dtype) + 1)


def _warn(text: str) -> None:
    print_log(f"{text}; results do not change.", "current", level=logging.WARNING)


def _odd_numbers(count: int) -> np.ndarray:
    """Return odd 64-bit numbers that look random (splitmix64), the same ones every time."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed | np.uint64(1)


class LogitStore:
    """Logits (K,) of ``size`` views, in memory, or in the files of a folder.

    A row counts only if its checksum, which is written after it, fits its content and its number;
    0 marks an empty row. What was cut short, torn between two writers or damaged is therefore
    missing, never wrong, and any number of processes may share the files without a lock.
    """

    def __init__(
        self,
        size: int,
        num_classes: int,
        dtype: str,
        folder: Path | None = None,
        meta: str = "",
    ) -> None:
        self.size, self.num_classes, self.dtype, self.folder = size, num_classes, dtype, folder
        self.bytes = bytes_of_rows(size, num_classes, dtype)
        words = words_of_row(num_classes, dtype)
        self._factors = _odd_numbers(words)
        self._files: list[int] = []  # to be written
        self._writer = ThreadPoolExecutor(1)  # its thread begins with the first logits of a GPU
        self._pending: Future | None = None
        if folder is None:
            self._rows = np.zeros((size, words), np.uint32)  # the system fills it lazily
            self._sums = np.zeros(size, np.uint32)
        else:
            self._open(folder, meta, {ROWS: size * words * 4, SUMS: size * 4})
            self._rows = _mapped(folder / ROWS).reshape(size, words)
            self._sums = _mapped(folder / SUMS)

    def _open(self, folder: Path, meta: str, lengths: dict[str, int]) -> None:
        """Create what is missing, and open the files for writing where that is allowed."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, length in lengths.items():
                file = open_in_place(folder / name, os.O_RDWR)
                weakref.finalize(self, os.close, file)
                if name == SUMS and hasattr(os, "posix_fallocate"):
                    # On a tmpfs, reading what was never written takes memory, and where none is
                    # left it ends the process. Rows are read only where the checksums have a mark.
                    os.posix_fallocate(file, 0, length)
                os.ftruncate(file, length)  # a file that was cut short reads as zeros: missing
                self._files.append(file)
            if not (folder / META).is_file() or (folder / META).read_bytes() != meta.encode():
                write_text(folder / META, meta)
        except OSError as error:
            paths = [folder / name for name in lengths]
            if [p.stat().st_size if p.is_file() else None for p in paths] != [*lengths.values()]:
                raise
            self._stop_writing(error)

    def _stop_writing(self, error: OSError) -> None:
        self._files = []
        _warn(
            f"The teacher cache {self.folder} is only read from now on: {error}. What it lacks is "
            "computed each time"
        )

    def get(self, numbers: np.ndarray, device: torch.device) -> tuple[Tensor, np.ndarray]:
        """Look views up: their logits (N, K), and for which of them these are there (N,)."""
        sums = self._sums[numbers]
        marked = np.flatnonzero(sums)
        # Compared with a copy: another process may be writing the row this moment.
        words = np.zeros((len(numbers), len(self._factors)), np.uint32)
        words[marked] = self._rows[numbers[marked]]
        found = sums == self._checksum(words, numbers)
        logits = torch.from_numpy(words.view(self.dtype)[:, : self.num_classes])
        if device.type == "cuda":
            logits = logits.pin_memory()
        return logits.to(device, non_blocking=True), found

    def put(self, numbers: np.ndarray, logits: Tensor) -> None:
        """Store logits; those on a GPU by a thread, which waits for the copy and writes."""
        if logits.shape != (len(numbers), self.num_classes):
            raise ValueError(
                f"the teacher cache is for {self.num_classes} classes, got logits of shape "
                f"{tuple(logits.shape)} for {len(numbers)} images"
            )
        self.flush()  # at most one batch is under way
        if logits.is_cuda:
            device = logits.device
            logits = logits.to("cpu", non_blocking=True)  # into pinned memory
            copied = torch.cuda.Event(blocking=True)
            copied.record()
            self._pending = self._writer.submit(self._write_copied, numbers, logits, copied, device)
        else:
            self._write(numbers, logits)

    def flush(self) -> None:
        """Wait until what the last call of ``put`` left under way is stored."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _write_copied(self, numbers: np.ndarray, logits: Tensor, copied: Any, device: Any) -> None:
        torch.cuda.set_device(device)  # otherwise this thread starts CUDA on the first GPU
        copied.synchronize()
        self._write(numbers, logits)

    def _write(self, numbers: np.ndarray, logits: Tensor) -> None:
        rows = logits.numpy()
        if self.dtype == "float16" and not np.isfinite(rows).all():
            raise ValueError(
                "a logit of the teacher does not fit float16, whose largest number is 65504; set "
                "dtype='float32' in the teacher's cache"
            )
        words = np.zeros((len(rows), len(self._factors)), np.uint32)
        words.view(self.dtype)[:, : self.num_classes] = rows
        sums = self._checksum(words, numbers)
        if self.folder is None:
            self._rows[numbers], self._sums[numbers] = words, sums
        elif self._files:
            try:
                for file, array in zip(self._files, (words, sums), strict=True):
                    _write_rows(file, numbers, array)
            except OSError as error:  # most likely the disk is full; training need not end for it
                self._stop_writing(error)

    def _checksum(self, words: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        # Multiply-shift hashing (Dietzfelbinger 1996): two different rows agree by a chance of
        # 2**-32, also those whose words end in zeros, as bfloat16 kept as float32 does.
        total = words.astype(np.uint64) @ self._factors
        total += numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return np.maximum((total >> np.uint64(32)).astype(np.uint32), np.uint32(1))

    @property
    def writable(self) -> bool:
        """Whether logits are still stored."""
        return self.folder is None or bool(self._files)

    def sync(self) -> None:
        """Bring everything to the disk; some disks say only then that they are full."""
        self.flush()
        try:
            for file in self._files:
                os.fsync(file)
        except OSError as error:
            self._stop_writing(error)

    def filled(self) -> int:
        """Count the rows with a checksum, right or wrong."""
        self.flush()
        return int(np.count_nonzero(self._sums))


def _mapped(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        content.madvise(mmap.MADV_RANDOM)  # views are random: reading ahead reads for nothing
    return np.frombuffer(content, np.uint32)


def _write_rows(file: int, numbers: np.ndarray, rows: np.ndarray) -> None:
    """Write rows to their places; on a full disk this is an error, in a mapping it is a signal."""
    for number, row in zip(numbers.tolist(), rows, strict=True):
        os.pwrite(file, row.tobytes(), number * row.nbytes)


# The cache.

ROOT_VARIABLE = "MMKD_LOGIT_TEACHER_CACHE"
DEFAULT_ROOT = "work_dirs/teacher_cache"

UNKEYED = (
    "a teacher with a cache needs images whose views have a number, and these have none: MixUp, "
    "CutMix, Cutout and noise show no image twice, and mmpretrain's own pipelines do not say which "
    "view they drew. Take the data from mmkd_logit.InMemoryDataset with crops and flips alone, or "
    "leave out the teacher's cache"
)


class TeacherCache:
    """Keep a teacher's logits by the number of image and view.

    A hit gives the same bits as a miss on a CPU: misses are computed in micro-batches of one shape,
    rounded to ``dtype`` and only then used. Cold, warm and resumed runs therefore agree, and it
    does not matter which run filled the cache. On a GPU all misses of a batch are computed in one
    pass, and kernels chosen for another number of images may round the last bits differently. A
    cache belongs to the hash of the teacher's weights, its config, the normalization of its input,
    the images, the settings of its computation, the versions of torch and cuDNN and the kind of
    processor; a change of any of these begins another cache.

    Size: images x views x classes x 4 or 2 bytes, and 4 for a checksum. The 162 views of
    CIFAR-100's 50,000 training images (9 x 9 crops, two flips) take 3.24 GB in float32 and
    1.62 GB in float16. E epochs draw V (1 - (1 - 1/V)^E) of the V views of an image, 115 of 162
    in 200 epochs, so that 57.5 % of what a first run looks up is missing.
    ``tools/precompute.py`` computes these views before the run.

    Bound: data whose views do not all fit into ``max_gib`` are not cached at all; a warning says
    so. A teacher has its own bound, also in an ensemble.

    A folder that cannot be written is only read; where it cannot be read either, every logit is
    computed. A disk that fills up while training ends the filling. All of it with a warning.

    Args:
        storage: ``'memory'`` of each process, or ``'disk'``, for all processes and later runs.
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
        root: str | Path | None = None,
        max_gib: float = 4.0,
    ) -> None:
        what = "of a teacher's cache"
        self.storage = check_choice(f"storage {what}", storage, ("memory", "disk"))
        self.dtype = check_choice(f"dtype {what}", dtype, ("float32", "float16"))
        self.max_gib = check_number(f"max_gib {what}", max_gib, zero=False)
        if root is not None and (not isinstance(root, (str, Path)) or not str(root)):
            raise ValueError(f"root {what} must be the name of a folder, got {root!r}")
        root = root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT
        self.root = Path(root).expanduser()
        # Of os.path: a folder that may not be looked into is no error.
        if storage == "disk" and os.path.exists(self.root) and not os.path.isdir(self.root):
            raise ValueError(f"root {what} must be a folder, and {self.root} is a file")
        self.hits = self.misses = 0
        self._stores: dict[tuple, LogitStore | None] = {}

    @torch.compiler.disable  # files, hashes and NumPy
    def __call__(
        self,
        inputs: Tensor,
        views: Views | None,
        compute: Callable[[Tensor], Tensor],
        describe: Callable[[Views], dict[str, Any]],
    ) -> Tensor:
        """Return the logits (N, K) of images (N, ...), float32.

        ``compute`` gives those of some of the images; ``describe`` names all that decides them,
        with ``num_classes``, and is called once.
        """
        if views is None:
            raise ValueError(UNKEYED)
        if not len(views.index) == len(views.view) == len(inputs):
            raise ValueError(
                f"{len(inputs)} images have {len(views.index)} numbers of images and "
                f"{len(views.view)} of views; one each is needed"
            )
        dtype = getattr(torch, self.dtype)
        numbers = np.ravel_multi_index((views.index, views.view), (views.samples, views.per_sample))
        store = self._store(inputs, views, describe)
        if store is None:
            self.misses += len(numbers)
            return compute(inputs).to(dtype).float()
        logits, found = store.get(numbers, inputs.device)
        missing = np.flatnonzero(~found)
        self.hits += len(numbers) - len(missing)
        self.misses += len(missing)
        if len(missing):
            rows = torch.from_numpy(missing).to(inputs.device, non_blocking=True)
            computed = compute(inputs.index_select(0, rows)).to(dtype)
            store.put(numbers[missing], computed)
            logits = logits.index_copy(0, rows, computed)
        return logits.float()

    def _store(
        self, inputs: Tensor, views: Views, describe: Callable[[Views], dict[str, Any]]
    ) -> LogitStore | None:
        # All of it may change from batch to batch: validation has other images, AMP may be on.
        device = inputs.device.type
        autocast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = (views.pictures, inputs.device, inputs.dtype, autocast)
        if key not in self._stores:
            self._stores[key] = self._open(views, describe(views))
        return self._stores[key]

    def _open(self, views: Views, content: dict[str, Any]) -> LogitStore | None:
        """Make or open the store for the views of a data set; None where it does not fit."""
        size, classes = views.samples * views.per_sample, content["num_classes"]
        room = bytes_of_rows(size, classes, self.dtype)
        if room > self.max_gib * 2**30:
            _warn(
                f"No teacher cache: the {views.per_sample} views of {views.samples} images would "
                f"take {room / 2**30:.3g} GiB, and max_gib is {self.max_gib:g}; raise it, or set "
                "dtype='float16'. Every logit is computed"
            )
            return None
        if self.storage == "memory":
            store, where = LogitStore(size, classes, self.dtype), "in memory"
        else:
            try:
                store = self._open_on_disk(views, content)
                free = shutil.disk_usage(self.root).free / 2**30
            except OSError as error:  # training need not end for it
                _warn(f"No teacher cache: {error}. Every logit is computed")
                return None
            where = f"{store.folder} ({free:.2f} GiB free)"
        filled = store.filled()
        text = (
            f"The teacher cache {where} holds {filled} of {size} logits and takes "
            f"{room / 2**30:.3g} GiB when full."
        )
        epochs = MessageHub.get_current_instance().get_info("max_epochs")
        if epochs:
            # A lower bound of the share of hits: the logits that are there may be of the same seed.
            drawn = views.per_sample * (1 - (1 - 1 / views.per_sample) ** epochs)
            expected = 1 - (1 - filled / size) * drawn / epochs
            text += f" At least {expected:.1%} of the look-ups of {epochs} epochs will be hits."
        print_log(text, "current")
        return store

    def _open_on_disk(self, views: Views, content: dict[str, Any]) -> LogitStore:
        content = dict(
            content,
            dtype=self.dtype,
            pictures=views.pictures,
            samples=views.samples,
            per_sample=views.per_sample,
            rows=views.samples * views.per_sample,
            format=_FORMAT,
        )
        text, meta = (json.dumps(content, sort_keys=True, default=str, indent=i) for i in (None, 1))
        folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:32]
        return LogitStore(content["rows"], content["num_classes"], self.dtype, folder, meta)

    @property
    def stores(self) -> list[LogitStore]:
        """The open stores, one for each data set and precision."""
        return [store for store in self._stores.values() if store is not None]

    def forget(self) -> None:
        """Close what is open; the next batch opens the cache that fits then."""
        for store in self.stores:
            store.flush()
        self._stores.clear()

    def report(self) -> dict[str, int]:
        """Return ``hits`` and ``misses`` so far, ``entries`` there, and ``bytes`` when full.

        Hits and misses are those of this process.
        """
        entries = sum(store.filled() for store in self.stores)
        room = sum(store.bytes for store in self.stores)
        return dict(hits=self.hits, misses=self.misses, entries=entries, bytes=room)
