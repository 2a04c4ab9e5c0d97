"""Pre-logits of three classes on the plane of their templates.

As Mueller, Kornblith and Hinton draw them, "When does label smoothing help?", NeurIPS 2019,
section 2: a class's template is its row of the last layer. How tight classes are on the plane is
said by two numbers, :func:`spread` and :func:`elongation`.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.spatial.distance import pdist

from ..data import Dump, Experiment
from ..densities import Row
from ..samples import LOGITS, Samples, describe, samples_of
from ..style import CLASSES, Drawing, mean_text, name_panel, panel_blocks, say_empty

NEEDS = LOGITS
WORK_FOLDERS = True
_MOST = 300  # points of a class in a panel
_PAPER = (
    "For apple, aquarium fish and baby of CIFAR-100 (classes 0, 1, 2) the paper shows clusters "
    "that are elongated for students by KL, and like the teacher's for those by MSE."
)


class TemplatePlane(NamedTuple):
    """The plane through the templates of three classes.

    The first axis leads from the first template to the second; the third template lies on the
    positive side of it.
    """

    origin: np.ndarray  # the mean of the templates, (D,)
    axes: np.ndarray  # orthonormal, (2, D)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the coordinates on the plane of the feet of points, (N, 2)."""
        return (points.astype(np.float64) - self.origin) @ self.axes.T


def template_plane(templates: np.ndarray) -> TemplatePlane:
    """Find the plane through three templates, (3, D)."""
    templates = templates.astype(np.float64)
    sides = templates[1:] - templates[0]
    directions, heights = np.linalg.qr(sides.T)
    heights = np.diag(heights)  # of the second and third template over what precedes them
    if (np.abs(heights) <= 1e-6 * np.linalg.norm(sides, axis=1)).any():
        raise ValueError("the templates of the three classes lie on a line, so they span no plane")
    return TemplatePlane(templates.mean(0), (directions * np.sign(heights)).T)


def spread(points: np.ndarray, groups: np.ndarray) -> float:
    r"""Return how wide classes are, relative to how far apart they are.

    .. math:: \frac{\frac{1}{C} \sum_c \mathrm{tr}\, S_c}
        {\binom{C}{2}^{-1} \sum_{c < d} \lVert m_c - m_d \rVert^2}

    :math:`m_c` is the mean and :math:`S_c` the covariance (over n, not n - 1) of the points of
    class :math:`c`. It has no unit; turning, moving or scaling all points does not change it.
    """
    parts = [points[groups == group] for group in np.unique(groups)]
    within = np.mean([part.var(0).sum() for part in parts])
    between = pdist([part.mean(0) for part in parts], "sqeuclidean").mean()
    return float(within / between) if between > 0 else float("nan")


def elongation(points: np.ndarray, groups: np.ndarray) -> float:
    r"""Return how long classes are, relative to their width.

    .. math:: \frac{1}{C} \sum_c \sqrt{\lambda_1(S_c) / \lambda_2(S_c)}

    :math:`\lambda_1 \ge \lambda_2` are the variances of class :math:`c` along its principal axes:
    1 for a round cloud. It has no unit, as :func:`spread`.
    """
    parts = [points[groups == group] for group in np.unique(groups)]
    if min(map(len, parts)) < 3:
        return float("nan")
    # Of the points themselves: their covariance would square away half of the digits.
    axes = [np.linalg.svd(part - part.mean(0), compute_uv=False) for part in parts]
    flat = any(short <= 1e-12 * long for long, short in axes)
    return float("nan") if flat else float(np.mean([long / short for long, short in axes]))


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw the pre-logits of each group of students of an experiment."""
    found = [(samples, _choose_classes(samples)) for samples in samples_of(experiment)]
    return [_draw(samples, classes) for samples, classes in found if len(classes) == 3]


def _choose_classes(samples: list[Samples]) -> dict[int, str]:
    """Return the first three classes with at least three samples in each split, and their names."""
    dumps = [next(d for seed in s.group.seeds for _, d in s.students(seed)) for s in samples]
    counts = [np.bincount(d.clean_label, minlength=d.logits.shape[1]) for d in dumps]
    chosen = np.flatnonzero(np.min(counts, axis=0) >= 3)[:3].tolist()
    known = dumps[0].classes
    names = {k: "" if known is None else str(known[k]).replace("_", " ") for k in chosen}
    return {k: f"class {k}" if name in ("", str(k)) else name for k, name in names.items()}


class _Cloud:
    """Samples of three classes on the plane of their templates."""

    def __init__(self, points: np.ndarray, groups: np.ndarray) -> None:
        self.points = points  # (N, 2)
        self.groups = groups  # which of the three classes each is of, (N,)
        self.numbers = dict(
            spread=spread(points, groups), elongation=elongation(points, groups), n=len(points)
        )


def _project(
    network: Dump, teacher_logits: np.ndarray | None, classes: list[int]
) -> dict[str, Any]:
    """Return what a network makes of the three classes, or why there is nothing."""
    prelogits, weight, label = network.prelogits, network.weight, network.clean_label
    if prelogits is None or weight is None:
        return dict(cloud=None, reason="pre-logits not dumped")
    chosen = np.isin(label, classes) & np.isfinite(prelogits).all(1)
    if np.bincount(label[chosen], minlength=len(weight))[classes].min() < 3:
        return dict(cloud=None, reason="too few finite pre-logits")
    try:
        points = template_plane(weight[classes]).project(prelogits[chosen])
    except ValueError:
        return dict(cloud=None, reason="the templates lie on a line")
    return dict(cloud=_Cloud(points, np.searchsorted(classes, label[chosen])), reason=None)


def _draw(samples: list[Samples], classes: dict[int, str]) -> Drawing:
    measure = partial(_project, classes=list(classes))
    found = {each.split: each.measure(measure) for each in samples}
    count = len(samples[0].group.methods) + 1
    figure, blocks = panel_blocks([s.split_name.capitalize() for s in samples], count, 2.05)
    for place in range(count):
        rows = [each["cloud"][place] for each in found.values()]
        limits = _limits([row.by_seed[min(row.by_seed)].points for row in rows if row.by_seed])
        for block, each in zip(blocks, found.values(), strict=True):
            _draw_panel(block[place], each["cloud"][place], limits, each["reason"][place])
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=name)
        for (color, marker), name in zip(CLASSES, classes.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    rows = [row for each in found.values() for row in each["cloud"] if row.by_seed]
    first = min((min(row.by_seed) for row in rows), default=0)
    later = {row.name: min(row.by_seed) for row in rows if min(row.by_seed) != first}
    return describe(
        samples,
        figure,
        {split: each["cloud"] for split, each in found.items()},
        part="templates",
        title="Pre-logits on the plane of three templates",
        what="Pre-logits of the samples of three classes "
        f"({', '.join(classes.values())}), projected on the plane "
        "through these classes' rows of the last layer, in units of the pre-logits; at most "
        f"{_MOST} of a class are drawn. Spread: mean over classes of the trace of their "
        "covariance / mean squared distance between class means; elongation: mean over classes "
        "of the ratio of the larger to the smaller principal standard deviation; both of all "
        "points on the plane, without units, and at least 0 and 1",
        paper=_PAPER,
        summary=lambda row: {seed: cloud.numbers for seed, cloud in row.by_seed.items()},
        notes=[f"{name} is drawn of seed {seed}" for name, seed in later.items()],
        how=f", numbers are means ± standard deviation; the points are of seed {first}",
        classes=classes,
    )


def _draw_panel(axes: Axes, row: Row, limits: np.ndarray, reason: Row) -> None:
    name_panel(axes, row.name, row.look)
    axes.set_aspect("equal")
    if not row.by_seed:
        axes.set(xticks=[], yticks=[])
        say_empty(axes, next(reversed(reason.by_seed.values()), "not dumped"))
        return
    cloud = row.by_seed[min(row.by_seed)]
    generator = np.random.default_rng(0)
    for group, (color, marker) in enumerate(CLASSES):
        points = cloud.points[cloud.groups == group]
        if len(points) > _MOST:
            points = points[generator.choice(len(points), _MOST, replace=False)]
        axes.plot(
            *points.T, marker, color=color, markersize=2.6, alpha=0.55, markeredgewidth=0,
            rasterized=True,
        )  # fmt: skip
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.locator_params(nbins=4)
    numbers = [each.numbers for each in row.by_seed.values()]
    wide, long = (mean_text([n[name] for n in numbers]) for name in ("spread", "elongation"))
    axes.set_xlabel(f"spread {wide}\nelongation {long}", fontsize=7.5)


def _limits(clouds: list[np.ndarray]) -> np.ndarray:
    """Return a square around nearly all points, (2, 2): the same for all splits of a method."""
    if not clouds:
        return np.array([[0.0, 1.0], [0.0, 1.0]])
    low, high = np.quantile(np.concatenate(clouds), [0.002, 0.998], axis=0)
    half = 0.57 * max(float((high - low).max()), 1e-6)
    return np.stack([(low + high) / 2 - half, (low + high) / 2 + half], 1)
