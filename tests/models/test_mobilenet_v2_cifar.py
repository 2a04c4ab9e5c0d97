"""MobileNetV2CIFAR against torchvision's network with the same strides."""

import pytest
import torch
import torchvision
from mmpretrain.models.backbones import MobileNetV2

from mmkd_logit.models import MobileNetV2CIFAR


def torchvisions():
    rows = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2]]
    rows += [[6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    model = torchvision.models.mobilenet_v2(weights=None, inverted_residual_setting=rows)
    model.features[0][0].stride = (1, 1)
    return model.features.eval()


def evaluating(model):
    model.eval()  # gives None: mmpretrain's class forgets to return itself
    return model


def test_is_torchvisions_network_with_the_strides_for_small_images():
    theirs, ours = torchvisions(), evaluating(MobileNetV2CIFAR())
    weights = list(theirs.state_dict().values())
    assert [x.shape for x in weights] == [x.shape for x in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), weights, strict=True)))
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        (features,) = ours(x)
        assert features.shape == (2, 1280, 4, 4)
        assert torch.equal(features, theirs(x))


def test_weights_and_names_are_mmpretrains():
    theirs, ours = MobileNetV2(), MobileNetV2CIFAR()
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert evaluating(ours)(x)[0].shape[-2:] == (4, 4)
    assert evaluating(theirs)(x)[0].shape[-2:] == (1, 1)  # the parent's strides are left alone


def test_options_are_the_parents():
    net = MobileNetV2CIFAR(widen_factor=0.5, out_indices=(0, 1, 7), frozen_stages=1)
    net.train()
    maps = net(torch.randn(2, 3, 32, 32))
    assert [tuple(x.shape[1:]) for x in maps] == [(8, 32, 32), (16, 32, 32), (1280, 4, 4)]
    assert not net.conv1.conv.weight.requires_grad
    with pytest.raises(ValueError, match="frozen_stages"):
        MobileNetV2CIFAR(frozen_stages=9)
