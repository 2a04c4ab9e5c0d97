"""What runs leave, read: dumped logits, logged scalars."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_ROWS = ("label", "clean_label", "prelogits", "teacher_logits", "teacher_prelogits")
_LAYERS = ("weight", "bias", "teacher_weight", "teacher_bias", "classes")
_WHOLE = ("index", "label", "clean_label")


@dataclass(frozen=True)
class Dump:
    """The logits of every sample of a split, as ``tools/dump_logits.py`` writes them.

    N samples in the order of the data set, K classes, D features; what a file does not have is
    None.

    Attributes:
        path: The file.
        identity: What it is of: config, seed, weights, split and more.
        index: Of the samples in the data set, (N,).
        label: Those that training sees, (N,).
        clean_label: The true ones, (N,); as ``label`` without label noise.
        logits: (N, K), float32 as are the next.
        prelogits: Input of the last layer, (N, D).
        weight: Of the last layer, (K, D).
        bias: Of the last layer, (K,).
        teacher_logits: (N, K).
        teacher_prelogits: (N, D of the teacher).
        teacher_weight: (K, D of the teacher).
        teacher_bias: (K,).
        classes: Their names, (K,).
    """

    path: Path
    identity: dict[str, Any]
    index: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray
    logits: np.ndarray
    prelogits: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    teacher_logits: np.ndarray | None = None
    teacher_prelogits: np.ndarray | None = None
    teacher_weight: np.ndarray | None = None
    teacher_bias: np.ndarray | None = None
    classes: np.ndarray | None = None


def read_dump(path: str | Path) -> Dump:
    """Read a file of dumped logits; nothing in it is run.

    Args:
        path: The ``.npz`` file.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is cut off, no dump, or its arrays do not fit each other.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the dump {path} does not exist; tools/dump_logits.py makes it")
    try:
        # Opened here: of a file that is cut off numpy would not close its own.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        identity = json.loads(str(arrays.pop("identity")))
        known = {name: arrays[name] for name in ("index", "label", "clean_label", "logits")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a whole dump of logits ({type(error).__name__}: {error}); let "
            "tools/dump_logits.py write it again"
        ) from None
    for name in (*_ROWS, *_LAYERS):
        if name in arrays:
            known[name] = arrays[name]
    _check(path, known, identity)
    return Dump(path=path, identity=identity, **known)


def _check(path: Path, arrays: dict[str, np.ndarray], identity: Any) -> None:
    rows, classes = np.shape(arrays["logits"]) if arrays["logits"].ndim == 2 else (-1, -1)
    for name, array in arrays.items():
        length = classes if name in _LAYERS else rows
        kind = "U" if name == "classes" else "iu" if name in _WHOLE else "f"
        wide = name in _WHOLE or name in ("bias", "teacher_bias", "classes")
        fits = array.ndim == (1 if wide else 2) and len(array) == length
        if not fits or array.dtype.kind not in kind:
            raise ValueError(
                f"{path}: {name} is {array.dtype} {array.shape}, which does not fit logits "
                f"{arrays['logits'].shape}; let tools/dump_logits.py write it again"
            )
    if arrays.get("teacher_logits", arrays["logits"]).shape != arrays["logits"].shape:
        raise ValueError(f"{path}: teacher and student have other numbers of classes")
    labels = np.concatenate([arrays["label"], arrays["clean_label"]])
    if not rows or not isinstance(identity, dict) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{path} holds no samples, no identity or labels that are no class")


def read_scalars(paths: Iterable[str | Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read what a run logged.

    A run that was cut off and resumed has several files; what was done again counts as it was
    done last. A last line without its end is passed over.

    Args:
        paths: The files ``vis_data/scalars.json``, oldest first.

    Returns:
        For each name the steps, ascending, and the values there. Training is logged by iteration
        (``loss_kd``; ``epoch`` says which), validation by epoch (``accuracy/top1``).

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a line is not JSON.
    """
    found: dict[str, dict[int, float]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the scalars {path} do not exist")
        lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            row = _read_row(line, last=number == len(lines), where=f"{path}:{number}")
            step = row.get("step")
            for name, value in row.items():
                if name != "step" and step is not None and isinstance(value, (int, float)):
                    found.setdefault(name, {})[int(step)] = float(value)
    return {
        name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for name, values in found.items()
    }


def _read_row(line: str, last: bool, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        if last or not line.strip():  # the process was killed
            return {}
        raise ValueError(f"{where} is not a line of scalars") from None
    return row if isinstance(row, dict) else {}
