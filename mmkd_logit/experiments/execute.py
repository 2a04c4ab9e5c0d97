"""Running what is missing."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from mmkd_logit.engine.provenance import file_hash, origin_of, read_origin
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.teachers import FINAL

from .exhibit import Exhibit, Run

TRAIN = Path("tools", "train.py")


def find_row(cfg: Config, rows: list[dict]) -> dict | None:
    """Return the newest results row of a run, or None.

    A row counts while the run's config still says the same, its teachers are the same files, and
    its weights are there (others may need them as a teacher) and no others.

    Args:
        cfg: The run's config.
        rows: Of the results file.
    """
    weights = file_hash(Path(cfg.work_dir, FINAL))
    if weights is None:
        return None
    expected = {**origin_of(cfg), "weights": weights}
    for row in reversed(rows):
        if all(row.get(key) == value for key, value in expected.items()):
            return row
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
        FileNotFoundError: If the current folder is not the project's, or a config is missing.
        OSError: If the folder of the results cannot be made.
        ValueError: If a run's overrides do not fit its config; nothing has been trained then.
    """
    if not TRAIN.is_file():
        raise FileNotFoundError(f"{TRAIN} does not exist here; run from the project's folder")
    configs = {run: run.build_config() for run in exhibit.runs(seeds)}
    results.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Run, dict | None] = {}
    for number, (run, cfg) in enumerate(configs.items(), 1):
        what = f"[{number}/{len(configs)}] {exhibit.labels[run.name]}, seed {run.seed}"
        row = find_row(cfg, read_lines(results))
        if row is not None:
            say(f"{what}: done before")
        else:
            say(f"{what}: python {TRAIN} {shlex.join(run.arguments())}")
            row = _train(run, cfg, results)
            say(f"{what}: {'failed, see ' + run.work_dir if row is None else _short(row)}")
        found[run] = row
    return found


def _train(run: Run, cfg: Config, results: Path) -> dict | None:
    command = [sys.executable, str(TRAIN), *run.arguments(), "--results", str(results)]
    if read_origin(run.work_dir) == origin_of(cfg):
        command.append("--resume")  # it was cut off
    else:  # should it fail, no student may take older weights for its teacher's
        Path(run.work_dir, FINAL).unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    watched = sys.stderr.isatty()  # then the run draws its own progress bar there
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if not watched and " Epoch(" in line:
                    print(line, end="", file=sys.stderr, flush=True)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return find_row(cfg, read_lines(results)) if status == 0 else None


def _short(row: dict) -> str:
    top1 = row["test"].get("accuracy/top1")
    what = f"test top-1 {top1:.2f} %" if isinstance(top1, float) else f"test {row['test']}"
    return f"{what} in {row['train_seconds']:.0f} s"
