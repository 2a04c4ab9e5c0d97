"""An experiment: which runs it needs and which cells they fill."""

import copy
import fnmatch
import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmkd_logit.engine.config import (
    FINAL,
    default_work_dir,
    later_teachers,
    model_teachers,
    read_config,
)
from mmkd_logit.engine.logits import dump_path
from mmkd_logit.engine.train import build_config, build_parser

# Files of other runs, which the suffix stands for.
NOT_IN_NAMES = re.compile(r"model\.teacher|custom_hooks\..*\.teacher|.*\.scores=")


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        name: Of the cell of the experiment that it belongs to.
        config: The config file.
        overrides: Settings of the config as on the command line, ``KEY=VALUE``.
        seed: The random seed.
        epochs: Number of epochs, or None for the config's.
        cell_seed: The seed of the experiment that it counts for.
        teachers: The runs whose students teach here.
        scores: The run whose logits rank the samples that ``DataSubset`` chooses from, or None.
        options: Those of the overrides that every run of the command has.
        fast: Whether it is trained in fewer digits.
        suffix: Sets the work folder apart from that of other teachers' students.
    """

    name: str
    config: str
    overrides: tuple[str, ...]
    seed: int
    epochs: int | None = None
    cell_seed: int = field(default=0, compare=False)
    teachers: tuple["Run", ...] = ()
    suffix: str = ""
    options: tuple[str, ...] = ()
    scores: "Run | None" = None
    fast: bool = False

    @property
    def needs(self) -> tuple["Run", ...]:
        """The runs that must have ended before."""
        return self.teachers if self.scores is None else (*self.teachers, self.scores)

    @functools.cached_property
    def work_dir(self) -> str:
        """The run's folder; the overrides are part of its name."""
        folder = Path(default_work_dir(self.config, self.seed))
        kept = [t for t in self.overrides if t in self.options or not NOT_IN_NAMES.match(t)]
        kept = [text for text in kept if not text.startswith("data_root=")]
        kept += ["fast"] * self.fast
        kept += [f"{self.epochs}e"] * (self.epochs is not None) + [self.suffix] * bool(self.suffix)
        if not kept:
            return str(folder)
        # Only what needs no quotes, also inside --cfg-options, where a comma makes a list.
        words = re.sub(r"[^\w.=+-]+", "-", "_".join(kept))
        if len(words) > 100 or words != "_".join(kept):
            words = f"{words[:90]}-{hashlib.sha256(repr(kept).encode()).hexdigest()[:8]}"
        return str(folder.parent.with_name(f"{folder.parent.name}_{words}") / folder.name)

    def arguments(self) -> list[str]:
        """What ``tools/train.py`` needs for this run."""
        words = [self.config, "--seed", str(self.seed), "--work-dir", self.work_dir]
        if self.epochs is not None:
            words += ["--epochs", str(self.epochs)]
        words += ["--fast"] * self.fast
        return [*words, "--cfg-options", *self.overrides] if self.overrides else words

    def build_config(self) -> Config:
        """Read what ``tools/train.py`` will run."""
        cfg = copy.deepcopy(read_once(self.config))
        return build_config(build_parser().parse_args(self.arguments()), cfg)


@functools.cache
def read_once(config: str) -> Config:
    """Read a config file that will not be changed here."""
    return read_config(config)


def refuse_shared_folders(runs: Sequence[Run]) -> None:
    """Make sure that different runs write to different folders."""
    users: dict[str, Run] = {}
    for run in runs:
        other = users.setdefault(run.work_dir, run)
        if other.arguments() != run.arguments():
            raise ValueError(
                f"the runs {other.name} and {run.name} are different and would both write to "
                f"{run.work_dir}; give one of them a config file with a name of its own"
            )


# An experiment: which runs it needs and which cells they fill.


_DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1")
_RUN_FIELDS = {"row", "column", "config", "overrides", "teacher", "seed_shift"}
_RUN_FIELDS |= {"later_teacher", "scores", "seed"}


class NothingChosenError(ValueError):
    """The patterns of ``--only`` fit no run of an experiment."""


class Experiment:
    """A table or figure, read from a file under ``configs/paper``.

    The file names a ``title`` and the ``runs`` by name. A run has ``row`` and ``column``, the
    labels of the cell that it fills (a run without ``row`` is only somebody's teacher),
    ``config``, ``overrides``, ``teacher`` (the name of the run, or of several, whose student of
    the same seed teaches), ``later_teacher`` (the one whose student teaches in the later stage of
    the config's ``SequentialTeacherHook``), ``scores`` (the one that leaves its logits of the
    training samples, by which ``DataSubset`` chooses), ``seed`` (a fixed one: the same run serves
    all seeds, such as one teacher for all students) and ``seed_shift`` (added to the seed, for
    teachers that differ by it alone).

    Optional are ``metrics``, a list of dicts with ``title``, ``key`` (``test.KEY`` or
    ``train.KEY`` of a results row), ``paper`` (by the name of the run: the paper's number, or
    number and trust mark) and ``mark`` (the trust mark of those without); ``cited``, labels of
    rows by names that only the paper has numbers for; ``comparisons``, pairs of names of runs,
    the first minus the second; ``note``, printed below; ``seeds``, how many there are where the
    command does not say; ``fast``, whether every run trains in bfloat16; and ``dump_logits``, the
    splits whose logits the runs of the first seed leave.
    """

    def __init__(
        self,
        path: str | Path,
        options: tuple[str, ...] = (),
        epochs: int | None = None,
        only: Sequence[str] = (),
        fast: bool = False,
    ) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the experiment {path} does not exist")
        cfg = Config.fromfile(path)
        if not cfg.get("title") or not cfg.get("runs"):
            raise ValueError(f"{path} defines no title or no runs; it is not an experiment")
        self.name, folder = Path(path).stem, Path(path).resolve().parent.name
        self.scale = folder if Path(path).resolve().parents[1].name == "paper" else None
        self.title: str = cfg.title
        self.note: str = cfg.get("note", "")
        self.options, self.epochs = options, epochs
        self.fast = fast or bool(cfg.get("fast"))
        self.seeds: int = cfg.get("seeds", 1)
        self.dump_logits = tuple(cfg.get("dump_logits", ()))
        self.cells: dict[str, tuple[str, str]] = {}
        self._rows: dict[str, ConfigDict] = {}
        for name, row in cfg.runs.items():
            self._add(path, name, row)
        runs = set(self.cells)
        for name, label in cfg.get("cited", {}).items():
            self.cells[name] = (label, "")
        self.metrics = [dict(metric) for metric in cfg.get("metrics", [_DEFAULT_METRIC])]
        self.comparisons = [tuple(pair) for pair in cfg.get("comparisons", [])]
        self._check(path, runs)
        self._select(only)

    def _add(self, path: str | Path, name: str, row: ConfigDict) -> None:
        unknown = set(row) - _RUN_FIELDS
        if unknown or not row.get("config"):
            raise ValueError(
                f"{path}: the run {name} needs a config and takes {sorted(_RUN_FIELDS)}; "
                f"got {sorted(row)}"
            )
        if "seed" in row and "seed_shift" in row:
            raise ValueError(f"{path}: {name} has a seed of its own; leave out seed_shift")
        for teacher in _needed(row):
            if teacher not in self._rows:
                raise ValueError(f"{path}: the teacher {teacher!r} of {name} must come first")
        if row.get("row"):
            self.cells[name] = (row.row, row.get("column", ""))
        self._rows[name] = row

    def _check(self, path: str | Path, runs: set[str]) -> None:
        unknown = {name for pair in self.comparisons for name in pair} - runs
        if unknown or any(len(pair) != 2 for pair in self.comparisons):
            raise ValueError(f"{path}: comparisons are pairs of {sorted(runs)}")
        for metric in self.metrics:
            metric["paper"] = {
                name: value if isinstance(value, (tuple, list)) else (value, metric["mark"])
                for name, value in metric.get("paper", {}).items()
            }
            strange = set(metric["paper"]) - set(self.cells)
            if strange:
                raise ValueError(f"{path}: the paper's numbers name no run: {sorted(strange)}")
        if len(set(self.cells.values())) != len(self.cells):
            raise ValueError(f"{path}: two runs fill the same cell")

    def _select(self, only: Sequence[str]) -> None:
        self.needed = set(self._rows)
        if not only:
            return
        chosen = {n for n in self._rows if any(fnmatch.fnmatch(n, pattern) for pattern in only)}
        if not chosen:
            raise NothingChosenError(f"--only {' '.join(only)} fits no run of {list(self._rows)}")
        shown = {name: self.cells.get(name) for name in self._rows if name in chosen}
        self.cells = {name: cell or (name, "") for name, cell in shown.items()}
        self.comparisons = [pair for pair in self.comparisons if chosen.issuperset(pair)]
        self.needed = set(chosen)
        for name in reversed(self._rows):
            if name in self.needed:
                self.needed.update(_needed(self._rows[name]))

    def label(self, name: str) -> str:
        """Return what messages call a run."""
        return ", ".join(filter(None, self.cells.get(name, ()))) or name

    @property
    def fixed_teachers(self) -> set[int]:
        """The seeds of teachers that are the same for all seeds of the students in the table."""
        names = {teacher for name in self.cells for teacher in _needed(self._rows.get(name, {}))}
        return {self._rows[name]["seed"] for name in names if "seed" in self._rows[name]}

    @property
    def measured(self) -> set[str]:
        """What the results row of each cell's run must hold."""
        return {metric["key"] for metric in self.metrics}

    def runs(self, seeds: list[int]) -> list[Run]:
        """List the runs, teachers before their students."""
        own = {
            name: read_once(row.config).get("train_cfg", {}).get("max_epochs")
            for name, row in self._rows.items()
        }
        longest = max(filter(None, own.values()), default=1)
        runs: list[Run] = []
        for seed in seeds:
            done: dict[str, Run] = {}
            for name in self._rows:
                if name in self.needed:
                    epochs = self.epochs
                    if epochs is not None and own[name] is not None:
                        epochs = max(1, round(epochs * own[name] / longest))
                    done[name] = self._run(name, seed, epochs, done)
            runs.extend(done.values())
        refuse_shared_folders(runs)
        return runs

    def _run(self, name: str, seed: int, epochs: int | None, done: dict[str, Run]) -> Run:
        row = self._rows[name]
        teachers = tuple(done[teacher] for teacher in _names(row.get("teacher")))
        overrides = (*self.options, *row.get("overrides", ()))
        own_seed = row.get("seed", seed + row.get("seed_shift", 0))
        given: list[Run] = []
        if teachers:
            overrides += _teacher_overrides(row.config, teachers)
            given += [] if self._usual(row.config, teachers, own_seed) else teachers
        if row.get("later_teacher"):
            later = done[row.later_teacher]
            fields = later_teachers(read_once(row.config))
            if len(fields) != 1:
                raise ValueError(f"{row.config} names {len(fields)} later teachers and not one")
            overrides += (f"{fields[0]}.checkpoint={Path(later.work_dir, FINAL)}",)
            given += [] if self._plain(later, own_seed) else [later]
            teachers += (later,)
        scores = done[row.scores] if row.get("scores") else None
        if scores is not None:
            exported = dump_path(scores.work_dir, "train")
            overrides += (f"train_dataloader.dataset.scores={exported}",)
            given += [] if scores in teachers else [scores]
        folders = [Path(run.work_dir) for run in given]
        names = [f"{f.parent.name}{f.name.removeprefix('seed')}" for f in folders]
        suffix = "from-" + "+".join(names) if names else ""
        return Run(
            name,
            row.config,
            overrides,
            own_seed,
            epochs=epochs,
            cell_seed=seed,
            teachers=teachers,
            suffix=suffix,
            options=self.options,
            scores=scores,
            fast=self.fast,
        )

    def _plain(self, run: Run, seed: int) -> bool:
        return run.overrides == self.options and not run.suffix and run.seed == seed

    def _usual(self, config: str, teachers: tuple[Run, ...], seed: int) -> bool:
        """Whether the teacher is the one that the config names."""
        specs = model_teachers(read_once(config))
        if len(teachers) != 1 or len(specs) != 1:
            return False
        (teacher,) = teachers
        if teacher.teachers:
            own = [text for text in teacher.overrides if not NOT_IN_NAMES.match(text)]
            usual = own == list(self.options) and not teacher.suffix and teacher.seed == seed
        else:
            usual = self._plain(teacher, seed)
        return specs[0].config == teacher.config and usual


def _names(teacher: Any) -> list[str]:
    return [teacher] if isinstance(teacher, str) else list(teacher or ())


def _needed(row: dict) -> list[str]:
    others = [row.get(field) for field in ("later_teacher", "scores")]
    return [*_names(row.get("teacher")), *filter(None, others)]


def _teacher_overrides(config: str, teachers: tuple[Run, ...]) -> tuple[str, ...]:
    files = [str(Path(teacher.work_dir, FINAL)) for teacher in teachers]
    specs = model_teachers(read_once(config))
    if len(teachers) == len(specs) == 1:
        checkpoint = f"model.teacher.checkpoint={files[0]}"
        if specs[0].config == teachers[0].config:
            return (checkpoint,)
        return (f"model.teacher.config={teachers[0].config}", checkpoint)
    written = [
        dict(config=t.config, checkpoint=file) for t, file in zip(teachers, files, strict=True)
    ]
    # Each computes as the config says of it, or of its only one.
    said = [spec.options for spec in specs] * (len(teachers) if len(specs) == 1 else 1)
    if len(said) == len(teachers):
        written = [spec | options for spec, options in zip(written, said, strict=True)]
    return (f"model.teacher={written}",)
