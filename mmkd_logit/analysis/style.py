"""One look for all figures: a colour, a line and a marker for each method."""

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


# Cross-entropy grey and the teacher black; tau runs through viridis' order from dark to light blue
# and green, MSE stands apart in vermilion: also told apart by lightness, so in grey and by the
# colour-blind (Okabe and Ito's vermilion).
TEACHER = Look("#000000", "-", "*", 0)
CE = Look("#8a8a8a", (0, (5, 1.5)), "s", 1)
MSE = Look("#d55e00", "-", "D", 9)
OTHER = Look("#cc79a7", (0, (3, 1, 1, 1, 1, 1)), "X", 20)
_TAUS: dict[float, Look] = {
    0.1: Look("#1a0633", (0, (1, 1)), "<", 2.1),
    0.5: Look("#311a63", (0, (1, 2)), ">", 2.5),
    1.0: Look("#46327e", (0, (1, 1.2)), "v", 3),
    3.0: Look("#365c8d", (0, (3, 1.2, 1, 1.2)), "^", 4),
    5.0: Look("#277f8e", (0, (6, 1.5, 1, 1.5)), "o", 5),
    10.0: Look("#1fa187", (0, (4, 1)), "h", 5.5),
    20.0: Look("#4ac16d", (0, (8, 2)), "P", 6),
    float("inf"): Look("#a0a51d", "-", "p", 8),
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
    return _TAUS[near]._replace(order=2 + 7 * tau / (tau + 5), linestyle=(0, (2, 3)))


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
