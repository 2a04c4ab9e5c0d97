"""One look for all figures: a colour, a line and a marker for each method."""

import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.figure import Figure

RC: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.fonttype": "path",
}
WIDTH = 7.0  # inches, of a printed page's text


class Look(NamedTuple):
    """How a method is drawn.

    Attributes:
        color: Hexadecimal.
        linestyle: Of matplotlib; tells methods apart where colour does not.
        marker: Of matplotlib.
        order: Of legends.
    """

    color: str
    linestyle: Any
    marker: str
    order: float


# Cross-entropy grey and the teacher black; tau runs from dark violet over blue and green to yellow,
# MSE stands apart in red. Any two are apart by 12 (CIE76) or more, those of the paper's tables by
# 19, also for who lacks a kind of cones (tests/analysis/test_style.py); in grey, lines and markers
# tell them apart.
TEACHER = Look("#000000", "-", "*", 0)
CE = Look("#9a9a9a", (0, (5, 1.5)), "s", 1)
MSE = Look("#c03a1e", "-", "D", 9)
OTHER = Look("#c679af", (0, (3, 1, 1, 1, 1, 1)), "X", 20)
# Of several other methods; apart from each other and from CE, tau = 20, MSE as above.
_MORE = ["#c679af", "#724120", "#56b4e9", "#8f5bb5", "#f5996d", "#1f4e79", "#d5a1c3", "#5b2a4d"]
_TAUS: dict[float, Look] = {
    0.1: Look("#230936", (0, (1, 1)), "<", 2.1),
    0.5: Look("#2b1b63", (0, (1, 2)), ">", 2.5),
    1.0: Look("#4b1d8b", (0, (1, 1.2)), "v", 3),
    3.0: Look("#2e4576", (0, (3, 1.2, 1, 1.2)), "^", 4),
    5.0: Look("#067686", (0, (6, 1.5, 1, 1.5)), "o", 5),
    10.0: Look("#2c9a70", (0, (4, 1)), "h", 5.5),
    20.0: Look("#6faa54", (0, (8, 2)), "P", 6),
    float("inf"): Look("#bba929", "-", "p", 8),
}

# Three classes of samples: colours of Okabe and Ito that are also light, middle and dark.
CLASSES = (("#0072b2", "o"), ("#e69f00", "^"), ("#222222", "s"))


def tau_of(method: Mapping[str, Any]) -> float | None:
    """Return a method's temperature as a number.

    Args:
        method: Of an exhibit's run.
    """
    tau = method.get("tau")
    return None if tau is None else float(tau)


def look_of(method: Mapping[str, Any]) -> Look:
    """Return how a method is drawn, everywhere the same.

    Args:
        method: Of an exhibit's run: ``kind``, ``tau``.
    """
    if method["kind"] == "ce":
        return CE
    if method["kind"] == "mse":
        return MSE
    tau = tau_of(method)
    if method["kind"] != "kl" or tau is None:
        return OTHER
    if tau in _TAUS:
        return _TAUS[tau]
    near = min(_TAUS, key=lambda known: abs(known - tau))
    return _TAUS[near]._replace(order=_order(tau), linestyle=(0, (2, 3)))


def _order(tau: float) -> float:
    """Return where a temperature without a colour of its own stands among the others."""
    below = max((known for known in _TAUS if known <= tau), default=0.0)
    above = min(known for known in _TAUS if known > tau)
    share = 1 - below / tau if above == float("inf") else (tau - below) / (above - below)
    first = _TAUS[below].order if below else 2.0
    return first + share * (_TAUS[above].order - first)


def shades(look: Look, count: int) -> list[Look]:
    """Return looks for several runs that have one: of one method, or all of other methods.

    Args:
        look: Theirs.
        count: How many.
    """
    if count < 2:
        return [look] * count
    marks, dashes = "osv^DPX*h<>p", ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
    colors = _MORE if look.color == OTHER.color and count <= len(_MORE) else _ramp(look, count)
    return [
        Look(colors[i], dashes[i % 4], marks[i % 12], look.order + 0.01 * i / count)
        for i in range(count)
    ]


def _ramp(look: Look, count: int) -> list[str]:
    """Return colours from dark to light."""
    rgb = [int(look.color[i : i + 2], 16) for i in (1, 3, 5)]
    found = []
    for share in (i / (count - 1) for i in range(count)):
        light = -0.6 + 0.95 * share  # towards black below 0, towards white above
        parts = [c + (255 - c) * light if light > 0 else c * (1 + light) for c in rgb]
        found.append("#" + "".join(f"{round(part):02x}" for part in parts))
    return found


def foot(figure: Figure, text: str) -> None:
    """Write small below a figure what it must not be shown without: n and protocol.

    Args:
        figure: With the constrained layout of :func:`new_figure`.
        text: Of any length.
    """
    line = int(21 * figure.get_figwidth())  # letters
    text = textwrap.fill(text, line, break_long_words=False, break_on_hyphens=False)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=6.5, color="#5a5a5a")


def name_of(method: Mapping[str, Any]) -> str:
    """Return what a legend calls a method.

    Args:
        method: Of an exhibit's run: ``kind``, ``tau``, ``loss``.
    """
    tau = tau_of(method)
    if method["kind"] == "kl" and tau is not None:
        return "KL τ = ∞" if tau == float("inf") else f"KL τ = {tau:g}"
    return {"ce": "CE", "mse": "MSE"}.get(method["kind"]) or method.get("loss") or "other"


@contextmanager
def style() -> Iterator[None]:
    """Draw in the look of the house."""
    with matplotlib.rc_context(RC):
        yield


def new_figure(height: float = 3.2, width: float = WIDTH) -> Figure:
    """Return a figure that no window knows of.

    Args:
        height: In inches.
        width: In inches.
    """
    return Figure(figsize=(width, height), layout="constrained")
