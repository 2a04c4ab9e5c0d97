"""Reading experiments, runs and work folders."""

import json
import os
import re
import reprlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Each(NamedTuple):
    """A dictionary whose values are alike.

    Attributes:
        shape: Of every value.
    """

    shape: Any


# A type stands for its values (float for whole numbers too, never for True), a list for lists of
# its one shape, a tuple for one of several, a dictionary for its fields. ``?`` ends the name of a
# field that may be absent or null.
_CELL = {
    "by_seed": Each(float),
    "mean": (float, None),
    "std": (float, None),
    "n": int,
    "failed": int,
    "paper": (float, None),
    "mark": str,
    "difference": (float, None),
}
_METRIC = {
    "title": str,
    "key": str,
    "cells": Each(_CELL),
    "comparisons?": [{"text": str}],
}
_METHOD = {
    "kind": str,
    "label?": str,
    "shows_tau?": bool,
    "shift_invariant?": bool,
    "tau?": (float, str),
    "alpha?": float,
    "loss?": str,
    "network?": str,
    "teacher_config?": str,
    "label_noise?": {"kind?": str, "rate?": float},
}
_ROW = {
    "seed?": int,
    "epochs?": int,
    "test?": dict,
    "train?": dict,
    "versions?": Each(str),
    "data?": Each((str, None)),
    "teachers?": [(str, None)],
    "weights?": str,
    "fingerprint?": str,
    "device?": str,
    "numerics?": str,
    "commit?": str,
    "dirty?": bool,
    "processes?": int,
    "iterations?": int,
    "resumed_at?": int,
    "train_seconds?": float,
    "together?": int,
    "finished?": str,
}
_RUN = {
    "name": str,
    "seed": int,
    "work_dir": str,
    "config": str,
    "epochs": (int, None),
    "overrides?": [str],
    "teachers?": [str],
    "method": _METHOD,
    "command": [str],
    "row": (_ROW, None),
    "files": {"log?": str, "scalars?": [str], "dumps?": Each(str)},
}
EXPERIMENT = {
    "name": str,
    "scale?": str,
    "title": str,
    "note?": str,
    "protocol?": str,
    "legend?": Each(str),
    "command": [str],
    "root": str,
    "cells": Each([str]),
    "metrics": [_METRIC],
    "runs": [_RUN],
}
_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    None: "null",
}


def check(value: Any, shape: Any, where: str = "") -> None:
    """Make sure that a value is as its shape says."""
    if isinstance(shape, dict):
        _expect(value, (dict,), where)
        for name, inner in shape.items():
            _check_field(value, name, inner, where)
    elif isinstance(shape, Each):
        _expect(value, (dict,), where)
        for name, item in value.items():
            check(item, shape.shape, f"{where}[{reprlib.repr(name)}]")
    elif isinstance(shape, list):
        _expect(value, (list,), where)
        for position, item in enumerate(value):
            check(item, shape[0], f"{where}[{position}]")
    elif isinstance(shape, tuple) and isinstance(shape[0], dict):
        if value is not None:
            check(value, shape[0], where)
    else:
        _expect(value, shape if isinstance(shape, tuple) else (shape,), where)


def _check_field(value: dict, name: str, shape: Any, where: str) -> None:
    known = name.rstrip("?")
    place = f"{where}.{known}".lstrip(".")
    if value.get(known) is None and name.endswith("?"):
        return
    if known not in value:
        raise ValueError(f"{place} is missing")
    check(value[known], shape, place)


def _expect(value: Any, kinds: tuple, where: str) -> None:
    if not any(_is(value, kind) for kind in kinds):
        wanted = " or ".join(_NAMES[kind] for kind in kinds)
        raise ValueError(f"{where or 'it'} is {reprlib.repr(value)} and not {wanted}")


def _is(value: Any, kind: Any) -> bool:
    if kind is None or isinstance(value, bool):
        return value is None if kind is None else kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < 10**300  # beyond, there is no such float
    return isinstance(value, kind)


# The experiment files of a folder of results.


FORMAT = 1


class ExperimentFile(NamedTuple):
    """An experiment and where it was read.

    Attributes:
        path: The file.
        root: Where its runs were made, which paths in it are seen from.
        record: What it holds.
    """

    path: Path
    root: Path
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """What figures call it: ``SCALE/NAME``, or ``NAME``."""
        return "/".join(filter(None, [self.record.get("scale"), self.record["name"]]))


def read_experiment_files(
    results: str | Path, root: str | Path | None = None
) -> list[ExperimentFile]:
    """Read ``RESULTS/*.json`` and ``RESULTS/*/*.json``; other JSON there is passed over.

    What is not the file's own name for itself, such as a copy in another folder, is told apart by
    where it lies.
    """
    folder = Path(results)
    for each in (folder, Path(root or folder)):
        if not each.is_dir():
            raise FileNotFoundError(f"the folder {each} does not exist")
    found = list(_read_all(folder, root))
    if not found:
        raise ValueError(
            f"{folder} holds no experiments (NAME.json or SCALE/NAME.json); "
            "tools/reproduce.py NAME writes them"
        )
    found.sort(key=lambda each: (each.record.get("scale") or "", each.path.name, each.path))
    keys = Counter(each.key for each in found)
    return [_apart(each, folder) if keys[each.key] > 1 else each for each in found]


def _read_all(folder: Path, root: str | Path | None) -> Iterator[ExperimentFile]:
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        record = _read(path) if path.is_file() else None
        if record is not None:
            own = Path(root) if root is not None else _root(path, record["root"])
            yield ExperimentFile(path, own, record)


def _root(path: Path, way: str) -> Path:
    """Follow a file's way to where its runs were made.

    The way back from a folder that a symbolic link names starts where the link leads. Where both
    ways end in the same folder, it gets the name that a browser knows it by.
    """
    try:
        real = Path(os.path.realpath(path.parent / way))
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path}: root {way!r} is no path ({error}); let tools/reproduce.py write it again"
        ) from None
    seen = Path(os.path.normpath(Path.cwd() / path.parent / way))
    return seen if os.path.realpath(seen) == str(real) else real


def _apart(experiment: ExperimentFile, folder: Path) -> ExperimentFile:
    """Tell two files of one experiment apart by where they lie."""
    place = experiment.path.relative_to(folder).as_posix()
    record = experiment.record
    changed = dict(name=f"{record['name']} in {place}", title=f"{record['title']} ({place})")
    return experiment._replace(record={**record, **changed})


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not whole JSON ({error}); remove it, or let "
            "tools/reproduce.py write it again"
        ) from None
    if not isinstance(record, dict) or not {"format", "cells"} <= record.keys():
        return None
    if record["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {record['format']!r} and this program reads {FORMAT}; let this "
            "version's tools/reproduce.py write it again"
        )
    try:
        check(record, EXPERIMENT)
        _check_places(record)
    except ValueError as error:
        raise ValueError(
            f"{path} is no experiment file: {error}; let tools/reproduce.py write it again"
        ) from None
    return record


def _check_places(record: dict[str, Any]) -> None:
    for name, place in record["cells"].items():
        if len(place) != 2:
            raise ValueError(f"cells[{name!r}] is not the labels of a row and of a column")
    for position, metric in enumerate(record["metrics"]):
        strange = sorted(metric["cells"].keys() - record["cells"].keys())
        if strange:
            raise ValueError(f"metrics[{position}].cells has {strange[0]!r}, which cells has not")


# What every caption says: which experiment, how many seeds and epochs, whose weights.


LAST = "weights after the last epoch, nothing selected"


def file_name(experiment: ExperimentFile, figure: str, title: str = "") -> str:
    """Return what the files of a figure are called."""
    parts = [experiment.key.replace("/", "-"), figure, title.replace("->", "to")]
    return "-".join(re.sub(r"[^A-Za-z0-9.=+]+", "-", part).strip("-.") for part in parts if part)


def own_source(experiment: ExperimentFile) -> list[str]:
    """Return the experiment's own file, seen from where its runs were made; none if it is none."""
    if not experiment.path.is_file():
        return []
    return [Path(os.path.relpath(experiment.path, experiment.root)).as_posix()]


def describe_seeds(counts: Iterable[int]) -> str:
    """Say over how many seeds something was averaged."""
    found = sorted(set(counts) - {0})
    if not found:
        return "n = 0"
    if found == [1]:
        return "n = 1 seed, so no spread"
    span = f"{found[0]} to {found[-1]}" if len(found) > 1 else f"{found[0]}"
    return f"n = {span} seeds"


def describe_epochs(runs: Iterable[Mapping[str, Any]]) -> str:
    """Say how long runs were trained."""
    found = sorted({run["epochs"] for run in runs if run["row"] and run.get("epochs")})
    if not found:
        return "epochs unknown"
    if len(found) > 1:
        return f"{found[0]} to {found[-1]} epochs"
    return f"{found[0]} epoch{'s' if found[0] != 1 else ''}"


# What runs leave, read: dumped logits, logged scalars.


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
    """Read a file of dumped logits; nothing in it is run."""
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


# Work folders of single runs, outside any experiment, as an experiment that no file holds.


_SCALARS, _DUMPS = "*/vis_data/scalars.json", "logits/*.npz"


def is_work_folder(folder: Path) -> bool:
    """Whether a run has left something to draw."""
    return any(True for pattern in (_SCALARS, _DUMPS) for _ in folder.glob(pattern))


def experiment_of_folders(folders: Sequence[Path]) -> ExperimentFile:
    """Make an experiment of runs; those in ``NAME/seed0``, ``NAME/seed1`` ... are seeds of one.

    By what a run was trained says a dump of its logits, where there is one; a run without is
    called after its folder.
    """
    folders = list(dict.fromkeys(folders))
    owners = [_owner(folder) for folder in folders]
    labels = _labels(dict.fromkeys(owner for owner, _ in owners))
    runs = [
        _run(folder, labels[owner], seed)
        for folder, (owner, seed) in zip(folders, owners, strict=True)
    ]
    names = list(labels.values())
    record = dict(
        format=FORMAT,
        name="runs",
        scale=None,
        title=", ".join(names) if len(names) < 3 else f"{len(names)} runs",
        note="",
        protocol="",
        legend={},
        command=["python", "tools/train.py", "CONFIG"],
        root=".",
        cells={name: [name, ""] for name in names},
        metrics=[],
        runs=runs,
        outside=True,
    )
    return ExperimentFile(Path("."), Path("."), record)


def _owner(folder: Path) -> tuple[Path, int]:
    """Return the folder that is called after the run, and the seed."""
    whole = folder.resolve()
    match = re.fullmatch(r"seed(\d+)", whole.name)
    return (whole.parent, int(match[1])) if match else (whole, 0)


def _labels(owners: Iterable[Path]) -> dict[Path, str]:
    """Call each folder by as few of its last parts as tell it from all others."""
    owners, found = list(owners), {}
    for owner in owners:
        for count in range(1, len(owner.parts) + 1):
            tail = owner.parts[-count:]
            if sum(other.parts[-count:] == tail for other in owners) == 1:
                break
        found[owner] = "/".join(tail)
    return found


def _run(folder: Path, label: str, seed: int) -> dict[str, Any]:
    scalars = [str(path) for path in sorted(folder.glob(_SCALARS))]
    dumps = {path.stem: str(path) for path in sorted(folder.glob(_DUMPS))}
    identity = _identity(next(iter(dumps.values()))) if dumps else {}
    epochs = read_scalars(scalars).get("epoch") if scalars else None
    last = int(epochs[1].max()) if epochs is not None else None
    kind = dict(kind="other", tau=None, alpha=None, loss=label, label_noise=None)
    return dict(
        name=label,
        seed=seed,
        work_dir=str(folder),
        config=identity.get("config"),
        overrides=[],
        epochs=last,
        teachers=[],
        method=identity.get("method") or dict(kind, teacher_config=None, network=None),
        command=["python", "tools/train.py", str(identity.get("config") or "CONFIG")],
        row=dict(
            seed=seed,
            epochs=last,
            weights=identity.get("weights"),
            teachers=identity.get("teachers"),
            test={},
            train=None,
        ),
        files=dict(log=None, scalars=scalars, dumps=dumps),
    )


def _identity(path: str) -> dict[str, Any]:
    """Return what a dump says of itself, without reading its arrays."""
    try:
        # Opened here: of a file that is cut off numpy would not close its own.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            found = json.loads(str(file["identity"]))
        if not isinstance(found, dict):
            raise ValueError("its identity is no object")
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not a whole dump of logits ({type(error).__name__}: {error}); let "
            "tools/dump_logits.py write it again"
        ) from None
    return found
