"""Temperature-scaled Kullback-Leibler divergence for several labels an image."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmkd_logit.registry import MODELS

from .base import check_logits
from .kl import ScaledKLDivLoss, scaled_kl


@MODELS.register_module()
class ScaledBinaryKLDivLoss(ScaledKLDivLoss):
    r"""KL divergence of each class by itself, for several labels an image (sigmoid heads).

    .. math:: \ell_{nk} = s(\tau)\,\mathrm{KL}\big(\sigma(v_{nk} / \tau)\,\|\,
        \sigma(u_{nk} / \tau)\big)

    between Bernoulli distributions, with the teacher's logits ``v``, the student's ``u`` and the
    logistic function :math:`\sigma`. It is :class:`ScaledKLDivLoss` between the pairs
    ``(u, 0)`` and ``(v, 0)``, as exact and with the same limits: as tau grows, ``'tau^2'`` gives
    :math:`(u - v)^2 / 8`.

    Args:
        tau: Temperature, dimensionless, in ``[0, inf]``; a string such as ``'inf'`` will do.
        scale: The factor s(tau), as in :class:`ScaledKLDivLoss`.
        reduction: ``'mean'`` over samples and classes; ``'batchmean'``, the sum divided by N;
            ``'sum'``; ``'none'``.

    Raises:
        ValueError: If an argument is not one of the above, or :class:`ScaledKLDivLoss` refuses
            this tau with this scale.

    Example:
        >>> import torch
        >>> student = torch.tensor([[0.0, 2.0]])
        >>> teacher = torch.tensor([[0.0, -2.0]])
        >>> ScaledBinaryKLDivLoss(tau='inf', reduction='none')(student, teacher)
        tensor([[0., 2.]])
    """

    label = "binary KL"
    shift_invariant = False
    exclusive_classes = False

    def __init__(self, tau: float | str, scale: str = "tau^2", reduction: str = "mean") -> None:
        super().__init__(tau, scale, reduction)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, **kwargs: Any) -> Tensor:
        """Compare logits ``(N, K)`` or ``(N, ..., K)``, K >= 1; ``'none'`` gives their shape."""
        name = type(self).__name__
        u, v, _ = check_logits(name, student_logits, teacher_logits, -1, kwargs, classes=1)
        # Padding, as autocast refuses to stack float16 on a CPU.
        u, v = (F.pad(logits.unsqueeze(-1), (0, 1)) for logits in (u, v))
        return scaled_kl(u, v, self.tau, self.scale, self.reduction)
