"""The weights of other code in a network: containers, prefixes, torchvision's names."""

import pytest
import torch
import torchvision
from networks import build, wrn
from torch.optim.swa_utils import AveragedModel

from mmkd_logit.checkpoint import load_exactly, weights_for
from mmkd_logit.engine import install_safe_checkpoint_loading
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
        ("mobilenet_v2", resnet(18), r"torchvision's names of a network other than a ResNet"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, config, words, tmp_path):
    path = save(torchvisions(name), tmp_path / "torchvision.pth")
    with pytest.raises(ValueError, match=rf"(?s)torchvision\.pth does not fit.*{words}"):
        FrozenTeacher(dict(config=config, checkpoint=path)).build()


@pytest.mark.parametrize("change", ["extra", "gone"])
def test_only_what_is_all_torchvisions_is_renamed(change):
    network, state = build(resnet(18)), torchvisions("resnet18").state_dict()
    assert weights_for(network, state)["head.fc.bias"] is state["fc.bias"]
    if change == "extra":
        state["my_layer.weight"] = torch.zeros(1)
    else:
        del state["fc.bias"]
    assert weights_for(network, state) is state
    # A network of one's own, whose layers are called as torchvision's.
    theirs = torchvisions("resnet18")
    assert weights_for(theirs, theirs.state_dict()).keys() == theirs.state_dict().keys()


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


FORMS = {
    "as it is": lambda state: state,
    "DDP": lambda state: dict(state_dict=prefixed("module.", state)),
    "compiled": lambda state: dict(state_dict=prefixed("_orig_mod.", state)),
    "DDP of compiled": lambda state: dict(state_dict=prefixed("module._orig_mod.", state)),
    "Lightning": lambda state: dict(state_dict=prefixed("model.", state), epoch=3),
    "distilled": lambda state: dict(model=prefixed("student.net.", state)),
    "DeiT": lambda state: dict(model=state, epoch=3),
    "tutorials": lambda state: dict(model_state_dict=state, loss=torch.ones(1)),
    "timm": lambda state: dict(state_dict_ema=prefixed("module.", state), arch="wrn"),
    "nested": lambda state: dict(net=dict(weights=state)),
    "averaged": lambda state: prefixed("module.", state) | dict(n_averaged=torch.tensor(2)),
    "adapters": lambda state: state | {"feature_adapters.0.weight": torch.ones(1)},
}


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_of_other_code(form, tmp_path):
    """By the teacher's reader and by MMEngine's for ``init_cfg`` in our commands."""
    path, network = str(tmp_path / "a.pth"), build(wrn(), seed=3)
    torch.save(FORMS[form](network.state_dict()), path)
    install_safe_checkpoint_loading()
    init = dict(type="Pretrained", checkpoint=path)
    part = wrn()
    part["backbone"]["init_cfg"] = init | dict(prefix="backbone.")
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint=path)).model
    for other in (teacher, build(wrn(init_cfg=init))):
        for key, value in other.state_dict().items():
            assert torch.equal(value, network.state_dict()[key]), key
    if form in ("as it is", "DeiT", "tutorials", "nested", "adapters"):
        assert torch.equal(build(part).backbone.stem.weight, network.backbone.stem.weight)


def test_averaged_models_and_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    network = build(wrn(), seed=3)
    torch.save(AveragedModel(network).state_dict(), tmp_path / "a.pth")
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        state = FrozenTeacher(
            dict(config=wrn(), checkpoint=str(tmp_path / name))
        ).model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())


def test_a_networks_own_prefix_stays():
    network = torch.nn.ModuleDict(dict(model=torch.nn.Linear(2, 2)))
    state = prefixed("module.model.", network.state_dict())
    assert set(weights_for(network, state)) == {"model.weight", "model.bias"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: prefixed("layer.", state), "all its keys begin with 'layer.'"),
        (lambda state: prefixed("x" * 3000 + ".", state), "all its keys begin with 'xxx"),
        (
            lambda state: {f"l{i}.w": torch.zeros(1) for i in range(9000)},
            "unexpected keys (9000 of 46)",
        ),
        (
            lambda state: {k.removeprefix("backbone."): v for k, v in state.items() if "bac" in k},
            "they are the weights of its backbone alone",
        ),
        (
            lambda state: {k.replace("fc", "linear"): v for k, v in state.items()},
            "for 'head.fc.weight'; did you mean head.linear.weight?",
        ),
        (lambda state: dict(generator=state, epoch=3), "its keys: 'generator', 'epoch'"),
        (lambda state: {f"key{i}": i for i in range(9000)}, "holds no state_dict"),
    ],
)
def test_messages_are_short_and_name_what_there_is(change, words):
    network = build(wrn())
    with pytest.raises(ValueError, match=r"a.pth (does not fit|holds no state_dict)") as error:
        load_exactly(network, change(network.state_dict()), "a.pth", "it", "Look again.")
    assert words in str(error.value)
    assert len(str(error.value)) < 600
