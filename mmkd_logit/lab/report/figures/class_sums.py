"""The last layer's sum over classes in training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mmkd_logit.lab.report.curves import Curve, Scalars, by_iteration, by_validation, over_seeds
from mmkd_logit.lab.report.data import ExperimentFile
from mmkd_logit.lab.report.runs import (
    PREDICTED,
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
    "The paper shows no such curves, only histograms of summed logits. The prediction is derived "
    "(C): KL, at any temperature, and CE do not change when a constant is added to all logits, so "
    "their gradients sum to 0 over classes; MSE sees that constant and pulls it to the teacher's."
)
_NORM, _PREDICTED = "classifier/sum_norm", "classifier/sum_predicted"
_OFF, _LOGITS = "classifier/sum_deviation", "logits/sum_deviation"
_BIAS = "classifier/bias_sum"
_NAMES = (_NORM, _PREDICTED, _OFF, _BIAS, _LOGITS)
_PANELS: dict[str, tuple[str, str]] = {
    _NORM: ("sum of the weights", "norm ‖s‖, share of first"),
    _OFF: ("sum of the weights, off the prediction", "distance, share of first ‖s‖"),
    _BIAS: ("sum of the biases", "sum, in logits"),
    _LOGITS: ("summed logits, off the teacher's", "mean |Σu − Σv|, in logits"),
}
_POINTS = 300  # of a line; more are not seen


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw one figure for each row of a table in which some loss sees the sum of logits.

    Of runs outside any experiment all are drawn.
    """
    groups = [
        group
        for group in group_runs(experiment.record)
        if experiment.record.get("outside") or _has_contrast(group)
    ]
    found, read = [], read_lines(experiment, groups)
    for group, lines in zip(groups, read, strict=True):
        curves = _curves(lines)
        if any(curves[name] for name in (_NORM, _OFF, _BIAS)):
            found.append(_draw(experiment, group, lines, curves))
    if groups and any(read) and not found:
        raise ValueError(
            "the scalars lack 'classifier/sum_norm'; ClassifierSumHook, in every config's "
            "default_hooks, logs it in training"
        )
    return found


def _has_contrast(group: Group) -> bool:
    methods = [line.runs[0]["method"] for line in group.lines]
    known = {"ce": True, "kl": True, "mse": False}
    invariant = [m.get("shift_invariant", known.get(m["kind"])) for m in methods]
    return False in invariant and True in invariant


def _curves(lines: Sequence[LoggedLine]) -> dict[str, dict[str, Curve]]:
    """Return the curves of each panel, and those predicted for the first, by label."""
    found: dict[str, dict[str, Curve]] = {name: {} for name in _NAMES}
    for line in lines:
        seeds = [_seed(run, log) for run, log in zip(line.runs, line.scalars, strict=True)]
        for name in _NAMES:
            curve = over_seeds([seed[name] for seed in seeds if name in seed])
            if curve is not None:
                every = -(-len(curve.epochs) // _POINTS)
                epochs, mean, std = (each[::-every][::-1] for each in curve[:3])
                found[name][line.label] = Curve(epochs, mean, std, curve.n)
    return found


def _seed(run: Mapping[str, Any], scalars: Scalars) -> dict[str, dict[float, float]]:
    """Return what a run logged of the sums, norms relative to the first prediction."""
    row = run["row"]
    known = row.get("iterations") and row.get("epochs")
    per_epoch = row["iterations"] / row["epochs"] if known else None
    found = {
        name: by_validation(scalars, name)
        if name == _LOGITS
        else by_iteration(scalars, name, per_epoch)
        for name in _NAMES
        if name in scalars
    }
    begin = next(iter(found.get(_PREDICTED, {}).values()), 0.0)
    for name in (_NORM, _PREDICTED):
        if name in found and begin > 0:
            found[name] = {epoch: value / begin for epoch, value in found[name].items()}
        else:  # weights that began as zeros, or a run that was resumed without its beginning
            found.pop(name, None)
    return found


def _draw(
    experiment: ExperimentFile,
    group: Group,
    lines: Sequence[LoggedLine],
    curves: Mapping[str, dict[str, Curve]],
) -> Drawing:
    shown = [name for name in _PANELS if curves[name]]
    rows = 2 if len(shown) == 4 else 1
    figure = new_figure(height=0.6 + 2.6 * rows)
    panels = figure.subplots(rows, len(shown) // rows, squeeze=False).ravel().tolist()
    for axes, name in zip(panels, shown, strict=True):
        draw_panel(axes, lines, curves[name], *_PANELS[name])
        _end_panel(axes, name, curves)
    return describe_lines(
        experiment,
        group,
        lines,
        curves,
        figure,
        part="class-sums",
        title="Does the last layer's sum over classes learn?",
        what=_what(curves),
        paper=_PAPER,
        numbers={name: numbers_of(found) for name, found in curves.items() if found},
        predicted="weight decay alone",
    )


def _end_panel(axes: Axes, name: str, curves: Mapping[str, dict[str, Curve]]) -> None:
    """Draw what is predicted, and choose the scale."""
    if name == _NORM:
        drawn: list[Curve] = []
        for curve in curves[_PREDICTED].values():  # of one schedule all are the same
            if not any(_same(curve, other) for other in drawn):
                axes.plot(curve.epochs, curve.mean, zorder=4, **PREDICTED)
                drawn.append(curve)
    if name == _BIAS:
        axes.axhline(0, zorder=4, **PREDICTED)
    if name in (_OFF, _LOGITS):
        log_scale(axes, curves[name].values())
        if name == _OFF:  # over so many decades they are a blur
            axes.minorticks_off()


def _same(one: Curve, other: Curve) -> bool:
    return one.mean.shape == other.mean.shape and np.allclose(one.mean, other.mean, rtol=1e-6)


def _what(curves: Mapping[str, Any]) -> str:
    parts = {
        _NORM: "its norm, as a share of what is predicted at the first log line",
        _OFF: "its distance from the prediction, as a share of its first norm (float32 "
        "rounds at about 1e-7)",
        _BIAS: "the sum of the biases, which no decay moves, in units of the logits",
        _LOGITS: "the distance of the sums of student's and teacher's logits u and v of an image, "
        "mean over the validation data",
    }
    told = "; ".join(text for name, text in parts.items() if curves[name])
    return (
        f"The sum s over classes of the last layer's weights while they are trained: {told}. "
        "Dotted: what weight decay alone makes of it, by the recursion of SGD from the first "
        "weights on. Values after the iteration of each log line, mean over seeds"
    )
