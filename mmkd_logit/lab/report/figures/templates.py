"""Pre-logits of three classes on the plane of their templates."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmkd_logit.lab.report.data import Dump, ExperimentFile
from mmkd_logit.lab.report.samples import Samples, Teacher, describe, dumped_samples, split_name
from mmkd_logit.lab.report.style import (
    CLASSES,
    TEACHER,
    Drawing,
    Look,
    mean_text,
    name_panel,
    panel_blocks,
    say_empty,
)

# The plane through the templates of three classes, and how classes lie on it.
#
# Mueller, Kornblith and Hinton, "When does label smoothing help?", NeurIPS 2019, section 2: a
# class's template is its row of the last layer.


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
        """Return the coordinates on the plane of the feet of points, (N, 2)."""
        return (points.astype(np.float64) - self.origin) @ self.axes.T


def template_plane(templates: np.ndarray) -> TemplatePlane:
    """Find the plane through three templates."""
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
    """
    return float(np.mean([_ratio(points[groups == group]) for group in np.unique(groups)]))


def _ratio(points: np.ndarray) -> float:
    if len(points) < 3:
        return float("nan")
    # Of the points themselves: their covariance would square away half of the digits.
    long, short = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return float(long / short) if short > 1e-12 * long else float("nan")


# Pre-logits of three classes on the plane of their templates, as Mueller et al. (2019) draw them.
#
# How tight classes are is told by two numbers, of the points on the plane: the spread within
# classes (:func:`~mmkd_logit.lab.report.figures.templates.spread`) and their elongation
# (:func:`~mmkd_logit.lab.report.figures.templates.elongation`).


_MOST = 300  # points of a class in a panel
_PAPER = (
    "For apple, aquarium fish and baby of CIFAR-100 (classes 0, 1, 2) the paper shows clusters "
    "that are elongated for students by KL, and like the teacher's for those by MSE."
)


@dataclass
class _Cloud:
    """What one panel shows: a method on a split.

    Attributes:
        name: Of the method.
        look: Of it.
        points: Of the seed that is drawn, (N, 2).
        groups: Which of the three classes each is of, (N,).
        corners: The three templates on the plane, (3, 2).
        drawn: That seed.
        seeds: Spread, elongation and number of points, by seed.
        reason: Why there is nothing.
    """

    name: str
    look: Look
    points: np.ndarray | None = None
    groups: np.ndarray | None = None
    corners: np.ndarray | None = None
    drawn: int | None = None
    seeds: dict[int, dict[str, float]] = field(default_factory=dict)
    reason: str = "not dumped"


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw the pre-logits of each family of students of an experiment."""
    drawings = []
    for samples in dumped_samples(experiment):
        classes = _choose_classes(samples)
        if len(classes) == 3:
            drawings.append(_draw(samples, classes))
    return drawings


def _choose_classes(samples: list[Samples]) -> dict[int, str]:
    """Return the first three classes with at least three samples in each split, and their names."""
    common: set[int] | None = None
    names: dict[int, str] = {}
    for split in samples:
        for student in split.students():
            dump = student.dump
            counts = np.bincount(dump.clean_label, minlength=dump.logits.shape[1])
            usable = {int(k) for k in np.flatnonzero(counts >= 3)}
            common = usable if common is None else common & usable
            if dump.classes is not None:
                names = {k: str(dump.classes[k]).replace("_", " ") for k in usable}
            break
    chosen = sorted(common or ())[:3]
    return {k: names.get(k, "").removeprefix(str(k)) or f"class {k}" for k in chosen}


def _clouds(samples: Samples, classes: list[int]) -> list[_Cloud]:
    methods = samples.family.methods
    found = {"teacher": _Cloud("teacher", TEACHER)}
    found.update({method.name: _Cloud(method.name, method.look) for method in methods})
    for seed in samples.family.seeds:
        for student in samples.students(seed):
            _add(found[student.method.name], seed, student.dump, classes)
        teacher = samples.teacher(seed)
        if teacher is not None:
            _add(found["teacher"], seed, teacher, classes)
    return list(found.values())


def _add(cloud: _Cloud, seed: int, network: Dump | Teacher, classes: list[int]) -> None:
    """Project what a network makes of the three classes."""
    prelogits, weight, label = network.prelogits, network.weight, network.clean_label
    if prelogits is None or weight is None:
        cloud.reason = "pre-logits not dumped"
        return
    chosen = np.isin(label, classes) & np.isfinite(prelogits).all(1)
    if np.bincount(label[chosen], minlength=len(weight))[classes].min() < 3:
        cloud.reason = "too few finite pre-logits"
        return
    try:
        plane = template_plane(weight[classes])
    except ValueError:
        cloud.reason = "the templates lie on a line"
        return
    points = plane.project(prelogits[chosen])
    groups = np.searchsorted(classes, label[chosen])
    cloud.seeds[seed] = dict(
        spread=spread(points, groups), elongation=elongation(points, groups), n=len(points)
    )
    if cloud.drawn is None:
        cloud.points, cloud.groups, cloud.drawn = points, groups, seed
        cloud.corners = plane.project(weight[classes])


def _draw(samples: list[Samples], classes: dict[int, str]) -> Drawing:
    clouds = {each.split: _clouds(each, list(classes)) for each in samples}
    count = len(next(iter(clouds.values())))
    heads = [split_name(split).capitalize() for split in clouds]
    figure, blocks = panel_blocks(heads, count, height=2.05)
    for place in range(count):
        column = [clouds[split][place] for split in clouds]
        limits = _limits([cloud.points for cloud in column if cloud.points is not None])
        for block, cloud in zip(blocks, column, strict=True):
            _draw_panel(block[place], cloud, limits)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=name)
        for (color, marker), name in zip(CLASSES, classes.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return _describe(samples, classes, clouds, figure)


def _draw_panel(axes: Axes, cloud: _Cloud, limits: np.ndarray) -> None:
    name_panel(axes, cloud.name, cloud.look)
    axes.set_aspect("equal")
    if cloud.points is None or cloud.groups is None or cloud.corners is None:
        axes.set_xticks([])
        axes.set_yticks([])
        say_empty(axes, cloud.reason)
        return
    generator = np.random.default_rng(0)
    for group, (color, marker) in enumerate(CLASSES):
        points = cloud.points[cloud.groups == group]
        if len(points) > _MOST:
            points = points[generator.choice(len(points), _MOST, replace=False)]
        axes.plot(
            *points.T, marker, color=color, markersize=2.6, alpha=0.55, markeredgewidth=0,
            rasterized=True,
        )  # fmt: skip
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    axes.locator_params(nbins=4)
    numbers = [
        mean_text([seed[name] for seed in cloud.seeds.values()])
        for name in ("spread", "elongation")
    ]
    axes.set_xlabel(f"spread {numbers[0]}\nelongation {numbers[1]}", fontsize=7.5)


def _limits(clouds: list[np.ndarray]) -> np.ndarray:
    """Return a square around nearly all points, (2, 2): the same for all splits of a method."""
    if not clouds:
        return np.array([[0.0, 1.0], [0.0, 1.0]])
    low, high = np.quantile(np.concatenate(clouds), [0.002, 0.998], axis=0)
    half = 0.57 * max(float((high - low).max()), 1e-6)
    return np.stack([(low + high) / 2 - half, (low + high) / 2 + half], 1)


def _describe(
    samples: list[Samples],
    classes: dict[int, str],
    clouds: dict[str, list[_Cloud]],
    figure: Figure,
) -> Drawing:
    every = [cloud for split in clouds.values() for cloud in split]
    drawn = {cloud.drawn for cloud in every if cloud.drawn is not None}
    seeds = {seed for cloud in every for seed in cloud.seeds}
    others = f"; the points are of seed {min(drawn)}" if len(seeds) > 1 else ""
    notes = [
        f"{cloud.name} is drawn of seed {cloud.drawn}"
        for cloud in every
        if cloud.drawn is not None and cloud.drawn != min(drawn)
    ]
    return describe(
        samples,
        figure,
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
        seeds=seeds,
        numbers=dict(
            classes=classes,
            cohesion={
                split: {cloud.name: cloud.seeds for cloud in found if cloud.seeds}
                for split, found in clouds.items()
            },
        ),
        notes=dict.fromkeys(notes),
        how=f", numbers are means ± standard deviation{others}",
    )
