"""Expected calibration error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_choice, check_count

from .base import LogitMetric, log_softmax

_ROUNDING = 1e-3  # by which a softmax in half precision may exceed 1


@METRICS.register_module()
class ExpectedCalibrationError(LogitMetric):
    r"""Expected calibration error in percent (Guo et al., ICML 2017, equation 3).

    .. math::
        \mathrm{ECE} = 100 \sum_{b=1}^{B} \frac{n_b}{n}
            \left| \mathrm{acc}(b) - \mathrm{conf}(b) \right|

    Bin :math:`b` holds :math:`n_b` of :math:`n` samples, by their confidence: the largest
    ``pred_score`` of the student, or the largest softmax of ``teacher_logits``.
    :math:`\mathrm{acc}(b)` is the share of them that is classified right, :math:`\mathrm{conf}(b)`
    their mean confidence. 0 is perfect calibration, 100 is always wrong and certain. Of equal
    largest scores the first class counts as predicted.

    Bins of equal width hold the confidences in :math:`((b - 1)/B,\, b/B]`; the first one holds 0
    too. Most samples of a trained network are in the last one. Bins of equal mass (adaptive:
    Nguyen and O'Connor, EMNLP 2015; Nixon et al., 2019, whose ACE does it for every class) hold
    equal numbers of samples: one whose confidence exceeds that of :math:`j` others (counted from
    all n) is in bin :math:`\lfloor j B / n \rfloor + 1`. So the order of samples is of no
    account: equal confidences are always in one bin, and where there are none, the sizes of bins
    differ by one at most.

    The key is ``calibration/ece``, for the teacher ``teacher_ece``, with equal mass
    ``ece_adaptive`` or ``teacher_ece_adaptive``. That of a teacher is left out where samples have
    ``logits`` and no ``teacher_logits``.

    Args:
        num_bins: Number :math:`B` of bins.
        of: ``'student'`` or ``'teacher'``.
        binning: ``'width'`` or ``'mass'``: of what all bins have the same.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``num_bins`` is no positive integer, ``of`` or ``binning`` something else,
            or scores are outside [0, 1]; for samples as in :class:`LogitMetric`.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import ExpectedCalibrationError
        >>> metric = ExpectedCalibrationError()
        >>> scores, label = torch.tensor([0.25, 0.75]), torch.tensor([1])
        >>> metric.process({}, [dict(pred_score=scores, gt_label=label)] * 4)
        >>> metric.evaluate(4)
        {'calibration/ece': 25.0}
    """

    default_prefix = "calibration"
    needs_logits = False  # the probabilities of each prediction serve

    def __init__(
        self, num_bins: int = 15, of: str = "student", binning: str = "width", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_bins = check_count("num_bins", num_bins)
        self.of = check_choice("of", of, ("student", "teacher"))
        self.binning = check_choice("binning", binning, ("width", "mass"))

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Keep the confidence of each prediction, and whether it is right."""
        if self.of == "student":
            scores = self.vectors_of(samples, "pred_score")
            assert scores is not None
            confidence, predicted = scores.max(1)
            if confidence.min() < 0 or confidence.max() > 1 + _ROUNDING:
                raise ValueError(
                    f"{self.name} needs probabilities, got a largest pred_score of "
                    f"{confidence.min():g} to {confidence.max():g}"
                )
        else:
            scores = self.logits_of(samples, "teacher")
            if scores is None:
                return {}
            log_probabilities, predicted = log_softmax(scores, "teacher").max(1)
            confidence = log_probabilities.exp()
        labels = self.labels_of(samples, scores.shape[1])
        return dict(confidence=confidence.clamp(max=1), right=predicted == labels)

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the error."""
        confidence, right = columns["confidence"], columns["right"]
        if self.binning == "width":
            edges = np.arange(1, self.num_bins) / self.num_bins
            bins = np.searchsorted(edges, confidence)  # an edge belongs to the bin below it
        else:
            below = np.searchsorted(np.sort(confidence), confidence)
            bins = below * self.num_bins // len(confidence)
        gaps = np.bincount(bins, right) - np.bincount(bins, confidence)
        key = ("teacher_" if self.of == "teacher" else "") + "ece"
        key += "_adaptive" if self.binning == "mass" else ""
        return {key: 100 * np.abs(gaps).sum() / len(confidence)}
