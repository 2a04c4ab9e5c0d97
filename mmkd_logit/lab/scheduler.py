"""Running what is missing, teachers before their students."""

import json
import shlex
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmkd_logit.engine.config import (
    EXACT,
    FINAL,
    describe_numerics,
    model_teachers,
    seed_of,
    teachers_of,
)
from mmkd_logit.engine.fingerprint import describe_machine, read_run, should_resume
from mmkd_logit.engine.group import batches_key, common_work_dir, why_alone
from mmkd_logit.engine.lock import FolderInUseError, only_run_in, user_of
from mmkd_logit.engine.logits import SPLITS, lacking_dumps, loader_of
from mmkd_logit.engine.results import find_row, read_lines
from mmkd_logit.utils.files import write_text

from .experiment import Run, refuse_shared_folders
from .pools import LOG, Pool


class LogLines:
    """The lines that are added to a log from now on."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._looked = time.monotonic()
        self._place = log.stat().st_size if log.is_file() else 0

    def age(self) -> float:
        """Return the seconds since they were read last."""
        return time.monotonic() - self._looked

    def read(self) -> list[str]:
        """Return the lines since they were read last."""
        if not self._log.is_file():
            return []
        with self._log.open("rb") as file:
            file.seek(self._place)
            text = file.read().decode(errors="replace")
            self._looked, self._place = time.monotonic(), file.tell()
        return text.splitlines()


# Which runs are trained together, with one pass of their teacher.


def units_of(runs: Mapping[str, Run], configs: Mapping[str, Config], size: int) -> list[list[str]]:
    """Group the runs of an execution.

    Students share when their configs differ in model, optimizer and schedule alone and their
    teachers are the same. A run without a teacher joins the first group that has its batches,
    unless other runs need its weights.
    """
    if size < 2:
        return [[folder] for folder in runs]
    needed = {need.work_dir for run in runs.values() for need in run.needs}
    units: list[list[str]] = []
    open_units: dict[str, dict[str, list[str]]] = {}  # by batches, then by teachers
    for folder in [*_taught(runs, configs, True), *_taught(runs, configs, False)]:
        cfg, run = configs[folder], runs[folder]
        teachers = repr(list(teachers_of(cfg).values()))
        if why_alone(cfg) or (folder in needed and not run.teachers):
            units.append([folder])
            continue
        mates = open_units.setdefault(batches_key(cfg), {})
        if not teachers_of(cfg) and mates:
            teachers = next((key for key in mates if len(mates[key]) < size), teachers)
        unit = mates.get(teachers)
        if unit is None or len(unit) >= size or _depend(runs, unit, folder):
            mates[teachers] = [folder]
            units.append(mates[teachers])
        else:
            unit.append(folder)
    place = {folder: number for number, folder in enumerate(runs)}
    for unit in units:
        unit.sort(key=place.__getitem__)
    return sorted(units, key=lambda unit: place[unit[0]])


def _taught(runs: Mapping[str, Run], configs: Mapping[str, Config], wanted: bool) -> list[str]:
    return [folder for folder in runs if bool(teachers_of(configs[folder])) is wanted]


def _depend(runs: Mapping[str, Run], unit: list[str], folder: str) -> bool:
    """Whether a run needs one of the unit's, or one of them needs it."""

    def needs(name: str) -> set[str]:
        own = {run.work_dir for run in runs[name].needs}
        return own.union(*(needs(other) for other in own)) if own else own

    return bool(needs(folder) & set(unit)) or any(folder in needs(other) for other in unit)


# Computing a teacher's logits once for the students that wait for them.


@dataclass(frozen=True, eq=False)
class Precompute:
    """Filling the cache of a teacher with the views that students of one seed will draw.

    Attributes:
        key: The folder of the log.
        words: Of ``tools/precompute.py``.
    """

    key: str
    words: tuple[str, ...]


def plan_precomputes(
    runs: Mapping[str, Run], configs: Mapping[str, Config]
) -> dict[str, Precompute]:
    """Find the students that will ask the same teacher for the same views.

    These are those with the same teacher, data and seed: which view of an image an epoch draws
    follows from seed, epoch and image alone.
    """
    groups: dict[str, list[str]] = {}
    for folder, run in runs.items():
        cfg = configs[folder]
        specs = model_teachers(cfg)
        stored = [spec for spec in specs if (spec.cache or {}).get("storage") == "disk"]
        if not run.teachers or not stored or not cfg.train_cfg.get("max_epochs"):
            continue
        same = dict(teachers=specs, data=cfg.train_dataloader, by=cfg.get("data_preprocessor"))
        key = json.dumps([same, seed_of(cfg)], sort_keys=True, default=str)
        groups.setdefault(key, []).append(folder)
    found: dict[str, Precompute] = {}
    for folders in groups.values():
        if len(folders) > 1:
            epochs = max(configs[folder].train_cfg.max_epochs for folder in folders)
            found.update(dict.fromkeys(folders, _job(runs[folders[0]], epochs)))
    return found


def _job(run: Run, epochs: int) -> Precompute:
    name = run.config.rpartition("/")[2].removesuffix(".py")
    key = str(Path(run.teachers[0].work_dir, "precompute", f"{name}-seed{run.seed}"))
    words = [run.config, "--epochs", str(epochs), "--seed", str(run.seed)]
    words += [*["--fast"] * run.fast, "--work-dir", key]
    options = [text for text in run.overrides if not text.startswith("model.loss_kd")]
    return Precompute(key, (*words, *["--cfg-options", *options] * bool(options)))


# Running what is missing.


TRAIN, TOGETHER = Path("tools", "train.py"), Path("tools", "train_together.py")
DUMP, CACHE = Path("tools", "dump_logits.py"), Path("tools", "precompute.py")
_PAUSE = 0.2  # seconds between two looks at the processes
_NEWS = 30  # seconds between two lines on the progress of one run
_LOOK = 2  # seconds between two looks at a run that somebody else trains


class Execution:
    """Trains every run that has no results yet, teachers before their students.

    A run that was cut off goes on from its last checkpoint. One that fails does not stop the
    others, except those that need its weights. One that another process trains, such as a second
    ``tools/reproduce.py``, is waited for, and then taken if its results fit.
    """

    def __init__(
        self,
        runs: Mapping[Run, str],
        results: Path,
        pool: Pool,
        say: Callable[[str], None],
        measured: Mapping[str, Collection[str]] | None = None,
        share: int = 1,
        dumps: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        if not TRAIN.is_file():
            raise FileNotFoundError(f"{TRAIN} does not exist here; run from the project's folder")
        refuse_shared_folders(list(runs))
        self.runs: dict[str, Run] = {}
        self.labels: dict[str, str] = {}
        for run, label in runs.items():
            self.runs.setdefault(run.work_dir, run)
            self.labels.setdefault(run.work_dir, label)
        self.configs = {folder: run.build_config() for folder, run in self.runs.items()}
        self.measured = dict(measured or {})
        splits = {folder: set(wanted) for folder, wanted in (dumps or {}).items()}
        for run in self.runs.values():
            if run.scores is not None:
                splits.setdefault(run.scores.work_dir, set()).add("train")
        self.dumps = {
            folder: [split for split in SPLITS if split in wanted]
            for folder, wanted in splits.items()
        }
        self._check_dumps()
        self.results, self.pool, self.say = results, pool, say
        self.found: dict[str, dict | None] = {}
        self.units = units_of(self.runs, self.configs, share)
        self._members: dict[str, list[str]] = {}  # what is under way, by the folder of its log
        self._logs: dict[str, LogLines] = {}
        self._bare: list[str] = []  # done before, but for their logits
        self._looked: dict[str, float] = {}  # when another process was last seen to train a run
        self._told: set[tuple[str, str]] = set()
        self._precompute = plan_precomputes(self.runs, self.configs) if pool.processes == 1 else {}
        self._computing: dict[str, Precompute] = {}

    def _check_dumps(self) -> None:
        for folder, cfg in self.configs.items():
            for split in self.dumps.get(folder, ()):
                try:
                    loader_of(cfg, split)
                except ValueError as error:
                    raise ValueError(f"{folder}: {error}") from None

    def __call__(self) -> dict[str, dict | None]:
        """Train."""
        self.results.parent.mkdir(parents=True, exist_ok=True)
        needed = {run.work_dir for each in self.runs.values() for run in each.needs}
        # First what others wait for, so that teachers train side by side.
        waiting = sorted(self.units, key=lambda unit: needed.isdisjoint(unit))
        try:
            while waiting or self._members or self._bare:
                for unit in [each for each in waiting if not self._is_computing(each)]:
                    if self._is_ready(unit) and self.pool.has_room() and self._is_free(unit):
                        missing = [folder for folder in unit if not self._settle(folder)]
                        if missing and self._precomputes(unit, waiting):
                            continue
                        if not missing or self._start(unit, missing):
                            waiting.remove(unit)
                while self._bare and self.pool.has_room():
                    self._start_dump(self._bare.pop(0))
                for key, well in self.pool.finished().items():
                    if key in self._computing:
                        self._end_precompute(key, well)
                        continue
                    members = self._members.pop(key)
                    if not well and self._is_elsewhere([key, *members]):
                        waiting.append(members)  # somebody else was there first
                        continue
                    if not well and len(members) > 1:
                        waiting += self._apart(members, key)
                        continue
                    for folder in members:
                        self._end(folder, well, key)
                self._tell_progress()
                time.sleep(_PAUSE if self._members or self._looked or self._computing else 0)
        except BaseException:
            self.pool.stop()
            raise
        return self.found

    def _is_free(self, unit: list[str]) -> bool:
        """Whether nobody else trains in the folders of a unit; looks again after a while."""
        if time.monotonic() - self._looked.get(unit[0], -_LOOK) < _LOOK:
            return False
        self._looked.pop(unit[0], None)
        return not self._is_elsewhere([self._key(unit), *unit])

    def _is_elsewhere(self, folders: list[str]) -> bool:
        """Whether another process trains in one of the folders; says so once."""
        users = {folder: user for folder in folders if (user := user_of(folder))}
        run = next(folder for folder in folders if folder in self.runs)
        for folder, user in users.items():
            if (folder, user) not in self._told:
                self._told.add((folder, user))
                self._say(run, f"waits for {folder}, which is in use by {user}")
            self._looked[run] = time.monotonic()
        return bool(users)

    def _key(self, unit: list[str]) -> str:
        return self._common(unit) if len(unit) > 1 else unit[0]

    def _is_ready(self, unit: list[str]) -> bool:
        """Whether all that a unit needs has ended; who is found may still export logits."""
        ended = self.found.keys() - {*self._bare, *self._members}
        return all(run.work_dir in ended for f in unit for run in self.runs[f].needs)

    def find(self, folder: str) -> dict | None:
        """Look a run up in the results."""
        rows, measured = read_lines(self.results), self.measured.get(folder, ())
        return find_row(self.configs[folder], rows, self.pool.processes, measured)

    def _settle(self, folder: str) -> bool:
        """Say whether a run needs no training, or cannot be trained."""
        failure = self._failure(self.runs[folder])
        if failure is not None:
            self.found[folder] = None
            self._say(folder, f"not trained, {failure}")
            return True
        row = self.find(folder)
        if row is None:
            return False
        self.found[folder] = row
        under_way = (*self._bare, *self._members)
        bare = folder not in under_way and self.lacks_dumps(folder)
        self._bare += [folder] * bare
        self._say(folder, "done before, but for its logits" if bare else "done before")
        return True

    def _failure(self, run: Run) -> str | None:
        """Say which of the runs that a run needs has failed, or left no logits."""
        for need in run.needs:
            if self.found[need.work_dir] is None:
                return f"its teacher {need.work_dir} failed"
        if run.scores is not None and self._lacking(run.scores.work_dir, ["train"]):
            return f"there are no logits of {run.scores.work_dir} to choose its samples by"
        return None

    def _lacking(self, folder: str, splits: Collection[str]) -> list[str]:
        return lacking_dumps(self.configs[folder], splits)

    def lacks_dumps(self, folder: str) -> bool:
        """Whether a run that is done has not left the logits that it shall leave."""
        return bool(self._lacking(folder, self.dumps.get(folder, ())))

    def undumped(self) -> list[str]:
        """List the work folders of runs that are done, but for logits that they shall leave."""
        return [folder for folder, row in self.found.items() if row and self.lacks_dumps(folder)]

    def _start(self, unit: list[str], missing: list[str]) -> bool:
        """Begin to train a unit; False if another process does so this moment."""
        try:
            self._begin(unit, missing)
        except FolderInUseError:
            return False
        return True

    def _begin(self, unit: list[str], missing: list[str]) -> None:
        failed = [folder for folder in unit if folder in self.found and not self.found[folder]]
        whole = self._was_together(unit) and not failed
        if whole:  # each leaves its own
            self._bare = [folder for folder in self._bare if folder not in unit]
        if len(missing) > 1 or whole:
            return self._start_together(unit if whole else missing)
        (folder,) = missing
        words = self._words(folder)
        cut_off = should_resume(self.configs[folder], self.pool.processes)
        with only_run_in(folder):
            if not cut_off:  # should it fail, no student may take older weights for its teacher's
                Path(folder, FINAL).unlink(missing_ok=True)
        self._say(folder, f"python {TRAIN} {shlex.join(self.runs[folder].arguments())}")
        words[1:1] = ["--results", str(self.results), *["--resume", "auto"] * cut_off]
        self._watch(folder, missing)
        self.pool.start(folder, words)

    def _is_computing(self, unit: list[str]) -> bool:
        """Whether the logits that a student will look up are being computed."""
        job = self._precompute.get(unit[0])
        return job is not None and job.key in self._computing

    def _precomputes(self, unit: list[str], waiting: list[list[str]]) -> bool:
        """Begin to compute the logits that several students will look up, if there are such."""
        job = self._precompute.get(unit[0])
        if job is None or self._is_computing(unit):  # begun for the unit before
            return job is not None
        others = [u for u in waiting if self._precompute.get(u[0]) is job]
        alike = [u for u in others if any(self.find(folder) is None for folder in u)]
        if len(alike) < 2:  # a single one computes what it needs as it goes
            return False
        self._say(unit[0], f"python {CACHE} {shlex.join(job.words)}, for {len(alike)} students")
        self._computing[job.key] = job
        self.pool.start(job.key, job.words, tool=CACHE.name)
        return True

    def _end_precompute(self, key: str, well: bool) -> None:
        job = self._computing.pop(key)
        folders = [folder for folder, other in self._precompute.items() if other is job]
        for folder in folders:
            del self._precompute[folder]
        if not well:
            where = Path(key, LOG)
            self._say(folders[0], f"the teacher's logits are not precomputed, see {where}")

    def _words(self, folder: str) -> list[str]:
        words = self.runs[folder].arguments()
        if any(key.startswith("train") for key in self.measured.get(folder, ())):
            words.insert(1, "--train-metrics")
        if self.dumps.get(folder):
            words[1:1] = ["--dump-logits", *self.dumps[folder]]
        return words

    def _start_dump(self, folder: str) -> None:
        words = self.runs[folder].arguments()
        words[1:1] = [str(Path(folder, FINAL)), "--splits", *self.dumps[folder]]
        self._say(folder, f"python {DUMP} {shlex.join(words)}")
        self._watch(folder, [folder])
        self.pool.start(folder, words, tool=DUMP.name)

    def _was_together(self, unit: list[str]) -> bool:
        """Whether all of a unit were begun together, so that they go on so."""
        return len(unit) > 1 and "computed" in read_run(self._common(unit))

    def _common(self, unit: list[str]) -> str:
        return common_work_dir([self.configs[folder] for folder in unit])

    def _start_together(self, members: list[str]) -> None:
        key = self._common(members)
        runs = Path(key, "runs.txt")
        lines = "".join(f"{shlex.join(self._words(folder))}\n" for folder in members)
        with only_run_in(key):
            write_text(runs, lines)
        for folder in members:
            self._say(folder, f"together with {len(members) - 1} others: python {TOGETHER} {runs}")
        self._watch(key, members)
        words = [str(runs), "--results", str(self.results)]
        self.pool.start(key, words, tool=TOGETHER.name)

    def _watch(self, key: str, members: list[str]) -> None:
        new = [folder for folder in members if folder not in self.found]
        self._members[key] = new or list(members)
        self._logs[key] = LogLines(Path(key, LOG))

    def _apart(self, members: list[str], key: str) -> list[list[str]]:
        """Let one that cannot be trained not stop those that were trained with it."""
        for folder in members:
            self._say(folder, f"failed together, see {Path(key, LOG)}; is trained alone")
        return [[folder] for folder in members]

    def _end(self, folder: str, well: bool, key: str) -> None:
        log, before = Path(key, LOG), self.found.get(folder)
        # Perhaps another process's; and logits come after the row, and a table does not need them.
        row = self.found[folder] = before or self.find(folder)
        lines = [] if well else self._logs[key].read()
        error = next((line for line in reversed(lines) if line.startswith("error: ")), "")
        if row is not None and self.lacks_dumps(folder):
            return self._say(folder, f"done, but for its logits; see {log} {error}".rstrip())
        if row is not None:
            return self._say(folder, "its logits are written" if before else _short(row))
        if well:
            why = "its results row is not of this config, teacher and weights, or lacks a metric"
            return self._say(folder, f"ended, but {why}; see {log}")
        self._say(folder, f"failed, see {log} {error}".rstrip())

    def _tell_progress(self) -> None:
        for key, members in self._members.items():
            if self._logs[key].age() > _NEWS:
                epochs = [line for line in self._logs[key].read() if " Epoch(" in line]
                if epochs:
                    self._say(members[0], epochs[-1].partition(" - INFO - ")[2] or epochs[-1])

    def _say(self, folder: str, what: str) -> None:
        number = list(self.runs).index(folder) + 1
        seed = self.runs[folder].seed
        self.say(f"[{number}/{len(self.runs)}] {self.labels[folder]}, seed {seed}: {what}")


def _short(row: dict) -> str:
    top1 = row["test"].get("accuracy/top1")
    what = f"test top-1 {top1:.2f} %" if isinstance(top1, float) else f"test {row['test']}"
    return f"{what} in {row['train_seconds']:.0f} s"


# What a command would run, and how long that took before.


def describe_plan(execution: Execution, rows: Sequence[dict]) -> list[str]:
    """List the runs, which are done, and what the others will cost.

    The cost of a run is its epochs times the seconds that an epoch of the same config took in a
    results row, on this device if there is such a row.
    """
    device = describe_machine()["device"]
    lines, known, unknown = [], 0.0, 0
    for folder, run in execution.runs.items():
        cfg = execution.configs[folder]
        ready = all(execution.found.get(needed.work_dir) for needed in run.needs)
        row = execution.find(folder) if ready else None
        execution.found[folder] = row
        if row is not None:
            bare = execution.lacks_dumps(folder)
            state, cost = "done, but for its logits" if bare else "done", ""
        else:
            cut_off = should_resume(cfg, execution.pool.processes)
            state = "cut off, would go on" if cut_off else "to do"
            epochs, numerics = cfg.train_cfg.get("max_epochs"), describe_numerics(cfg)
            alike = [row for row in rows if row.get("numerics", EXACT) == numerics]
            seconds = seconds_of(run.config, epochs, alike, device)
            known, unknown = known + (seconds or 0), unknown + (seconds is None)
            cost = ", cost unknown" if seconds is None else f", about {_time(seconds)}"
        lines.append(f"{folder}: {state}{cost} (seed {seed_of(cfg)})")
    missing = sum(row is None for row in execution.found.values())
    at_least = "at least " if unknown else ""
    total = f"{at_least}{_time(known)} of one device" if known or not missing else "cost unknown"
    note = f"; no measured speed for {unknown} of them" if unknown else ""
    return [*lines, f"{missing} of {len(lines)} runs to do: {total}{note}"]


def seconds_of(config: str, epochs: int | None, rows: Sequence[dict], device: str) -> float | None:
    """Estimate the training time of a config from measured runs of it."""
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        alone = not row.get("resumed_at") and row.get("together", 1) == 1
        if row.get("config") == config and alone and row.get("epochs"):
            speeds[row.get("device") == device].append(row["train_seconds"] / row["epochs"])
    measured = speeds[True] or speeds[False]
    return statistics.median(measured) * epochs if measured and epochs else None


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
