"""Experiment files as tools/reproduce.py writes them, with numbers that a test chooses.

Nothing of the mm packages is imported, and nothing of ours but what reads the files.
"""

import json
import os
from pathlib import Path

import numpy as np
from report_records import cell_of, record_of, run_of, write_record

from mmkd_logit.lab.report.data import Experiment

TOP1 = ("test top-1 (%)", "test.accuracy/top1")
TRAIN = ("train top-1 (%)", "train.accuracy/top1")


def method(kind="kl", tau=None, alpha=1.0, rate=None, noise="symmetric", **others):
    """What experiments/method.py says of a run; ``tau`` a number or 'inf'."""
    loss = dict(ce=None, kl="ScaledKLDivLoss", mse="LogitMSELoss").get(kind)
    known = dict(
        kind=kind,
        tau=tau,
        alpha=None if kind == "ce" else alpha,
        loss=loss,
        label_noise=None if rate is None else dict(kind=noise, rate=rate),
        teacher_config=None if kind == "ce" else "configs/wrn/wrn16-2_digits.py",
        network="WideResNetCIFAR depth=10 widen_factor=1",
    )
    return {**known, **others}


class Records:
    """Collects runs; :meth:`file` writes them under a folder and reads them again.

    Args:
        root: Where the runs were made: work folders are ``root/work_dirs/{name}/seed{k}``.
        name: Of the experiment.
        scale: Of the experiment, or None.
        metrics: Pairs of title and key.
    """

    def __init__(self, root, name="table1", scale="digits", metrics=(TOP1,), title="A title"):
        self.root, self.name, self.scale = root, name, scale
        self.title, self.metrics = title, metrics
        self.places, self.by_name, self.runs, self.epochs = {}, {}, [], 3

    def add(self, name, values, row=None, column="", paper=None, epochs=None, **kind):
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
            self.runs.append(self._run(name, seed, value, epochs or self.epochs, method(**kind)))
        return self

    def work_dir(self, name, seed=0):
        """Return the folder of a run, which is made."""
        folder = self.root / "work_dirs" / name / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _run(self, name, seed, value, epochs, how):
        run = run_of(name, seed, None if value is None else 0.0, how)
        run.update(epochs=epochs, teachers=[])
        if value is not None:
            run["weights"] = f"{self.scale} {self.name} {name} {seed}"
            run["row"].update(epochs=epochs, iterations=12 * epochs, test={}, teachers=[])
            run["row"]["weights"] = run["weights"]
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
            dict(
                title=title,
                key=key,
                cells={name: self._cell(name, key) for name in self.places},
                comparisons=[],
            )
            for title, key in self.metrics
        ]
        return dict(
            record_of({}, self.name),
            scale=self.scale,
            title=self.title,
            command=["python", "tools/reproduce.py", self.name],
            root=os.path.relpath(self.root, self.path().parent),
            cells=self.places,
            metrics=metrics,
            runs=[dict(run, files=self._files(run["work_dir"])) for run in self.runs],
        )

    def _files(self, work_dir):
        def found(pattern):
            paths = sorted((self.root / work_dir).glob(pattern))
            return [path.relative_to(self.root).as_posix() for path in paths]

        dumps = {Path(path).stem: path for path in found("logits/*.npz")}
        return dict(log=None, scalars=found("*/vis_data/scalars.json"), dumps=dumps)

    def path(self):
        """Return where the file lies, as of tools/reproduce.py."""
        folder = self.root / "results"
        return (folder / self.scale if self.scale else folder) / f"{self.name}.json"

    def write(self):
        """Write the file, and the rows of runs.jsonl."""
        write_record(self.root, self.record())

    def experiment(self, **changed):
        """Return the experiment, with fields of the record changed."""
        return Experiment(self.path(), self.root, {**self.record(), **changed})


def write_scalars(work_dir, lines, time="20260101_000000"):
    """Write ``scalars.json`` of a run: one dict with ``step`` a line, in the order given."""
    folder = work_dir / time / "vis_data"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scalars.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_dump(work_dir, split="train", identity=None, **arrays):
    """Write ``logits/{split}.npz`` of a run; what is not given follows from ``logits``."""
    folder = work_dir / "logits"
    folder.mkdir(parents=True, exist_ok=True)
    count, classes = np.shape(arrays["logits"])
    label = np.asarray(arrays.get("label", np.arange(count) % classes))
    known = dict(index=np.arange(count), label=label, clean_label=label)
    path = folder / f"{split}.npz"
    np.savez(path, **{**known, **arrays}, identity=np.array(json.dumps(identity or dict(seed=0))))
    return path
