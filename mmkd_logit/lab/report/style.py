"""The look of all figures: a colour, a line and a marker for each method, panels, the tau axis."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure


@dataclass
class Drawing:
    """One figure of a report."""

    name: str  # of its files, without the ending
    title: str
    caption: str  # what is drawn, units, n, protocol
    figure: Figure
    sources: list[str] = field(default_factory=list)  # relative to the root of the runs
    paper: str = ""  # what the paper shows there
    numbers: dict[str, Any] = field(default_factory=dict)  # what was drawn or computed


WIDTH = 7.0  # inches, of a printed page's text


class Look(NamedTuple):
    """How a method is drawn."""

    color: str  # hexadecimal
    linestyle: Any
    marker: str
    order: float  # in legends


# Cross-entropy grey and the teacher black; tau runs from dark violet over blue and green to yellow,
# MSE stands apart in red. Any two are apart by 12 (CIE76) or more, those of the paper's tables by
# 19, also under colour blindness (tests/lab/report/test_style.py); in grey, lines and markers
# tell them apart.
TEACHER = Look("#000000", "-", "*", 0)
CE = Look("#9a9a9a", (0, (5, 1.5)), "s", 1)
MSE = Look("#c03a1e", "-", "D", 9)
OTHER = Look("#c679af", (0, (3, 1, 1, 1, 1, 1)), "X", 20)
# Of several other methods; apart from each other and from CE, tau = 20, MSE as above.
_MORE = ["#c679af", "#724120", "#56b4e9", "#8f5bb5", "#f5996d", "#1f4e79", "#d5a1c3", "#5b2a4d"]
_TAUS: dict[float, tuple[str, Any, str]] = {
    0.1: ("#230936", (0, (1, 1)), "<"),
    0.5: ("#2b1b63", (0, (1, 2)), ">"),
    1.0: ("#4b1d8b", (0, (1, 1.2)), "v"),
    3.0: ("#2e4576", (0, (3, 1.2, 1, 1.2)), "^"),
    5.0: ("#067686", (0, (6, 1.5, 1, 1.5)), "o"),
    10.0: ("#2c9a70", (0, (4, 1)), "h"),
    20.0: ("#6faa54", (0, (8, 2)), "P"),
    float("inf"): ("#bba929", "-", "p"),
}

# Three classes of samples: colours of Okabe and Ito that are also light, middle and dark.
CLASSES = (("#0072b2", "o"), ("#e69f00", "^"), ("#222222", "s"))


def tau_of(method: Mapping[str, Any]) -> float | None:
    """Return the temperature of a method that is one point of a curve over it, as its loss says."""
    tau = method.get("tau") if method.get("shows_tau", method["kind"] == "kl") else None
    return None if tau is None else float(tau)


def is_taught(method: Mapping[str, Any]) -> bool:
    """Whether a method is one loss between logits, from the first epoch to the last."""
    return method["kind"] not in ("ce", "other")


def look_of(method: Mapping[str, Any]) -> Look:
    """Return how a method is drawn in every figure."""
    if method["kind"] in ("ce", "mse"):
        return CE if method["kind"] == "ce" else MSE
    tau = tau_of(method)
    if tau is None:
        return OTHER
    near = tau if tau in _TAUS else min(_TAUS, key=lambda known: abs(known - tau))
    color, linestyle, marker = _TAUS[near]
    order = MSE.order - 1 - 6 / (1 + tau)  # from 2 at tau = 0 to 8 at infinity
    return Look(color, linestyle if near == tau else (0, (2, 3)), marker, order)


def shades(look: Look, count: int) -> list[Look]:
    """Return looks for several runs of one method, or of several other methods."""
    if count < 2:
        return [look] * count
    marks, dashes = "osv^DPX*h<>p", ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
    ramp = LinearSegmentedColormap.from_list("", ["black", look.color, "white"], 1 << 16)
    colors = [to_hex(color) for color in ramp(np.linspace(0.2, 0.675, count))]
    if look.color == OTHER.color and count <= len(_MORE):
        colors = _MORE
    return [
        Look(colors[i], dashes[i % 4], marks[i % 12], look.order + 0.01 * i / count)
        for i in range(count)
    ]


def foot(figure: Figure, text: str) -> None:
    """Write small below a figure what it must not be shown without: n and protocol."""
    line = int(21 * figure.get_figwidth())  # letters
    text = textwrap.fill(text, line, break_long_words=False, break_on_hyphens=False)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color="#5a5a5a")


def name_of(method: Mapping[str, Any]) -> str:
    """Return what a legend calls a method."""
    names = {"ce": "CE", "kl": "KL", "mse": "MSE"}
    name = method.get("label") or names.get(method["kind"]) or method.get("loss")
    name = name or "several losses"
    tau = tau_of(method)
    return name if tau is None else f"{name} τ = {number(tau)}"


def number(value: float) -> str:
    """Return a number as short as it is."""
    return "∞" if value == math.inf else f"{value:g}"


def noise_name(noise: Mapping[str, Any]) -> str:
    """Return label noise in words."""
    rate = f" {100 * noise['rate']:g} %" if noise.get("rate") else ""
    return f"{noise.get('kind')} label noise{rate}"


def style() -> AbstractContextManager[None]:
    """Draw in the look of ``report.mplstyle``."""
    return matplotlib.style.context(Path(__file__).with_name("report.mplstyle"))


def new_figure(height: float = 3.2, width: float = WIDTH) -> Figure:
    """Return a figure that no window knows of."""
    return Figure(figsize=(width, height), layout="constrained")


COLUMNS = 4  # of panels, at most


def columns_of(count: int) -> int:
    """Return in how many columns panels stand, with rows as equal as can be."""
    return -(-count // -(-count // COLUMNS))


def panel_blocks(
    heads: Sequence[str], count: int, height: float, share: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with a block of panels for each split, one panel a method."""
    columns = columns_of(count)
    rows = -(-count // columns)
    width = WIDTH * columns / COLUMNS if columns > 2 else 0.6 * WIDTH
    figure = new_figure(len(heads) * (rows * height + 0.35) + 0.3, width)
    layout: Any = figure.get_layout_engine()
    layout.set(hspace=0.06, h_pad=0.07)
    blocks = []
    parts: Any = figure.subfigures(len(heads), 1, squeeze=False)
    for head, part in zip(heads, parts.flat, strict=True):
        part.suptitle(head, x=0.01, ha="left", fontsize=10, fontweight="bold")
        panels = part.subplots(rows, columns, sharex=share, sharey=share, squeeze=False)
        for axes in panels.flat[count:]:
            axes.set_visible(False)
        blocks.append(list(panels.flat[:count]))
    return figure, blocks


def name_panel(axes: Axes, name: str, look: Look, text: str = "") -> None:
    """Write the name of a method above a panel, over a bar of its colour."""
    axes.set_title(name, loc="left", fontsize=9, pad=17 if text else 6)
    if text:
        axes.annotate(
            text, (0, 1.025), xycoords="axes fraction", xytext=(0, 4), fontsize=7.5,
            textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    axes.plot(
        [0, 1], [1.025, 1.025], color=look.color, linewidth=3, solid_capstyle="butt",
        transform=axes.transAxes, clip_on=False, scalex=False, scaley=False,
    )  # fmt: skip
    axes.tick_params(labelsize=7)


def say_empty(axes: Axes, text: str) -> None:
    """Write into a panel why nothing is drawn."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
              fontsize=7.5, color="#777777", wrap=True)  # fmt: skip


def mean_text(values: Sequence[float], unit: str = "") -> str:
    """Return the mean over seeds with its standard deviation, where there are several."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return "–"
    mean = float(np.mean(finite))
    digits = 3 if mean < 0.1 else 2 if mean < 10 else 1
    text = f"{mean:.{digits}f}"
    if len(finite) > 1:
        text += f" ± {np.std(finite, ddof=1):.{digits}f}"
    return f"{text}{unit}"


class TauAxis:
    """A logarithmic axis of temperatures with places for 0, infinity and what has no tau."""

    def __init__(
        self,
        taus: Iterable[float],
        others: Sequence[str] = (),
        ticks: Sequence[float] | None = None,
    ) -> None:
        self.taus = sorted(set(taus))
        self._ticks, self._others = self.taus if ticks is None else ticks, list(others)
        inner = [tau for tau in self.taus if 0 < tau < math.inf] or [1.0]
        self._low, self._high = inner[0], inner[-1]
        self._gap = 10 ** max(0.3, 0.13 * math.log10(self._high / self._low))
        beyond = [*self.taus[-1:], *others] if math.inf in self.taus else others
        self._places: dict[Any, float] = {
            0.0: self._low / self._gap,
            **{tau: tau for tau in inner},
            **{each: self._high * self._gap**i for i, each in enumerate(beyond, 1)},
        }

    def place(self, what: float | str) -> float:
        """Return where a temperature, or what has none, is drawn."""
        return self._places[what]

    def curve(
        self,
        axes: Axes,
        taus: Sequence[float] | np.ndarray,
        mean: np.ndarray,
        std: np.ndarray | float = math.nan,
        **style: Any,
    ) -> None:
        """Draw a curve with its band; what leads over a break is dotted."""
        x = np.array([self.place(tau) for tau in taus])
        inner = np.array([0 < tau < math.inf for tau in taus])
        axes.plot(x[inner], mean[inner], zorder=2, **style)
        dotted = {**style, "linestyle": (0, (1, 2)), "label": None, "lw": 1}
        for i in range(len(x) - 1):
            if not (inner[i] and inner[i + 1]):
                axes.plot(x[i : i + 2], mean[i : i + 2], zorder=2, **dotted)
        color = style.get("color")
        axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.16, lw=0, zorder=1)

    def dress(self, axes: Axes) -> None:
        """Set scale, ticks and limits, and strike the axis through where it is broken."""
        axes.set_xscale("log")
        left = self.place(self.taus[0]) if self.taus else self._low
        right = max(self._high, *self._places.values())
        axes.set_xlim(left / self._gap**0.9, right * self._gap**0.5)
        labels = [*map(number, self._ticks), *self._others]
        axes.set_xticks([*map(self.place, self._ticks), *map(self.place, self._others)], labels)
        axes.minorticks_off()
        axes.set_xlabel("τ, temperature of KL")
        for end, edge in ((0, self._low), (math.inf, self._high)):
            if end in self.taus and len(self.taus) > 1:
                axes.annotate(
                    "//", (math.sqrt(edge * self.place(end)), 0), fontsize=8,
                    xycoords=axes.get_xaxis_transform(), ha="center", va="center",
                    annotation_clip=False, bbox=dict(boxstyle="square,pad=0.05", fc="w", ec="none"),
                )  # fmt: skip
        if self._others:
            border = self.place(self._others[0]) / self._gap**0.5
            axes.axvline(border, color="#bdbdbd", lw=0.8, zorder=0)
