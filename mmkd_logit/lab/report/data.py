"""Read what runs left: experiments, results rows, exported logits and logged scalars."""

import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = 2  # of experiment files; 1 held copies of the results rows
ROWS = "runs.jsonl"
Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


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
        parts = [self.key.replace("/", "-"), figure, title.replace("->", "to")]
        return "-".join(filter(None, parts))


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
    _read_rows(results)
    # A run that was tested again has several rows: the last line counts.
    lines = {row.get("weights"): number for number, row in results.rows.items()}
    for path in [*results.folder.glob("*.json"), *results.folder.glob("*/*.json")]:
        record = _read_record(path) if path.is_file() else None
        if record is None:
            continue
        for run in record["runs"]:
            run["line"] = lines.get(run["weights"]) if run["weights"] else None
            run["row"] = results.rows.get(run["line"])
        lost = sum(bool(run["weights"]) and not run["row"] for run in record["runs"])
        if lost:
            results.problems.append(f"{path}: {ROWS} lacks the rows of {lost} finished runs")
        base = _root(path, record["root"]) if root is None else Path(root)
        results.experiments.append(Experiment(path, base, record))
    if not results.experiments:
        raise ValueError(
            f"{folder} holds no experiments (NAME.json or SCALE/NAME.json); "
            "tools/reproduce.py NAME writes them"
        )
    results.experiments.sort(key=lambda e: (e.record.get("scale") or "", e.path.name, e.path))
    counts = Counter(each.key for each in results.experiments)
    for experiment in results.experiments:
        if counts[experiment.key] > 1:  # a copy: name it by its place too
            place = experiment.path.relative_to(results.folder).as_posix()
            experiment.record["title"] += f" ({place})"
            experiment.record["name"] += f" in {place}"
    return results


def _read_rows(results: Results) -> None:
    path = results.folder / ROWS
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            results.rows[number] = row
        elif line.strip() and number < len(lines):  # the last may be in the middle of writing
            results.problems.append(f"{ROWS}: line {number} is not a results row; remove it")


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not whole JSON ({error}); remove it, or let "
            "tools/reproduce.py write it again"
        ) from None
    if not isinstance(record, dict) or not {"format", "cells"} <= record.keys():
        return None  # other JSON
    if record["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {record['format']!r} and this program reads {FORMAT}; let this "
            "version's tools/reproduce.py write it again"
        )
    return record


def _root(path: Path, way: str) -> Path:
    """Follow the relative path from an experiment file to its runs.

    It starts where a symbolic link leads. If the path without following links ends in the same
    folder, that one is returned: it is the name that a browser uses.
    """
    real = Path(os.path.realpath(path.parent / way))
    seen = Path(os.path.normpath(Path.cwd() / path.parent / way))
    return seen if os.path.realpath(seen) == str(real) else real


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
        arrays["identity"] = json.loads(str(arrays["identity"]))
        return Dump(path=Path(path), **arrays)


def read_dump_identity(path: str | Path) -> dict[str, Any]:
    """Read what a file of exported logits is of, without its arrays."""
    with _open_dump(path) as file:
        return dict(json.loads(str(file["identity"])))


def read_scalars(paths: Iterable[str | Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the steps and values that a run logged, by name.

    A run that was cut off and resumed has several files; a later file overrides steps of an
    earlier one. The last line of a file may be cut off.
    """
    found: dict[str, dict[int, float]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the scalars {path} do not exist")
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line or "{}")
            except ValueError:
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
    seeds: dict[Path, tuple[Path, int]] = {}
    for folder in folders:
        whole = folder.resolve()
        match = re.fullmatch(r"seed(\d+)", whole.name)
        seeds[folder] = (whole.parent, int(match[1])) if match else (whole, 0)
    common = os.path.commonpath([owner.parent for owner, _ in seeds.values()])
    runs = [
        _run_of_folder(folder, owner.relative_to(common).as_posix(), seed)
        for folder, (owner, seed) in seeds.items()
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


def _run_of_folder(folder: Path, name: str, seed: int) -> dict[str, Any]:
    scalars = [str(path) for path in sorted(folder.glob(_SCALARS))]
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
