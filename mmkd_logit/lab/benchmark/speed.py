"""The speed of a kd config's training, beside a bare PyTorch loop, and where its time goes."""

import argparse
import functools
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn
from tqdm import tqdm

from mmkd_logit.engine.config import change_teachers, make_fast
from mmkd_logit.models.teacher_cache import TeacherCache

from .sessions import (
    BareSession,
    Probe,
    RunnerSession,
    base_config,
    by_pipeline,
    edited,
    in_memory,
)

LEAST_ROUNDS = 5
_WARM_UP = dict(cpu=2, cuda=20)
_LEAST_SECONDS = dict(cpu=0.02, cuda=0.3)  # of a round, so that clocks and queues do not matter


def synchronize(device: str | torch.device) -> None:
    """Wait until a device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(function: Callable[[], Any], device: str | torch.device, calls: int = 1) -> float:
    """Return the seconds that a call takes, the device's work included."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        function()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def interleave(
    functions: Sequence[Callable[[], float]],
    seconds: float,
    least: int = LEAST_ROUNDS,
    title: str | None = None,
) -> list[list[float]]:
    """Call functions in turn, A B C A B C ..., so that a machine's moods meet all of them alike.

    Example:
        >>> calls = []
        >>> interleave([lambda: calls.append("a") or 1, lambda: calls.append("b") or 2], 0, 2)
        [[1, 1], [2, 2]]
        >>> calls
        ['a', 'b', 'a', 'b']
    """
    times: list[list[float]] = [[] for _ in functions]
    start = time.perf_counter()
    with _Bar(title, seconds) as bar:
        while (spent := time.perf_counter() - start) < seconds or len(times[0]) < least:
            for function, own in zip(functions, times, strict=True):
                own.append(function())
            now = time.perf_counter() - start
            bar.show(now, rounds=len(times[0]), least=least, one=now - spent)
    return times


def round_of(step: Callable[[], Any], device: torch.device, stock: int) -> Callable[[], float]:
    """Warm up and return a function that times a round of steps, giving the seconds of one.

    While other variants have their turn the workers of this one fill their stock, which would
    make its next steps too cheap, and just after its turn they take time from the next one. So
    that many steps are done before the clock starts.
    """
    for _ in range(_WARM_UP[device.type]):
        once = timed(step, device)
    steps = max(math.ceil(_LEAST_SECONDS[device.type] / once), 1)

    def one_round() -> float:
        for _ in range(stock):
            step()
        return timed(step, device, steps)

    return one_round


def summary(times: Sequence[float], samples: int = 1) -> dict[str, Any]:
    """Return the median and quartiles of times, and of the speed they mean.

    Example:
        >>> summary([1.0, 2.0, 4.0], samples=8)["per_second"]
        4.0
    """
    low, _, high = statistics.quantiles(times, n=4)
    median = statistics.median(times)
    return dict(
        rounds=len(times),
        seconds=median,
        seconds_quartiles=[low, high],
        per_second=samples / median,
        per_second_quartiles=[samples / high, samples / low],
    )


def ratio(times: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    """Return how many times as fast as a reference something is.

    Example:
        >>> ratio([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
        {'ratio': 3.0, 'quartiles': [2.0, 4.0]}
    """
    pairs = [b / a for a, b in zip(times, reference, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return dict(
        ratio=statistics.median(reference) / statistics.median(times), quartiles=[low, high]
    )


def speed_text(summary: dict[str, Any]) -> str:
    """Return the cells of a table for a :func:`summary`: speed and its quartiles.

    Example:
        >>> speed_text(dict(per_second=1234.5, per_second_quartiles=[98.76, 2000.0]))
        '1234 | 98.8 to 2000'
    """
    speeds = (summary["per_second"], *summary["per_second_quartiles"])
    median, low, high = (f"{each:.0f}" if each >= 100 else f"{each:.1f}" for each in speeds)
    return f"{median} | {low} to {high}"


class _Bar:
    """A bar of seconds; it grows where the rounds that are due take longer than planned."""

    def __init__(self, title: str | None, seconds: float) -> None:
        self._bar = tqdm(
            total=seconds,
            desc=title,
            disable=title is None or not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}% |{bar}| {postfix}",
            file=sys.stderr,
        )

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *unused: object) -> None:
        self._bar.close()

    def show(self, now: float, rounds: int, least: int, one: float) -> None:
        self._bar.total = max(self._bar.total, now + (least - rounds) * one)
        left = max(self._bar.total - now, 0)
        self._bar.n = min(now, self._bar.total)
        self._bar.set_postfix_str(f"round {rounds}, about {left:.0f} s left")


# The parts of a step: their time and their memory.


PARTS = ("data", "teacher", "student", "backward", "optimizer", "rest")


def breakdown(
    step: Callable[[], Any], probes: Sequence[Probe], device: torch.device, steps: int
) -> dict[str, float]:
    """Return the mean seconds that a step spends in each part.

    Methods are wrapped for these steps only. A part inside another counts for itself alone. On a
    GPU the times are those between events of the stream, so that nothing waits in between.
    """
    clock = _Clock(device)
    with _wrapped([*probes, (Tensor, "backward", "backward")], clock):
        for _ in range(steps):
            clock.enter("rest")
            step()
            clock.leave()
    return {part: seconds / steps for part, seconds in clock.totals().items()}


def peak_memory(step: Callable[[], Any], state: Sequence[Any], device: torch.device) -> int:
    """Return the bytes of tensors that training holds at the step's highest point.

    What lives from step to step (weights, buffers, the optimizer's state) and what
    torch's allocator gives out on top of it during one step. Unlike the resident size of the
    process it does not depend on what else was run before, nor on what the C library keeps.
    """
    for module in state:
        if isinstance(module, nn.Module):
            module.zero_grad(set_to_none=True)  # they are made anew, so count in the step
    held = _held(state)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return held + torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it talks on standard error
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    now = highest = 0
    for size in _allocations(profile):
        now += size
        highest = max(highest, now)
    return held + highest


def _held(state: Sequence[Any]) -> int:
    storages: dict[int, int] = {}
    for each in state:
        if isinstance(each, nn.Module):
            tensors = [*each.parameters(), *each.buffers()]
        else:
            values = (v for own in each.state.values() for v in own.values())
            tensors = [value for value in values if isinstance(value, Tensor)]
        for tensor in tensors:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _allocations(profile: torch.profiler.profile) -> list[int]:
    """Return the sizes that were given out (or, below 0, taken back), in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    found = [event for event in events if event.get("name") == "[memory]"]
    return [event["args"]["Bytes"] for event in sorted(found, key=lambda event: event["ts"])]


class _Clock:
    """Charges the time between two changes to the part that was on."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._stack: list[str] = []
        self._marks: list[tuple[str | None, Any]] = []

    def enter(self, part: str) -> None:
        self._stack.append(part)
        self._mark()

    def leave(self) -> None:
        self._stack.pop()
        self._mark()

    def _mark(self) -> None:
        now: Any = time.perf_counter()
        if self._cuda:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self._marks.append((self._stack[-1] if self._stack else None, now))

    def totals(self) -> dict[str, float]:
        totals = dict.fromkeys(PARTS, 0.0)
        if self._cuda:
            torch.cuda.synchronize()
        for (part, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            if part is not None:
                totals[part] += start.elapsed_time(end) / 1e3 if self._cuda else end - start
        return totals


@contextmanager
def _wrapped(probes: Sequence[Probe], clock: _Clock) -> Iterator[None]:
    undo: list[Callable[[], None]] = []
    try:
        for owner, name, part in probes:
            undo.append(_wrap(owner, name, part, clock))
        yield
    finally:
        for each in reversed(undo):
            each()


def _wrap(owner: Any, name: str, part: str, clock: _Clock) -> Callable[[], None]:
    own = vars(owner).get(name)
    function = getattr(owner, name)

    @functools.wraps(function)  # attributes too: schedulers look for theirs on step()
    def measured(*args: Any, **kwargs: Any) -> Any:
        clock.enter(part)
        try:
            return function(*args, **kwargs)
        finally:
            clock.leave()

    setattr(owner, name, measured)
    if own is None:
        return lambda: delattr(owner, name)
    return lambda: setattr(owner, name, own)


# The ways to train.


Row = dict[str, Any]


class Session(Protocol):
    """Something that trains step by step."""

    batch_size: int
    stock: int

    def step(self) -> None: ...
    def probes(self) -> list[Probe]: ...
    def state(self) -> list[Any]: ...
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


def _memory(*edits: _Edit) -> _Open:
    def start(cfg: Config, device: torch.device, workers: int) -> Session:
        cfg = in_memory(edited(cfg))
        for edit in edits:
            edit(cfg)
        return RunnerSession(cfg)

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
    cache = dict(storage="memory")
    change_teachers(cfg, lambda teacher: dict(teacher.as_config(), cache=cache))


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
    "fast": Variant("memory, --fast", _memory(make_fast)),
    "fast+cache-cold": Variant("and an empty cache", _memory(_cached, make_fast)),
    "fast+cache": Variant("and a full one", _warm(make_fast)),
    "student-fast": Variant("fast without a teacher", _memory(_student, make_fast)),
}


# Ratios of speeds, and the goals that this project has for them.


class Comparison(NamedTuple):
    """A ratio of speeds with a goal: at least so many times as fast.

    Attributes:
        variant: Name of a variant.
        reference: Name of the variant that it is compared with.
        cpu: The goal on a CPU, or None.
        cuda: The goal on a GPU, or None.
    """

    variant: str
    reference: str
    cpu: float | None = None
    cuda: float | None = None


COMPARISONS = (
    Comparison("memory+cache", "bare", 3.6),
    Comparison("fast", "bare", 2.7),
    Comparison("fast+cache", "bare", 8.0),
    Comparison("memory", "bare-fixed", 0.97, 0.85),
    Comparison("fast", "bare-fast-fixed", 0.97, 0.85),
    Comparison("memory", "bare", 0.97, 0.85),
    Comparison("fast", "bare-fast", 0.97, 0.85),
    Comparison("memory+cache", "student", 0.95, 0.95),
    Comparison("fast+cache", "student-fast", 0.95, 0.95),
)


def comparison_rows(rows: Sequence[Row], device: str) -> list[Row]:
    """Return the ratios of speeds that there are goals for, and those to the bare loop."""
    times = {row["variant"]: row["times"] for row in rows}
    known = {each.variant for each in COMPARISONS if each.reference == "bare"} | {"bare"}
    # A student alone does less than the bare loop, so their ratio says nothing.
    others = [name for name in times if name not in known and not name.startswith("student")]
    return [
        dict(
            variant=each.variant,
            reference=each.reference,
            goal=getattr(each, device),
            **ratio(times[each.variant], times[each.reference]),
        )
        for each in (*COMPARISONS, *(Comparison(name, "bare") for name in others))
        if {each.variant, each.reference} <= set(times)
    ]


def render_comparisons(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`comparison_rows` in Markdown."""
    lines = ["| speed of | to that of | ratio | quartiles | goal |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["quartiles"]
        goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
        lines.append(
            f"| {row['variant']} | {row['reference']} | {row['ratio']:.3f} "
            f"| {low:.3f} to {high:.3f} | {goal} |"
        )
    return "\n".join(lines)


# Speed, memory and breakdown of the variants of a kd config.


def train_rows(
    cfg: Config,
    names: Sequence[str],
    device: torch.device,
    workers: int,
    seconds: float,
    parts: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Train with all variants in turn and return a row for each."""
    sessions = []
    for name in names:
        say(f"preparing {name}")
        sessions.append(VARIANTS[name].open(cfg, device, workers))
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.step, device, stock) for session in sessions]
    before = [_asked(session) for session in sessions]
    times = interleave(rounds, seconds * len(names), title="training")
    hits = [_share(session, then) for session, then in zip(sessions, before, strict=True)]
    rows = []
    for name, session, own, share in zip(names, sessions, times, hits, strict=True):
        row: Row = dict(variant=name, text=VARIANTS[name].text, batch_size=session.batch_size)
        row |= summary(own, session.batch_size) | dict(times=own, cache_hits=share)
        if parts:
            say(f"taking {name} apart")
            row |= _parts(session, device, statistics.median(own))
        rows.append(row)
    return rows


def render_train(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`train_rows` in Markdown."""
    parts = [part for part in PARTS if any("parts" in row for row in rows)]
    lines = ["| variant | images/s | quartiles | ms a step |" + " peak MB |" * bool(parts)]
    lines[0] += "".join(f" {part} |" for part in parts)
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for row in rows:
        name = row["variant"]
        if row["cache_hits"] is not None:
            name += f" ({row['cache_hits']:.0%} hits)"
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


def _parts(session: Session, device: torch.device, seconds: float) -> Row:
    steps = min(max(math.ceil(1 / seconds), 2), 20)
    found = breakdown(session.step, session.probes(), device, steps)
    return dict(peak_bytes=peak_memory(session.step, session.state(), device), parts=found)


# The part of ``tools/benchmark.py`` that trains a config.


def measure_config(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Print tables for a config and return what is in them, with all raw times."""
    names = args.variants or list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}, only {', '.join(VARIANTS)}")
    device = torch.device(get_device())
    workers = default_workers(device) if args.workers is None else args.workers
    with tempfile.TemporaryDirectory() as folder:
        cfg, notes = base_config(
            args.config, folder, args.cfg_options, args.batch_size, args.synthetic
        )
        notes.append(_circumstances(cfg, device, workers))
        rows = train_rows(cfg, names, device, workers, args.seconds, not args.no_parts, say)
    ratios = comparison_rows(rows, device.type)
    tables = [render_train(rows), *[render_comparisons(ratios)] * bool(ratios)]
    print("\n".join(f"{note}  " for note in notes), *tables, sep="\n\n", flush=True)
    return dict(config=args.config, notes=notes, training=rows, ratios=ratios)


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
