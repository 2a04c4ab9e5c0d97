"""Densities of many values on a grid, and what to say of them in numbers."""

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import gaussian_filter1d

QUANTILES = dict(q05=0.05, q25=0.25, median=0.5, q75=0.75, q95=0.95)
_FINE = 8  # cells that values are counted in, for each distance of two points


def bandwidth(values: np.ndarray) -> float:
    r"""Return Silverman's width of a Gaussian kernel.

    :math:`0.9 \min(s, \mathrm{IQR} / 1.349)\, n^{-1/5}`, of the standard deviation alone where
    the quartiles coincide.

    Args:
        values: (N,), finite.
    """
    deviation = float(np.std(values))
    quartiles = np.subtract(*np.percentile(values, [75, 25])) / 1.349
    return 0.9 * float(min(deviation, quartiles or deviation)) * len(values) ** -0.2


def smooth_density(
    values: np.ndarray, low: float, high: float, points: int = 256, floor: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate a density by Gaussian kernels; the time does not grow with N times points.

    Values outside the range count in the whole, whose area is 1.

    Args:
        values: (N,), finite.
        low: Where the grid begins.
        high: Where it ends.
        points: Number of its points.
        floor: Below this there can be no values; what a kernel puts there is reflected.

    Returns:
        The points and the density there.
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
    """Return a range that holds nearly all values of every group.

    Args:
        groups: Of finite values; empty ones do not count, and if all are it is from 0 to 1.
        outside: The share of a group that may lie beyond either end.
        floor: Where the range begins, if not where the values do.
    """
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
    """Return number, mean, standard deviation and quantiles of values.

    Args:
        values: (N,), of which those that are not finite are only counted.
    """
    finite = values[np.isfinite(values)]
    summary: dict[str, float | int] = dict(n=len(finite), not_finite=len(values) - len(finite))
    if len(finite):
        summary |= dict(mean=float(finite.mean()), std=float(finite.std()))
        found = np.quantile(finite, list(QUANTILES.values()))
        summary |= {name: float(value) for name, value in zip(QUANTILES, found, strict=True)}
    return summary
