"""Two methods over the same seeds."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


def paired_difference(
    first: Sequence[float], second: Sequence[float]
) -> tuple[float, float, float, float]:
    """Compare two methods over the same seeds with a paired t-test.

    Args:
        first: One number for each of n seeds, at least 2.
        second: The same seeds.

    Returns:
        Mean of first - second, the ends of its 95 % interval, and the two-sided p-value.

    Raises:
        ValueError: If the lengths differ or n is below 2.

    Example:
        >>> mean, low, high, p = paired_difference([3.0, 4.0, 6.0], [1.0, 3.0, 4.0])
        >>> round(mean, 3), round(low, 3), round(high, 3), round(p, 3)
        (1.667, 0.232, 3.101, 0.038)
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"need the same 2 or more seeds, got {len(first)} and {len(second)}")
    difference = np.subtract(first, second)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    if error < 1e-9:  # rounding
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = error * float(stats.t.ppf(0.975, len(difference) - 1))
    p = 2 * float(stats.t.sf(abs(mean) / error, len(difference) - 1))
    return mean, mean - half, mean + half, p
