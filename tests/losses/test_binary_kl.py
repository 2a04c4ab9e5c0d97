import math

import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import PAIRS, evaluate
from scipy.special import expit, log_expit

from mmkd_logit.losses import ScaledBinaryKLDivLoss


def pairs_of(logits):
    """Return each logit with the 0 of its class's absence: (N K, 2)."""
    return np.stack([logits, np.zeros_like(logits)], -1).reshape(-1, 2)


@pytest.mark.parametrize(("tau", "scale"), PAIRS)
def test_equals_the_reference_of_two_classes(tau, scale):
    u, v = reference.make_logits(5, 4, scale=3)
    losses, slope = reference.kl(pairs_of(u), pairs_of(v), float(tau), scale)
    value, gradient = evaluate(ScaledBinaryKLDivLoss(tau, scale, "none"), u, v)
    np.testing.assert_allclose(value, losses.reshape(5, 4), 1e-6, 1e-30)
    np.testing.assert_allclose(gradient, slope[:, 0].reshape(5, 4), 1e-5, 1e-30)


@pytest.mark.parametrize("tau", [1, 4])
def test_equals_scipys_logistic_function(tau):
    """The definition, class by class, and the gradient tau (sigma(u / tau) - sigma(v / tau))."""
    u, v = reference.make_logits(6, 3, scale=4, dtype=np.float64)
    q = expit(v / tau)
    each = q * (log_expit(v / tau) - log_expit(u / tau))
    each += (1 - q) * (log_expit(-v / tau) - log_expit(-u / tau))
    value, gradient = evaluate(ScaledBinaryKLDivLoss(tau, reduction="none"), u, v)
    np.testing.assert_allclose(value, tau**2 * each, 1e-9)
    np.testing.assert_allclose(gradient, tau * (expit(u / tau) - q), 1e-9)


def test_large_tau_tends_to_an_eighth_of_the_squared_error():
    u, v = reference.make_logits(8, 5, dtype=np.float64)
    want = (u - v) ** 2 / 8
    value, gradient = evaluate(ScaledBinaryKLDivLoss(math.inf, reduction="none"), u, v)
    np.testing.assert_allclose(value, want, 1e-12)
    np.testing.assert_allclose(gradient, (u - v) / 4, 1e-12)
    errors = [
        np.abs(evaluate(ScaledBinaryKLDivLoss(tau, reduction="none"), u, v)[0] - want).max()
        for tau in (50, 100)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)  # the logistic function is odd


def test_reductions():
    u, v = reference.make_logits(6, 5)
    each, slope = evaluate(ScaledBinaryKLDivLoss(2, reduction="none"), u, v)
    for reduction, parts in dict(mean=30, batchmean=6, sum=1).items():
        value, gradient = evaluate(ScaledBinaryKLDivLoss(2, reduction=reduction), u, v)
        assert value == pytest.approx(each.sum() / parts, rel=1e-6)
        np.testing.assert_allclose(gradient, slope / parts, 1e-5, 1e-9)


def test_classes_count_by_themselves():
    """Unlike softmax's, a class's loss does not depend on the logits of others."""
    u, v = reference.make_logits(3, 4)
    loss = ScaledBinaryKLDivLoss(3, reduction="none")
    whole, _ = evaluate(loss, u, v)
    np.testing.assert_array_equal(evaluate(loss, u[:, :1], v[:, :1])[0], whole[:, :1])  # K = 1
    assert evaluate(loss, u + 1, v + 1)[0][0, 0] != whole[0, 0]


def test_dense_logits_and_wrong_ones():
    u, v = (torch.tensor(z).reshape(2, 3, 4) for z in reference.make_logits(6, 4))
    assert ScaledBinaryKLDivLoss(2, reduction="none")(u, v).shape == (2, 3, 4)
    with pytest.raises(ValueError, match="differ in shape"):
        ScaledBinaryKLDivLoss(2)(u, v[:1])
    with pytest.raises(ValueError, match="not logits with labels"):
        ScaledBinaryKLDivLoss(2)(u, torch.zeros(2).long())
    with pytest.raises(ValueError, match="at least 1 classes"):
        ScaledBinaryKLDivLoss(2)(u[..., :0], v[..., :0])
