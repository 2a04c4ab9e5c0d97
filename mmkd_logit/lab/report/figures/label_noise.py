"""Accuracy against tau under label noise."""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from .. import style
from ..data import Experiment
from ..groups import describe_cells, teachers_of_ce
from ..style import Drawing, Look, TauAxis

NEEDS = "an experiment with several tau on wrong labels, such as noisy-label"
WORK_FOLDERS = False
_PAPER = (
    "CIFAR-100, WRN-28-4 -> WRN-16-2, teacher and student trained on the same corrupted labels: "
    "test accuracy is best at tau <= 1, 0.5 is named, and lower at larger tau and by MSE. Read in "
    "a source; the numbers stand in a figure only, and the rates (40, 60, 80 %) are unverified."
)
_INK = "#3a3a3a"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))


class Noise(NamedTuple):
    """Names and looks of the runs on the same wrong labels."""

    taus: dict[float, str]  # of the runs by KL
    others: dict[str, tuple[str, Look]]  # of the runs without a temperature


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw accuracy against tau, a curve for each noise."""
    record = experiment.record
    metrics = record["metrics"]
    noises = _find(record)
    others = {other: look for noise in noises.values() for other, (_, look) in noise.others.items()}
    names = {name for noise in noises.values() for name in noise.taus.values()}
    names |= {name for noise in noises.values() for name, _ in noise.others.values()}
    if not any(metric["cells"][name]["n"] for metric in metrics for name in names):
        return []
    axis = TauAxis(
        {tau for noise in noises.values() for tau in noise.taus},
        sorted(others, key=lambda label: -others[label].order),
    )
    heights = [3.0, *[2.3] * (len(metrics) - 1)]
    figure = style.new_figure(height=sum(heights) + 0.4)
    grid = dict(height_ratios=heights)
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False, gridspec_kw=grid)[:, 0]
    numbers = {}
    for panel, metric in zip(panels, metrics, strict=True):
        numbers[metric["key"]] = _panel(panel, axis, noises, metric["cells"])
        panel.set(title=metric["title"], ylabel="%")
        panel.label_outer()
    figure.align_ylabels()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, handlelength=3.5)
    protocol = describe_cells(record, names)
    style.foot(figure, f"{experiment.key} · {protocol}")
    bands = ", bands and bars ± one sample standard deviation"
    return [
        Drawing(
            name=experiment.file_name("label-noise"),
            title=f"Accuracy against τ under label noise: {record['title']}",
            caption="Top-1 accuracy in percent against the temperature τ of KL (logarithmic, its "
            "ends broken off). Dashes tell the noises apart; the horizontal lines are the students "
            "by MSE and by CE on the same wrong labels. Mean over seeds"
            f"{bands if 'no spread' not in protocol else ''}; {protocol}.",
            figure=figure,
            sources=experiment.sources,
            paper=_PAPER,
            numbers=numbers,
        )
    ]


def _find(record: Mapping[str, Any]) -> dict[str, Noise]:
    """Find what was trained on which noise; none where no noise has several temperatures."""
    teachers = teachers_of_ce(record)
    found: dict[str, Noise] = {}
    noisy: set[str] = set()
    doubled: set[str] = set()
    runs = [run for run in record["runs"] if run["name"] in record["cells"]]
    rows: dict[str, set[str]] = {}  # what is trained on in each row of the table
    alphas: dict[str, set[float]] = {}  # of the students there
    bases: dict[str, str] = {}  # of labels with an alpha, those without
    for run in runs:
        row, how = record["cells"][run["name"]][0], run["method"]
        rows.setdefault(row, set()).add(_noise_of(how))
        alphas.setdefault(row, set()).update([how["alpha"]] if style.is_taught(how) else [])
    for run in runs:
        name, how = run["name"], run["method"]
        row, own = record["cells"][name][0], _noise_of(how)
        label = base = row if len(rows[row]) == 1 and row else ", ".join(filter(None, [row, own]))
        if len(alphas[row]) > 1 and style.is_taught(how):  # a curve for each, beside the same CE
            label = ", ".join(filter(None, [base, f"α = {how['alpha']:g}"]))
            bases[label] = base
        if how["label_noise"]:
            noisy.add(label)
        noise = found.setdefault(label, Noise({}, {}))
        tau = style.tau_of(how)
        if tau is not None:
            if noise.taus.setdefault(tau, name) != name:
                doubled.add(label)
        elif name in teachers:
            noise.others["teacher"] = name, style.TEACHER
        elif how["kind"] == "ce" or style.is_taught(how):
            noise.others[style.name_of(how)] = name, style.look_of(how)
    for label, base in bases.items():
        found[label].others.update(found[base].others if base in found else {})
    if not any(len(found[label].taus) > 1 for label in noisy):
        return {}
    if noisy & doubled:
        raise ValueError(
            f"several runs at one tau in {noisy & doubled}; give them rows of their own"
        )
    return {label: noise for label, noise in found.items() if noise.taus}


def _noise_of(method: Mapping[str, Any]) -> str:
    noise = method["label_noise"]
    return style.noise_name(noise) if noise else "no noise"


def _panel(
    axes: Axes, axis: TauAxis, noises: Mapping[str, Noise], cells: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Draw a metric: dashes tell noises apart, colours and markers methods."""
    numbers = []
    mark: dict[str, Any] = dict(ms=6, mec="white", mew=0.5)
    for (label, noise), dashes in zip(noises.items(), itertools.cycle(_DASHES)):
        taus = sorted(noise.taus)
        mean, std = _means(cells, [noise.taus[tau] for tau in taus])
        axis.curve(axes, taus, mean, std, color=_INK, linestyle=dashes, label=label)
        for tau, value in zip(taus, mean, strict=True):
            look = style.look_of(dict(kind="kl", tau=tau))
            axes.plot(axis.place(tau), value, look.marker, color=look.color, zorder=3, **mark)
            numbers.append(dict(noise=label, tau=tau, **_of(cells[noise.taus[tau]])))
        for other, (name, look) in noise.others.items():
            value, spread = _means(cells, [name])
            place = axis.place(other)
            if other != "teacher":
                ends = [axis.place(taus[0]), place]
                kind: dict[str, Any] = dict(color=look.color, linestyle=dashes, lw=0.9)
                axes.plot(ends, [value[0]] * 2, zorder=1.5, **kind)
            # A star of edges alone is no star.
            kind = dict(ms=8) if look.marker == "*" else mark
            bar = None if np.isnan(spread) else spread
            axes.errorbar(
                [place], value, bar, fmt=look.marker, color=look.color, capsize=2, lw=1, **kind
            )
            numbers.append(dict(noise=label, method=other, **_of(cells[name])))
    axis.dress(axes)
    return numbers


def _means(cells: Mapping[str, Any], names: list[str]) -> np.ndarray:
    """Return means and standard deviations, NaN where there is none."""
    return np.array([[cells[name][key] for name in names] for key in ("mean", "std")], float)


def _of(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {key: cell[key] for key in ("mean", "std", "n", "failed")}
