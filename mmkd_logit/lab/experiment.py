"""An experiment: the runs that it needs and the cells of its tables that they fill."""

import copy
import fnmatch
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_logit.engine.config import (
    FINAL,
    default_work_dir,
    later_teachers,
    model_teachers,
    read_config,
)
from mmkd_logit.engine.logits import export_path
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.registry import config_path

from .report.data import DEFAULT_METRIC


@dataclass(frozen=True)
class Run:
    """One training with one seed."""

    name: str  # in the experiment's file
    config: str
    overrides: tuple[str, ...]  # of the config, KEY=VALUE
    seed: int
    epochs: int | None = None  # None for the config's
    cell_seed: int = field(default=0, compare=False)  # of the experiment that the run counts for
    teachers: tuple["Run", ...] = ()
    scores: "Run | None" = None  # its logits rank the samples that DataSubset chooses from
    inputs: tuple[str, ...] = ()  # overrides that name the files of other runs
    suffix: str = ""  # of the work folder, where those are not the files that the config names
    fast: bool = False

    @property
    def needs(self) -> tuple["Run", ...]:
        """The runs that must end before this one starts."""
        return self.teachers if self.scores is None else (*self.teachers, self.scores)

    @functools.cached_property
    def work_dir(self) -> str:
        """The run's folder; the overrides are part of its name."""
        folder = Path(default_work_dir(self.config, self.seed))
        parts = [text for text in self.overrides if not text.startswith("data_root=")]
        parts += ["fast"] * self.fast
        parts += [f"{self.epochs}e"] * (self.epochs is not None) + [self.suffix] * bool(self.suffix)
        if not parts:
            return str(folder)
        # Only what needs no quotes, also inside --cfg-options, where a comma makes a list.
        name = re.sub(r"[^\w.=+-]+", "-", "_".join(parts))
        if len(name) > 100 or name != "_".join(parts):
            name = f"{name[:90]}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
        return str(folder.parent.with_name(f"{folder.parent.name}_{name}") / folder.name)

    @property
    def argv(self) -> list[str]:
        """The arguments of ``tools/train.py`` for this run."""
        argv = [self.config, "--seed", str(self.seed), "--work-dir", self.work_dir]
        if self.epochs is not None:
            argv += ["--epochs", str(self.epochs)]
        argv += ["--fast"] * self.fast
        overrides = [*self.overrides, *self.inputs]
        return [*argv, "--cfg-options", *overrides] if overrides else argv

    def build_config(self) -> Config:
        """Build the config that ``tools/train.py`` runs."""
        cfg = copy.deepcopy(read_once(self.config))
        return build_config(build_parser().parse_args(self.argv), cfg)


@functools.cache
def read_once(config: str) -> Config:
    """Read a config file; the caller must not change what is returned."""
    return read_config(config)


@dataclass(frozen=True)
class RunEntry:
    """A run as an experiment's file describes it, once for all seeds.

    Attributes:
        config: The config file, seen from the current folder or from the experiment's, or
            ``mmkd_logit::PATH``.
        row: Label of the row of the table; a run without one is only another run's teacher.
        column: Label of the column.
        overrides: Settings of the config, ``KEY=VALUE``.
        teacher: Name of the run, or names of the runs, whose students of the same seed teach.
        later_teacher: Name of the run that teaches in the later stage of the config's
            ``SequentialTeacherHook``.
        scores: Name of the run that leaves its logits of the training samples, by which
            ``DataSubset`` chooses.
        seed: A fixed one: the same run serves all seeds, such as one teacher for all students.
        seed_shift: Added to the seed, for teachers that differ in it alone.
    """

    config: str
    row: str = ""
    column: str = ""
    overrides: Sequence[str] = ()
    teacher: str | Sequence[str] = ()
    later_teacher: str | None = None
    scores: str | None = None
    seed: int | None = None
    seed_shift: int | None = None

    @property
    def teachers(self) -> list[str]:
        """The names of the runs that teach from the beginning."""
        return [self.teacher] if isinstance(self.teacher, str) else list(self.teacher)

    @property
    def needs(self) -> list[str]:
        """The names of all runs that this one needs."""
        return [*self.teachers, *filter(None, [self.later_teacher, self.scores])]


class Experiment:
    """A table or figure, read from a file such as those under ``configs/paper``.

    The file names a ``title`` and the ``runs``: dicts with the fields of :class:`RunEntry`, by
    name, teachers before their students.

    Optional are ``metrics``, a list of dicts with ``title``, ``key`` (``test.KEY`` or
    ``train.KEY`` of a results row), ``paper`` (by the name of the run: the paper's number, or
    number and trust mark) and ``mark`` (the trust mark of those without); ``cited``, labels of
    rows by names that only the paper has numbers for; ``comparisons``, pairs of names of runs,
    the first minus the second, by the first metric; ``note``, printed below; ``seeds``, their
    number where the command does not give one; ``fast``, whether every run trains in bfloat16;
    and ``dump_logits``, the splits whose logits the runs of the first seed export.
    """

    def __init__(
        self,
        path: str | Path,
        options: tuple[str, ...] = (),
        epochs: int | None = None,
        only: Sequence[str] = (),
        fast: bool = False,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"the experiment {path} does not exist")
        cfg = Config.fromfile(path)
        if not cfg.get("title") or not isinstance(cfg.get("runs"), dict) or not cfg.runs:
            raise ValueError(f"{path} defines no title or no runs; it is not an experiment")
        folder = self.path.resolve().parent
        self.name, self.scale = self.path.stem, None
        if folder.parent.name == "paper":
            self.scale = folder.name
        self.title: str = cfg.title
        self.note: str = cfg.get("note", "")
        self.options, self.epochs = options, epochs
        self.fast = fast or bool(cfg.get("fast"))
        self.seeds: int = cfg.get("seeds", 1)
        self.dump_logits = tuple(cfg.get("dump_logits", ()))
        self.entries: dict[str, RunEntry] = {}
        for name, entry in cfg.runs.to_dict().items():
            self.entries[name] = self._read_entry(name, entry)
        self.cells = {
            n: (entry.row, entry.column) for n, entry in self.entries.items() if entry.row
        }
        self.comparisons = [tuple(pair) for pair in cfg.get("comparisons", [])]
        unknown = {name for pair in self.comparisons for name in pair} - set(self.cells)
        if unknown or any(len(pair) != 2 for pair in self.comparisons):
            raise ValueError(f"{path}: comparisons are pairs of {sorted(self.cells)}")
        self.cells.update({name: (label, "") for name, label in cfg.get("cited", {}).items()})
        if len(set(self.cells.values())) != len(self.cells):
            raise ValueError(f"{path}: two runs fill the same cell")
        self.metrics = [self._read_metric(**each) for each in cfg.get("metrics", [DEFAULT_METRIC])]
        self._needed = set(self.entries)
        if only:
            self._select(only)

    def _read_entry(self, name: str, values: dict[str, Any]) -> RunEntry:
        known = sorted(field.name for field in fields(RunEntry))
        config = values.get("config") if isinstance(values, dict) else None
        if not config or not set(known).issuperset(values):
            raise ValueError(
                f"{self.path}: the run {name} must be a dict such as dict(config=...) with some of "
                f"{known}, got {values!r}"
            )
        if "seed" in values and "seed_shift" in values:
            raise ValueError(f"{self.path}: {name} has a seed of its own; leave out seed_shift")
        beside = self.path.parent / config
        if beside.is_file() and not Path(config).is_file():
            values["config"] = str(beside)
        entry = RunEntry(**values)
        for other in entry.needs:
            if other not in self.entries:
                raise ValueError(f"{self.path}: the teacher {other!r} of {name} must come first")
        return entry

    def _read_metric(
        self, title: str, key: str, paper: dict | None = None, mark: str = ""
    ) -> dict[str, Any]:
        numbers = {
            name: tuple(value) if isinstance(value, (tuple, list)) else (value, mark)
            for name, value in (paper or {}).items()
        }
        unknown = sorted(set(numbers) - set(self.cells))
        if unknown:
            raise ValueError(f"{self.path}: the paper's numbers name no run: {unknown}")
        return dict(title=title, key=key, paper=numbers)

    def _select(self, only: Sequence[str]) -> None:
        """Keep the runs that a pattern fits, perhaps none, and those that they need."""
        names = list(self.entries)
        chosen = [n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in only)]
        self.cells = {name: self.cells.get(name, (name, "")) for name in chosen}
        self.comparisons = [pair for pair in self.comparisons if set(chosen).issuperset(pair)]
        self._needed = set(chosen)
        for name in reversed(names):
            if name in self._needed:
                self._needed.update(self.entries[name].needs)

    def pairs_of(self, metric: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return the comparisons by a metric: all by the first, which the experiment is about."""
        return self.comparisons if metric is self.metrics[0] else []

    def follows_seed(self, name: str) -> bool:
        """Whether a run or one that it needs is another for each seed of the experiment."""
        entry = self.entries[name]
        return entry.seed is None or any(map(self.follows_seed, entry.needs))

    def label(self, name: str) -> str:
        """Return the name of a run in messages."""
        return ", ".join(filter(None, self.cells.get(name, ()))) or name

    @property
    def fixed_teachers(self) -> set[int]:
        """The seeds of teachers that are the same for all seeds of the students in the table."""
        students = [self.entries[name] for name in self.cells if name in self.entries]
        seeds = {self.entries[teacher].seed for each in students for teacher in each.needs}
        return {seed for seed in seeds if seed is not None}

    @property
    def measured(self) -> set[str]:
        """The keys that the results row of each cell's run must hold."""
        return {metric["key"] for metric in self.metrics}

    def runs(self, seeds: list[int]) -> list[Run]:
        """List the runs, teachers before their students."""
        lengths = {name: self._length(entry) for name, entry in self.entries.items()}
        longest = max(filter(None, lengths.values()), default=1)
        runs: list[Run] = []
        for seed in seeds:
            known: dict[str, Run] = {}
            for name, length in lengths.items():
                if name in self._needed:
                    epochs = self.epochs
                    if epochs is not None and length is not None:
                        epochs = max(1, round(epochs * length / longest))
                    known[name] = self._run(name, seed, epochs, known)
            runs.extend(known.values())
        return runs

    def _length(self, entry: RunEntry) -> int | None:
        """Return the epochs of a run, if it trains by epochs and ``--epochs`` is not given."""
        for text in reversed((*self.options, *entry.overrides)):
            if text.startswith("train_cfg.max_epochs="):
                return int(text.partition("=")[2])
        return read_once(entry.config).get("train_cfg", {}).get("max_epochs")

    def _run(self, name: str, seed: int, epochs: int | None, known: dict[str, Run]) -> Run:
        entry = self.entries[name]
        own = [text.partition("=")[0] for text in entry.overrides]
        if both := [text for text in self.options if text.partition("=")[0] in own]:
            raise ValueError(
                f"--cfg-options {both[0]}: {self.path} sets that itself for {name}; change it "
                "there, or take --epochs for the length of runs"
            )
        own_seed = seed + (entry.seed_shift or 0) if entry.seed is None else entry.seed
        teachers = tuple(known[teacher] for teacher in entry.teachers)
        scores = known[entry.scores] if entry.scores else None
        inputs: list[str] = []
        others: list[Run] = []  # than those that the config names
        if teachers:
            inputs += _teacher_overrides(entry.config, teachers)
            usual = len(inputs) == 1 and inputs[0].startswith(_CHECKPOINT)
            others += [] if usual and self._is_plain(teachers[0], own_seed) else teachers
        if entry.later_teacher:
            later = known[entry.later_teacher]
            keys = later_teachers(read_once(entry.config))
            if len(keys) != 1:
                raise ValueError(f"{entry.config} names {len(keys)} later teachers and not one")
            inputs.append(f"{keys[0]}.checkpoint={Path(later.work_dir, FINAL)}")
            others += [] if self._is_plain(later, own_seed) else [later]
            teachers += (later,)
        if scores is not None:
            exported = export_path(scores.work_dir, "train")
            inputs.append(f"train_dataloader.dataset.scores={exported}")
            others += [] if scores in teachers else [scores]
        folders = [Path(run.work_dir) for run in others]
        names = [f"{f.parent.name}{f.name.removeprefix('seed')}" for f in folders]
        return Run(
            name,
            entry.config,
            (*self.options, *entry.overrides),
            own_seed,
            epochs=epochs,
            cell_seed=seed,
            teachers=teachers,
            scores=scores,
            inputs=tuple(inputs),
            suffix="from-" + "+".join(names) if names else "",
            fast=self.fast,
        )

    def _is_plain(self, run: Run, seed: int) -> bool:
        """Whether a run is its config as it stands, with this seed."""
        return run.overrides == self.options and not run.suffix and run.seed == seed


_CHECKPOINT = "model.teacher.checkpoint="


def _teacher_overrides(config: str, teachers: tuple[Run, ...]) -> list[str]:
    """Return the overrides that make runs the teachers of a config."""
    files = [str(Path(teacher.work_dir, FINAL)) for teacher in teachers]
    named = model_teachers(read_once(config))
    if len(teachers) == len(named) == 1:
        checkpoint = f"{_CHECKPOINT}{files[0]}"
        theirs, ours = (config_path(str(each.config)) for each in (named[0], teachers[0]))
        if theirs.resolve() == ours.resolve():
            return [checkpoint]
        return [f"model.teacher.config={teachers[0].config}", checkpoint]
    # Each computes as the config says of it, or of its only teacher.
    options = [teacher.options for teacher in named]
    options = options * len(teachers) if len(options) == 1 else options
    if len(options) != len(teachers):
        options = [{}] * len(teachers)
    written = [
        dict(config=teacher.config, checkpoint=file, **own)
        for teacher, file, own in zip(teachers, files, options, strict=True)
    ]
    return [f"model.teacher={written}"]
