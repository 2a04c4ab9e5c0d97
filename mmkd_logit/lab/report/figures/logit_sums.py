"""Histograms of summed logits."""

import numpy as np

from mmkd_logit.lab.report.data import ExperimentFile
from mmkd_logit.lab.report.samples import (
    Samples,
    describe_pooled,
    draw_pooled,
    dumped_samples,
    gather,
    pooled_panels,
)
from mmkd_logit.lab.report.style import Drawing

_BINS = 80
_PAPER = (
    "The paper shows histograms of the magnitude of the summed logits of teacher and students on "
    "the training set. KL at τ = ∞ is MSE / 2K less the squared difference of the two sums / 2K², "
    "so it leaves the student's sum free, where MSE draws it to the teacher's."
)


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw the sums of logits of each family of students of an experiment."""
    return [_draw(samples[0]) for samples in dumped_samples(experiment)]


def _sums(logits: np.ndarray) -> dict[str, np.ndarray]:
    total = logits.sum(1, dtype=np.float64)
    return dict(magnitude=np.abs(total), signed=total)


def _draw(samples: Samples) -> Drawing:
    found = gather(samples, lambda s: _sums(s.dump.logits), lambda t: _sums(t.logits))
    labels = ["|sum of a sample's logits|", "sum of a sample's logits"]
    figure, (left, right) = pooled_panels(len(found["signed"]), labels)
    draw_pooled(left, found["magnitude"], bins=_BINS, floor=0.0)
    draw_pooled(right, found["signed"], names=False, bins=_BINS, zero=True)
    return describe_pooled(
        [samples],
        found,
        figure,
        part="logit-sums",
        title="Sums of logits",
        what="Histograms of the sum over classes of each sample's logits, its magnitude on the "
        "left; each is scaled to its own peak, black ticks are medians",
        paper=_PAPER,
    )
