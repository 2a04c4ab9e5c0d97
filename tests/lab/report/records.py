"""Experiment files as tools/reproduce.py writes them, with numbers that a test chooses."""

import json
import os
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex
from report_records import cell_of, record_of, run_of, write_record

from mmkd_logit.lab.report.data import Experiment

TOP1 = ("test top-1 (%)", "test.accuracy/top1")
TRAIN = ("train top-1 (%)", "train.accuracy/top1")


def method(kind="kl", tau=None, alpha=1.0, rate=None, noise="symmetric", **others):
    """How a run was trained; ``tau`` a number or 'inf'."""
    known = dict(kind=kind, tau=tau, network="WideResNetCIFAR depth=10 widen_factor=1")
    known["loss"] = dict(ce=None, kl="ScaledKLDivLoss", mse="LogitMSELoss").get(kind)
    known["label_noise"] = None if rate is None else dict(kind=noise, rate=rate)
    taught = dict(alpha=alpha, teacher_config="configs/wrn/wrn16-2_digits.py")
    return {**known, **(dict.fromkeys(taught) if kind == "ce" else taught), **others}


class Records:
    """Collects runs; :meth:`write` writes them under a folder.

    Work folders are ``root/work_dirs/{name}/seed{k}``; ``metrics`` are pairs of title and key.
    """

    def __init__(self, root, name="table1", scale="digits", metrics=(TOP1,), title="A title"):
        self.root, self.name, self.scale = root, name, scale
        self.title, self.metrics = title, metrics
        self.places, self.by_name, self.runs = {}, {}, []

    def add(self, name, values, row=None, column="", paper=None, **kind):
        """Add the runs of a cell.

        Args:
            name: Of the runs.
            values: For each seed, from 0 on, its numbers by the key of the metric, or a number
                for the first metric; None for a seed that failed.
            row: Label of the cell's row; None for runs without a cell.
            column: Label of the cell's column.
            paper: The paper's numbers by the key of the metric.
            **kind: Of :func:`method`.
        """
        if row is not None:
            self.places[name] = [row, column]
        first = self.metrics[0][1]
        values = [v if v is None or isinstance(v, dict) else {first: v} for v in values]
        self.by_name[name] = (values, paper or {})
        for seed, value in enumerate(values):
            self.runs.append(self._run(name, seed, value, method(**kind)))

    def work_dir(self, name, seed=0):
        """Return the folder of a run, which is made."""
        folder = self.root / "work_dirs" / name / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _run(self, name, seed, value, how):
        run = run_of(name, seed, None if value is None else 0.0, how)
        run.update(epochs=3, teachers=[])
        if value is not None:
            run["weights"] = f"{self.scale} {self.name} {name} {seed}"
            run["row"].update(epochs=3, iterations=36, test={}, teachers=[], weights=run["weights"])
            for key, number in value.items():
                split, _, metric = key.partition(".")
                run["row"][split] = {**(run["row"][split] or {}), metric: number}
        return run

    def _cell(self, name, key):
        values, paper = self.by_name[name]
        return cell_of([value and value[key] for value in values], paper.get(key))

    def record(self):
        """Return what the file holds; scalars and dumps are those that are there by now."""
        metrics = [
            dict(title=title, key=key, comparisons=[],
                 cells={name: self._cell(name, key) for name in self.places})
            for title, key in self.metrics
        ]  # fmt: skip
        runs = [dict(run, files=self._files(run["work_dir"])) for run in self.runs]
        root = os.path.relpath(self.root, self.path().parent)
        own = dict(scale=self.scale, title=self.title, root=root, cells=self.places)
        own["command"] = ["python", "tools/reproduce.py", self.name]
        return dict(record_of({}, self.name), metrics=metrics, runs=runs, **own)

    def _files(self, work_dir):
        def found(pattern):
            paths = sorted((self.root / work_dir).glob(pattern))
            return [path.relative_to(self.root).as_posix() for path in paths]

        dumps = {Path(path).stem: path for path in found("logits/*.npz")}
        return dict(log=None, scalars=found("*/vis_data/scalars.json"), dumps=dumps)

    def path(self):
        """Return where the file lies, as of tools/reproduce.py."""
        return Path(self.root, "results", self.scale or "", f"{self.name}.json")

    def write(self):
        """Write the file, and the rows of runs.jsonl."""
        write_record(self.root, self.record())

    def experiment(self, **changed):
        """Return the experiment, with fields of the record changed."""
        return Experiment(self.path(), self.root, {**self.record(), **changed})


def write_scalars(work_dir, lines):
    """Write ``scalars.json`` of a run: one dict with ``step`` a line, in the order given."""
    path = work_dir / "20260101_000000/vis_data/scalars.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def lines_by_look(axes, look):
    """Return the points of the curves that look like a method's."""
    return [
        [list(values) for values in line.get_data()]
        for line in axes.lines
        if len(line.get_xdata()) > 1
        and (to_hex(line.get_color()), line.get_marker()) == (look.color, look.marker)
    ]


def write_dump(work_dir, split, identity, logits):
    """Write ``logits/{split}.npz`` of a run."""
    path = work_dir / "logits" / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    count, classes = logits.shape
    label = np.arange(count) % classes
    arrays = dict(logits=logits, index=np.arange(count), label=label, clean_label=label)
    np.savez(path, **arrays, identity=json.dumps(identity))
