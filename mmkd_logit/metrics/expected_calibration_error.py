"""How far a classifier's confidence is from how often it is right."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmkd_logit.registry import METRICS


@METRICS.register_module()
class ExpectedCalibrationError(BaseMetric):
    r"""Expected calibration error in percent (Guo et al., ICML 2017, equation 3).

    .. math::
        \mathrm{ECE} = 100 \sum_{b=1}^{B} \frac{n_b}{n}
            \left| \mathrm{acc}(b) - \mathrm{conf}(b) \right|

    Bin :math:`b` holds the :math:`n_b` of :math:`n` samples whose confidence, the largest
    ``pred_score``, is in :math:`((b - 1)/B,\, b/B]`; the first one holds 0 too.
    :math:`\mathrm{acc}(b)` is the share of them that is classified right, :math:`\mathrm{conf}(b)`
    their mean confidence. 0 is perfect calibration, 100 is always wrong and certain. Of equal
    largest scores the first class counts as predicted.

    Only sums over each bin are kept, in float64, whatever the number of samples. Over several
    processes the samples that a sampler repeats at the end, to give all the same number, do not
    count. The key is ``calibration/ece``.

    Args:
        num_bins: Number :math:`B` of bins of equal width.
        collect_device: ``'cpu'`` or ``'gpu'``, where processes exchange their sums.
        prefix: Stands before ``/ece`` in the place of ``calibration``.
        collect_dir: Folder to exchange them through; see MMEngine's ``BaseMetric``.

    Raises:
        ValueError: If ``num_bins`` is no positive integer, or, when evaluating, samples have no
            single label, scores outside [0, 1], or there are none.

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
    ) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        if isinstance(num_bins, bool) or not isinstance(num_bins, int) or num_bins < 1:
            raise ValueError(f"num_bins must be an integer from 1 on, got {num_bins!r}")
        self.num_bins = num_bins
        self._edges = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
        self._reset()

    def _reset(self) -> None:
        # Samples, right ones and summed confidence of each bin.
        self._sums = torch.zeros(3, self.num_bins, dtype=torch.float64)
        self._seen = 0
        # The last sample of a process may be a repeated one, which only evaluate() can tell.
        self._last: tuple[Tensor, Tensor] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add a batch to the sums.

        Args:
            data_batch: Not looked at.
            data_samples: N dicts with ``pred_score``, (K,), and ``gt_label``, one class.
        """
        if not data_samples:
            return
        if any("pred_score" not in sample for sample in data_samples):
            raise ValueError(
                f"{type(self).__name__} needs pred_score, the probability of each class; the "
                "model's head gives none"
            )
        scores = torch.stack([sample["pred_score"].detach() for sample in data_samples])
        labels = [sample["gt_label"] for sample in data_samples]
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
        right = predicted == torch.cat([label.reshape(1) for label in labels]).to(predicted.device)
        confidence, right = confidence.clamp(max=1).cpu(), right.double().cpu()
        self._add_last()
        self._add(confidence[:-1], right[:-1])
        self._last = confidence[-1:], right[-1:]
        self._seen += len(confidence)

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
        self.results = [self._sums]
        self._reset()
        return super().evaluate(get_world_size())

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """Compute the metric from sums.

        Args:
            results: Of each process, (3, ``num_bins``): samples, right ones, summed confidence.
        """
        samples, right, confidence = torch.stack(results).sum(0)
        if not samples.sum():
            raise ValueError(f"{type(self).__name__} got no samples")
        return dict(ece=100 * ((right - confidence).abs().sum() / samples.sum()).item())
