import itertools
import math
import shutil

import numpy as np
import pytest
import torch
from losses import reference
from losses.reference import PAIRS, SMALL, evaluate

from mmkd_logit.losses import ScaledKLDivLoss

# What the compilers of torch 2.5, and of torch on Python 3.13.0, warn of.
compiles = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",
    "ignore:Guards may run slower:RuntimeWarning",
)


# Reductions and shapes


@pytest.mark.parametrize(("tau", "scale"), [(0, SMALL), (4, "tau^2"), (math.inf, "tau^2")])
def test_reductions_of_dense_logits(tau, scale):
    u, v = (z.reshape(3, 7, 2, 4) for z in reference.make_logits(3, 56))
    rows = [np.moveaxis(z, 1, -1).reshape(-1, 7) for z in (u, v)]
    losses, slope = reference.kl(*rows, tau, scale)
    losses, slope = losses.reshape(3, 2, 4), np.moveaxis(slope.reshape(3, 2, 4, 7), -1, 1)
    wanted = {"none": losses, "sum": losses.sum(), "mean": losses.mean()}
    wanted["batchmean"] = losses.sum() / 3
    parts = {"none": 1, "sum": 1, "mean": 24, "batchmean": 3}
    for (reduction, want), dim in itertools.product(wanted.items(), (1, -3)):
        value, gradient = evaluate(ScaledKLDivLoss(tau, scale, reduction, dim), u, v)
        assert value.shape == want.shape
        np.testing.assert_allclose(value, want, 1e-6)
        np.testing.assert_allclose(gradient, slope / parts[reduction], 1e-5, 1e-8)


def test_logits_that_are_not_contiguous():
    u, v = (torch.tensor(z) for z in reference.make_logits(10, 6))
    want = ScaledKLDivLoss(4)(u[::2, 1:4], v[::2, 1:4])
    got = ScaledKLDivLoss(4, class_dim=1)(u[::2, 1:4].contiguous(), v[::2, 1:4].contiguous())
    assert want == got


# Gradient's receivers


def test_gradient_is_multiplied_by_what_follows():
    u, v = (torch.tensor(z) for z in reference.make_logits(6, 5))
    u.requires_grad_()
    (once,) = torch.autograd.grad(ScaledKLDivLoss(4, reduction="sum")(u, v), u)
    losses = ScaledKLDivLoss(4, reduction="none")(u, v)
    weight = torch.arange(6.0)
    for _ in range(2):
        (twice,) = torch.autograd.grad((losses * weight).sum(), u, retain_graph=True)
        torch.testing.assert_close(twice, once * weight[:, None])


def test_value_is_the_same_without_gradient():
    for tau, scale in PAIRS:
        u, v = (torch.tensor(z) for z in reference.make_logits(3, 4))
        loss = ScaledKLDivLoss(tau, scale)
        with torch.no_grad():
            want = loss(u, v)
        assert loss(u.requires_grad_(), v) == want
        assert not want.requires_grad


def test_the_gradient_can_be_differentiated_again():
    """By autograd, whose first derivative keeps its bits, and by torch.func."""
    u, v = (torch.tensor(z) for z in reference.make_logits(3, 4, dtype=np.float64))
    u.requires_grad_()
    for tau, scale in PAIRS:
        for reduction in ("mean", "none"):
            loss = ScaledKLDivLoss(tau, scale, reduction)
            assert torch.autograd.gradgradcheck(lambda x, loss=loss: loss(x, v), u)
        loss = ScaledKLDivLoss(tau, scale)
        (once,) = torch.autograd.grad(loss(u, v), u)
        (again,) = torch.autograd.grad(loss(u, v), u, create_graph=True)
        assert torch.equal(once, again)
        assert torch.equal(once, torch.func.grad(loss)(u.detach(), v))
    hessian = torch.func.jacrev(torch.func.grad(ScaledKLDivLoss(2)))(u.detach()[:1], v[:1])[0, :, 0]
    p = (u.detach()[0] / 2).softmax(-1)
    torch.testing.assert_close(hessian, p.diag() - p[:, None] * p)  # tau^2 / tau^2 at N = 1


# Half precision, autocast, compiler


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tau", "scale"), PAIRS)
def test_half_precision_is_raised_first(tau, scale, dtype):
    u, v = (torch.tensor(z).to(dtype) for z in reference.make_logits(4, 9, 3))
    loss = ScaledKLDivLoss(tau, scale)
    half, single = u.clone().requires_grad_(), u.float().requires_grad_()
    value, want = loss(half, v), loss(single, v.float())
    value.backward()
    want.backward()
    assert value.dtype == torch.float32
    assert value == want
    assert half.grad.dtype == dtype
    assert torch.equal(half.grad, single.grad.to(dtype))


@compiles
@pytest.mark.parametrize(("tau", "scale"), [(0, SMALL), (4, "tau^2"), (math.inf, "tau^2")])
def test_compiles_as_one_graph(tau, scale):
    torch.compiler.reset()
    u, v = (torch.tensor(z) for z in reference.make_logits(4, 9))
    for reduction in ("mean", "none"):
        loss = ScaledKLDivLoss(tau, scale, reduction)
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        student, other = u.clone().requires_grad_(), u.clone().requires_grad_()
        value, want = compiled(student, v), loss(other, v)
        value.sum().backward()
        want.sum().backward()
        torch.testing.assert_close(value, want, rtol=2e-7, atol=0)
        torch.testing.assert_close(student.grad, other.grad, rtol=1e-6, atol=1e-8)


@compiles
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_inductor():
    torch.compiler.reset()
    u, v = (torch.tensor(z) for z in reference.make_logits(16, 50, 10, 1e-3))
    loss = ScaledKLDivLoss(3)
    student, other = u.clone().requires_grad_(), u.clone().requires_grad_()
    value, want = torch.compile(loss, fullgraph=True)(student, v), loss(other, v)
    value.backward()
    want.backward()
    torch.testing.assert_close(value, want, rtol=2e-7, atol=0)
    torch.testing.assert_close(student.grad, other.grad, rtol=1e-6, atol=1e-9)


# Names and errors


@pytest.mark.parametrize("tau", [math.inf, "inf", "infinity", float("inf"), np.float32("inf")])
def test_infinite_tau_by_any_name(tau):
    assert ScaledKLDivLoss(tau).tau == math.inf


def test_other_taus():
    assert ScaledKLDivLoss("4").tau == ScaledKLDivLoss(np.float64(4)).tau == 4.0
    assert ScaledKLDivLoss("-0.0", SMALL).tau == 0


@pytest.mark.parametrize(
    "tau", [math.nan, "nan", -1, "-inf", True, "warm", "", None, [4], 10**400, b"4", 1j]
)
def test_bad_tau(tau):
    with pytest.raises(ValueError, match="from 0 to infinity") as error:
        ScaledKLDivLoss(tau)
    assert f"tau={tau!r}" in str(error.value)


@pytest.mark.parametrize(
    ("tau", "scale", "why"),
    [(0, "tau^2", "is 0"), (0, "none", "is infinite"), ("inf", "none", "is 0")],
)
def test_pairs_without_a_limit(tau, scale, why):
    with pytest.raises(ValueError, match=why) as error:
        ScaledKLDivLoss(tau, scale)
    assert f"tau={float(tau)}" in str(error.value)
    assert f"scale='{scale}'" in str(error.value)


@pytest.mark.parametrize("scale", ["tau", "tau2", None, 2])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match=r"'max\(tau, tau\^2\)'") as error:
        ScaledKLDivLoss(4, scale)
    assert repr(scale) in str(error.value)
