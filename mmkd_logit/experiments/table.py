"""From results rows to tables."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from .exhibit import Exhibit, Run

METRIC = "accuracy/top1"


def paired_difference(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float, float, float]:
    """Compare two methods over the same seeds with a paired t-test.

    Args:
        first: One number for each of n seeds, at least 2.
        second: The same seeds.

    Returns:
        Mean of first - second, the ends of its 95 % interval, and the two-sided p-value.

    Raises:
        ValueError: If the lengths differ or n is below 2.

    Example:
        >>> mean, low, high, p = paired_difference([3.0, 4.0, 6.0], [1.0, 3.0, 4.0])
        >>> round(mean, 3), round(low, 3), round(high, 3), round(p, 3)
        (1.667, 0.232, 3.101, 0.038)
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"need the same 2 or more seeds, got {len(first)} and {len(second)}")
    difference = np.subtract(first, second)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = error * float(stats.t.ppf(0.975, len(difference) - 1))
    p = 2 * float(stats.t.sf(abs(mean) / error, len(difference) - 1))
    return mean, mean - half, mean + half, p


def render(exhibit: Exhibit, found: dict[Run, dict | None]) -> str:
    """Render the exhibit's table in Markdown.

    Args:
        exhibit: The exhibit.
        found: For each run its results row, or None if it failed.

    Returns:
        The table, the comparisons and the protocol.

    Raises:
        ValueError: If a row has no top-1 accuracy.
    """
    by_name: dict[str, dict[int, float]] = {name: {} for name in exhibit.labels}
    failed = dict.fromkeys(exhibit.labels, 0)
    for run, row in found.items():
        if row is None:
            failed[run.name] += 1
        elif METRIC not in row["test"]:
            raise ValueError(f"{run.config} measures {list(row['test'])} and not {METRIC}")
        else:
            by_name[run.name][run.seed] = row["test"][METRIC]
    lines = [f"### {exhibit.title}", "", "| run | test top-1 (%) | n |", "|---|---|---|"]
    for name, label in exhibit.labels.items():
        note = f" ({failed[name]} failed)" if failed[name] else ""
        values = list(by_name[name].values())
        lines.append(f"| {label} | {_mean_std(values)} | {len(values)}{note} |")
    lines.append("")
    for first, second in exhibit.comparisons:
        lines.append(_compare(exhibit, by_name, first, second))
    lines += ["", _protocol(exhibit, found)]
    return "\n".join(lines)


def _mean_std(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _compare(
    exhibit: Exhibit, by_name: dict[str, dict[int, float]], first: str, second: str
) -> str:
    what = f"{exhibit.labels[first]} - {exhibit.labels[second]}"
    seeds = sorted(by_name[first].keys() & by_name[second].keys())
    if not seeds:
        return f"{what}: no seed finished both."
    a, b = ([by_name[name][seed] for seed in seeds] for name in (first, second))
    if len(seeds) == 1:
        return f"{what}: {a[0] - b[0]:+.2f} points, one seed; --seeds 5 gives an interval."
    mean, low, high, p = paired_difference(a, b)
    return (
        f"{what}: {mean:+.2f} points, 95 % interval [{low:+.2f}, {high:+.2f}], "
        f"p = {p:.2g} (paired t-test over {len(seeds)} seeds)."
    )


def _protocol(exhibit: Exhibit, found: dict[Run, dict | None]) -> str:
    rows = [row for row in found.values() if row is not None]
    if not rows:
        return "Nothing finished."

    def each(values: set) -> str:
        return ", ".join(sorted(str(value) for value in values))

    commits = {(row["commit"] or "unknown")[:12] + "+" * bool(row["dirty"]) for row in rows}
    reduced = f" Reduced: {' '.join(exhibit.options)}." if exhibit.options else ""
    return (
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        f"deviation over n seeds; {each({row['epochs'] for row in rows})} epochs; "
        f"{each({row['device'] for row in rows})}; torch "
        f"{each({row['versions']['torch'] for row in rows})}; commit {each(commits)}.{reduced}"
    )
