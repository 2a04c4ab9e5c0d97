import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import evaluate
from scipy.special import log_softmax, softmax
from scipy.stats import zscore

from mmkd_logit.losses import (
    DISTLoss,
    DKDLoss,
    LogitMSELoss,
    LogitStandardization,
    ScaledKLDivLoss,
)


def logits(samples=6, classes=7, scale=3.0, dtype=np.float64):
    return reference.make_logits(samples, classes, scale, dtype=dtype)


def kl(tau=2, **kwargs):
    return LogitStandardization(ScaledKLDivLoss(tau, **kwargs))


@pytest.mark.parametrize("tau", [1, 2, 4])
def test_equals_scipy(tau):
    u, v = logits()
    a, b = (zscore(z, 1, ddof=1) / tau for z in (u, v))
    want = (softmax(b, 1) * (log_softmax(b, 1) - log_softmax(a, 1))).sum(1)
    value, _ = evaluate(kl(tau, reduction="none"), u, v)
    np.testing.assert_allclose(value, tau**2 * want, 1e-5)


def test_eps_is_added_to_the_deviation():
    u, v = (torch.tensor(z) for z in logits())
    want = [(z - z.mean(1, True)) / (z.std(1, keepdim=True) + 0.5) for z in (u, v)]
    value = LogitStandardization(LogitMSELoss(), eps=0.5)(u, v)
    torch.testing.assert_close(value, LogitMSELoss()(*want))


@pytest.mark.parametrize("side", [0, 1])
def test_positive_affine_maps_of_a_sample_change_nothing(side):
    pair = logits()
    value, gradient = evaluate(kl(), *pair)
    scale, shift = np.linspace(0.5, 9, 6)[:, None], np.linspace(-40, 40, 6)[:, None]
    mapped = [scale * z + shift if i == side else z for i, z in enumerate(pair)]
    again, again_gradient = evaluate(kl(), *mapped)
    np.testing.assert_allclose(again, value, 1e-6)
    # dL/du shrinks as the student's logits grow
    factor = scale if side == 0 else 1.0
    np.testing.assert_allclose(again_gradient * factor, gradient, 1e-5, 1e-9)
    negative = [-z if i == side else z for i, z in enumerate(pair)]
    assert abs(evaluate(kl(), *negative)[0] - value) > 0.1  # the control


def test_gradient_passes_through_mean_and_deviation():
    u, v = logits()
    _, gradient = evaluate(kl(), u, v)
    centred = u - u.mean(1, keepdims=True)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-12)
    # nearly orthogonal to the logits: their length does not count (but for eps)
    assert np.abs((gradient * centred).sum(1)).max() < 1e-6 * np.abs(gradient).max()
    _, plain = evaluate(ScaledKLDivLoss(2), u, v)
    assert np.abs((plain * centred).sum(1)).max() > 1e-3  # the control


@pytest.mark.parametrize("base", [ScaledKLDivLoss(2), LogitMSELoss(reduction="none"), DISTLoss()])
def test_gradcheck(base):
    u, v = (torch.tensor(z) for z in logits())
    loss = LogitStandardization(base)
    assert torch.autograd.gradcheck(lambda x: loss(x, v), u.requires_grad_())


def test_labels_reach_the_base_loss():
    u, v = (torch.tensor(z) for z in logits())
    labels = torch.arange(6)
    loss = LogitStandardization(dict(type="mmkd_logit.DKDLoss", tau=2))
    assert loss.needs_labels
    assert not kl().needs_labels
    z = [(x - x.mean(1, True)) / (x.std(1, keepdim=True) + 1e-7) for x in (u, v)]
    torch.testing.assert_close(loss(u, v, labels), DKDLoss(2)(*z, labels))
    with pytest.raises(ValueError, match="DKDLoss needs the class"):
        loss(u, v)


def test_class_dim_is_the_base_losss():
    u, v = (torch.tensor(z).reshape(3, 2, 7) for z in logits())
    last = LogitStandardization(LogitMSELoss(reduction="none"))(u, v)
    loss = LogitStandardization(LogitMSELoss(reduction="none", class_dim=1))
    torch.testing.assert_close(loss(u.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2), last)


@pytest.mark.parametrize("constant", [0.0, 3.0, -1e4])
def test_equal_logits_are_only_centred(constant):
    """A head that starts at zero learns at the base loss's pace."""
    _, v = logits(samples=2)
    z = (v - v.mean(1, keepdims=True)) / (v.std(1, ddof=1, keepdims=True) + 1e-7)
    value, gradient = evaluate(kl(), np.full((2, 7), constant), v)
    want, base = evaluate(ScaledKLDivLoss(2), np.zeros((2, 7)), z)
    np.testing.assert_allclose(value, want, 1e-6)
    np.testing.assert_allclose(gradient, base, 1e-6, 1e-9)


def test_two_classes_are_refused():
    with pytest.raises(ValueError, match="cannot teach two classes"):
        kl()(torch.randn(4, 2), torch.randn(4, 2))


def test_wrong_input():
    u = torch.zeros(4, 5)
    with pytest.raises(ValueError, match=r"LogitStandardization of ScaledKLDivLoss: .*in shape"):
        kl()(u, u[:3])
    with pytest.raises(ValueError, match="avg_factor"):
        kl()(u, u, avg_factor=3)
    with pytest.raises(ValueError, match=r"^eps=0 must be"):
        LogitStandardization(LogitMSELoss(), eps=0)
