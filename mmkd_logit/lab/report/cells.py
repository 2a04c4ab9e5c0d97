"""All measured cells of results rows: the mean and deviation over seeds of each setting."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mmkd_logit.utils.arguments import without

Row = Mapping[str, Any]
_SETTING = ("config", "overrides", "epochs", "numerics", "processes")


def measured_cells(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Group results rows of one command and recipe, which differ in the seed alone.

    Of several rows of a seed the last one counts. ``mean`` and ``std`` (of the sample, None for
    one seed) are by metric, ``teachers``, the hashes of their weights, by seed; a ``+`` behind a
    commit says that files were changed. ``overrides`` are those of the first seed: where each seed
    has a teacher of its own, ``teachers`` differ.
    """
    kept: dict[tuple, Row] = {}
    seeds: dict[str, set] = {}
    for row in rows:
        if row.get("config") and row.get("test"):
            found = [*(row.get(name) for name in _SETTING), _recipe(row)]
            setting = json.dumps(found, sort_keys=True)
            kept[setting, row.get("seed")] = row
            seeds.setdefault(setting, set()).add(row.get("seed"))
    cells: dict[str, list[Row]] = {}
    for (setting, seed), row in kept.items():
        if len(seeds[setting]) == 1:  # perhaps of a teacher with the same seed
            setting = re.sub(rf"/seed{seed}(?=[/.])", "/seed", setting)
        cells.setdefault(setting, []).append(row)
    return [_cell(each) for each in cells.values()]


def _recipe(row: Row) -> Any:
    """Return how a row was trained, without what a seed decides."""
    hashes = ("weights", "scores")  # where they are no numbers
    return without(
        row.get("computed") or {},
        lambda key, value: key == "randomness" or (key in hashes and isinstance(value, str)),
    )


def _cell(rows: list[Row]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row.get("seed") or 0)
    commits = [(row.get("commit") or "unknown") + "+" * bool(row.get("dirty")) for row in rows]
    found = [dict(_numbers(row)) for row in rows]
    shared = [key for key in found[0] if all(key in each for each in found)]
    values = {key: [each[key] for each in found] for key in shared}
    return dict(
        {name: rows[0].get(name) for name in _SETTING},
        images=rows[-1].get("images"),
        seeds=[row.get("seed") for row in rows],
        n=len(rows),
        mean={key: float(np.mean(each)) for key, each in values.items()},
        std={k: float(np.std(v, ddof=1)) if len(v) > 1 else None for k, v in values.items()},
        teachers=[row.get("teachers") or [] for row in rows],
        weights=[row.get("weights") for row in rows],
        commits=list(dict.fromkeys(commits)),
        devices=list(dict.fromkeys(row.get("device") for row in rows)),
    )


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    """Yield what was measured, by the keys of tables."""
    for split in ("test", "train"):
        for key, value in (row.get(split) or {}).items():
            if isinstance(value, (int, float)):
                yield f"{split}.{key}", value
