import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from mmkd_logit.lab.report import style
from mmkd_logit.lab.report.figures.losses import (
    _TAUS,
    draw,
    kl_of_tau,
    label_matching,
    sample_logits,
    sweep,
)
from mmkd_logit.losses import LogitMSELoss, ScaledKLDivLoss

TAUS = (0.01, 0.1, 0.5, 1, 3, 5, 20, 100, 1e4, math.inf)


def trained_by(student, teacher, **settings):
    """Value and gradient of the loss that trains, for each sample."""
    u = torch.tensor(student, requires_grad=True)
    value = ScaledKLDivLoss(reduction="none", **settings)(u, torch.tensor(teacher))
    value.sum().backward()
    return value.detach().numpy(), u.grad.numpy()


def same(got, want):
    """Whether all samples together are the same in six digits."""
    return np.linalg.norm(got - want) < 1e-6 * np.linalg.norm(want)


def logits(classes, scale, distance):
    rng = np.random.default_rng(classes)
    teacher = scale * rng.standard_normal((8, classes))
    return teacher + distance * rng.standard_normal((8, classes)), teacher


@pytest.mark.parametrize("tau", TAUS)
def test_is_the_loss_that_trains(tau):
    teacher, students = sample_logits()
    for student in students.values():
        with np.errstate(all="raise", under="ignore"):
            value, gradient = kl_of_tau(student, teacher, tau)
        want = trained_by(student, teacher, tau=tau)
        assert same(value, want[0])
        assert same(gradient, want[1])


def test_label_matching_is_the_limit_at_zero():
    student, teacher = logits(10, 3, 5)
    value, gradient = label_matching(student, teacher)
    want = trained_by(student, teacher, tau=0, scale="max(tau, tau^2)")
    assert value == pytest.approx(want[0])
    assert gradient == pytest.approx(want[1])
    near = kl_of_tau(student, teacher, 1e-3)
    assert near[0] / 1e-3 == pytest.approx(value, abs=1e-2)
    assert near[1] / 1e-3 == pytest.approx(gradient, abs=1e-6)


def at(values, tau):
    return values[tau == _TAUS][0]


def test_sweep_holds_means_and_distances():
    teacher, students = sample_logits()
    student = students["trained"]
    one = sweep(student, teacher)
    value, gradient = trained_by(student, teacher, tau=20)
    end, turn = trained_by(student, teacher, tau="inf")
    assert at(one["value"].at, 20) == pytest.approx(value.mean())
    assert at(one["gradient"].at, 20) == pytest.approx(np.linalg.norm(gradient, axis=1).mean())
    assert at(one["value"].off, 20) == pytest.approx(np.abs(value - end).mean() / end.mean())
    off = np.linalg.norm(gradient - turn) / np.linalg.norm(turn)
    assert at(one["gradient"].off, 20) == pytest.approx(off)
    assert one["value"].off[-1] == one["gradient"].off[-1] == 0
    u = torch.tensor(student, requires_grad=True)
    mse = LogitMSELoss()(u, torch.tensor(teacher))
    (len(u) * mse).backward()
    norm = float(u.grad.norm(dim=1).mean())
    assert (one["value"].mse, one["gradient"].mse) == pytest.approx((mse.item(), norm))


def test_distance_from_infinity_falls_as_one_over_tau():
    teacher, students = sample_logits()
    for student in students.values():
        for found in sweep(student, teacher).values():
            assert at(found.off, 100) / at(found.off, 1000) == pytest.approx(10, rel=0.1)
            assert at(found.off, 1000) / at(found.off, 10000) == pytest.approx(10, rel=0.01)


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
        for axes, what in ((value, "value"), (gradient, "gradient")):
            line = max(
                (line for line in axes.lines if to_hex(line.get_color()) == ink),
                key=lambda line: len(line.get_xdata()),
            )
            assert list(line.get_xdata()) == list(_TAUS[:-1])
            assert list(line.get_ydata()) == list(one[what].at[:-1])
            found = drawing.numbers[name][what]["at"]["20"]
            assert found["mean"] == at(one[what].at, 20)
            assert f"{what}, {name}: {100 * found['off']:.2g} %" in off.texts[0].get_text()


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
