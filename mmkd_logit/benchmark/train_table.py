"""Speed, memory and breakdown of the variants of a kd config."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config

from .breakdown import PARTS, breakdown, peak_memory
from .timing import interleave, round_of, speed_text, summary
from .variants import VARIANTS, Session

Row = dict[str, Any]


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
        round), ``students`` that learn in a step, ``cache_hits`` (the share of the teacher's
        logits that were looked up; None without a cache), ``peak_bytes`` and ``parts`` (seconds).
    """
    sessions = open_sessions(cfg, names, device, workers, say)
    stock = max(session.stock for session in sessions)
    rounds = [round_of(session.step, device, stock) for session in sessions]
    before = [_asked(session) for session in sessions]
    times = interleave(rounds, seconds * len(names), title="training")
    hits = [_share(session, then) for session, then in zip(sessions, before, strict=True)]
    rows = []
    for name, session, own, share in zip(names, sessions, times, hits, strict=True):
        row: Row = dict(variant=name, text=VARIANTS[name].text, batch_size=session.batch_size)
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


def _parts(session: Session, device: torch.device, seconds: float) -> Row:
    steps = min(max(math.ceil(1 / seconds), 2), 20)
    found = breakdown(session.step, session.probes(), device, steps)
    return dict(peak_bytes=peak_memory(session.step, session.state(), device), parts=found)
