"""Densities of the distance to the teacher's logits and of the pre-logits' norm."""

import numpy as np

from ..data import Dump, Experiment
from ..densities import Panel, draw_rows, not_finite
from ..samples import LOGITS, Samples, describe, samples_of
from ..style import Drawing

NEEDS = LOGITS
WORK_FOLDERS = True
_PAPER = (
    "On the training set the paper finds students by KL at small τ far from the teacher, those at "
    "large τ nearer and those by MSE nearest, and shows the norm of the pre-logits beside it."
)


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw the distances to the teacher of each group of students of an experiment.

    A student by cross-entropy, which has no teacher, is compared with the one of the others'
    same seed, on the same samples.
    """
    return [_draw(samples[0]) for samples in samples_of(experiment)]


def _norm(vectors: np.ndarray | None) -> np.ndarray | None:
    if vectors is None:
        return None
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def _norms(network: Dump, teacher_logits: np.ndarray | None) -> dict[str, np.ndarray | None]:
    apart = None if teacher_logits is None else network.logits - teacher_logits
    return dict(distance=_norm(apart), prelogit_norm=_norm(network.prelogits))


def _draw(samples: Samples) -> Drawing:
    found = samples.measure(_norms)
    distance, prelogit_norm = found.values()
    figure = draw_rows(
        Panel(distance, "‖u − v‖₂, student's logits to teacher's", floor=0.0, empty=""),
        Panel(prelogit_norm, "‖r‖₂, norm of the pre-logits", floor=0.0),
    )
    alone = [
        row.name
        for method, row in zip(samples.group.methods, distance[1:], strict=True)
        if method.runs and not row.by_seed and method.name not in samples.missing
    ]
    note = [f"no teacher's logits of the same samples for {', '.join(alone)}"] if alone else []
    return describe(
        [samples],
        figure,
        found,
        part="distances",
        title="Distance to the teacher",
        what="Densities (Gaussian kernels) of the distance between the student's logits u and the "
        "teacher's v, and of the length of the pre-logits r, the last layer's input; each is "
        "scaled to its own peak, black ticks are medians",
        paper=_PAPER,
        notes=[*not_finite(found), *note],
    )
