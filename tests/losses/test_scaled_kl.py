import itertools
import math

import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import PAIRS, SMALL, evaluate
from scipy import special

from mmkd_logit.losses import ScaledKLDivLoss
from mmkd_logit.losses import kl as _scaled_kl

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def softmax_of(u, v, tau):
    return (special.softmax(z.astype(np.float64) / tau, -1) for z in (u, v))


@both_dtypes
@pytest.mark.parametrize("tau", [0.5, 1, 3, 20, 100])
def test_equals_scipy(tau, dtype):
    u, v = reference.make_logits(7, 12, 3, dtype=dtype)
    p, q = softmax_of(u, v, tau)
    value, gradient = evaluate(ScaledKLDivLoss(tau), u, v)
    rtol = 2e-7 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(value, tau**2 * special.rel_entr(q, p).sum(-1).mean(), rtol)
    np.testing.assert_allclose(gradient, tau * (p - q) / 7, rtol, rtol * np.abs(gradient).max())


@both_dtypes
def test_small_tau_scale_and_no_scale(dtype):
    u, v = reference.make_logits(5, 9, 2, dtype=dtype)
    for tau, scale, factor in ((0.3, SMALL, 0.3), (3, SMALL, 9), (0.3, "none", 1), (3, "none", 1)):
        p, q = softmax_of(u, v, tau)
        value, gradient = evaluate(ScaledKLDivLoss(tau, scale), u, v)
        kl = special.rel_entr(q, p).sum(-1).mean()
        np.testing.assert_allclose(value, factor * kl, 1e-6)
        np.testing.assert_allclose(gradient, factor / tau * (p - q) / 5, 1e-5, 1e-8)


@pytest.mark.parametrize("scale", reference.SCALES)
@pytest.mark.parametrize("tau", reference.TAUS)
def test_close_to_fifty_digits(tau, scale):
    form = SMALL if tau < 1 else "tau^2"
    for classes, distance in itertools.product((2, 10, 100), (1e-4, 1e-2, 1, 10)):
        u, v = reference.make_logits(max(2, 60 // classes), classes, scale, distance)
        losses, slope = reference.kl(u, v, tau, form)
        value, gradient = evaluate(ScaledKLDivLoss(tau, form), u, v)
        assert reference.relative_error(value, losses.mean()) < reference.LOSS_BAR
        assert reference.relative_error(gradient, slope / len(u)) < reference.GRADIENT_BAR


@pytest.mark.parametrize("tau", reference.TAUS)
def test_float64_close_to_fifty_digits(tau):
    form = SMALL if tau < 1 else "tau^2"
    for scale, distance in itertools.product((1, 100), (1e-9, 1e-4, 1)):
        u, v = reference.make_logits(3, 10, scale, distance, dtype=np.float64)
        losses, slope = reference.kl(u, v, tau, form)
        value, gradient = evaluate(ScaledKLDivLoss(tau, form), u, v)
        # Rounding in the logits' quotients by tau: 1e-16 scale / distance.
        bar = 1e-9 + 1e-15 * scale / distance
        assert reference.relative_error(value, losses.mean()) < bar
        assert reference.relative_error(gradient, slope / len(u)) < bar


@pytest.mark.skipif(not reference.EXTENDED, reason="no 64-bit mantissa on this machine")
@pytest.mark.parametrize(("tau", "classes"), [(0.05, 21841), (4, 21841), (1e6, 21841), (0.5, 1000)])
def test_close_to_extended_precision_with_many_classes(tau, classes):
    form = SMALL if tau < 1 else "tau^2"
    for scale, distance in ((100, 1e-4), (10, 10)):
        u, v = reference.make_logits(8, classes, scale, distance)
        losses, slope = reference.kl(u, v, tau, form)
        value, gradient = evaluate(ScaledKLDivLoss(tau, form), u, v)
        assert reference.relative_error(value, losses.mean()) < reference.LOSS_BAR
        assert reference.relative_error(gradient, slope / 8) < reference.GRADIENT_BAR


@pytest.mark.skipif(not reference.EXTENDED, reason="no 64-bit mantissa on this machine")
@pytest.mark.parametrize("tau", reference.TAUS)
def test_extended_precision_close_to_fifty_digits(tau):
    for scale, distance in itertools.product(reference.SCALES, reference.DISTANCES):
        (u,), (v,) = reference.make_logits(1, 100, scale, distance)
        form = SMALL if tau < 1 else "tau^2"
        for got, want in zip(
            reference._row_extended(u, v, tau, form), reference._row(u, v, tau, form), strict=True
        ):
            assert reference.relative_error(got, np.array(want, dtype=np.float64)) < 1e-10


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("tau", "scale"), PAIRS)
def test_gradcheck(tau, scale, reduction):
    u, v = (torch.tensor(z) for z in reference.make_logits(3, 5, dtype=np.float64))
    loss = ScaledKLDivLoss(tau, scale, reduction)
    assert torch.autograd.gradcheck(lambda x: loss(x, v), u.requires_grad_())


# Invariances and zeros


@both_dtypes
@pytest.mark.parametrize(("tau", "scale"), PAIRS)
def test_shift_of_a_sample_changes_nothing(tau, scale, dtype):
    u, v = (np.round(z * 64) / 64 for z in reference.make_logits(5, 7, 3, dtype=dtype))
    shift = np.array([[8], [-16], [0.5], [1024], [0]], dtype=dtype)
    want = evaluate(ScaledKLDivLoss(tau, scale), u, v)
    for moved in ((u + shift, v), (u, v + shift)):
        got = evaluate(ScaledKLDivLoss(tau, scale), *moved)
        np.testing.assert_allclose(got[0], want[0], 1e-6)
        np.testing.assert_allclose(got[1], want[1], 1e-6, 1e-7)
    value, gradient = evaluate(ScaledKLDivLoss(tau, scale), v + shift, v)
    assert value == 0
    assert not gradient.any()


@both_dtypes
@pytest.mark.parametrize("tau", [0.5, 4, 64, 1e3, 1e8, math.inf])
def test_positive_for_the_next_number(tau, dtype):
    _, v = reference.make_logits(4, 7, dtype=dtype)
    if dtype == np.float64:
        v = v.astype(np.float32).astype(np.float64)
        u = np.nextafter(v.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    else:
        u = np.nextafter(v, np.float32(np.inf))
    value, gradient = evaluate(ScaledKLDivLoss(tau, reduction="none"), u, v)
    losses, slope = reference.kl(u, v, tau)
    np.testing.assert_allclose(value, losses, 1e-6)
    assert reference.relative_error(gradient, slope) < 1e-5


@pytest.mark.parametrize("scale", ["tau^2", SMALL, "none"])
@pytest.mark.parametrize("size", [1e4, 1.0])
def test_never_nan_and_never_negative(size, scale):
    u, v = reference.make_logits(6, 50, size / 3, size / 3)
    u, v = u.clip(-size, size), v.clip(-size, size)
    u[0], v[1] = v[0], u[1].max()  # equal; a flat teacher
    u[2], v[2] = -v[3], v[3]
    u[4, 0], v[4, 1] = size * 10, size * 10
    for tau in (5e-324, 1e-310, 1e-61, 1e-59, 1e-30, *np.logspace(-3, 8, 12), 1e29, 1e31, 1e308):
        value, gradient = evaluate(ScaledKLDivLoss(float(tau), scale, "none"), u, v)
        assert not np.isnan(value).any()
        assert not np.isnan(gradient).any()
        if scale != "none":
            assert np.isfinite(value).all()
            assert np.isfinite(gradient).all()
    for tau in (0, math.inf) if scale == SMALL else ():
        value, gradient = evaluate(ScaledKLDivLoss(tau, scale, "none"), u, v)
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()


# Limits


@both_dtypes
def test_infinite_tau_is_half_the_variance(dtype):
    u, v = reference.make_logits(6, 11, 3, dtype=dtype)
    d = u.astype(np.float64) - v
    value, gradient = evaluate(ScaledKLDivLoss("inf"), u, v)
    np.testing.assert_allclose(value, d.var(-1).mean() / 2, 1e-6)
    np.testing.assert_allclose(gradient, (d - d.mean(-1, keepdims=True)) / 11 / 6, 1e-5, 1e-8)


def test_rate_of_the_approach_to_infinite_tau():
    u, v = reference.make_logits(1, 8, 2, dtype=np.float64)
    d, a, b = (z - z.mean() for z in (u - v, u, v))
    of_value = (d**2 * (a + 2 * b)).sum() / (6 * 8)
    of_gradient = ((a**2 - (a**2).mean()) - (b**2 - (b**2).mean())) / (2 * 8)
    limit = evaluate(ScaledKLDivLoss(math.inf), u, v)
    for tau in (1e3, 1e4, 1e5):
        value, gradient = evaluate(ScaledKLDivLoss(tau), u, v)
        np.testing.assert_allclose((value - limit[0]) * tau, of_value, 20 / tau, 20 / tau)
        np.testing.assert_allclose((gradient - limit[1]) * tau, of_gradient, 20 / tau, 20 / tau)


@both_dtypes
def test_zero_tau_is_the_perceptron(dtype):
    u, v = reference.make_logits(9, 6, dtype=dtype)
    value, gradient = evaluate(ScaledKLDivLoss(0, SMALL, "none"), u, v)
    rows = np.arange(9)
    np.testing.assert_allclose(value, u.max(-1) - u[rows, v.argmax(-1)], 1e-6)
    one_hot = np.eye(6)
    np.testing.assert_array_equal(gradient, one_hot[u.argmax(-1)] - one_hot[v.argmax(-1)])


@both_dtypes
def test_ties_at_zero_tau_share(dtype):
    u, v = np.array([[2, 2, 1, 0]], dtype), np.array([[0, 3, 3, 3]], dtype)
    share = [[1 / 2, 1 / 6, -1 / 3, -1 / 3]]
    value, gradient = evaluate(ScaledKLDivLoss(0, SMALL), u, v)
    assert value == 1
    np.testing.assert_allclose(gradient, share, 1e-7)
    for tau in (1e-61, 1e-59, 1e-9, 1e-2):
        # Two largest against three: log(2 / 3) of divergence remains.
        value, gradient = evaluate(ScaledKLDivLoss(tau, SMALL), u, v)
        np.testing.assert_allclose(value, 1 + tau * math.log(2 / 3), 1e-7)
        np.testing.assert_allclose(gradient, share, 1e-7)
    value, gradient = evaluate(ScaledKLDivLoss(1e-2, "none"), u, v)
    np.testing.assert_allclose(value, 100 + math.log(2 / 3), 1e-7)


def test_scales_below_and_above_the_limits():
    u, v = (z.astype(np.float64) for z in reference.make_logits(4, 6))
    perceptron, slope = evaluate(ScaledKLDivLoss(0, SMALL), u, v)
    half_variance, centred = evaluate(ScaledKLDivLoss(math.inf), u, v)
    for scale, power in (("tau^2", 1), (SMALL, 0), ("none", -1)):
        value, gradient = evaluate(ScaledKLDivLoss(1e-100, scale), u, v)
        np.testing.assert_allclose(value, perceptron * 1e-100**power, 1e-12)
        np.testing.assert_allclose(gradient, slope * 1e-100**power, 1e-12)
    for scale, power in (("tau^2", 0), (SMALL, 0), ("none", -2)):
        value, gradient = evaluate(ScaledKLDivLoss(1e100, scale), u, v)
        np.testing.assert_allclose(value, half_variance * 1e100**power, 1e-12)
        np.testing.assert_allclose(gradient, centred * 1e100**power, 1e-12)


@both_dtypes
@pytest.mark.parametrize("distance", [1e-3, 1])
@pytest.mark.parametrize("tau", ["_TAU_SMALL", "_TAU_LARGE", 1.0])
def test_continuous_where_the_method_changes(tau, distance, dtype):
    tau = getattr(_scaled_kl, tau) if isinstance(tau, str) else tau
    u, v = reference.make_logits(8, 10, 3, distance, dtype=dtype)
    below, at, above = (
        evaluate(ScaledKLDivLoss(t, SMALL), u, v)
        for t in (np.nextafter(tau, 0), tau, np.nextafter(tau, math.inf))
    )
    rtol = 3e-7 if dtype == np.float32 else 1e-9
    for side in (below, above):
        np.testing.assert_allclose(side[0], at[0], rtol, reference.FLOOR)
        atol = max(rtol * np.abs(at[1]).max(), reference.FLOOR)
        np.testing.assert_allclose(side[1], at[1], rtol, atol)


def test_continuous_where_the_series_ends():
    v = np.zeros((1, 2))
    for seam in (1e-4, -1e-4):
        for factor in (1 - 1e-3, 1 - 1e-9, 1 + 1e-9, 1 + 1e-3):
            u = np.array([[0.0, 2 * seam * factor]])  # log(p / q) is -seam and seam
            value, _ = evaluate(ScaledKLDivLoss(1), u, v)
            assert reference.relative_error(value, reference.kl(u, v, 1)[0]) < 2e-9


def test_expm1_for_the_compiler(monkeypatch):
    x = torch.cat([torch.logspace(-300, math.log10(649), 5000, dtype=torch.float64)] * 2)
    x[5000:] *= -1
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(_scaled_kl._expm1(x), x.expm1(), rtol=2e-13, atol=0)


@pytest.mark.parametrize(("tau", "scale"), [(0, SMALL), (4, "tau^2"), (math.inf, "tau^2")])
def test_blocks_change_nothing(tau, scale, monkeypatch):
    u, v = reference.make_logits(10, 30)
    for reduction in ("mean", "none"):
        whole = evaluate(ScaledKLDivLoss(tau, scale, reduction), u, v)
        with monkeypatch.context() as patch:
            patch.setattr(_scaled_kl, "_CPU_BLOCK", 100)
            parts = evaluate(ScaledKLDivLoss(tau, scale, reduction), u, v)
        for got, want in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(got, want)
