"""Mean squared error between logits."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_choice

from .base import REDUCTIONS, LogitLoss, check_class_dim, check_logits, promoted_dtype


@MODELS.register_module()
class LogitMSELoss(LogitLoss):
    r"""Squared distance between the student's logits ``u`` and the teacher's ``v``.

    .. math:: \ell_n = \sum_k (u_{nk} - v_{nk})^2

    Kim et al., IJCAI 2021, the loss :math:`L_{MSE}`. The text takes the mean of :math:`\ell_n`
    over samples (``'batchmean'``); the authors' code, whose learning rate is the published
    one, takes ``nn.MSELoss()``, which also divides by the number of classes (``'mean'``).

    Unlike every KL divergence it fixes the mean of a sample's logits:
    ``mse_mean = 2 * kl(tau=inf) + mean_k(u - v) ** 2``.

    Args:
        reduction: ``'mean'``: the sum of all squared differences divided by their number, N K
            (times the positions), as ``nn.MSELoss``; ``'batchmean'``: divided by N; ``'sum'``;
            ``'none'``: every squared difference by itself.
        class_dim: Dimension of the classes, negative or positive, never 0.

    Raises:
        ValueError: If an argument is not one of the above.

    Example:
        >>> import torch
        >>> student = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
        >>> teacher = torch.tensor([[1.0, 4.0], [2.0, 3.0]])
        >>> LogitMSELoss()(student, teacher).item()
        2.0
        >>> LogitMSELoss(reduction="batchmean")(student, teacher).item()
        4.0
    """

    label = "MSE"
    shift_invariant = False

    def __init__(self, reduction: str = "mean", class_dim: int = -1) -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)
        self.class_dim = check_class_dim(class_dim)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, **kwargs: Any) -> Tensor:
        """Compare logits, which may be dense; ``'none'`` gives their shape."""
        name = type(self).__name__
        u, v, _ = check_logits(name, student_logits, teacher_logits, self.class_dim, kwargs)
        student, teacher = (logits.to(promoted_dtype(u)) for logits in (u, v))
        if self.reduction == "batchmean":
            return F.mse_loss(student, teacher, reduction="sum") / len(student)
        return F.mse_loss(student, teacher, reduction=self.reduction)
