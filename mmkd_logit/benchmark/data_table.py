"""Speed of the loaders alone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config

from .timing import interleave, ratio, round_of, speed_text, summary
from .train_table import Row, open_sessions

LOADERS = ("bare", "plain", "memory")


def data_rows(
    cfg: Config,
    device: torch.device,
    workers: int,
    seconds: float,
    names: Sequence[str] = LOADERS,
    say: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Load and preprocess batches in turn, without training on them.

    Args:
        cfg: Of :func:`mmkd_logit.benchmark.base_config.base_config`.
        device: Where the batches go.
        workers: As of :func:`mmkd_logit.benchmark.train_table.train_rows`.
        seconds: Time for each loader, at least 5 rounds.
        names: Of variants whose loaders to time; ``'plain'`` is what ratios are to.
        say: Called with a line of progress.

    Returns:
        Rows with :func:`summary` in images, ``times`` and, where plain was timed, ``to_plain``.
    """
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


def render_data(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`data_rows` in Markdown.

    Args:
        rows: The rows.
    """
    lines = ["| loader of | images/s | quartiles | to plain | quartiles |", "|---|---|---|---|---|"]
    for row in rows:
        line = f"| {row['loader']} | {speed_text(row)} |"
        if "to_plain" in row:
            low, high = row["to_plain"]["quartiles"]
            line += f" {row['to_plain']['ratio']:.3g} | {low:.3g} to {high:.3g} |"
        lines.append(line)
    return "\n".join(lines)
