"""The table of speeds of a kd config."""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.engine.config import change_teachers, make_fast
from mmkd_logit.engine.group import join_configs
from mmkd_logit.models.teacher_cache import TeacherCache

from .sessions import (
    BareSession,
    Probe,
    RunnerSession,
    TeacherSession,
    base_config,
    by_pipeline,
    edited,
    in_memory,
)
from .shared_table import LOSSES, render_shared, shared_rows
from .timing import PARTS, breakdown, interleave, peak_memory, ratio, round_of, speed_text, summary


class Session(Protocol):
    """Something that trains step by step."""

    batch_size: int
    stock: int
    students: int

    def step(self) -> None: ...
    def loader(self) -> Callable[[], Any]: ...
    def probes(self) -> list[Probe]: ...
    def state(self) -> list[Any]: ...
    def device(self) -> torch.device: ...
    def caches(self) -> list[TeacherCache]: ...


_Open = Callable[[Config, torch.device, int], Session]
_Edit = Callable[[Config], None]


class Variant(NamedTuple):
    """One way to train.

    Attributes:
        text: What it is, in a line.
        open: From the base config, the device and a number of data workers to a session.
    """

    text: str
    open: _Open


def _bare(**settings: Any) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        return BareSession(by_pipeline(edited(cfg), workers), device, **settings)

    return start


def _plain(cfg: Config, device: torch.device, workers: int) -> Session:
    cfg = by_pipeline(edited(cfg), workers)
    cfg.default_hooks.pop("runtime_info", None)  # MMEngine's own, where the config has another
    return RunnerSession(cfg)


def _memory(*edits: _Edit, session: type[RunnerSession] = RunnerSession) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        cfg = in_memory(edited(cfg))
        for edit in edits:
            edit(cfg)
        return session(cfg)

    return start


def _warm(*edits: _Edit) -> _Open:
    """Fill the cache with noise: a look-up takes as long, whatever is found."""

    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        session = _memory(_cached, *edits)(cfg, device, workers)
        session.step()  # opens the cache
        for store in (store for cache in session.caches() for store in cache.stores):
            rows = 2**16
            noise = torch.randn(rows, store.num_classes, device=device)
            noise = noise.to(getattr(torch, store.dtype))
            for first in range(0, store.size, rows):
                numbers = torch.arange(first, min(first + rows, store.size)).numpy()
                store.put(numbers, noise[: len(numbers)])
            store.flush()
        return session

    return start


def _student(cfg: Config) -> None:
    """Let no teacher run; what is left is the student's own training."""
    cfg.model.alpha = 0.0
    cfg.model.pop("feature_kd", None)


def _cached(cfg: Config) -> None:
    storage = "device" if torch.cuda.is_available() else "memory"

    def change(spec: Any) -> Any:
        if not isinstance(spec, dict) or "config" not in spec:
            spec = dict(config=spec)
        return dict(spec, cache=dict(storage=storage))

    change_teachers(cfg, change)


def _table_row(cfg: Config) -> None:
    """Train the students of a row of Table 1 with one pass of the teacher."""
    members = {}
    for number, loss in enumerate(LOSSES.values()):
        member = members[f"s{number}"] = copy.deepcopy(cfg)
        member.work_dir = f"{cfg.work_dir}/{number}"
        if loss is None:
            _student(member)
        else:
            member.model.loss_kd = loss
    for key, value in join_configs(members).items():
        cfg[key] = value


_FAST: dict[str, Any] = dict(bf16=True, channels_last=True, fused=True)
VARIANTS = {
    "bare": Variant("usual research code, fp32", _bare()),
    "bare-fast": Variant("the same in bf16, channels_last, fused", _bare(**_FAST)),
    "bare-fixed": Variant("bare, one batch all along", _bare(fixed_batch=True)),
    "bare-fast-fixed": Variant("bare-fast, one batch", _bare(fixed_batch=True, **_FAST)),
    "plain": Variant("mmpretrain's pipeline, MMEngine's hooks", _plain),
    "memory": Variant("images in memory", _memory()),
    "memory+cache-cold": Variant("and a cache of logits, empty", _memory(_cached)),
    "memory+cache": Variant("and a full one", _warm()),
    "student": Variant("memory without a teacher", _memory(_student)),
    "teacher": Variant("the teacher's pass alone", _memory(session=TeacherSession)),
    "shared": Variant("memory, 7 students", _memory(_table_row)),
    "fast": Variant("memory, --fast", _memory(make_fast)),
    "fast+cache-cold": Variant("and an empty cache", _memory(_cached, make_fast)),
    "fast+cache": Variant("and a full one", _warm(make_fast)),
    "student-fast": Variant("fast without a teacher", _memory(_student, make_fast)),
    "teacher-fast": Variant("the teacher's pass, fast", _memory(make_fast, session=TeacherSession)),
    "shared-fast": Variant("fast, 7 students", _memory(make_fast, _table_row)),
}


# Ratios of speeds, and the goals that this project has for them.


Row = dict[str, Any]


class Comparison(NamedTuple):
    """A ratio of speeds with a goal: at least so many times as fast.

    Attributes:
        variant: Name of a variant.
        reference: Of variants, with how many of their steps are held against one of the variant.
        cpu: The goal on a CPU, or None.
        cuda: The goal on a GPU, or None.
    """

    variant: str
    reference: Mapping[str, int]
    cpu: float | None = None
    cuda: float | None = None


_PARTS = ("student", "teacher", "shared")  # do less or more than the bare loop
COMPARISONS = (
    Comparison("memory+cache", dict(bare=1), 3.6),
    Comparison("fast", dict(bare=1), 2.7),
    Comparison("fast+cache", dict(bare=1), 8.0),
    Comparison("memory", {"bare-fixed": 1}, 0.97, 0.85),
    Comparison("fast", {"bare-fast-fixed": 1}, 0.97, 0.85),
    Comparison("memory", {"bare": 1}, 0.97, 0.85),
    Comparison("fast", {"bare-fast": 1}, 0.97, 0.85),
    Comparison("memory+cache", dict(student=1), 0.95, 0.95),
    Comparison("fast+cache", {"student-fast": 1}, 0.95, 0.95),
    # The row of Table 1: each student by itself, and what cannot be shared.
    Comparison("shared", dict(memory=6, student=1), 1 / 0.42, 1 / 0.42),
    Comparison("shared-fast", {"fast": 6, "student-fast": 1}, 1 / 0.47, 1 / 0.47),
    Comparison("shared", dict(teacher=1, student=7), 1 / 1.05, 1 / 1.05),
    Comparison("shared-fast", {"teacher-fast": 1, "student-fast": 7}, 1 / 1.05, 1 / 1.05),
)


def comparison_rows(rows: Sequence[Row], device: str) -> list[Row]:
    """Return the ratios of speeds that there are goals for, and those to the bare loop."""
    times = {row["variant"]: row["times"] for row in rows}
    alone = dict(bare=1)
    known = {each.variant for each in COMPARISONS if each.reference == alone} | {"bare"}
    others = [name for name in times if name not in known and not name.startswith(_PARTS)]
    wanted = [*COMPARISONS, *(Comparison(name, alone) for name in others)]
    found = []
    for each in wanted:
        if {each.variant, *each.reference} <= set(times):
            reference = [
                sum(count * times[name][i] for name, count in each.reference.items())
                for i in range(len(times[each.variant]))
            ]
            compared = ratio(times[each.variant], reference)
            if len(each.reference) > 1:  # of the sum of medians, as for one it is the median's
                total = sum(
                    n * statistics.median(times[name]) for name, n in each.reference.items()
                )
                compared["ratio"] = total / statistics.median(times[each.variant])
            goal = getattr(each, device)
            found.append(
                dict(variant=each.variant, reference=dict(each.reference), goal=goal, **compared)
            )
    return found


def render_comparisons(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`comparison_rows` in Markdown."""
    lines = ["| speed of | to that of | ratio | quartiles | goal |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["quartiles"]
        goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
        counts = row["reference"].items()
        reference = " + ".join(name if count == 1 else f"{count} {name}" for name, count in counts)
        lines.append(
            f"| {row['variant']} | {reference} | {row['ratio']:.3f} "
            f"| {low:.3f} to {high:.3f} | {goal} |"
        )
    return "\n".join(lines)


# Speed, memory and breakdown of the variants of a kd config.


SpeedRow = dict[str, Any]


def train_rows(
    cfg: Config,
    names: Sequence[str],
    device: torch.device,
    workers: int,
    seconds: float,
    parts: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[SpeedRow]:
    """Train with all variants in turn and return a row for each."""
    sessions = open_sessions(cfg, names, device, workers, say)
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.step, device, stock) for session in sessions]
    before = [_asked(session) for session in sessions]
    times = interleave(rounds, seconds * len(names), title="training")
    hits = [_share(session, then) for session, then in zip(sessions, before, strict=True)]
    rows = []
    for name, session, own, share in zip(names, sessions, times, hits, strict=True):
        row: SpeedRow = dict(variant=name, text=VARIANTS[name].text, batch_size=session.batch_size)
        row |= summary(own, session.batch_size) | dict(times=own, students=session.students)
        row |= dict(cache_hits=share)
        if parts:
            say(f"taking {name} apart")
            row |= _parts(session, device, statistics.median(own))
        rows.append(row)
    return rows


def open_sessions(
    cfg: Config,
    names: Sequence[str],
    device: torch.device,
    workers: int,
    say: Callable[[str], None],
) -> list[Session]:
    """Build what the variants train."""
    sessions = []
    for name in names:
        say(f"preparing {name}")
        sessions.append(VARIANTS[name].open(cfg, device, workers))
    return sessions


def render_train(rows: Sequence[SpeedRow]) -> str:
    """Render the rows of :func:`train_rows` in Markdown."""
    parts = [part for part in PARTS if any("parts" in row for row in rows)]
    lines = ["| variant | images/s | quartiles | ms a step |" + " peak MB |" * bool(parts)]
    lines[0] += "".join(f" {part} |" for part in parts)
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for row in rows:
        name = row["variant"]
        if row["cache_hits"] is not None:
            name += f" ({row['cache_hits']:.0%} hits)"
        if row["students"] > 1:
            name += f" ({1e3 * row['seconds'] / row['students']:.4g} ms a student)"
        line = f"| {name} | {speed_text(row)} | {1e3 * row['seconds']:.4g} |"
        if parts:
            line += f" {row['peak_bytes'] / 1e6:.0f} |"
            line += "".join(f" {1e3 * row['parts'][part]:.3g} |" for part in parts)
        lines.append(line)
    return "\n".join(lines)


def _asked(session: Session) -> tuple[int, int]:
    reports = [cache.report() for cache in session.caches()]
    return sum(each["hits"] for each in reports), sum(each["misses"] for each in reports)


def _share(session: Session, before: tuple[int, int]) -> float | None:
    hits, misses = (now - then for now, then in zip(_asked(session), before, strict=True))
    return hits / (hits + misses) if hits + misses else None


def _parts(session: Session, device: torch.device, seconds: float) -> SpeedRow:
    steps = min(max(math.ceil(1 / seconds), 2), 20)
    found = breakdown(session.step, session.probes(), device, steps)
    return dict(peak_bytes=peak_memory(session.step, session.state(), device), parts=found)


# Speed of the loaders alone.


LOADERS = ("bare", "plain", "memory")


def data_rows(
    cfg: Config,
    device: torch.device,
    workers: int,
    seconds: float,
    names: Sequence[str] = LOADERS,
    say: Callable[[str], None] = lambda line: None,
) -> list[SpeedRow]:
    """Load and preprocess batches in turn, without training on them."""
    sessions = open_sessions(cfg, names, device, workers, say)
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.loader(), device, stock) for session in sessions]
    times = interleave(rounds, seconds * len(names), title="loading")
    own = dict(zip(names, times, strict=True))
    rows: list[dict[str, Any]] = []
    for name, session in zip(names, sessions, strict=True):
        row = dict(loader=name, **summary(own[name], session.batch_size), times=own[name])
        if "plain" in own:
            row["to_plain"] = ratio(own[name], own["plain"])
        rows.append(row)
    return rows


def render_data(rows: Sequence[SpeedRow]) -> str:
    """Render the rows of :func:`data_rows` in Markdown."""
    lines = ["| loader of | images/s | quartiles | to plain | quartiles |", "|---|---|---|---|---|"]
    for row in rows:
        line = f"| {row['loader']} | {speed_text(row)} |"
        if "to_plain" in row:
            low, high = row["to_plain"]["quartiles"]
            line += f" {row['to_plain']['ratio']:.3g} | {low:.3g} to {high:.3g} |"
        lines.append(line)
    return "\n".join(lines)


# Speed of a kd config's training by several processes.


COUNTS = (1, 2, 4)
KEPT = ("total", "process")
_WORKER = "mmkd_logit.lab.benchmark._scaling_worker"


def process_counts() -> list[int]:
    """Return 1, 2, 4, as far as this machine has GPUs or, without them, cores."""
    most = torch.cuda.device_count() or os.cpu_count() or 1
    return [count for count in COUNTS if count <= most]


def scaling_rows(
    config: dict[str, Any],
    variant: str,
    workers: int,
    batch_size: int,
    kept: str,
    seconds: float,
    threads: int = 1,
    counts: Sequence[int] | None = None,
    sweeps: int = 2,
    say: Callable[[str], None] = lambda line: None,
) -> list[SpeedRow]:
    """Train with several numbers of processes, each number ``sweeps`` times in turn.

    One process runs without DDP, as it does without a launcher; several run over gloo, or nccl
    with a GPU each.
    """
    if kept not in KEPT:
        raise ValueError(f"what is kept must be one of {KEPT}, got {kept!r}")
    counts = list(process_counts() if counts is None else counts)
    for count in counts:
        if kept == "total" and batch_size % count:
            raise ValueError(f"a batch of {batch_size} cannot be divided among {count} processes")
    times: dict[int, list[float]] = {count: [] for count in counts}
    for sweep in range(sweeps):
        for count in counts:
            say(f"sweep {sweep + 1} of {sweeps}: {count} of {counts[-1]} processes")
            size = batch_size // count if kept == "total" else batch_size
            settings = dict(
                config=dict(config, batch_size=size),
                variant=variant,
                workers=workers,
                seconds=seconds,
                threads=threads,
                processes=count,
            )
            times[count] += _launch(settings)
    rows: list[dict[str, Any]] = []
    for count, own in times.items():
        total = batch_size if kept == "total" else batch_size * count
        row = dict(processes=count, batch_size=total // count, kept=kept, **summary(own, total))
        rows.append(dict(row, times=own, variant=variant, threads=threads))
    for row in rows:
        alone = rows[0]["per_second"] / rows[0]["processes"]
        row["efficiency"] = row["per_second"] / alone / row["processes"]
    return rows


def render_scaling(rows: Sequence[SpeedRow]) -> str:
    """Render the rows of :func:`scaling_rows` in Markdown."""
    lines = ["| processes | batch of each | images/s | quartiles | efficiency |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        lines.append(
            f"| {row['processes']} | {row['batch_size']} | {speed_text(row)} "
            f"| {row['efficiency']:.3f} |"
        )
    return "\n".join(lines)


def _launch(settings: dict[str, Any]) -> list[float]:
    count = settings["processes"]
    command = [sys.executable, "-m"]
    if count > 1:
        command += ["mmkd_logit.engine.torchrun", "--standalone", f"--nproc-per-node={count}", "-m"]
    environment = dict(os.environ, OMP_NUM_THREADS=str(settings["threads"]))
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder, "times.json"), Path(folder, "settings.json")
        file.write_text(json.dumps(dict(settings, out=str(out))))
        done = subprocess.run(
            [*command, _WORKER, str(file)], env=environment, capture_output=True, text=True
        )
        if done.returncode or not out.is_file():
            raise OSError(f"training with {count} processes failed: {done.stderr[-2000:]}")
        return json.loads(out.read_text())


# The part of ``tools/benchmark.py`` that trains a config.


def measure_config(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Print tables for a config and return what is in them, with all raw times."""
    names = args.variants or list(LOADERS if args.data else VARIANTS)
    if args.scaling:
        names = args.variants or ["memory"]
        if len(names) > 1 or names[0].startswith("bare"):
            raise ValueError("--scaling takes one variant, and none of the bare ones")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}, only {', '.join(VARIANTS)}")
    device = torch.device(get_device())
    if args.data and args.threads is None:
        torch.set_num_threads(1)
    settings = dict(
        path=args.config,
        overrides=args.cfg_options,
        batch_size=args.batch_size,
        synthetic=args.synthetic,
    )
    workers = default_workers(device) if args.workers is None else args.workers
    found: dict[str, Any]
    with tempfile.TemporaryDirectory() as folder:
        cfg, notes = base_config(work_dir=folder, **settings)
        notes.append(_circumstances(cfg, device, workers))
        if args.data:
            loading = data_rows(cfg, device, workers, args.seconds, names, say)
            found, text = dict(loading=loading), render_data(loading)
        elif args.shared:
            edit = make_fast if args.shared == "fast" else (lambda cfg: None)
            shared, ratios = shared_rows(cfg, device, args.seconds, edit, say)
            found = dict(shared=shared, shared_ratios=ratios, mode=args.shared)
            text = render_shared(shared, ratios)
        elif args.scaling:
            found, text = _scaling(args, settings, names[0], workers, cfg, say)
        else:
            found, text = _training(args, names, cfg, device, workers, say)
    print("\n".join(f"{note}  " for note in notes), text, sep="\n\n", flush=True)
    return dict(config=args.config, notes=notes, **found)


def _training(
    args: argparse.Namespace,
    names: Sequence[str],
    cfg: Config,
    device: torch.device,
    workers: int,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    rows = train_rows(cfg, names, device, workers, args.seconds, not args.no_parts, say)
    ratios = comparison_rows(rows, device.type)
    text = render_train(rows)
    if ratios:
        text += f"\n\n{render_comparisons(ratios)}"
    return dict(training=rows, ratios=ratios), text


def _scaling(
    args: argparse.Namespace,
    settings: dict[str, Any],
    variant: str,
    workers: int,
    cfg: Config,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], str]:
    size = cfg.train_dataloader.batch_size
    rows = scaling_rows(
        settings, variant, workers, size, args.scaling, args.seconds, args.threads or 1, say=say
    )
    kept = "the batch of all together" if args.scaling == "total" else "the batch of each process"
    text = f"{variant}, {args.threads or 1} threads a process; {kept} is kept"
    return dict(scaling=rows), f"{text}\n\n{render_scaling(rows)}"


def default_workers(device: torch.device) -> int:
    """Return how many data workers the pipelines get that work image by image.

    None on a CPU, where they would only take its cores from the training; on a GPU as many as
    there are cores to spare, up to 8.
    """
    return 0 if device.type == "cpu" else min(max((os.cpu_count() or 1) - 1, 0), 8)


def _circumstances(cfg: Config, device: torch.device, workers: int) -> str:
    return (
        f"{device.type}, batches of {cfg.train_dataloader.batch_size}, {workers} data workers "
        f"for bare and plain, {torch.get_num_threads()} threads of torch"
    )
