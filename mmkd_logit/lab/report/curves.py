"""Smoothed curves and densities."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from scipy.ndimage import gaussian_filter1d

from .style import Look

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Curve(NamedTuple):
    """Something over epochs.

    Attributes:
        epochs: Ascending.
        mean: Over seeds, there; what is no number for one seed is none for all.
        std: Sample standard deviation, or NaN for one seed.
        n: Seeds.
    """

    epochs: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    n: int


def by_epoch(scalars: Scalars, name: str, last: bool = False) -> dict[float, float]:
    """Return one value for each epoch of training, by its end."""
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    found: dict[float, float] = {}
    for epoch in np.unique(epochs):
        here = values[epochs == epoch]
        found[float(epoch)] = float(here[-1] if last else here.mean())
    return found


def by_iteration(scalars: Scalars, name: str, per_epoch: float | None) -> dict[float, float]:
    """Return every value that was logged in training, by the epoch as a broken number."""
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    if per_epoch is None:
        per_epoch = float(np.ceil((steps / epochs).max()))
    places = np.clip(steps / per_epoch, epochs - 1, epochs)
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def by_validation(scalars: Scalars, name: str) -> dict[float, float]:
    """Return what was logged after epochs."""
    steps, values = scalars[name]
    return dict(zip(steps.astype(float).tolist(), values.tolist(), strict=True))


def _epochs_at(scalars: Scalars, steps: np.ndarray) -> np.ndarray:
    """Return the epochs, from 1 on, that iterations were in."""
    if "epoch" not in scalars:
        raise ValueError(
            "the scalars lack 'epoch', which MMEngine logs in training; these are of a validation"
        )
    known, epochs = scalars["epoch"]
    place = np.searchsorted(known, steps)
    if place.max(initial=0) >= len(known) or not np.array_equal(known[place], steps):
        raise ValueError("some lines of the scalars lack 'epoch', which MMEngine logs in training")
    return epochs[place]


def over_seeds(runs: Sequence[Mapping[float, float]]) -> Curve | None:
    """Average over seeds, where all of them have a value; None if they share no epoch."""
    runs = [run for run in runs if run]
    shared = sorted(set(runs[0]).intersection(*runs[1:])) if runs else []
    if not shared:
        return None
    values = np.array([[run[epoch] for epoch in shared] for run in runs], float)
    values[~np.isfinite(values)] = np.nan
    std = values.std(0, ddof=1) if len(runs) > 1 else np.full(len(shared), np.nan)
    return Curve(np.array(shared), values.mean(0), std, len(runs))


# Densities of many values on a grid, and what to say of them in numbers.


QUANTILES = dict(q05=0.05, q25=0.25, median=0.5, q75=0.75, q95=0.95)
_FINE = 8  # cells that values are counted in, for each distance of two points


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
    """Estimate a density by Gaussian kernels; the time does not grow with N times points.

    Values outside the range count in the whole, whose area is 1.
    """
    cell = (high - low) / (points - 1) / _FINE
    # A kernel narrower than the distance of two points would fall between them.
    sigma = max(bandwidth(values) / cell, _FINE)
    margin = int(np.ceil(5 * sigma)) + 1
    count = (points - 1) * _FINE + 1
    edges = low + cell * (np.arange(-margin, count + margin + 1) - 0.5)
    counts = np.histogram(values, edges)[0].astype(float)
    if floor is not None:
        counts += np.histogram(2 * floor - values, edges)[0]
    smooth = gaussian_filter1d(counts, sigma, mode="constant", truncate=5)[margin:-margin:_FINE]
    grid = low + cell * _FINE * np.arange(points)
    if floor is not None:
        smooth[grid < floor] = 0
    return grid, smooth / (len(values) * cell)


def common_range(
    groups: Iterable[np.ndarray], outside: float = 0.002, floor: float | None = None
) -> tuple[float, float]:
    """Return a range that holds nearly all values of every group."""
    ends = [np.quantile(values, [outside, 1 - outside]) for values in groups if len(values)]
    if not ends:
        return 0.0, 1.0
    low, high = (float(end) for end in (np.min(ends), np.max(ends)))
    low = low if floor is None else floor
    if high <= low:  # all the same
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


# One row for each method, all over the same axis.


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
    """Return a number with the digits that can be told apart on an axis."""
    digits = int(np.clip(2 - np.floor(np.log10(span / 2)), 0, 6))
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
