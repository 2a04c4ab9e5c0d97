"""The distiller inside MMEngine's Runner."""

import copy

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from runs import (
    assert_same,
    digits_distiller,
    digits_student,
    run_config,
    train,
    weights,
)

MIXUP = dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)])


def test_alpha_zero_equals_plain_training_bit_for_bit(tmp_path):
    """20 iterations with shuffling, dropout, MixUp and CutMix; a teacher is built and loaded."""
    student = digits_student(drop_rate=0.3, train_cfg=MIXUP)
    checkpoint = tmp_path / "teacher.pth"
    teacher = digits_student(widen_factor=2)
    runner = train(teacher, tmp_path / "teacher", epochs=1)
    torch.save(runner.model.state_dict(), checkpoint)

    plain = train(student, tmp_path / "plain", epochs=5)
    model = digits_distiller(
        student, alpha=0.0, teacher=dict(config=teacher, checkpoint=str(checkpoint))
    )
    ours = train(model, tmp_path / "ours", epochs=5)
    assert ours.iter == 20
    assert ours.model.teachers[0]._model is not None
    assert_same(weights(plain), weights(ours))
    # The control: any alpha above 0 gives other weights.
    other = train({**model, "alpha": 0.01}, tmp_path / "other", epochs=5)
    assert not torch.equal(weights(other)["head.fc.weight"], weights(ours)["head.fc.weight"])


def test_checkpoint_is_the_plain_students(tmp_path):
    runner = train(digits_distiller(alpha=0.5), tmp_path / "kd")
    path = str(tmp_path / "kd" / "epoch_2.pth")
    saved = torch.load(path, weights_only=False)
    plain = Runner.from_cfg(
        run_config(digits_student(), tmp_path / "plain", load_from=path, resume=False)
    )
    assert list(saved["state_dict"]) == list(plain.model.state_dict())
    parameters = sum(len(group["params"]) for group in saved["optimizer"]["param_groups"])
    assert parameters == len(list(plain.model.parameters()))
    assert plain.test() == runner.test()
    assert_same(weights(plain), weights(runner))


def test_teacher_is_bit_unchanged_by_training(tmp_path):
    runner = Runner.from_cfg(run_config(digits_distiller(alpha=0.5), tmp_path))
    runner.model.init_weights()
    teacher = runner.model.teachers[0].model
    before = copy.deepcopy(teacher.state_dict())
    student_before = weights(runner)
    runner.train()
    assert_same(before, teacher.state_dict())
    assert not torch.equal(student_before["head.fc.weight"], weights(runner)["head.fc.weight"])


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    model = digits_distiller(alpha=0.5)
    whole = train(model, tmp_path / "whole", epochs=3)
    train(model, tmp_path / "parts", epochs=3, **_stop_after(1))
    resumed = train(model, tmp_path / "parts", epochs=3, resume=True)
    assert resumed.iter == whole.iter == 12
    assert_same(weights(whole), weights(resumed))
    momenta = [list(r.optim_wrapper.optimizer.state.values()) for r in (whole, resumed)]
    for a, b in zip(*momenta, strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def _stop_after(epoch):
    return dict(custom_hooks=[dict(type="StopAfter", epoch=epoch)])


@pytest.mark.parametrize("update_buffers", [False, True])
def test_ema_averages_the_student_and_resumes(tmp_path, update_buffers):
    ema = dict(type="EMAHook", momentum=0.2, update_buffers=update_buffers)
    model = digits_distiller(alpha=0.5)
    best = dict(
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", save_best="auto", interval=1),
        )
    )
    whole = train(model, tmp_path / "whole", epochs=2, custom_hooks=[ema], **best)
    hook = next(h for h in whole.hooks if isinstance(h, EMAHook))
    averaged = hook.ema_model.module
    assert averaged.teachers[0] is whole.model.teachers[0]  # copied zero times
    assert list(averaged.state_dict()) == list(digits_plain().state_dict())
    assert not torch.equal(averaged.head.fc.weight, whole.model.head.fc.weight)

    for name in ("epoch_2.pth", *[p.name for p in (tmp_path / "whole").glob("best_*.pth")]):
        saved = torch.load(tmp_path / "whole" / name, weights_only=False)
        assert list(saved["state_dict"]) == list(digits_plain().state_dict()), name
    assert len(list((tmp_path / "whole").glob("best_*.pth"))) == 1

    stop = dict(type="StopAfter", epoch=1)
    train(model, tmp_path / "parts", epochs=2, custom_hooks=[ema, stop], **best)
    resumed = train(model, tmp_path / "parts", epochs=2, resume=True, custom_hooks=[ema], **best)
    again = next(h for h in resumed.hooks if isinstance(h, EMAHook))
    assert_same(weights(whole), weights(resumed))
    assert_same(averaged.state_dict(), again.ema_model.module.state_dict())


def digits_plain():
    from mmpretrain.registry import MODELS

    return MODELS.build(digits_student())


def test_gradient_accumulation_equals_the_large_batch(tmp_path):
    """Without BatchNorm's batch statistics two halves are the whole."""
    student = digits_student()
    student["backbone"]["norm_eval"] = True
    model = digits_distiller(student)
    accumulate = dict(
        optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-3),
        accumulative_counts=2,
    )
    whole = train(model, tmp_path / "whole", epochs=1, batch_size=16)
    halves = train(model, tmp_path / "halves", epochs=1, batch_size=8, optim_wrapper=accumulate)
    for key, value in weights(whole).items():
        torch.testing.assert_close(weights(halves)[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_final_checkpoint_teaches_the_next_student(tmp_path):
    hooks = dict(custom_hooks=[dict(type="mmkd_logit.FinalCheckpointHook")])
    first = train(digits_distiller(), tmp_path / "first", epochs=1, **hooks)
    second = digits_distiller(
        teacher=dict(config=digits_distiller(), checkpoint=str(tmp_path / "first" / "final.pth"))
    )
    runner = train(second, tmp_path / "second", epochs=1)
    assert_same(weights(first), dict(runner.model.teachers[0].model.state_dict()))


def test_logged_scalars(tmp_path):
    runner = train(digits_distiller(alpha=0.25), tmp_path, epochs=1)
    scalars = runner.message_hub.log_scalars
    last = {key: scalars[f"train/{key}"].current() for key in ("loss", "loss_ce", "loss_kd")}
    assert last["loss"] == pytest.approx(last["loss_ce"] + last["loss_kd"], rel=1e-6)
    kd, ce = scalars["train/kd"].current(), scalars["train/ce"].current()
    assert last["loss_kd"] == pytest.approx(0.25 * kd, rel=1e-6)
    assert last["loss_ce"] == pytest.approx(0.75 * ce, rel=1e-6)
    assert 0 <= scalars["train/teacher_agreement"].current() <= 1
