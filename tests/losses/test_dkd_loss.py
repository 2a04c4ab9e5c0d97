import mpmath
import numpy as np
import pytest
import torch
from losses import reference

from mmkd_logit.losses import DKDLoss, ScaledKLDivLoss

LABELS = torch.tensor([0, 4, 2, 1, 4, 3])


def logits(classes=5, scale=3.0, distance=1.0, dtype=np.float64):
    u, v = reference.make_logits(len(LABELS), classes, scale, distance, dtype=dtype)
    return torch.tensor(u), torch.tensor(v)


def definition(u, v, labels, tau, alpha, beta):
    """Equation 7 by the probabilities of the definition, in 60 digits."""
    with mpmath.workdps(60):
        losses = []
        for a, b, label in zip(u.tolist(), v.tolist(), labels.tolist(), strict=True):
            p, q = (_softmax([mpmath.mpf(x) / mpmath.mpf(tau) for x in z]) for z in (a, b))
            others_p = mpmath.fsum(x for k, x in enumerate(p) if k != label)
            others_q = mpmath.fsum(x for k, x in enumerate(q) if k != label)
            target = _kl([q[label], others_q], [p[label], others_p])
            rest_p = [x / others_p for k, x in enumerate(p) if k != label]
            rest_q = [x / others_q for k, x in enumerate(q) if k != label]
            losses.append(tau**2 * (alpha * target + beta * _kl(rest_q, rest_p)))
        return np.array([float(x) for x in losses])


def _softmax(z):
    exps = [mpmath.exp(x) for x in z]
    return [x / mpmath.fsum(exps) for x in exps]


def _kl(q, p):
    return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(q, p, strict=True))


@pytest.mark.parametrize(("tau", "alpha", "beta"), [(4, 1, 8), (1, 2, 0), (0.5, 0, 1), (1e4, 1, 1)])
def test_equals_the_definition(tau, alpha, beta):
    u, v = logits()
    value = DKDLoss(tau, alpha, beta, reduction="none")(u, v, LABELS)
    np.testing.assert_allclose(value, definition(u, v, LABELS, tau, alpha, beta), 1e-8)


def test_equation_6_couples_the_parts_to_the_divergence():
    u, v = logits()
    for n in range(len(u)):
        row = slice(n, n + 1)
        rest = 1 - (v[row] / 3).softmax(1)[0, LABELS[n]].item()
        both = DKDLoss(3, 1, rest)(u[row], v[row], LABELS[row])
        torch.testing.assert_close(both, ScaledKLDivLoss(3)(u[row], v[row]), rtol=1e-12, atol=0)


def test_sure_networks_keep_their_digits():
    """1 - p of the label is 1e-26 and 1e-35: 1 - softmax and a mask of -1000 give 0 or NaN."""
    u = torch.tensor([[60.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[80.0, 1.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([0])
    for tau, alpha, beta in ((1, 1, 1), (1, 1, 0), (0.05, 1, 1)):
        value = DKDLoss(tau, alpha, beta)(u, v, labels)
        want = definition(u.detach(), v, labels, tau, alpha, beta)
        np.testing.assert_allclose(value.item(), want[0], 1e-9)
        (gradient,) = torch.autograd.grad(value, u)
        assert gradient.isfinite().all()


def test_logits_of_thousands_are_no_mask():
    """A label whose logit lies 3000 below the others' stays out of NCKD."""
    u = torch.tensor([[-3000.0, 0.0, 2.0]], dtype=torch.float64)
    v = torch.tensor([[-3000.0, 1.0, 0.0]], dtype=torch.float64)
    others = ScaledKLDivLoss(1)(u[:, 1:], v[:, 1:])
    torch.testing.assert_close(DKDLoss(1, 1, 1)(u, v, torch.tensor([0])), others)


def test_gradient_is_the_formulas():
    """tau (alpha (b(u) - b(v)) by the chain rule + beta (p^ - q^))."""
    u, v = logits()
    u.requires_grad_()
    tau, alpha, beta = 3.0, 1.5, 2.0
    DKDLoss(tau, alpha, beta, "sum")(u, v, LABELS).backward()
    p, q = (u.detach() / tau).softmax(1), (v / tau).softmax(1)
    one_hot = torch.nn.functional.one_hot(LABELS, 5).bool()
    pt, qt = p[one_hot].unsqueeze(1), q[one_hot].unsqueeze(1)
    rest_p, rest_q = (x.masked_fill(one_hot, 0) / (1 - t) for x, t in ((p, pt), (q, qt)))
    want = tau * (alpha * (pt - qt) * (one_hot.double() - rest_p) + beta * (rest_p - rest_q))
    torch.testing.assert_close(u.grad, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
def test_gradcheck(reduction):
    u, v = logits()
    loss = DKDLoss(2.0, 1.0, 3.0, reduction)
    assert torch.autograd.gradcheck(lambda x: loss(x, v, LABELS), u.requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: loss(x, v, LABELS), u)


def test_reductions():
    """'mean' is the mean, which elsewhere is the sum."""
    u, v = logits()
    each = definition(u, v, LABELS, 4, 1, 8)
    for reduction, want in (("mean", each.mean()), ("batchmean", each.mean()), ("sum", each.sum())):
        np.testing.assert_allclose(DKDLoss(reduction=reduction)(u, v, LABELS), want, 1e-10)
    assert DKDLoss(reduction="none")(u, v, LABELS).shape == (6,)


def test_two_classes_have_no_others():
    u, v = logits(classes=2)
    labels = LABELS % 2
    torch.testing.assert_close(DKDLoss(3, 1, 8)(u, v, labels), ScaledKLDivLoss(3)(u, v))


@pytest.mark.parametrize(
    "labels",
    [
        None,
        LABELS.float(),
        LABELS[:5],
        LABELS[:, None],
        torch.nn.functional.one_hot(LABELS),
        LABELS.tolist(),
        LABELS.bool(),
    ],
)
def test_wrong_labels(labels):
    u, v = logits()
    with pytest.raises(ValueError, match=r"DKDLoss needs the class of each sample .*\(6,\)"):
        DKDLoss()(u, v, labels)
