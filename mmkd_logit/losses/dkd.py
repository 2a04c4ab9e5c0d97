"""Decoupled knowledge distillation."""

from typing import Any

import torch
from torch import Tensor

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_choice, check_number

from .base import REDUCTIONS, LogitLoss, check_labels, check_logits, promoted_dtype
from .kl import scaled_kl


@MODELS.register_module()
class DKDLoss(LogitLoss):
    r"""KL divergence split at the labelled class, the two parts weighed apart.

    .. math:: \ell_n = \tau^2 \big(\alpha\,\mathrm{KL}(b(v_n)\,\|\,b(u_n))
        + \beta\,\mathrm{KL}(\hat p(v_n)\,\|\,\hat p(u_n))\big)

    Zhao et al., CVPR 2022, equation 7, with the factor :math:`\tau^2` of the authors' code.
    With :math:`p = \mathrm{softmax}(z / \tau)` and the label t, :math:`b = (p_t, 1 - p_t)` says
    how likely the label is (TCKD) and :math:`\hat p_k = p_k / (1 - p_t)`, k other than t, how
    the other classes share the rest (NCKD).

    The label is taken out of the logits, not covered by a large number, and
    :math:`1 - p_t` is a logsumexp: both parts stay exact however sure the networks are. With
    ``alpha = 1`` and the teacher's :math:`1 - p_t` for ``beta`` the sum would be
    :class:`ScaledKLDivLoss` (equation 6).

    Inside, logits are float64.

    Args:
        tau: Temperature, finite and above 0.
        alpha: Weight of TCKD; this one belongs to the method and is not the distiller's.
        beta: Weight of NCKD, which with 2 classes is 0.
        reduction: ``'mean'`` and ``'batchmean'``: the sum of the samples' losses divided by N;
            ``'sum'``; ``'none'``.

    Raises:
        ValueError: If an argument is not one of the above.

    Example:
        >>> import torch
        >>> student = torch.tensor([[2.0, 0.0, 0.0]], requires_grad=True)
        >>> teacher = torch.tensor([[2.0, 1.0, -1.0]])
        >>> DKDLoss(tau=1)(student, teacher, torch.tensor([0])).backward()
        >>> [round(x, 3) for x in student.grad[0].tolist()]
        [0.082, -3.087, 3.006]
    """

    label = "DKD"
    exclusive_classes = True
    shift_invariant = True
    needs_labels = True

    def __init__(
        self, tau: float = 4.0, alpha: float = 1.0, beta: float = 8.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.tau = check_number("tau", tau, zero=False)
        self.alpha = check_number("alpha", alpha)
        self.beta = check_number("beta", beta)
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compare logits ``(N, K)`` for labels ``(N,)``; ``'none'`` gives ``(N,)``."""
        name = type(self).__name__
        student, teacher, _ = check_logits(
            name, student_logits, teacher_logits, -1, kwargs, dense=False
        )
        labels = check_labels(name, labels, student)
        u, u_rest = self._split(student, labels)
        v, v_rest = self._split(teacher, labels)
        # The binary logits are divided by tau already; scaled_kl finds the rest's gradient.
        target = scaled_kl(u, v, 1.0, "none", self.reduction)
        others = scaled_kl(u_rest, v_rest, self.tau, "tau^2", self.reduction)
        loss = self.alpha * self.tau**2 * target + self.beta * others
        return loss.to(promoted_dtype(student))

    def _split(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the binary logits (N, 2) over tau, and the other classes' logits (N, K - 1)."""
        logits = logits.double()
        labels = labels.unsqueeze(1)
        others = torch.arange(logits.shape[1] - 1, device=logits.device)
        others = others + (others >= labels)
        rest = logits.gather(1, others)
        target = logits.gather(1, labels) / self.tau
        return torch.cat((target, (rest / self.tau).logsumexp(1, keepdim=True)), 1), rest
