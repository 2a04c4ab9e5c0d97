"""Knowledge distillation from a stronger teacher: correlations within and between classes."""

from typing import Any

import torch
from torch import Tensor

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_number

from .base import LogitLoss, check_logits, promoted_dtype


@MODELS.register_module()
class DISTLoss(LogitLoss):
    r"""Pearson correlation of the two networks' probabilities, by sample and by class.

    .. math:: L = \tau^2 \Big(\beta\,\frac1N\sum_n d(p_{n\cdot}, q_{n\cdot})
        + \gamma\,\frac1K\sum_k d(p_{\cdot k}, q_{\cdot k})\Big), \qquad d = 1 - \rho

    Huang et al., NeurIPS 2022, equations 6 to 10, with the factor :math:`\tau^2` of the authors'
    code: p and q are the student's and teacher's :math:`\mathrm{softmax}(z / \tau)` and
    :math:`\rho(a, b) = \langle a_c, b_c\rangle / (\|a_c\|\|b_c\| + \epsilon)` of the centred
    vectors. The first sum is the inter-class relation, the second the intra-class one, over the
    samples of the batch (of one process). The loss is one number for the whole batch and has no
    ``reduction``: the first sum is divided by N, the second by K.

    ``eps`` is not only a guard: classes whose probabilities hardly vary within the batch, with
    :math:`\|a_c\|\|b_c\|` below it, lose their gradient. With ``eps=0`` they count like the
    others.

    A vector that is constant to the last digit has ``d = 1``. Where it is the student's, as with
    a head that starts at zero, the correlation has no gradient of its own, and ``d`` is
    :math:`1 - \langle a_c, b_c\rangle / (\|a\|\|b_c\|)` with the length before centring: the same
    value, and a gradient that points to the teacher's vector. Where it is the teacher's, there is
    no gradient; so it is for every class in a batch of one sample.

    :math:`1 - \langle a, b\rangle` of unit vectors is found as :math:`\|a - b\|^2 / 2`, in
    float64, and keeps its digits where the student is close to the teacher.

    Args:
        beta: Weight of the inter-class relation.
        gamma: Weight of the intra-class relation.
        tau: Temperature, finite and above 0.
        eps: Added to the product of the norms.

    Raises:
        ValueError: If an argument is negative or not finite, or tau is 0.

    Example:
        >>> import torch
        >>> teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0]])
        >>> round(DISTLoss(eps=0)(teacher.flip(1), teacher).item(), 4)  # the middle class agrees
        0.9335
        >>> DISTLoss(eps=0)(teacher + 5, teacher).item()
        0.0
    """

    label = "DIST"
    exclusive_classes = True
    shift_invariant = True

    def __init__(
        self, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0, eps: float = 1e-8
    ) -> None:
        super().__init__()
        self.beta = check_number("beta", beta)
        self.gamma = check_number("gamma", gamma)
        self.tau = check_number("tau", tau, zero=False)
        self.eps = check_number("eps", eps)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, **kwargs: Any) -> Tensor:
        """Compare logits ``(N, K)``; the loss is in ``[0, 2 tau^2 (beta + gamma)]``."""
        name = type(self).__name__
        u, v, _ = check_logits(name, student_logits, teacher_logits, -1, kwargs, dense=False)
        p, q = ((logits.double() / self.tau).softmax(1) for logits in (u, v))
        inter, intra = self._distance(p, q, 1).mean(), self._distance(p, q, 0).mean()
        loss = self.tau**2 * (self.beta * inter + self.gamma * intra)
        return loss.to(promoted_dtype(u))

    def _distance(self, p: Tensor, q: Tensor, dim: int) -> Tensor:
        """Return 1 - rho along a dimension, which is removed."""
        (a, a_norm), (b, b_norm) = _unit(p, dim), _unit(q, dim)
        distance = (a - b).square().sum(dim) / 2
        if self.eps > 0:
            product = a_norm * b_norm
            distance = (self.eps + product * distance) / (product + self.eps)
        # b is centred, so that <p, b> is that of the centred p; equal numbers are as long as
        # the largest of them, whose square could leave float64, says.
        length = p.shape[dim] ** 0.5 * p.detach().amax(dim)
        constant = 1 - (p * b).sum(dim) / length.clamp(min=torch.finfo(p.dtype).tiny)
        distance = torch.where(a_norm == 0, constant, distance)
        return distance.masked_fill(b_norm == 0, 1.0)


def _unit(p: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the centred vectors at length 1 (0 where constant) and their lengths."""
    centred = p - p.mean(dim, keepdim=True)
    # Relative to the largest, since the square of a small probability can leave float64.
    largest = centred.detach().abs().amax(dim, keepdim=True)
    # Equal numbers differ from their mean in the last digits.
    constant = largest <= 4 * torch.finfo(p.dtype).eps * p.detach().amax(dim, keepdim=True)
    scaled = centred / largest.masked_fill(constant, 1.0)
    squares = scaled.square().sum(dim, keepdim=True)
    length = torch.sqrt(squares.masked_fill(constant, 1.0))
    scaled = scaled.masked_fill(constant, 0.0)
    return scaled / length, (largest * length).masked_fill(constant, 0.0).squeeze(dim)
