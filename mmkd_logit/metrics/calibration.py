"""Expected calibration error."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd_logit.registry import METRICS

from .base import check_collecting, forget, labels_of, log_softmax, logits_of, once


@METRICS.register_module()
class ExpectedCalibrationError(BaseMetric):
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

    With equal width only sums over each bin are kept, in float64, whatever the number of samples;
    with equal mass two numbers a sample. Over several processes the samples that a sampler repeats
    at the end, to give all the same number, do not count.

    The key is ``calibration/ece``, for the teacher ``teacher_ece``, with equal mass
    ``ece_adaptive`` or ``teacher_ece_adaptive``. That of a teacher is left out where samples have
    ``logits`` and no ``teacher_logits``.

    Args:
        num_bins: Number :math:`B` of bins.
        collect_device: ``'cpu'`` or ``'gpu'``, where processes exchange their sums.
        prefix: Stands before ``/ece`` in the place of ``calibration``.
        collect_dir: Folder to exchange them through; see MMEngine's ``BaseMetric``.
        of: ``'student'`` or ``'teacher'``.
        binning: ``'width'`` or ``'mass'``: of what all bins have the same.

    Raises:
        ValueError: If ``num_bins`` is no positive integer, ``of`` or ``binning`` something else,
            or, when evaluating, samples have no single label, scores outside [0, 1] or, for the
            teacher, no logits or such that are not finite, or there are none.

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

    def __init__(
        self,
        num_bins: int = 15,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
        of: str = "student",
        binning: str = "width",
    ) -> None:
        check_collecting(collect_device, prefix, collect_dir)
        super().__init__(collect_device, prefix, collect_dir)
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
            raise ValueError(f"num_bins must be an integer from 1 on, got {num_bins!r}")
        if of not in ("student", "teacher"):
            raise ValueError(f"of must be 'student' or 'teacher', got {of!r}")
        if binning not in ("width", "mass"):
            raise ValueError(f"binning must be 'width' or 'mass', got {binning!r}")
        self.num_bins = num_bins
        self.of = of
        self.binning = binning
        self._key = ("teacher_" if of == "teacher" else "") + "ece"
        self._key += "_adaptive" if binning == "mass" else ""
        self._edges = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
        self._reset()

    def _reset(self) -> None:
        # Samples, right ones and summed confidence of each bin.
        self._sums = torch.zeros(3, self.num_bins, dtype=torch.float64)
        self._seen = 0
        self._without_teacher = 0
        # The last sample of a process may be a repeated one, which only evaluate() can tell.
        self._last: tuple[Tensor, Tensor] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add a batch.

        Args:
            data_batch: Not looked at.
            data_samples: N dicts with ``gt_label``, one class, and, for the student,
                ``pred_score``, (K,), for the teacher ``logits`` and ``teacher_logits``, (K,).
        """
        if not data_samples:
            return
        found = self._of_student if self.of == "student" else self._of_teacher
        judged = found(data_samples)
        if judged is None:
            self._without_teacher += len(data_samples)
        if self._without_teacher and (judged is not None or self._seen):
            raise ValueError(
                f"{type(self).__name__} got some samples with and some without teacher_logits"
            )
        if judged is None:
            return
        confidence, right = judged
        self._seen += len(confidence)
        if self.binning == "mass":
            self.results.extend(torch.stack([confidence, right], 1).numpy())
            return
        self._add_last()
        self._add(confidence[:-1], right[:-1])
        self._last = confidence[-1:], right[-1:]

    def _of_student(self, data_samples: Sequence[dict]) -> tuple[Tensor, Tensor]:
        if any("pred_score" not in sample for sample in data_samples):
            raise ValueError(
                f"{type(self).__name__} needs pred_score, the probability of each class; the "
                "model's head gives none"
            )
        if any(sample.get("gt_label") is None for sample in data_samples):
            raise ValueError(f"{type(self).__name__} needs a gt_label in every sample")
        each = [sample["pred_score"] for sample in data_samples]
        labels = [sample["gt_label"] for sample in data_samples]
        judged = once("judged", each + labels, lambda: self._judge(each, labels))
        return judged[0], judged[1]

    def _judge(self, each: list[Tensor], labels: list[Tensor]) -> Tensor:
        scores = torch.stack(each).detach()
        if scores.ndim != 2 or any(label.numel() != 1 for label in labels):
            raise ValueError(
                f"{type(self).__name__} is for one label a sample and one score a class, got "
                f"scores {tuple(scores.shape[1:])} and labels {tuple(labels[0].shape)}"
            )
        confidence, predicted = scores.double().max(dim=1)
        if not ((confidence >= 0) & (confidence <= 1 + 1e-3)).all():  # not for NaN either
            raise ValueError(
                f"{type(self).__name__} needs probabilities, got a largest pred_score of "
                f"{confidence.min():g} to {confidence.max():g}"
            )
        flat = torch.cat([label if label.ndim == 1 else label.reshape(1) for label in labels])
        if flat.is_floating_point() or flat.min() < 0 or flat.max() >= scores.shape[1]:
            raise ValueError(
                f"{type(self).__name__} needs labels from 0 to {scores.shape[1] - 1}, as there are "
                f"{scores.shape[1]} scores, got {flat.min()} to {flat.max()}"
            )
        right = predicted == flat.to(predicted.device)
        return torch.stack([confidence.clamp(max=1), right.double()]).cpu()

    def _of_teacher(self, data_samples: Sequence[dict]) -> tuple[Tensor, Tensor] | None:
        name = type(self).__name__
        logits = logits_of(data_samples, "teacher", name)
        if logits is None:
            return None
        log_probs, predicted = log_softmax(logits, "teacher").max(dim=1)
        labels = labels_of(data_samples, "gt_label", logits.shape[1], name)
        return log_probs.exp(), (predicted == labels).double()

    def _add_last(self) -> None:
        if self._last is not None:
            self._add(*self._last)
            self._last = None

    def _add(self, confidence: Tensor, right: Tensor) -> None:
        bins = torch.bucketize(confidence, self._edges)  # the right edge belongs to its bin
        for row, values in zip(
            self._sums, (torch.ones_like(confidence), right, confidence), strict=True
        ):
            row.index_add_(0, bins, values)

    def evaluate(self, size: int) -> dict[str, float]:
        """Return the metric of all processes' samples and begin anew.

        Args:
            size: Number of samples in the data set.
        """
        # Process r of W has samples r, r + W, ... of the data set; those past its end repeat.
        if (self._seen - 1) * get_world_size() + get_rank() < size:
            self._add_last()
        if self.binning == "width":
            self.results, size = [self._sums], get_world_size()
        without_teacher = self._without_teacher
        self._reset()
        forget()
        if without_teacher:
            self.results.clear()
            return {}
        return super().evaluate(size)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metric.

        Args:
            results: With equal width of each process, (3, ``num_bins``): samples, right ones,
                summed confidence. With equal mass of each sample: confidence, and 1 if right.
        """
        if self.binning == "width":
            sums = torch.stack(results).sum(0)
        else:
            sums = self._of_equal_mass(np.array(results).reshape(len(results), 2))
        samples, right, confidence = sums
        if not samples.sum():
            raise ValueError(f"{type(self).__name__} got no samples")
        return {self._key: 100 * ((right - confidence).abs().sum() / samples.sum()).item()}

    def _of_equal_mass(self, rows: np.ndarray) -> Tensor:
        confidence, right = rows.T
        below = np.searchsorted(np.sort(confidence), confidence)
        bins = below * self.num_bins // max(len(rows), 1)
        return torch.from_numpy(
            np.stack(
                [np.bincount(bins, values, self.num_bins) for values in (None, right, confidence)]
            )
        )
