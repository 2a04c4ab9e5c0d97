"""Accuracy and the distillation loss over the epochs."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from ..curves import (
    Curve,
    Curves,
    by_epoch,
    by_validation,
    describe_curves,
    draw_panels,
    log_scale,
    read_curves,
)
from ..data import Experiment, Scalars
from ..groups import Group, Run, group_by_row
from ..style import Drawing

NEEDS = "finished runs with their vis_data/scalars.json"
WORK_FOLDERS = True
_PAPER = (
    "The paper draws no learning curves. Its grid says that students at large tau end with lower "
    "training and higher test accuracy than those at tau = 1 (CIFAR-100; read in a source)."
)
_TOP1 = "accuracy/top1"
# By the scalar: title, unit, and what the caption says.
_PANELS = {
    "batch_top1": (
        "training",
        "top-1 (%)",
        "top-1 accuracy in percent on the augmented training images as they passed, over each "
        "epoch",
    ),
    _TOP1: ("validation", "top-1 (%)", "on the validation data after each epoch"),
    "loss_kd": (
        "distillation loss",
        "loss (log scale)",
        "the distillation loss (natural logarithms, before alpha) in training, mean of the log "
        "lines of each epoch",
    ),
}


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw one figure for each row of a table, or one of a list."""
    groups = group_by_row(experiment.record)
    found = zip(groups, read_curves(experiment, groups, _values), strict=True)
    return [_draw(experiment, group, curves) for group, curves in found if curves]


def _values(run: Run, scalars: Scalars) -> dict[str, dict[float, float]]:
    found = {}
    if "batch_top1" in scalars:
        found["batch_top1"] = by_epoch(scalars, "batch_top1", last=True)
    if _TOP1 in scalars:
        found[_TOP1] = by_validation(scalars, _TOP1)
    if "loss_kd" in scalars:
        found["loss_kd"] = by_epoch(scalars, "loss_kd")
    return found


def _draw(experiment: Experiment, group: Group, curves: Curves) -> Drawing:
    figure, panels, what = draw_panels(group, curves, _PANELS)
    if "loss_kd" in panels:
        log_scale(panels["loss_kd"], curves["loss_kd"].values())
    tests = _mark_tests(panels[_TOP1], group, curves[_TOP1]) if _TOP1 in panels else {}
    more = ""
    if tests:
        panels[_TOP1].set_title("validation; open: test")
        more = "Open markers: test data, weights after the last epoch, nothing selected."
    return describe_curves(
        experiment,
        group,
        curves,
        figure,
        part="learning-curves",
        title="Learning curves:",
        what=f"{what[0].upper()}{what[1:]}. Mean over seeds",
        paper=_PAPER,
        test=tests,
        more=more,
    )


def _mark_tests(axes: Axes, group: Group, curves: Mapping[str, Curve]) -> dict[str, float]:
    """Mark what the last weights reach on the test data, at the end of each curve."""
    found = {}
    for method in group.methods:
        runs = [run for run in method.runs.values() if run["epochs"] and run["row"].get("test")]
        if method.name in curves and runs:
            values = [run["row"]["test"].get(_TOP1, math.nan) for run in runs]
            mean, end = sum(values) / len(values), max(run["epochs"] for run in runs)
            if math.isfinite(mean):
                found[method.name] = mean
                kind: dict[str, Any] = dict(mfc="none", mec=method.look.color, ms=7, clip_on=False)
                axes.plot(end, mean, method.look.marker, zorder=4, **kind)
    return found
