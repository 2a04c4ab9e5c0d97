"""Temperature-scaled Kullback-Leibler divergence, exact at every temperature."""

import contextlib
import math
import numbers
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_choice

from .base import REDUCTIONS, LogitLoss, check_class_dim, check_logits, promoted_dtype

# Value and gradient of the scaled KL divergence in one pass, the classes last.
#
# Shapes: N samples, M positions (M = N for plain logits), K classes. ``u`` are student and ``v``
# teacher logits; ``q = softmax(v / tau)`` and ``p = softmax(u / tau)``.

SCALES = ("tau^2", "max(tau, tau^2)", "none")

# Outside of these the limits are the same numbers in float64: above, z / tau < 1e-17 for every
# float32 z below 1e13 and the next term of the expansion in 1 / tau is lost in rounding; below,
# any two different float32 logits are so far apart that exp((z - z_max) / tau) is 0.
_TAU_LARGE = 1e30
_TAU_SMALL = 1e-60

# exp(-650) is 0 beside 1 in every sum, and neither it nor expm1(650) leaves float64.
_EXPONENT_FLOOR = -650.0

# Where 2 phi is smaller, it is t^2 + t^3 / 3, as exp(t) - 1 - t would cancel. At the seam,
# t = 1e-4, the series is off by t^2 / 12 = 8e-10 and the sum by 1e-11, both relative.
_SERIES_BELOW = 1e-8

# Elements worked on at a time in eager mode: few enough that the float64 temporaries stay in
# a core's cache, enough to share among threads; elsewhere enough to fill the device without
# multiplying its memory.
_CPU_BLOCK = 1 << 16
_DEVICE_BLOCK = 1 << 25


def scaled_kl(u: Tensor, v: Tensor, tau: float, scale: str, reduction: str) -> Tensor:
    """Return the loss of logits ``(N, ..., K)``; the reductions are ScaledKLDivLoss's."""
    weight = None if reduction == "none" else 1.0
    if reduction == "mean":
        weight = u.shape[-1] / u.numel()
    elif reduction == "batchmean":
        weight = 1.0 / u.shape[0]
    need = u.requires_grad and torch.is_grad_enabled()
    return _ScaledKL.apply(u, v, tau, scale, weight, need)[0]


class _ScaledKL(torch.autograd.Function):
    """The loss as one node: forward finds the gradient too, backward only multiplies it.

    With ``weight`` None the losses stay apart, otherwise their sum is multiplied by it.
    """

    @staticmethod
    def forward(
        u: Tensor, v: Tensor, tau: float, scale: str, weight: float | None, need: bool
    ) -> tuple[Tensor, Tensor | None]:
        shape, dtype = u.shape, promoted_dtype(u)
        core, value_factor, gradient_factor = _rule(tau, scale)
        if weight is not None:
            value_factor, gradient_factor = value_factor * weight, gradient_factor * weight
        if u.ndim > 2:
            u, v = u.reshape(-1, shape[-1]), v.reshape(-1, shape[-1])
        values, gradient = _by_blocks(core, u, v, tau, gradient_factor if need else None)
        gradient = None if gradient is None else gradient.view(shape)
        if weight is not None:
            return (values.sum() * value_factor).to(dtype), gradient
        return (values * value_factor).to(dtype).view(shape[:-1]), gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor | None]) -> None:
        u, _, ctx.tau, ctx.scale, ctx.weight, _ = inputs
        gradient = output[1]
        if gradient is not None:
            ctx.mark_non_differentiable(gradient)
            ctx.save_for_backward(u, gradient)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        u, gradient = ctx.saved_tensors
        # To be differentiated again. Compiled code refuses that by itself.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            smooth = _smooth_gradient(u.double(), ctx.tau, ctx.scale, ctx.weight)
            gradient = gradient + (smooth - smooth.detach()).to(gradient.dtype)
        if grad_output.ndim:
            grad_output = grad_output.unsqueeze(-1)
        return (gradient * grad_output).to(u.dtype), None, None, None, None, None


def _smooth_gradient(u: Tensor, tau: float, scale: str, weight: float | None) -> Tensor:
    """Return the gradient's term in ``u``, less exact, for its derivative: the Hessian."""
    core, _, factor = _rule(tau, scale)
    if core is _small_tau_limit:  # which is constant but for jumps
        return torch.zeros_like(u)
    z = (u / tau).softmax(-1) if core is _at_tau else (u - u.mean(-1, keepdim=True)) / u.shape[-1]
    return z * (factor * (1.0 if weight is None else weight))


# (u, v, tau, factor of the gradient or None for no gradient) -> losses (M,), gradient (M, K)
_Core = Callable[[Tensor, Tensor, float, float | None], tuple[Tensor, Tensor | None]]


def _by_blocks(
    core: _Core, u: Tensor, v: Tensor, tau: float, gradient_factor: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return what ``core`` does, the gradient in the loss's dtype, by blocks of rows."""
    rows, dtype = u.shape[0], promoted_dtype(u)
    block = max(1, (_CPU_BLOCK if u.device.type == "cpu" else _DEVICE_BLOCK) // u.shape[1])
    if rows <= block or torch.compiler.is_compiling():  # the compiler fuses, which is better
        values, gradient = core(u, v, tau, gradient_factor)
        return values, None if gradient is None else gradient.to(dtype)
    parts = []
    whole = None if gradient_factor is None else u.new_empty(u.shape, dtype=dtype)
    for start in range(0, rows, block):
        part = slice(start, start + block)
        values, gradient = core(u[part], v[part], tau, gradient_factor)
        parts.append(values)
        if whole is not None and gradient is not None:
            whole[part] = gradient
    return torch.cat(parts), whole


def _rule(tau: float, scale: str) -> tuple[_Core, float, float]:
    """Return the function for ``tau`` and what to multiply its value and gradient by."""
    power = {"tau^2": 2, "max(tau, tau^2)": 2 if tau >= 1 else 1, "none": 0}[scale]
    if tau > _TAU_LARGE:
        factor = 1.0 if power == 2 else tau**-2
        return _large_tau_limit, factor, factor
    if tau < _TAU_SMALL:
        # 1 / tau must not become inf, which would turn a gradient of 0 into NaN.
        factor = tau ** (power - 1) if power else min(1.0 / tau, sys.float_info.max)
        return _small_tau_limit, factor, factor
    return _at_tau, tau**power, tau ** (power - 1)


def _at_tau(
    u: Tensor, v: Tensor, tau: float, gradient_factor: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return ``KL(q || p)`` and its gradient in ``u / tau``, ``p - q``.

    With x = log(p / q) up to a constant and s = sum q expm1(x), that constant is log1p(s):
    t = x - log1p(s) = log(p / q) and expm1(t) = (expm1(x) - s) / (1 + s). Each set of logits is
    relative to its largest: where the two agree about the largest class, x is exactly 0 there,
    and s keeps the digits of the other classes, however unlikely they are.

    KL is the mean under q of -t. That of phi(t) = expm1(t) - t is the same, since p and q both
    sum to 1, but no term of it is negative, so nothing cancels, and an error in log1p(s) has
    no effect of first order on it.
    """
    x = u.to(torch.float64, copy=True).sub_(u.amax(-1, keepdim=True)).mul_(1.0 / tau)
    a = v.to(torch.float64, copy=True).sub_(v.amax(-1, keepdim=True)).mul_(1.0 / tau)
    x -= a.clamp_(min=_EXPONENT_FLOOR)
    e = a.exp_()
    total = e.sum(-1, keepdim=True)
    ratio = _expm1(x)
    s = (e * ratio).sum(-1, keepdim=True).div_(total)
    t = x.sub_(s.log1p())
    ratio -= s
    last = s.add_(1.0).reciprocal_()
    gradient = None
    if gradient_factor is not None:
        gradient = (e * ratio).mul_((last / total).mul_(gradient_factor))
    twice_phi = _twice_phi(t, ratio.mul_(last.mul_(2.0)))
    value = e.mul_(twice_phi).sum(-1).div_(total.squeeze(-1).mul_(2.0))
    return value, gradient


def _expm1(x: Tensor) -> Tensor:
    """Return ``exp(x) - 1`` to a relative 1e-13."""
    if not torch.compiler.is_compiling():
        return x.expm1()
    # Inductor computes a slow expm1 again for each use, and keeps what it made of exp.
    series = x * (1.0 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120)))))
    return torch.where(x.abs() < 0.01, series, x.exp() - 1.0)


def _twice_phi(t: Tensor, twice_expm1: Tensor) -> Tensor:
    """Return ``2 (expm1(t) - t)``, given ``2 expm1(t)``, which is overwritten."""
    direct = torch.threshold_(twice_expm1.sub_(t, alpha=2.0), _SERIES_BELOW, 0.0)
    series = t * t
    series.addcmul_(series, t, value=1.0 / 3.0)
    # The remainder of the series is never negative, so the larger of the two is the right one;
    # torch.where is several times as slow on a CPU.
    return series.clamp_(min=direct)


def _large_tau_limit(
    u: Tensor, v: Tensor, tau: float, gradient_factor: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return the limit of ``tau^2 KL``, ``Var_k(u - v) / 2``, and its gradient in ``u``."""
    d = u.double() - v.double()
    d -= d.mean(-1, keepdim=True)
    value = d.square().mean(-1) / 2.0
    if gradient_factor is None:
        return value, None
    return value, d.mul_(gradient_factor / d.shape[-1])


def _small_tau_limit(
    u: Tensor, v: Tensor, tau: float, gradient_factor: float | None
) -> tuple[Tensor, Tensor | None]:
    """Return the limit of ``tau KL`` and its gradient in ``u``.

    Tied largest logits share the probability: the value is max(u) less the mean of u over the
    teacher's largest, the gradient 1[S] / size of S - 1[T] / size of T.
    """
    z = torch.stack((u, v)).double()
    z -= z.amax(-1, keepdim=True)
    largest = (z == 0).double()
    largest /= largest.sum(-1, keepdim=True)
    p, q = largest.unbind()
    value = (q * z[0]).sum(-1).abs_()  # z <= 0
    return value, None if gradient_factor is None else p.sub_(q).mul_(gradient_factor)


# Temperature-scaled KL divergence between logits, exact from tau = 0 to tau = inf.


@MODELS.register_module()
class ScaledKLDivLoss(LogitLoss):
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
    pass; the gradient can be differentiated again, and ``torch.func.grad`` works.

    Args:
        tau: Temperature, dimensionless, in ``[0, inf]``; a string such as ``'inf'`` will do.
        scale: The factor s(tau): ``'tau^2'``; ``'max(tau, tau^2)'``, the paper's form for small
            tau, which keeps the gradient's size there; ``'none'``, 1.
        reduction: Of the samples' losses, each summed over classes: ``'mean'``: their sum divided
            by N (times the positions), not by K; ``'batchmean'``: divided by N; ``'sum'``;
            ``'none'``.
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

    label = "KL"
    shift_invariant = True
    shows_tau = True
    exclusive_classes = True

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
        self.reduction = check_choice("reduction", reduction, REDUCTIONS)
        self.class_dim = check_class_dim(class_dim)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, **kwargs: Any) -> Tensor:
        """Compare logits, which may be dense, with the classes in ``class_dim``.

        ``'none'`` gives their shape without the class dimension. The loss is never negative.
        """
        name = type(self).__name__
        u, v, dim = check_logits(name, student_logits, teacher_logits, self.class_dim, kwargs)
        if dim != u.ndim - 1:
            u, v = u.movedim(dim, -1), v.movedim(dim, -1)
        return scaled_kl(u, v, self.tau, self.scale, self.reduction)


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


def _check_scale(scale: str, tau: float) -> str:
    """Return ``scale`` if it is known and has a usable limit at ``tau``."""
    check_choice("scale", scale, SCALES)
    nowhere = {
        (0.0, "tau^2"): "the loss is 0 for all logits; take scale='max(tau, tau^2)'",
        (0.0, "none"): "the divergence is infinite; take scale='max(tau, tau^2)'",
        (math.inf, "none"): "the divergence is 0 for all logits; take scale='tau^2'",
    }
    if (tau, scale) in nowhere:
        raise ValueError(f"tau={tau} with scale={scale!r}: {nowhere[tau, scale]}")
    return scale
