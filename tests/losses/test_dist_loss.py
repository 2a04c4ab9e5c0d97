import mpmath
import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import evaluate
from scipy.special import softmax
from scipy.stats import pearsonr

from mmkd_logit.losses import DISTLoss


def logits(samples=7, classes=5, scale=2.0, distance=1.0, dtype=np.float64):
    return reference.make_logits(samples, classes, scale, distance, dtype=dtype)


@pytest.mark.parametrize(("beta", "gamma", "tau"), [(1, 1, 1), (2, 3, 4), (1, 0, 0.5), (0, 1, 2)])
def test_equals_scipys_correlation(beta, gamma, tau):
    u, v = logits()
    p, q = softmax(u / tau, 1), softmax(v / tau, 1)
    inter = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - pearsonr(a, b).statistic for a, b in zip(p.T, q.T, strict=True)])
    value, _ = evaluate(DISTLoss(beta, gamma, tau, eps=0), u, v)
    np.testing.assert_allclose(value, tau**2 * (beta * inter + gamma * intra), 1e-11)


def authors_form(p, q, dim, eps):
    a, b = p - p.mean(dim, keepdim=True), q - q.mean(dim, keepdim=True)
    rho = (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim) + eps)
    return 1 - rho.mean()


@pytest.mark.parametrize("eps", [1e-8, 1e-3, 0.1])
def test_eps_is_added_to_the_product_of_the_norms(eps):
    u, v = (torch.tensor(z) for z in logits())
    p, q = u.softmax(1), v.softmax(1)
    want = 1.5 * authors_form(p, q, 1, eps) + 0.5 * authors_form(p, q, 0, eps)
    loss = DISTLoss(1.5, 0.5, eps=eps)
    torch.testing.assert_close(loss(u, v), want, rtol=1e-10, atol=0)
    x, y = u.clone().requires_grad_(), u.clone().requires_grad_()
    loss(x, v).backward()
    p = y.softmax(1)
    (1.5 * authors_form(p, q, 1, eps) + 0.5 * authors_form(p, q, 0, eps)).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-8, atol=1e-12)


def test_close_networks_keep_their_digits():
    """1 - rho is about 1e-17 here; subtracting from 1 leaves nothing of it."""
    u, v = logits(samples=3, classes=4, distance=1e-8)
    with mpmath.workdps(60):
        p, q = (
            [[mpmath.exp(x) / mpmath.fsum(map(mpmath.exp, z)) for x in z] for z in w.tolist()]
            for w in (u, v)
        )
        want = mpmath.fsum(_distance(a, b) for a, b in zip(p, q, strict=True)) / 3
    value, _ = evaluate(DISTLoss(gamma=0, eps=0), u, v)
    assert value < 1e-15
    np.testing.assert_allclose(value, float(want), 1e-6)


def _distance(a, b):
    a, b = ([x - mpmath.fsum(z) / len(z) for x in z] for z in (a, b))
    product = mpmath.sqrt(mpmath.fsum(x * x for x in a) * mpmath.fsum(x * x for x in b))
    return 1 - mpmath.fsum(x * y for x, y in zip(a, b, strict=True)) / product


@pytest.mark.parametrize("eps", [0, 1e-8, 1e-2])
def test_gradcheck(eps):
    u, v = (torch.tensor(z) for z in logits(samples=4))
    loss = DISTLoss(2, 3, 2, eps)
    assert torch.autograd.gradcheck(lambda x: loss(x, v), u.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: loss(x, v), u)


def test_inter_and_intra_are_each_others_transpose():
    """For probabilities: a doubly stochastic student and its transpose."""
    u = torch.zeros(3, 3, dtype=torch.float64)
    u[0, 1], u[1, 2], u[2, 0] = 1, 1, 1  # circulant: columns of the softmax sum to 1 too
    v = torch.tensor([[2.0, 0, 1], [1, 2, 0], [0, 1, 2]], dtype=torch.float64)
    by_row, by_column = DISTLoss(1, 0, eps=0), DISTLoss(0, 1, eps=0)
    assert by_row(u, v) > 0
    torch.testing.assert_close(by_row(u.T, v.T), by_column(u, v))


@pytest.mark.parametrize("eps", [0, 1e-8])
@pytest.mark.parametrize("classes", [5, 7, 1000])
def test_constant_vectors_have_distance_one(classes, eps):
    """And a gradient to the teacher's vector, unless that one is constant."""
    _, v = logits(samples=3, classes=classes)
    value, gradient = evaluate(DISTLoss(2, 0, eps=eps), np.ones((3, classes)), v)
    assert value == pytest.approx(2, abs=1e-6)
    q = softmax(v, 1) - 1 / classes
    want = -2 / 3 * q / np.linalg.norm(q, axis=1, keepdims=True) / classes**0.5
    np.testing.assert_allclose(gradient, want, 1e-5, 1e-9)
    value, gradient = evaluate(DISTLoss(2, 0, eps=eps), v, np.ones((3, classes)))
    assert value == 2
    assert not gradient.any()
    value, gradient = evaluate(DISTLoss(0, 3, eps=eps), v[:1], v[1:2])  # one sample
    assert value == 3
    assert not gradient.any()


def test_tiny_probabilities_stay_finite():
    """Probabilities of 1e-260, whose squares float64 does not have."""
    u = np.array([[600.0, 0, 1], [0.0, 600, 2], [601.0, 0, 0.5]])
    v = u[:, [0, 1, 2]] + np.array([[0.0, 3, 0]])
    for eps in (0, 1e-8):
        value, gradient = evaluate(DISTLoss(eps=eps), u, v)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
    q, p = softmax(v, 1)[:, 2], softmax(u, 1)[:, 2]
    scaled = pearsonr(p * 1e255, q * 1e255).statistic
    others = [1 - pearsonr(softmax(u, 1)[:, k], softmax(v, 1)[:, k]).statistic for k in (0, 1)]
    value, _ = evaluate(DISTLoss(0, 1, eps=0), u, v)
    np.testing.assert_allclose(value, (sum(others) + 1 - scaled) / 3, 1e-6, 1e-12)
