"""The dumps of a family of students: read one at a time, checked, each beside its teacher's."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ._families import Family, Method, find_families
from ._report_read import ExhibitFile
from .files import Dump, read_dump

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Teacher:
    """What the teacher of a seed says of the samples; what nobody dumped is None.

    Attributes:
        logits: (N, K).
        label: (N,).
        clean_label: (N,).
        index: (N,).
        prelogits: (N, D).
        weight: Of the last layer, (K, D).
    """

    logits: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray
    index: np.ndarray
    prelogits: np.ndarray | None = None
    weight: np.ndarray | None = None


class Student(NamedTuple):
    """A student and what it was dumped with.

    Attributes:
        method: By which it was trained.
        seed: Its seed.
        dump: Its dump.
        teacher_logits: What the teacher says of the same samples, (N, K), or None.
    """

    method: Method
    seed: int
    dump: Dump
    teacher_logits: np.ndarray | None


class Samples:
    """A split of the data as a family of students and their teachers see it.

    Args:
        exhibit: Where the family is from.
        family: Some students.
        split: ``'train'``, ``'test'`` or another.

    Attributes:
        sources: The dumps that were read, as the exhibit names them.
        sizes: Numbers of samples that students' dumps have.
    """

    def __init__(self, exhibit: ExhibitFile, family: Family, split: str) -> None:
        self.exhibit, self.family, self.split = exhibit, family, split
        self.sources: list[str] = []
        self.sizes: set[int] = set()
        self._teacher: tuple[int, Teacher | None] | None = None

    @property
    def missing(self) -> list[str]:
        """Methods with finished runs, none of which has a dump."""
        has = {run["name"] for run in _runs(self.family) if self._path(run)}
        return [
            method.name
            for method in self.family.methods
            if method.runs and not has & {run["name"] for run in method.runs.values()}
        ]

    def students(self, seed: int | None = None) -> Iterator[Student]:
        """Give the students that have a dump, seed by seed in the order of legends.

        Args:
            seed: Those of one seed; None for all.

        Raises:
            ValueError: If a dump cannot be read or is of other weights than the run's.
            FileNotFoundError: If it is gone.
        """
        for each in self.family.seeds if seed is None else [seed]:
            for method in self.family.methods:
                run = method.runs.get(each)
                dump = self._read(run) if run else None
                if dump is not None:
                    self.sizes.add(len(dump.index))
                    yield Student(method, each, dump, self._beside(dump, each))

    def teacher(self, seed: int) -> Teacher | None:
        """Return the teacher of a seed: from a student's dump, or from its own.

        Args:
            seed: The seed.

        Raises:
            ValueError: If a dump cannot be read or is of other weights than the run's.
            FileNotFoundError: If it is gone.
        """
        if self._teacher is None or self._teacher[0] != seed:
            self._teacher = None  # before another is read: they are large
            self._teacher = seed, self._find_teacher(seed)
        return self._teacher[1]

    def _find_teacher(self, seed: int) -> Teacher | None:
        found = None
        for run in self._taught(seed):
            dump = self._read(run)
            if dump is not None and dump.teacher_logits is not None:
                found = Teacher(
                    dump.teacher_logits,
                    dump.label,
                    dump.clean_label,
                    dump.index,
                    dump.teacher_prelogits,
                    dump.teacher_weight,
                )
                if found.prelogits is not None:
                    return found
                break
        own = self._own(seed)
        if own is None or (found is not None and not _same_samples(own, found)):
            return found
        return Teacher(own.logits, own.label, own.clean_label, own.index, own.prelogits, own.weight)

    def _taught(self, seed: int) -> list[dict[str, Any]]:
        runs = [method.runs[seed] for method in self.family.methods if seed in method.runs]
        return [run for run in runs if run["method"]["kind"] != "ce"]

    def _own(self, seed: int) -> Dump | None:
        """Return the dump of the run that made the teacher, unless it was trained anew since."""
        runs = self.family.teachers.get(seed, [])
        if len(runs) != 1:  # the mean of several is in no dump of theirs
            return None
        weights = runs[0]["row"].get("weights")
        known = [run["row"].get("teachers") for run in self._taught(seed)]
        if any(each is not None and list(each) != [weights] for each in known):
            return None
        return self._read(runs[0])

    def _beside(self, dump: Dump, seed: int) -> np.ndarray | None:
        if dump.teacher_logits is not None:
            return dump.teacher_logits
        teacher = self.teacher(seed)
        fits = teacher is not None and _same_samples(dump, teacher)
        return teacher.logits if teacher is not None and fits else None

    def _path(self, run: Mapping[str, Any]) -> str | None:
        return (run["files"].get("dumps") or {}).get(self.split)

    def _read(self, run: Mapping[str, Any]) -> Dump | None:
        path = self._path(run)
        if path is None:
            return None
        dump = read_dump(self.exhibit.root / path)
        row = run["row"]
        for name, of in (("weights", "weights"), ("teachers", "teachers' weights")):
            said, trained = dump.identity.get(name), row.get(name)
            if trained is not None and said != trained and (said is not None or name == "weights"):
                raise ValueError(
                    f"the dump {path} is not of this run any more: its {of} are {_short(said)} "
                    f"and the run's {_short(trained)}; make it again with "
                    f"{self._command()}, or by tools/dump_logits.py"
                )
        if path not in self.sources:
            self.sources.append(path)
        return dump

    def _command(self) -> str:
        words = [str(word) for word in self.exhibit.record["command"]]
        if "--dump-logits" not in words:
            words += ["--dump-logits", self.split]
        return shlex.join(words)


def _runs(family: Family) -> list[dict[str, Any]]:
    return [run for method in family.methods for run in method.runs.values()]


def _same_samples(first: Dump | Teacher, second: Dump | Teacher) -> bool:
    """Whether rows are of the same samples; the clean labels tell a data set that was changed."""
    return (
        first.logits.shape == second.logits.shape
        and np.array_equal(first.index, second.index)
        and np.array_equal(first.clean_label, second.clean_label)
    )


def _short(weights: Any) -> str:
    if isinstance(weights, (list, tuple)):
        return "[" + ", ".join(map(_short, weights)) + "]"
    return str(weights)[:12]


def dumped_splits(family: Family) -> list[str]:
    """List the splits that a student of a family was dumped on, training before test.

    Args:
        family: The family.
    """
    found = {split for run in _runs(family) for split in run["files"].get("dumps") or {}}
    return sorted(found, key=lambda s: (_SPLITS.index(s) if s in _SPLITS else len(_SPLITS), s))


def dumped_samples(exhibit: ExhibitFile) -> list[list[Samples]]:
    """Return, for each family of students that has dumps, the splits they were dumped on.

    Args:
        exhibit: The exhibit.
    """
    families = [(family, dumped_splits(family)) for family in find_families(exhibit.record)]
    return [[Samples(exhibit, family, s) for s in splits] for family, splits in families if splits]
