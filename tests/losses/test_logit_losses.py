"""What all losses between two sets of logits have in common."""

import copy

import numpy as np
import pytest
import torch
from examples import losses_between_logits, needed_by
from losses import reference
from mmengine.config import Config

import mmkd_logit.losses as ours  # the mutants replace it
from mmkd_logit.losses import LogitMSELoss, ScaledKLDivLoss
from mmkd_logit.losses.base import RECIPE, describe_loss
from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import arguments_of

REGISTERED = losses_between_logits()


def takes(argument):
    """The losses that have an argument."""
    return [name for name, cls in REGISTERED.items() if argument in arguments_of(cls)[0]]


DENSE = takes("class_dim")
FLAT = ("DKDLoss", "DISTLoss")  # of logits with two dimensions only


def build(name, **settings):
    settings = {**needed_by(REGISTERED[name]), **settings}
    if "loss" in settings:
        settings["loss"] = ours.ScaledKLDivLoss(2)
    return getattr(ours, name)(**settings)


def labels_for(loss, count=6):
    return [torch.arange(count) % 3] if loss.needs_labels else []


def logits(dtype=np.float32, scale=3.0, distance=1.0):
    return [torch.tensor(z) for z in reference.make_logits(6, 9, scale, distance, dtype=dtype)]


# Values and gradients


@pytest.mark.parametrize("name", REGISTERED)
def test_teacher_receives_no_gradient(name):
    loss = build(name)
    u, v = (z.requires_grad_() for z in logits(np.float64))
    loss(u, v, *labels_for(loss)).backward()
    assert v.grad is None
    assert u.grad.abs().sum() > 0
    assert not loss(u.detach(), v, *labels_for(loss)).requires_grad


@pytest.mark.parametrize("name", REGISTERED)
def test_zero_where_equal(name):
    loss = build(name, **({"eps": 0} if name == "DISTLoss" else {}))
    _, v = logits(np.float64)
    u = v.clone().requires_grad_()
    value = loss(u, v, *labels_for(loss))
    value.backward()
    assert value == 0
    assert u.grad.abs().max() < 1e-14
    u, v = logits(np.float64)
    assert loss(u, v, *labels_for(loss)) > 0


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_first(name, dtype):
    """300 squared is more than float16 holds; and autocast changes nothing."""
    loss = build(name)
    u, v = (z.to(dtype) for z in logits(scale=30, distance=300 if name == "LogitMSELoss" else 30))
    half, double = u.clone().requires_grad_(), u.double().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, v, *labels_for(loss))
    want = loss(double, v.double(), *labels_for(loss))
    value.backward()
    want.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value.double(), want, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(half.grad, double.grad.to(dtype), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", REGISTERED)
def test_a_student_under_autocast_and_stored_logits(name):
    """bfloat16 against float32, which keeps its digits; float64 wins over both."""
    loss = build(name)
    u, v = logits()
    half = u.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(half, v, *labels_for(loss))
    value.backward()
    assert half.grad.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    assert value == loss(half.float(), v, *labels_for(loss))
    both = loss(half, v.double(), *labels_for(loss))
    assert both == loss(half.double(), v.double(), *labels_for(loss))
    student = u.double().requires_grad_()
    (once,) = torch.autograd.grad(loss(student, v, *labels_for(loss)), student)
    by_function = torch.func.grad(lambda x: loss(x, v, *labels_for(loss)))(u.double())
    torch.testing.assert_close(by_function, once, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", REGISTERED)
def test_shift_invariance_is_as_the_loss_says(name):
    loss = build(name).double()
    u, v = logits(np.float64)
    labels = labels_for(loss)
    before, after = loss(u, v, *labels), loss(u + torch.arange(6.0)[:, None], v, *labels)
    assert torch.isclose(before, after, rtol=1e-9).item() == type(loss).shift_invariant


# What a loss says of itself


def test_all_losses_of_logits_are_here():
    module = {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith("mmkd_logit.losses.")
    }
    assert module - {"TorchdistillLoss"} == set(REGISTERED)  # that one compares features


def test_a_loss_names_itself():
    labels = []
    for name in REGISTERED:
        spec = dict(type=f"mmkd_logit.{name}", **needed_by(REGISTERED[name]))
        loss = MODELS.build(copy.deepcopy(spec))
        said = describe_loss(loss)
        labels.append(said["label"])
        assert said["label"], f"{name} needs label = 'ITS NAME IN LEGENDS'"
        assert said == describe_loss(spec)
        assert isinstance(said["shows_tau"], bool)
        assert not loss.state_dict()
    assert len(set(labels)) == len(labels)
    assert repr(LogitMSELoss()) == "LogitMSELoss(reduction='mean', class_dim=-1)"
    want = "ScaledKLDivLoss(tau=4.0, scale='tau^2', reduction='sum', class_dim=1)"
    assert repr(ScaledKLDivLoss(4, reduction="sum", class_dim=1)) == want


def test_a_loss_of_another_package_is_called_by_its_class():
    class Their(torch.nn.Module):
        pass

    expected = dict(label="Their", shows_tau=False, shift_invariant=None)
    assert describe_loss(Their()) == describe_loss(dict(type=Their)) == expected


# Wrong input


def error_of(loss, *args, **kwargs):
    with pytest.raises(ValueError, match=type(loss).__name__) as error:
        loss(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("student", "teacher", "class_dim", "why"),
    [
        ((4, 5), (4, 6), -1, "differ in shape"),
        ((4, 5), (4, 1), -1, "differ in shape"),
        ((4, 5), (5,), -1, "differ in shape"),
        ((4, 5, 2, 2), (4, 5), 1, "differ in shape"),
        ((5,), (5,), -1, "a batch and a class dimension"),
        ((), (), -1, "a batch and a class dimension"),
        ((4, 1), (4, 1), -1, "at least 2 classes"),
        ((4, 0), (4, 0), -1, "at least 2 classes"),
        ((4, 5, 1), (4, 5, 1), 2, "at least 2 classes"),
        ((0, 5), (0, 5), -1, "empty"),
        ((4, 5, 0), (4, 5, 0), 1, "empty"),
        ((4, 5), (4, 5), 2, "out of range"),
        ((4, 5), (4, 5), -2, "meets the batch"),
        ((4, 5), (4, 5), -3, "out of range"),
    ],
)
def test_shapes(name, student, teacher, class_dim, why):
    loss = build(name, class_dim=class_dim)
    text = error_of(loss, torch.zeros(student), torch.zeros(teacher))
    assert why in text
    assert "Allowed: " in text
    assert f"student_logits {student} torch.float32" in text
    assert f"teacher_logits {teacher} torch.float32, class_dim={class_dim}" in text


@pytest.mark.parametrize("name", FLAT)
def test_two_dimensions_only(name):
    loss = build(name)
    text = error_of(loss, torch.zeros(4, 5, 2), torch.zeros(4, 5, 2), *labels_for(loss, 4))
    assert "more dimensions than batch and class. Given: student_logits (4, 5, 2)" in text
    assert "Allowed: floating-point numbers of one shape, (N, K), N > 0 and K >= " in text


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.parametrize(
    ("student", "teacher", "why"),
    [
        (torch.int64, torch.float32, "floating-point"),
        (torch.float32, torch.complex64, "floating-point"),
        (torch.complex64, torch.complex64, "floating-point"),
    ],
)
def test_dtypes(name, student, teacher, why):
    loss, zeros = build(name), torch.zeros(4, 5)
    text = error_of(loss, zeros.to(student), zeros.to(teacher), *labels_for(loss, 4))
    assert why in text
    assert f"(4, 5) {student}" in text
    assert f"(4, 5) {teacher}" in text


@pytest.mark.parametrize("name", REGISTERED)
def test_called_as_the_loss_of_a_head(name):
    """With labels in the place of the teacher's logits, or with a head's keyword arguments."""
    loss, zeros = build(name), torch.zeros(4, 5)
    text = error_of(loss, (zeros,), zeros, *labels_for(loss, 4))
    assert "got tuple as student_logits and Tensor as teacher_logits" in text
    for classes in (torch.zeros(4).long(), torch.zeros(4, 5).int()):
        text = error_of(loss, zeros, classes)
        assert f"{tuple(classes.shape)} {classes.dtype}" in text
        assert "mmkd_logit.LogitDistiller" in text
    if name not in takes("loss"):  # which leave them to their base loss
        text = error_of(loss, zeros, zeros, avg_factor=4, weight=None)
        assert "'avg_factor', 'weight'" in text
        assert RECIPE in text


def test_recipe_is_a_config(tmp_path):
    (tmp_path / "base.py").write_text("model = dict(type='ImageClassifier')\n")
    text = RECIPE.replace("...", "'file'")
    (tmp_path / "kd.py").write_text(f"_base_ = 'base.py'\n{text}\n")
    model = Config.fromfile(tmp_path / "kd.py").model
    assert model.type == "mmkd_logit.LogitDistiller"
    assert model.student == {"type": "ImageClassifier"}


@pytest.mark.parametrize("name", takes("reduction"))
@pytest.mark.parametrize("reduction", ["max", None, "", 1, ["mean"]])
def test_reduction(name, reduction):
    with pytest.raises(ValueError, match="'mean', 'batchmean', 'sum', 'none'") as error:
        build(name, reduction=reduction)
    assert "reduction must be one of" in str(error.value)
    assert f"got {reduction!r}" in str(error.value)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("class_dim", [0, False, True, 1.0, None, "1"])
def test_class_dim(name, class_dim):
    with pytest.raises(ValueError, match="batch dimension") as error:
        build(name, class_dim=class_dim)
    assert f"class_dim={class_dim!r}" in str(error.value)


WRONG = (-1, float("nan"), float("inf"), "1", None, True)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        *(("DISTLoss", argument, x) for argument in ("beta", "gamma", "tau", "eps") for x in WRONG),
        *(("DKDLoss", argument, x) for argument in ("alpha", "beta", "tau") for x in WRONG),
        ("DISTLoss", "tau", 0),
        ("DKDLoss", "tau", 0),
    ],
)
def test_weights_and_temperatures(name, argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value!r} must be a finite number"):
        build(name, **{argument: value})
