"""Accuracy and the distillation loss over the epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from mmkd_logit.lab.report.curves import Curve, Scalars, by_epoch, by_validation, over_seeds
from mmkd_logit.lab.report.data import ExperimentFile
from mmkd_logit.lab.report.runs import (
    Group,
    LoggedLine,
    describe_lines,
    draw_panel,
    group_runs,
    log_scale,
    numbers_of,
    read_lines,
)
from mmkd_logit.lab.report.style import Drawing, new_figure

_PAPER = (
    "The paper draws no learning curves. Its grid says that students at large tau end with lower "
    "training and higher test accuracy than those at tau = 1 (CIFAR-100; read in a source)."
)
_TOP1 = "accuracy/top1"
_PANELS: dict[str, tuple[str, str]] = {
    "batch_top1": ("training", "top-1 (%)"),
    _TOP1: ("validation", "top-1 (%)"),
    "loss_kd": ("distillation loss", "loss (log scale)"),
}


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw one figure for each row of a table, or one of a list."""
    groups = group_runs(experiment.record)
    found = []
    for group, lines in zip(groups, read_lines(experiment, groups), strict=True):
        curves = {name: _curves(lines, name) for name in _PANELS}
        curves = {name: each for name, each in curves.items() if each}
        if curves:
            found.append(_draw(experiment, group, lines, curves))
    return found


def _curves(lines: Sequence[LoggedLine], name: str) -> dict[str, Curve]:
    found = {}
    for line in lines:
        runs = [_values(scalars, name) for scalars in line.scalars if name in scalars]
        curve = over_seeds(runs)
        if curve is not None:
            found[line.label] = curve
    return found


def _values(scalars: Scalars, name: str) -> dict[float, float]:
    if name == _TOP1:
        return by_validation(scalars, name)
    return by_epoch(scalars, name, last=name == "batch_top1")


def _draw(
    experiment: ExperimentFile,
    group: Group,
    lines: Sequence[LoggedLine],
    curves: Mapping[str, dict[str, Curve]],
) -> Drawing:
    figure = new_figure(height=3.2)
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    numbers: dict[str, Any] = {}
    tested = ""
    for axes, (name, found) in zip(panels, curves.items(), strict=True):
        draw_panel(axes, lines, found, *_PANELS[name])
        numbers[name] = numbers_of(found)
        if name == "loss_kd":
            log_scale(axes, found.values())
        if name == _TOP1:
            numbers["test"] = _mark_tests(axes, lines)
            if numbers["test"]:
                axes.set_title("validation; open: test")
                tested = "Open markers: test data, weights after the last epoch, nothing selected."
    return describe_lines(
        experiment,
        group,
        lines,
        curves,
        figure,
        part="learning-curves",
        title="Learning curves:",
        what=_what(curves),
        paper=_PAPER,
        numbers=numbers,
        more=tested,
    )


def _mark_tests(axes: Axes, lines: Sequence[LoggedLine]) -> dict[str, float]:
    """Mark what the last weights reach on the test data, at the end of each curve."""
    found = {}
    for line in lines:
        values = [(run["row"].get("test") or {}).get(_TOP1, math.nan) for run in line.runs]
        epochs = [run["epochs"] for run in line.runs if run.get("epochs")]
        if not epochs or not math.isfinite(sum(values)):
            continue
        found[line.label] = sum(values) / len(values)
        axes.plot(
            max(epochs),
            found[line.label],
            line.look.marker,
            mfc="none",
            mec=line.look.color,
            ms=7,
            clip_on=False,
            zorder=4,
        )
    return found


def _what(curves: Mapping[str, Any]) -> str:
    parts = {
        "batch_top1": "top-1 accuracy in percent on the augmented training images as they passed, "
        "over each epoch",
        _TOP1: "on the validation data after each epoch",
        "loss_kd": "the distillation loss (natural logarithms, before alpha) in training, mean of "
        "the log lines of each epoch",
    }
    told = "; ".join(parts[name] for name in curves)
    return f"{told[0].upper()}{told[1:]}. Mean over seeds"
