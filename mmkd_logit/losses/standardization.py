"""Logit standardization around another loss."""

from typing import Any

import torch
from torch import Tensor, nn

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_number

from .base import LogitLoss, build_module, check_logits, promoted_dtype


@MODELS.register_module()
class LogitStandardization(LogitLoss):
    r"""Any loss between logits, applied to each sample's z-scores.

    .. math:: \mathcal{Z}(z) = \frac{z - \mathrm{mean}_k(z)}{\mathrm{std}_k(z) + \epsilon},
        \qquad L = L_{base}(\mathcal{Z}(u), \mathcal{Z}(v))

    Sun et al., CVPR 2024, algorithms 1 and 2: the student then learns how the teacher's logits
    relate, not how large they are; ``tau`` of the base loss is the paper's base temperature. The
    standard deviation is the authors' code's, with K - 1. Student and teacher are standardised
    apart, and the gradient passes through the student's mean and deviation.

    The reduction is the base loss's. The loss does not see the length of the student's logits:
    with the distiller's ``alpha = 1`` nothing else fixes it.

    Args:
        loss: Config of the base loss, or the module; the z-scores are over its ``class_dim``
            (the last dimension if it has none).
        eps: Added to the standard deviation, above 0. A sample whose logits are all equal, as with
            a head that starts at zero, is only centred: its z-scores are 0, and its gradient is
            the base loss's and not of the order 1 / eps.

    Raises:
        ValueError: If ``loss`` is no config of a loss, or ``eps`` not such a number.

    Example:
        >>> import torch
        >>> loss = LogitStandardization(dict(type='mmkd_logit.ScaledKLDivLoss', tau=2))
        >>> teacher = torch.tensor([[1.0, 2.0, 6.0]])
        >>> loss(10 * teacher + 3, teacher).item() < 1e-12
        True
    """

    label = "standardised {loss}"
    shift_invariant = True

    def __init__(self, loss: dict | nn.Module, eps: float = 1e-7) -> None:
        super().__init__()
        self.loss = build_module("loss", loss)
        self.eps = check_number("eps", eps, zero=False)
        self.needs_labels = getattr(self.loss, "needs_labels", False)
        self.exclusive_classes = getattr(self.loss, "exclusive_classes", None)

    def forward(
        self, student_logits: Tensor, teacher_logits: Tensor, *labels: Tensor, **kwargs: Any
    ) -> Tensor:
        """Compare the logits as the base loss takes them, and return what it returns."""
        base = self.loss
        name = f"{type(self).__name__} of {type(base).__name__}"
        class_dim = getattr(base, "class_dim", -1)
        u, v, dim = check_logits(name, student_logits, teacher_logits, class_dim, {})
        if u.shape[dim] == 2:
            raise ValueError(
                f"{name} cannot teach two classes: their z-scores are 0.71 and -0.71 whatever the "
                "logits are. Take the base loss alone"
            )
        student, teacher = self._standardise(u, dim), self._standardise(v, dim)
        return base(student, teacher, *labels, **kwargs).to(promoted_dtype(u))

    def _standardise(self, logits: Tensor, dim: int) -> Tensor:
        logits = logits.double()
        centred = logits - logits.mean(dim, keepdim=True)
        # Equal numbers differ from their mean in the last digits.
        digits = 4 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(dim, keepdim=True)
        equal = centred.detach().abs().amax(dim, keepdim=True) <= digits
        deviation = logits.std(dim, keepdim=True).masked_fill(equal, 1.0)
        return centred / (deviation + self.eps)
