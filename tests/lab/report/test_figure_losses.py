import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from mmkd_logit.lab.report import style
from mmkd_logit.lab.report.figures.losses import (
    draw,
    kl_of_tau,
    label_matching,
    sample_logits,
    sweep,
)
from mmkd_logit.losses import LogitMSELoss, ScaledKLDivLoss

TAUS = (1e-5, 1e-3, 0.01, 0.1, 0.5, 1, 3, 5, 20, 100, 1e4, 1e6, 1e9, 1e12, math.inf)


def trained_by(student, teacher, **settings):
    """Value and gradient of the loss that trains, for each sample."""
    u = torch.tensor(student, requires_grad=True)
    value = ScaledKLDivLoss(reduction="none", **settings)(u, torch.tensor(teacher))
    value.sum().backward()
    return value.detach().numpy(), u.grad.numpy()


def same(got, want):
    """Whether each sample's value or gradient is the same in nine digits, or as good as 0."""
    got, want = (x.reshape(len(x), -1) for x in (got, want))
    sizes = np.maximum(np.linalg.norm(want, axis=1), 1e-100)
    return (np.linalg.norm(got - want, axis=1) / sizes).max() < 1e-8


def logits(classes, scale, distance):
    rng = np.random.default_rng(classes)
    teacher = scale * rng.standard_normal((8, classes))
    return teacher + distance * rng.standard_normal((8, classes)), teacher


@pytest.mark.parametrize("tau", TAUS)
def test_is_the_loss_that_trains(tau):
    for classes in (2, 10, 100):
        for scale, distance in ((0.1, 0.01), (3, 1), (3, 20), (30, 0.1), (30, 20)):
            student, teacher = logits(classes, scale, distance)
            with np.errstate(all="raise", under="ignore"):
                value, gradient = kl_of_tau(student, teacher, tau)
            want = trained_by(student, teacher, tau=tau)
            assert same(value, want[0]), (classes, scale, distance)
            assert same(gradient, want[1]), (classes, scale, distance)


def test_is_the_plain_formula_where_that_is_exact():
    student, teacher = logits(10, 3, 1)
    q, p = (np.exp(z / 2) / np.exp(z / 2).sum(1, keepdims=True) for z in (teacher, student))
    value, gradient = kl_of_tau(student, teacher, 2.0)
    assert value == pytest.approx(4 * (q * np.log(q / p)).sum(1))
    assert gradient == pytest.approx(2 * (p - q))


def test_label_matching_is_the_limit_at_zero():
    student, teacher = logits(10, 3, 5)
    value, gradient = label_matching(student, teacher)
    want = trained_by(student, teacher, tau=0, scale="max(tau, tau^2)")
    assert value == pytest.approx(want[0])
    assert gradient == pytest.approx(want[1])
    near = kl_of_tau(student, teacher, 1e-3)
    assert near[0] / 1e-3 == pytest.approx(value, abs=1e-2)
    assert near[1] / 1e-3 == pytest.approx(gradient, abs=1e-6)


def test_sweep_holds_means_and_distances():
    teacher, students = sample_logits()
    student = students["trained"]
    one = sweep(student, teacher)
    value, gradient = trained_by(student, teacher, tau=20)
    end, turn = trained_by(student, teacher, tau="inf")
    (place,) = np.flatnonzero(one.taus == 20)
    assert one.value[place] == pytest.approx(value.mean())
    assert one.gradient[place] == pytest.approx(np.linalg.norm(gradient, axis=1).mean())
    assert one.value_off[place] == pytest.approx(np.abs(value - end).mean() / end.mean())
    off = np.linalg.norm(gradient - turn) / np.linalg.norm(turn)
    assert one.gradient_off[place] == pytest.approx(off)
    assert one.value_off[-1] == one.gradient_off[-1] == 0
    u = torch.tensor(student, requires_grad=True)
    mse = LogitMSELoss()(u, torch.tensor(teacher))
    (len(u) * mse).backward()
    norm = float(u.grad.norm(dim=1).mean())
    assert one.mse == pytest.approx((mse.item(), norm))


def test_distance_from_infinity_falls_as_one_over_tau():
    teacher, students = sample_logits()
    for student in students.values():
        one = sweep(student, teacher)
        for off in (one.value_off, one.gradient_off):
            at = {tau: off[one.taus == tau][0] for tau in (100, 1000, 10000)}
            assert at[100] / at[1000] == pytest.approx(10, rel=0.1)
            assert at[1000] / at[10000] == pytest.approx(10, rel=0.01)


@pytest.fixture(scope="module")
def drawing():
    (found,) = draw()
    return found


def test_draws_what_it_computed(drawing):
    teacher, students = sample_logits()
    value, gradient, off = drawing.figure.axes
    inks = ("#1c1c1c", "#8a6a45")
    for ink, (name, student) in zip(inks, students.items(), strict=True):
        one = sweep(student, teacher)
        for axes, values in ((value, one.value), (gradient, one.gradient)):
            line = max(
                (line for line in axes.lines if to_hex(line.get_color()) == ink),
                key=lambda line: len(line.get_xdata()),
            )
            assert list(line.get_xdata()) == list(one.taus[:-1])
            assert list(line.get_ydata()) == list(values[:-1])
        (at,) = [each for each in drawing.numbers[name]["at"] if each["tau"] == 20]
        assert at["value"] == one.value[one.taus == 20][0]
        told = off.texts[0].get_text()
        assert f"value, {name}: {100 * at['value_off']:.2g} %" in told
        assert f"gradient, {name}: {100 * at['gradient_off']:.2g} %" in told
        assert drawing.numbers[name]["at"][-1]["tau"] == "inf"


def test_temperatures_are_marked_as_their_methods(drawing):
    axes = drawing.figure.axes[0]
    for tau in (1, 3, 5, 20, "inf"):
        look = style.look_of(dict(kind="kl", tau=tau))
        marks = [line for line in axes.lines if line.get_marker() == look.marker]
        assert any(to_hex(line.get_markerfacecolor()) == look.color for line in marks)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert (labels[0], labels[-2:]) == ("0", ["∞", "MSE"])


def test_the_same_logits_every_time(drawing):
    first, again = sample_logits(), sample_logits()
    assert np.array_equal(first[0], again[0])
    assert draw()[0].numbers == drawing.numbers
    assert "seed 0" in drawing.caption
