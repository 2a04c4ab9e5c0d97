"""From results rows to tables, in Markdown and CSV, and to one JSON file an experiment."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from scipy import stats

from mmkd_logit.engine.fingerprint import log_folders
from mmkd_logit.engine.logits import find_exports
from mmkd_logit.engine.results import describe_method, plain
from mmkd_logit.utils.cli import program
from mmkd_logit.utils.files import write_text

from .experiment import Experiment, Run
from .pools import LOG
from .report.data import FORMAT

MARKS = {"S": "read in a source", "C": "derived and checked", "R": "remembered, unverified"}
Found = Mapping[Run, dict | None]  # the results row of each run; None where it failed


def paired_difference(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float, float, float]:
    """Compare two methods over the same seeds with a paired t-test.

    Returns the mean of first - second, the limits of its 95 % interval and the p-value.

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
        return mean, mean, mean, 1.0 if abs(mean) < 1e-9 else 0.0
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(0.95)
    return mean, float(low), float(high), float(test.pvalue)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


@dataclass
class Cell:
    """A cell of a table."""

    by_seed: dict[int, float] = field(default_factory=dict)  # our numbers
    failed: int = 0  # so many seeds
    paper: float | None = None
    mark: str = ""  # how far the paper's number is to be trusted

    @property
    def mean(self) -> float | None:
        """Mean over the seeds, or None."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds, or None for less than two."""
        numbers = list(self.by_seed.values())
        return float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None

    @property
    def difference(self) -> float | None:
        """Ours - paper's, or None."""
        return None if self.paper is None or self.mean is None else self.mean - self.paper

    def statistics(self) -> dict[str, Any]:
        """Return the numbers without those of single seeds."""
        numbers = dict(mean=self.mean, std=self.std, n=len(self.by_seed), failed=self.failed)
        return dict(numbers, paper=self.paper, mark=self.mark, difference=self.difference)

    def texts(self) -> list[str]:
        """Return what a table shows: ours as mean ± std (n), the paper's, the difference."""
        failed = f"{self.failed} failed" if self.failed else ""
        ours = failed or "-"
        if self.mean is not None:
            std = "" if self.std is None else f" ± {self.std:.2f}"
            counts = ", ".join(filter(None, [str(len(self.by_seed)), failed]))
            ours = f"{self.mean:.2f}{std} ({counts})"
        paper = "" if self.paper is None else f"{self.paper:.2f} {self.mark}"
        return [ours, paper, "" if self.difference is None else f"{self.difference:+.2f}"]


def collect(experiment: Experiment, found: Found, metric: dict) -> dict[str, Cell]:
    """Put the numbers of one metric into their cells."""
    cells = {name: Cell() for name in experiment.cells}
    for name, (number, mark) in metric["paper"].items():
        if name in cells:
            cells[name].paper, cells[name].mark = number, mark
    split, _, key = metric["key"].partition(".")
    for run, row in found.items():
        if run.name not in cells:
            continue
        if row is None:
            cells[run.name].failed += 1
            continue
        values = row.get(split) or {}
        if key not in values:
            raise ValueError(f"{run.config} measures {sorted(values)} on {split} and not {key}")
        cells[run.name].by_seed[run.cell_seed] = float(values[key])
    return cells


def render(experiment: Experiment, found: Found) -> str:
    """Render the experiment in Markdown: tables, comparisons, protocol."""
    lines = [f"### {experiment.title}", ""]
    for metric in experiment.metrics:
        cells = collect(experiment, found, metric)
        if any(column for _, column in experiment.cells.values()):
            lines += [f"**{metric['title']}**", "", *_matrix(experiment, cells), ""]
        else:
            lines += [*_list(experiment, cells, metric["title"]), ""]
        pairs = experiment.pairs_of(metric)
        lines += [f"- {compare(experiment, cells, *pair)}" for pair in pairs]
        lines += [""] * bool(pairs)
    lines += [experiment.note, ""] if experiment.note else []
    return "\n".join([*lines, describe_protocol(experiment, found)])


def _list(experiment: Experiment, cells: dict[str, Cell], title: str) -> list[str]:
    """One line a run."""
    shown = 3 if any(cell.paper is not None for cell in cells.values()) else 1
    head = ["run", f"{title}, ours (n)", *["paper", "difference"] * (shown > 1)]
    rows = [[experiment.cells[name][0], *cell.texts()[:shown]] for name, cell in cells.items()]
    return markdown_table(head, rows)


def _matrix(experiment: Experiment, cells: dict[str, Cell]) -> list[str]:
    """Rows by columns; under ours the paper's numbers and the differences."""
    places = {place: cells[name] for name, place in experiment.cells.items()}
    rows, columns = (list(dict.fromkeys(place[i] for place in places)) for i in (0, 1))
    lines = []
    for row in rows:
        here = [places.get((row, column)) for column in columns]
        texts = [["", "", ""] if cell is None else cell.texts() for cell in here]
        ours, paper, difference = zip(*texts, strict=True)
        lines.append([row, "ours (n)", *ours])
        if any(paper):
            lines += [["", "paper", *paper], ["", "difference", *difference]]
    return markdown_table(["", "", *columns], lines)


def compare(experiment: Experiment, cells: Mapping[str, Cell], first: str, second: str) -> str:
    """Say by how much one run is better than another, seed by seed."""
    (row, column), (other_row, other) = (experiment.cells[name] for name in (first, second))
    what = f"{experiment.label(first)} minus {experiment.label(second)}"
    if row == other_row and column and other:
        what = f"{row}: {column} minus {other}"
    a, b = cells[first].by_seed, cells[second].by_seed
    test, entries = "paired t-test", experiment.entries
    alone = [n for n in (first, second) if n in entries and not experiment.follows_seed(n)]
    if len(alone) == 1 and a and b:  # a run with a seed of its own is beside every other's seed
        test = f"t-test with one run of {experiment.label(alone[0])}"
        a = dict.fromkeys(b, *a.values()) if alone == [first] else a
        b = dict.fromkeys(a, *b.values()) if alone == [second] else b
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return f"{what}: no seed finished both."
    if len(seeds) == 1:
        difference = a[seeds[0]] - b[seeds[0]]
        return f"{what}: {difference:+.2f} points, one seed; --seeds 5 gives an interval."
    mean, low, high, p = paired_difference([a[s] for s in seeds], [b[s] for s in seeds])
    return (
        f"{what}: {mean:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}], "
        f"p = {p:.2g} ({test} over {len(seeds)} seeds)."
    )


def used_marks(experiment: Experiment) -> dict[str, str]:
    """Return the trust marks of the paper's numbers in an experiment, and their meaning."""
    marks = {mark for metric in experiment.metrics for _, mark in metric["paper"].values()}
    return {mark: MARKS.get(mark, "") for mark in sorted(marks)}


def describe_protocol(experiment: Experiment, found: Found) -> str:
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
    precision = f" {each(numerics)};" if numerics else ""
    fixed = each(experiment.fixed_teachers)
    teachers = f" one teacher (seed {fixed}), intervals and p over student seeds;" if fixed else ""
    legend = "; ".join(": ".join(filter(None, pair)) for pair in used_marks(experiment).items())
    return (
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        f"deviation (n seeds);{teachers} {each({row['epochs'] for row in rows})} epochs;"
        f"{precision} {each({row['device'] for row in rows})}; torch "
        f"{each({row['versions']['torch'] for row in rows})}; commit {each(commits)}.{reduced}"
        + (f" Paper's numbers: {legend}." if legend else "")
    )


def to_csv(experiment: Experiment, found: Found) -> str:
    """Write every cell of an experiment as one line of CSV."""
    text = io.StringIO()
    names = "experiment metric row column run mean std n failed paper mark difference epochs seeds"
    writer = csv.DictWriter(text, names.split(), lineterminator="\n")
    writer.writeheader()
    for metric in experiment.metrics:
        for name, cell in collect(experiment, found, metric).items():
            epochs = {row["epochs"] for run, row in found.items() if row and run.name == name}
            row, column = experiment.cells[name]
            line = dict(experiment=experiment.name, metric=metric["key"], row=row, column=column)
            for key, value in cell.statistics().items():
                line[key] = round(value, 4) if isinstance(value, float) else value
            line.update(run=name, epochs=_joined(epochs), seeds=_joined(cell.by_seed))
            writer.writerow(line)
    return text.getvalue()


def _joined(numbers: Any) -> str:
    return " ".join(map(str, sorted(numbers)))


# An experiment as one JSON file, for the report: tables, runs, and where each run's files lie.


def describe_experiment(
    experiment: Experiment,
    found: Found,
    configs: Mapping[str, Config],
    command: Sequence[str],
    folder: str | Path,
) -> dict[str, Any]:
    """Return what the JSON file of an experiment holds."""
    metrics = []
    for metric in experiment.metrics:
        cells = collect(experiment, found, metric)
        metrics.append(
            dict(
                title=metric["title"],
                key=metric["key"],
                cells={
                    name: dict(cell.statistics(), by_seed=dict(sorted(cell.by_seed.items())))
                    for name, cell in cells.items()
                },
                comparisons=[
                    dict(first=a, second=b, text=compare(experiment, cells, a, b))
                    for a, b in experiment.pairs_of(metric)
                ],
            )
        )
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
        metrics=metrics,
        runs=[_describe_run(run, row, configs[run.work_dir]) for run, row in found.items()],
    )


def _describe_run(run: Run, row: dict | None, cfg: Config) -> dict[str, Any]:
    return dict(
        name=run.name,
        seed=run.cell_seed,
        work_dir=run.work_dir,
        config=run.config,
        overrides=[*run.overrides, *run.inputs],
        epochs=row["epochs"] if row else run.epochs,
        teachers=[teacher.work_dir for teacher in run.teachers],
        method=plain(describe_method(cfg)),
        command=[*program("train.py"), *run.argv],
        weights=row.get("weights") if row else None,
        finished=row.get("finished") if row else None,
        files=find_files(run.work_dir, row),
    )


def find_files(work_dir: str | Path, row: dict | None) -> dict[str, Any]:
    """Find the files that a run has left: its log, scalars and logits."""
    logs = [Path(work_dir, LOG)]
    if row and row.get("group_size", 1) > 1:
        lists = [word for word in row.get("command", ()) if word.endswith("runs.txt")]
        logs = [*(Path(name).with_name(LOG) for name in lists), *logs]
    scalars = {path.parts[-3]: path for path in Path(work_dir).glob("*/vis_data/scalars.json")}
    return dict(
        log=next((str(log) for log in logs if log.is_file()), None),
        scalars=[str(scalars[log]) for log in log_folders(work_dir, list(scalars))],
        dumps=find_exports(work_dir, (row or {}).get("weights")),
    )


def write_tables(experiment: Experiment, found: Found, record: dict, folder: Path) -> None:
    """Print an experiment's table; write it as Markdown and CSV, and the record as JSON."""
    text = render(experiment, found)
    print(f"{text}\n", flush=True)  # first: the disk may be full
    write_text(folder / f"{experiment.name}.md", text + "\n")
    write_text(folder / f"{experiment.name}.csv", to_csv(experiment, found))
    write_text(folder / f"{experiment.name}.json", json.dumps(record, indent=1) + "\n")
