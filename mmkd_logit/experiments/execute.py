"""Running what is missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.teachers import FINAL

from .exhibit import Exhibit, Run

TRAIN = Path("tools", "train.py")


def find_row(run: Run, rows: list[dict]) -> dict | None:
    """Return the newest results row of a run, or None.

    A row counts while the run's config still says the same and its weights are there (others may
    need them as a teacher).

    Args:
        run: The run.
        rows: Of the results file.
    """
    expected = run.expected_hash()
    for row in reversed(rows):
        if row.get("config_hash") == expected and row.get("seed") == run.seed:
            return row if Path(run.work_dir, FINAL).is_file() else None
    return None


def run_missing(
    exhibit: Exhibit, seeds: list[int], results: Path, say: Callable[[str], None]
) -> dict[Run, dict | None]:
    """Train every run of an exhibit that has no results yet, each in its own process.

    A run that was cut off goes on from its last checkpoint. One that fails does not stop the
    others, except those that need its weights.

    Args:
        exhibit: The exhibit.
        seeds: The seeds.
        results: The file of results lines.
        say: Gets one line for each run.

    Returns:
        For each run its results row, or None if it failed.

    Raises:
        FileNotFoundError: If the current folder is not the project's.
    """
    if not TRAIN.is_file():
        raise FileNotFoundError(f"{TRAIN} does not exist here; run from the project's folder")
    found: dict[Run, dict | None] = {}
    runs = exhibit.runs(seeds)
    for number, run in enumerate(runs, 1):
        what = f"[{number}/{len(runs)}] {exhibit.labels[run.name]}, seed {run.seed}"
        row = find_row(run, read_lines(results))
        if row is not None:
            say(f"{what}: done before")
        else:
            say(f"{what}: python {TRAIN} {' '.join(run.arguments())}")
            row = _train(run, results)
            say(f"{what}: {'failed, see ' + run.work_dir if row is None else _short(row)}")
        found[run] = row
    return found


def _train(run: Run, results: Path) -> dict | None:
    command = [sys.executable, str(TRAIN), *run.arguments(), "--results", str(results)]
    # --resume continues a run that was cut off; a finished one of an older config starts anew.
    if not Path(run.work_dir, FINAL).is_file():
        command.append("--resume")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    watched = sys.stderr.isatty()  # then the run draws its own progress bar there
    for line in process.stdout:
        if not watched and " Epoch(" in line:
            print(line, end="", file=sys.stderr, flush=True)
    if process.wait() != 0:
        return None
    return find_row(run, read_lines(results))


def _short(row: dict) -> str:
    top1 = row["test"].get("accuracy/top1")
    return f"test top-1 {top1:.2f} % in {row['train_seconds']:.0f} s"
