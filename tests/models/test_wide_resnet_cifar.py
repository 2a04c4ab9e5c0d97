import math

import pytest
import torch
from torch import nn

from mmkd_logit.models import WideResNetCIFAR


@pytest.mark.parametrize(
    ("depth", "widen_factor", "parameters"),
    [
        (16, 2, 703_284),
        (16, 4, 2_772_020),
        (16, 6, 6_206_772),
        (28, 2, 1_479_220),
        (28, 4, 5_872_180),
        (40, 2, 2_255_156),
        (40, 6, 20_152_116),
    ],
)
def test_parameters_at_100_classes_are_the_papers(depth, widen_factor, parameters):
    net = WideResNetCIFAR(depth, widen_factor)
    classifier = net.feat_dim * 100 + 100
    assert sum(p.numel() for p in net.parameters()) + classifier == parameters


def test_forward_is_the_textbook_preactivation_network():
    """Against the same formula written with functions, on the network's own weights."""
    torch.manual_seed(0)
    net = WideResNetCIFAR(16, 2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    net.eval()

    def bn_relu(x, bn):
        scale = (bn.weight / (bn.running_var + bn.eps).sqrt())[:, None, None]
        return ((x - bn.running_mean[:, None, None]) * scale + bn.bias[:, None, None]).clamp(min=0)

    def conv(x, module, stride, padding):
        return torch.nn.functional.conv2d(x, module.weight, None, stride, padding)

    x = torch.randn(2, 3, 32, 32)
    out = conv(x, net.stem, 1, 1)
    for group, stride in zip(net.groups, (1, 2, 2), strict=True):
        for i, block in enumerate(group):
            stride_here = stride if i == 0 else 1
            activated = bn_relu(out, block.norm1)
            branch = conv(activated, block.conv1, stride_here, 1)
            branch = conv(bn_relu(branch, block.norm2), block.conv2, 1, 1)
            if i == 0:
                out = branch + conv(activated, block.shortcut, stride_here, 0)
            else:
                assert block.shortcut is None
                out = branch + out
    expected = bn_relu(out, net.norm)
    torch.testing.assert_close(net(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_initialisation_is_he_fan_out():
    torch.manual_seed(0)
    net = WideResNetCIFAR(16, 4)
    net.init_weights()
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = module.kernel_size[0] ** 2 * module.out_channels
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


@pytest.mark.parametrize(
    ("kwargs", "size", "shapes"),
    [
        (dict(), 32, [(32, 32), (16, 16), (8, 8)]),
        (dict(in_channels=1), 28, [(28, 28), (14, 14), (7, 7)]),
        (dict(in_channels=1, strides=(1, 1, 2)), 8, [(8, 8), (8, 8), (4, 4)]),
    ],
)
def test_sizes(kwargs, size, shapes):
    net = WideResNetCIFAR(10, 2, out_indices=(0, 1, 2), **kwargs).eval()
    outs = net(torch.rand(2, kwargs.get("in_channels", 3), size, size))
    assert [tuple(o.shape[-2:]) for o in outs] == shapes
    assert [o.shape[1] for o in outs] == [32, 64, 128]
    assert outs[-1].min() >= 0  # after the last ReLU; the others are raw sums
    assert outs[0].min() < 0


@pytest.mark.parametrize("stages", [-1, 0, 1, 2, 3])
def test_frozen_stages(stages):
    net = WideResNetCIFAR(10, 1, frozen_stages=stages)
    net.train()
    frozen = {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad}
    frozen |= {
        f"groups{i}"
        for i, group in enumerate(net.groups)
        if not any(p.requires_grad for p in group.parameters())
    }
    expected = {"stem"} if stages >= 0 else set()
    expected |= {f"groups{i}" for i in range(max(stages, 0))}
    if stages > 0:
        expected.add("groups")
    if stages == 3:
        expected.add("norm")
    assert frozen == expected
    for i, group in enumerate(net.groups):
        assert group[0].norm1.training == (i >= stages)


def test_norm_eval_stops_statistics_only():
    net = WideResNetCIFAR(10, 1, norm_eval=True, drop_rate=0.3)
    net.train()
    before = net.norm.running_mean.clone()
    net(torch.randn(4, 3, 8, 8))
    assert torch.equal(net.norm.running_mean, before)
    assert net.groups[0][0].dropout.training


def test_dropout_acts_in_training_only():
    net = WideResNetCIFAR(10, 1, drop_rate=0.5)
    x = torch.randn(2, 3, 8, 8)
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])
    net.train()
    assert not torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(depth=18), "6n + 4"),
        (dict(depth=4), "6n + 4"),
        (dict(widen_factor=0), "widen_factor"),
        (dict(strides=(1, 2)), "strides"),
        (dict(strides=(0, 2, 2)), "strides"),
        (dict(drop_rate=1.0), "drop_rate"),
        (dict(out_indices=()), "out_indices"),
        (dict(out_indices=(3,)), "out_indices"),
        (dict(frozen_stages=4), "frozen_stages"),
    ],
)
def test_wrong_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        WideResNetCIFAR(**{"depth": 10, "widen_factor": 1, **kwargs})


def test_sync_norm_can_be_chosen():
    net = WideResNetCIFAR(10, 1, norm_cfg=dict(type="SyncBN"))
    assert isinstance(net.norm, nn.SyncBatchNorm)
