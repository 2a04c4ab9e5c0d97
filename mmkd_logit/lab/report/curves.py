"""Curves of what runs logged in training, one line for each method."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .data import Experiment, Scalars, read_scalars
from .groups import Group, Run, describe_epochs, describe_seeds
from .style import TEACHER, Drawing, Look, foot, new_figure

_POINTS = 300
PREDICTED: dict[str, Any] = dict(color=TEACHER.color, linestyle=(0, (1, 1.5)), lw=1.2)


class Curve(NamedTuple):
    """A quantity over epochs."""

    epochs: np.ndarray  # ascending
    mean: np.ndarray  # over seeds, NaN where the value of a seed is not finite
    std: np.ndarray  # sample standard deviation, NaN for one seed
    n: int  # seeds

    def thinned(self) -> "Curve":
        """Return as many points as can be seen, with the last one."""
        every = -(-len(self.epochs) // _POINTS)
        epochs, mean, std = (values[::-every][::-1] for values in self[:3])
        return Curve(epochs, mean, std, self.n)

    def numbers(self) -> dict[str, Any]:
        """Return the curve in five digits."""
        epochs, mean, std = ([float(f"{v:.5g}") for v in values] for values in self[:3])
        return dict(epochs=epochs, mean=mean, std=std if self.n > 1 else None, n=self.n)


Curves = dict[str, dict[str, Curve]]  # by quantity and method


def by_epoch(scalars: Scalars, name: str, last: bool = False) -> dict[float, float]:
    """Return the mean, or the last value, of each epoch of training, by its end."""
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    groups = {float(epoch): values[epochs == epoch] for epoch in np.unique(epochs)}
    return {epoch: float(v[-1] if last else v.mean()) for epoch, v in groups.items()}


def by_iteration(scalars: Scalars, name: str, per_epoch: float | None) -> dict[float, float]:
    """Return every value that was logged in training, by the epoch as a fraction."""
    steps, values = scalars[name]
    epochs = _epochs_at(scalars, steps)
    if per_epoch is None:
        per_epoch = float(np.ceil((steps / epochs).max()))
    places = np.clip(steps / per_epoch, epochs - 1, epochs)
    return dict(zip(places.tolist(), values.tolist(), strict=True))


def by_validation(scalars: Scalars, name: str) -> dict[float, float]:
    """Return what was logged after epochs."""
    steps, values = scalars[name]
    return dict(zip(steps.astype(float).tolist(), values.tolist(), strict=True))


def _epochs_at(scalars: Scalars, steps: np.ndarray) -> np.ndarray:
    """Return the epochs, from 1 on, of iterations."""
    known, epochs = scalars.get("epoch", (np.empty(0), np.empty(0)))
    if not np.isin(steps, known).all():
        raise ValueError("lines of the scalars lack 'epoch', which MMEngine logs in training")
    return epochs[np.searchsorted(known, steps)]


def over_seeds(runs: Iterable[Mapping[float, float]]) -> Curve | None:
    """Average over seeds, where all of them have a value; None if they share no epoch."""
    runs = [run for run in runs if run]
    shared = sorted(set(runs[0]).intersection(*runs[1:])) if runs else []
    if not shared:
        return None
    values = np.array([[run[epoch] for epoch in shared] for run in runs], float)
    values[~np.isfinite(values)] = np.nan
    std = values.std(0, ddof=1) if len(runs) > 1 else np.full(len(shared), np.nan)
    return Curve(np.array(shared), values.mean(0), std, len(runs))


class Panel(NamedTuple):
    """How a quantity is drawn."""

    title: str
    unit: str
    what: str  # for the caption
    log: bool = False  # whether the axis is logarithmic


def read_curves(
    experiment: Experiment,
    groups: Sequence[Group],
    values: Callable[[Run, Scalars], Mapping[str, Mapping[float, float]]],
) -> list[tuple[Group, Curves]]:
    """Average what runs logged, for each group.

    ``values`` takes a run and its scalars, and returns values over epochs by quantity.
    """
    runs = [run for group in groups for run in group.runs]
    if runs and not any(run["files"]["scalars"] for run in runs):
        raise ValueError(
            f"none of the {len(runs)} finished runs left vis_data/scalars.json, which training "
            f"writes: {' '.join(runs[0]['command'])}"
        )
    found = []
    for group in groups:
        curves: Curves = {}
        for method in group.methods:
            seeds: dict[str, list[Mapping[float, float]]] = {}
            for run in method.runs.values():
                scalars = read_scalars(experiment.root / path for path in run["files"]["scalars"])
                for name, each in values(run, scalars).items():
                    seeds.setdefault(name, []).append(each)
            for name, every in seeds.items():
                curve = over_seeds(every)
                if curve is not None:
                    curves.setdefault(name, {})[method.name] = curve.thinned()
        found.append((group, curves))
    return found


def draw_curves(
    experiment: Experiment,
    group: Group,
    curves: Curves,
    panels: Mapping[str, Panel],
    finish: Callable[[dict[str, Axes]], str],
    part: str,
    title: str,
    what: str,
    paper: str,
    predicted: str = "",
) -> Drawing:
    """Draw the quantities that have a curve: means with bands, and markers now and then.

    ``finish`` takes their axes by quantity, draws what else belongs there, and returns what the
    caption says of it. ``{panels}`` in ``what`` stands for the descriptions of the panels.
    """
    shown = [name for name in panels if name in curves]
    rows = 2 if len(shown) == 4 else 1
    figure = new_figure(0.6 + 2.6 * rows)
    every = figure.subplots(rows, len(shown) // rows, squeeze=False)
    drawn = dict(zip(shown, every.flat, strict=True))
    methods = [m for m in group.methods if any(m.name in found for found in curves.values())]
    for name, axes in drawn.items():
        for place, method in enumerate(methods):
            if method.name in curves[name]:
                _draw_curve(axes, curves[name][method.name], method.look, place / len(methods))
        axes.set(title=panels[name].title, ylabel=panels[name].unit, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if panels[name].log:
            _log_scale(axes, curves[name].values())
    more = finish(drawn)
    entries = [(method.name, _style_of(method.look)) for method in methods]
    _legend(figure, [*entries, (predicted, PREDICTED)] if predicted else entries)
    runs = [run for m in methods for run in m.runs.values() if run["files"]["scalars"]]
    seeds = describe_seeds(curve.n for found in curves.values() for curve in found.values())
    protocol = f"{seeds}; {describe_epochs(runs)}"
    foot(figure, f"{experiment.key} · {group.title} · {protocol}")
    bands = "" if "no spread" in protocol else ", bands ± one sample standard deviation"
    what = what.format(panels="; ".join(panels[name].what for name in shown))
    return Drawing(
        name=experiment.file_name(part, group.title),
        title=f"{title} {group.title}",
        caption=" ".join(filter(None, [f"{what}{bands}; {protocol}.", more, *group.notes])),
        figure=figure,
        sources=[*experiment.sources, *(path for run in runs for path in run["files"]["scalars"])],
        paper=paper,
        numbers={
            name: {label: curve.numbers() for label, curve in found.items()}
            for name, found in curves.items()
        },
    )


def _draw_curve(axes: Axes, curve: Curve, look: Look, offset: float) -> None:
    epochs, mean, std, _ = curve
    axes.fill_between(epochs, mean - std, mean + std, color=look.color, alpha=0.12, lw=0, zorder=1)
    step = max(1, len(epochs) // 6)
    markers = (int(offset * step), step)
    axes.plot(epochs, mean, markevery=markers, zorder=2 + 0.01 * look.order, **_style_of(look))


def _log_scale(axes: Axes, curves: Iterable[Curve]) -> None:
    """Make an axis logarithmic, if anything on it is above 0, down to the least mean.

    Bands may end below 0, and would take the axis with them.
    """
    means = np.concatenate([curve.mean for curve in curves])
    means = means[means > 0]
    if len(means):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.6 * float(means.min()))
        low, high = axes.get_ylim()
        if low > 1e-3 and high < 100 * low:  # few powers of ten, so others are written too
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """Write one legend for all panels."""
    rows = -(-sum(38 + 4.8 * len(label) for label, _ in entries) // 500)  # in points
    columns = int(-(-len(entries) // rows))
    # Legends are filled by columns, and read by rows.
    entries = [entry for column in range(columns) for entry in entries[column::columns]]
    handles = [figure.axes[0].plot([], [], label=label, **style)[0] for label, style in entries]
    kind: dict[str, Any] = dict(ncols=columns, handlelength=3.2, columnspacing=1.4)
    figure.legend(handles=handles, loc="outside upper center", **kind)
    figure.get_layout_engine().set(w_pad=0.07)  # type: ignore[union-attr, call-arg]


def _style_of(look: Look) -> dict[str, Any]:
    edge = "white" if look.marker != "*" else look.color  # a star of edges alone is no star
    return dict(color=look.color, linestyle=look.linestyle, marker=look.marker, mec=edge, mew=0.4)
