"""What the logits look like: their sum, entropy and margin, and the size of the pre-logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import labels_of, log_softmax, pair, stacked


@METRICS.register_module()
class LogitStatistics(LogitMetric):
    r"""Statistics of the logits of student and teacher, and of the student's pre-logits.

    For sample i with label :math:`y_i`, logits :math:`u_i` of the student and :math:`v_i` of the
    teacher over K classes, probabilities :math:`p_i = \mathrm{softmax}(u_i)` and pre-logits
    :math:`r_i`, the input of the last linear layer; means are over the n samples:

    .. math::
        s_i = \sum_{k=1}^{K} u_{ik}, \qquad
        t_i = \sum_{k=1}^{K} v_{ik}, \qquad
        H_i = -\sum_{k=1}^{K} p_{ik} \ln p_{ik}, \qquad
        \mathrm{TLD}_i = u_{i y_i} - \max_{k \ne y_i} u_{ik}

    ======================================  ====================================================
    ``logits/sum_mean``, ``/sum_std``       mean and standard deviation (over n) of s
    ``logits/teacher_sum_mean``             mean of t
    ``logits/sum_deviation``                mean of abs(s - t)
    ``logits/norm``                         mean of the Euclidean norm of r
    ``logits/entropy``                      mean of H, in nats: 0 is certain, ln K uniform
    ``logits/tld``                          mean of TLD, above 0 where the label is predicted
    ``logits/teacher_entropy``              the same of the teacher
    ``logits/teacher_tld``
    ======================================  ====================================================

    All but the entropy are in the unit of logits (or pre-logits), at temperature 1. Kim et al.
    (IJCAI 2021) compare the losses by sums and norms; TLD is the top-logit difference of their
    manuscript of 2020, "When does Knowledge Distillation Help?". KL takes no notice of s, MSE
    draws it to t. What concerns the teacher is left out where samples have no ``teacher_logits``,
    the norm where they have no ``prelogits``.

    Args:
        label: Which label TLD takes for y: ``'gt_label'``, or ``'clean_label'``, the true one
            under label noise; a sample without one counts with its ``gt_label``.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``label`` is something else; if samples have no ``logits``, fewer than two,
            logits of other classes than the teacher's, or such that are not finite, or no single
            label among the classes; or if there are no samples.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import LogitStatistics
        >>> metric = LogitStatistics()
        >>> sample = dict(logits=torch.tensor([3., 1., 2.]), gt_label=torch.tensor([0]))
        >>> metric.process(None, [dict(sample, prelogits=torch.tensor([3., 4.]))])
        >>> {key: round(value, 4) for key, value in metric.evaluate(1).items()}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'logits/sum_mean': 6.0, 'logits/sum_std': 0.0, 'logits/norm': 5.0,
         'logits/entropy': 0.8324, 'logits/tld': 1.0}
    """

    default_prefix = "logits"

    def __init__(self, label: str = "gt_label", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if label not in ("gt_label", "clean_label"):
            raise ValueError(f"label must be 'gt_label' or 'clean_label', got {label!r}")
        self.label = label

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the numbers of each sample.

        Args:
            samples: N dicts with ``logits`` (K,), ``gt_label``, and perhaps ``teacher_logits``
                (K,) and ``prelogits`` (D,).
        """
        logits, teacher = pair(samples, self.name)
        if logits.shape[1] < 2:
            raise ValueError(f"{self.name} needs two classes or more, got one logit a sample")
        labels = labels_of(samples, self.label, logits.shape[1], self.name)[:, None]
        columns = dict(sum=logits.sum(1))
        if teacher is not None:
            columns["teacher_sum"] = teacher.sum(1)
        prelogits = stacked(samples, "prelogits", self.name)
        if prelogits is not None:
            columns["norm"] = vector_norm(prelogits, dim=1)
        columns.update(_entropy_and_margin(logits, labels, "student", ""))
        if teacher is not None:
            columns.update(_entropy_and_margin(teacher, labels, "teacher", "teacher_"))
        return columns

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return means, and the deviation of the sums.

        Args:
            columns: Of all samples.
        """
        sums, teacher_sums = columns.pop("sum"), columns.pop("teacher_sum", None)
        metrics = dict(sum_mean=sums.mean(), sum_std=sums.std())
        if teacher_sums is not None:
            metrics["teacher_sum_mean"] = teacher_sums.mean()
            metrics["sum_deviation"] = np.abs(sums - teacher_sums).mean()
        return metrics | {key: values.mean() for key, values in columns.items()}


def _entropy_and_margin(logits: Tensor, labels: Tensor, of: str, prefix: str) -> dict[str, Tensor]:
    log_probs = log_softmax(logits, of)
    others = logits.scatter(1, labels, -torch.inf).amax(1)
    return {
        f"{prefix}entropy": -log_probs.exp().mul_(log_probs).sum(1),
        f"{prefix}tld": logits.gather(1, labels)[:, 0] - others,
    }
