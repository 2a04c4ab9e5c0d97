"""The plane through the templates of three classes, and how classes lie on it.

Mueller, Kornblith and Hinton, "When does label smoothing help?", NeurIPS 2019, section 2: a class's
template is its row of the last layer.
"""

from typing import NamedTuple

import numpy as np


class TemplatePlane(NamedTuple):
    """A plane in the space of pre-logits.

    Attributes:
        origin: The mean of the three templates, (D,).
        axes: Two orthonormal directions, (2, D): the first leads from the first template to the
            second, and the third lies on the positive side of the second.
    """

    origin: np.ndarray
    axes: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates on the plane of the feet of points, (N, 2).

        Args:
            points: (N, D).
        """
        return (points.astype(np.float64) - self.origin) @ self.axes.T


def template_plane(templates: np.ndarray) -> TemplatePlane:
    """Find the plane through three templates.

    Args:
        templates: (3, D).

    Raises:
        ValueError: If they lie on a line.
    """
    templates = templates.astype(np.float64)
    first, second = templates[1] - templates[0], templates[2] - templates[0]
    lengths = [float(np.linalg.norm(side)) for side in (first, second)]
    if min(lengths) > 0:
        first = first / lengths[0]
        second = second - (second @ first) * first
        second = second - (second @ first) * first  # what rounding left
        rest = float(np.linalg.norm(second))
        if rest > 1e-6 * lengths[1]:
            return TemplatePlane(templates.mean(0), np.stack([first, second / rest]))
    raise ValueError("the templates of the three classes lie on a line: there is no plane of them")


def spread(points: np.ndarray, groups: np.ndarray) -> float:
    r"""Return how wide classes are, seen against how far apart they are.

    .. math:: \frac{\frac{1}{C} \sum_c \mathrm{tr}\, S_c}
        {\binom{C}{2}^{-1} \sum_{c < d} \lVert m_c - m_d \rVert^2}

    :math:`m_c` is the mean and :math:`S_c` the covariance (over n, not n - 1) of the points of
    class :math:`c`. It has no unit, and turning, moving or scaling all points leaves it as it is.

    Args:
        points: (N, 2).
        groups: The class of each point, (N,), at least two classes.
    """
    parts = [points[groups == group] for group in np.unique(groups)]
    means = np.stack([part.mean(0) for part in parts])
    within = np.mean([part.var(0).sum() for part in parts])
    first, second = np.triu_indices(len(parts), 1)
    between = np.mean(np.sum((means[first] - means[second]) ** 2, 1))
    return float(within / between) if between > 0 else float("nan")


def elongation(points: np.ndarray, groups: np.ndarray) -> float:
    r"""Return how long classes are, seen against their width.

    .. math:: \frac{1}{C} \sum_c \sqrt{\lambda_1(S_c) / \lambda_2(S_c)}

    :math:`\lambda_1 \ge \lambda_2` are the variances of class :math:`c` along its principal axes:
    1 for a round cloud. It has no unit, as :func:`spread`.

    Args:
        points: (N, 2).
        groups: The class of each point, (N,).

    Returns:
        NaN where a class has less than three points, or no width.
    """
    return float(np.mean([_ratio(points[groups == group]) for group in np.unique(groups)]))


def _ratio(points: np.ndarray) -> float:
    if len(points) < 3:
        return float("nan")
    # Of the points themselves: their covariance would square away half of the digits.
    long, short = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return float(long / short) if short > 1e-12 * long else float("nan")
