"""Interleaved timing of steps, and where their time goes."""

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
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .sessions import Probe

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


# Where the time and the memory of a step go, measured apart from its speed.


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
