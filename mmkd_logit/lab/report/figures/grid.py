"""Train and test accuracy over alpha and tau."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..data import Experiment
from ..groups import Grid, describe_cells, find_grids
from ..style import Drawing, foot, new_figure

NEEDS = "an experiment with one loss at several alphas and taus, such as grid"
WORK_FOLDERS = False
_PAPER = (
    "CIFAR-100, WRN-28-4 -> WRN-16-2 (MS20, read in a source): test accuracy grows with alpha and "
    "with tau up to 20, from 72.8 (alpha = 0.1, tau = 1) to 75.8 (alpha = 1, tau = 20), and hardly "
    "depends on alpha at tau = 1; training accuracy falls the same way, from 99.5 to 92.6 (alpha = "
    "1, tau = 5). What generalises best fits the training labels nearly worst."
)


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw one figure for each pair of student and teacher."""
    return [_draw(experiment, grid) for grid in find_grids(experiment.record)]


def _draw(experiment: Experiment, grid: Grid) -> Drawing:
    metrics = experiment.record["metrics"]
    wide = len(grid.alphas) > 5
    rows, columns = (len(metrics), 1) if wide else (-(-len(metrics) // 2), min(2, len(metrics)))
    cells = [metric["cells"][name] for metric in metrics for name in grid.names.values()]
    marks = {cell["mark"] for cell in cells if cell["paper"] is not None}
    line = 0.3 + 0.12 * any(cell["std"] is not None for cell in cells) + 0.13 * bool(marks)
    figure = new_figure(height=rows * (line * len(grid.methods) + 0.75) + 0.2)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    numbers: dict[str, list[dict]] = {}
    for axes, metric in zip(panels, metrics, strict=False):
        _heat_map(axes, grid, metric["cells"])
        axes.set_title(metric["title"])
        numbers[metric["key"]] = [
            dict(metric["cells"][name], method=method, alpha=alpha)
            for (method, alpha), name in grid.names.items()
        ]
    for axes in list(panels):
        axes.remove()
    protocol = describe_cells(experiment.record, set(grid.names.values()))
    foot(figure, f"{experiment.key} · {protocol}")
    caption = (
        "Top-1 accuracy in percent of students trained by (1 − α) cross-entropy + α KL at "
        f"temperature τ: mean over seeds, ± sample standard deviation where n > 1; {protocol}. "
        "Colours span each panel from its lowest to its highest number."
    )
    if marks:
        marked = ", ".join(sorted(marks))
        caption += f" Small, slanted: the paper's number with its trust mark ({marked})."
    if any(cell["mean"] is None for cell in cells):
        caption += " Hatched: nothing finished there."
    return Drawing(
        name=experiment.file_name("accuracy", grid.title),
        title=f"Accuracy over α and τ: {grid.title}",
        caption=caption,
        figure=figure,
        sources=experiment.sources,
        paper=_PAPER,
        numbers=numbers,
    )


def _heat_map(axes: Axes, grid: Grid, cells: Mapping[str, Any]) -> None:
    places = [(method, alpha) for method in grid.methods for alpha in grid.alphas]
    found = [cells.get(grid.names.get(place, "")) for place in places]
    values = np.array([cell["mean"] if cell else None for cell in found], float)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if high - low < 1e-9:  # one number, or the same in all cells
        low, high = low - 0.5, high + 0.5
    shape = (len(grid.methods), len(grid.alphas))
    drawn = np.ma.masked_invalid(values.reshape(shape))
    kind: dict[str, Any] = dict(cmap="cividis", vmin=low, vmax=high, edgecolor="white", lw=1)
    image = axes.pcolormesh(drawn, **kind)
    for place, (cell, value) in enumerate(zip(found, values, strict=True)):
        row, column = divmod(place, shape[1])
        if not math.isfinite(value):
            hatched: dict[str, Any] = dict(fc="#f4f4f4", ec="#cccccc", hatch="///", lw=0)
            axes.add_patch(Rectangle((column, row), 1, 1, **hatched))
        if cell is not None:
            # Below this share the colours are dark: of a relative luminance under 0.18.
            color = "white" if value < low + 0.468 * (high - low) else "black"
            _write(axes, column + 0.5, row + 0.5, cell, color)
    axes.set_xticks(np.arange(shape[1]) + 0.5, [f"{alpha:g}" for alpha in grid.alphas])
    axes.set_yticks(np.arange(shape[0]) + 0.5, [m.removeprefix("KL ") for m in grid.methods])
    axes.set_xlabel("α, weight of the distillation loss")
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.01, fraction=0.05, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label("%")


def _write(axes: Axes, x: float, y: float, cell: Mapping[str, Any], color: str) -> None:
    """Write a cell's number and, smaller below, its spread and the paper's number."""
    mean, std = cell["mean"], cell["std"]
    if mean is None:
        lines = [("failed" if cell["failed"] else "–", 7, "normal")]
    else:
        lines = [(f"{mean:.2f}" if math.isfinite(mean) else "NaN", 8, "normal")]
    if mean is not None and std is not None and math.isfinite(std):
        lines.append((f"± {std:.2f}", 6, "normal"))
    if cell["paper"] is not None:
        lines.append((f"{cell['paper']:.2f} {cell['mark']}", 6, "italic"))
    above = sum(size + 2 for _, size, _ in lines) / 2
    for text, size, slant in lines:
        above -= size + 2
        axes.annotate(
            text, (x, y), (0, above + (size + 2) / 2), textcoords="offset points", ha="center",
            va="center", fontsize=size, fontstyle=slant, color=color,
        )  # fmt: skip
