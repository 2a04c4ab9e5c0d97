"""The speed of a kd config's training, beside a bare PyTorch loop."""

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.engine.config import change_teachers, make_fast
from mmkd_logit.lab.tables import markdown_table

from .sessions import BareSession, RunnerSession, base_config, by_pipeline, edited

LEAST_ROUNDS = 5
_WARM_UP = dict(cpu=2, cuda=20)
_LEAST_SECONDS = dict(cpu=0.02, cuda=0.3)  # of a round, so that clocks and queues do not matter

Row = dict[str, Any]
Session = BareSession | RunnerSession


def say(line: str) -> None:
    """Tell the progress on standard error; standard output is for tables."""
    print(line, file=sys.stderr, flush=True)


def timed(function: Callable[[], Any], device: str | torch.device, calls: int = 1) -> float:
    """Return the seconds that a call takes, the device's work included."""
    synchronize = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    synchronize()
    return (time.perf_counter() - start) / calls


def interleave(
    functions: Sequence[Callable[[], float]], seconds: float, least: int = LEAST_ROUNDS
) -> list[list[float]]:
    """Call functions in turn, A B C A B C ..., so that changes of the machine meet all alike.

    Example:
        >>> calls = []
        >>> interleave([lambda: calls.append("a") or 1, lambda: calls.append("b") or 2], 0, 2)
        [[1, 1], [2, 2]]
        >>> calls
        ['a', 'b', 'a', 'b']
    """
    times: list[list[float]] = [[] for _ in functions]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < least:
        for function, own in zip(functions, times, strict=True):
            own.append(function())
    return times


def round_of(step: Callable[[], Any], device: torch.device, stock: int) -> Callable[[], float]:
    """Warm up and return a function that times a round of steps, giving the seconds of one.

    While other variants have their turn the data workers of this one prepare batches, which would
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


# The ways to train.


def _bare(cfg: Config, device: torch.device, workers: int, **settings: Any) -> Session:
    return BareSession(by_pipeline(edited(cfg), workers), device, **settings)


def _plain(cfg: Config, device: torch.device, workers: int) -> Session:
    cfg = by_pipeline(edited(cfg), workers)
    cfg.default_hooks.pop("runtime_info", None)  # MMEngine's own, where the config has another
    return RunnerSession(cfg)


def _memory(
    cfg: Config, device: torch.device, workers: int, edits: Sequence[Callable[[Config], None]] = ()
) -> RunnerSession:
    cfg = edited(cfg)
    for edit in edits:
        edit(cfg)
    return RunnerSession(cfg)


def _warm(
    cfg: Config, device: torch.device, workers: int, edits: Sequence[Callable[[Config], None]] = ()
) -> RunnerSession:
    """Fill the cache with noise: a look-up takes as long, whatever is found."""
    session = _memory(cfg, device, workers, [_cached, *edits])
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


def _student(cfg: Config) -> None:
    """Let no teacher run; what is left is the student's own training."""
    cfg.model.alpha = 0.0
    cfg.model.pop("feature_kd", None)


def _cached(cfg: Config) -> None:
    cache = dict(storage="memory")
    change_teachers(cfg, lambda teacher: dict(teacher.as_config(), cache=cache))


_FAST: dict[str, Any] = dict(bf16=True, channels_last=True, fused=True)
# By name: from the base config, the device and a number of data workers to a session.
VARIANTS: dict[str, Callable[[Config, torch.device, int], Session]] = {
    "bare": _bare,  # usual research code, fp32
    "bare-fast": partial(_bare, **_FAST),
    "bare-fixed": partial(_bare, fixed_batch=True),  # one batch all along
    "bare-fast-fixed": partial(_bare, fixed_batch=True, **_FAST),
    "plain": _plain,  # mmpretrain's pipeline, MMEngine's hooks
    "memory": _memory,  # the config as it is, for small images: in memory
    "memory+cache-cold": partial(_memory, edits=[_cached]),  # and a cache of logits, empty
    "memory+cache": _warm,  # and a full one
    "student": partial(_memory, edits=[_student]),  # memory without a teacher
    "fast": partial(_memory, edits=[make_fast]),  # memory, --fast
    "fast+cache-cold": partial(_memory, edits=[_cached, make_fast]),
    "fast+cache": partial(_warm, edits=[make_fast]),
    "student-fast": partial(_memory, edits=[_student, make_fast]),
}


# Ratios of speeds, and this project's goals for them: at least so many times as fast.
COMPARISONS: dict[tuple[str, str], dict[str, float]] = {
    ("memory+cache", "bare"): dict(cpu=3.6),
    ("fast", "bare"): dict(cpu=2.7),
    ("fast+cache", "bare"): dict(cpu=8.0),
    ("memory", "bare-fixed"): dict(cpu=0.97, cuda=0.85),
    ("fast", "bare-fast-fixed"): dict(cpu=0.97, cuda=0.85),
    ("memory", "bare"): dict(cpu=0.97, cuda=0.85),
    ("fast", "bare-fast"): dict(cpu=0.97, cuda=0.85),
    ("memory+cache", "student"): dict(cpu=0.95, cuda=0.95),
    ("fast+cache", "student-fast"): dict(cpu=0.95, cuda=0.95),
}


def comparison_rows(rows: Sequence[Row], device: str) -> list[Row]:
    """Return the ratios of speeds that there are goals for, and those to the bare loop."""
    times = {row["variant"]: row["times"] for row in rows}
    # A student alone does less than the bare loop, so their ratio says nothing.
    others = [name for name in times if name != "bare" and not name.startswith("student")]
    pairs = dict.fromkeys([*COMPARISONS, *((name, "bare") for name in others)])
    return [
        dict(
            variant=variant,
            reference=reference,
            goal=COMPARISONS.get((variant, reference), {}).get(device),
            **ratio(times[variant], times[reference]),
        )
        for variant, reference in pairs
        if variant in times and reference in times
    ]


def train_rows(
    cfg: Config,
    names: Sequence[str],
    device: torch.device,
    workers: int,
    seconds: float,
) -> list[Row]:
    """Train with all variants in turn; return a row for each, with all raw times."""
    sessions = []
    for name in names:
        say(f"preparing {name}")
        sessions.append(VARIANTS[name](cfg, device, workers))
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.step, device, stock) for session in sessions]
    before = [_lookups(session) for session in sessions]
    say(f"training for {seconds * len(names):.0f} seconds")
    times = interleave(rounds, seconds * len(names))
    rows = []
    for name, session, own, then in zip(names, sessions, times, before, strict=True):
        hits, misses = (now - old for now, old in zip(_lookups(session), then, strict=True))
        low, _, high = statistics.quantiles(own, n=4)
        median, size = statistics.median(own), session.batch_size
        rows.append(
            dict(
                variant=name,
                batch_size=size,
                seconds=median,
                per_second=size / median,
                per_second_quartiles=[size / high, size / low],
                cache_hits=hits / (hits + misses) if hits + misses else None,
                times=own,
            )
        )
    return rows


def _lookups(session: Session) -> tuple[int, int]:
    """Return how often caches had what was looked up, and how often they had not."""
    reports = [cache.report() for cache in session.caches]
    return sum(each["hits"] for each in reports), sum(each["misses"] for each in reports)


def render(rows: Sequence[Row], ratios: Sequence[Row]) -> str:
    """Render the speeds and their ratios in Markdown."""
    speeds, compared = [], []
    for row in rows:
        name = row["variant"]
        if row["cache_hits"] is not None:
            name += f" ({row['cache_hits']:.0%} hits)"
        numbers = (row["per_second"], *row["per_second_quartiles"])
        median, low, high = (f"{each:.0f}" if each >= 100 else f"{each:.1f}" for each in numbers)
        speeds.append([name, median, f"{low} to {high}", f"{1e3 * row['seconds']:.4g}"])
    for row in ratios:
        low, high = (f"{each:.3f}" for each in row["quartiles"])
        goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
        names = [row["variant"], row["reference"]]
        compared.append([*names, f"{row['ratio']:.3f}", f"{low} to {high}", goal])
    lines = markdown_table(["variant", "images/s", "quartiles", "ms a step"], speeds)
    if compared:
        head = ["speed of", "to that of", "ratio", "quartiles", "goal"]
        lines += ["", *markdown_table(head, compared)]
    return "\n".join(lines)


def measure_config(args: argparse.Namespace) -> dict[str, Any]:
    """Print tables for a config and return what is in them, with all raw times."""
    names = args.variants or list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise ValueError(f"there is no variant {unknown[0]!r}, only {', '.join(VARIANTS)}")
    device, workers = torch.device(get_device()), args.workers
    if workers is None:  # on a CPU they would only take its cores from the training
        cores = os.cpu_count() or 1
        workers = 0 if device.type == "cpu" else min(max(cores - 1, 0), 8)
    with tempfile.TemporaryDirectory() as folder:
        cfg, notes = base_config(
            args.config, folder, args.cfg_options, args.batch_size, args.synthetic
        )
        notes.append(
            f"{device.type}, batches of {cfg.train_dataloader.batch_size}, {workers} data workers "
            f"for bare and plain, {torch.get_num_threads()} threads of torch"
        )
        rows = train_rows(cfg, names, device, workers, args.seconds)
    ratios = comparison_rows(rows, device.type)
    print("\n".join(f"{note}  " for note in notes), render(rows, ratios), sep="\n\n", flush=True)
    return dict(config=args.config, notes=notes, training=rows, ratios=ratios)
