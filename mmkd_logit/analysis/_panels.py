"""One panel for each method, a block of them for each split."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import WIDTH, Look, new_figure

_COLUMNS = 4


def panel_blocks(
    heads: Sequence[str], count: int, height: float, labels: tuple[str, str] | None = None
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of blocks of panels.

    Args:
        heads: Written above each block.
        count: Number of panels in a block.
        height: Of a panel with its texts, in inches.
        labels: Of the x and y axes, which all panels then share; None if each has its own.

    Returns:
        The figure, and the panels of each block.
    """
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    width = WIDTH * columns / _COLUMNS if columns > 2 else 0.6 * WIDTH
    figure = new_figure(len(heads) * (rows * height + 0.35) + 0.3, width)
    layout: Any = figure.get_layout_engine()
    layout.set(hspace=0.06, h_pad=0.07)
    blocks = []
    parts: Any = figure.subfigures(len(heads), 1, squeeze=False)
    for head, part in zip(heads, parts.flat, strict=True):
        part.suptitle(head, x=0.01, ha="left", fontsize=10, fontweight="bold")
        share = labels is not None
        panels = part.subplots(rows, columns, sharex=share, sharey=share, squeeze=False)
        for axes in panels.flat[count:]:
            axes.set_visible(False)
        block = list(panels.flat[:count])
        for place, axes in enumerate(block if labels else []):
            if place + columns >= count:  # none below
                axes.tick_params(labelbottom=True)
                axes.set_xlabel(labels[0] if labels else "")
            if place % columns == 0:
                axes.set_ylabel(labels[1] if labels else "")
        blocks.append(block)
    return figure, blocks


def name_panel(axes: Axes, name: str, look: Look, text: str = "") -> None:
    """Write the name of a method above a panel, over a bar of its colour.

    Args:
        axes: The panel.
        name: Of the method.
        look: Of it.
        text: A line between them.
    """
    axes.set_title(name, loc="left", fontsize=9, pad=17 if text else 6)
    if text:
        axes.annotate(
            text, (0, 1.025), xycoords="axes fraction", xytext=(0, 4), fontsize=7.5,
            textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    axes.plot(
        [0, 1], [1.025, 1.025], color=look.color, linewidth=3, solid_capstyle="butt",
        transform=axes.transAxes, clip_on=False, scalex=False, scaley=False,
    )  # fmt: skip
    axes.tick_params(labelsize=7)


def say_empty(axes: Axes, text: str) -> None:
    """Write into a panel why nothing is drawn.

    Args:
        axes: The panel.
        text: The reason.
    """
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
              fontsize=7.5, color="#777777", wrap=True)  # fmt: skip


def mean_text(values: Sequence[float], unit: str = "") -> str:
    """Return the mean over seeds with its standard deviation, where there are several.

    Args:
        values: One a seed.
        unit: Written behind.
    """
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return "–"
    mean = float(np.mean(finite))
    digits = 3 if mean < 0.1 else 2 if mean < 10 else 1
    text = f"{mean:.{digits}f}"
    if len(finite) > 1:
        text += f" ± {np.std(finite, ddof=1):.{digits}f}"
    return f"{text}{unit}"
