"""Read what runs left: experiments, results rows, exported logits and logged scalars."""

import json
import os
import re
import reprlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = 2  # of experiment files; 1 held copies of the results rows
DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1")
ROWS = "runs.jsonl"
Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]

# What the files hold: types, ``[type of items]``, ``{str: type of values}``, names with ``?`` are
# optional, as rows of older versions lack some.
_TEXT = (str, type(None))
_NUMBER = (int, float, type(None))
_OBJECT = (dict, type(None))
_CELL = dict(mean=_NUMBER, std=_NUMBER, n=int, failed=int, paper=_NUMBER, mark=str)
_METHOD = {
    "kind": str, "label?": _TEXT, "loss?": _TEXT, "network?": _TEXT, "teacher_config?": _TEXT,
    "tau?": (*_NUMBER, "inf"), "alpha?": _NUMBER, "label_noise?": _OBJECT, "weights?": _OBJECT,
}  # fmt: skip
_RUN = dict(
    name=str, seed=int, work_dir=str, config=str, epochs=_NUMBER, teachers=[str], command=[str],
    weights=_TEXT, method=_METHOD, files=dict(log=_TEXT, scalars=[str], dumps={str: str}),
)  # fmt: skip
_EXPERIMENT = dict(
    name=str, scale=_TEXT, title=str, note=_TEXT, protocol=str, legend={str: str}, command=[str],
    root=str, cells={str: [str]}, runs=[_RUN],
    metrics=[dict(title=str, key=str, cells={str: {**_CELL, "difference": _NUMBER}},
                  comparisons=[dict(text=str)])],
)  # fmt: skip
_ROW = {
    **dict.fromkeys(["weights?", "config?", "commit?", "device?", "numerics?", "finished?"], _TEXT),
    **dict.fromkeys(["seed?", "epochs?", "iterations?", "train_seconds?", "group_size?"], _NUMBER),
    **dict.fromkeys(["test?", "train?", "data?", "versions?"], _OBJECT),
    "overrides?": dict,
    "teachers?": (list, type(None)),
}


def _check(value: Any, shape: Any, place: str = "") -> None:
    """Make sure that what was read from JSON has the types that it was written with."""
    if isinstance(shape, (dict, list)):
        kinds: tuple = (type(shape),)
    else:
        kinds = shape if isinstance(shape, tuple) else (shape,)
    if not any(isinstance(value, k) if isinstance(k, type) else value == k for k in kinds):
        raise ValueError(f"{place or 'it'} is {reprlib.repr(value)}")
    if isinstance(shape, list):
        for number, item in enumerate(value):
            _check(item, shape[0], f"{place}[{number}]")
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            for name in value if key is str else [key.removesuffix("?")]:
                if name in value:
                    _check(value[name], inner, f"{place}.{name}".lstrip("."))
                elif not key.endswith("?"):
                    raise ValueError(f"{place or 'it'} has no {name}")


class Experiment(NamedTuple):
    """An experiment, as ``tools/reproduce.py`` wrote it, with the results rows of its runs.

    Each of ``record['runs']`` also has ``row``, its results row, or None if it did not finish,
    and ``line``, the number of that row in runs.jsonl.
    """

    path: Path
    root: Path  # of the paths in record
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """``SCALE/NAME``, or ``NAME``."""
        return "/".join(filter(None, [self.record.get("scale"), self.record["name"]]))

    @property
    def sources(self) -> list[str]:
        """The file, relative to ``root``; nothing for work folders."""
        if self.record.get("outside"):
            return []
        return [Path(os.path.relpath(self.path, self.root)).as_posix()]

    def file_name(self, figure: str, title: str = "") -> str:
        """Return the name of a figure's files, without the ending."""
        title = re.sub("->|→", "to", title)
        return "-".join(filter(None, [self.key.replace("/", "-"), figure, title]))


@dataclass
class Results:
    """A folder of results."""

    folder: Path
    experiments: list[Experiment] = field(default_factory=list)  # by scale and name
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # of runs.jsonl by line
    problems: list[str] = field(default_factory=list)  # what could not be read


def read_results(folder: str | Path, root: str | Path | None = None) -> Results:
    """Read a folder of results; ``root`` is the folder of the runs, if they were moved."""
    results = Results(Path(folder))
    for each in (results.folder, Path(root or folder)):
        if not each.is_dir():
            raise FileNotFoundError(f"the folder {each} does not exist")
    results.rows, results.problems = read_rows(results.folder / ROWS)
    # Several tests of the same weights have several rows: that of the run's table counts.
    lines: dict[Any, int] = {row.get("weights"): n for n, row in results.rows.items()}
    lines |= {(row.get("weights"), row.get("finished")): n for n, row in results.rows.items()}
    for path in [*results.folder.glob("*.json"), *results.folder.glob("*/*.json")]:
        record = _read_record(path) if path.is_file() else None
        if record is None:
            continue
        for run in record["runs"]:
            weights = run["weights"]
            number = lines.get((weights, run.get("finished")), lines.get(weights))
            run["line"] = number if weights else None
            run["row"] = results.rows.get(run["line"])
        lost = sum(bool(run["weights"]) and not run["row"] for run in record["runs"])
        if lost:
            results.problems.append(f"{path}: {ROWS} lacks the rows of {lost} finished runs")
        # From where a symbolic link leads: reproduce.py wrote the way from there.
        base = Path(os.path.realpath(path.parent / record["root"]) if root is None else root)
        results.experiments.append(Experiment(path, base, record))
    if not results.experiments:
        raise ValueError(
            f"{folder} holds no experiments (NAME.json or SCALE/NAME.json); "
            "tools/reproduce.py NAME writes them"
        )
    results.experiments.sort(key=lambda e: (e.record["scale"] or "", e.path.name, e.path))
    counts = Counter(each.key for each in results.experiments)
    for experiment in results.experiments:
        if counts[experiment.key] > 1:  # a copy: name it by its place too
            place = experiment.path.relative_to(results.folder).as_posix()
            experiment.record["title"] += f" ({place})"
            experiment.record["name"] += f" in {place}"
    return results


def read_rows(path: Path) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """Read results rows by their line, and say what is wrong with other lines."""
    rows, problems = {}, []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            _check(row, _ROW)
            rows[number] = row
        except (ValueError, RecursionError) as error:
            if line.strip() and number < len(lines):  # the last may be in the middle of writing
                what = f"{path.name}: line {number} is not a results row"
                problems.append(f"{what} ({error}); remove it")
    return rows, problems


def _read_record(path: Path) -> dict[str, Any] | None:
    again = "remove it, or let tools/reproduce.py write it again"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({error}); {again}") from None
    if not isinstance(record, dict) or not {"format", "cells"} <= record.keys():
        return None  # other JSON
    if record["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {record['format']!r} and this program reads {FORMAT}; let this "
            "version's tools/reproduce.py write it again"
        )
    try:
        _check(record, _EXPERIMENT)
        for name, place in record["cells"].items():
            if len(place) != 2:
                raise ValueError(f"cells.{name} is {reprlib.repr(place)}")
        for metric in record["metrics"]:
            if metric["cells"].keys() != record["cells"].keys():
                raise ValueError(f"metric {metric['key']} has other cells")
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; {again}") from None
    return record


# What a run leaves: exported logits, logged scalars.


@dataclass(frozen=True)
class Dump:
    """The exported logits of a split: N samples, K classes, D features.

    ``label`` is what training sees, ``clean_label`` the true class; ``prelogits`` are the inputs
    of the last layer. What the file does not have is None.
    """

    path: Path
    identity: dict[str, Any]  # config, seed, weights, split, ...
    index: np.ndarray  # (N,)
    label: np.ndarray  # (N,)
    clean_label: np.ndarray  # (N,)
    logits: np.ndarray  # (N, K)
    prelogits: np.ndarray | None = None  # (N, D)
    weight: np.ndarray | None = None  # (K, D)
    bias: np.ndarray | None = None  # (K,)
    teacher_logits: np.ndarray | None = None  # (N, K)
    teacher_prelogits: np.ndarray | None = None
    teacher_weight: np.ndarray | None = None
    teacher_bias: np.ndarray | None = None
    classes: np.ndarray | None = None  # names, (K,)

    def same_samples(self, other: "Dump") -> bool:
        """Whether the rows are of the same samples and classes."""
        return (
            self.logits.shape == other.logits.shape
            and np.array_equal(self.index, other.index)
            and np.array_equal(self.clean_label, other.clean_label)
        )


@contextmanager
def _open_dump(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"the logits {path} do not exist; tools/dump_logits.py makes them")
    try:
        # numpy does not close a file that it opened and cannot read.
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            yield file
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise ValueError(
            f"{path} is not a whole dump of logits ({type(error).__name__}: {error}); let "
            "tools/dump_logits.py write it again"
        ) from None


def read_dump(path: str | Path) -> Dump:
    """Read a file of exported logits."""
    with _open_dump(path) as file:
        arrays: dict[str, Any] = {
            name: file[name] for name in file if name in Dump.__dataclass_fields__
        }
        return Dump(path=Path(path), **{**arrays, "identity": _identity(file)})


def read_dump_identity(path: str | Path) -> dict[str, Any]:
    """Read what a file of exported logits is of, without its arrays."""
    with _open_dump(path) as file:
        return _identity(file)


def _identity(file: Mapping[str, np.ndarray]) -> dict[str, Any]:
    identity = json.loads(str(file["identity"]))
    _check(identity, {"method?": _METHOD}, "identity")
    return identity


def read_scalars(paths: Iterable[str | Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the steps and values that a run logged, by name.

    A run that was cut off and resumed has several files; a later file overrides steps of an
    earlier one. The last line of a file may be cut off.
    """
    found: dict[str, dict[int, float]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the scalars {path} do not exist")
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line or "{}")
                _check(row, {"step?": _NUMBER})
            except (ValueError, RecursionError):
                if number == len(lines):  # the process was killed
                    break
                raise ValueError(f"{path}:{number} is not a line of scalars") from None
            step = row.pop("step", None)
            for name, value in row.items():
                if step is not None and isinstance(value, (int, float)):
                    found.setdefault(name, {})[int(step)] = float(value)
    return {
        name: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for name, values in found.items()
    }


# Work folders of single runs, outside any experiment.


_SCALARS, _DUMPS = "*/vis_data/scalars.json", "logits/*.npz"


def is_work_folder(folder: Path) -> bool:
    """Whether a folder has scalars or logits of a run."""
    return any(any(folder.glob(pattern)) for pattern in (_SCALARS, _DUMPS))


def experiment_of_folders(folders: Sequence[Path]) -> Experiment:
    """Make an experiment of work folders; ``NAME/seed0``, ``NAME/seed1`` ... are its seeds."""
    whole = [folder.resolve() for folder in folders]
    seeds = [re.fullmatch(r"seed(\d+)", folder.name) for folder in whole]
    owners = [folder.parent if seed else folder for folder, seed in zip(whole, seeds, strict=True)]
    common = os.path.commonpath([owner.parent for owner in owners])
    runs = [
        _run_of_folder(folder, owner.relative_to(common).as_posix(), int(seed[1]) if seed else 0)
        for folder, owner, seed in zip(folders, owners, seeds, strict=True)
    ]
    names = list(dict.fromkeys(run["name"] for run in runs))
    record = dict(
        name="runs",
        title=", ".join(names) if len(names) < 3 else f"{len(names)} runs",
        command=["python", "tools/train.py", "CONFIG"],
        cells={name: [name, ""] for name in names},
        metrics=[],
        runs=runs,
        outside=True,
    )
    return Experiment(Path("."), Path("."), record)


def _scalars_of(folder: Path) -> list[str]:
    """List the logged scalars of the run in a folder, which may have held others before."""
    found = {path.parts[-3]: str(path) for path in sorted(folder.glob(_SCALARS))}
    try:
        logs = json.loads(Path(folder, "run.json").read_text(encoding="utf-8"))["logs"]
        return [found[name] for name in logs if name in found] or list(found.values())
    except (OSError, ValueError, KeyError, TypeError):  # of another program
        return list(found.values())


def _run_of_folder(folder: Path, name: str, seed: int) -> dict[str, Any]:
    scalars = _scalars_of(folder)
    dumps = {path.stem: str(path) for path in sorted(folder.glob(_DUMPS))}
    # Exported logits say how a run was trained; without them it is called after its folder.
    identity = read_dump_identity(next(iter(dumps.values()))) if dumps else {}
    epochs = read_scalars(scalars).get("epoch")
    last = None if epochs is None else int(epochs[1].max())
    return dict(
        name=name,
        seed=seed,
        work_dir=str(folder),
        epochs=last,
        teachers=[],
        method=identity.get("method") or dict(kind="other", loss=name),
        command=["python", "tools/train.py", str(identity.get("config") or "CONFIG")],
        row=dict(epochs=last, weights=identity.get("weights"), teachers=identity.get("teachers")),
        files=dict(scalars=scalars, dumps=dumps),
    )
