"""Accuracy and the distillation loss over the epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from mmkd_logit.lab.report.curves import (
    Curve,
    Line,
    by_epoch,
    by_validation,
    describe_lines,
    draw_panel,
    log_scale,
    over_seeds,
    read_lines,
)
from mmkd_logit.lab.report.data import Experiment, Scalars
from mmkd_logit.lab.report.groups import Group, group_by_row
from mmkd_logit.lab.report.style import Drawing, new_figure

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
    found = []
    for group, lines in zip(groups, read_lines(experiment, groups), strict=True):
        curves = {name: _curves(lines, name) for name in _PANELS}
        curves = {name: each for name, each in curves.items() if each}
        if curves:
            found.append(_draw(experiment, group, lines, curves))
    return found


def _curves(lines: Sequence[Line], name: str) -> dict[str, Curve]:
    found = {}
    for line in lines:
        curve = over_seeds(_values(log, name) for log in line.scalars if name in log)
        if curve is not None:
            found[line.label] = curve
    return found


def _values(scalars: Scalars, name: str) -> dict[float, float]:
    if name == _TOP1:
        return by_validation(scalars, name)
    return by_epoch(scalars, name, last=name == "batch_top1")


def _draw(
    experiment: Experiment,
    group: Group,
    lines: Sequence[Line],
    curves: Mapping[str, dict[str, Curve]],
) -> Drawing:
    figure = new_figure(height=3.2)
    panels = dict(zip(curves, figure.subplots(1, len(curves), squeeze=False)[0], strict=True))
    for name, axes in panels.items():
        draw_panel(axes, lines, curves[name], *_PANELS[name][:2])
    if "loss_kd" in panels:
        log_scale(panels["loss_kd"], curves["loss_kd"].values())
    tests = _mark_tests(panels[_TOP1], lines) if _TOP1 in panels else {}
    if tests:
        panels[_TOP1].set_title("validation; open: test")
    what = "; ".join(_PANELS[name][2] for name in curves)
    return describe_lines(
        experiment,
        group,
        lines,
        curves,
        figure,
        part="learning-curves",
        title="Learning curves:",
        what=f"{what[0].upper()}{what[1:]}. Mean over seeds",
        paper=_PAPER,
        numbers=dict(test=tests) if _TOP1 in panels else {},
        more="Open markers: test data, weights after the last epoch, nothing selected."
        if tests
        else "",
    )


def _mark_tests(axes: Axes, lines: Sequence[Line]) -> dict[str, float]:
    """Mark what the last weights reach on the test data, at the end of each curve."""
    found = {}
    for line in lines:
        values = [(run["row"].get("test") or {}).get(_TOP1, math.nan) for run in line.runs]
        epochs = [run["epochs"] for run in line.runs if run["epochs"]]
        if not epochs or not math.isfinite(sum(values)):
            continue
        mean = found[line.label] = sum(values) / len(values)
        look = line.look
        kind: dict[str, Any] = dict(mfc="none", mec=look.color, ms=7, clip_on=False, zorder=4)
        axes.plot(max(epochs), mean, look.marker, **kind)
    return found
