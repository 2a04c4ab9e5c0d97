"""Numbers of each sample, by method and seed, and their densities one below the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._density import common_range, smooth_density, summarize
from ._ridges import Ridge, draw_ridges, rounded
from ._samples import Samples, Student, Teacher
from .style import TEACHER, Look, new_figure

Measure = Mapping[str, np.ndarray | None]


@dataclass
class Pooled:
    """A quantity of every sample under one method.

    Attributes:
        name: Of the method, or ``'teacher'``.
        look: Of it.
        by_seed: The values, (N,), by seed.
    """

    name: str
    look: Look
    by_seed: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def finite(self) -> np.ndarray:
        """Those of all seeds that are finite."""
        values = np.concatenate([np.empty(0), *self.by_seed.values()])
        return values[np.isfinite(values)]

    @property
    def not_finite(self) -> int:
        """How many are not."""
        return sum(int(len(v) - np.isfinite(v).sum()) for v in self.by_seed.values())

    def numbers(self) -> dict[str, Any]:
        """Return the statistics of all seeds and of each."""
        seeds = {seed: summarize(values) for seed, values in sorted(self.by_seed.items())}
        pooled = summarize(np.concatenate([np.empty(0), *self.by_seed.values()]))
        return dict(pooled=pooled, seeds=seeds)


def gather(
    samples: Samples,
    of_student: Callable[[Student], Measure],
    of_teacher: Callable[[Teacher], Measure],
) -> dict[str, list[Pooled]]:
    """Measure every sample of every dump, one dump at a time.

    Args:
        samples: The dumps.
        of_student: Gives quantities by name, (N,), or None where a dump has not what it takes.
        of_teacher: The same for the teacher of a seed.

    Returns:
        By quantity, the teacher and then the methods, those without values too.

    Raises:
        ValueError: If a dump cannot be read, or is of other weights than the run's.
        FileNotFoundError: If a dump is gone.
    """
    names = ["teacher", *(method.name for method in samples.family.methods)]
    looks = [TEACHER, *(method.look for method in samples.family.methods)]
    found: dict[str, dict[str, Pooled]] = {}

    def note(name: str, seed: int, measure: Measure) -> None:
        for quantity, values in measure.items():
            rows = found.setdefault(
                quantity, {n: Pooled(n, k) for n, k in zip(names, looks, strict=True)}
            )
            if values is not None:
                rows[name].by_seed[seed] = values

    for seed in samples.family.seeds:
        for student in samples.students(seed):
            note(student.method.name, seed, of_student(student))
        teacher = samples.teacher(seed)
        if teacher is not None:
            note("teacher", seed, of_teacher(teacher))
    return {quantity: list(rows.values()) for quantity, rows in found.items()}


def pooled_panels(
    rows: int, labels: Sequence[str], heads: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels for :func:`draw_pooled` beside each other.

    Args:
        rows: In each.
        labels: Of the x axes.
        heads: Written above the panels, if anything.
    """
    figure = new_figure(0.9 + 0.2 * bool(heads) + 0.42 * rows)
    panels = list(figure.subplots(1, len(labels), squeeze=False)[0])
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label)
    for axes, head in zip(panels, heads, strict=False):
        axes.set_title(head, loc="left")
    return figure, panels


def draw_pooled(
    axes: Axes,
    rows: Sequence[Pooled],
    names: bool = True,
    bins: int = 0,
    floor: float | None = None,
    empty: str = "not dumped",
    zero: bool = False,
) -> None:
    """Draw one quantity: a density or a histogram a row, with its median.

    Args:
        axes: Where.
        rows: From above.
        names: Whether they are named here.
        bins: Of the histograms; 0 for densities by Gaussian kernels.
        floor: What no value can be below.
        empty: Written where there are no values.
        zero: Whether a line stands at 0, where the sign changes.
    """
    low, high = common_range([row.finite for row in rows], floor=floor)
    ridges = []
    for row in rows:
        values = row.finite
        if not len(values):
            ridges.append(Ridge(row.name, row.look))
            axes.annotate(
                "no finite value" if row.not_finite else empty,
                (0.02, -len(ridges) + 1.15), xycoords=("axes fraction", "data"),
                fontsize=7.5, color="#777777",
            )  # fmt: skip
            continue
        median = float(np.median(values))
        if bins:
            y, x = np.histogram(values, bins, (low, high))
        else:
            x, y = smooth_density(values, low, high, floor=floor)
        ridges.append(Ridge(row.name, row.look, x, y, median, rounded(median, high - low)))
    draw_ridges(axes, ridges, names, head="median")
    if zero:
        axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)
