"""How probable the labels are to a classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import labels_of, log_softmax, logits_of


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
        ValueError: If ``of`` is something else; if samples have no ``logits``, or such that are
            not finite, or no single label among the classes, or there are none.

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
        if of not in ("student", "teacher"):
            raise ValueError(f"of must be 'student' or 'teacher', got {of!r}")
        self.of = of

    def columns_of(self, samples: Sequence[dict]) -> dict[str, Tensor]:
        """Compute the value of each sample.

        Args:
            samples: N dicts with ``logits`` (K,) and ``gt_label``, and ``teacher_logits`` (K,).
        """
        logits = logits_of(samples, self.of, self.name)
        if logits is None:
            return {}
        labels = labels_of(samples, "gt_label", logits.shape[1], self.name)[:, None]
        key = "nll" if self.of == "student" else "teacher_nll"
        return {key: -log_softmax(logits, self.of).gather(1, labels)[:, 0]}

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the mean.

        Args:
            columns: Of all samples.
        """
        return {key: values.mean() for key, values in columns.items()}
