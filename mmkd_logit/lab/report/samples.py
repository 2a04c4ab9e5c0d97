"""Exported logits of students beside those of their teacher."""

import itertools
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .data import Dump, Experiment, read_dump
from .densities import Row, summarize
from .groups import Group, Run, group_by_teacher
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
    """A split of the data, by the students of a group and their teachers.

    Attributes:
        sources: The files that were read, as the experiment names them.
        sizes: Numbers of samples in the students' files.
    """

    def __init__(self, experiment: Experiment, group: Group, split: str) -> None:
        self.experiment, self.group, self.split = experiment, group, split
        self.sources: set[str] = set()
        self.sizes: set[int] = set()

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
        for name, of in (("weights", "weights"), ("teachers", "teachers' weights")):
            said, trained = dump.identity.get(name), run["row"].get(name)
            if trained is not None and said != trained and (said is not None or name == "weights"):
                command = [str(word) for word in self.experiment.record["command"]]
                if "--dump-logits" not in command:
                    command += ["--dump-logits", self.split]
                raise ValueError(
                    f"the dump {path} is not of this run any more: its {of} are {_short(said)} "
                    f"and the run's {_short(trained)}; make it again with "
                    f"{shlex.join(command)}, or by tools/dump_logits.py"
                )
        self.sources.add(path)
        return dump


def _short(weights: Any) -> str:
    if isinstance(weights, (list, tuple)):
        return "[" + ", ".join(map(_short, weights)) + "]"
    return str(weights)[:12]


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
    part: str,
    title: str,
    what: str,
    paper: str,
    seeds: Collection[int],
    numbers: Mapping[str, Any],
    notes: Iterable[str] = (),
    how: str = "",
) -> Drawing:
    """Return the figure with its caption: samples, seeds, protocol, what is missing."""
    experiment, group = samples[0].experiment, samples[0].group
    missing = dict.fromkeys(name for each in samples for name in each.missing)
    left_out = [*group.notes, *([f"not dumped: {', '.join(missing)}"] if missing else []), *notes]
    counted = "; ".join(
        f"{split_name(each.split)}, n = {_span(each.sizes)} samples without augmentation"
        for each in samples
    )
    listed = ", ".join(map(str, sorted(seeds)))
    protocol = f"seed {listed}" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed}){how}"
    epochs = sorted({run["epochs"] for run in group.runs if run["epochs"] is not None})
    protocol += f"; {_span(epochs)} epochs" if epochs else ""
    protocol += "; last epoch, nothing selected"
    foot(figure, f"{experiment.key} · {group.title} · {counted}; {protocol}")
    said = [what, counted, protocol, "; ".join(left_out)]
    facts = dict(
        networks=group.title,
        splits={each.split: sorted(each.sizes) for each in samples},
        seeds=sorted(seeds),
        epochs=epochs,
    )
    return Drawing(
        name="-".join(filter(None, [experiment.key.replace("/", "-"), part, group.tag])),
        title=f"{title}: {group.title}",
        caption=" ".join(f"{text[:1].upper()}{text[1:]}." for text in said if text),
        figure=figure,
        sources=sorted({path for each in samples for path in each.sources}),
        paper=paper,
        numbers={**facts, **numbers},
    )


def describe_rows(
    samples: Sequence[Samples],
    found: Mapping[str, Sequence[Row]],
    figure: Figure,
    notes: Iterable[str] = (),
    **texts: Any,
) -> Drawing:
    """Return a figure of numbers of all samples, all seeds together, with its caption."""
    seeds = {seed for rows in found.values() for row in rows for seed in row.by_seed}
    fewer, strange = dict[str, str](), dict[str, str]()
    numbers: dict[str, dict[str, Any]] = {}
    for quantity, rows in found.items():
        numbers[quantity] = {}
        for row in rows:
            if 0 < len(row.by_seed) < len(seeds):
                fewer[row.name] = f"{row.name} has {len(row.by_seed)} of these seeds"
            if row.by_seed:
                pooled = summarize(row.values)
                each = {seed: summarize(values) for seed, values in sorted(row.by_seed.items())}
                numbers[quantity][row.name] = dict(pooled=pooled, seeds=each)
                if pooled["not_finite"]:
                    count = f"{pooled['not_finite']:,} values"
                    strange[row.name] = f"{count} by {row.name} are not finite"
    notes = [*fewer.values(), *strange.values(), *notes]
    facts: dict[str, Any] = dict(seeds=seeds, numbers=numbers, notes=notes, how=", pooled")
    return describe(samples, figure, **texts, **facts)


def _span(counts: Iterable[int]) -> str:
    found = sorted(counts)
    return f"{found[0]:,}" + (f" to {found[-1]:,}" if len(found) > 1 else "")
