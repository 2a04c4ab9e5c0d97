"""Speed, memory and breakdown of the variants of a kd config."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config

from .breakdown import PARTS, breakdown, peak_memory
from .timing import interleave, ratio, speed_text, summary, timed
from .variants import COMPARISONS, VARIANTS, Session

Row = dict[str, Any]
_WARM_UP = dict(cpu=2, cuda=20)
_LEAST_SECONDS = dict(cpu=0.02, cuda=0.3)  # of a round, so that clocks and queues do not matter


def train_rows(
    cfg: Config,
    names: Sequence[str],
    device: torch.device,
    workers: int,
    seconds: float,
    parts: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Train with all variants in turn and return a row for each.

    Args:
        cfg: Of :func:`mmkd_logit.benchmark.base_config.base_config`.
        names: Of the variants.
        device: Where to compute.
        workers: Data workers of the variants with mmpretrain's or torchvision's pipeline.
        seconds: Time for each variant, at least 5 rounds.
        parts: Whether to measure memory and breakdown as well, in steps of their own.
        say: Called with a line of progress.

    Returns:
        Rows with :func:`summary` in images, ``times`` (seconds of a step, a number for each
        round), ``peak_bytes`` and ``parts`` (seconds).
    """
    sessions = open_sessions(cfg, names, device, workers, say)
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.step, device, stock) for session in sessions]
    times = interleave(rounds, seconds * len(names), title="training")
    rows = []
    for name, session, own in zip(names, sessions, times, strict=True):
        row = dict(variant=name, text=VARIANTS[name].text, batch_size=session.batch_size)
        row |= summary(own, session.batch_size) | dict(times=own)
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
    """Build what the variants train.

    Args:
        cfg: The base config.
        names: Of the variants.
        device: Where to compute.
        workers: As of :func:`train_rows`.
        say: Called with a line of progress.
    """
    sessions = []
    for name in names:
        say(f"preparing {name}")
        sessions.append(VARIANTS[name].open(cfg, device, workers))
    return sessions


def round_of(step: Callable[[], Any], device: torch.device, stock: int) -> Callable[[], float]:
    """Warm up and return a function that times a round of steps, giving the seconds of one.

    While other variants have their turn the workers of this one fill their stock, which would
    make its next steps too cheap, and just after its turn they take time from the next one. So
    that many steps are done before the clock starts.

    Args:
        step: To time.
        device: Where it computes.
        stock: Batches that may be ready, the most of any variant.
    """
    for _ in range(_WARM_UP[device.type]):
        once = timed(step, device)
    steps = max(math.ceil(_LEAST_SECONDS[device.type] / once), 1)

    def one_round() -> float:
        for _ in range(stock):
            step()
        return timed(step, device, steps)

    return one_round


def comparison_rows(rows: Sequence[Row], device: str) -> list[Row]:
    """Return the ratios of speeds that there are goals for, and of each variant to the bare loop.

    Args:
        rows: Of :func:`train_rows`.
        device: ``'cpu'`` or ``'cuda'``.
    """
    times = {row["variant"]: row["times"] for row in rows}
    wanted = [(each.variant, each.reference, getattr(each, device)) for each in COMPARISONS]
    known = {pair[:2] for pair in wanted}
    wanted += [
        (name, "bare", None) for name in times if name != "bare" and (name, "bare") not in known
    ]
    return [
        dict(variant=name, reference=reference, goal=goal, **ratio(times[name], times[reference]))
        for name, reference, goal in wanted
        if name in times and reference in times
    ]


def render_train(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`train_rows` in Markdown.

    Args:
        rows: The rows.
    """
    parts = [part for part in PARTS if any("parts" in row for row in rows)]
    lines = ["| variant | images/s | quartiles | ms a step |" + " peak MB |" * bool(parts)]
    lines[0] += "".join(f" {part} |" for part in parts)
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for row in rows:
        line = f"| {row['variant']} | {speed_text(row)} | {1e3 * row['seconds']:.4g} |"
        if parts:
            line += f" {row['peak_bytes'] / 1e6:.0f} |"
            line += "".join(f" {1e3 * row['parts'][part]:.3g} |" for part in parts)
        lines.append(line)
    return "\n".join(lines)


def render_comparisons(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`comparison_rows` in Markdown.

    Args:
        rows: The rows.
    """
    lines = ["| speed of | to that of | ratio | quartiles | goal |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["quartiles"]
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        lines.append(
            f"| {row['variant']} | {row['reference']} | {row['ratio']:.3f} "
            f"| {low:.3f} to {high:.3f} | {goal} |"
        )
    return "\n".join(lines)


def _parts(session: Session, device: torch.device, seconds: float) -> Row:
    steps = min(max(math.ceil(1 / seconds), 2), 20)
    found = breakdown(session.step, session.probes(), device, steps)
    return dict(peak_bytes=peak_memory(session.step, session.state(), device), parts=found)
