"""The scaled KL divergence and its gradient at every temperature, in numpy's float64.

Written from the formulas, apart from the loss that trains, which tests compare with it. N samples,
K classes; student logits ``u``, teacher logits ``v``, ``d = u - v``, ``q = softmax(v / tau)``.
"""

import math

import numpy as np

# Smaller exponents count in no sum; larger ones are taken by logarithms of sums.
_LARGE = 40.0


def kl_of_tau(u: np.ndarray, v: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return ``tau^2 KL(q || softmax(u / tau))`` of each sample and its gradient in ``u``.

    With :math:`y = d - \langle q, d\rangle` and :math:`x = y / \tau` the divergence is
    :math:`\log\sum_j q_j e^{x_j} = \log(1 + \sum_j q_j (e^{x_j} - 1 - x_j))`, of which no term is
    negative, and the gradient :math:`\tau q_k (e^{x_k - KL} - 1)`. What ``d`` is of the teacher's
    largest class is taken off first: there the digits of unlikely classes are not lost.

    Args:
        u: (N, K).
        v: (N, K).
        tau: Above 0; infinity gives the limits, half the variance of ``d`` over classes and
            ``(d - mean of d) / K``.

    Returns:
        (N,) and (N, K).
    """
    d = u - v
    if math.isinf(tau):
        centred = d - d.mean(1, keepdims=True)
        return (centred**2).mean(1) / 2, centred / d.shape[1]
    a = (v - v.max(1, keepdims=True)) / tau
    log_q = a - np.log(np.exp(a).sum(1, keepdims=True))
    q = np.exp(log_q)
    d = d - np.take_along_axis(d, v.argmax(1)[:, None], 1)
    x = (d - (q * d).sum(1, keepdims=True)) / tau
    powers = log_q + x
    far = powers.max(1, keepdims=True) > _LARGE  # there is no small divergence to be lost
    top = powers.max(1, keepdims=True)
    by_logarithms = top + np.log(np.exp(powers - top).sum(1, keepdims=True))
    divergence = np.where(far, by_logarithms, np.log1p(_excess(q, log_q, x).sum(1, keepdims=True)))
    rest = x - divergence
    with np.errstate(over="ignore", invalid="ignore"):
        near = q * np.expm1(rest)
    difference = np.where(np.abs(rest) < 1, near, np.exp(log_q + rest) - q)
    return tau**2 * divergence[:, 0], tau * difference


def _excess(q: np.ndarray, log_q: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return ``q (e^x - 1 - x)`` without cancellation at small x and overflow at large."""
    with np.errstate(over="ignore", invalid="ignore"):
        near = q * (np.expm1(x) - x)
    series = q * x**2 * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720))))
    far = np.exp(np.minimum(log_q + x, _LARGE)) - q * (1 + x)
    return np.where(np.abs(x) < 0.02, series, np.where(np.abs(x) < 1, near, far))


def label_matching(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits at tau = 0 of ``tau KL`` and its gradient, ``kl_of_tau`` divided by tau.

    Args:
        u: (N, K), no two largest alike.
        v: (N, K), no two largest alike.

    Returns:
        The student's largest logit less that of the teacher's class (N,), and 1 at the student's
        class less 1 at the teacher's (N, K).
    """
    ours, theirs = u.argmax(1), v.argmax(1)
    rows, one = np.arange(len(u)), np.eye(u.shape[1])
    return u[rows, ours] - u[rows, theirs], one[ours] - one[theirs]
