"""The losses and their gradients against tau."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import log_softmax

from ..style import MSE, Drawing, TauAxis, foot, look_of, new_figure, number

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
_TAUS = np.unique(np.concatenate([np.logspace(-2, 4, 121), [1, 3, 5, 20, math.inf]]))
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
    """The value of a student's loss, or the norm of its gradient, over temperatures."""

    at: np.ndarray  # at _TAUS, mean over samples
    off: np.ndarray  # distance from that at infinity, as a share of it
    matching: np.ndarray  # the limit at 0 of the quantity / tau
    mse: np.ndarray  # of the MSE

    def share_at(self, tau: float) -> str:
        """Return the distance at a temperature in percent."""
        return f"{100 * self.off[tau == _TAUS][0]:.2g} %"

    def numbers(self) -> dict[str, Any]:
        """Return the quantity and its distance at the temperatures that are marked."""
        kept = np.searchsorted(_TAUS, (0.01, *MARKED))
        at = {number(_TAUS[i]): dict(mean=self.at[i], off=self.off[i]) for i in kept}
        return dict(at=at, label_matching=self.matching, mse=self.mse)


def sample_logits() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw logits of a teacher, and of two students by name; always the same."""
    rng = np.random.default_rng(SEED)
    teacher = 2.0 * rng.standard_normal((SAMPLES, CLASSES))
    teacher[np.arange(SAMPLES), rng.integers(CLASSES, size=SAMPLES)] += 10.0
    start = 0.3 * rng.standard_normal((SAMPLES, CLASSES))
    trained = teacher + 1.5 * rng.standard_normal((SAMPLES, CLASSES))
    return teacher, {"at the start": start, "trained": trained}


def sweep(student: np.ndarray, teacher: np.ndarray) -> dict[str, Sweep]:
    """Compute what is drawn of one student: the value of its loss and the gradient."""
    found = [kl_of_tau(student, teacher, float(tau)) for tau in _TAUS]
    values, gradients = (np.stack(each) for each in zip(*found, strict=True))
    turned = np.linalg.norm(gradients - gradients[-1], axis=(1, 2))
    first, turn = label_matching(student, teacher)
    d = student - teacher

    def norm(vectors: np.ndarray) -> np.ndarray:
        return np.linalg.norm(vectors, axis=-1).mean(-1)

    off = np.abs(values - values[-1]).mean(1) / values[-1].mean()
    turned /= np.linalg.norm(gradients[-1])
    return dict(
        value=Sweep(values.mean(1), off, first.mean(), (d**2).mean()),
        gradient=Sweep(norm(gradients), turned, norm(turn), norm(2 * d / CLASSES)),
    )


def draw() -> list[Drawing]:
    """Draw value, gradient and distance from infinity against tau."""
    teacher, students = sample_logits()
    sweeps = {name: sweep(student, teacher) for name, student in students.items()}
    figure = new_figure(height=6.6)
    value, gradient, off = figure.subplots(3, 1)
    axis = TauAxis([0.0, *_TAUS.tolist()], ["MSE"], _TICKS)
    for name, found in sweeps.items():
        _draw_sweep(value, axis, found["value"], _INKS[name])
        _draw_sweep(gradient, axis, found["gradient"], _INKS[name])
    for axes in (value, gradient):
        axes.set_yscale("log")
        axis.dress(axes)
    value.set(title="KL between logits", ylabel="value, mean")
    gradient.set(title="its gradient in the student's logits", ylabel="norm, mean")
    _draw_distances(off, sweeps)
    figure.align_ylabels()
    _legend(figure)
    foot(figure, f"{SAMPLES} samples of {CLASSES} classes, drawn with seed {SEED}; float64")
    near = {what: found.share_at(20) for what, found in sweeps["trained"].items()}
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
            f"τ = 20 is off by {near['value']} in value and {near['gradient']} in gradient for "
            "the trained student.",
            figure=figure,
            paper=_PAPER,
            numbers={
                name: {what: each.numbers() for what, each in found.items()}
                for name, found in sweeps.items()
            },
        )
    ]


def _draw_sweep(axes: Axes, axis: TauAxis, found: Sweep, ink: str) -> None:
    """Draw a quantity with its limits; below tau = 1 by both scales."""
    axis.curve(axes, _TAUS, found.at, color=ink, linestyle="-")
    small = _TAUS <= 1
    scaled = np.append(found.matching, found.at[small] / _TAUS[small])
    axis.curve(axes, np.append(0, _TAUS[small]), scaled, color=ink, linestyle=_DASHES)
    zero, end = axis.place(0.0), axis.place(math.inf)
    axes.plot([zero, 3], [found.matching] * 2, color=ink, ls=_DOTS, lw=0.9)
    axes.plot([1, end], [found.at[-1]] * 2, color=ink, ls=_DOTS, lw=0.9)
    mark: dict[str, Any] = dict(ms=6, mec=ink, mew=0.7, ls="", zorder=3)
    axes.plot(zero, found.matching, marker="o", mfc="white", **mark)
    for tau in MARKED:
        look = look_of(dict(kind="kl", tau=tau))
        value = found.at[tau == _TAUS]
        axes.plot(axis.place(tau), value, marker=look.marker, mfc=look.color, **mark)
    axes.plot(axis.place("MSE"), found.mse, marker=MSE.marker, mfc=MSE.color, **mark)


def _draw_distances(axes: Axes, sweeps: dict[str, dict[str, Sweep]]) -> None:
    """Draw the distance from infinity, with the numbers at tau = 20."""
    look = look_of(dict(kind="kl", tau=20))
    axes.axvline(20, color=look.color, lw=1.2, zorder=1)
    texts = ["at τ = 20"]
    kept = (_TAUS >= 1) & np.isfinite(_TAUS)
    for name, found in sweeps.items():
        for (what, each), dash in zip(found.items(), ("-", _DASHES), strict=True):
            axes.plot(_TAUS[kept], each.off[kept], color=_INKS[name], ls=dash)
            kind: dict[str, Any] = dict(mfc=look.color, mec=_INKS[name], ms=7, mew=0.7)
            axes.plot(20, each.off[_TAUS == 20], look.marker, **kind)
            texts.append(f"{what}, {name}: {each.share_at(20)}")
    axes.set(xscale="log", yscale="log", xlim=(1, 1e4), ylabel="share of that at ∞")
    axes.set(title="distance from τ = ∞ (solid: value; dashed: gradient)")
    axes.set(xlabel="τ, temperature of KL")
    text: dict[str, Any] = dict(transform=axes.transAxes, fontsize=8, linespacing=1.4)
    axes.text(0.015, 0.06, "\n".join(texts), **text)


def _legend(figure: Figure) -> None:
    entries = {f"student {name}": (ink, "-") for name, ink in _INKS.items()}
    entries |= {
        label: ("#555555", dashes)
        for label, dashes in (("times τ²", "-"), ("times τ", _DASHES), ("limits", _DOTS))
    }
    handles = [Line2D([], [], label=k, color=ink, ls=ls) for k, (ink, ls) in entries.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, handlelength=3)
