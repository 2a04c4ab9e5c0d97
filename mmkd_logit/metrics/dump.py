"""Writing the logits of every sample to a file."""

import fcntl
import glob
import json
import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_world_size, is_main_process
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_text
from mmkd_logit.utils.files import explained, replacing

from .base import Parts, check_collecting


class NpzStream:
    """Write arrays to a zip file as ``numpy.load`` reads them, without holding them.

    The same arrays give the same bytes, whenever they are written.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def write(self, name: str, array: np.ndarray) -> None:
        """Write an array."""
        self.write_rows(name, array.dtype.str, array.shape, [array])

    def write_rows(
        self, name: str, kind: str, shape: tuple[int, ...], chunks: Iterable[np.ndarray]
    ) -> None:
        """Write an array from its rows."""
        header = dict(descr=kind, fortran_order=False, shape=shape)
        entry = zipfile.ZipInfo(f"{name}.npy")  # with zip's first day for a time
        expected, written = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize, 0
        with self._archive.open(entry, "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for chunk in chunks:
                file.write(chunk.tobytes())
                written += chunk.nbytes
        if written != expected:
            raise ValueError(f"{name} has {written} bytes, expected {expected} of {shape}")


@contextmanager
def npz_stream(path: Path) -> Iterator[NpzStream]:
    """Open a file that appears whole, at the end, or not at all."""
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            yield NpzStream(archive)


# Rows of arrays, kept in files until all are there.


_CHUNK = 2**21  # bytes
_OWNER = "owner"  # a file that the process holds a lock on while it lives


class PartFiles:
    """Files beside a target that rows are appended to, one for each field.

    They go with the object at the latest, so also where an error ends the program.
    """

    def __init__(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(target)
        new = tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        owner = os.open(Path(new, _OWNER), os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):  # of a disk without locks, where nothing is removed
            fcntl.flock(owner, fcntl.LOCK_EX)
        folder = f"{new.removesuffix('.new')}.part"
        os.rename(new, folder)  # now others may see it
        self.parts = Parts(folder, 0, {})
        self._remove = weakref.finalize(self, _remove_in, os.getpid(), folder, owner)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Append N rows."""
        fields = {name: (array.dtype.str, array.shape[1:]) for name, array in arrays.items()}
        if self.parts.rows and fields != self.parts.fields:
            raise ValueError(
                f"samples differ in what they hold: first {_words(self.parts.fields)}, later "
                f"{_words(fields)}"
            )
        for name, array in arrays.items():
            path = Path(self.parts.folder, name)
            try:
                with open(path, "ab") as file:
                    file.write(array.tobytes())
            except OSError as error:
                raise explained(error, path, array.nbytes) from error
        (count,) = {len(array) for array in arrays.values()}
        self.parts = Parts(self.parts.folder, self.parts.rows + count, fields)

    def remove(self) -> None:
        """Delete the files."""
        self._remove()


def _remove_left_behind(target: Path) -> None:
    """Remove the files of processes that were killed."""
    for owner in target.parent.glob(f"{glob.escape(f'.{target.name}.')}*.part/{_OWNER}"):
        with suppress(OSError), open(owner, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)


def _remove_in(process: int, folder: str, owner: int) -> None:
    if os.getpid() == process:  # not in a worker of a data loader, which has copies of all objects
        shutil.rmtree(folder, ignore_errors=True)
        os.close(owner)


def merged(parts: Sequence[Parts], name: str, size: int) -> Iterator[np.ndarray]:
    """Give the rows of all processes in the data set's order, a few at a time.

    Process r of W has samples r, r + W, ... of the data set, as MMEngine's ``DefaultSampler``
    gives them out; what it repeats at the end is left out.
    """
    kind, shape = parts[0].fields[name]
    row = int(np.prod(shape, dtype=np.int64))
    step = max(1, _CHUNK // max(1, row * np.dtype(kind).itemsize * len(parts)))
    with ExitStack() as stack:
        files = [stack.enter_context(_reading(part, name)) for part in parts]
        for begin in range(0, size, step * len(parts)):
            total = min(step * len(parts), size - begin)
            chunk = np.empty((total, *shape), kind)
            for rank, file in enumerate(files):
                count = len(range(rank, total, len(parts)))
                mine = np.fromfile(file, kind, count * row)
                chunk[rank :: len(parts)] = mine.reshape(-1, *shape)
            yield chunk


def _reading(part: Parts, name: str) -> IO[bytes]:
    # Of a data set smaller than the processes are many, some have nothing.
    return open(Path(part.folder, name) if part.rows else os.devnull, "rb")


def check_parts(parts: Sequence[Parts], size: int) -> None:
    """Make sure that the processes have every sample of the data set."""
    for rank, part in enumerate(parts):
        wanted = len(range(rank, size, len(parts)))
        if not wanted <= part.rows <= wanted + (len(parts) > 1):
            raise ValueError(
                f"process {rank} of {len(parts)} has {part.rows} samples of a data set of {size}, "
                f"expected {wanted}; the data loader must give each once, in order: set its "
                "sampler=dict(type='DefaultSampler', shuffle=False) and drop_last=False"
            )
        if part.rows and part.fields != parts[0].fields:
            raise ValueError(
                f"processes differ in what samples hold: 0 {_words(parts[0].fields)}, {rank} "
                f"{_words(part.fields)}"
            )
        if part.rows and not Path(part.folder).is_dir():
            raise ValueError(
                f"process 0 does not see {part.folder} of process {rank}; write to a folder that "
                "all machines share"
            )


def _words(fields: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    texts = [f"{name} {kind[1:]}{list(shape)}" for name, (kind, shape) in fields.items()]
    return ", ".join(texts) or "nothing"


# Logits of every sample, to a file.


_OPTIONAL = ("prelogits", "teacher_logits", "teacher_prelogits")
_LAYERS = ("weight", "bias", "teacher_weight", "teacher_bias")


@METRICS.register_module()
class LogitDump(BaseMetric):
    """Write the logits, pre-logits and labels of every sample of a split to one ``.npz`` file.

    N samples in the order of the data set, K classes, D features: ``index`` (N,), which
    ``sample_idx`` says, ``label`` and ``clean_label`` (N,), int64; ``logits`` (N, K) and, where
    samples have them, ``prelogits`` (N, D), ``teacher_logits`` (N, K) and ``teacher_prelogits``,
    float32; what ``layers`` gives; ``classes`` (K,), where the data set names them; ``identity``, a
    text in JSON. ``numpy.load`` reads it without pickle. The samples' fields come from
    ``mmkd_logit.LogitOutputsHook``.

    Memory is bounded: rows go to files beside the target, and the main process puts those of all
    together, a few megabytes at a time. The target appears whole or not at all. Over several
    processes it is the very file of one; they must see the same folder.

    It measures nothing. ``tools/dump_logits.py`` and ``--dump-logits`` of the other tools use it.

    Args:
        out_file: To write, ``.npz``.
        identity: What the file is of, for whoever reads it; also an attribute to set later.
        layers: Returns ``weight`` (K, D), ``bias`` (K,) and those of the teacher, under
            ``teacher_weight`` and ``teacher_bias``; asked once all samples have passed, since
            ``EMAHook`` exchanges weights for the test. Also an attribute to set later.
        collect_device: As of MMEngine's ``BaseMetric``; not used.
        prefix: As of MMEngine's ``BaseMetric``; not used.
        collect_dir: As of MMEngine's ``BaseMetric``; not used.

    Raises:
        ValueError: If ``out_file`` does not end in .npz; when samples pass, if one has no logits
            or not one label among the classes, other fields than the first, or values that are
            not finite; when evaluating, if samples are
            missing or came twice.

    Example:
        >>> import tempfile
        >>> from mmkd_logit.metrics import LogitDump
        >>> folder = tempfile.TemporaryDirectory()
        >>> dump = LogitDump(f'{folder.name}/test.npz', identity=dict(seed=0))
        >>> sample = dict(logits=torch.tensor([0.5, 2.0]), gt_label=torch.tensor([1]))
        >>> dump.process({}, [sample, sample])
        >>> dump.evaluate(2)
        {}
        >>> with np.load(f'{folder.name}/test.npz') as arrays:
        ...     arrays['logits'].tolist(), str(arrays['identity'])
        ([[0.5, 2.0], [0.5, 2.0]], '{"seed": 0}')
        >>> folder.cleanup()
    """

    default_prefix = "dump"

    def __init__(
        self,
        out_file: str,
        identity: Mapping[str, Any] | None = None,
        layers: Callable[[], Mapping[str, np.ndarray]] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        check_collecting(collect_device, prefix, collect_dir)
        super().__init__(collect_device, prefix, collect_dir)
        if not isinstance(out_file, Path):
            check_text("out_file", out_file, "the name of a .npz file")
        if not isinstance(identity, (Mapping, type(None))):
            raise ValueError(f"identity must be a dict of what JSON can hold, got {identity!r}")
        if layers is not None and not callable(layers):
            raise ValueError(f"layers must be a function that returns arrays, got {layers!r}")
        if Path(out_file).suffix != ".npz":
            raise ValueError(f"LogitDump writes .npz files, got out_file={str(out_file)!r}")
        self.out_file = str(out_file)
        self.identity = dict(identity or {})
        self.layers = layers
        self._files: PartFiles | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append a batch to this process's files.

        Args:
            data_batch: Not looked at.
            data_samples: N dicts with ``logits`` (K,), ``gt_label`` and the other fields.
        """
        if not data_samples:
            return
        rows = _rows_of(data_samples)
        if self._files is None:
            self._files = PartFiles(Path(self.out_file))
        self._files.append(rows)

    def evaluate(self, size: int) -> dict[str, float]:
        """Write the file of all processes' samples and begin anew.

        Args:
            size: Number of samples in the data set.

        Returns:
            Nothing.
        """
        files, self._files = self._files, None
        mine = Parts("", 0, {}) if files is None else files.parts
        everyone = [mine]
        if get_world_size() > 1:
            everyone = all_gather_object(mine)
        try:
            layers = dict(self.layers()) if self.layers is not None else {}
            self._write_for_all(everyone, size, layers)
        finally:
            if files is not None:
                files.remove()
        return {}

    def _write_for_all(
        self, parts: Sequence[Parts], size: int, layers: Mapping[str, np.ndarray]
    ) -> None:
        """Let the main process write, and all fail if it does."""
        failed: list[Any] = [None]
        cause: Exception | None = None
        if is_main_process():
            try:
                self._write(parts, size, layers)
            except Exception as error:  # whatever it is, the others wait for it
                named = isinstance(error, OSError)  # that says the file itself
                failed, cause = [str(error) if named else f"{self.out_file}: {error}"], error
        broadcast_object_list(failed)
        if failed[0] is not None:
            raise ValueError(failed[0]) from cause

    def _write(self, parts: Sequence[Parts], size: int, layers: Mapping[str, np.ndarray]) -> None:
        if not any(part.rows for part in parts):
            raise ValueError("LogitDump got no samples")
        check_parts(parts, size)
        fields = dict(parts[0].fields)
        index = np.arange(size)
        if "index" in fields:
            index = np.concatenate([*merged(parts, "index", size)])
            _check_index(index)
        with npz_stream(Path(self.out_file)) as file:
            file.write("index", index)
            for name, (kind, shape) in fields.items():
                if name != "index":
                    file.write_rows(name, kind, (size, *shape), merged(parts, name, size))
            for name in _LAYERS:
                if name in layers:
                    file.write(name, np.asarray(layers[name], np.float32))
            classes = (self.dataset_meta or {}).get("classes")
            if classes is not None and len(classes) == fields["logits"][1][0]:
                file.write("classes", np.array([str(each) for each in classes]))
            file.write("identity", np.array(json.dumps(self.identity, sort_keys=True)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return nothing; :meth:`evaluate` does it all.

        Args:
            results: None.
        """
        return {}


def _rows_of(samples: Sequence[dict]) -> dict[str, np.ndarray]:
    """Return the fields of N samples as arrays of N rows."""
    if any("logits" not in sample for sample in samples):
        raise ValueError(
            "LogitDump needs the logits of each sample; add "
            "dict(type='mmkd_logit.LogitOutputsHook') to custom_hooks"
        )
    for sample in samples:
        if "gt_label" not in sample or sample["gt_label"].numel() != 1:
            raise ValueError(
                f"LogitDump is for one label a sample, got gt_label {sample.get('gt_label')}"
            )
    labels = [int(sample["gt_label"]) for sample in samples]
    rows: dict[str, Any] = dict(
        label=labels,
        clean_label=[
            int(sample.get("clean_label", label))
            for sample, label in zip(samples, labels, strict=True)
        ],
    )
    if _has(samples, "sample_idx"):
        rows["index"] = [int(sample["sample_idx"]) for sample in samples]
    arrays = {name: np.array(values, np.int64) for name, values in rows.items()}
    for name in ("logits", *_OPTIONAL):
        if _has(samples, name):
            arrays[name] = _vectors(samples, name)
    classes = arrays["logits"].shape[1]
    if arrays.get("teacher_logits", arrays["logits"]).shape[1] != classes:
        raise ValueError(
            "LogitDump needs a teacher of the student's classes, got teacher_logits for "
            f"{arrays['teacher_logits'].shape[1]} and logits for {classes}"
        )
    for name in ("label", "clean_label"):
        if arrays[name].min() < 0 or arrays[name].max() >= classes:
            raise ValueError(
                f"LogitDump needs labels from 0 to {classes - 1}, as there are {classes} logits, "
                f"got {name} from {arrays[name].min()} to {arrays[name].max()}"
            )
    return arrays


def _vectors(samples: Sequence[dict], name: str) -> np.ndarray:
    """Return a field of N samples as (N, size), finite."""
    values = [sample[name] for sample in samples]
    shapes = {tuple(value.shape) if isinstance(value, Tensor) else None for value in values}
    if len(shapes) != 1 or None in shapes or len(next(iter(shapes)) or ()) != 1:
        raise ValueError(
            f"LogitDump needs one vector of {name} a sample, a tensor, all of one length, got "
            f"{', '.join(sorted(str(shape or 'no tensor') for shape in shapes))}"
        )
    rows = torch.stack([value.detach() for value in values]).float().cpu().numpy()
    broken = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(broken):
        number = samples[broken[0]].get("sample_idx", f"number {broken[0]} of its batch")
        raise ValueError(
            f"LogitDump: the {name} of sample {number} are not finite ({len(broken)} of "
            f"{len(rows)} samples of the batch); the network has diverged or its input is broken"
        )
    return rows


def _has(samples: Sequence[dict], name: str) -> bool:
    """Whether all samples have a field; some of them is an error."""
    found = {name in sample and sample[name] is not None for sample in samples}
    if len(found) > 1:
        raise ValueError(f"some samples of a batch have {name} and others have not")
    return found.pop()


def _check_index(index: np.ndarray) -> None:
    values, counts = np.unique(index, return_counts=True)
    if len(values) < len(index):
        raise ValueError(
            f"sample {values[counts.argmax()]} came {counts.max()} times and "
            f"{len(index) - len(values)} others are missing: a sample could not be read and "
            "another took its place, or the data loader does not give each once"
        )
