"""One row for each method, all over the same axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from .style import Look

HEIGHT = 0.86  # of a row's peak


class Ridge(NamedTuple):
    """A row.

    Attributes:
        name: Written on the left.
        look: Of it.
        x: Points of a curve, (P,), or edges of a histogram's bins, (P + 1,).
        y: Heights, (P,); None for a row without values.
        center: Where a tick stands.
        text: Written on the right.
    """

    name: str
    look: Look
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    center: float | None = None
    text: str = ""


def draw_ridges(axes: Axes, ridges: Sequence[Ridge], names: bool = True, head: str = "") -> None:
    """Draw densities below each other, each as high as its row.

    The baseline of row i is at y = -i; a tick stands at the center of each.

    Args:
        axes: Where.
        ridges: From above.
        names: Whether rows are named here.
        head: Above the texts on the right.
    """
    for row, ridge in enumerate(ridges):
        color = ridge.look.color
        axes.axhline(-row, color="#cfcfcf", linewidth=0.6, zorder=1)
        if ridge.x is not None and ridge.y is not None:
            peak = float(np.max(ridge.y)) or 1.0
            heights = HEIGHT * np.asarray(ridge.y) / peak - row
            line: Any = dict(color=color, linewidth=1.2, zorder=3)
            if len(ridge.x) > len(ridge.y):
                axes.stairs(
                    heights, ridge.x, baseline=-row, fill=True, color=to_rgba(color, 0.35), zorder=2
                )
                axes.stairs(heights, ridge.x, baseline=-row, **line)
            else:
                axes.fill_between(
                    ridge.x, heights, -row, color=to_rgba(color, 0.35), linewidth=0, zorder=2
                )
                axes.plot(ridge.x, heights, linestyle="-", **line)
        if ridge.center is not None:
            axes.plot(
                [ridge.center] * 2, [-row, -row + 0.5 * HEIGHT], color="black", linewidth=1.6,
                solid_capstyle="butt", zorder=4,
            )  # fmt: skip
        if ridge.text:
            axes.annotate(
                ridge.text, (1.0, -row + 0.12), xycoords=("axes fraction", "data"), fontsize=7.5,
                xytext=(4, 0), textcoords="offset points", annotation_clip=False,
            )  # fmt: skip
    if head:
        axes.annotate(
            head, (1.0, 1.0), xycoords="axes fraction", fontsize=7.5, color="#555555",
            xytext=(4, 0), textcoords="offset points", annotation_clip=False, va="center",
        )  # fmt: skip
    axes.set_ylim(-len(ridges) + 0.9, 1.0)
    axes.set_yticks([-row for row in range(len(ridges))])
    axes.tick_params(axis="y", length=0)
    axes.set_yticklabels([ridge.name for ridge in ridges] if names else [], va="bottom")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def rounded(value: float, span: float) -> str:
    """Return a number with the digits that can be told apart on an axis.

    Args:
        value: The number.
        span: From one end of the axis to the other.
    """
    digits = int(np.clip(2 - np.floor(np.log10(span / 2)), 0, 6))
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
