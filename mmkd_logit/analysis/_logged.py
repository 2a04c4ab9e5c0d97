"""Lines of a figure that were logged in training: read, drawn and told of."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ._curves import Curve, Scalars
from ._protocol import own_source
from ._report_read import ExhibitFile
from ._run_lines import Group
from .files import read_scalars
from .style import TEACHER, Look

PREDICTED: dict[str, Any] = dict(color=TEACHER.color, linestyle=(0, (1, 1.5)), lw=1.2)


class LoggedLine(NamedTuple):
    """What one line shows, with what was logged.

    Attributes:
        label: In the legend.
        look: How it is drawn.
        runs: Of an exhibit, those seeds that left scalars.
        scalars: Of each of them.
    """

    label: str
    look: Look
    runs: list[Any]
    scalars: list[Scalars]


def read_lines(exhibit: ExhibitFile, groups: Sequence[Group]) -> list[list[LoggedLine]]:
    """Read the scalars of all lines of all figures; runs without any are left out.

    Args:
        exhibit: The exhibit.
        groups: Its figures.

    Returns:
        For each figure its lines.

    Raises:
        FileNotFoundError: If scalars that the exhibit names are gone.
        ValueError: If there are runs and none of them left scalars.
    """
    known: dict[str, Scalars] = {}
    found = []
    for group in groups:
        lines = []
        for line in group.lines:
            runs = [run for run in line.runs if run["files"].get("scalars")]
            for run in runs:
                if run["work_dir"] not in known:
                    paths = [exhibit.root / path for path in run["files"]["scalars"]]
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


def sources_of(exhibit: ExhibitFile, lines: Sequence[LoggedLine]) -> list[str]:
    """Return the files that lines were drawn from.

    Args:
        exhibit: The exhibit.
        lines: Of a figure.
    """
    runs = [run for line in lines for run in line.runs]
    return [*own_source(exhibit), *(path for run in runs for path in run["files"]["scalars"])]


def draw_line(axes: Axes, curve: Curve, look: Look, offset: float = 0.0) -> None:
    """Draw a mean with its band; markers now and then.

    Args:
        axes: The panel.
        curve: Of a line.
        look: How it is drawn.
        offset: Where the first marker is, from 0 to 1 of the distance of two.
    """
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

    Args:
        axes: The panel.
        curves: All on it.
    """
    means = np.concatenate([curve.mean for curve in curves])
    means = means[means > 0]
    if len(means):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.6 * float(means.min()))


def end_axes(
    figure: Figure, panels: Sequence[Axes], lines: Sequence[LoggedLine], predicted: str = ""
) -> None:
    """Name the axis of epochs and write one legend for all panels.

    Args:
        figure: The figure.
        panels: All of it.
        lines: All that are in some panel.
        predicted: What the line of :data:`PREDICTED` is called, if there is one.
    """
    entries = [(line.label, _style_of(line.look)) for line in lines]
    entries += [(predicted, PREDICTED)] if predicted else []
    rows = -(-sum(38 + 4.8 * len(label) for label, _ in entries) // 500)  # in points
    columns = int(-(-len(entries) // rows))
    # Legends are filled by columns, and read by rows.
    entries = [entry for column in range(columns) for entry in entries[column::columns]]
    figure.legend(
        [panels[0].plot([], [], **style)[0] for _, style in entries],
        [label for label, _ in entries],
        loc="outside upper center",
        ncols=columns,
        handlelength=3.2,
        columnspacing=1.4,
    )
    figure.get_layout_engine().set(w_pad=0.07)  # type: ignore[union-attr, call-arg]
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _style_of(look: Look) -> dict[str, Any]:
    edge = "white" if look.marker != "*" else look.color  # a star of edges alone is no star
    return dict(color=look.color, linestyle=look.linestyle, marker=look.marker, mec=edge, mew=0.4)


def numbers_of(curves: dict[str, Curve]) -> dict[str, Any]:
    """Return what was drawn, in five digits, by the label of the line.

    Args:
        curves: By the label of the line.
    """
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
