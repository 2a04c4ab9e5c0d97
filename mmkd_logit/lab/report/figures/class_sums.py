"""The last layer's sum over classes in training."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..curves import (
    PREDICTED,
    Curves,
    Panel,
    by_iteration,
    by_validation,
    draw_curves,
    read_curves,
)
from ..data import Experiment, Scalars
from ..groups import Group, Run, group_by_row
from ..style import Drawing

NEEDS = (
    "runs by MSE beside others that logged classifier/sum_norm: training does with --cfg-options "
    "default_hooks.classifier_sum.type=mmkd_logit.ClassifierSumHook"
)
WORK_FOLDERS = True
_PAPER = (
    "The paper shows no such curves, only histograms of summed logits. The prediction is derived "
    "(C): KL, at any temperature, and CE do not change when a constant is added to all logits, so "
    "their gradients sum to 0 over classes; MSE sees that constant and pulls it to the teacher's."
)
_NORM, _PREDICTED = "classifier/sum_norm", "classifier/sum_predicted"
_OFF, _LOGITS = "classifier/sum_deviation", "logits/sum_deviation"
_BIAS = "classifier/bias_sum"
_PANELS = {
    _NORM: Panel(
        "sum of the weights",
        "norm ‖s‖, share of first",
        "its norm, as a share of what is predicted at the first log line",
    ),
    _OFF: Panel(
        "sum of the weights, off the prediction",
        "distance, share of first ‖s‖",
        "its distance from the prediction, as a share of its first norm (float32 rounds at about "
        "1e-7)",
        log=True,
    ),
    _BIAS: Panel(
        "sum of the biases",
        "sum, in logits",
        "the sum of the biases, which no decay moves, in units of the logits",
    ),
    _LOGITS: Panel(
        "summed logits, off the teacher's",
        "mean |Σu − Σv|, in logits",
        "the distance of the sums of student's and teacher's logits u and v of an image, mean "
        "over the validation data",
        log=True,
    ),
}


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw one figure for each row of a table in which some loss sees the sum of logits.

    Of runs outside any experiment all are drawn.
    """
    groups = group_by_row(experiment.record)
    least = 1
    if not experiment.record.get("outside"):
        groups, least = [group for group in groups if _has_contrast(group)], 2
    return [
        _draw(experiment, group, curves)
        for group, curves in read_curves(experiment, groups, _values)
        # Where the teacher alone logged them, they compare nothing.
        if any(len(curves.get(name, ())) >= least for name in (_NORM, _OFF, _BIAS))
    ]


def _has_contrast(group: Group) -> bool:
    known = {"ce": True, "kl": True, "mse": False}
    hows = [run["method"] for run in group.runs]
    return {True, False} <= {how.get("shift_invariant", known.get(how["kind"])) for how in hows}


def _values(run: Run, scalars: Scalars) -> dict[str, dict[float, float]]:
    """Return what a run logged of the sums, norms relative to the first prediction."""
    row = run["row"]
    known = row.get("iterations") and row["epochs"]
    per_epoch = row["iterations"] / row["epochs"] if known else None
    names = [name for name in (_NORM, _PREDICTED, _OFF, _BIAS) if name in scalars]
    found = {name: by_iteration(scalars, name, per_epoch) for name in names}
    if _LOGITS in scalars:
        found[_LOGITS] = by_validation(scalars, _LOGITS)
    begin = next(iter(found.get(_PREDICTED, {}).values()), 0.0)
    for name in (_NORM, _PREDICTED):
        values = found.pop(name, {})
        if values and begin > 0:  # not so if weights began as zeros, or the log lacks the beginning
            found[name] = {epoch: value / begin for epoch, value in values.items()}
    return found


def _draw(experiment: Experiment, group: Group, curves: Curves) -> Drawing:
    return draw_curves(
        experiment,
        group,
        curves,
        _PANELS,
        partial(_draw_predicted, curves.get(_PREDICTED, {})),
        part="class-sums",
        title="Does the last layer's sum over classes learn?",
        what="The sum s over classes of the last layer's weights while they are trained: {panels}. "
        "Dotted: what weight decay alone makes of it, by the recursion of SGD from the first "
        "weights on. Values after the iteration of each log line, mean over seeds",
        paper=_PAPER,
        predicted="weight decay alone",
    )


def _draw_predicted(predicted: Mapping[str, Any], panels: dict[str, Axes]) -> str:
    if _NORM in panels:  # the predictions for one schedule are equal
        for curve in {tuple(np.round(c.mean, 6)): c for c in predicted.values()}.values():
            panels[_NORM].plot(curve.epochs, curve.mean, zorder=4, **PREDICTED)
    if _BIAS in panels:
        panels[_BIAS].axhline(0, zorder=4, **PREDICTED)
    if _OFF in panels:  # over so many decades they are a blur
        panels[_OFF].minorticks_off()
    return ""
