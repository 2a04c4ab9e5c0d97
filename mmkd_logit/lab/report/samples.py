"""Exported logits of students beside those of their teacher."""

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


class Samples:
    """A split of the data, by the students of a group and their teachers."""

    def __init__(self, experiment: Experiment, group: Group, split: str) -> None:
        self.experiment, self.group, self.split = experiment, group, split
        self.split_name = _SPLITS.get(split, f"split {split}")
        self.sources: set[str] = set()  # files that were read, as the experiment names them
        self.sizes: set[int] = set()  # numbers of samples in the students' files

    @property
    def missing(self) -> list[str]:
        """Methods with finished runs of which no logits were exported."""
        return [
            method.name
            for method in self.group.methods
            if method.runs and not any(map(self._path, method.runs.values()))
        ]

    def students(self, seed: int) -> Iterator[tuple[str, Dump]]:
        """Yield the names of methods and their logits, one file at a time."""
        for method in self.group.methods:
            run = method.runs.get(seed)
            if run and self._path(run):
                dump = self._read(run)
                self.sizes.add(len(dump.index))
                yield method.name, dump

    def teacher(self, seed: int) -> Dump | None:
        """Return the logits of the teacher, which a student's file holds too.

        Where they came from a cache it holds no pre-logits, and the teacher's own file does.
        """
        for _, dump in self.students(seed):
            if dump.teacher_logits is not None:
                prelogits = dump.teacher_prelogits
                own = self._teacher_file(dump) if prelogits is None else None
                return replace(
                    dump,
                    logits=dump.teacher_logits,
                    prelogits=_prelogits_of(own, dump) if own else prelogits,
                    weight=dump.teacher_weight,
                )
        return None

    def _teacher_file(self, student: Dump) -> Dump | None:
        for run in self.experiment.record["runs"]:
            same = run["row"] and [run["row"].get("weights")] == student.identity.get("teachers")
            if same and self._path(run):
                return self._read(run)
        return None

    def measure(self, measure: Measure) -> dict[str, list[Row]]:
        """Measure all networks: a row for the teacher and one for each method, by quantity."""
        looks = {"teacher": TEACHER, **{m.name: m.look for m in self.group.methods}}
        found: dict[str, dict[str, Row]] = {}

        def add(name: str, seed: int, dump: Dump, beside: np.ndarray | None) -> None:
            for quantity, value in measure(dump, beside).items():
                rows = found.setdefault(quantity, {n: Row(n, look) for n, look in looks.items()})
                if value is not None:
                    rows[name].by_seed[seed] = value

        for seed in self.group.seeds:
            teacher = self.teacher(seed)
            for name, dump in self.students(seed):
                beside = dump.teacher_logits
                if beside is None and teacher is not None:
                    beside = teacher.logits if dump.same_samples(teacher) else None
                add(name, seed, dump, beside)
            if teacher is not None:
                add("teacher", seed, teacher, None)
        return {quantity: list(rows.values()) for quantity, rows in found.items()}

    def _path(self, run: Run) -> str | None:
        return run["files"]["dumps"].get(self.split)

    def _read(self, run: Run) -> Dump:
        path = run["files"]["dumps"][self.split]
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


def _prelogits_of(own: Dump, samples: Dump) -> np.ndarray | None:
    """Return those of another file's samples, which may be a part; None if some are missing."""
    order = np.argsort(own.index, kind="stable")
    places = np.searchsorted(own.index, samples.index, sorter=order)
    rows = order[np.minimum(places, len(order) - 1)]
    same = np.array_equal(own.index[rows], samples.index)
    same = same and np.array_equal(own.clean_label[rows], samples.clean_label)
    return own.prelogits[rows] if same and own.prelogits is not None else None


def samples_of(experiment: Experiment) -> list[list[Samples]]:
    """Return, for each group of students with exported logits, their splits, training first."""
    found = []
    for group in group_by_teacher(experiment.record):
        splits = {split for run in group.runs for split in run["files"]["dumps"]}
        order = [split for split in _SPLITS if split in splits]
        order += sorted(splits.difference(order))
        found.append([Samples(experiment, group, split) for split in order])
    return [splits for splits in found if splits]


def describe(
    samples: Sequence[Samples],
    figure: Figure,
    rows: Mapping[str, Sequence[Row]],
    part: str,
    title: str,
    what: str,
    paper: str,
    summary: Callable[[Row], Any] = Row.summary,
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
        f"{each.split_name}, n = {span(each.sizes)} samples without augmentation"
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
    splits = {each.split: sorted(each.sizes) for each in samples}
    return Drawing(
        name=experiment.file_name(part, group.tag),
        title=f"{title}: {group.title}",
        caption=" ".join(f"{text[:1].upper()}{text[1:]}." for text in said if text),
        figure=figure,
        sources=sorted({path for each in samples for path in each.sources}),
        paper=paper,
        numbers=dict(networks=group.title, splits=splits, seeds=seeds, epochs=epochs, **numbers),
    )
