"""torchvision's weights in mmpretrain's networks."""

import pytest
import torch
import torchvision
from networks import wrn

from mmkd_logit.checkpoint import with_mmpretrain_names
from mmkd_logit.models import FrozenTeacher


def resnet(depth, type="mmpretrain.ResNet", num_classes=7, **kwargs):
    return dict(
        type="mmpretrain.ImageClassifier",
        backbone=dict(type=type, depth=depth, **kwargs),
        neck=dict(type="mmpretrain.GlobalAveragePooling"),
        head=dict(
            type="mmpretrain.LinearClsHead",
            num_classes=num_classes,
            in_channels=512 if depth < 50 else 2048,
            loss=dict(type="mmpretrain.CrossEntropyLoss"),
        ),
    )


def torchvisions(name, num_classes=7):
    """One of torchvision's networks, with random statistics too."""
    model = torchvision.models.get_model(name, num_classes=num_classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    return model.eval()


def save(model, path):
    torch.save(model.state_dict(), path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet18", resnet(18)),
        ("resnet50", resnet(50)),
        ("resnext50_32x4d", resnet(50, "mmpretrain.ResNeXt", groups=32, width_per_group=4)),
    ],
)
def test_logits_are_torchvisions_bit_for_bit(name, config, tmp_path):
    theirs = torchvisions(name)
    path = save(theirs, tmp_path / "torchvision.pth")
    x = torch.randn(2, 3, 64, 64)
    teacher = FrozenTeacher(dict(config=config, checkpoint=path))
    with torch.no_grad():
        assert torch.equal(teacher(x), theirs(x))


def test_ddp_prefix_and_old_files_without_counters(tmp_path):
    theirs = torchvisions("resnet18")
    state = {
        f"module.{key}": value
        for key, value in theirs.state_dict().items()
        if "num_batches" not in key
    }
    torch.save(dict(state_dict=state), tmp_path / "old.pth")
    x = torch.randn(2, 3, 64, 64)
    teacher = FrozenTeacher(dict(config=resnet(18), checkpoint=str(tmp_path / "old.pth")))
    with torch.no_grad():
        assert torch.equal(teacher(x), theirs(x))


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("resnet34", resnet(18), r"unexpected keys.*'backbone\.layer1\.2\.conv1\.weight'"),
        ("resnet18", resnet(34), r"missing keys.*'backbone\.layer1\.2\.conv1\.weight'"),
        ("resnet18", resnet(18, num_classes=8), r"size mismatch .*'head\.fc\.weight"),
        ("resnet18", resnet(18, "mmpretrain.ResNet_CIFAR"), r"mismatch .*'backbone\.conv1\."),
        ("resnet18", resnet(18, "mmpretrain.ResNetV1d"), r"missing.*stem.*unexpected.*'conv1\.w"),
        ("resnet18", wrn(), r"missing keys.*'backbone\.stem\.weight'.*unexpected.*'conv1\.weight'"),
        ("mobilenet_v2", resnet(18), r"torchvision's names.*ResNets alone"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, config, words, tmp_path):
    path = save(torchvisions(name), tmp_path / "torchvision.pth")
    with pytest.raises(ValueError, match=rf"(?s)torchvision\.pth does not fit.*{words}"):
        FrozenTeacher(dict(config=config, checkpoint=path)).build()


@pytest.mark.parametrize("change", ["extra", "gone"])
def test_only_what_is_all_torchvisions_is_renamed(change):
    state = torchvisions("resnet18").state_dict()
    wanted = {"backbone.conv1.weight", "head.fc.weight"}
    renamed = with_mmpretrain_names(state, wanted)
    assert len(renamed) == len(state)
    assert renamed["head.fc.bias"] is state["fc.bias"]
    if change == "extra":
        state["my_layer.weight"] = torch.zeros(1)
    else:
        del state["fc.bias"]
    assert with_mmpretrain_names(state, wanted) is state


def test_other_networks_keep_their_names():
    """A classifier of one's own, whose layers are called as torchvision's."""
    state = torchvisions("resnet18").state_dict()
    assert with_mmpretrain_names(state, state.keys()) is state
    ours = {"backbone.conv1.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1)}
    assert with_mmpretrain_names(ours, ours.keys()) is ours


@pytest.mark.parametrize("depth", [34, 152])
def test_names_in_the_zoo_are_the_first_published_weights(depth):
    """The paper's teacher has 78.31 % top-1: torchvision's IMAGENET1K_V1, not V2."""
    from mmengine.runner.checkpoint import get_torchvision_models

    weights = torchvision.models.get_model_weights(f"resnet{depth}").IMAGENET1K_V1
    known = get_torchvision_models()
    assert known[f"resnet{depth}.imagenet1k_v1"] == known[f"resnet{depth}"] == weights.url
    if depth == 152:
        assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == pytest.approx(78.31, abs=0.005)


def test_zoo_weights_expect_mmpretrains_normalisation():
    from mmengine.hub import get_config

    weights = torchvision.models.ResNet152_Weights.IMAGENET1K_V1
    preset = weights.transforms()
    mine = get_config("mmpretrain::resnet/resnet152_8xb32_in1k.py").data_preprocessor
    assert mine.to_rgb
    assert [255 * value for value in preset.mean] == pytest.approx(mine.mean)
    assert [255 * value for value in preset.std] == pytest.approx(mine.std)
    assert (preset.crop_size, preset.resize_size) == ([224], [256])
