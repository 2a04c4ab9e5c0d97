"""Exporting the logits of every sample to a file."""

import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from torch import Tensor

from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_text
from mmkd_logit.utils.files import explained, replacing

from .base import LogitMetric, forget

_LAYERS = ("weight", "bias", "teacher_weight", "teacher_bias")


class Rows(NamedTuple):
    """The rows that one process has written, a file a field, and the type and shape of each."""

    folder: str
    samples: int
    fields: dict[str, tuple[str, tuple[int, ...]]]


@METRICS.register_module()
class LogitDump(LogitMetric):
    """Export the logits, pre-logits and labels of every sample of a split to one ``.npz`` file.

    N samples in the order of the data set, K classes, D features: ``index`` (N,), the samples'
    ``sample_idx``, ``label`` and ``clean_label`` (N,), int64; ``logits`` (N, K) and, where samples
    have them, ``prelogits`` (N, D), ``teacher_logits`` (N, K) and ``teacher_prelogits``, float32;
    the arrays of ``layers``; ``classes`` (K,), where the data set names them; ``identity``, a text
    in JSON. ``numpy.load`` reads it without pickle. The samples' fields come from
    ``mmkd_logit.LogitOutputsHook``.

    Memory is bounded: each process appends its rows to files beside the target, and in the end the
    main process joins them. The target appears whole or not at all. Several processes write the
    same bytes as one; all must see the same folder.

    It measures nothing. ``tools/dump_logits.py`` and ``--dump-logits`` of the other tools use it.

    Args:
        out_file: The file, ``.npz``.
        identity: What the logits are of, for readers of the file.
        layers: Returns ``weight`` (K, D), ``bias`` (K,) and those of the teacher, under
            ``teacher_weight`` and ``teacher_bias``; called when all samples have passed, since
            ``EMAHook`` exchanges weights for the test.
        **kwargs: Of MMEngine's ``BaseMetric``; not used.

    Raises:
        ValueError: If an argument is of another kind; when samples pass, if one has no logits or
            not one label among the classes, other fields than the first, or values that are not
            finite; when evaluating, if samples are missing or came twice.

    Example:
        >>> import tempfile
        >>> from mmkd_logit.metrics import LogitDump
        >>> folder = tempfile.TemporaryDirectory()
        >>> export = LogitDump(f'{folder.name}/test.npz', identity=dict(seed=0))
        >>> sample = dict(logits=torch.tensor([0.5, 2.0]), gt_label=torch.tensor([1]))
        >>> export.process({}, [sample, sample])
        >>> export.evaluate(2)
        {}
        >>> with np.load(f'{folder.name}/test.npz') as arrays:
        ...     arrays['logits'].tolist(), str(arrays['identity'])
        ([[0.5, 2.0], [0.5, 2.0]], '{"seed": 0}')
        >>> folder.cleanup()
    """

    default_prefix = "dump"

    def __init__(
        self,
        out_file: str | Path,
        identity: Mapping[str, Any] | None = None,
        layers: Callable[[], Mapping[str, np.ndarray]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.out_file = Path(check_text("out_file", str(out_file), "the name of a .npz file"))
        if self.out_file.suffix != ".npz":
            raise ValueError(f"LogitDump writes .npz files, got out_file={str(out_file)!r}")
        if not isinstance(identity, (Mapping, type(None))):
            raise ValueError(f"identity must be a dict of what JSON can hold, got {identity!r}")
        if layers is not None and not callable(layers):
            raise ValueError(f"layers must be a function that returns arrays, got {layers!r}")
        self.identity = dict(identity or {})
        self.layers = layers
        self._reset()

    def _reset(self) -> None:
        forget()
        self._rows = Rows("", 0, {})
        self._remove_files: Callable[[], object] = dict  # nothing yet

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Read the fields of a batch, (N, ...) by name, in the order of the file."""
        logits, teacher = self.logit_pair(samples)
        indices = [sample.get("sample_idx") for sample in samples]
        columns = dict(
            index=None if None in indices else torch.tensor(indices),
            label=self.labels_of(samples, logits.shape[1]),
            clean_label=self.labels_of(samples, logits.shape[1], "clean_label"),
            logits=logits,
            prelogits=self.vectors_of(samples, "prelogits"),
            teacher_logits=teacher,
            teacher_prelogits=self.vectors_of(samples, "teacher_prelogits"),
        )
        return {name: values for name, values in columns.items() if values is not None}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append a batch to this process's files."""
        if not data_samples:
            return
        columns = {name: values.numpy() for name, values in self.columns_of(data_samples).items()}
        for name, values in columns.items():
            columns[name] = values.astype(np.float32) if values.dtype.kind == "f" else values
        fields = {name: (values.dtype.str, values.shape[1:]) for name, values in columns.items()}
        if not self._rows.folder:
            parent, name = self.out_file.parent, self.out_file.name
            parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=parent)
            self._rows = Rows(folder, 0, fields)
            # With this object at the latest, so also where an error ends the program.
            self._remove_files = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        if fields != self._rows.fields:
            raise ValueError(
                f"samples differ in their fields: first {_describe(self._rows.fields)}, later "
                f"{_describe(fields)}"
            )
        for name, values in columns.items():
            try:
                with Path(self._rows.folder, name).open("ab") as file:
                    file.write(values.tobytes())
            except OSError as error:
                raise explained(error, self.out_file, values.nbytes) from error
        self._rows = self._rows._replace(samples=self._rows.samples + len(data_samples))

    def evaluate(self, size: int) -> dict[str, float]:
        """Write the file of all processes' samples and begin anew; return nothing."""
        everyone, remove_files = all_gather_object(self._rows), self._remove_files
        self._reset()
        try:
            layers = dict(self.layers()) if self.layers is not None else {}
            error: Exception | None = None
            if is_main_process():
                try:
                    self._write(everyone, size, layers)
                except Exception as raised:  # the other processes wait: tell them
                    error = raised
            # An OSError names the file itself.
            named = error if isinstance(error, OSError) else f"{self.out_file}: {error}"
            failure = [None if error is None else str(named)]
            broadcast_object_list(failure)  # after it the rows are no longer read
        finally:
            remove_files()
        if failure[0] is not None:
            raise ValueError(failure[0]) from error
        return {}

    def _write(self, everyone: list[Rows], size: int, layers: Mapping[str, np.ndarray]) -> None:
        _check_rows(everyone, size)
        fields = everyone[0].fields
        arrays: dict[str, Any] = {name: _in_order(everyone, name)[:size] for name in fields}
        if "index" in fields:
            _check_index(arrays["index"])
        arrays = {"index": np.arange(size), **arrays}
        arrays |= {name: layers[name].astype(np.float32) for name in _LAYERS if name in layers}
        classes = (self.dataset_meta or {}).get("classes")
        if classes is not None and len(classes) == fields["logits"][1][0]:
            arrays["classes"] = np.array([str(each) for each in classes])
        arrays["identity"] = np.array(json.dumps(self.identity, sort_keys=True))
        with replacing(self.out_file) as file:
            np.savez(file, **arrays)  # mapped arrays in pieces; equal ones give equal bytes


def _in_order(everyone: list[Rows], name: str) -> np.ndarray:
    """Map the rows of all processes in the data set's order.

    Process r of W has samples r, r + W, ... of the data set, as MMEngine's ``DefaultSampler``
    gives them out; those that it repeats stand at the end.
    """
    kind, shape = everyone[0].fields[name]
    # A file for each process, since NFS may mix up what several machines write to one.
    parts = [
        np.memmap(Path(rows.folder, name), kind, "r", shape=(rows.samples, *shape))
        for rows in everyone
    ]
    if len(parts) == 1:
        return parts[0]
    joined = Path(everyone[0].folder, f"{name}.joined")
    rows = np.memmap(joined, kind, "w+", shape=(sum(map(len, parts)), *shape))
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows


def _check_rows(everyone: list[Rows], size: int) -> None:
    """Make sure that the processes have every sample of the data set."""
    if not any(rows.samples for rows in everyone):
        raise ValueError("LogitDump got no samples")
    expected = -(-size // len(everyone))  # each has as many, by repeating some
    for rank, rows in enumerate(everyone):
        if rows.samples != expected:
            raise ValueError(
                f"process {rank} of {len(everyone)} has {rows.samples} samples of a data set of "
                f"{size}, expected {expected}; the data loader must give each once, in order: set "
                "its sampler=dict(type='DefaultSampler', shuffle=False) and drop_last=False"
            )
        if rows.fields != everyone[0].fields:
            raise ValueError(
                f"processes differ in the fields of samples: 0 {_describe(everyone[0].fields)}, "
                f"{rank} {_describe(rows.fields)}"
            )
        if not Path(rows.folder).is_dir():
            raise ValueError(
                f"process 0 does not see {rows.folder} of process {rank}; write to a folder that "
                "all machines share"
            )


def _check_index(index: np.ndarray) -> None:
    values, counts = np.unique(index, return_counts=True)
    if len(values) < len(index):
        raise ValueError(
            f"sample {values[counts.argmax()]} came {counts.max()} times and "
            f"{len(index) - len(values)} others are missing: a sample could not be read and "
            "another took its place, or the data loader does not give each once"
        )


def _describe(fields: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {kind[1:]}{list(shape)}" for name, (kind, shape) in fields.items())
