"""Runs as lines of a figure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .curves import Curve, Scalars
from .data import (
    ExperimentFile,
    describe_epochs,
    describe_seeds,
    file_name,
    own_source,
    read_scalars,
)
from .style import TEACHER, Drawing, Look, foot, is_taught, look_of, name_of, shades


class Pair(NamedTuple):
    """A student and its teacher over a grid.

    Attributes:
        title: Who teaches whom.
        names: Of runs, by what a legend calls the method, and alpha.
        methods: What legends call the methods, by growing tau.
        alphas: Growing.
    """

    title: str
    names: dict[tuple[str, float], str]
    methods: list[str]
    alphas: list[float]


def find_pairs(record: Mapping[str, Any]) -> list[Pair]:
    """Find the grids of an experiment: one student and teacher at several alphas."""
    groups: dict[tuple, dict[tuple[str, float], set[str]]] = {}
    orders: dict[str, float] = {}
    for run in record["runs"]:
        how = run["method"]
        if run["name"] not in record["cells"] or not is_taught(how):
            continue
        noise = how.get("label_noise") or {}
        key = (how.get("network"), how.get("teacher_config"), noise.get("kind"), noise.get("rate"))
        place = (name_of(how), float(how["alpha"]))
        orders[place[0]] = look_of(how).order
        groups.setdefault(key, {}).setdefault(place, set()).add(run["name"])
    pairs = []
    for places in groups.values():
        alphas = sorted({alpha for _, alpha in places})
        if len(alphas) > 1 and all(len(names) == 1 for names in places.values()):
            names = {place: next(iter(found)) for place, found in places.items()}
            methods = sorted({method for method, _ in names}, key=lambda each: orders[each])
            pairs.append(Pair(_title(record, list(names.values())), names, methods, alphas))
    return pairs


def _title(record: Mapping[str, Any], names: list[str]) -> str:
    """Return what the labels of the rows say beside the temperature."""
    rows = {record["cells"][name][0] for name in names}
    titles = {re.sub(r"[\s,;:]*\b(KL\s+)?(tau|τ)\b.*$", "", row) for row in rows}
    return (titles.pop() if len(titles) == 1 else "") or record["title"]


# The runs of an experiment as lines of figures: seeds of a cell together, methods told apart.


class Line(NamedTuple):
    """What one line shows.

    Attributes:
        label: In the legend.
        look: How it is drawn.
        runs: Of an experiment, one for each seed that finished.
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
    """Return the names of the runs that learned from labels and teach others."""
    folders = {folder for run in record["runs"] for folder in run.get("teachers") or ()}
    return {
        run["name"]
        for run in record["runs"]
        if run["method"]["kind"] == "ce" and run["work_dir"] in folders
    }


def group_runs(record: Mapping[str, Any]) -> list[Group]:
    """Sort the finished runs of an experiment's cells into figures.

    A grid has one for each pair, at its largest alpha; a table one for each of its rows; a list
    is one figure. A row of cross-entropy alone goes to all others.
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


# Lines of a figure that were logged in training: read, drawn and told of.


PREDICTED: dict[str, Any] = dict(color=TEACHER.color, linestyle=(0, (1, 1.5)), lw=1.2)


class LoggedLine(NamedTuple):
    """What one line shows, with what was logged.

    Attributes:
        label: In the legend.
        look: How it is drawn.
        runs: Of an experiment, those seeds that left scalars.
        scalars: Of each of them.
    """

    label: str
    look: Look
    runs: list[Any]
    scalars: list[Scalars]


def read_lines(experiment: ExperimentFile, groups: Sequence[Group]) -> list[list[LoggedLine]]:
    """Read the scalars of all lines of all figures; runs without any are left out."""
    known: dict[str, Scalars] = {}
    found = []
    for group in groups:
        lines = []
        for line in group.lines:
            runs = [run for run in line.runs if run["files"].get("scalars")]
            for run in runs:
                if run["work_dir"] not in known:
                    paths = [experiment.root / path for path in run["files"]["scalars"]]
                    known[run["work_dir"]] = read_scalars(paths)
            scalars = [known[run["work_dir"]] for run in runs]
            lines.append(LoggedLine(line.label, line.look, runs, scalars))
        found.append([line for line in lines if line.runs])
    runs = [run for group in groups for line in group.lines for run in line.runs]
    if runs and not known:
        raise ValueError(
            f"none of the {len(runs)} finished runs left vis_data/scalars.json, which training "
            f"writes: {' '.join(runs[0]['command'])}"
        )
    return found


def draw_panel(
    axes: Axes, lines: Sequence[LoggedLine], curves: Mapping[str, Curve], title: str, unit: str
) -> None:
    """Draw the lines that have a curve."""
    for place, line in enumerate(lines):
        if line.label in curves:
            draw_line(axes, curves[line.label], line.look, place / len(lines))
    axes.set_title(title)
    axes.set_ylabel(unit)


def draw_line(axes: Axes, curve: Curve, look: Look, offset: float = 0.0) -> None:
    """Draw a mean with its band; markers now and then."""
    step = max(1, len(curve.epochs) // 6)
    axes.fill_between(
        curve.epochs,
        curve.mean - curve.std,
        curve.mean + curve.std,
        color=look.color,
        alpha=0.12,
        lw=0,
        zorder=1,
    )
    axes.plot(
        curve.epochs,
        curve.mean,
        markevery=(int(offset * step), step),
        zorder=2 + 0.01 * look.order,
        **_style_of(look),
    )


def log_scale(axes: Axes, curves: Iterable[Curve]) -> None:
    """Make an axis logarithmic, if anything on it is above 0, down to the least mean.

    Bands may end below 0, and would take the axis with them.
    """
    means = np.concatenate([curve.mean for curve in curves])
    means = means[means > 0]
    if len(means):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.6 * float(means.min()))
        low, high = axes.get_ylim()
        if low > 1e-3 and high < 100 * low:  # few powers of ten, so others are written too
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())


def describe_lines(
    experiment: ExperimentFile,
    group: Group,
    lines: Sequence[LoggedLine],
    curves: Mapping[str, Mapping[str, Curve]],
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    numbers: dict[str, Any],
    more: str = "",
    predicted: str = "",
) -> Drawing:
    """Put a picture of lines together with its legend and what a reader needs to trust it."""
    drawn = [line for line in lines if any(line.label in found for found in curves.values())]
    runs = [run for line in drawn for run in line.runs]
    _end_axes(figure, drawn, predicted)
    seeds = describe_seeds(curve.n for found in curves.values() for curve in found.values())
    protocol = f"{seeds}; {describe_epochs(runs)}"
    foot(figure, f"{experiment.key} · {group.title} · {protocol}")
    bands = "" if "no spread" in protocol else ", bands ± one sample standard deviation"
    return Drawing(
        name=file_name(experiment, part, group.title),
        title=f"{title} {group.title}",
        caption=" ".join(filter(None, [f"{what}{bands}; {protocol}.", more, group.remark])),
        figure=figure,
        sources=[*own_source(experiment), *(path for r in runs for path in r["files"]["scalars"])],
        paper=paper,
        experiment=experiment.key,
        numbers=numbers,
    )


def _end_axes(figure: Figure, lines: Sequence[LoggedLine], predicted: str) -> None:
    """Name the axis of epochs and write one legend for all panels."""
    entries = [(line.label, _style_of(line.look)) for line in lines]
    entries += [(predicted, PREDICTED)] if predicted else []
    rows = -(-sum(38 + 4.8 * len(label) for label, _ in entries) // 500)  # in points
    columns = int(-(-len(entries) // rows))
    # Legends are filled by columns, and read by rows.
    entries = [entry for column in range(columns) for entry in entries[column::columns]]
    figure.legend(
        [figure.axes[0].plot([], [], **style)[0] for _, style in entries],
        [label for label, _ in entries],
        loc="outside upper center",
        ncols=columns,
        handlelength=3.2,
        columnspacing=1.4,
    )
    figure.get_layout_engine().set(w_pad=0.07)  # type: ignore[union-attr, call-arg]
    for axes in figure.axes:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _style_of(look: Look) -> dict[str, Any]:
    edge = "white" if look.marker != "*" else look.color  # a star of edges alone is no star
    return dict(color=look.color, linestyle=look.linestyle, marker=look.marker, mec=edge, mew=0.4)


def numbers_of(curves: dict[str, Curve]) -> dict[str, Any]:
    """Return what was drawn, in five digits, by the label of the line."""
    return {
        label: dict(
            epochs=_rounded(curve.epochs),
            mean=_rounded(curve.mean),
            std=_rounded(curve.std) if curve.n > 1 else None,
            n=curve.n,
        )
        for label, curve in curves.items()
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]
