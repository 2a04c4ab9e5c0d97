"""The distiller inside MMEngine's Runner."""

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
