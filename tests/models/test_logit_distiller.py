import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmpretrain.models import ImageClassifier
from networks import batch, build, distiller, raw_batch, wrn
from torch import nn

from mmkd_logit.datasets import SampleBatch
from mmkd_logit.models import LogitDistiller
from mmkd_logit.models.distiller import _weigh


def plain_twin(model, cfg=None):
    """The plain student with the distiller's weights."""
    twin = build(cfg or wrn())
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_terms_are_the_formula(alpha):
    model = build(distiller(alpha=alpha))
    twin, (inputs, samples) = plain_twin(model), batch()
    model.train(), twin.train()
    losses = model(inputs, samples, mode="loss")

    u = twin(inputs)
    v = model.teachers[0](inputs)
    ce = F.cross_entropy(u, torch.cat([s.gt_label for s in samples]))
    kd = (u - v).square().mean()
    expected = {}
    if alpha < 1:
        expected.update(loss_ce=(1 - alpha) * ce, ce=ce)
    if alpha > 0:
        expected.update(loss_kd=alpha * kd, kd=kd)
        expected["teacher_agreement"] = (u.argmax(1) == v.argmax(1)).float().mean()
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, msg=key)
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, (1 - alpha) * ce + alpha * kd)
    for key in ("ce", "kd", "teacher_agreement"):
        assert key not in losses or not losses[key].requires_grad


def test_a_step_leaves_its_record():
    model = build(distiller(alpha=0.5))
    inputs, samples = batch()
    labels = torch.cat([sample.gt_label for sample in samples])
    whole = SampleBatch(labels, np.arange(7, 13), (8, 8))
    for given in (samples, whole):
        model(inputs, given, mode="loss")
        assert torch.equal(model.record.student_logits, model.student(inputs))
        assert torch.equal(model.record.teacher_logits, model.teachers[0](inputs))
        assert not model.record.student_logits.requires_grad
    model.switch(alpha=0)
    model(inputs, whole, mode="loss")
    assert model.record is None


@pytest.mark.parametrize(("ce", "kd"), [(0, 9), (0.1, 0), (0.1, 9)])
def test_weights_in_the_place_of_alpha(ce, kd):
    model = build(distiller(weights=dict(ce=ce, kd=kd)))
    losses = model(*batch(), mode="loss")
    assert {"loss_ce", "ce"} <= losses.keys() if ce else "ce" not in losses
    assert {"loss_kd", "kd"} <= losses.keys() if kd else "kd" not in losses
    for key, weight in dict(ce=ce, kd=kd).items():
        assert not weight or losses[f"loss_{key}"] == weight * losses[key]
    model.switch(loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau=2))
    assert model.weights == dict(ce=ce, kd=kd)
    model.switch(alpha=0.25)
    assert model.weights == dict(ce=0.75, kd=0.25)
    model.switch(weights=dict(ce=2, kd=3))
    assert model.weights == dict(ce=2, kd=3)


@pytest.mark.parametrize("alpha", [0.3, 1])
def test_gradient_is_the_formulas_and_reaches_the_student_only(alpha):
    model = build(distiller(alpha=alpha))
    twin, (inputs, samples) = plain_twin(model), batch()
    sum(v for k, v in model(inputs, samples, mode="loss").items() if "loss" in k).backward()
    u, v = twin(inputs), model.teachers[0](inputs)
    labels = torch.cat([s.gt_label for s in samples])
    ((1 - alpha) * F.cross_entropy(u, labels) + alpha * (u - v).square().mean()).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    assert all(p.grad is None for p in model.teachers[0].model.parameters())


def test_alpha_one_never_looks_at_labels_nor_the_heads_loss(monkeypatch):
    model = build(distiller(alpha=1))
    monkeypatch.setattr(model.head, "loss", None)
    monkeypatch.setattr(model.head, "loss_module", None)
    inputs, _ = batch()
    assert set(model.loss(inputs, None)) == {"loss_kd", "kd", "teacher_agreement"}


def test_alpha_zero_never_runs_the_teacher(monkeypatch):
    model = build(distiller(alpha=0))
    monkeypatch.setattr(model.teachers[0].model, "forward", None)
    assert set(model(*batch(), mode="loss")) == {"loss_ce", "ce"}


def test_one_forward_of_the_student_serves_both_terms():
    model = build(distiller(alpha=0.5))
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append("backbone"))
    model.head.register_forward_hook(lambda *_: calls.append("head"))
    model(*batch(), mode="loss")
    assert calls == ["backbone", "head"]


def test_is_its_student_to_everybody_else():
    cfg = wrn(drop_rate=0.1)
    model = build(distiller(student=cfg))
    twin = plain_twin(model, cfg)
    names = [name for name, _ in twin.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names
    assert list(model.state_dict()) == list(twin.state_dict())
    assert list(get_state_dict(model)) == list(get_state_dict(twin))  # what MMEngine saves
    assert [n for n, _ in model.named_modules()] == [n for n, _ in twin.named_modules()]
    assert model.with_neck
    assert model.backbone is model.student.backbone
    inputs, samples = batch()
    model.eval(), twin.eval()
    assert torch.equal(model(inputs), twin(inputs))
    assert torch.equal(model.extract_feat(inputs)[0], twin.extract_feat(inputs)[0])
    ours, theirs = model(inputs, samples, "predict"), twin(inputs, samples, "predict")
    assert all(torch.equal(a.pred_score, b.pred_score) for a, b in zip(ours, theirs, strict=True))
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = model.no_such_thing


def test_loads_a_plain_checkpoint_through_mmengine():
    plain = build(wrn(), seed=5)
    model = build(distiller())
    load_state_dict(model, plain.state_dict(), strict=True)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True)
    )


def test_teacher_stays_frozen_after_train():
    model = build(distiller())
    before = copy.deepcopy(model.teachers[0].model.state_dict())
    model.train()
    teacher = model.teachers[0].model
    assert not any(m.training for m in teacher.modules())
    assert model.backbone.training
    assert model.student.training
    model(*batch(), mode="loss")
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    model.eval()
    assert not model.student.training


def test_deep_copy_shares_the_teacher_and_nothing_else():
    model = build(distiller(alpha=0.5))
    twin = copy.deepcopy(model)
    assert twin.teachers[0] is model.teachers[0]
    assert twin.student is not model.student
    assert twin.student.backbone is twin.backbone
    assert twin.backbone is not model.backbone
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    inputs, samples = batch()
    twin_losses = twin(inputs, samples, mode="loss")
    v = model.teachers[0](inputs)
    torch.testing.assert_close(twin_losses["kd"], v.square().mean())  # its own, zero logits
    assert model(inputs, samples, mode="loss")["kd"] != twin_losses["kd"]


def test_replacing_a_child_reaches_the_student():
    model = build(distiller())
    model.neck = nn.Identity()
    assert model.student.neck is model.neck


def test_ensemble_means(tmp_path):
    teachers = []
    for seed in range(3):
        path = str(tmp_path / f"{seed}.pth")
        torch.save(build(wrn(widen_factor=2), seed=seed).state_dict(), path)
        teachers.append(dict(config=wrn(widen_factor=2), checkpoint=path))
    inputs, samples = batch()
    by_logits = build(distiller(teacher=teachers))
    v = [t(inputs) for t in by_logits.teachers]
    assert not torch.equal(v[0], v[1])  # the same architecture, yet two teachers
    torch.testing.assert_close(by_logits.teacher_logits(inputs), sum(v) / 3)
    losses = by_logits(inputs, samples, mode="loss")
    torch.testing.assert_close(losses["kd"], (by_logits.student(inputs) - sum(v) / 3).pow(2).mean())

    by_probs = build(distiller(teacher=teachers, ensemble="probs"))
    v = [t(inputs).double() for t in by_probs.teachers]
    mean = sum(z.softmax(1) for z in v) / 3
    torch.testing.assert_close(
        by_probs.teacher_logits(inputs).double().softmax(1), mean, rtol=1e-5, atol=1e-7
    )
    torch.testing.assert_close(
        by_probs.teacher_logits(inputs).double().exp(), mean, check_dtype=False
    )


def test_batch_augmentation_is_seen_by_both():
    preprocessor = dict(num_classes=4, mean=[128.0] * 3, std=[64.0] * 3)
    student = wrn(train_cfg=dict(augments=dict(type="Mixup", alpha=1.0)))
    model = build(distiller(student=student, alpha=0.5, data_preprocessor=preprocessor))
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.teachers[0].model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    data = model.data_preprocessor(raw_batch(), training=True)
    plain = model.data_preprocessor(raw_batch(), training=False)
    assert not torch.equal(data["inputs"], plain["inputs"])  # MixUp did mix
    losses = model(**data, mode="loss")
    assert torch.equal(seen[0], seen[1])
    u = model.student(data["inputs"])
    scores = torch.stack([s.gt_score for s in data["data_samples"]])
    torch.testing.assert_close(losses["ce"], -(scores * u.log_softmax(1)).sum(1).mean())


def test_half_precision_teacher_is_compared_in_the_wider_type():
    model = build(distiller())
    inputs, samples = batch()
    u = model.student(inputs)
    v = model.teachers[0](inputs)
    model.teachers[0].model.register_forward_hook(lambda m, a, out: out.bfloat16())
    kd = model(inputs, samples, mode="loss")["kd"]
    assert kd.dtype == torch.float32
    torch.testing.assert_close(kd, (u - v.bfloat16().float()).square().mean())


def test_autocast_on_cpu():
    model = build(distiller(alpha=0.5))
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*batch(), mode="loss")
    assert losses["loss_kd"].dtype == torch.float32
    sum(v for k, v in losses.items() if "loss" in k).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_switch_is_the_distiller_built_so():
    """Of every setting; what is not named stays."""
    other = dict(config=wrn(widen_factor=3), checkpoint=None)
    model, (inputs, samples) = build(distiller(alpha=0.5)), batch()
    parameters = list(model.parameters())
    changes = dict(teacher=[other, model.teachers[0]], ensemble="probs", alpha=0.25)
    changes["loss_kd"] = dict(type="mmkd_logit.ScaledKLDivLoss", tau=3)
    settings = dict(alpha=0.5, loss_kd=dict(type="mmkd_logit.LogitMSELoss"))
    for number, (key, value) in enumerate(changes.items()):
        model.switch(**{key: value})
        settings[key] = model.teachers if key == "teacher" else value
        twin = build(distiller(**{k: v for k, v in settings.items() if k != "teacher"}))
        twin.switch(teacher=settings["teacher"])
        model.eval(), twin.eval()
        ours, theirs = (each(inputs, samples, mode="loss") for each in (model, twin))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours), number
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [teacher.name for teacher in model.teachers] == ["mmkd_logit.WideResNetCIFAR"] * 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(alpha=2), "alpha must be"),
        (dict(ensemble="sum"), "ensemble must be"),
        (dict(loss_kd=nn.Linear(2, 2)), "parameters or buffers"),
        (dict(teacher=[]), "empty list"),
        (dict(teacher=dict(config=wrn(num_classes=7), checkpoint=None)), "has 7 classes"),
    ],
)
def test_switch_to_what_does_not_fit_changes_nothing(wrong, words):
    model = build(distiller(alpha=0.5))
    before = (model.alpha, model.ensemble, model.loss_kd, model.teachers)
    good = dict(alpha=1, ensemble="probs", loss_kd=dict(type="mmkd_logit.LogitMSELoss"))
    with pytest.raises(ValueError, match=words):
        model.switch(**{**good, **wrong})
    now = (model.alpha, model.ensemble, model.loss_kd, model.teachers)
    assert all(a is b for a, b in zip(before, now, strict=True))


def test_switch_under_autocast():
    model = build(distiller())
    with torch.autocast("cpu", torch.bfloat16):
        model(*batch(), mode="loss")
        model.switch(teacher=dict(config=wrn(widen_factor=3), checkpoint=None), alpha=0.5)
        losses = model(*batch(), mode="loss")
    assert losses["loss_kd"].dtype == torch.float32
    v = model.teachers[0](batch()[0])
    with torch.autocast("cpu", torch.bfloat16):
        half = model.teachers[0](batch()[0])
    assert half.dtype == torch.float32  # so the loss is computed in it
    assert torch.equal(half.bfloat16().float(), half)  # the network was not
    torch.testing.assert_close(half, v, rtol=0.1, atol=0.05)


def test_teacher_in_its_own_normalisation_can_be_prepared_again():
    ours = dict(num_classes=4, mean=[128.0] * 3, std=[64.0] * 3)
    theirs = dict(config=wrn(data_preprocessor=dict(ours, mean=[0.0] * 3)), checkpoint=None)
    model = build(distiller(teacher=theirs, data_preprocessor=ours))
    (teacher,) = model.teachers
    inputs, _ = batch()
    before = teacher(inputs)
    assert not torch.equal(before, teacher.model(inputs))  # converted
    model.switch(teacher=model.teachers)
    assert model.teachers == [teacher]
    assert torch.equal(teacher(inputs), before)


def test_classes_that_differ():
    with pytest.raises(ValueError, match=r"has 7 classes and the student 4.*head\.num_classes"):
        build(distiller(teacher=dict(config=wrn(num_classes=7), checkpoint=None)))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(alpha=9), r"alpha must be a number in \[0, 1\], got 9; .*weights=dict\(ce=0.1, kd=9"),
        (dict(alpha=-0.1), "alpha"),
        (dict(alpha=float("nan")), "alpha"),
        (dict(alpha="1"), "alpha"),
        (dict(alpha=True), "alpha"),
        (dict(ensemble="sum"), "ensemble must be one of 'logits', 'probs'"),
        (dict(weights=dict(ce=1)), r"weights must be a dict such as dict\(ce=0.1, kd=9\)"),
        (dict(weights=dict(ce=-1, kd=1)), "weights.ce=-1 must be a finite number"),
        (dict(weights=dict(ce=0, kd=0)), "nothing would be trained"),
        (dict(weights=dict(ce=1, kd=1), alpha=0.5), "set alpha or weights"),
        (dict(teacher=[]), "cannot read a teacher|empty list"),
        (dict(loss_kd=nn.Linear(2, 2)), "parameters or buffers"),
    ],
)
def test_wrong_arguments(kwargs, words):
    cfg = distiller()
    cfg.pop("type")
    with pytest.raises(ValueError, match=words):
        LogitDistiller(**{**cfg, **kwargs})


def test_loss_in_the_heads_place_shows_the_recipe():
    cfg = wrn()
    cfg["head"]["loss"] = dict(type="mmkd_logit.LogitMSELoss")
    model = build(cfg)
    with pytest.raises(ValueError, match=r"mmkd_logit\.LogitDistiller"):
        model(*batch(), mode="loss")


def test_frozen_students_stages_stay_frozen():
    cfg = wrn()
    cfg["backbone"]["frozen_stages"] = 1
    model = build(distiller(student=cfg))
    model.train()
    assert not model.backbone.stem.training
    assert not model.backbone.stem.weight.requires_grad


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("head", ["ArcFaceClsHead", "LinearClsHead"])
def test_the_margin_of_a_head_is_no_part_of_the_logits(alpha, head):
    """ArcFace adds to the logit of the label while it trains; the teacher has no labels."""
    cfg = wrn()
    cfg["head"] = dict(type=f"mmpretrain.{head}", num_classes=4, in_channels=16)
    student = build(cfg)
    student.init_weights()
    loss = dict(type="mmkd_logit.LogitMSELoss")
    model = LogitDistiller(student, copy.deepcopy(student), loss, alpha)
    model.eval()
    losses = model(*batch(), mode="loss")
    assert losses["kd"] < 1e-8
    assert ("loss_ce" in losses) == (alpha < 1)


def test_several_labels_an_image():
    """Sigmoid heads learn by the loss of sigmoids, and softmax heads by that of softmax."""
    several = wrn()
    several["head"] = dict(type="mmpretrain.MultiLabelLinearClsHead", num_classes=4, in_channels=16)
    softmax = dict(type="mmkd_logit.ScaledKLDivLoss", tau=2)
    sigmoid = dict(type="mmkd_logit.ScaledBinaryKLDivLoss", tau=2)
    around = dict(type="mmkd_logit.LogitStandardization", loss=softmax)
    for loss in (softmax, around):
        with pytest.raises(ValueError, match=r"has others; take mmkd_logit.ScaledBinaryKLDivLoss"):
            LogitDistiller(build(several), build(several), loss)
    with pytest.raises(ValueError, match=r"has others; take mmkd_logit.ScaledKLDivLoss"):
        LogitDistiller(build(wrn()), build(wrn()), sigmoid)
    for loss in (sigmoid, dict(type="mmkd_logit.LogitMSELoss")):
        model = LogitDistiller(build(several), build(several), loss, alpha=0.5)
        inputs, samples = batch()
        losses = model(inputs, samples, mode="loss")
        want = model.loss_kd(model.student(inputs), model.teachers[0](inputs))
        assert losses["kd"] == want
        sum(value for key, value in losses.items() if "loss" in key).backward()
    mixed = LogitDistiller(build(several), build(wrn()), sigmoid)
    with pytest.raises(ValueError, match=r"only one of teacher .* and the student has a head"):
        mixed.init_weights()


def test_several_labels_have_no_softmax_probabilities():
    head = dict(type="mmpretrain.MultiLabelLinearClsHead", num_classes=4, in_channels=64)
    student = wrn()
    student["head"] = head
    teacher = dict(config=student, checkpoint=None)
    model = build(distiller(student=student, teacher=[teacher, teacher]))
    with pytest.raises(ValueError, match="MultiLabelLinearClsHead has others; take ensemble='log"):
        model.switch(ensemble="probs")
    model.switch(teacher=teacher, ensemble="probs")  # one needs no mean


class Negative(ImageClassifier):
    """Sees images otherwise than its layers do."""

    def forward(self, inputs, *args, **kwargs):
        return super().forward(-inputs, *args, **kwargs)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_forward_of_its_own_is_trained(alpha):
    student = Negative(**{key: value for key, value in wrn().items() if key != "type"})
    model = build(distiller(student=student, alpha=alpha)).eval()
    inputs, samples = batch()
    labels = torch.cat([sample.gt_label for sample in samples])
    losses = model(inputs, SampleBatch(labels, np.arange(len(labels)), (8, 8)), mode="loss")
    assert torch.equal(model.record.student_logits, model.student(inputs))
    if alpha < 1:
        assert losses["ce"] == model.student(inputs, samples, mode="loss")["loss"]


def test_terms_are_means_as_in_mmengine():
    """Also of a loss without reduction and of lists."""
    head = dict(wrn()["head"], loss=dict(type="mmpretrain.CrossEntropyLoss", reduction="none"))
    model = build(distiller(student=dict(wrn(), head=head), alpha=0.5))
    losses = model(*batch(), mode="loss")
    mean = model.student(*batch(), mode="loss")["loss"].mean()
    assert losses["ce"] == mean
    assert losses["loss_ce"] == 0.5 * mean
    found = _weigh(dict(loss=torch.ones(3), aux_loss=[torch.ones(2), torch.tensor(3.0)]), 0.5)
    assert {k: float(v) for k, v in found.items()} == dict(loss_ce=0.5, aux_loss=2.0, ce=5.0)
