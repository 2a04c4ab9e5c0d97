"""Ratios of speeds, and the goals that this project has for them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .timing import ratio

Row = dict[str, Any]


class Comparison(NamedTuple):
    """A ratio of speeds with a goal: at least so many times as fast.

    Attributes:
        variant: Name of a variant.
        reference: Of variants, with how many of their steps are held against one of the variant.
        cpu: The goal on a CPU, or None.
        cuda: The goal on a GPU, or None.
    """

    variant: str
    reference: Mapping[str, int]
    cpu: float | None = None
    cuda: float | None = None


_PARTS = ("student", "teacher", "shared")  # do less or more than the bare loop
COMPARISONS = (
    Comparison("memory+cache", dict(bare=1), 3.6),
    Comparison("fast", dict(bare=1), 2.7),
    Comparison("fast+cache", dict(bare=1), 8.0),
    Comparison("memory", {"bare-fixed": 1}, 0.97, 0.85),
    Comparison("fast", {"bare-fast-fixed": 1}, 0.97, 0.85),
    Comparison("memory", {"bare": 1}, 0.97, 0.85),
    Comparison("fast", {"bare-fast": 1}, 0.97, 0.85),
    Comparison("memory+cache", dict(student=1), 0.95, 0.95),
    Comparison("fast+cache", {"student-fast": 1}, 0.95, 0.95),
    # The row of Table 1: each student by itself, and what cannot be shared.
    Comparison("shared", dict(memory=6, student=1), 1 / 0.42, 1 / 0.42),
    Comparison("shared-fast", {"fast": 6, "student-fast": 1}, 1 / 0.47, 1 / 0.47),
    Comparison("shared", dict(teacher=1, student=7), 1 / 1.05, 1 / 1.05),
    Comparison("shared-fast", {"teacher-fast": 1, "student-fast": 7}, 1 / 1.05, 1 / 1.05),
)


def comparison_rows(rows: Sequence[Row], device: str) -> list[Row]:
    """Return the ratios of speeds that there are goals for, and those to the bare loop.

    Args:
        rows: Of :func:`mmkd_logit.benchmark.train_table.train_rows`.
        device: ``'cpu'`` or ``'cuda'``.
    """
    times = {row["variant"]: row["times"] for row in rows}
    alone = dict(bare=1)
    known = {each.variant for each in COMPARISONS if each.reference == alone} | {"bare"}
    others = [name for name in times if name not in known and not name.startswith(_PARTS)]
    wanted = [*COMPARISONS, *(Comparison(name, alone) for name in others)]
    found = []
    for each in wanted:
        if {each.variant, *each.reference} <= set(times):
            reference = [
                sum(count * times[name][i] for name, count in each.reference.items())
                for i in range(len(times[each.variant]))
            ]
            compared = ratio(times[each.variant], reference)
            if len(each.reference) > 1:  # of the sum of medians, as for one it is the median's
                total = sum(
                    n * statistics.median(times[name]) for name, n in each.reference.items()
                )
                compared["ratio"] = total / statistics.median(times[each.variant])
            goal = getattr(each, device)
            found.append(
                dict(variant=each.variant, reference=dict(each.reference), goal=goal, **compared)
            )
    return found


def render_comparisons(rows: Sequence[Row]) -> str:
    """Render the rows of :func:`comparison_rows` in Markdown.

    Args:
        rows: The rows.
    """
    lines = ["| speed of | to that of | ratio | quartiles | goal |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["quartiles"]
        goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
        counts = row["reference"].items()
        reference = " + ".join(name if count == 1 else f"{count} {name}" for name, count in counts)
        lines.append(
            f"| {row['variant']} | {reference} | {row['ratio']:.3f} "
            f"| {low:.3f} to {high:.3f} | {goal} |"
        )
    return "\n".join(lines)
