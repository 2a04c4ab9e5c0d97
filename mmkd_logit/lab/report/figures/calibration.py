"""Top-logit differences and reliability."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from mmkd_logit.lab.report.data import Dump, ExperimentFile
from mmkd_logit.lab.report.samples import (
    Samples,
    Teacher,
    describe,
    describe_pooled,
    draw_pooled,
    dumped_samples,
    gather,
    pooled_panels,
    split_name,
)
from mmkd_logit.lab.report.style import (
    TEACHER,
    Drawing,
    Look,
    mean_text,
    name_panel,
    panel_blocks,
    say_empty,
)

NUM_BINS = 15
_ROWS = 8192  # at a time, in float64


@dataclass(frozen=True)
class Reliability:
    """Samples sorted into B bins by confidence.

    Attributes:
        count: Samples in each bin, (B,).
        accuracy: Share of them that is right, (B,); NaN in an empty bin.
        confidence: Their mean largest probability, (B,); NaN in an empty bin.
        ece: Expected calibration error in percent.
    """

    count: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray
    ece: float


def top_logit_difference(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    r"""Return :math:`z_y - \max_{k \ne y} z_k` of each sample: above 0 where it is right."""
    difference = np.empty(len(logits))
    for rows in _pieces(len(logits)):
        others = logits[rows].astype(np.float64)
        place = np.arange(len(others)), label[rows]
        own = others[place].copy()
        others[place] = -np.inf
        difference[rows] = own - others.max(1)
    return difference


def largest_probability(logits: np.ndarray) -> np.ndarray:
    """Return the largest softmax probability of each sample."""
    largest = np.empty(len(logits))
    for rows in _pieces(len(logits)):
        values = logits[rows].astype(np.float64)
        largest[rows] = 1 / np.exp(values - values.max(1, keepdims=True)).sum(1)
    return largest


def reliability(logits: np.ndarray, label: np.ndarray, num_bins: int = NUM_BINS) -> Reliability:
    r"""Sort samples into bins of equal width by their confidence.

    Bin :math:`b` holds the confidences in :math:`((b - 1)/B,\, b/B]`. With :math:`n_b` of
    :math:`n` samples in it, ECE is
    :math:`100 \sum_b \frac{n_b}{n} |\mathrm{acc}(b) - \mathrm{conf}(b)|`, as
    ``mmkd_logit.ExpectedCalibrationError`` has it.
    """
    confidence = largest_probability(logits)
    right = logits.argmax(1) == label
    bins = np.searchsorted(np.arange(1, num_bins) / num_bins, confidence)  # right edges count
    count = np.bincount(bins, minlength=num_bins)
    hits = np.bincount(bins, right, num_bins)
    summed = np.bincount(bins, confidence, num_bins)
    ece = 100 * float(np.abs(hits - summed).sum() / len(label))
    with np.errstate(invalid="ignore"):
        return Reliability(count, hits / count, summed / count, ece)


def _pieces(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, min(count, start + _ROWS))


# How sure teacher and students are, and whether they are right as often: TLD and reliability.


_GAP = "#b2182b"
_PAPER_TLD = "The earlier manuscript (MS20) shows the top-logit difference of teacher and students."
_PAPER_ECE = (
    "The earlier manuscript (MS20) gives the ECE on training samples of CIFAR-100, WRN-28-4 → "
    "WRN-16-2: teacher 0.86 %, CE 3.40 %, KL at τ = 1 4.64 %, τ = 3 0.61 %, τ = 5 0.63 %, "
    "τ = 20 0.78 %."
)


def draw(experiment: ExperimentFile) -> list[Drawing]:
    """Draw top-logit differences and calibration of each family of students of an experiment."""
    return [
        part(samples[::-1])  # test first: that is what calibration is for
        for samples in dumped_samples(experiment)
        for part in (_draw_differences, _draw_reliability)
    ]


def _difference(network: Dump | Teacher) -> dict[str, np.ndarray]:
    return dict(tld=top_logit_difference(network.logits, network.label))


def _draw_differences(samples: list[Samples]) -> Drawing:
    found = {
        each.split: gather(each, lambda s: _difference(s.dump), _difference)["tld"]
        for each in samples
    }
    labels = ["top-logit difference (logits)"] * len(samples)
    heads = [split_name(split).capitalize() for split in found]
    figure, panels = pooled_panels(max(map(len, found.values())), labels, heads)
    for place, (axes, pooled) in enumerate(zip(panels, found.values(), strict=True)):
        draw_pooled(axes, pooled, names=place == 0, zero=True)
    return describe_pooled(
        samples,
        found,
        figure,
        part="tld",
        title="Top-logit difference",
        what="Densities (Gaussian kernels) of the top-logit difference, the logit of a sample's "
        "label less the largest of the others: above 0 where the prediction is right; each is "
        "scaled to its own peak, black ticks are medians",
        paper=_PAPER_TLD,
    )


class _Diagram:
    """One panel: the reliability of a method on a split, by seed."""

    def __init__(self, name: str, look: Look) -> None:
        self.name, self.look = name, look
        self.seeds: dict[int, Reliability] = {}
        self.not_finite = 0

    def add(self, seed: int, network: Dump | Teacher) -> None:
        finite = np.isfinite(network.logits).all(1)
        self.not_finite += int((~finite).sum())
        if finite.any():
            self.seeds[seed] = reliability(network.logits[finite], network.label[finite])

    def numbers(self) -> dict[int, dict]:
        return {
            seed: dict(
                ece=found.ece,
                count=found.count.tolist(),
                accuracy=[None if np.isnan(v) else float(v) for v in found.accuracy],
                confidence=[None if np.isnan(v) else float(v) for v in found.confidence],
            )
            for seed, found in sorted(self.seeds.items())
        }


def _diagrams(samples: Samples) -> list[_Diagram]:
    found = {"teacher": _Diagram("teacher", TEACHER)}
    found.update({m.name: _Diagram(m.name, m.look) for m in samples.family.methods})
    for seed in samples.family.seeds:
        for student in samples.students(seed):
            found[student.method.name].add(seed, student.dump)
        teacher = samples.teacher(seed)
        if teacher is not None:
            found["teacher"].add(seed, teacher)
    return list(found.values())


def _draw_reliability(samples: list[Samples]) -> Drawing:
    found = {each.split: _diagrams(each) for each in samples}
    heads = [split_name(split).capitalize() for split in found]
    count = len(next(iter(found.values())))
    figure, blocks = panel_blocks(heads, count, 1.85, ("confidence", "accuracy"))
    for block, diagrams in zip(blocks, found.values(), strict=True):
        for axes, diagram in zip(block, diagrams, strict=True):
            _draw_panel(axes, diagram)
    handles = [
        Patch(facecolor="#cccccc", edgecolor="#777777", linewidth=0.7, label="accuracy of the bin"),
        Patch(facecolor="none", edgecolor=_GAP, hatch="////////", label="gap to its confidence"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    every = [diagram for diagrams in found.values() for diagram in diagrams]
    seeds = {seed for diagram in every for seed in diagram.seeds}
    notes = {d.name: f"{d.not_finite:,} values by {d.name} are not finite"
             for d in every if d.not_finite}  # fmt: skip
    return describe(
        samples,
        figure,
        part="reliability",
        title="Reliability",
        what=f"Samples sorted into {NUM_BINS} bins of equal width by the largest probability: the "
        "share that is right, and how far that is from the mean probability; ECE is the mean of "
        "these gaps over samples; pale bins hold less than 1 % of them",
        paper=_PAPER_ECE,
        seeds=seeds,
        numbers={
            split: {d.name: d.numbers() for d in ds if d.seeds} for split, ds in found.items()
        },
        notes=notes.values(),
        how=", bars of the lowest, ECE as mean ± standard deviation",
    )


def _draw_panel(axes: Axes, diagram: _Diagram) -> None:
    text = mean_text([each.ece for each in diagram.seeds.values()], " %")
    name_panel(axes, diagram.name, diagram.look, f"ECE {text}" if diagram.seeds else " ")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle=(0, (4, 3)), zorder=4)
    if not diagram.seeds:
        say_empty(axes, "no finite logits" if diagram.not_finite else "not dumped")
        return
    found = diagram.seeds[min(diagram.seeds)]
    width = 1 / len(found.count)
    for place in np.flatnonzero(found.count):
        accuracy, confidence = found.accuracy[place], found.confidence[place]
        pale = found.count[place] < 0.01 * found.count.sum()
        color = diagram.look.color
        axes.bar(
            place * width, accuracy, width, align="edge", linewidth=0.7, zorder=2,
            facecolor=to_rgba(color, 0.12 if pale else 0.4),
            edgecolor=to_rgba(color, 0.4 if pale else 1),
        )  # fmt: skip
        axes.bar(
            place * width, abs(accuracy - confidence), width, min(accuracy, confidence),
            align="edge", facecolor="none", edgecolor=_GAP, hatch="////////", linewidth=0.5,
            alpha=0.35 if pale else 1, zorder=3,
        )  # fmt: skip
