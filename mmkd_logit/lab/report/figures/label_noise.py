"""Accuracy against tau under label noise."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from mmkd_logit.lab.report.data import (
    LAST,
    ExperimentFile,
    describe_epochs,
    describe_seeds,
    file_name,
    own_source,
)
from mmkd_logit.lab.report.runs import taught_by_labels
from mmkd_logit.lab.report.style import (
    TEACHER,
    Drawing,
    Look,
    TauAxis,
    foot,
    is_taught,
    look_of,
    name_of,
    new_figure,
    shows_tau,
    tau_of,
)

_PAPER = (
    "CIFAR-100, WRN-28-4 -> WRN-16-2, teacher and student trained on the same corrupted labels: "
    "test accuracy is best at tau <= 1, 0.5 is named, and lower at larger tau and by MSE. Read in "
    "a source; the numbers stand in a figure only, and the rates (40, 60, 80 %) are unverified."
)
_INK = "#3a3a3a"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


class Noise(NamedTuple):
    """The runs on the same wrong labels.

    Attributes:
        label: Of the noise.
        taus: Names of the runs by KL, by tau.
        others: Names of the runs without a temperature, by their labels, with their looks.
    """

    label: str
    taus: dict[float, str]
    others: dict[str, tuple[str, Look]]


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw accuracy against tau, a curve for each noise."""
    record = experiment.record
    noises = _find(record)
    others = {label: look for noise in noises for label, (_, look) in noise.others.items()}
    names = [name for noise in noises for name in noise.taus.values()]
    names += [name for noise in noises for name, _ in noise.others.values()]
    metrics = record["metrics"]
    known = [m["cells"][name] for m in metrics for name in names]
    if not any(cell["n"] for cell in known):
        return []
    axis = TauAxis(
        {tau for noise in noises for tau in noise.taus},
        sorted(others, key=lambda label: -others[label].order),
    )
    heights = [3.0, *[2.3] * (len(metrics) - 1)]
    figure = new_figure(height=sum(heights) + 0.4)
    grid = dict(height_ratios=heights)
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    numbers = {}
    for panel, metric in zip(panels, metrics, strict=True):
        numbers[metric["key"]] = _panel(panel, axis, noises, metric["cells"])
        panel.set_title(metric["title"])
        panel.set_ylabel("%")
        panel.label_outer()
    figure.align_ylabels()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3.5)
    seeds = describe_seeds(cell["n"] for cell in known)
    runs = [run for run in record["runs"] if run["name"] in names]
    protocol = f"{seeds}; {describe_epochs(runs)}; {LAST}"
    foot(figure, f"{experiment.key} · {protocol}")
    band = "bands and bars ± one sample standard deviation" if "no spread" not in seeds else ""
    return [
        Drawing(
            name=file_name(experiment, "label-noise"),
            title=f"Accuracy against τ under label noise: {record['title']}",
            caption="Top-1 accuracy in percent against the temperature τ of KL (logarithmic, its "
            "ends broken off). Dashes tell the noises apart; the horizontal lines are the students "
            "by MSE and by CE on the same wrong labels. Mean over seeds"
            f"{', ' + band if band else ''}; {protocol}.",
            figure=figure,
            sources=own_source(experiment),
            paper=_PAPER,
            experiment=experiment.key,
            numbers=numbers,
        )
    ]


def _find(record: Mapping[str, Any]) -> list[Noise]:
    """Find what was trained on which noise; none where no noise has several temperatures."""
    teachers = taught_by_labels(record)
    groups: dict[tuple, Noise] = {}
    noisy = set()
    for run in record["runs"]:
        name, how = run["name"], run["method"]
        if name not in record["cells"]:
            continue
        wrong, row = how.get("label_noise") or {}, record["cells"][name][0]
        key = (row, wrong.get("kind"), wrong.get("rate"))
        noise = groups.setdefault(key, Noise(row or _label(wrong), {}, {}))
        tau = tau_of(how)
        if tau is not None and shows_tau(how):
            noise.taus[tau] = name
        elif name in teachers:
            noise.others["teacher"] = name, TEACHER
        elif how["kind"] == "ce" or is_taught(how):
            noise.others[name_of(how)] = name, look_of(how)
        if wrong:
            noisy.add(key)
    if not any(len(groups[key].taus) > 1 for key in noisy):
        return []
    return [noise for noise in groups.values() if noise.taus]


def _label(wrong: Mapping[str, Any]) -> str:
    rate = wrong.get("rate")
    return f"{wrong.get('kind') or 'no noise'}" + ("" if rate is None else f" {100 * rate:g} %")


def _panel(
    axes: Axes, axis: TauAxis, noises: Sequence[Noise], cells: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Draw a metric: dashes tell noises apart, colours and markers methods."""
    numbers = []
    mark: dict[str, Any] = dict(ms=6, mec="white", mew=0.5)
    for noise, dashes in zip(noises, _DASHES * len(noises), strict=False):
        taus = sorted(noise.taus)
        mean, std = _arrays(cells, [noise.taus[tau] for tau in taus])
        axis.curve(axes, taus, mean, std, color=_INK, linestyle=dashes, label=noise.label)
        for tau, value in zip(taus, mean, strict=True):
            look = look_of(dict(kind="kl", tau=tau))
            axes.plot(axis.place(tau), value, look.marker, color=look.color, zorder=3, **mark)
            numbers.append(dict(noise=noise.label, tau=tau, **_of(cells, noise.taus[tau])))
        for other, (name, look) in noise.others.items():
            value, spread = (each[0] for each in _arrays(cells, [name]))
            place = axis.place(other)
            if other != "teacher":
                ends = [axis.place(taus[0]), place]
                axes.plot(ends, [value] * 2, color=look.color, linestyle=dashes, lw=0.9, zorder=1.5)
            bar = None if math.isnan(spread) else [spread]
            own: dict[str, Any] = (
                mark if look.marker != "*" else dict(ms=8)
            )  # a star of edges alone is no star
            kind: dict[str, Any] = dict(fmt=look.marker, color=look.color, capsize=2, lw=1)
            axes.errorbar([place], [value], bar, **kind, **own)
            numbers.append(dict(noise=noise.label, method=other, **_of(cells, name)))
    axis.dress(axes)
    return numbers


def _arrays(cells: Mapping[str, Any], names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations, NaN where there is none."""
    found = [(cells[name]["mean"], cells[name]["std"]) for name in names]
    array = np.array([[np.nan if x is None else x for x in pair] for pair in found], float)
    return array[:, 0], array[:, 1]


def _of(cells: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: cells[name][key] for key in ("mean", "std", "n", "failed")}
