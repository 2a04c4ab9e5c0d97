"""Where the time and the memory of a step go, measured apart from its speed."""

import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .runner_session import Probe

PARTS = ("data", "teacher", "student", "backward", "optimizer", "rest")


def breakdown(
    step: Callable[[], Any], probes: Sequence[Probe], device: torch.device, steps: int
) -> dict[str, float]:
    """Return the mean seconds that a step spends in each part.

    Methods are wrapped for these steps only. A part inside another counts for itself alone. On a
    GPU the times are those between events of the stream, so that nothing waits in between.

    Args:
        step: Trains on one batch.
        probes: Which method (object, name) does which part; ``torch.Tensor.backward`` is known.
        device: Where it computes.
        steps: How many to average over.
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

    Args:
        step: Trains on one batch.
        state: Modules and optimizers.
        device: Where it computes.
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
