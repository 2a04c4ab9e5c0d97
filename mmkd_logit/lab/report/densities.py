"""Densities and histograms of one number per sample, one row for each method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter1d

from .style import Look, new_figure

QUANTILES = dict(q05=0.05, q25=0.25, median=0.5, q75=0.75, q95=0.95)
_FINE = 8  # cells of the histogram that is smoothed, for each point of a density
_HEIGHT = 0.86  # of a row's peak


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


def not_finite(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return notes on values that are not finite."""
    notes = {}
    for row in [row for each in rows.values() for row in each]:
        count = np.count_nonzero(~np.isfinite(row.values))
        if count:
            notes[row.name] = f"{count:,} values by {row.name} are not finite"
    return list(notes.values())


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


def row_panels(
    rows: int, labels: Sequence[str], heads: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels for :func:`draw_rows` beside each other."""
    figure = new_figure(0.9 + 0.2 * bool(heads) + 0.42 * rows)
    panels = list(figure.subplots(1, len(labels), squeeze=False)[0])
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label)
    for axes, head in zip(panels, heads, strict=False):
        axes.set_title(head, loc="left")
    return figure, panels


def draw_rows(
    axes: Axes,
    rows: Sequence[Row],
    names: bool = True,
    bins: int = 0,
    floor: float | None = None,
    empty: str = "not dumped",
    zero: bool = False,
) -> None:
    """Draw densities, or histograms of ``bins``, below each other, each with its median.

    The baseline of row i is at y = -i; each is scaled to its own peak.
    """
    finite = [values[np.isfinite(values)] for values in (row.values for row in rows)]
    low, high = common_range(finite, floor=floor)
    for y, (row, values) in enumerate(zip(rows, finite, strict=True)):
        axes.axhline(-y, color="#cfcfcf", linewidth=0.6, zorder=1)
        if len(values):
            _draw_row(axes, -y, row.look, values, (low, high), bins, floor)
        else:
            text = "no finite value" if len(row.values) else empty
            axes.annotate(
                text, (0.02, -y + 0.15), xycoords=("axes fraction", "data"), fontsize=7.5,
                color="#777777",
            )  # fmt: skip
    axes.annotate(
        "median", (1.0, 1.0), xycoords="axes fraction", fontsize=7.5, color="#555555",
        xytext=(4, 0), textcoords="offset points", annotation_clip=False, va="center",
    )  # fmt: skip
    if zero:
        axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(-len(rows) + 0.9, 1.0)
    axes.set_yticks([-y for y in range(len(rows))])
    axes.tick_params(axis="y", length=0)
    axes.set_yticklabels([row.name for row in rows] if names else [], va="bottom")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def _draw_row(
    axes: Axes,
    base: int,
    look: Look,
    values: np.ndarray,
    ends: tuple[float, float],
    bins: int,
    floor: float | None,
) -> None:
    fill = to_rgba(look.color, 0.35)
    line: dict[str, Any] = dict(color=look.color, linewidth=1.2, zorder=3)
    if bins:
        heights, edges = np.histogram(values, bins, ends)
        heights = _HEIGHT * heights / (heights.max() or 1) + base
        axes.stairs(heights, edges, baseline=base, fill=True, color=fill, zorder=2)
        axes.stairs(heights, edges, baseline=base, **line)
    else:
        points, heights = smooth_density(values, *ends, floor=floor)
        heights = _HEIGHT * heights / (heights.max() or 1) + base
        axes.fill_between(points, heights, base, color=fill, linewidth=0, zorder=2)
        axes.plot(points, heights, linestyle="-", **line)
    median = float(np.median(values))
    axes.plot(
        [median] * 2, [base, base + 0.5 * _HEIGHT], color="black", linewidth=1.6,
        solid_capstyle="butt", zorder=4,
    )  # fmt: skip
    axes.annotate(
        _rounded(median, ends[1] - ends[0]), (1.0, base + 0.12), fontsize=7.5,
        xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
        annotation_clip=False,
    )  # fmt: skip


def _rounded(value: float, span: float) -> str:
    """Return a number with the digits that can be told apart on an axis."""
    digits = int(np.clip(2 - np.floor(np.log10(span / 2)), 0, 6))
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
