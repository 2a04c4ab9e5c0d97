"""How sure logits are, and how right: top-logit difference and calibration bins."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
    r"""Return :math:`z_y - \max_{k \ne y} z_k` of each sample: above 0 where it is right.

    Args:
        logits: (N, K), K at least 2.
        label: Classes :math:`y`, (N,).
    """
    difference = np.empty(len(logits))
    for rows in _pieces(len(logits)):
        others = logits[rows].astype(np.float64)
        place = np.arange(len(others)), label[rows]
        own = others[place].copy()
        others[place] = -np.inf
        difference[rows] = own - others.max(1)
    return difference


def largest_probability(logits: np.ndarray) -> np.ndarray:
    """Return the largest softmax probability of each sample.

    Args:
        logits: (N, K).
    """
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

    Args:
        logits: (N, K), finite.
        label: (N,).
        num_bins: The number :math:`B`.
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
