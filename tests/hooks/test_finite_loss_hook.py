"""Training that diverges is stopped, with the iteration, the samples and the terms of the loss."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from runs import assert_same, digits_distiller, digits_student, run_config, weights
from torch import nn

from mmkd_logit.hooks import finite_loss as finite_loss_hook

HOOK = dict(type="mmkd_logit.FiniteLossHook")
LAZY = dict(runtime_info=dict(type="mmkd_logit.LazyRuntimeInfoHook"))
TERMS = {"ce", "kd", "loss_ce", "loss_kd", "loss"}
SAVED = dict(
    logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", interval=1)
)
SELDOM = dict(logger=dict(type="LoggerHook", interval=100))


def poison_student(model):
    model.head.fc.weight.data.fill_(float("nan"))


def poison_teacher(model):
    model.teachers[0].model.head.fc.bias.data.fill_(float("inf"))


def poison_one(model):
    model.loss_kd.broken = True


def poison_second(model):
    poison_student(model.students["b"])


@HOOKS.register_module(force=True)  # pytest imports this file twice
class Poison(Hook):
    """Breaks something before an iteration, and notes each batch's samples."""

    priority = "VERY_LOW"

    def __init__(self, at, do):
        self.at, self.do = at, globals()[do]
        self.samples = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.samples.append([sample.sample_idx for sample in data_batch["data_samples"]])
        if runner.iter == self.at:
            self.do(runner.model)


@HOOKS.register_module(force=True)
class BreakWeights(Hook):
    """Breaks a weight when an iteration is over and its loss was fine."""

    priority = "HIGH"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 3:
            poison_student(runner.model)


@MODELS.register_module(force=True)
class Breakable(nn.Module):
    """A loss that is fine until it is not."""

    broken = False

    def forward(self, student_logits, teacher_logits):
        loss = (student_logits - teacher_logits).square().mean()
        return loss * float("inf") if self.broken else loss


def error_of(model, work_dir, at=2, do="poison_student", hooks=(), watch=HOOK, **kwargs):
    """Train until it stops.

    Returns:
        The message, and the samples of each batch.
    """
    poison = [dict(type="Poison", at=at, do=do)] if do else []
    cfg = run_config(model, work_dir, custom_hooks=[*hooks, watch, *poison], **kwargs)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match="training stopped") as caught:
        runner.train()
    message = str(caught.value)
    assert "\n" not in message
    return message, [h.samples for h in runner.hooks if type(h).__name__ == "Poison"]


def test_student(tmp_path):
    message, ((*_, samples),) = error_of(digits_distiller(alpha=0.5), tmp_path)
    told = re.fullmatch(
        r"training stopped at iteration 3 \(epoch 1\): the loss is not finite: (.*); the student's "
        r"logits are not finite for 16 of 16 samples, first sample (\d+); the teacher's logits are "
        r"finite; the batch has samples ([\d, ]+)\. Lower the learning rate or look at these "
        r"samples, then begin anew",
        message,
    )
    assert told, message
    assert {each.partition("=")[0] for each in told[1].split(", ")} == TERMS
    assert told[1].count("=nan") == 5
    assert int(told[2]) == samples[0]
    assert told[3] == ", ".join(map(str, samples))


def test_plain_student_of_a_later_epoch(tmp_path):
    message, ((*_, samples),) = error_of(digits_student(), tmp_path, at=5, default_hooks=SAVED)
    assert "at iteration 6 (epoch 2)" in message
    assert f"the batch has samples {', '.join(map(str, samples))}" in message
    assert "go on from epoch_1.pth with --resume" in message
    assert not Path(tmp_path, "epoch_2.pth").exists()


def test_teacher(tmp_path):
    message, _ = error_of(digits_distiller(), tmp_path, do="poison_teacher")
    assert "the teacher's logits are not finite for 16 of 16 samples" in message
    assert "the student's logits are finite" in message


def test_loss_of_finite_logits(tmp_path):
    message, _ = error_of(
        digits_distiller(loss_kd=dict(type="Breakable")), tmp_path, do="poison_one"
    )
    assert "loss_kd=inf" in message
    assert "; the student's logits are finite; the teacher's logits are finite; " in message


@pytest.mark.parametrize(
    ("watch", "done"), [(HOOK, 4), (dict(HOOK, limit=3), 3), (dict(HOOK, limit=1), 2)]
)
@pytest.mark.parametrize("more", [{}, LAZY])
def test_iterations_are_looked_at_together(tmp_path, watch, done, more):
    """At the end of the epoch, or after ``limit`` iterations; what is told is the first one."""
    hooks = {**SELDOM, **more, "checkpoint": dict(type="CheckpointHook", interval=1)}
    message, (samples,) = error_of(
        digits_student(), tmp_path, at=1, watch=watch, default_hooks=hooks
    )
    assert len(samples) == done
    assert "at iteration 2 (epoch 1)" in message
    assert f"the batch has samples {', '.join(map(str, samples[1]))}" in message


def test_terms_are_those_of_the_iteration(tmp_path):
    """A stage without distillation logs no loss_kd; that of an iteration before is no term."""
    stages = [dict(begin=2, alpha=0.0)]
    switch = dict(type="mmkd_logit.SequentialTeacherHook", stages=stages, by_epoch=False)
    message, _ = error_of(
        digits_distiller(alpha=0.5), tmp_path, at=3, hooks=[switch], default_hooks=SELDOM
    )
    assert "at iteration 4 (epoch 1)" in message
    assert "loss_kd" not in message
    assert "loss_ce=nan" in message


def test_inner_losses_of_stages(tmp_path):
    stages = [dict(begin=1, loss_kd=dict(type="Breakable"), alpha=0.25)]
    switch = dict(type="mmkd_logit.SequentialTeacherHook", stages=stages)
    message, ((*_, samples),) = error_of(
        digits_distiller(), tmp_path, at=6, do="poison_one", hooks=[switch]
    )
    assert "at iteration 7 (epoch 2)" in message
    assert "loss_kd=inf" in message
    assert f"the batch has samples {', '.join(map(str, samples))}" in message


def test_student_of_a_group(tmp_path):
    group = dict(
        type="mmkd_logit.StudentGroup",
        students=dict(a=digits_student(), b=digits_distiller()),
        seeds=0,
    )
    optimizer = dict(optimizer=dict(type="SGD", lr=0.05))
    message, _ = error_of(
        group,
        tmp_path,
        do="poison_second",
        optim_wrapper=dict(
            constructor="mmkd_logit.StudentGroupOptimConstructor",
            students=dict(a=optimizer, b=optimizer),
        ),
        param_scheduler=None,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    assert "the loss of the student b is not finite: " in message
    assert "the student's logits are not finite" in message


def test_weights_are_looked_at_before_they_are_written(tmp_path):
    message, _ = error_of(
        digits_student(),
        tmp_path,
        do=None,
        hooks=[dict(type="BreakWeights")],
        default_hooks=SAVED,
    )
    assert "training stopped after iteration 4: the weights head.fc.weight are NaN or infinite" in (
        message
    )
    assert not list(tmp_path.glob("*.pth"))


def test_it_changes_nothing(tmp_path):
    found = []
    for name, hooks in (("with", [HOOK]), ("without", [])):
        runner = Runner.from_cfg(
            run_config(digits_distiller(), tmp_path / name, custom_hooks=hooks)
        )
        runner.train()
        found.append(weights(runner))
        assert not runner.model.head._forward_hooks
    assert_same(*found)


def test_all_processes_stop_with_the_words_of_the_one_that_knows(tmp_path, monkeypatch):
    """The second of two processes has the broken batch; this is the first."""
    looks = []

    def gather(text):
        looks.append(text)
        return [text, "at 3" if len(looks) == 3 else None]

    monkeypatch.setattr(finite_loss_hook, "all_gather_object", gather)
    message, (samples,) = error_of(digits_student(), tmp_path, at=99)
    assert looks == [None] * 3
    assert len(samples) == 3
    assert message.startswith("training stopped at 3 (process 1). Lower the learning rate")


def test_a_network_that_it_does_not_know(tmp_path):
    """It says what it can."""
    runner = Runner.from_cfg(run_config(digits_student(), tmp_path))
    hook = finite_loss_hook.FiniteLossHook()
    hook._networks = {"": (nn.Identity(), None)}
    broken = torch.tensor([float("nan")])
    hook._records = [finite_loss_hook.Record(0, 0, None, {}, ("loss",), broken)]
    text = hook._find(runner)
    assert text.endswith("the loss is not finite: loss=nan; its logits were not seen")
