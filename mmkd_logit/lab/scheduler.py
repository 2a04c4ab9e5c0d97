"""Training what is missing: runs and what they need form a graph."""

import json
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from mmkd_logit.engine.config import FINAL, model_teachers, seed_of, teachers_of
from mmkd_logit.engine.fingerprint import read_run, should_resume
from mmkd_logit.engine.group import batches_key, common_work_dir, why_alone
from mmkd_logit.engine.lock import FolderInUseError, only_run_in, user_of
from mmkd_logit.engine.logits import SPLITS, loader_of, missing_exports
from mmkd_logit.engine.results import find_row, read_lines
from mmkd_logit.utils.cli import program
from mmkd_logit.utils.files import write_text

from .experiment import Experiment, Run
from .pools import LOG, ClusterPool, LocalPool

_PAUSE = 0.2  # seconds between two looks at the processes
_NEWS = 30  # seconds between two lines on the progress of one run

Group = tuple[str, ...]  # the work folders of runs that are trained as a group; mostly one


def group_runs(
    runs: Mapping[str, Run], configs: Mapping[str, Config], size: int = 1
) -> list[Group]:
    """Put up to ``size`` students of one teacher into a student group, in the order of the runs.

    Their configs differ in model, optimizer and schedule alone, and they need the same runs, so
    that none needs another. A run without a teacher joins the first group that has its batches,
    unless other runs need its weights.
    """
    if size < 2:
        return [(folder,) for folder in runs]
    needed = {need.work_dir for run in runs.values() for need in run.needs}
    groups: list[list[str]] = []
    growing: dict[str, dict[str, list[str]]] = {}  # by batches, then by teachers
    for folder in sorted(runs, key=lambda folder: not teachers_of(configs[folder])):
        cfg, run = configs[folder], runs[folder]
        specs = list(teachers_of(cfg).values())
        if why_alone(cfg) or (folder in needed and not run.teachers):
            groups.append([folder])
            continue
        teachers = repr([specs, *(need.work_dir for need in run.needs)])
        alike = growing.setdefault(batches_key(cfg), {})
        if not specs:
            teachers = next((key for key, group in alike.items() if len(group) < size), teachers)
        if len(alike.get(teachers, ())) in (0, size):
            alike[teachers] = []
            groups.append(alike[teachers])
        alike[teachers].append(folder)
    place = {folder: number for number, folder in enumerate(runs)}
    in_order = [tuple(sorted(group, key=place.__getitem__)) for group in groups]
    return sorted(in_order, key=lambda group: place[group[0]])


class Precompute(NamedTuple):
    """Filling a teacher's cache on disk with the views that its students of one seed will draw."""

    folder: str  # of the log
    argv: tuple[str, ...]  # of tools/precompute.py
    students: Group


def plan_precomputes(runs: Mapping[str, Run], configs: Mapping[str, Config]) -> list[Precompute]:
    """Find the students that ask the same teacher for the same views.

    These are those with the same teacher, data and seed: which view of an image an epoch draws
    follows from seed, epoch and image alone.
    """
    alike: dict[str, list[str]] = {}
    for folder, run in runs.items():
        cfg, specs = configs[folder], model_teachers(configs[folder])
        stored = any((spec.cache or {}).get("storage") == "disk" for spec in specs)
        if run.teachers and stored and cfg.train_cfg.get("max_epochs"):
            same = [specs, cfg.train_dataloader, cfg.get("data_preprocessor"), seed_of(cfg)]
            key = json.dumps(same, sort_keys=True, default=str)
            alike.setdefault(key, []).append(folder)
    found = []
    for students in alike.values():
        run = runs[students[0]]
        name = f"{Path(run.config).stem}-seed{run.seed}"
        log_folder = str(Path(run.teachers[0].work_dir, "precompute", name))
        epochs = max(configs[folder].train_cfg.max_epochs for folder in students)
        argv = [run.config, "--epochs", str(epochs), "--seed", str(run.seed)]
        argv += [*["--fast"] * run.fast, "--work-dir", log_folder]
        overrides = [*run.overrides, *run.inputs]
        overrides = [text for text in overrides if not text.startswith("model.loss_kd")]
        argv += ["--cfg-options", *overrides] if overrides else []
        found.append(Precompute(log_folder, tuple(argv), tuple(students)))
    return found


class Step(NamedTuple):
    """Something that is to be done for a node of the graph."""

    node: Group | Precompute  # done when no step of it is left
    start: Callable[["Step"], bool]  # returns False if another process uses the folders now
    folders: Group  # the runs that the step is for


@dataclass
class Command:
    """A running command of a step, and what it adds to its log."""

    step: Step
    end: Callable[["Command", bool], None]
    log: Path

    def __post_init__(self) -> None:
        self.position = self.log.stat().st_size if self.log.is_file() else 0
        self.read_at = time.monotonic()

    def new_lines(self) -> list[str]:
        """Return the lines that were added since the last call."""
        self.read_at = time.monotonic()
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            file.seek(self.position)
            text = file.read().decode(errors="replace")
            self.position = file.tell()
        return text.splitlines()


class Scheduler:
    """Trains every run that has no results yet, teachers before their students.

    A run that was cut off is resumed. One that fails does not stop the others, except those that
    need its weights. One that another process trains, such as a second ``tools/reproduce.py``, is
    waited for, and then taken if its results fit.
    """

    def __init__(
        self,
        plan: Mapping[Experiment, Sequence[Run]],
        results: Path,
        pool: LocalPool | ClusterPool,
        say: Callable[[str], None],
        share: int = 1,
        exports: Collection[str] | None = None,
    ) -> None:
        self.results, self.pool, self.say = results, pool, say
        self.runs: dict[str, Run] = {}  # this and the next by work folder
        self.labels: dict[str, str] = {}
        self.measured: dict[str, set[str]] = {}  # keys that the results row must hold
        wanted: dict[str, set[str]] = {}
        for experiment, runs in plan.items():
            for run in runs:
                folder = run.work_dir
                other = self.runs.setdefault(folder, run)
                if other.argv != run.argv:
                    raise ValueError(
                        f"the runs {other.name} and {run.name} are different and would both write "
                        f"to {folder}; give one of them a config file with a name of its own"
                    )
                self.labels.setdefault(folder, experiment.label(run.name))
                keys = experiment.measured if run.name in experiment.cells else ()
                self.measured.setdefault(folder, set()).update(keys)
                own = experiment.dump_logits if run.cell_seed == 0 else ()
                wanted.setdefault(folder, set()).update(exports or own)
                if run.scores is not None:
                    wanted[run.scores.work_dir].add("train")
        self.configs = {folder: run.build_config() for folder, run in self.runs.items()}
        self.exports = {f: [split for split in SPLITS if split in wanted[f]] for f in self.runs}
        for folder, splits in self.exports.items():
            for split in splits:
                try:
                    loader_of(self.configs[folder], split)
                except ValueError as error:
                    raise ValueError(f"{folder}: {error}") from None
        self.groups = group_runs(self.runs, self.configs, share)
        # Caches are filled by one process.
        self.precomputes = plan_precomputes(self.runs, self.configs) if pool.processes == 1 else []
        self._numbers = {folder: number for number, folder in enumerate(self.runs, 1)}
        self._needed = {need.work_dir for run in self.runs.values() for need in run.needs}
        self.found: dict[str, dict | None] = {}  # the results rows of runs that ended, by folder
        self._waiting: list[Step] = []
        self._running: dict[str, Command] = {}  # by the folder of the log
        self._notified: set[tuple[str, str]] = set()

    def _graph(self) -> TopologicalSorter:
        """Build the graph of groups and precomputed caches."""
        graph: TopologicalSorter = TopologicalSorter()
        group_of = {folder: group for group in self.groups for folder in group}
        for group in self.groups:
            graph.add(group, *(group_of[n.work_dir] for f in group for n in self.runs[f].needs))
        for job in self.precomputes:
            groups = {group_of[folder] for folder in job.students}
            if len(groups) > 1:  # otherwise nothing is computed twice
                graph.add(job, *(group_of[n.work_dir] for n in self.runs[job.students[0]].needs))
                for group in groups:
                    graph.add(group, job)
        return graph

    def __call__(self) -> dict[str, dict | None]:
        """Train; return the results row of each work folder, or None."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        graph = self._graph()
        graph.prepare()
        unfinished: set[Group | Precompute] = set()
        try:
            while graph.is_active():
                for node in graph.get_ready():
                    unfinished.add(node)
                    if isinstance(node, Precompute):
                        self._waiting.append(Step(node, self._precompute, node.students))
                    else:
                        self._waiting.append(Step(node, self._train, node))
                for step in sorted(self._waiting, key=self._priority):
                    if self.pool.has_room() and step.start(step):
                        self._waiting.remove(step)
                for folder, succeeded in self.pool.finished().items():
                    command = self._running.pop(folder)
                    command.end(command, succeeded)
                self._report_progress()
                busy = {command.step.node for command in self._running.values()}
                busy.update(step.node for step in self._waiting)
                graph.done(*(unfinished - busy))
                unfinished &= busy
                time.sleep(_PAUSE if busy else 0)
        except BaseException:
            self.pool.stop()
            raise
        return self.found

    def _priority(self, step: Step) -> tuple[bool, int]:
        """Start first what other runs wait for, so that teachers train side by side."""
        return self._needed.isdisjoint(step.folders), self._numbers[step.folders[0]]

    # Training a group.

    def _train(self, step: Step) -> bool:
        group = step.folders
        if self._is_in_use(self._log_folder(group), *group):
            return False
        missing = [folder for folder in group if not self._is_settled(folder)]
        failed = any(folder in self.found and not self.found[folder] for folder in group)
        # A group that was cut off is resumed whole: its checkpoints are of all its students.
        begun = len(group) > 1 and "computed" in read_run(self._log_folder(group))
        members = group if begun and missing and not failed else tuple(missing)
        try:
            if len(members) > 1:
                self._start_group(step, members)
            elif members:
                self._start_run(step, members[0])
        except FolderInUseError:
            return False
        for folder in group:
            if folder not in members and self.needs_export(folder):
                self._waiting.append(Step(step.node, self._export, (folder,)))
        return True

    def _is_settled(self, folder: str) -> bool:
        """Whether a run needs no training, or cannot be trained."""
        if folder in self.found:
            return True
        failure = self._failure(self.runs[folder])
        if failure is not None:
            self.found[folder] = None
            self._say(folder, f"not trained, {failure}")
            return True
        row = self.find(folder)
        if row is None:
            return False
        self.found[folder] = row
        but = ", but for its logits" * self.needs_export(folder)
        self._say(folder, f"done before{but}")
        return True

    def _failure(self, run: Run) -> str | None:
        """Say which of the runs that a run needs has failed, or left no logits."""
        for need in run.needs:
            if self.found[need.work_dir] is None:
                return f"its teacher {need.work_dir} failed"
        if run.scores is not None and self.needs_export(run.scores.work_dir, ["train"]):
            return f"there are no logits of {run.scores.work_dir} to choose its samples by"
        return None

    def find_all(self) -> dict[str, dict | None]:
        """Return what a call does, but train nothing: None for each run that is not done."""
        for folder, run in self.runs.items():
            ready = all(self.found[need.work_dir] for need in run.needs)
            self.found[folder] = self.find(folder) if ready else None
        return self.found

    def find(self, folder: str) -> dict | None:
        """Look a run up in the results."""
        rows, measured = read_lines(self.results), self.measured[folder]
        return find_row(self.configs[folder], rows, self.pool.processes, measured)

    def _log_folder(self, group: Group) -> str:
        return group[0] if len(group) == 1 else common_work_dir([self.configs[f] for f in group])

    def _is_in_use(self, *folders: str) -> bool:
        """Whether another process trains in one of the folders; reports it once."""
        users = [(folder, user) for folder in folders if (user := user_of(folder))]
        for folder, user in users:
            if (folder, user) not in self._notified:
                self._notified.add((folder, user))
                self._say(folders[-1], f"waits for {folder}, which is in use by {user}")
        return bool(users)

    def _start_run(self, step: Step, folder: str) -> None:
        cut_off = should_resume(self.configs[folder], self.pool.processes)
        with only_run_in(folder):
            if not cut_off:  # should it fail, no student may take older weights for its teacher's
                Path(folder, FINAL).unlink(missing_ok=True)
        self._say(folder, shlex.join([*program("train.py"), *self.runs[folder].argv]))
        argv = self._argv(folder)
        argv[1:1] = ["--results", str(self.results), *["--resume", "auto"] * cut_off]
        self._start(step._replace(folders=(folder,)), folder, argv, "train.py", self._end_training)

    def _start_group(self, step: Step, members: Group) -> None:
        common = self._log_folder(members)
        file = Path(common, "runs.txt")
        with only_run_in(common):
            write_text(file, "".join(f"{shlex.join(self._argv(f))}\n" for f in members))
        for folder in members:
            others = f"in a group with {len(members) - 1} others"
            self._say(folder, f"{others}: {shlex.join([*program('train_group.py'), str(file)])}")
        new = tuple(folder for folder in members if folder not in self.found)
        argv = [str(file), "--results", str(self.results)]
        step = step._replace(folders=new)
        self._start(step, common, argv, "train_group.py", self._end_training)

    def _argv(self, folder: str) -> list[str]:
        """Return the arguments of ``tools/train.py``, with what is to be measured and exported."""
        config, *argv = self.runs[folder].argv
        if any(key.startswith("train") for key in self.measured[folder]):
            argv.insert(0, "--train-metrics")
        if self.exports[folder]:
            argv = ["--dump-logits", *self.exports[folder], *argv]
        return [config, *argv]

    def _start(
        self,
        step: Step,
        log_folder: str,
        argv: Sequence[str],
        tool: str,
        end: Callable[[Command, bool], None],
    ) -> None:
        self._running[log_folder] = Command(step, end, Path(log_folder, LOG))
        self.pool.start(log_folder, argv, tool)

    def _end_training(self, command: Command, succeeded: bool) -> None:
        step = command.step
        if not succeeded and self._is_in_use(str(command.log.parent), *step.folders):
            self._waiting.append(step)  # another process was faster
            return
        if not succeeded and len(step.folders) > 1:  # one that fails must not stop the others
            for folder in step.folders:
                self._say(folder, f"failed in a group, see {command.log}; is trained alone")
                self._waiting.append(step._replace(folders=(folder,)))
            return
        for folder in step.folders:
            self._end_run(folder, command, succeeded)

    def _end_run(self, folder: str, command: Command, succeeded: bool) -> None:
        lines = [] if succeeded else reversed(command.new_lines())
        error = next((line for line in lines if line.startswith("error: ")), "")
        before = self.found.get(folder)
        row = self.found[folder] = before or self.find(folder)
        if row is not None and self.needs_export(folder):
            what = f"done, but for its logits; see {command.log} {error}".rstrip()
        elif row is not None:
            what = "its logits are written" if before else _describe(row)
        elif succeeded:
            what = (
                "ended, but its results row is not of this config, teacher and weights, or lacks "
                f"a metric; see {command.log}"
            )
        else:
            what = f"failed, see {command.log} {error}".rstrip()
        self._say(folder, what)

    # Exporting the logits of a run that is done.

    def needs_export(self, folder: str, splits: Collection[str] | None = None) -> bool:
        """Whether a run is done, but has not exported the logits that are asked for."""
        splits = self.exports[folder] if splits is None else splits
        return bool(self.found.get(folder) and missing_exports(self.configs[folder], splits))

    def _export(self, step: Step) -> bool:
        (folder,) = step.folders
        if self._is_in_use(folder):
            return False
        config, *argv = self.runs[folder].argv
        argv = [config, str(Path(folder, FINAL)), "--splits", *self.exports[folder], *argv]
        self._say(folder, shlex.join([*program("dump_logits.py"), *argv]))
        self._start(step, folder, argv, "dump_logits.py", self._end_training)
        return True

    # Computing a teacher's logits once for the students that wait for them.

    def _precompute(self, step: Step) -> bool:
        job = step.node
        assert isinstance(job, Precompute)
        students = [folder for folder in job.students if self.find(folder) is None]
        # A single student computes what it needs as it trains.
        if len(students) > 1 and self._failure(self.runs[students[0]]) is None:
            command = shlex.join([*program("precompute.py"), *job.argv])
            self._say(students[0], f"{command}, for {len(students)} students")
            self._start(step, job.folder, job.argv, "precompute.py", self._end_precompute)
        return True

    def _end_precompute(self, command: Command, succeeded: bool) -> None:
        if not succeeded:
            what = f"the teacher's logits are not precomputed, see {command.log}"
            self._say(command.step.folders[0], what)

    def _report_progress(self) -> None:
        for command in self._running.values():
            if time.monotonic() - command.read_at > _NEWS:
                epochs = [line for line in command.new_lines() if " Epoch(" in line]
                if epochs:
                    text = epochs[-1].partition(" - INFO - ")[2] or epochs[-1]
                    self._say(command.step.folders[0], text)

    def _say(self, folder: str, what: str) -> None:
        run, label = self.runs[folder], self.labels[folder]
        number = f"[{self._numbers[folder]}/{len(self.runs)}]"
        self.say(f"{number} {label}, seed {run.seed}: {what}")


def _describe(row: dict) -> str:
    top1 = row["test"].get("accuracy/top1")
    what = f"test top-1 {top1:.2f} %" if isinstance(top1, float) else f"test {row['test']}"
    return f"{what} in {row['train_seconds']:.0f} s"
