"""Temperature-scaled KL divergence between logits, exact from tau = 0 to tau = inf."""

import contextlib
import math
import numbers
from typing import Any

from torch import Tensor, nn

from mmkd_logit.registry import MODELS

from ._checks import check_class_dim, check_logits, check_reduction
from ._scaled_kl import SCALES, scaled_kl


@MODELS.register_module()
class ScaledKLDivLoss(nn.Module):
    r"""KL divergence of the student from the teacher at temperature tau, scaled back by tau.

    .. math:: \ell_n = s(\tau)\,\mathrm{KL}\big(p(v_n;\tau)\,\|\,p(u_n;\tau)\big),
        \qquad p(z;\tau) = \mathrm{softmax}(z / \tau)

    with the teacher's logits ``v`` and the student's ``u``. Kim et al., IJCAI 2021, the loss
    :math:`L_{KL}`; its gradient in ``u`` is :math:`\frac{s(\tau)}{\tau}(p(u;\tau) - p(v;\tau))`.

    The limits are computed as such, never approached by large or small numbers. With
    :math:`d = u - v` and the sets S, T of classes where ``u`` and ``v`` are largest:

    ==================  ==========================================  =============================
    ``scale``           ``tau -> 0``                                ``tau -> inf``
    ==================  ==========================================  =============================
    'tau^2'             0 everywhere: refused                       Var_k(d) / 2, half the
                                                                    centred MSE (gradient
                                                                    (d - mean_k(d)) / K)
    'max(tau, tau^2)'   max(u) - mean of u over T (gradient         the same
                        1[S] / size of S - 1[T] / size of T)
    'none'              infinite, unless S holds T: refused         0 everywhere: refused
    ==================  ==========================================  =============================

    Inside, logits are float64, which the device must know: at small and large tau the
    divergence lives in digits that float32 does not have. Value and gradient come out of one
    pass, and the gradient cannot be differentiated again.

    Args:
        tau: Temperature, dimensionless, in ``[0, inf]``; a string such as ``'inf'`` will do.
        scale: The factor s(tau): ``'tau^2'``; ``'max(tau, tau^2)'``, the paper's form for small
            tau, which keeps the gradient's size there; ``'none'``, 1.
        reduction: Of the per-sample losses, each summed over classes: ``'mean'`` over samples
            and positions; ``'batchmean'``, the sum divided by N; ``'sum'``; ``'none'``.
        class_dim: Dimension of the classes, negative or positive, never 0.

    Raises:
        ValueError: If an argument is not one of the above, or tau and scale are refused above.

    Example:
        >>> import torch
        >>> student = torch.tensor([[2.0, 2.0, 1.0, 0.0]], requires_grad=True)
        >>> teacher = torch.tensor([[0.0, 3.0, 3.0, 3.0]])
        >>> loss = ScaledKLDivLoss(tau=0, scale="max(tau, tau^2)")(student, teacher)
        >>> loss.backward()
        >>> loss.item(), student.grad.tolist()[0][0]
        (1.0, 0.5)
        >>> ScaledKLDivLoss(tau="inf")(student, teacher).item()
        1.75
    """

    def __init__(
        self,
        tau: float | str,
        scale: str = "tau^2",
        reduction: str = "mean",
        class_dim: int = -1,
    ) -> None:
        super().__init__()
        self.tau = _parse_tau(tau)
        self.scale = _check_scale(scale, self.tau)
        self.reduction = check_reduction(reduction)
        self.class_dim = check_class_dim(class_dim)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, **kwargs: Any) -> Tensor:
        """Compare the logits; only the student receives gradient, in its own dtype.

        The gradient cannot be differentiated again: a double backward raises RuntimeError.

        Args:
            student_logits: ``(N, K)`` or dense ``(N, ..., K)``, the classes in ``class_dim``;
                finite numbers.
            teacher_logits: The same shape and dtype.
            **kwargs: Must be empty; taken to explain a call with labels.

        Returns:
            A scalar, or for ``'none'`` the logits' shape without the class dimension. Never
            negative. float64 for float64 logits, else float32: half precision is raised
            before the division by tau.

        Raises:
            ValueError: If shapes or dtypes differ, the logits are no batch of at least one
                sample and two classes, or labels or further arguments are given.
        """
        name = type(self).__name__
        dim = check_logits(name, student_logits, teacher_logits, self.class_dim, kwargs)
        teacher_logits = teacher_logits.detach()
        if dim != student_logits.ndim - 1:
            student_logits = student_logits.movedim(dim, -1)
            teacher_logits = teacher_logits.movedim(dim, -1)
        return scaled_kl(student_logits, teacher_logits, self.tau, self.scale, self.reduction)

    def extra_repr(self) -> str:
        """Show the settings in ``repr``."""
        return (
            f"tau={self.tau}, scale={self.scale!r}, reduction={self.reduction!r}, "
            f"class_dim={self.class_dim}"
        )


def _parse_tau(tau: object) -> float:
    """Return tau as a float in ``[0, inf]``, or raise ValueError."""
    value = math.nan
    if isinstance(tau, (numbers.Real, str)) and not isinstance(tau, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(tau)
    if math.isnan(value) or value < 0:
        raise ValueError(
            f"tau={tau!r} must be a number from 0 to infinity, or a string of one, such as 'inf'"
        )
    return abs(value)  # -0.0 is 0, and 1 / -0.0 is not 1 / 0.0


def _check_scale(scale: object, tau: float) -> str:
    """Return ``scale``, or raise ValueError if unknown or without a usable limit at ``tau``."""
    if not (isinstance(scale, str) and scale in SCALES):
        raise ValueError(f"scale={scale!r} is not one of {', '.join(map(repr, SCALES))}")
    nowhere = {
        (0.0, "tau^2"): "the loss is 0 for all logits; take scale='max(tau, tau^2)'",
        (0.0, "none"): "the divergence is infinite; take scale='max(tau, tau^2)'",
        (math.inf, "none"): "the divergence is 0 for all logits; take scale='tau^2'",
    }
    if (tau, scale) in nowhere:
        raise ValueError(f"tau={tau} with scale={scale!r}: {nowhere[tau, scale]}")
    return scale
