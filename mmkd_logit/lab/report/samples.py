"""Exported logits of students beside those of their teacher."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .data import Dump, Experiment, read_dump
from .densities import Row
from .groups import Group, Run, group_by_teacher, span
from .style import TEACHER, Drawing, foot

# What the figures of logits need.
LOGITS = "the logits of students by KL or MSE, which --dump-logits keeps"
_SPLITS = dict(train="training set", test="test set", val="validation set")
# Takes a network and, for students, the logits of their teacher; returns what to draw, by name.
Measure = Callable[[Dump, np.ndarray | None], Mapping[str, Any]]


def split_name(split: str) -> str:
    """Return what a reader calls a split."""
    return _SPLITS.get(split, f"split {split}")


class Samples:
    """A split of the data, by the students of a group and their teachers."""

    def __init__(self, experiment: Experiment, group: Group, split: str) -> None:
        self.experiment, self.group, self.split = experiment, group, split
        self.sources: set[str] = set()  # files that were read, as the experiment names them
        self.sizes: set[int] = set()  # numbers of samples in the students' files

    @property
    def missing(self) -> list[str]:
        """Methods with finished runs of which no logits were exported."""
        return [
            method.name
            for method in self.group.methods
            if method.runs and not any(self._path(run) for run in method.runs.values())
        ]

    def students(self, seed: int) -> Iterator[tuple[str, Dump]]:
        """Yield the names of methods and their logits, one file at a time."""
        for method in self.group.methods:
            dump = self._read(method.runs.get(seed))
            if dump is not None:
                self.sizes.add(len(dump.index))
                yield method.name, dump

    def teacher(self, seed: int) -> Dump | None:
        """Return the logits of the teacher: from a student's file, or from its own."""
        students = [run for run in self.group.runs if run["seed"] == seed]
        taught = [run for run in students if run["method"]["kind"] != "ce"]
        for run in taught:
            dump = self._read(run)
            if dump is not None and dump.teacher_logits is not None:
                return replace(
                    dump,
                    logits=dump.teacher_logits,
                    prelogits=dump.teacher_prelogits,
                    weight=dump.teacher_weight,
                )
        folders = taught[0]["teachers"] if taught else []
        teachers = [run for run in self.experiment.record["runs"] if run["work_dir"] in folders]
        if len(folders) != 1 or not teachers or not teachers[0]["row"]:
            return None  # the mean of several teachers is in no file of theirs
        weights = [teachers[0]["row"]["weights"]]
        if any(run["row"].get("teachers") not in (None, weights) for run in taught):
            return None  # it was trained again since
        return self._read(teachers[0])

    def measure(self, measure: Measure) -> dict[str, list[Row]]:
        """Measure all networks: a row for the teacher and one for each method, by quantity."""
        looks = {"teacher": TEACHER, **{m.name: m.look for m in self.group.methods}}
        found: dict[str, dict[str, Row]] = {}
        for seed in self.group.seeds:
            teacher = self.teacher(seed)
            teachers = [("teacher", teacher)] if teacher is not None else []
            for name, dump in itertools.chain(self.students(seed), teachers):
                beside = dump.teacher_logits if name != "teacher" else None
                if name != "teacher" and beside is None and teacher is not None:
                    beside = teacher.logits if dump.same_samples(teacher) else None
                for quantity, value in measure(dump, beside).items():
                    if quantity not in found:
                        found[quantity] = {n: Row(n, look) for n, look in looks.items()}
                    if value is not None:
                        found[quantity][name].by_seed[seed] = value
        return {quantity: list(rows.values()) for quantity, rows in found.items()}

    def _path(self, run: Run) -> str | None:
        return (run["files"].get("dumps") or {}).get(self.split)

    def _read(self, run: Run | None) -> Dump | None:
        path = self._path(run) if run else None
        if run is None or path is None:
            return None
        dump = read_dump(self.experiment.root / path)
        for name in ("weights", "teachers"):
            said, trained = dump.identity.get(name), run["row"].get(name)
            if trained is not None and said != trained and (said is not None or name == "weights"):
                raise ValueError(
                    f"the logits {path} are not of this run any more: their {name} are "
                    f"{str(said)[:14]} and the run's {str(trained)[:14]}; export them again with "
                    "--dump-logits, or by tools/dump_logits.py"
                )
        self.sources.add(path)
        return dump


def samples_of(experiment: Experiment) -> list[list[Samples]]:
    """Return, for each group of students with exported logits, their splits, training first."""
    found = []
    for group in group_by_teacher(experiment.record):
        splits = {split for run in group.runs for split in run["files"].get("dumps") or {}}
        known = [split for split in _SPLITS if split in splits]
        names = [*known, *sorted(splits - set(known))]
        if names:
            found.append([Samples(experiment, group, split) for split in names])
    return found


def describe(
    samples: Sequence[Samples],
    figure: Figure,
    rows: Mapping[str, Sequence[Row]],
    summary: Callable[[Row], Any],
    part: str,
    title: str,
    what: str,
    paper: str,
    notes: Iterable[str] = (),
    how: str = ", pooled",
    **numbers: Any,
) -> Drawing:
    """Return the figure of rows with its caption: samples, seeds, protocol, what is missing."""
    experiment, group = samples[0].experiment, samples[0].group
    every = [row for each in rows.values() for row in each if row.by_seed]
    seeds = sorted({seed for row in every for seed in row.by_seed})
    left_out = list(group.notes)
    missing = dict.fromkeys(name for each in samples for name in each.missing)
    left_out += [f"not dumped: {', '.join(missing)}"] if missing else []
    fewer = {row.name: len(row.by_seed) for row in every if len(row.by_seed) < len(seeds)}
    left_out += [f"{name} has {count} of these seeds" for name, count in fewer.items()]
    counted = "; ".join(
        f"{split_name(each.split)}, n = {span(each.sizes)} samples without augmentation"
        for each in samples
    )
    listed = ", ".join(map(str, seeds))
    protocol = f"seed {listed}" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed}){how}"
    epochs = sorted({run["epochs"] for run in group.runs if run["epochs"] is not None})
    protocol += f"; {span(epochs)} epochs" if epochs else ""
    protocol += "; last epoch, nothing selected"
    foot(figure, f"{experiment.key} · {group.title} · {counted}; {protocol}")
    said = [what, counted, protocol, "; ".join([*left_out, *notes])]
    for name, each in rows.items():
        numbers[name] = {row.name: summary(row) for row in each if row.by_seed}
    return Drawing(
        name="-".join(filter(None, [experiment.key.replace("/", "-"), part, group.tag])),
        title=f"{title}: {group.title}",
        caption=" ".join(f"{text[:1].upper()}{text[1:]}." for text in said if text),
        figure=figure,
        sources=sorted({path for each in samples for path in each.sources}),
        paper=paper,
        numbers=dict(
            networks=group.title,
            splits={each.split: sorted(each.sizes) for each in samples},
            seeds=seeds,
            epochs=epochs,
            **numbers,
        ),
    )
