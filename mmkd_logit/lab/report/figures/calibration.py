"""Top-logit differences and reliability."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from scipy.special import softmax

from ..data import Dump, Experiment
from ..densities import Panel, Row, draw_rows, not_finite
from ..samples import LOGITS, Samples, describe, samples_of
from ..style import Drawing, columns_of, mean_text, name_panel, panel_blocks, say_empty

NEEDS = LOGITS
WORK_FOLDERS = True
NUM_BINS = 15
_GAP = "#b2182b"
_PAPER_TLD = "The earlier manuscript (MS20) shows the top-logit difference of teacher and students."
_PAPER_ECE = (
    "The earlier manuscript (MS20) gives the ECE on training samples of CIFAR-100, WRN-28-4 → "
    "WRN-16-2: teacher 0.86 %, CE 3.40 %, KL at τ = 1 4.64 %, τ = 3 0.61 %, τ = 5 0.63 %, "
    "τ = 20 0.78 %."
)


@dataclass(frozen=True)
class Reliability:
    """Samples sorted into B bins by confidence."""

    count: np.ndarray  # of samples, (B,)
    accuracy: np.ndarray  # (B,), NaN in an empty bin
    confidence: np.ndarray  # mean largest probability, (B,), NaN in an empty bin
    ece: float  # expected calibration error in percent


def top_logit_difference(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    r"""Return :math:`z_y - \max_{k \ne y} z_k` of each sample: above 0 where it is right."""
    own = label[:, None]
    others = logits.copy()
    np.put_along_axis(others, own, -np.inf, axis=1)
    return np.take_along_axis(logits, own, axis=1)[:, 0].astype(np.float64) - others.max(1)


def reliability(logits: np.ndarray, label: np.ndarray, num_bins: int = NUM_BINS) -> Reliability:
    r"""Sort samples into bins of equal width by their confidence.

    Bin :math:`b` holds the confidences in :math:`((b - 1)/B,\, b/B]`. With :math:`n_b` of
    :math:`n` samples in it, ECE is
    :math:`100 \sum_b \frac{n_b}{n} |\mathrm{acc}(b) - \mathrm{conf}(b)|`, as
    ``mmkd_logit.ExpectedCalibrationError`` has it.
    """
    confidence = softmax(logits.astype(np.float64), axis=1).max(1)
    right = logits.argmax(1) == label
    bins = np.searchsorted(np.arange(1, num_bins) / num_bins, confidence)  # right edges count
    count = np.bincount(bins, minlength=num_bins)
    hits = np.bincount(bins, right, num_bins)
    summed = np.bincount(bins, confidence, num_bins)
    ece = 100 * float(np.abs(hits - summed).sum() / len(label))
    with np.errstate(invalid="ignore"):
        return Reliability(count, hits / count, summed / count, ece)


def draw(experiment: Experiment) -> list[Drawing]:
    """Draw top-logit differences and calibration of each group of students of an experiment."""
    drawings = []
    for samples in samples_of(experiment):
        found = {each.split: each.measure(_measure) for each in samples[::-1]}
        drawings.append(_draw_differences(samples[::-1], found))
        drawings.append(_draw_reliability(samples[::-1], found))
    return drawings


def _measure(network: Dump, teacher_logits: np.ndarray | None) -> dict[str, Any]:
    finite = np.isfinite(network.logits).all(1)
    found = reliability(network.logits[finite], network.label[finite]) if finite.any() else None
    return dict(tld=top_logit_difference(network.logits, network.label), reliability=found)


def _draw_differences(samples: list[Samples], found: dict[str, dict[str, list[Row]]]) -> Drawing:
    rows = {split: quantities["tld"] for split, quantities in found.items()}
    label = "top-logit difference (logits)"
    figure = draw_rows(
        *(Panel(rows[s.split], label, s.split_name.capitalize(), zero=True) for s in samples)
    )
    return describe(
        samples,
        figure,
        rows,
        part="tld",
        title="Top-logit difference",
        what="Densities (Gaussian kernels) of the top-logit difference, the logit of a sample's "
        "label less the largest of the others: above 0 where the prediction is right; each is "
        "scaled to its own peak, black ticks are medians",
        paper=_PAPER_TLD,
        notes=not_finite(rows),
    )


def _draw_reliability(samples: list[Samples], found: dict[str, dict[str, list[Row]]]) -> Drawing:
    heads = [each.split_name.capitalize() for each in samples]
    count = len(samples[0].group.methods) + 1
    figure, blocks = panel_blocks(heads, count, 1.85, share=True)
    for block, quantities in zip(blocks, found.values(), strict=True):
        rows = zip(block, quantities["reliability"], quantities["tld"], strict=True)
        for place, (axes, row, differences) in enumerate(rows):
            _draw_panel(axes, row, "no finite logits" if differences.by_seed else "not dumped")
            if place + columns_of(count) >= count:  # none below
                axes.tick_params(labelbottom=True)
                axes.set_xlabel("confidence")
            if place % columns_of(count) == 0:
                axes.set_ylabel("accuracy")
    handles = [
        Patch(facecolor="#cccccc", edgecolor="#777777", linewidth=0.7, label="accuracy of the bin"),
        Patch(facecolor="none", edgecolor=_GAP, hatch="////////", label="gap to its confidence"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return describe(
        samples,
        figure,
        {split: quantities["reliability"] for split, quantities in found.items()},
        part="reliability",
        title="Reliability",
        what=f"Samples sorted into {NUM_BINS} bins of equal width by the largest probability: the "
        "share that is right, and how far that is from the mean probability; ECE is the mean of "
        "these gaps over samples; pale bins hold less than 1 % of them",
        paper=_PAPER_ECE,
        summary=lambda row: {seed: vars(row.by_seed[seed]) for seed in sorted(row.by_seed)},
        notes=not_finite({split: each["tld"] for split, each in found.items()}),
        how=", bars of the lowest, ECE as mean ± standard deviation",
    )


def _draw_panel(axes: Axes, row: Row, empty: str) -> None:
    text = mean_text([each.ece for each in row.by_seed.values()], " %")
    name_panel(axes, row.name, row.look, f"ECE {text}" if row.by_seed else " ")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle=(0, (4, 3)), zorder=4)
    if not row.by_seed:
        say_empty(axes, empty)
        return
    found = row.by_seed[min(row.by_seed)]
    some = np.flatnonzero(found.count)
    accuracy, confidence = found.accuracy[some], found.confidence[some]
    pale = found.count[some] < 0.01 * found.count.sum()
    width = 1 / len(found.count)
    bars: dict[str, Any] = dict(x=some * width, width=width, align="edge")
    color = row.look.color
    axes.bar(
        height=accuracy, linewidth=0.7, zorder=2, **bars,
        facecolor=[to_rgba(color, 0.12 if each else 0.4) for each in pale],
        edgecolor=[to_rgba(color, 0.4 if each else 1) for each in pale],
    )  # fmt: skip
    gaps = axes.bar(
        height=abs(accuracy - confidence), bottom=np.minimum(accuracy, confidence), **bars,
        facecolor="none", edgecolor=_GAP, hatch="////////", linewidth=0.5, zorder=3,
    )  # fmt: skip
    for gap, each in zip(gaps, pale, strict=True):
        gap.set_alpha(0.35 if each else 1)
