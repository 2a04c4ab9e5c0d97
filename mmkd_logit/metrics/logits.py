"""Metrics of the student's and the teacher's logits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from mmkd_logit.registry import METRICS
from mmkd_logit.utils.arguments import check_choice

from .base import LogitMetric, log_softmax, predicted_classes


@METRICS.register_module()
class TeacherAgreement(LogitMetric):
    r"""Share of the teacher's k preferred classes that the student prefers too, in percent.

    .. math::
        \mathrm{agreement}_k = \frac{100}{n} \sum_{i=1}^{n}
            \frac{|S_k(u_i) \cap S_k(v_i)|}{k}

    :math:`S_k` are the classes of the k largest logits, of the student (:math:`u_i`) or the teacher
    (:math:`v_i`) of sample i; of equal logits the first classes count as larger. For k = 1 it is
    the average top-1 agreement of Stanton et al., "Does Knowledge Distillation Really Work?"
    (NeurIPS 2021): the share of samples with one prediction. Two random orders of K classes agree
    in 100 k / K on average. Right or wrong predictions count alike; no labels are used.

    The keys are ``agreement/top1`` and so on; there are none where samples have ``logits`` and no
    ``teacher_logits``.

    Args:
        topk: The k, one or several; None for 1 and, where there are more than 5 classes, 5.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``topk`` has no or other things than different positive integers, or, when
            evaluating, more than there are classes; for samples as in :class:`LogitMetric`.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import TeacherAgreement
        >>> metric = TeacherAgreement(topk=(1, 2))
        >>> u, v = torch.tensor([3., 2., 0.]), torch.tensor([1., 0., 2.])
        >>> metric.process(None, [dict(logits=u, teacher_logits=v)])
        >>> metric.evaluate(1)
        {'agreement/top1': 0.0, 'agreement/top2': 50.0}
    """

    default_prefix = "agreement"

    def __init__(self, topk: int | Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.topk: list[Any] | None = None
        if topk is None:
            return
        listed = isinstance(topk, (list, tuple))
        counts = list(topk) if listed else [topk]  # type: ignore[arg-type]
        wrong = [k for k in counts if isinstance(k, bool) or not isinstance(k, int) or k < 1]
        if wrong or not counts or len(set(counts)) < len(counts):
            raise ValueError(f"topk must be different integers from 1 on, got {topk!r}")
        self.topk = counts

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the share of each sample."""
        logits, teacher = self.logit_pair(samples)
        num_classes = logits.shape[1]
        topk = self.topk or ([1, 5] if num_classes > 5 else [1])
        largest = max(topk)
        if largest > num_classes:
            raise ValueError(
                f"{self.name} has topk={largest} and the network {num_classes} classes; leave out "
                f"those above {num_classes}"
            )
        if teacher is None:
            return {}
        preferred, by_teacher = _largest(logits, largest), _largest(teacher, largest)
        same = preferred[:, :, None] == by_teacher[:, None, :]
        return {f"top{k}": 100 * same[:, :k, :k].sum((1, 2)).double() / k for k in topk}


def _largest(logits: Tensor, k: int) -> Tensor:
    """Return the classes of the k largest of each row, of equal ones the first first."""
    values, classes = logits.topk(min(k + 1, logits.shape[1]), 1)
    # Which of equal values comes first, torch.topk leaves open; sorting all takes far longer.
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    if tied.any():
        order = logits[tied].argsort(dim=1, descending=True, stable=True)
        classes[tied] = order[:, : classes.shape[1]]
    return classes[:, :k]


@METRICS.register_module()
class TeacherAccuracy(LogitMetric):
    """Top-1 accuracy of the teacher in percent, on the images that its student is measured on.

    It is the share of samples for which the class of the largest of ``teacher_logits``, of equal
    ones the first, is the ``gt_label``. The key is ``accuracy/teacher_top1``, which is left out
    where samples have ``logits`` and no ``teacher_logits``.

    Args:
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If samples have no ``logits``, logits of other classes than the teacher's, or
            such that are not finite, or no single label among the classes, or there are none.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import TeacherAccuracy
        >>> metric = TeacherAccuracy()
        >>> v = torch.tensor([1., 0.])
        >>> for y in (0, 0, 1):
        ...     metric.process(None, [dict(logits=v, teacher_logits=v, gt_label=torch.tensor([y]))])
        >>> round(metric.evaluate(3)['accuracy/teacher_top1'], 2)
        66.67
    """

    default_prefix = "accuracy"

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Say of each sample whether the teacher is right."""
        _, teacher = self.logit_pair(samples)
        if teacher is None:
            return {}
        right = predicted_classes(teacher) == self.labels_of(samples, teacher.shape[1])
        return dict(teacher_top1=100 * right.double())


@METRICS.register_module()
class LogitDistance(LogitMetric):
    r"""Euclidean distance of the student's logits from the teacher's: mean and quantiles.

    .. math::
        d_i = \lVert u_i - v_i \rVert_2
            = \Bigl( \sum_{k=1}^{K} (u_{ik} - v_{ik})^2 \Bigr)^{1/2}

    for the logits :math:`u_i` of the student and :math:`v_i` of the teacher for sample i, in the
    unit of logits: the quantity whose density Kim et al. (IJCAI 2021) draw to compare the losses
    and whose square logit MSE minimizes. The square over K is the loss, so the
    distance grows with K. Quantile q is the linear interpolation between the sorted distances at
    position :math:`q (n - 1)`, counted from 0, as of ``numpy.quantile``.

    The keys are ``distance/mean`` and ``distance/q05`` for quantile 0.05 and so on (``q97.5`` for
    0.975); there are none where samples have ``logits`` and no ``teacher_logits``.

    Args:
        quantiles: In [0, 1].
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``quantiles`` are not different numbers in [0, 1]; for samples as in
            :class:`LogitMetric`.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import LogitDistance
        >>> metric = LogitDistance(quantiles=(0.5,))
        >>> v = torch.zeros(2)
        >>> for u in ([3., 4.], [0., 1.], [0., 0.]):
        ...     metric.process(None, [dict(logits=torch.tensor(u), teacher_logits=v)])
        >>> metric.evaluate(3)
        {'distance/mean': 2.0, 'distance/q50': 1.0}
    """

    default_prefix = "distance"

    def __init__(
        self, quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        listed: Any = quantiles if isinstance(quantiles, (list, tuple)) else [quantiles]
        wrong = [
            q
            for q in listed
            if isinstance(q, bool) or not isinstance(q, (int, float)) or not 0 <= q <= 1
        ]
        self.quantiles = {} if wrong else {_key(q): q for q in listed}
        if wrong or listed is not quantiles or len(self.quantiles) < len(quantiles):
            raise ValueError(f"quantiles must be different numbers in [0, 1], got {quantiles!r}")

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the distance of each sample."""
        logits, teacher = self.logit_pair(samples)
        if teacher is None:
            return {}
        return dict(distance=vector_norm(logits - teacher, dim=1))

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return mean and quantiles."""
        distance = columns["distance"]
        at = np.quantile(distance, list(self.quantiles.values()))
        return dict(mean=distance.mean(), **dict(zip(self.quantiles, at, strict=True)))


def _key(quantile: float) -> str:
    return "q" + f"{100 * quantile:g}".zfill(2)


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
        ValueError: If ``label`` is something else, or there are fewer than two logits; for samples
            as in :class:`LogitMetric`.

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
        self.label = check_choice("label", label, ("gt_label", "clean_label"))

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the sums, entropies, margins and norms of each sample."""
        logits, teacher = self.logit_pair(samples)
        if logits.shape[1] < 2:
            raise ValueError(f"{self.name} needs two classes or more, got one logit a sample")
        labels = self.labels_of(samples, logits.shape[1], self.label)[:, None]
        columns = dict(sum=logits.sum(1))
        if teacher is not None:
            columns["teacher_sum"] = teacher.sum(1)
        prelogits = self.vectors_of(samples, "prelogits")
        if prelogits is not None:
            columns["norm"] = vector_norm(prelogits, dim=1)
        columns.update(_entropy_and_margin(logits, labels, "student", ""))
        if teacher is not None:
            columns.update(_entropy_and_margin(teacher, labels, "teacher", "teacher_"))
        return columns

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return means, and the deviation of the sums."""
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


@METRICS.register_module()
class NegativeLogLikelihood(LogitMetric):
    r"""Mean negative log-likelihood of the labels in nats, of student or teacher.

    .. math::
        \mathrm{NLL} = -\frac{1}{n} \sum_{i=1}^{n} \ln \mathrm{softmax}(u_i)_{y_i}
            = \frac{1}{n} \sum_{i=1}^{n}
            \Bigl( \ln \sum_{k=1}^{K} e^{u_{ik}} - u_{i y_i} \Bigr)

    for logits :math:`u_i` and the ``gt_label`` :math:`y_i` of sample i, at temperature 1 and in
    float64, so that it is finite where a probability in float32 is 0. It is a proper score, the
    cross-entropy without weights or smoothing; ln K is that of the uniform guess. Guo et al.
    (ICML 2017, equation 6) use it beside ECE.

    The key is ``calibration/nll``, or ``calibration/teacher_nll``, which is left out where samples
    have ``logits`` and no ``teacher_logits``.

    Args:
        of: ``'student'`` or ``'teacher'``.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``of`` is something else; for samples as in :class:`LogitMetric`.

    Example:
        >>> import torch
        >>> from mmkd_logit.metrics import NegativeLogLikelihood
        >>> metric = NegativeLogLikelihood()
        >>> metric.process(None, [dict(logits=torch.zeros(4), gt_label=torch.tensor([3]))])
        >>> round(metric.evaluate(1)['calibration/nll'], 6)  # ln 4
        1.386294
    """

    default_prefix = "calibration"

    def __init__(self, of: str = "student", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = check_choice("of", of, ("student", "teacher"))

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the value of each sample."""
        logits = self.logits_of(samples, self.of)
        if logits is None:
            return {}
        labels = self.labels_of(samples, logits.shape[1])[:, None]
        key = "nll" if self.of == "student" else "teacher_nll"
        return {key: -log_softmax(logits, self.of).gather(1, labels)[:, 0]}
