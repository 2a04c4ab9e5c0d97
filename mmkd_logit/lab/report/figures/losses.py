"""The losses and their gradients against tau."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import log_softmax

from mmkd_logit.lab.report.style import MSE, Drawing, TauAxis, foot, look_of, new_figure

NEEDS = None
WORK_FOLDERS = False


def kl_of_tau(u: np.ndarray, v: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return ``tau^2 KL(softmax(v / tau) || softmax(u / tau))`` and its gradient in ``u``.

    The plain formulas in float64, apart from the loss that trains: good to 1e-6 for the
    temperatures that are drawn.

    Args:
        u: Student logits, (N, K).
        v: Teacher logits, (N, K).
        tau: Above 0; at infinity the divergence is the variance over classes of u - v, halved.
    """
    if math.isinf(tau):
        centred = (u - v) - (u - v).mean(1, keepdims=True)
        return (centred**2).mean(1) / 2, centred / u.shape[1]
    log_p, log_q = log_softmax(u / tau, axis=1), log_softmax(v / tau, axis=1)
    q = np.exp(log_q)
    return tau**2 * (q * (log_q - log_p)).sum(1), tau * (np.exp(log_p) - q)


def label_matching(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits at tau = 0 of ``tau KL`` and its gradient, ``kl_of_tau`` divided by tau."""
    ours, theirs = u.argmax(1), v.argmax(1)
    rows, one = np.arange(len(u)), np.eye(u.shape[1])
    return u[rows, ours] - u[rows, theirs], one[ours] - one[theirs]


SAMPLES, CLASSES, SEED = 64, 100, 0
MARKED = (1.0, 3.0, 5.0, 20.0, math.inf)
_FINITE = np.unique(np.concatenate([np.logspace(-2, 4, 121), [1, 3, 5, 20]]))
_TICKS = (0.0, 0.01, 0.1, 1.0, 3.0, 5.0, 20.0, 100.0, 1e3, 1e4, math.inf)
_INKS = {"at the start": "#1c1c1c", "trained": "#8a6a45"}
_DOTS: Any = (0, (1, 1.6))
_DASHES: Any = (0, (4, 1.5))
_PAPER = (
    "The paper derives both limits of the gradient (read in a source): with growing tau it becomes "
    "(d - mean of d) / K for d = u - v, that of logit matching; divided by tau, with falling tau, "
    "1 at the student's class less 1 at the teacher's, label matching."
)


class Sweep(NamedTuple):
    """One student's loss over temperatures, from tau near 0 to infinity.

    Attributes:
        taus: Ascending, the last is infinity.
        value: Of ``tau^2 KL``, mean over samples.
        gradient: Euclidean norm of its gradient in the logits of a sample, mean over samples.
        value_off: Mean distance of a sample's value from that at infinity, as a share of the
            mean there.
        gradient_off: The same of the gradients, root of the sums of squares.
        matching: The limits at 0 of value / tau and gradient / tau.
        mse: Value and gradient of the MSE.
    """

    taus: np.ndarray
    value: np.ndarray
    gradient: np.ndarray
    value_off: np.ndarray
    gradient_off: np.ndarray
    matching: tuple[float, float]
    mse: tuple[float, float]


def sample_logits() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw logits of a teacher, and of two students by name; always the same."""
    rng = np.random.default_rng(SEED)
    teacher = 2.0 * rng.standard_normal((SAMPLES, CLASSES))
    teacher[np.arange(SAMPLES), rng.integers(CLASSES, size=SAMPLES)] += 10.0
    start = 0.3 * rng.standard_normal((SAMPLES, CLASSES))
    trained = teacher + 1.5 * rng.standard_normal((SAMPLES, CLASSES))
    return teacher, {"at the start": start, "trained": trained}


def sweep(student: np.ndarray, teacher: np.ndarray) -> Sweep:
    """Compute what is drawn of one student."""
    taus = np.append(_FINITE, math.inf)
    found = [kl_of_tau(student, teacher, float(tau)) for tau in taus]
    values, gradients = (np.stack(each) for each in zip(*found, strict=True))
    off = np.abs(values - values[-1]).mean(1) / values[-1].mean()
    turn = np.linalg.norm((gradients - gradients[-1]).reshape(len(taus), -1), axis=1)
    first = label_matching(student, teacher)
    d = student - teacher
    return Sweep(
        taus,
        values.mean(1),
        np.linalg.norm(gradients, axis=2).mean(1),
        off,
        turn / np.linalg.norm(gradients[-1]),
        (float(first[0].mean()), float(np.linalg.norm(first[1], axis=1).mean())),
        (float((d**2).mean()), float(np.linalg.norm(2 * d / CLASSES, axis=1).mean())),
    )


def draw() -> list[Drawing]:
    """Draw value, gradient and distance from infinity against tau."""
    teacher, students = sample_logits()
    sweeps = {name: sweep(student, teacher) for name, student in students.items()}
    figure = new_figure(height=6.6)
    panels = figure.subplot_mosaic([["value"], ["gradient"], ["off"]])
    axis = TauAxis([0.0, *_FINITE.tolist(), math.inf], ["MSE"], _TICKS)
    for name, one in sweeps.items():
        ink = _INKS[name]
        _size(panels["value"], axis, one.value, one.matching[0], one.mse[0], ink)
        _size(panels["gradient"], axis, one.gradient, one.matching[1], one.mse[1], ink)
    for name, title in (
        ("value", "KL between logits"),
        ("gradient", "its gradient in the student's logits"),
    ):
        panels[name].set_yscale("log")
        axis.dress(panels[name])
        panels[name].set_title(title)
    panels["value"].set_ylabel("value, mean")
    panels["gradient"].set_ylabel("norm, mean")
    _distances(panels["off"], sweeps)
    figure.align_ylabels()
    _legend(figure)
    foot(figure, f"{SAMPLES} samples of {CLASSES} classes, drawn with seed {SEED}; float64")
    near = sweeps["trained"]
    return [
        Drawing(
            name="losses",
            title="The losses against τ, and how far τ = 20 is from infinity",
            caption=f"KL between logits of {CLASSES} classes, times τ², against τ (logarithmic, "
            "its ends broken off): value, norm of its gradient in the student's logits, and the "
            "distance of both from those at τ = ∞ as a share of these; means over "
            f"{SAMPLES} samples, not trained but drawn with seed {SEED}. The teacher's logits have "
            "standard deviation 2 and one class 10 higher; the student's at the start 0.3, later "
            "they are the teacher's with noise of 1.5. Dashed below τ = 1: times τ instead of τ², "
            "which has a limit at 0, label matching. At ∞ the value is half the variance over "
            "classes of the difference of logits, half the MSE once both sum to the same. "
            f"τ = 20 is off by {_percent(_at(near, 20, near.value_off))} in value and "
            f"{_percent(_at(near, 20, near.gradient_off))} in gradient for the trained student.",
            figure=figure,
            paper=_PAPER,
            numbers={name: _numbers(one) for name, one in sweeps.items()},
        )
    ]


def _at(one: Sweep, tau: float, values: np.ndarray) -> float:
    return float(values[one.taus == tau][0])


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _size(
    axes: Axes, axis: TauAxis, values: np.ndarray, matching: float, mse: float, ink: str
) -> None:
    """Draw values with their limits; below tau = 1 by both scales."""
    taus = np.append(_FINITE, math.inf)
    none = np.full(len(taus), np.nan)
    axis.curve(axes, taus.tolist(), values, none, color=ink, linestyle="-")
    small = _FINITE <= 1
    scaled = np.concatenate([[matching], values[:-1][small] / _FINITE[small]])
    below = [0.0, *_FINITE[small].tolist()]
    axis.curve(axes, below, scaled, none[: len(below)], color=ink, linestyle=_DASHES)
    zero, end = axis.place(0.0), axis.place(math.inf)
    axes.plot([zero, 3], [matching] * 2, color=ink, ls=_DOTS, lw=0.9)
    axes.plot([1, end], [values[-1]] * 2, color=ink, ls=_DOTS, lw=0.9)
    mark: dict[str, Any] = dict(ms=6, mec=ink, mew=0.7, ls="", zorder=3)
    axes.plot(zero, matching, marker="o", mfc="white", **mark)
    for tau in MARKED:
        look = look_of(dict(kind="kl", tau=tau))
        (value,) = values[taus == tau]
        axes.plot(axis.place(tau), value, marker=look.marker, mfc=look.color, **mark)
    axes.plot(axis.place("MSE"), mse, marker=MSE.marker, mfc=MSE.color, **mark)


def _distances(axes: Axes, sweeps: dict[str, Sweep]) -> None:
    """Draw the distance from infinity, with the numbers at tau = 20."""
    look = look_of(dict(kind="kl", tau=20))
    axes.axvline(20, color=look.color, lw=1.2, zorder=1)
    told = []
    for name, one in sweeps.items():
        kept = (one.taus >= 1) & np.isfinite(one.taus)
        for what, off, dash in (
            ("value", one.value_off, "-"),
            ("gradient", one.gradient_off, _DASHES),
        ):
            axes.plot(one.taus[kept], off[kept], color=_INKS[name], ls=dash)
            share = _at(one, 20, off)
            axes.plot(20, share, look.marker, mfc=look.color, mec=_INKS[name], ms=7, mew=0.7)
            told.append(f"{what}, {name}: {_percent(share)}")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(1, _FINITE[-1]),
        title="distance from τ = ∞ (solid: value; dashed: gradient)",
    )
    axes.set_ylabel("share of that at ∞")
    axes.set_xlabel("τ, temperature of KL")
    axes.text(
        0.015,
        0.06,
        "\n".join(["at τ = 20", *told]),
        transform=axes.transAxes,
        fontsize=8,
        linespacing=1.4,
    )


def _legend(figure: Figure) -> None:
    black = "#555555"
    entries: list[tuple[str, dict[str, Any]]] = [
        *((f"student {name}", dict(color=ink)) for name, ink in _INKS.items()),
        ("times τ²", dict(color=black)),
        ("times τ", dict(color=black, ls=_DASHES)),
        ("limits", dict(color=black, ls=_DOTS)),
    ]
    handles = [Line2D([], [], **kind) for _, kind in entries]
    names = [name for name, _ in entries]
    figure.legend(handles, names, loc="outside upper center", ncols=5, handlelength=3)


def _numbers(one: Sweep) -> dict[str, Any]:
    at = [
        dict(
            tau="inf" if math.isinf(tau) else tau,
            value=_at(one, tau, one.value),
            gradient_norm=_at(one, tau, one.gradient),
            value_off=_at(one, tau, one.value_off),
            gradient_off=_at(one, tau, one.gradient_off),
        )
        for tau in (0.01, *MARKED)
    ]
    return dict(
        at=at,
        label_matching=dict(value=one.matching[0], gradient_norm=one.matching[1]),
        mse=dict(value=one.mse[0], gradient_norm=one.mse[1]),
    )
