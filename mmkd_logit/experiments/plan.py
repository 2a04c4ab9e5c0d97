"""What a command would run, and how long that took before."""

import statistics
from collections.abc import Sequence

from mmkd_logit.engine.config import seed_of
from mmkd_logit.engine.fast import EXACT, describe_numerics
from mmkd_logit.engine.provenance import describe_machine, is_origin

from .execute import Execution


def describe_plan(execution: Execution, rows: Sequence[dict]) -> list[str]:
    """List the runs, which are done, and what the others will cost.

    The cost of a run is its epochs times the seconds that an epoch of the same config took in a
    results row, on this device if there is such a row.

    Args:
        execution: Not called yet.
        rows: Results rows to learn speeds from.
    """
    device = describe_machine()["device"]
    lines, known, unknown = [], 0.0, 0
    for folder, run in execution.runs.items():
        cfg = execution.configs[folder]
        ready = all(execution.found.get(needed.work_dir) for needed in run.needs)
        row = execution.find(folder) if ready else None
        execution.found[folder] = row
        if row is not None:
            bare = execution.lacks_dumps(folder)
            state, cost = "done, but for its logits" if bare else "done", ""
        else:
            cut_off = is_origin(cfg, execution.pool.processes)
            state = "cut off, would go on" if cut_off else "to do"
            epochs, numerics = cfg.train_cfg.get("max_epochs"), describe_numerics(cfg)
            alike = [row for row in rows if row.get("numerics", EXACT) == numerics]
            seconds = seconds_of(run.config, epochs, alike, device)
            known, unknown = known + (seconds or 0), unknown + (seconds is None)
            cost = ", cost unknown" if seconds is None else f", about {_time(seconds)}"
        lines.append(f"{folder}: {state}{cost} (seed {seed_of(cfg)})")
    missing = sum(row is None for row in execution.found.values())
    at_least = "at least " if unknown else ""
    total = f"{at_least}{_time(known)} of one device" if known or not missing else "cost unknown"
    note = f"; no measured speed for {unknown} of them" if unknown else ""
    return [*lines, f"{missing} of {len(lines)} runs to do: {total}{note}"]


def seconds_of(config: str, epochs: int | None, rows: Sequence[dict], device: str) -> float | None:
    """Estimate the training time of a config from measured runs of it.

    Args:
        config: The config file.
        epochs: How many it will train.
        rows: Results rows.
        device: Rows of this one count; those of others where it has none.

    Returns:
        Seconds, or None where nothing was measured.
    """
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for row in rows:
        alone = not row.get("resumed_at") and row.get("together", 1) == 1
        if row.get("config") == config and alone and row.get("epochs"):
            speeds[row.get("device") == device].append(row["train_seconds"] / row["epochs"])
    measured = speeds[True] or speeds[False]
    return statistics.median(measured) * epochs if measured and epochs else None


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
