"""How far the student's logits are from the teacher's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.linalg import vector_norm

from mmkd_logit.registry import METRICS

from ._logit_metric import LogitMetric
from ._stack import pair


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
        ValueError: If ``quantiles`` are not different numbers in [0, 1]; if samples have no
            ``logits``, logits of other classes than the teacher's, or such that are not finite,
            or there are none.

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
        """Compute the distance of each sample.

        Args:
            samples: N dicts with ``logits`` and ``teacher_logits``, (K,).
        """
        logits, teacher = pair(samples, self.name)
        if teacher is None:
            return {}
        return dict(distance=vector_norm(logits - teacher, dim=1))

    def summarize(self, columns: dict[str, np.ndarray]) -> dict[str, float]:
        """Return mean and quantiles.

        Args:
            columns: Of all samples.
        """
        distance = columns["distance"]
        at = np.quantile(distance, list(self.quantiles.values()))
        return dict(mean=distance.mean(), **dict(zip(self.quantiles, at, strict=True)))


def _key(quantile: float) -> str:
    return "q" + f"{100 * quantile:g}".zfill(2)
