"""From results rows to tables, in Markdown and CSV, and to one JSON file an experiment."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from scipy import stats

from mmkd_logit.engine.fingerprint import log_folders
from mmkd_logit.engine.logits import find_dumps
from mmkd_logit.engine.results import describe_method, plain
from mmkd_logit.utils.files import write_text

from .experiment import Experiment, Run
from .pools import LOG


def paired_difference(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float, float, float]:
    """Compare two methods over the same seeds with a paired t-test.

    Example:
        >>> mean, low, high, p = paired_difference([3.0, 4.0, 6.0], [1.0, 3.0, 4.0])
        >>> round(mean, 3), round(low, 3), round(high, 3), round(p, 3)
        (1.667, 0.232, 3.101, 0.038)
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"need the same 2 or more seeds, got {len(first)} and {len(second)}")
    difference = np.subtract(first, second)
    mean = float(difference.mean())
    if np.ptp(difference) < 1e-9:  # rounding; the test would divide by it
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(0.95)
    return mean, float(low), float(high), float(test.pvalue)


# From results rows to tables, in Markdown and CSV.


MARKS = {"S": "read in a source", "C": "derived and checked", "R": "remembered, unverified"}


class Cell(NamedTuple):
    """What is known of one cell of a table.

    Attributes:
        by_seed: Our numbers, in the units of the metric.
        failed: How many seeds failed.
        paper: The paper's number, or None.
        mark: Its trust mark.
    """

    by_seed: dict[int, float]
    failed: int = 0
    paper: float | None = None
    mark: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over the seeds, or None."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds, or None for less than two."""
        if len(self.by_seed) < 2:
            return None
        return float(np.std(list(self.by_seed.values()), ddof=1))

    def ours(self) -> str:
        """Our number as text: mean ± std (n)."""
        failed = f"{self.failed} failed" if self.failed else ""
        if self.mean is None:
            return failed or "-"
        std = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{std} ({', '.join(filter(None, [str(len(self.by_seed)), failed]))})"

    def theirs(self) -> str:
        """The paper's number with its trust mark."""
        return "" if self.paper is None else f"{self.paper:.2f} {self.mark}"

    @property
    def gap(self) -> float | None:
        """Ours - paper's, or None."""
        return None if self.paper is None or self.mean is None else self.mean - self.paper

    def difference(self) -> str:
        """Ours - paper's, as text."""
        return "" if self.gap is None else f"{self.gap:+.2f}"


def collect(
    experiment: Experiment, found: Mapping[Run, dict | None], metric: dict
) -> dict[str, Cell]:
    """Put the numbers of one metric into their cells."""
    cells = {}
    for name in experiment.cells:
        paper, mark = metric["paper"].get(name, (None, ""))
        cells[name] = Cell({}, 0, paper, mark)
    for run, row in found.items():
        if run.name not in cells:
            continue
        if row is None:
            cells[run.name] = cells[run.name]._replace(failed=cells[run.name].failed + 1)
        else:
            cells[run.name].by_seed[run.cell_seed] = _value(run, row, metric["key"])
    return cells


def _value(run: Run, row: dict, key: str) -> float:
    split, _, name = key.partition(".")
    values = row.get(split) or {}
    if name not in values:
        raise ValueError(f"{run.config} measures {sorted(values)} on {split} and not {name}")
    return float(values[name])


def render(experiment: Experiment, found: Mapping[Run, dict | None]) -> str:
    """Render the experiment in Markdown: tables, comparisons, protocol."""
    lines = [f"### {experiment.title}", ""]
    for metric in experiment.metrics:
        cells = collect(experiment, found, metric)
        if any(column for _, column in experiment.cells.values()):
            lines += [f"**{metric['title']}**", "", *_matrix(experiment, cells), ""]
        else:
            lines += [*_list(experiment, cells, metric["title"]), ""]
        lines += [f"- {compare(experiment, cells, *pair)}" for pair in experiment.comparisons]
        lines += [""] * bool(experiment.comparisons)
    lines += [experiment.note, ""] if experiment.note else []
    return "\n".join([*lines, describe_protocol(experiment, found)])


def _line(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _list(experiment: Experiment, cells: dict[str, Cell], title: str) -> list[str]:
    """One line a run."""
    with_paper = any(cell.paper is not None for cell in cells.values())
    head = ["run", f"{title}, ours (n)", *["paper", "difference"] * with_paper]
    lines = [_line(head), "|" + "---|" * len(head)]
    for name, cell in cells.items():
        theirs = [cell.theirs(), cell.difference()] * with_paper
        lines.append(_line([experiment.cells[name][0], cell.ours(), *theirs]))
    return lines


def _matrix(experiment: Experiment, cells: dict[str, Cell]) -> list[str]:
    """Rows by columns; under ours the paper's numbers and the differences."""
    places = {place: cells[name] for name, place in experiment.cells.items()}
    rows, columns = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
    lines = [_line(["", "", *columns]), "|" + "---|" * (len(columns) + 2)]
    empty = Cell({})
    for row in rows:
        here = [places.get((row, column), empty) for column in columns]
        known = [cell in places.values() for cell in here]
        ours = [cell.ours() if is_run else "" for cell, is_run in zip(here, known, strict=True)]
        lines.append(_line([row, "ours (n)", *ours]))
        if any(cell.paper is not None for cell in here):
            lines.append(_line(["", "paper", *(cell.theirs() for cell in here)]))
            lines.append(_line(["", "difference", *(cell.difference() for cell in here)]))
    return lines


def compare(experiment: Experiment, cells: Mapping[str, Cell], first: str, second: str) -> str:
    """Say by how much one run is better than another, seed by seed."""
    what = f"{experiment.label(first)} minus {experiment.label(second)}"
    a, b = cells[first].by_seed, cells[second].by_seed
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return f"{what}: no seed finished both."
    if len(seeds) == 1:
        difference = a[seeds[0]] - b[seeds[0]]
        return f"{what}: {difference:+.2f} points, one seed; --seeds 5 gives an interval."
    mean, low, high, p = paired_difference([a[s] for s in seeds], [b[s] for s in seeds])
    return (
        f"{what}: {mean:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}], "
        f"p = {p:.2g} (paired t-test over {len(seeds)} seeds)."
    )


def used_marks(experiment: Experiment) -> dict[str, str]:
    """Return the trust marks that an experiment's numbers of the paper have, and their meaning."""
    marks = {mark for metric in experiment.metrics for _, mark in metric["paper"].values()}
    return {mark: MARKS.get(mark, "") for mark in sorted(marks)}


def describe_protocol(experiment: Experiment, found: Mapping[Run, dict | None]) -> str:
    """Say how an experiment's numbers were measured."""
    rows = [row for run, row in found.items() if row is not None and run.name in experiment.cells]
    if not rows:
        return "Nothing finished."

    def each(values: set) -> str:
        return ", ".join(sorted(str(value) for value in values))

    commits = {(row["commit"] or "unknown")[:12] + "+" * bool(row["dirty"]) for row in rows}
    options = [f"--scale {experiment.scale}"] if experiment.scale is not None else []
    options += [text for text in experiment.options if not text.startswith("data_root=")]
    options += [f"--epochs {experiment.epochs}"] if experiment.epochs is not None else []
    reduced = f" Reduced: {' '.join(options)}." if options else ""
    # Rows from before this was noted are left as they were published.
    numerics = {row["numerics"] for row in rows if row.get("numerics")}
    digits = f" {each(numerics)};" if numerics else ""
    fixed = each(experiment.fixed_teachers)
    teachers = f" one teacher (seed {fixed}), intervals and p over student seeds;" if fixed else ""
    legend = "; ".join(": ".join(filter(None, pair)) for pair in used_marks(experiment).items())
    return (
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        f"deviation (n seeds);{teachers} {each({row['epochs'] for row in rows})} epochs;{digits} "
        f"{each({row['device'] for row in rows})}; torch "
        f"{each({row['versions']['torch'] for row in rows})}; commit {each(commits)}.{reduced}"
        + (f" Paper's numbers: {legend}." if legend else "")
    )


def to_csv(experiment: Experiment, found: Mapping[Run, dict | None]) -> str:
    """Write every cell of an experiment as one line of CSV."""
    text = io.StringIO()
    fields = "experiment metric row column run mean std n failed paper mark difference epochs seeds"
    writer = csv.DictWriter(text, fields.split(), lineterminator="\n")
    writer.writeheader()
    epochs: dict[str, set] = {}
    for run, row in found.items():
        epochs.setdefault(run.name, set()).update({row["epochs"]} if row else ())
    for metric in experiment.metrics:
        for name, cell in collect(experiment, found, metric).items():
            line: dict[str, Any] = dict(experiment=experiment.name, metric=metric["key"], run=name)
            line["row"], line["column"] = experiment.cells[name]
            line.update(mean=_rounded(cell.mean), std=_rounded(cell.std), n=len(cell.by_seed))
            line.update(failed=cell.failed, paper=cell.paper, mark=cell.mark)
            line["difference"] = cell.difference()
            line["epochs"] = " ".join(map(str, sorted(epochs.get(name, ()))))
            line["seeds"] = " ".join(map(str, sorted(cell.by_seed)))
            writer.writerow(line)
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


# An experiment as one JSON file: tables, runs, and where the files of each run lie.


FORMAT = 1


def describe_experiment(
    experiment: Experiment,
    found: Mapping[Run, dict | None],
    configs: Mapping[str, Config],
    command: Sequence[str],
    folder: str | Path,
) -> dict[str, Any]:
    """Say everything that is known of an experiment, for those who draw and report."""
    return dict(
        format=FORMAT,
        name=experiment.name,
        scale=experiment.scale,
        title=experiment.title,
        note=experiment.note,
        protocol=describe_protocol(experiment, found),
        legend=used_marks(experiment),
        command=list(command),
        root=os.path.relpath(Path.cwd(), Path(folder).resolve()),
        cells={name: list(place) for name, place in experiment.cells.items()},
        metrics=[_metric(experiment, found, metric) for metric in experiment.metrics],
        runs=[_run(run, row, configs[run.work_dir]) for run, row in found.items()],
    )


def _metric(
    experiment: Experiment, found: Mapping[Run, dict | None], metric: dict
) -> dict[str, Any]:
    cells = collect(experiment, found, metric)
    pairs = experiment.comparisons
    texts = [dict(first=a, second=b, text=compare(experiment, cells, a, b)) for a, b in pairs]
    return dict(
        title=metric["title"],
        key=metric["key"],
        cells={name: _cell(cell) for name, cell in cells.items()},
        comparisons=texts,
    )


def _cell(cell: Cell) -> dict[str, Any]:
    return dict(
        by_seed={str(seed): value for seed, value in sorted(cell.by_seed.items())},
        mean=cell.mean,
        std=cell.std,
        n=len(cell.by_seed),
        failed=cell.failed,
        paper=cell.paper,
        mark=cell.mark,
        difference=cell.gap,
    )


def _run(run: Run, row: dict | None, cfg: Config) -> dict[str, Any]:
    return dict(
        name=run.name,
        seed=run.cell_seed,
        work_dir=run.work_dir,
        config=run.config,
        overrides=list(run.overrides),
        epochs=row["epochs"] if row else run.epochs,
        teachers=[teacher.work_dir for teacher in run.teachers],
        method=plain(describe_method(cfg)),
        command=["python", "tools/train.py", *run.arguments()],
        row=row,
        files=find_files(run.work_dir, row),
    )


def find_files(work_dir: str | Path, row: dict | None) -> dict[str, Any]:
    """Find what a run has left to read."""
    logs = [Path(work_dir, LOG)]
    if row and row.get("together", 1) > 1:
        lists = [word for word in row.get("command", ()) if word.endswith("runs.txt")]
        logs = [*(Path(name).with_name(LOG) for name in lists), *logs]
    scalars = {path.parts[-3]: path for path in Path(work_dir).glob("*/vis_data/scalars.json")}
    return dict(
        log=next((str(log) for log in logs if log.is_file()), None),
        scalars=[str(scalars[log]) for log in log_folders(work_dir, list(scalars))],
        dumps=find_dumps(work_dir, (row or {}).get("weights")),
    )


def write_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write the file whole or not at all."""
    write_text(path, json.dumps(record, indent=1) + "\n")
