"""Accuracy and the distillation loss over the epochs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from ..curves import Curves, Panel, by_epoch, by_validation, draw_curves, read_curves
from ..data import Experiment, Scalars
from ..groups import Group, Method, Run, group_by_row
from ..style import Drawing

NEEDS = "finished runs with their vis_data/scalars.json"
WORK_FOLDERS = True
_PAPER = (
    "The paper draws no learning curves. Its grid says that students at large tau end with lower "
    "training and higher test accuracy than those at tau = 1 (CIFAR-100; read in a source)."
)
_TOP1 = "accuracy/top1"
_PANELS = {
    "batch_top1": Panel(
        "training",
        "top-1 (%)",
        "top-1 accuracy in percent on the augmented training images as they passed, over each "
        "epoch",
    ),
    _TOP1: Panel("validation", "top-1 (%)", "on the validation data after each epoch"),
    "kd": Panel(
        "distillation loss",
        "loss (log scale)",
        "the distillation loss (natural logarithms, before alpha) in training, mean of the log "
        "lines of each epoch",
        log=True,
    ),
}
_Read = Callable[[Scalars, str], dict[float, float]]
_READ: dict[str, _Read] = {
    "batch_top1": partial(by_epoch, last=True), _TOP1: by_validation, "kd": by_epoch
}  # fmt: skip


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw one figure for each row of a table, or one of a list."""
    found = read_curves(experiment, group_by_row(experiment.record), _values)
    return [_draw(experiment, group, curves) for group, curves in found if curves]


def _values(run: Run, scalars: Scalars) -> dict[str, dict[float, float]]:
    return {name: read(scalars, name) for name, read in _READ.items() if name in scalars}


def _draw(experiment: Experiment, group: Group, curves: Curves) -> Drawing:
    tests = {m.name: _test_of(m) for m in group.methods if m.name in curves.get(_TOP1, ())}
    tests = {name: found for name, found in tests.items() if math.isfinite(found[1])}

    def mark_tests(panels: dict[str, Axes]) -> str:
        """Mark what the last weights reach on the test data, at the end of each curve."""
        if not tests:
            return ""
        panels[_TOP1].set_title("validation; open: test")
        for method in group.methods:
            if method.name in tests:
                kind: dict[str, Any] = dict(mfc="none", mec=method.look.color, ms=7, clip_on=False)
                panels[_TOP1].plot(*tests[method.name], method.look.marker, zorder=4, **kind)
        return "Open markers: test data, weights after the last epoch, nothing selected."

    drawing = draw_curves(
        experiment,
        group,
        curves,
        _PANELS,
        mark_tests,
        part="learning-curves",
        title="Learning curves:",
        what="{panels}. Mean over seeds",
        paper=_PAPER,
    )
    drawing.caption = drawing.caption[0].upper() + drawing.caption[1:]
    drawing.numbers["test"] = {name: mean for name, (_, mean) in tests.items()}
    return drawing


def _test_of(method: Method) -> tuple[int, float]:
    """Return the last epoch, and the mean over seeds of the accuracy on the test data."""
    runs = [run for run in method.runs.values() if run["epochs"] and run["row"].get("test")]
    values = [run["row"]["test"].get(_TOP1, math.nan) for run in runs]
    last = max((run["epochs"] for run in runs), default=0)
    return last, sum(values) / len(values) if values else math.nan
