"""The runs of an exhibit as lines of figures: seeds of a cell together, methods told apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ._grid_pairs import find_pairs
from .style import TEACHER, Look, look_of, name_of, shades


class Line(NamedTuple):
    """What one line shows.

    Attributes:
        label: In the legend.
        look: How it is drawn.
        runs: Of an exhibit, one for each seed that finished.
    """

    label: str
    look: Look
    runs: list[Mapping[str, Any]]


class Group(NamedTuple):
    """What one figure shows.

    Attributes:
        title: What its lines have in common.
        lines: In the order of the legend.
        remark: What was left out, or nothing.
    """

    title: str
    lines: list[Line]
    remark: str = ""


def taught_by_labels(record: Mapping[str, Any]) -> set[str]:
    """Return the names of the runs that learned from labels and teach others.

    Args:
        record: Of an exhibit file.
    """
    folders = {folder for run in record["runs"] for folder in run.get("teachers") or ()}
    return {
        run["name"]
        for run in record["runs"]
        if run["method"]["kind"] == "ce" and run["work_dir"] in folders
    }


def group_runs(record: Mapping[str, Any]) -> list[Group]:
    """Sort the finished runs of an exhibit's cells into figures.

    A grid has one for each pair, at its largest alpha; a table one for each of its rows; a list
    is one figure. A row of cross-entropy alone goes to all others.

    Args:
        record: Of an exhibit file.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in record["runs"]:
        if run["row"] and run["name"] in record["cells"]:
            runs.setdefault(run["name"], []).append(run)
    pairs = find_pairs(record)
    if pairs:
        found = []
        for pair in pairs:
            alpha = pair.alphas[-1]
            names = [pair.names[m, alpha] for m in pair.methods if (m, alpha) in pair.names]
            remark = f"Of all α, that of {alpha:g}."
            found.append(_group(record, pair.title, [n for n in names if n in runs], runs, remark))
        return [group for group in found if group.lines]
    rows: dict[str, list[str]] = {}
    table = any(column for _, column in record["cells"].values())
    for name in runs:
        rows.setdefault(record["cells"][name][0] if table else "", []).append(name)
    single = [row for row, names in rows.items() if _is_reference(names, runs)]
    if single and len(single) < len(rows):
        shared = [name for row in single for name in rows.pop(row)]
        for names in rows.values():
            names.extend(shared)
    return [_group(record, row or record["title"], names, runs) for row, names in rows.items()]


def _is_reference(names: Sequence[str], runs: Mapping[str, Any]) -> bool:
    return len(names) == 1 and runs[names[0]][0]["method"]["kind"] == "ce"


def _group(
    record: Mapping[str, Any],
    title: str,
    names: Sequence[str],
    runs: Mapping[str, list[Mapping[str, Any]]],
    remark: str = "",
) -> Group:
    teachers = taught_by_labels(record)
    methods = {name: runs[name][0]["method"] for name in names}
    labels = {n: "teacher" if n in teachers else name_of(methods[n]) for n in names}
    looks = {n: TEACHER if n in teachers else look_of(methods[n]) for n in names}
    called = list(labels.values())
    for name in names:  # what is called the same, or by its code, is called as in the table
        if called.count(labels[name]) > 1 or methods[name]["kind"] == "other":
            row, column = record["cells"][name]
            labels[name] = column or row
    for drawn in {look[:3] for look in looks.values()}:
        same = [name for name in names if looks[name][:3] == drawn]
        looks.update(zip(same, shades(looks[same[0]], len(same)), strict=True))
    ordered = sorted(names, key=lambda name: looks[name].order)
    return Group(title, [Line(labels[n], looks[n], runs[n]) for n in ordered], remark)
