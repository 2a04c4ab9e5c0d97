"""How often student and teacher prefer the same classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import pair


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
        topk: The k, one or several.
        **kwargs: Of MMEngine's ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If ``topk`` has no or other things than different positive integers, or, when
            evaluating, more than there are classes; if samples have no ``logits``, logits of
            other classes than the teacher's, or such that are not finite, or there are none.

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

    def __init__(self, topk: int | Sequence[int] = (1, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        listed = isinstance(topk, (list, tuple))
        counts: list[Any] = list(topk) if listed else [topk]  # type: ignore[arg-type]
        wrong = [k for k in counts if isinstance(k, bool) or not isinstance(k, int) or k < 1]
        if wrong or not counts or len(set(counts)) < len(counts):
            raise ValueError(f"topk must be different integers from 1 on, got {topk!r}")
        self.topk = counts

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the share of each sample.

        Args:
            samples: N dicts with ``logits`` and ``teacher_logits``, (K,).
        """
        logits, teacher = pair(samples, self.name)
        largest, num_classes = max(self.topk), logits.shape[1]
        if largest > num_classes:
            raise ValueError(
                f"{self.name} has topk={largest} and the network {num_classes} classes; leave out "
                f"those above {num_classes}"
            )
        if teacher is None:
            return {}
        preferred, by_teacher = _largest(logits, largest), _largest(teacher, largest)
        same = preferred[:, :, None] == by_teacher[:, None, :]
        return {f"top{k}": 100 * same[:, :k, :k].sum((1, 2)).double() / k for k in self.topk}

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the means.

        Args:
            columns: Of all samples.
        """
        return {key: values.mean() for key, values in columns.items()}


def _largest(logits: Tensor, k: int) -> Tensor:
    """Return the classes of the k largest of each row, of equal ones the first first."""
    values, classes = logits.topk(min(k + 1, logits.shape[1]), 1)
    # Which of equal values comes first, torch.topk leaves open; sorting all takes far longer.
    tied = (values[:, 1:] == values[:, :-1]).any(1)
    if tied.any():
        order = logits[tied].argsort(dim=1, descending=True, stable=True)
        classes[tied] = order[:, : classes.shape[1]]
    return classes[:, :k]
