"""README's child config, on mmpretrain's own configs of several families."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope, init_default_scope
from networks import raw_batch

CHILD = """
_base_ = 'mmpretrain::{base}'
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{{{_base_.model}}}},
    teacher=dict(config='mmpretrain::{base}', checkpoint=None),
    loss_kd=dict(type='mmkd_logit.LogitMSELoss'),
    alpha={alpha})
"""

ZOO = {  # config: size of the images
    "resnet/resnet18_8xb16_cifar10.py": 32,
    "mobilenet_v2/mobilenet-v2_8xb32_in1k.py": 64,
    "shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py": 64,
    "convnext/convnext-tiny_32xb128_in1k.py": 64,  # EMA, MixUp, CutMix, paramwise
    "swin_transformer/swin-tiny_16xb64_in1k.py": 224,  # MixUp, CutMix, paramwise, clipping
    "deit/deit-tiny_4xb256_in1k.py": 224,  # label smoothing, MixUp, CutMix, custom_keys
    "poolformer/poolformer-s12_32xb128_in1k.py": 64,
}


def child_and_base(path, tmp_path, alpha):
    file = tmp_path / "child.py"
    file.write_text(CHILD.format(base=path, alpha=alpha))
    base = tmp_path / "base.py"
    base.write_text(f"_base_ = 'mmpretrain::{path}'\n")
    return Config.fromfile(file), Config.fromfile(base)


def build(cfg):
    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmpretrain")
    model = copy.deepcopy(cfg.model)
    model.setdefault("data_preprocessor", cfg.data_preprocessor)  # as the Runner does
    torch.manual_seed(0)
    return MODELS.build(model)


def groups(model, cfg):
    """Every parameter's learning rate and decay, by name."""
    optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper)).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("path", ZOO)
def test_child_config_keeps_everything_and_trains(path, tmp_path):
    child, base = child_and_base(path, tmp_path, alpha=0.5)
    everything = {key: value for key, value in base.items() if key != "model"}
    assert {key: value for key, value in child.items() if key != "model"} == everything

    ours, plain = build(child), build(base)
    assert groups(ours, child) == groups(plain, base)
    preprocessor = ours.data_preprocessor
    assert type(preprocessor) is type(plain.data_preprocessor)
    assert (preprocessor.batch_augments is None) == (plain.data_preprocessor.batch_augments is None)
    assert torch.equal(preprocessor.mean, plain.data_preprocessor.mean)

    data = raw_batch(2, num_classes=10, size=ZOO[path])
    wrapper = build_optim_wrapper(ours, copy.deepcopy(child.optim_wrapper))
    ours.train()
    before = {name: p.clone() for name, p in ours.named_parameters()}
    log = ours.train_step(data, wrapper)
    assert {"loss_ce", "loss_kd", "ce", "kd", "teacher_agreement"} <= log.keys()
    assert torch.isfinite(log["loss"])
    assert any(not torch.equal(before[name], p) for name, p in ours.named_parameters())
    assert not any(key.startswith(("teacher", "student")) for key in ours.state_dict())


def test_ema_of_the_zoo_holds_the_student_alone(tmp_path):
    child, _ = child_and_base("convnext/convnext-tiny_32xb128_in1k.py", tmp_path, alpha=1.0)
    (hook_cfg,) = [hook for hook in child.custom_hooks if hook.type == "EMAHook"]
    hook_cfg.pop("priority")  # read by the Runner
    hook = HOOKS.build(hook_cfg)
    assert isinstance(hook, EMAHook)
    model = build(child)
    averaged = MODELS.build(hook.ema_cfg, default_args=dict(model=model))
    assert averaged.module.teachers[0] is model.teachers[0]
    assert list(averaged.module.state_dict()) == list(model.state_dict())


def test_layerwise_decay_of_the_zoo(tmp_path):
    """Its constructor asks the model for the depth of a parameter."""
    child, base = child_and_base("deit/deit-tiny_4xb256_in1k.py", tmp_path, alpha=1.0)
    for cfg in (child, base):
        cfg.optim_wrapper.constructor = "LearningRateDecayOptimWrapperConstructor"
        cfg.optim_wrapper.paramwise_cfg = dict(layer_decay_rate=0.65)
    rates = groups(build(child), child)
    assert rates == groups(build(base), base)
    assert len({lr for lr, _ in rates.values()}) > 5


def test_timm_student_and_teacher():
    net = dict(
        type="mmpretrain.TimmClassifier",
        model_name="test_resnet",
        num_classes=10,
        loss=dict(type="mmpretrain.CrossEntropyLoss"),
    )
    _check_wrapped(net)


def test_hugging_face_student_and_teacher(tmp_path):
    from transformers import ResNetConfig

    ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=10,
    ).save_pretrained(tmp_path)
    net = dict(
        type="mmpretrain.HuggingFaceClassifier",
        model_name=str(tmp_path),
        loss=dict(type="mmpretrain.CrossEntropyLoss"),
    )
    _check_wrapped(net)


def _check_wrapped(net):
    """Networks of other libraries, whose state_dict mmpretrain renames through hooks."""
    from mmengine.runner.checkpoint import get_state_dict

    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmpretrain")
    model = MODELS.build(
        dict(
            type="mmkd_logit.LogitDistiller",
            student=copy.deepcopy(net),
            teacher=dict(config=copy.deepcopy(net), checkpoint=None),
            loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau=3),
            alpha=0.5,
        )
    )
    model.init_weights()
    plain = MODELS.build(copy.deepcopy(net))
    assert list(model.state_dict()) == list(plain.state_dict())
    assert list(get_state_dict(model)) == list(get_state_dict(plain))
    plain.load_state_dict(model.state_dict())
    data = model.data_preprocessor(raw_batch(4, 10, size=64), True)
    model.eval(), plain.eval()
    assert torch.equal(model(data["inputs"]), plain(data["inputs"]))
    model.train()
    losses = model(**data, mode="loss")
    assert {"loss_ce", "loss_kd"} <= losses.keys()
    assert losses["loss_kd"] > 0
    (losses["loss_ce"] + losses["loss_kd"]).backward()
    assert all(p.grad is not None for p in model.parameters())
