"""The losses' values and gradients from the definitions, with digits to spare.

Nothing of the package is imported. Up to 100 classes everything is done in 50 decimal digits.
With more, that takes minutes, and x87 numbers (64-bit mantissa, exponents to 1e4932) serve: their
error is measured against the 50 digits by a test.
"""

import math

import mpmath
import numpy as np
import torch

SMALL = "max(tau, tau^2)"
# Every limit, both forms of the value, both sides of tau = 1.
PAIRS = [(t, SMALL) for t in (0, 0.05, 0.5, 1, 4, 100, 1e6, math.inf)]
PAIRS += [(0.5, "tau^2"), (20, "tau^2"), ("inf", "tau^2"), (0.5, "none"), (20, "none")]
TAUS = (0, 0.05, 0.1, 0.5, 1, 3, 4, 5, 20, 150, 1e3, 1e4, 1e6, 1e8, math.inf)
SCALES = (1, 10, 100)
DISTANCES = (1e-4, 1e-2, 1, 10)

FLOOR = 1e-30  # smaller references count as this
LOSS_BAR = 1e-6
GRADIENT_BAR = 1e-5

EXTENDED = np.finfo(np.longdouble).eps < 1e-18


def make_logits(samples, classes, scale=1.0, distance=1.0, seed=0, dtype=np.float32):
    """Return student and teacher logits; their difference has the standard deviation asked."""
    rng = np.random.default_rng(seed)
    v = (rng.standard_normal((samples, classes)) * scale).astype(dtype)
    u = (v + rng.standard_normal((samples, classes)) * distance).astype(dtype)
    return u, v


def factor(tau, scale):
    """Return s(tau)."""
    return {"tau^2": tau * tau, "max(tau, tau^2)": max(tau, tau * tau), "none": 1}[scale]


def kl(u, v, tau, scale="tau^2"):
    """Return the losses ``(N,)`` and the gradient ``(N, K)`` of their sum, as float64."""
    by_row = _row if u.shape[1] <= 100 else _row_extended
    rows = [by_row(a, b, tau, scale) for a, b in zip(u, v, strict=True)]
    losses, gradients = zip(*rows, strict=True)
    return np.array(losses, dtype=np.float64), np.array(gradients, dtype=np.float64)


def relative_error(got, want):
    """Return the distance relative to the size of ``want``."""
    got, want = (np.asarray(x, dtype=np.float64) for x in (got, want))
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), FLOOR)


def evaluate(loss, u, v):
    """Return value and gradient for two arrays, and check what holds for every pair."""
    student, teacher = torch.tensor(u, requires_grad=True), torch.tensor(v)
    value = loss(student, teacher)
    value.sum().backward()
    assert np.array_equal(student.detach().numpy(), u)
    assert np.array_equal(teacher.numpy(), v)
    assert value.dtype == student.grad.dtype == teacher.dtype
    assert (value >= 0).all()
    return value.detach().numpy(), student.grad.numpy()


def _row(u, v, tau, scale):
    with mpmath.workdps(50):
        u, v = ([mpmath.mpf(float(x)) for x in z] for z in (u, v))
        if tau == 0:
            return _zero(u, v)
        if tau == math.inf:
            return _infinite(u, v)
        tau = mpmath.mpf(float(tau))
        p, log_p = _softmax(u, tau)
        q, log_q = _softmax(v, tau)
        s = factor(tau, scale)
        loss = s * mpmath.fsum(a * (b - c) for a, b, c in zip(q, log_q, log_p, strict=True))
        return loss, [s / tau * (a - b) for a, b in zip(p, q, strict=True)]


def _softmax(z, tau):
    largest = max(z)
    z = [(x - largest) / tau for x in z]
    exps = [mpmath.exp(x) for x in z]
    total = mpmath.fsum(exps)
    log_total = mpmath.log(total)
    return [x / total for x in exps], [x - log_total for x in z]


def _zero(u, v):
    def share(z):
        return [mpmath.mpf(x == max(z)) / z.count(max(z)) for x in z]

    p, q = share(u), share(v)
    loss = max(u) - mpmath.fsum(a * b for a, b in zip(q, u, strict=True))
    return loss, [a - b for a, b in zip(p, q, strict=True)]


def _infinite(u, v):
    d = [a - b for a, b in zip(u, v, strict=True)]
    mean = mpmath.fsum(d) / len(d)
    d = [x - mean for x in d]
    return mpmath.fsum(x * x for x in d) / (2 * len(d)), [x / len(d) for x in d]


def _row_extended(u, v, tau, scale):
    u, v = u.astype(np.longdouble), v.astype(np.longdouble)
    if tau == 0:
        p, q = ((z == z.max()) / np.longdouble((z == z.max()).sum()) for z in (u, v))
        return u.max() - (q * u).sum(), p - q
    d = u - v
    if tau == math.inf:
        d = d - d.mean()
        return (d * d).mean() / 2, d / len(d)
    tau = np.longdouble(tau)
    q = np.exp((v - v.max()) / tau)
    q /= q.sum()
    # Relative to the teacher's first class, log(p / q) = t is small and exact to 64 bits.
    x = (d - d[v.argmax()]) / tau
    t = x - np.log1p((q * np.expm1(x)).sum())
    s = factor(tau, scale)
    return s * (q * _expm1_less_t(t)).sum(), s / tau * q * np.expm1(t)


def _expm1_less_t(t):
    """Return exp(t) - 1 - t, by 20 terms of the series where |t| < 1 / 2."""
    small = np.clip(t, -0.5, 0.5)
    series = np.zeros_like(t)
    for k in range(21, 1, -1):
        series = (series + 1) * small / k
    return np.where(np.abs(t) < 0.5, series * small, np.expm1(t) - t)
