"""Students that share batches and teachers are what they are alone."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from networks import batch, build, distiller, raw_batch, wrn
from runs import assert_same
from torch import nn

from mmkd_logit.models import FrozenTeacher

KL = dict(type="mmkd_logit.ScaledKLDivLoss", tau=4)
NETS = {
    "alone": wrn(),
    "mse": distiller(wrn()),
    "kl": distiller(wrn(), loss_kd=KL, alpha=0.9),
    "wide": distiller(wrn(widen_factor=2), loss_kd=KL),
}
SGD = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
ADAM = dict(optimizer=dict(type="AdamW", lr=0.01), clip_grad=dict(max_norm=1.0))
OPTIMIZERS = {"alone": SGD, "mse": SGD, "kl": ADAM, "wide": SGD}


def group_config(nets=None, seeds=0, **kwargs):
    students = copy.deepcopy(nets or NETS)
    return dict(type="mmkd_logit.StudentGroup", students=students, seeds=seeds, **kwargs)


def optimizers(cfgs=None):
    return dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students=copy.deepcopy(cfgs or OPTIMIZERS),
    )


def teacher_file(tmp_path):
    """A teacher with weights of its own, as one without draws new ones for every build."""
    file = tmp_path / "teacher.pth"
    if not file.is_file():
        torch.save(build(wrn(widen_factor=2), seed=7).state_dict(), file)
    return dict(config=wrn(widen_factor=2), checkpoint=str(file))


@pytest.fixture
def nets(tmp_path):
    nets = copy.deepcopy(NETS)
    for net in nets.values():
        if "teacher" in net:
            net["teacher"] = teacher_file(tmp_path)
    return nets


def steps(model, optim_wrapper, count=4):
    model.train()
    logs = []
    for number in range(count):
        logs.append(model.train_step(raw_batch(seed=number), optim_wrapper))
    return logs


def test_every_student_ends_with_the_bits_of_its_own_run(nets):
    seeds = dict(alone=0, mse=0, kl=5, wide=0)
    group = build(group_config(nets, seeds), seed=11)
    logs = steps(group, build_optim_wrapper(group, optimizers()))
    for name, student in group.students.items():
        single = build(nets[name], seed=seeds[name])
        own = steps(single, build_optim_wrapper(single, OPTIMIZERS[name]))
        assert_same(student.state_dict(), single.state_dict())
        for log, other in zip(logs, own, strict=True):
            for key, value in other.items():
                assert torch.equal(log[f"{name}/{key}"], value), key
        # The control: from another seed it is another network.
        other = build(nets[name], seed=seeds[name] + 1).state_dict()
        assert not torch.equal(other["head.fc.weight"], student.head.fc.weight)


def test_a_loss_that_is_not_a_number_stays_with_its_student(nets):
    group = build(group_config(nets))
    wrapper = build_optim_wrapper(group, optimizers())
    with torch.no_grad():
        group.students["mse"].backbone.stem.weight.fill_(float("nan"))
    steps(group, wrapper, 1)
    single = build(nets["alone"])
    steps(single, build_optim_wrapper(single, SGD), 1)
    assert_same(group.students["alone"].state_dict(), single.state_dict())
    assert not torch.isfinite(group.students["mse"].head.fc.weight).all()


def test_equal_teachers_are_one_and_see_a_batch_once(nets, monkeypatch):
    nets["other"] = distiller(
        teacher=dict(config=wrn(widen_factor=3), checkpoint=None), loss_kd=KL, alpha=0.0
    )
    nets["both"] = distiller(
        wrn(), teacher=[nets["mse"]["teacher"], dict(config=wrn(widen_factor=3), checkpoint=None)]
    )
    group = build(group_config(nets))
    students = group.students
    assert students["mse"].teachers[0] is students["kl"].teachers[0]
    assert students["mse"].teachers[0] is students["wide"].teachers[0]
    assert students["mse"].teachers[0] is not students["other"].teachers[0]
    calls = []
    call = FrozenTeacher.__call__

    def count(self, *args, **kwargs):
        calls.append(self)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(FrozenTeacher, "__call__", count)
    group(*batch(), mode="loss")
    # That of the first three, which is in the ensemble too, and the other one there.
    assert calls == students["both"].teachers
    assert students["both"].teachers[0] is students["mse"].teachers[0]


def test_state_is_the_students_and_nobody_elses_generator_moves(nets):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    group = MODELS.build(group_config(nets))
    group.init_weights()
    assert torch.equal(torch.rand(3), expected)
    names = {key.split(".")[1] for key in group.state_dict()}
    assert names == set(nets)
    assert not any("teacher" in key for key in group.state_dict())


def test_tensor_mode_gives_all_logits_and_predictions_are_refused():
    group = build(group_config()).eval()
    inputs, samples = batch()
    logits = group(inputs, mode="tensor")
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        name: (6, 4) for name in NETS
    }
    with pytest.raises(ValueError, match="predict with one of its students: alone, mse"):
        group(inputs, samples, mode="predict")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(students={}), "students must be a dict of configs by name"),
        (dict(students={"a.b": wrn()}), "a student's name is text without dots, got 'a.b'"),
        (dict(students=dict(a=3)), "the student a must be the config of a model, got 3"),
        (dict(seeds=None), "a seed is an integer from 0"),
        (dict(seeds=-1), "a seed is an integer from 0"),
        (dict(seeds=dict(alone=1)), "seeds are of"),
        (
            dict(students=dict(a=dict(NETS["mse"], feature_kd=[dict()]))),
            "the student a distils features; train it in a run of its own",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(change, text):
    with pytest.raises(ValueError, match=text):
        MODELS.build({**group_config(), **change})


@pytest.mark.parametrize(
    ("cfg", "text"),
    [
        (dict(constructor="mmkd_logit.StudentGroupOptimConstructor"), "are dict"),
        (optimizers(dict(alone=SGD)), "there are optimizers for"),
        (
            optimizers({**OPTIMIZERS, "kl": dict(SGD, accumulative_counts=2)}),
            "the optimizer of kl accumulates",
        ),
        (dict(optimizers(), paramwise_cfg=dict(norm_decay_mult=0)), "paramwise_cfg="),
    ],
)
def test_optimizers_that_do_not_fit_are_an_error(cfg, text):
    with pytest.raises(ValueError, match=text):
        build_optim_wrapper(build(group_config()), cfg)


def test_paramwise_settings_are_each_students_own():
    group = build(group_config())
    cfgs = {**OPTIMIZERS, "mse": dict(SGD, paramwise_cfg=dict(norm_decay_mult=0.0))}
    wrapper = build_optim_wrapper(group, optimizers(cfgs))
    decays = {
        name: {g["weight_decay"] for g in w.optimizer.param_groups} for name, w in wrapper.items()
    }
    assert decays["alone"] == {5e-4}
    assert decays["mse"] == {0.0, 5e-4}


def test_students_of_other_preprocessors_do_not_share_batches():
    other = wrn(data_preprocessor=dict(type="mmpretrain.ClsDataPreprocessor", mean=[1], std=[2]))
    mixing = wrn(train_cfg=dict(augments=dict(type="mmpretrain.Mixup", alpha=1.0)))
    for net in (other, mixing):
        for pair in (dict(a=wrn(), b=net), dict(b=net, a=wrn())):
            with pytest.raises(ValueError, match="share batches, but not their data_preprocessor"):
                MODELS.build(group_config(pair))


def test_norms_of_gradients_are_logged_for_each():
    group = build(group_config(dict(a=wrn(), b=wrn())))
    wrapper = build_optim_wrapper(group, optimizers(dict(a=ADAM, b=ADAM)))
    assert [each.grad_name for each in wrapper.values()] == ["a/grad_norm", "b/grad_norm"]


def test_teachers_that_are_modules_stay_apart():
    """Of one architecture they look alike; the same one is shared."""

    def teacher(value):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
        nn.init.constant_(network[1].weight, value)
        return network

    shared = teacher(1.0)
    given = dict(a=shared, b=teacher(2.0), c=shared)
    nets = {name: distiller(teacher=each) for name, each in given.items()}
    students = MODELS.build(group_config(nets)).students
    found = {name: students[name].teachers[0] for name in given}
    assert [float(found[name].model[1].weight[0, 0]) for name in given] == [1.0, 2.0, 1.0]
    assert found["a"] is found["c"]
