"""The loop that ours is held against must train the same thing."""

import ast

import numpy as np
import pytest
import torch
from commands import PROJECT
from networks import build, wrn

from mmkd_logit.lab.benchmark.bare_loop import ArrayImages, BareLoop, WideResNet, usual_transform


def ours(depth, widen_factor, num_classes=100, **backbone):
    cfg = wrn(depth, widen_factor, num_classes, base_channels=16)
    cfg["backbone"].update(backbone)
    return build(cfg).eval()


@pytest.mark.parametrize(
    ("depth", "widen_factor", "parameters"),
    [(16, 2, 703_284), (28, 2, 1_479_220), (28, 4, 5_872_180)],
)
def test_network_is_ours(depth, widen_factor, parameters):
    net, mine = WideResNet(depth, widen_factor, 100).eval(), ours(depth, widen_factor)
    assert sum(p.numel() for p in net.parameters()) == parameters
    copy_by_order(net, mine)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x), mine(x, mode="tensor"), rtol=1e-4, atol=1e-5)
        mine.backbone.stem.weight[0] += 0.1
        assert not torch.allclose(net(x), mine(x, mode="tensor"), rtol=1e-3, atol=1e-4)


def copy_by_order(net, mine):
    """Both make their layers in the order of the forward pass, but for a block's shortcut."""
    theirs = {tuple(name.split(".")): value for name, value in mine.state_dict().items()}
    blocks = [(group, block) for group in range(3) for block in range(len(mine.backbone.groups[0]))]
    names = dict(bn1="norm1", conv1="conv1", bn2="norm2", conv2="conv2", convdim="shortcut")
    state = {}
    for name in net.state_dict():
        head, *rest = name.split(".")
        if head == "layers":
            group, block = blocks[int(rest[0])]
            path = ("backbone", "groups", str(group), str(block), names[rest[1]], *rest[2:])
        else:
            outer = dict(conv1="backbone.stem", bn="backbone.norm", fc="head.fc")[head]
            path = (*outer.split("."), *rest)
        state[name] = theirs.pop(path)
    assert not theirs
    net.load_state_dict(state)


def test_other_sizes_are_ours_too():
    settings = dict(in_channels=1, strides=(1, 1, 2), base_channels=4, stem_channels=4)
    net = WideResNet(10, 1, 10, **settings).eval()
    mine = ours(10, 1, 10, **settings)
    mine.head.fc = torch.nn.Linear(16, 10)
    copy_by_order(net, mine)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(net(x), mine(x, mode="tensor"), rtol=1e-4, atol=1e-5)


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


def loop(**settings):
    torch.manual_seed(0)
    small = dict(in_channels=1, strides=(1, 1, 2), base_channels=4)
    data = ArrayImages(*images(), usual_transform([0.4], [0.3], 8, 1, 0.5))
    settings = dict(batch_size=32, lr=0.05, **settings)
    return BareLoop(WideResNet(10, 1, 3, **small), WideResNet(10, 2, 3, **small), data, **settings)


def losses(bare, steps=60):
    batches = bare.batches()
    return [bare.step(*next(batches)) for _ in range(steps)]


@pytest.mark.parametrize(
    "settings",
    [
        dict(loss="mse"),
        dict(loss="kl", tau=3.0),
        dict(loss="kl", alpha=0.0),
        dict(loss="mse", alpha=0.5, bf16=True, channels_last=True),
        dict(fixed_batch=True),
        dict(fused=True),
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


def test_a_fixed_batch_is_one_batch():
    batches = loop(fixed_batch=True).batches()
    assert next(batches)[0] is next(batches)[0]
    batches = loop().batches()
    assert not torch.equal(next(batches)[0], next(batches)[0])
