"""Histograms of summed logits."""

import numpy as np

from ..data import Dump, Experiment
from ..densities import Panel, draw_rows, not_finite
from ..samples import LOGITS, Samples, describe, samples_of
from ..style import Drawing

NEEDS = LOGITS
WORK_FOLDERS = True
_BINS = 80
_PAPER = (
    "The paper shows histograms of the magnitude of the summed logits of teacher and students on "
    "the training set. KL at τ = ∞ is MSE / 2K less the squared difference of the two sums / 2K², "
    "so it leaves the student's sum free, where MSE draws it to the teacher's."
)


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw the sums of logits of each group of students of an experiment."""
    return [_draw(samples[0]) for samples in samples_of(experiment)]


def _sums(network: Dump, teacher_logits: np.ndarray | None) -> dict[str, np.ndarray]:
    total = network.logits.sum(1, dtype=np.float64)
    return dict(magnitude=np.abs(total), signed=total)


def _draw(samples: Samples) -> Drawing:
    found = samples.measure(_sums)
    figure = draw_rows(
        Panel(found["magnitude"], "|sum of a sample's logits|", bins=_BINS, floor=0.0),
        Panel(found["signed"], "sum of a sample's logits", bins=_BINS, zero=True),
    )
    return describe(
        [samples],
        figure,
        found,
        part="logit-sums",
        title="Sums of logits",
        what="Histograms of the sum over classes of each sample's logits, its magnitude on the "
        "left; each is scaled to its own peak, black ticks are medians",
        paper=_PAPER,
        notes=not_finite(found),
    )
