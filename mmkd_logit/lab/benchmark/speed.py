"""The cost of a kd config's training, beside loops of others, each in a process of its own."""

import argparse
import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.engine.config import change_teachers, make_fast, model_teachers, use_channels_last
from mmkd_logit.engine.launch import end_with_parent, keep_freed_memory, silence_known_warnings
from mmkd_logit.lab.tables import markdown_table
from mmkd_logit.losses.feature import find_torchdistill
from mmkd_logit.utils.cli import say

from .sessions import BareSession, RunnerSession, TorchdistillSession, base_config, edited

LEAST_ROUNDS = 5
_WARM_UP = dict(cpu=2, cuda=20)
_LEAST_SECONDS = dict(cpu=0.02, cuda=0.3)  # of a round, so that clocks and queues do not matter
_SAY_EVERY = 10.0  # seconds

Row = dict[str, Any]
Session = BareSession | RunnerSession | TorchdistillSession
T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds by the clock, and those of processors: this process and its data workers."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the processes it has started."""
    seconds = time.process_time()
    for child in multiprocessing.active_children():  # see proc_pid_stat(5): utime and stime
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def timed(function: Callable[[], Any], device: str | torch.device, calls: int = 1) -> Cost:
    """Return what a call takes, the device's work included."""
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    synchronize()
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(calls):
        function()
    synchronize()
    return Cost((time.perf_counter() - wall) / calls, (cpu_seconds() - cpu) / calls)


def interleave(
    functions: Sequence[Callable[[], T]], seconds: float, least: int = LEAST_ROUNDS
) -> list[list[T]]:
    """Call functions in turn, A B C A B C ..., so that changes of the machine meet all alike.

    Example:
        >>> calls = []
        >>> interleave([lambda: calls.append("a") or 1, lambda: calls.append("b") or 2], 0, 2)
        [[1, 1], [2, 2]]
        >>> calls
        ['a', 'b', 'a', 'b']
    """
    results: list[list[T]] = [[] for _ in functions]
    start = said = time.perf_counter()
    while True:
        now, rounds = time.perf_counter(), len(results[0])
        spent = now - start
        if spent >= seconds and rounds >= least:
            return results
        if rounds and now - said > _SAY_EVERY:
            left = max(seconds - spent, (least - rounds) * spent / rounds)
            say(f"{rounds} rounds measured, about {left:.0f} s left")
            said = now
        for function, own in zip(functions, results, strict=True):
            own.append(function())


def round_of(step: Callable[[], Any], device: torch.device, stock: int) -> Callable[[], Cost]:
    """Warm up and return a function that measures a round of steps, giving the cost of one.

    While other loops have their turn the data workers of this one prepare batches, which would
    make its next steps too cheap, and just after its turn they take time from the next one. So
    that many steps are done before the clock starts.
    """
    for _ in range(_WARM_UP[device.type]):
        once = timed(step, device).wall
    steps = max(math.ceil(_LEAST_SECONDS[device.type] / once), 1)

    def one_round() -> Cost:
        for _ in range(stock):
            step()
        return timed(step, device, steps)

    return one_round


def ratio(times: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Return the cost of something in units of a reference's: of medians, and of neighbours.

    Example:
        >>> ratio([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
        {'ratio': 3.0, 'quartiles': [2.0, 4.0]}
    """
    pairs = [a / b for a, b in zip(times, reference, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return dict(
        ratio=statistics.median(times) / statistics.median(reference), quartiles=[low, high]
    )


# The ways to train.


def _ours(
    cfg: Config, device: torch.device, workers: int, edits: Sequence[Callable[[Config], None]] = ()
) -> RunnerSession:
    cfg = edited(cfg)
    for edit in edits:
        edit(cfg)
    keep_freed_memory()  # as our commands do
    return RunnerSession(cfg)


def _warm(
    cfg: Config, device: torch.device, workers: int, edits: Sequence[Callable[[Config], None]] = ()
) -> RunnerSession:
    """Fill the cache with noise: a look-up takes as long, whatever is found."""
    session = _ours(cfg, device, workers, [_cached, *edits])
    session.step()  # opens the cache
    for store in (store for cache in session.caches for store in cache.stores):
        rows = 2**16
        noise = torch.randn(rows, store.num_classes, device=device)
        noise = noise.to(getattr(torch, store.dtype))
        for first in range(0, store.size, rows):
            numbers = torch.arange(first, min(first + rows, store.size)).numpy()
            store.put(numbers, noise[: len(numbers)])
        store.flush()
    return session


def _cached(cfg: Config) -> None:
    cache = dict(storage="memory")
    change_teachers(cfg, lambda teacher: dict(teacher.as_config(), cache=cache))


_FAST: dict[str, Any] = dict(fast=True, compile="inductor")
# By name: from the base config, the device and a number of data workers to a session.
VARIANTS: dict[str, Callable[[Config, torch.device, int], Session]] = {
    "torchdistill": TorchdistillSession,
    "bare": BareSession,  # usual research code, float32
    "bare-fast": partial(BareSession, **_FAST),  # bfloat16, channels last, fused, compiled
    "bare-fast-step": partial(BareSession, fixed_batch=True, **_FAST),  # the student's step alone
    "exact": _ours,  # the config as it is, every batch through the teacher
    "exact-channels-last": partial(_ours, edits=[use_channels_last]),
    "exact-cold": partial(_ours, edits=[_cached]),  # a cache of logits, empty at first
    "exact-warm": _warm,  # a full one
    "fast-cold": partial(_ours, edits=[_cached, make_fast]),  # --fast
    "fast-warm": partial(_warm, edits=[make_fast]),
}
REFERENCES = ("torchdistill", "bare", "bare-fast-step")


class Loop:
    """A way to train in a process of its own, which trains when it is asked to."""

    def __init__(
        self, name: str, variant: str, cfg: Config, device: torch.device, workers: int
    ) -> None:
        say(f"preparing {name}")
        self.name = name
        # Forked from a server that has imported everything; CUDA does not survive a fork.
        context: Any = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["mmkd_logit.lab._preload"])
        if device.type == "cuda":
            context = multiprocessing.get_context("spawn")
        threads = torch.get_num_threads()
        self.process = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(threads,))
        self.batch_size, self.stock = self.call(_build, variant, cfg, device, workers)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in the process."""
        try:
            return self.process.submit(function, *args).result()
        except BrokenProcessPool:
            raise ValueError(
                f"the process of {self.name} was killed, as the system does where memory runs out; "
                "choose --variants, or --synthetic, which takes less"
            ) from None


def _begin(threads: int) -> None:
    end_with_parent()
    silence_known_warnings()
    torch.set_num_threads(threads)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in any program


_here: dict[str, Any] = {}  # what the process of a loop holds


def _build(variant: str, cfg: Config, device: torch.device, workers: int) -> tuple[int, int]:
    session = _here["session"] = VARIANTS[variant](cfg, device, workers)
    return session.batch_size, session.stock


def _warm_up(device: torch.device, stock: int) -> None:
    _here["round"] = round_of(_here["session"].step, device, stock)
    _here["lookups"] = _lookups(_here["session"])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # as MMEngine's LoggerHook does now and then


def _measure() -> Cost:
    return _here["round"]()


def _report() -> Row:
    """Return the share of cache hits and the highest memory of the process."""
    now, before = _lookups(_here["session"]), _here["lookups"]
    hits, misses = (new - old for new, old in zip(now, before, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of KiB, on Linux
    row: Row = dict(cache_hits=hits / (hits + misses) if hits + misses else None)
    row["peak_mib"] = round(peak)
    if torch.cuda.is_available():
        row["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return row


def _lookups(session: Session) -> tuple[int, int]:
    """Return how often caches had what was looked up, and how often they had not."""
    reports = [cache.report() for cache in session.caches]
    return sum(each["hits"] for each in reports), sum(each["misses"] for each in reports)


def train_rows(
    tasks: Mapping[str, tuple[str, Config]],
    references: Sequence[str],
    device: torch.device,
    workers: int,
    seconds: float,
) -> list[Row]:
    """Train variants of configs in turn; return a row for each, with the cost of every round.

    Ratios are of CPU time, which other processes of the machine disturb little; on a GPU of wall
    time.
    """
    with ExitStack() as stack:
        loops = []
        for name, (variant, cfg) in tasks.items():
            loops.append(Loop(name, variant, cfg, device, workers))
            stack.enter_context(loops[-1].process)
        for loop in loops:
            say(f"warming up {loop.name}")
            loop.call(_warm_up, device, max(loop.stock for loop in loops))
        say(f"measuring for {seconds * len(loops):.0f} seconds, {LEAST_ROUNDS} rounds at least")
        costs = interleave([partial(loop.call, _measure) for loop in loops], seconds * len(loops))
        reports = [loop.call(_report) for loop in loops]
    rows, decisive = {}, "wall_ms" if device.type == "cuda" else "cpu_ms"
    for loop, own, report in zip(loops, costs, reports, strict=True):
        each = [1e3 / loop.batch_size * seconds for cost in own for seconds in cost]
        rows[loop.name] = dict(
            name=loop.name,
            batch_size=loop.batch_size,
            wall_ms=[round(ms, 5) for ms in each[::2]],
            cpu_ms=[round(ms, 5) for ms in each[1::2]],
            **report,
        )
    for row in rows.values():
        row["ratios"] = {
            name: ratio(row[decisive], rows[name][decisive])
            for name in references
            if name in rows and name != row["name"]
        }
    return list(rows.values())


# What grows with teachers and with classes.

TEACHERS, CLASSES = (1, 2, 4), (100, 1000, 21841)


def grown(cfg: Config, teachers: int = 1, classes: int | None = None) -> Config:
    """Return a config with several teachers, or with logits of another number of classes."""
    cfg = edited(cfg)
    if len(model_teachers(cfg)) != 1 or "num_classes" not in cfg.model.student.head:
        raise ValueError("--growth needs one teacher, and a student's head with num_classes")
    (teacher,) = model_teachers(cfg)
    network = teacher.resolve().model
    if classes:
        network["head"]["num_classes"] = cfg.model.student.head.num_classes = classes
        cfg.data_preprocessor.num_classes = classes
    # Weights are random, whatever checkpoint there is: time is the same.
    spec = dict(teacher.as_config(), config=network, checkpoint=None)
    cfg.model.teacher = [spec] * teachers
    return cfg


# Tables.


def render(found: Mapping[str, Any]) -> str:
    """Render the JSON of ``tools/benchmark.py`` in Markdown: notes, tables, and the machine."""
    tables = ("training", "teachers", "classes")
    parts = ["  \n".join(found["notes"])]
    parts += ["\n".join(_table(found[name], name)) for name in tables if name in found]
    machine = found["machine"]
    commit = f"commit {machine['commit'][:12]}" if machine["commit"] else "installed"
    parts.append(
        f"Medians over rounds in turn, ratios with quartiles; {machine['device']}, threads of "
        f"torch: {machine['threads']}, load average {machine['load']:.1f}; torch "
        f"{machine['versions']['torch']}; {commit}{' with changes' * bool(machine['dirty'])}."
    )
    return "\n\n".join(parts)


def _table(rows: Sequence[Row], title: str) -> list[str]:
    kind = "wall" if "peak_gpu_mib" in rows[0] else "CPU"
    references = [row["name"] for row in rows if any(row["name"] in r["ratios"] for r in rows)]
    head = [title, "CPU, ms an image", "wall, ms an image", "peak memory, MiB"]
    lines = []
    for row in rows:
        cells = [f"{statistics.median(row[key]):.3g}" for key in ("cpu_ms", "wall_ms")]
        peaks = [str(row[key]) for key in ("peak_mib", "peak_gpu_mib") if key in row]
        cells.append(" + GPU ".join(peaks))
        for each in map(row["ratios"].get, references):
            low, high = each["quartiles"] if each else (0.0, 0.0)
            cells.append(f"{each['ratio']:.2f} [{low:.2f}, {high:.2f}]" if each else "")
        lines.append([row["name"], *cells])
    return markdown_table([*head, *(f"{kind} / {name}" for name in references)], lines)


def measure_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return the costs of a config's training, see :func:`render`."""
    names = list(args.variants or VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}, only {', '.join(VARIANTS)}")
    device, workers = torch.device(get_device()), args.workers
    if workers is None:  # on a CPU they would only take its cores from the training
        cores = os.cpu_count() or 1
        workers = 0 if device.type == "cpu" else min(max(cores - 1, 0), 8)
    others = f"{workers} data workers of bare and torchdistill"
    if "torchdistill" in names:
        try:
            find_torchdistill("core.distillation", "DistillationBox")
            others += f" {version('torchdistill')}"
        except ImportError as error:
            names.remove("torchdistill")
            others += f"; not measured: {error}"
            say(others)
    with tempfile.TemporaryDirectory() as folder:
        cfg, notes = base_config(
            args.config, folder, args.cfg_options, args.batch_size, args.synthetic
        )
        batch_size = cfg.train_dataloader.batch_size
        notes.append(f"{args.config}: {device.type}, batches of {batch_size}, {others}")
        measure = partial(train_rows, device=device, workers=workers, seconds=args.seconds)
        found: dict[str, Any] = dict(config=args.config, notes=notes)
        found["training"] = measure({name: (name, cfg) for name in names}, REFERENCES)
        if args.growth:
            for kind, counts in dict(teachers=TEACHERS, classes=CLASSES).items():
                configs = {str(n): ("exact", grown(cfg, **{kind: n})) for n in counts}
                found[kind] = measure(configs, [str(counts[0])])
    return found
