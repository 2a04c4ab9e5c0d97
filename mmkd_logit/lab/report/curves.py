"""Curves of what runs logged in training, one line for each method."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .data import Experiment, Scalars, read_scalars
from .groups import Group, Method, Run, describe_epochs, describe_seeds
from .style import TEACHER, Drawing, Look, foot, new_figure

PREDICTED: dict[str, Any] = dict(color=TEACHER.color, linestyle=(0, (1, 1.5)), lw=1.2)


class Curve(NamedTuple):
    """A quantity over epochs."""

    epochs: np.ndarray  # ascending
    mean: np.ndarray  # over seeds, NaN where the value of a seed is not finite
    std: np.ndarray  # sample standard deviation, NaN for one seed
    n: int  # seeds

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


# A line for each method: averaged over seeds, drawn and described.


def read_curves(
    experiment: Experiment,
    groups: Sequence[Group],
    values: Callable[[Run, Scalars], Mapping[str, Mapping[float, float]]],
) -> list[Curves]:
    """Average what runs logged, for each group.

    ``values`` takes a run and its scalars, and returns values over epochs by quantity.
    """
    found: list[Curves] = []
    runs = [run for group in groups for run in group.runs]
    if runs and not any(map(_logs, runs)):
        raise ValueError(
            f"none of the {len(runs)} finished runs left vis_data/scalars.json, which training "
            f"writes: {' '.join(runs[0]['command'])}"
        )
    for group in groups:
        curves: Curves = {}
        for method in group.methods:
            seeds: dict[str, list[Mapping[float, float]]] = {}
            for run in filter(_logs, method.runs.values()):
                scalars = read_scalars(experiment.root / path for path in _logs(run))
                for name, each in values(run, scalars).items():
                    seeds.setdefault(name, []).append(each)
            for name, runs_of_method in seeds.items():
                curve = over_seeds(runs_of_method)
                if curve is not None:
                    curves.setdefault(name, {})[method.name] = curve
        found.append(curves)
    return found


def _logs(run: Run) -> list[str]:
    return run["files"].get("scalars") or []


def draw_panels(
    group: Group, curves: Curves, panels: Mapping[str, tuple[str, str, str]]
) -> tuple[Figure, dict[str, Axes], str]:
    """Draw the quantities that have a curve: means with bands, and markers now and then.

    ``panels`` has the title, the unit and a description by quantity. Return the figure, its
    panels, and the descriptions of what is drawn.
    """
    shown = [name for name in panels if name in curves]
    rows = 2 if len(shown) == 4 else 1
    figure = new_figure(0.6 + 2.6 * rows)
    grid = figure.subplots(rows, len(shown) // rows, squeeze=False)
    methods = [method for method in group.methods if any(map(_logs, method.runs.values()))]
    for axes, name in zip(grid.flat, shown, strict=True):
        for place, method in enumerate(methods):
            if method.name not in curves[name]:
                continue
            epochs, mean, std, _ = curves[name][method.name]
            step = max(1, len(epochs) // 6)
            color, order = method.look.color, 2 + 0.01 * method.look.order
            axes.fill_between(
                epochs, mean - std, mean + std, color=color, alpha=0.12, lw=0, zorder=1
            )
            markers = (int(place / len(methods) * step), step)
            axes.plot(epochs, mean, markevery=markers, zorder=order, **_style_of(method.look))
        axes.set(title=panels[name][0], ylabel=panels[name][1])
    found = dict(zip(shown, grid.flat, strict=True))
    return figure, found, "; ".join(panels[name][2] for name in shown)


def log_scale(axes: Axes, curves: Iterable[Curve]) -> None:
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


def describe_curves(
    experiment: Experiment,
    group: Group,
    curves: Curves,
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    more: str = "",
    predicted: str = "",
    **numbers: Any,
) -> Drawing:
    """Return the figure with its legend and its caption."""
    drawn = [m for m in group.methods if any(m.name in found for found in curves.values())]
    runs = [run for method in drawn for run in method.runs.values() if _logs(run)]
    _end_axes(figure, drawn, predicted)
    seeds = describe_seeds(curve.n for found in curves.values() for curve in found.values())
    protocol = f"{seeds}; {describe_epochs(runs)}"
    foot(figure, f"{experiment.key} · {group.title} · {protocol}")
    bands = "" if "no spread" in protocol else ", bands ± one sample standard deviation"
    caption = [f"{what}{bands}; {protocol}.", more, *group.notes]
    for name, found in curves.items():
        numbers[name] = {label: curve.numbers() for label, curve in found.items()}
    return Drawing(
        name=experiment.file_name(part, group.title),
        title=f"{title} {group.title}",
        caption=" ".join(filter(None, caption)),
        figure=figure,
        sources=[*experiment.sources, *(path for run in runs for path in _logs(run))],
        paper=paper,
        numbers=numbers,
    )


def _end_axes(figure: Figure, methods: Sequence[Method], predicted: str) -> None:
    """Name the axis of epochs and write one legend for all panels."""
    entries = [(method.name, _style_of(method.look)) for method in methods]
    entries += [(predicted, PREDICTED)] if predicted else []
    rows = -(-sum(38 + 4.8 * len(label) for label, _ in entries) // 500)  # in points
    columns = int(-(-len(entries) // rows))
    # Legends are filled by columns, and read by rows.
    entries = [entry for column in range(columns) for entry in entries[column::columns]]
    handles = [figure.axes[0].plot([], [], label=label, **style)[0] for label, style in entries]
    kind: dict[str, Any] = dict(ncols=columns, handlelength=3.2, columnspacing=1.4)
    figure.legend(handles=handles, loc="outside upper center", **kind)
    figure.get_layout_engine().set(w_pad=0.07)  # type: ignore[union-attr, call-arg]
    for axes in figure.axes:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _style_of(look: Look) -> dict[str, Any]:
    edge = "white" if look.marker != "*" else look.color  # a star of edges alone is no star
    return dict(color=look.color, linestyle=look.linestyle, marker=look.marker, mec=edge, mew=0.4)
