"""The loop that ours is held against must train the same thing."""

import ast

import numpy as np
import pytest
import torch
from commands import PROJECT

from mmkd_logit.lab.benchmark.bare_loop import ArrayImages, BareLoop, usual_transform
from mmkd_logit.lab.benchmark.sessions import _loss


def test_it_imports_nothing_of_ours_and_no_openmmlab():
    tree = ast.parse((PROJECT / "mmkd_logit/lab/benchmark/bare_loop.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import is one of ours"
            imported.add(node.module.partition(".")[0])
    allowed = {"PIL", "collections", "contextlib", "itertools", "numpy", "torch", "torchvision"}
    assert imported <= allowed | {"typing"}
    assert {"torch", "torchvision"} <= imported


def images(n=96, classes=3):
    """Grey images whose brightness tells their class."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    data = rng.integers(60, size=(n, 8, 8, 1)) + 80 * labels.reshape(-1, 1, 1, 1)
    return data.astype(np.uint8), labels.tolist()


def network(width):
    layers = [torch.nn.Conv2d(1, width, 3), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(36 * width, 3))


def loop(**settings):
    torch.manual_seed(0)
    student, teacher = (network(width) for width in (8, 16))
    data = ArrayImages(*images(), usual_transform([0.4], [0.3], 8, 1, 0.5))
    settings = dict(batch_size=32, lr=0.05, **settings)
    return BareLoop(student, teacher, data, **settings)


def losses(bare, steps=60):
    batches = bare.batches()
    return [bare.step(*next(batches)) for _ in range(steps)]


@pytest.mark.parametrize(
    "settings",
    [
        dict(loss="mse"),
        dict(loss="kl", tau=3.0),
        dict(loss="kl", alpha=0.0),
        dict(loss="mse", alpha=0.5, fast=True),
        dict(fixed_batch=True),
        dict(fast=True, compile="eager"),
    ],
    ids=lambda settings: "-".join(f"{key}{value}" for key, value in settings.items()),
)
def test_it_learns_and_leaves_the_teacher_alone(settings):
    bare = loop(**settings)
    before = {name: value.clone() for name, value in bare.teacher.state_dict().items()}
    found = losses(bare)
    assert np.mean(found[-5:]) < 0.75 * np.mean(found[:5])
    for name, value in bare.teacher.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in bare.teacher.parameters())


def test_control_without_steps_nothing_is_learnt():
    bare = loop()
    bare.optimizer.step = lambda: None
    found = losses(bare)
    assert np.mean(found[-5:]) > 0.9 * np.mean(found[:5])


def test_the_loss_is_the_formula():
    bare = loop(alpha=0.75, loss="kl", tau=2.0, fixed_batch=True)
    x, y = next(bare.batches())
    with torch.no_grad():
        u, v = bare.student(x).double(), bare.teacher(x).double()
        log_p, q = torch.log_softmax(u / 2, 1), torch.softmax(v / 2, 1)
        kl = 4 * (q * (q.log() - log_p)).sum(1).mean()
        ce = -torch.log_softmax(u, 1)[torch.arange(len(y)), y].mean()
    assert bare.step(x, y) == pytest.approx(float(0.75 * kl + 0.25 * ce), rel=1e-4)


def test_a_fixed_batch_goes_through_the_teacher_once():
    calls = []
    for fixed, passes in ((True, 1), (False, 3)):
        bare = loop(fixed_batch=fixed)
        calls.clear()
        bare.teacher.register_forward_hook(lambda *_: calls.append(1))
        losses(bare, steps=3)
        assert len(calls) == passes


def test_a_fixed_batch_is_one_batch():
    batches = loop(fixed_batch=True).batches()
    assert next(batches)[0] is next(batches)[0]
    batches = loop().batches()
    assert not torch.equal(next(batches)[0], next(batches)[0])


@pytest.mark.parametrize(("tau", "expected"), [("inf", ("mse", 1.0)), (4, ("kl", 4.0))])
def test_the_temperature_of_a_config(tau, expected):
    found = _loss(dict(type="mmkd_logit.ScaledKLDivLoss", tau=tau))
    assert (found["loss"], found["tau"]) == expected
