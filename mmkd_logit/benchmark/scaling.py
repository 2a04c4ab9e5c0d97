"""Speed of a kd config's training by several processes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .timing import speed_text, summary
from .train_table import Row

COUNTS = (1, 2, 4)
KEPT = ("total", "process")
_WORKER = "mmkd_logit.benchmark._scaling_worker"


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
) -> list[Row]:
    """Train with several numbers of processes, each number ``sweeps`` times in turn.

    One process runs without DDP, as it does without a launcher; several run over gloo, or nccl
    with a GPU each.

    Args:
        config: Arguments of :func:`mmkd_logit.benchmark.base_config.base_config`.
        variant: Which one to train.
        workers: As of :func:`mmkd_logit.benchmark.train_table.train_rows`.
        batch_size: Of one process alone.
        kept: What stays when there are more: ``'total'``, the batch of all together, or
            ``'process'``, the batch of each.
        seconds: Time for each launch, at least 5 rounds.
        threads: Of torch, in each process.
        counts: Numbers of processes; :func:`process_counts` by default.
        sweeps: How often.
        say: Called with a line of progress.

    Returns:
        Rows with :func:`summary` in images, ``times``, and ``efficiency``: the speed over that of
        one process, divided by the number of processes.

    Raises:
        ValueError: If ``kept`` is another word or the batch cannot be divided.
        OSError: If a process fails.
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


def render_scaling(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`scaling_rows` in Markdown.

    Args:
        rows: The rows.
    """
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
