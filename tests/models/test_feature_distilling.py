import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from networks import batch, build, distiller, raw_batch, wrn
from torch import nn

from mmkd_logit.models import FeatureDistilling, FrozenTeacher

REGRESSOR = dict(
    type="mmkd_logit.TorchdistillAdapter",
    name="ConvReg",
    num_input_channels=8,
    num_output_channels=16,
    kernel_size=1,
    stride=1,
    padding=0,
)
AT = dict(
    student="backbone.groups.0",
    teacher="backbone.groups.0",
    loss=dict(type="mmkd_logit.TorchdistillLoss", name="ATLoss"),
    weight=1000.0,
)
HINT = dict(
    student="backbone.groups.1",
    teacher="backbone.groups.1",
    loss=dict(type="mmkd_logit.TorchdistillLoss", name="MSELoss"),
    weight=3.0,
    student_adapter=REGRESSOR,
)
FACTOR = dict(
    student="backbone",
    teacher="backbone",
    loss=dict(type="mmkd_logit.TorchdistillLoss", name="FTLoss"),
    weight=500.0,
    student_adapter=dict(
        type="mmkd_logit.TorchdistillAdapter",
        name="Translator4FactorTransfer",
        num_input_channels=16,
        num_output_channels=16,
    ),
    teacher_adapter=dict(
        type="mmkd_logit.TorchdistillAdapter",
        name="Paraphraser4FactorTransfer",
        k=0.5,
        num_input_channels=32,
    ),
)
ALL = [AT, HINT, FACTOR]


def features(terms, **kwargs):
    return distiller(**dict(feature_kd=terms, loss_kd=None, alpha=0) | kwargs)


def outputs(network, name, inputs, index=None):
    """What a module gives, by a hook of the test's own."""
    kept = []
    hook = network.get_submodule(name).register_forward_hook(lambda m, a, out: kept.append(out))
    network(inputs)
    hook.remove()
    return kept[0] if index is None else kept[0][index]


def total(losses):
    return sum(value for key, value in losses.items() if "loss" in key)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_terms_are_the_formula(alpha):
    loss_kd = dict(type="mmkd_logit.LogitMSELoss")
    model = build(features([AT, HINT], alpha=alpha, loss_kd=loss_kd if alpha else None))
    inputs, samples = batch()
    model.train()
    adapter = model.feature_adapters["1"]["student"]
    twin = copy.deepcopy(adapter)
    losses = model(inputs, samples, mode="loss")

    student, teacher = model.student, model.teachers[0].model
    u, v = student(inputs), teacher(inputs)
    want = {"loss_feature_0", "loss_feature_1", "teacher_agreement"}
    want |= {"loss_ce", "ce"} if alpha < 1 else set()
    want |= {"loss_kd", "kd"} if alpha > 0 else set()
    assert losses.keys() == want
    s, t = (outputs(net, "backbone.groups.0", inputs) for net in (student, teacher))
    a, b = (F.normalize(z.square().mean(1).flatten(1)) for z in (s, t))
    torch.testing.assert_close(losses["loss_feature_0"], 1000 * (a - b).square().mean())
    s, t = (outputs(net, "backbone.groups.1", inputs) for net in (student, teacher))
    torch.testing.assert_close(losses["loss_feature_1"], 3 * (twin(s) - t).square().mean())
    if alpha < 1:
        labels = torch.cat([sample.gt_label for sample in samples])
        torch.testing.assert_close(losses["loss_ce"], (1 - alpha) * F.cross_entropy(u, labels))
    if alpha > 0:
        torch.testing.assert_close(losses["loss_kd"], alpha * (u - v).square().mean())


def test_one_forward_of_each_network():
    model = build(features(ALL, alpha=0.5, loss_kd=dict(type="mmkd_logit.LogitMSELoss")))
    calls = []
    for name, net in (("student", model.student), ("teacher", model.teachers[0].model)):
        net.backbone.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(*batch(), mode="loss")
    assert calls == ["teacher", "student"]
    assert not model.backbone.groups[0]._forward_hooks  # hooks for one pass
    assert not model.teachers[0].model.backbone.groups[0]._forward_hooks


def test_every_parameter_receives_gradient_and_the_teacher_none():
    """As DDP needs in each step."""
    model = build(features(ALL))
    model.train()
    total(model(*batch(), mode="loss")).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
    assert any(
        name.startswith("feature_adapters.2.teacher") for name, _ in model.named_parameters()
    )
    assert all(p.grad is None for p in model.teachers[0].model.parameters())
    assert not any(m.training for m in model.teachers[0].model.modules())


def test_a_paraphraser_learns_by_restoring_alone():
    model = build(features([FACTOR]))
    model.train()
    losses = model(*batch(), mode="loss")
    paraphraser = list(model.feature_adapters["0"]["teacher"].parameters())
    got = torch.autograd.grad(
        losses["loss_feature_0"], paraphraser, allow_unused=True, retain_graph=True
    )
    assert all(gradient is None for gradient in got)
    got = torch.autograd.grad(losses["loss_feature_0_reconstruction"], paraphraser)
    assert all(gradient.any() for gradient in got)
    translator = list(model.feature_adapters["0"]["student"].parameters())
    student = [*translator, *model.backbone.parameters()]
    again = model(*batch(), mode="loss")["loss_feature_0_reconstruction"]
    assert all(g is None for g in torch.autograd.grad(again, student, allow_unused=True))


def test_features_before_a_relu_that_works_in_place():
    """The ReLU behind a norm overwrites its output; the copy is from before."""
    term = dict(AT, student="backbone.norm", teacher="backbone.norm")
    model = build(features([term]))
    kept = []
    model.backbone.norm.register_forward_hook(lambda m, a, out: kept.append(out))
    student, teacher = model.student, model.teachers[0].model
    inputs, _ = batch()
    with model.features.watch(student, teacher) as seen:
        student(inputs), teacher(inputs)
    (mine,) = seen["student", "backbone.norm"]
    assert (mine < 0).any()
    assert not (kept[0] < 0).any()  # the control: overwritten
    assert torch.equal(mine.relu(), kept[0])


def test_adapters_train_and_the_student_starts_as_without():
    plain, model = build(wrn(), seed=7), build(features(ALL), seed=7)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type="SGD", lr=0.01)))
    before = {key: value.clone() for key, value in model.named_parameters()}
    model.train()
    model.train_step(raw_batch_of(model), wrapper)
    changed = {
        key for key, value in model.named_parameters() if not torch.equal(value, before[key])
    }
    assert {key.rpartition(".module")[0] for key in changed if "adapters" in key} == {
        "feature_adapters.1.student",
        "feature_adapters.2.student",
        "feature_adapters.2.teacher",
    }


def raw_batch_of(model):
    data = raw_batch()
    return dict(data, inputs=data["inputs"].float() / 64)


def test_an_init_cfg_of_the_student_does_not_touch_adapters(tmp_path):
    path = str(tmp_path / "plain.pth")
    plain = build(wrn(), seed=9)
    torch.save(plain.state_dict(), path)
    student = wrn(init_cfg=dict(type="Pretrained", checkpoint=path))
    model = build(features([HINT], student=student))
    for key, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    constant = wrn(init_cfg=dict(type="Constant", layer="Conv2d", val=0.5))
    model = build(features([HINT], student=constant))
    assert model.feature_adapters["0"]["student"].module.conv.weight.unique().numel() > 1


def test_a_plain_checkpoint_loads_strictly_and_keeps_the_adapters():
    plain, model = build(wrn(), seed=5), build(features(ALL))
    before = {k: v.clone() for k, v in model.feature_adapters.state_dict().items()}
    load_state_dict(model, plain.state_dict(), strict=True)
    model.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(model.head.fc.weight, plain.head.fc.weight)
    for key, value in model.feature_adapters.state_dict().items():
        assert torch.equal(value, before[key])


def test_its_checkpoint_loads_strictly_everywhere():
    model, other = build(features(ALL), seed=1), build(features(ALL), seed=2)
    state = get_state_dict(model)
    load_state_dict(other, state, strict=True)
    for key, value in state.items():
        assert torch.equal(other.state_dict()[key], value)
    without = build(distiller())
    load_state_dict(without, state, strict=True)
    assert torch.equal(without.head.fc.weight, model.head.fc.weight)
    partial = {k: v for k, v in state.items() if "adapters.1.student.module.bn.bias" not in k}
    with pytest.raises(
        RuntimeError, match=r"missing.*feature_adapters\.1\.student\.module\.bn\.bias"
    ):
        load_state_dict(other, partial, strict=True)


def test_its_checkpoint_teaches(tmp_path):
    path = str(tmp_path / "epoch_1.pth")
    model = build(features(ALL))
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    inputs, _ = batch()
    model.eval()
    for config in (wrn(), features(ALL)):
        teacher = FrozenTeacher(dict(config=config, checkpoint=path))
        assert torch.equal(teacher(inputs), model(inputs))


def test_adapters_of_a_student_of_another_library():
    """Timm's classifier renames every key when it is loaded."""
    net = dict(
        type="mmpretrain.TimmClassifier",
        model_name="test_resnet",
        num_classes=10,
        loss=dict(type="mmpretrain.CrossEntropyLoss"),
    )
    term = dict(HINT, student="model.layer1", teacher="model.layer1")
    channels = build(net).model.layer1[-1].conv2.out_channels
    term["student_adapter"] = dict(
        REGRESSOR, num_input_channels=channels, num_output_channels=channels
    )
    cfg = features([term], student=net, teacher=dict(config=net, checkpoint=None))
    model, other = build(cfg, seed=1), build(cfg, seed=2)
    load_state_dict(other, get_state_dict(model), strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    data = model.data_preprocessor(raw_batch(4, 10, size=64), True)
    assert model(**data, mode="loss")["loss_feature_0"] > 0


def test_a_deep_copy_has_its_own_adapters():
    model = build(features(ALL))
    twin = copy.deepcopy(model)
    assert twin.features.adapters is twin.feature_adapters
    assert twin.feature_adapters is not model.feature_adapters
    assert twin.teachers[0] is model.teachers[0]
    twin.train()
    total(twin(*batch(), mode="loss")).backward()
    assert all(p.grad is None for p in model.parameters())


def test_autocast_on_cpu():
    model = build(features(ALL))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*batch(), mode="loss")
    assert all(losses[key].dtype == torch.float32 for key in losses if "feature" in key)
    total(losses).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_without_terms_nothing_is_there():
    model = build(distiller(feature_kd=[]))
    assert "feature_adapters" not in model._modules
    assert set(model(*batch(), mode="loss")) == {"loss_kd", "kd", "teacher_agreement"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            dict(student="backbone.layer1"),
            r"the student has no module 'backbone.layer1'; the names "
            r"in backbone are stem, groups, norm, relu",
        ),
        (dict(student="body"), r"the names are .*backbone, neck, head"),
        (
            dict(teacher="backbone.groups.7"),
            r"the teacher has no .* in backbone.groups are 0, 1, 2",
        ),
        (dict(weight=-1), "weight=-1 must be a finite number"),
        (dict(weight="1"), "weight='1'"),
        (dict(adapter=REGRESSOR), r"feature_kd has no setting 'adapter'"),
        (dict(loss=nn.Linear(2, 2)), "the loss Linear has parameters"),
        (dict(teacher_adapter=REGRESSOR), "does not restore its input"),
    ],
)
def test_wrong_terms(change, words):
    with pytest.raises(ValueError, match=words):
        build(features([{**AT, **change}]))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(feature_kd=[dict(student="backbone")]), "a term of feature_kd is dict"),
        (dict(feature_kd=["backbone"]), "a term of feature_kd is dict"),
        (dict(feature_kd=AT), "must be a list of dicts"),
        (dict(feature_kd=[AT], alpha=0.5, loss_kd=None), "loss_kd is None with the weight 0.5"),
        (dict(alpha=0, loss_kd=None), "loss_kd is None"),
    ],
)
def test_wrong_arguments(kwargs, words):
    with pytest.raises(ValueError, match=words):
        build(distiller(**kwargs))


def test_an_ensemble_has_no_features():
    teachers = [dict(config=wrn(), checkpoint=None)] * 2
    with pytest.raises(ValueError, match="takes one teacher, got 2"):
        build(features([AT], teacher=teachers))


def test_modules_that_run_twice_or_give_no_tensor():
    network = nn.Sequential(nn.ReLU(), nn.Identity())
    terms = FeatureDistilling([dict(student="0", teacher="0", loss=nn.MSELoss())], network)
    with terms.watch(network, network) as seen:
        network(torch.zeros(1)), network(torch.zeros(1))
    with pytest.raises(ValueError, match="0 of the student ran 2 times"):
        terms.losses(seen)
    with terms.watch(network, network) as seen:
        pass
    with pytest.raises(ValueError, match="ran 0 times"):
        terms.losses(seen)
    network[0].forward = lambda x: {}
    with terms.watch(network, network):
        with pytest.raises(ValueError, match="0 of the student gives a dict, no tensor"):
            network(torch.zeros(1))
    assert not network[0]._forward_hooks
