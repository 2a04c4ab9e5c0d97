"""Densities and histograms of one number per sample, one row for each method."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from .style import Look, new_figure

QUANTILES = dict(q05=0.05, q25=0.25, median=0.5, q75=0.75, q95=0.95)
_FINE = 8  # cells of the histogram that is smoothed, for each point of a density
_HEIGHT = 0.86  # of a row's peak
_BESIDE: dict[str, Any] = dict(  # a text on the right of a panel
    fontsize=7.5, xytext=(4, 0), textcoords="offset points", annotation_clip=False
)


@dataclass
class Row:
    """What was measured of the networks of one method."""

    name: str  # of the method, or 'teacher'
    look: Look
    by_seed: dict[int, Any] = field(default_factory=dict)  # here, one number a sample: (N,)

    @property
    def values(self) -> np.ndarray:
        """Those of all seeds."""
        return np.concatenate([np.empty(0), *self.by_seed.values()])

    def summary(self) -> dict[str, Any]:
        """Return the statistics of all seeds and of each."""
        seeds = {seed: summarize(values) for seed, values in sorted(self.by_seed.items())}
        return dict(pooled=summarize(self.values), seeds=seeds)


class Panel(NamedTuple):
    """What :func:`draw_rows` draws beside each other."""

    rows: Sequence[Row]
    label: str  # of the axis
    head: str = ""
    bins: int = 0  # of a histogram instead of a density
    floor: float | None = None  # the least value that there can be
    zero: bool = False  # whether a line is drawn there
    empty: str = "not dumped"  # said of a row without values


def not_finite(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return notes on values that are not finite."""
    counts = {
        row.name: np.count_nonzero(~np.isfinite(row.values))
        for row in itertools.chain(*rows.values())
    }
    return [f"{n:,} values by {name} are not finite" for name, n in counts.items() if n]


def bandwidth(values: np.ndarray) -> float:
    r"""Return Silverman's width of a Gaussian kernel.

    :math:`0.9 \min(s, \mathrm{IQR} / 1.349)\, n^{-1/5}`, of the standard deviation alone where
    the quartiles coincide.
    """
    deviation = float(np.std(values))
    quartiles = np.subtract(*np.percentile(values, [75, 25])) / 1.349
    return 0.9 * float(min(deviation, quartiles or deviation)) * len(values) ** -0.2


def smooth_density(
    values: np.ndarray, low: float, high: float, points: int = 256, floor: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a density at points from low to high; values outside count in the whole.

    Gaussian kernels, which are reflected at ``floor``, smooth a fine histogram: N may be millions.
    """
    cell = (high - low) / (points - 1) / _FINE
    # A kernel narrower than the distance of two points would fall between them.
    sigma = max(bandwidth(values) / cell, _FINE)
    margin = int(np.ceil(5 * sigma)) + 1
    edges = low + cell * (np.arange(-margin, (points - 1) * _FINE + margin + 2) - 0.5)
    drawn = values if floor is None else np.concatenate([values, 2 * floor - values])
    counts = np.histogram(drawn, edges)[0].astype(float)
    smooth = gaussian_filter1d(counts, sigma, mode="constant", truncate=5)[margin:-margin:_FINE]
    return low + cell * _FINE * np.arange(points), smooth / (len(values) * cell)


def common_range(groups: Iterable[np.ndarray], floor: float | None = None) -> tuple[float, float]:
    """Return a range that holds nearly all values of every group."""
    ends = [np.quantile(values, [0.002, 0.998]) for values in groups if len(values)]
    if not ends:
        return 0.0, 1.0
    low = float(np.min(ends)) if floor is None else floor
    high = float(np.max(ends))
    if high <= low:  # all values are equal
        high = low + max(1e-3, abs(low)) * 0.1
    margin = 0.02 * (high - low)
    return (low - margin if floor is None else low), high + margin


def summarize(values: np.ndarray) -> dict[str, float | int]:
    """Return number, mean, standard deviation and quantiles of values."""
    finite = values[np.isfinite(values)]
    summary: dict[str, float | int] = dict(n=len(finite), not_finite=len(values) - len(finite))
    if len(finite):
        summary |= dict(mean=float(finite.mean()), std=float(finite.std()))
        found = np.quantile(finite, list(QUANTILES.values()))
        summary |= {name: float(value) for name, value in zip(QUANTILES, found, strict=True)}
    return summary


def draw_rows(*panels: Panel) -> Figure:
    """Draw densities or histograms below each other, each with its median.

    The baseline of row i is at y = -i; each is scaled to its own peak.
    """
    count = max(len(panel.rows) for panel in panels)
    figure = new_figure(0.9 + 0.2 * bool(panels[0].head) + 0.42 * count)
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every, panels, strict=True):
        finite = [row.values[np.isfinite(row.values)] for row in panel.rows]
        low, high = common_range(finite, panel.floor)
        for y, (row, values) in enumerate(zip(panel.rows, finite, strict=True)):
            axes.axhline(-y, color="#cfcfcf", linewidth=0.6, zorder=1)
            if len(values):
                _draw_row(axes, -y, row.look, values, (low, high), panel)
            else:
                text = "no finite value" if len(row.values) else panel.empty
                place = dict(xycoords=("axes fraction", "data"), fontsize=7.5, color="#777777")
                axes.annotate(text, (0.02, -y + 0.15), **place)
        axes.annotate("median", (1.0, 1.0), xycoords="axes fraction", color="#555555", va="center",
                      **_BESIDE)  # fmt: skip
        if panel.zero:
            axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
        axes.set(xlim=(low, high), xlabel=panel.label, ylim=(-len(finite) + 0.9, 1.0))
        axes.set_title(panel.head, loc="left")
        names = [row.name for row in panel.rows] if axes is every[0] else [""] * len(finite)
        axes.set_yticks([-y for y in range(len(finite))], names, va="bottom")
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def _draw_row(
    axes: Axes, base: int, look: Look, values: np.ndarray, ends: tuple[float, float], panel: Panel
) -> None:
    fill = to_rgba(look.color, 0.35)
    line: dict[str, Any] = dict(color=look.color, linewidth=1.2, zorder=3)
    if panel.bins:
        heights, edges = np.histogram(values, panel.bins, ends)
        heights = _HEIGHT * heights / (heights.max() or 1) + base
        axes.stairs(heights, edges, baseline=base, fill=True, color=fill, zorder=2)
        axes.stairs(heights, edges, baseline=base, **line)
    else:
        points, heights = smooth_density(values, *ends, floor=panel.floor)
        heights = _HEIGHT * heights / (heights.max() or 1) + base
        axes.fill_between(points, heights, base, color=fill, linewidth=0, zorder=2)
        axes.plot(points, heights, linestyle="-", **line)
    median = float(np.median(values))
    axes.plot(
        [median] * 2, [base, base + 0.5 * _HEIGHT], color="black", linewidth=1.6,
        solid_capstyle="butt", zorder=4,
    )  # fmt: skip
    # With the digits that can be told apart on the axis.
    digits = int(np.clip(2 - np.floor(np.log10((ends[1] - ends[0]) / 2)), 0, 6))
    text = f"{round(median, digits) + 0.0:.{digits}f}".replace("-", "−")
    axes.annotate(text, (1.0, base + 0.12), xycoords=("axes fraction", "data"), **_BESIDE)
