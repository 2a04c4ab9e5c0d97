"""What metrics are shown: the logits of the very prediction, and the teacher's for it."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS
from mmengine.runner import Runner
from runs import assert_same, digits_distiller, digits_student, run_config, weights

from mmkd_logit.hooks import LogitOutputsHook, logit_outputs
from mmkd_logit.hooks.logit_outputs import BatchMemory

OUTPUTS = dict(type="mmkd_logit.LogitOutputsHook")
FIELDS = ("logits", "prelogits", "teacher_logits", "teacher_prelogits")


@METRICS.register_module(force=True)
class KeepFields(BaseMetric):
    """Keeps what the samples show."""

    default_prefix = "kept"
    rounds: list = []  # noqa: RUF012

    def process(self, data_batch, data_samples):
        self.results.extend(dict(sample) for sample in data_samples)

    def compute_metrics(self, results):
        type(self).rounds.append(results)
        return dict(n=len(results))


@HOOKS.register_module(force=True)
class CountTeacher(Hook):
    """Counts the images that the teacher computes outside of training."""

    def before_train(self, runner):
        self.images, self.training = [], True
        for teacher in runner.model.teachers:
            teacher.model.register_forward_hook(self._note)

    def _note(self, module, args, output):
        if not self.training:
            self.images[-1] += len(output)

    def before_val(self, runner):
        self.training = False
        self.images.append(0)

    def after_val(self, runner):
        self.training = True


def run(tmp_path, model, hooks=(OUTPUTS,), images=64, **kwargs):
    KeepFields.rounds = []
    cfg = run_config(model, tmp_path, images=images, custom_hooks=list(hooks), **kwargs)
    cfg.val_evaluator = cfg.test_evaluator = [dict(type="Accuracy"), dict(type="KeepFields")]
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def stacked(samples, name):
    return torch.stack([sample[name] for sample in samples])


def inputs_of(runner, loader):
    model = runner.model
    return torch.cat([model.data_preprocessor(batch, False)["inputs"] for batch in loader])


def test_fields_are_those_of_the_prediction(tmp_path):
    runner = run(tmp_path, digits_distiller(), hooks=[dict(OUTPUTS, prelogits="all")])
    runner.test()
    samples, model = KeepFields.rounds[-1], runner.model.eval()
    with torch.no_grad():
        inputs = inputs_of(runner, runner.test_dataloader)
        features = model.neck(model.backbone(inputs))[-1]
        teacher = model.teachers[0].model
        theirs = teacher.neck(teacher.backbone(inputs))[-1]
        expected = (
            *(features @ model.head.fc.weight.T + model.head.fc.bias, features),
            *(teacher.head.fc(theirs), theirs),
        )
    for name, values in zip(FIELDS, expected, strict=True):
        shown = stacked(samples, name)
        assert shown.dtype == torch.float32
        assert not shown.requires_grad
        assert shown.shape == values.shape
        torch.testing.assert_close(shown, values, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        stacked(samples, "logits").softmax(1), stacked(samples, "pred_score").cpu()
    )


def test_a_plain_model_has_no_teacher(tmp_path):
    run(tmp_path, digits_student())
    for samples in KeepFields.rounds:
        assert {name for name in FIELDS if name in samples[0]} == {"logits", "prelogits"}


@pytest.mark.parametrize(
    ("model", "hook"),
    [(digits_distiller(alpha=0.0), OUTPUTS), (digits_distiller(), dict(OUTPUTS, teacher=False))],
)
def test_a_teacher_that_nobody_asks_does_not_run(tmp_path, model, hook):
    runner = run(tmp_path, model, hooks=[hook, dict(type="CountTeacher")])
    (count,) = (each for each in runner._hooks if isinstance(each, CountTeacher))
    assert count.images == [0, 0]
    assert "teacher_logits" not in KeepFields.rounds[-1][0]


def test_the_teacher_sees_validation_images_once(tmp_path):
    runner = run(tmp_path, digits_distiller(), hooks=[OUTPUTS, dict(type="CountTeacher")], epochs=3)
    (count,) = (each for each in runner._hooks if isinstance(each, CountTeacher))
    assert count.images == [64, 0, 0]
    first, *others = (stacked(samples, "teacher_logits") for samples in KeepFields.rounds)
    for other in others:
        assert torch.equal(first, other)
    # The student's are of each epoch's weights.
    assert not torch.equal(*(stacked(KeepFields.rounds[i], "logits") for i in (0, 1)))


def test_training_is_the_same_without(tmp_path):
    model = digits_distiller()
    a = run(tmp_path / "a", model)
    b = run(tmp_path / "b", model, hooks=[])
    assert_same(weights(a), weights(b))
    assert "logits" not in KeepFields.rounds[-1][0]


def test_other_students_of_a_group_do_not_leak(tmp_path):
    wide = digits_student(widen_factor=2)
    students = dict(
        s0=digits_student(), s1=digits_distiller(), s2=digits_distiller(student=wide, alpha=0.5)
    )
    cfg_group = dict(type="mmkd_logit.StudentGroup", students=students, seeds=0)
    cfg = run_config(cfg_group, tmp_path, custom_hooks=[OUTPUTS])
    cfg.val_evaluator = [dict(type="Accuracy"), dict(type="KeepFields")]
    cfg.val_cfg = dict(type="mmkd_logit.StudentGroupValLoop")
    cfg.optim_wrapper = dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students={name: cfg.optim_wrapper for name in students},
    )
    KeepFields.rounds = []
    runner = Runner.from_cfg(cfg)
    runner.train()
    group, last = runner.model.eval(), KeepFields.rounds[-3:]
    with torch.no_grad():
        inputs = inputs_of(runner, runner.val_dataloader)
        for samples, (name, student) in zip(last, group.students.items(), strict=True):
            torch.testing.assert_close(stacked(samples, "logits"), student(inputs), atol=1e-5,
                                       rtol=1e-4)  # fmt: skip
            assert ("teacher_logits" in samples[0]) == (name != "s0")


def test_hooks_are_gone_afterwards(tmp_path):
    runner = run(tmp_path, digits_distiller())
    runner.test()
    for module in (runner.model, *runner.model.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_validation_that_was_broken_off_leaves_no_second_hook(tmp_path):
    runner = run(tmp_path, digits_distiller())
    hook = next(each for each in runner._hooks if isinstance(each, LogitOutputsHook))
    hook.before_val(runner)
    hook.before_val(runner)
    assert len(runner.model.head._forward_hooks) == 1


def test_augmented_images_are_told_apart():
    memory, calls = BatchMemory(), []
    images = torch.rand(4, 3, 5, 5)

    def compute(value):
        calls.append(value)
        return torch.full((4, 2), float(value))

    assert memory(("t",), images, lambda: compute(0)).unique() == 0
    assert memory(("t",), images.clone(), lambda: compute(1)).unique() == 0
    other = images.clone()
    other[2, 1, 4, 4] = torch.nextafter(other[2, 1, 4, 4], torch.tensor(2.0))  # one bit
    assert memory(("t",), other, lambda: compute(2)).unique() == 2
    assert memory(("t",), images.flip(0), lambda: compute(3)).unique() == 3
    assert memory(("t",), images.transpose(2, 3), lambda: compute(4)).unique() == 4
    assert memory(("another",), images, lambda: compute(5)).unique() == 5
    laid_out = images.to(memory_format=torch.channels_last)
    assert memory(("t",), laid_out, lambda: compute(6)).unique() == 0
    memory.keep = False
    new = torch.rand(4, 3, 5, 5)
    assert [memory(("t",), new, lambda: compute(7)).unique() for _ in range(2)] == [7, 7]
    assert calls == [0, 2, 3, 4, 5, 7, 7]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.uint8])
def test_any_type_of_images(dtype):
    memory = BatchMemory()
    images = (torch.rand(2, 1, 3, 3) * 100).to(dtype)
    assert memory((), images, lambda: torch.tensor(1)) == 1
    assert memory((), images.clone(), lambda: torch.tensor(2)) == 1
    assert memory((), images + 1, lambda: torch.tensor(3)) == 3


def test_an_ensemble_is_one_teacher(tmp_path):
    teacher = dict(config=digits_student(widen_factor=2), checkpoint=None)
    other = dict(config=digits_student(), checkpoint=None)
    runner = run(tmp_path, digits_distiller(teacher=[teacher, other]), epochs=1)
    model = runner.model.eval()
    with torch.no_grad():
        inputs = inputs_of(runner, runner.val_dataloader)
        expected = sum(each.model.eval()(inputs) for each in model.teachers) / 2
    torch.testing.assert_close(
        stacked(KeepFields.rounds[-1], "teacher_logits"), expected, rtol=1e-4, atol=1e-5
    )


def test_a_cached_teacher_is_asked_aside_of_its_cache(tmp_path):
    teacher = dict(
        config=digits_student(), checkpoint=None, cache=dict(storage="memory"), micro_batch=7
    )
    in_memory = dict(
        type="mmkd_logit.InMemoryDataset",
        dataset=dict(
            type="mmkd_logit.Digits", indices=64, pipeline=[dict(type="mmpretrain.PackInputs")]
        ),
    )
    cfg = run_config(digits_distiller(teacher=teacher), tmp_path, custom_hooks=[OUTPUTS], epochs=1)
    cfg.data_preprocessor["type"] = "mmkd_logit.BatchPreprocessor"
    cfg.train_dataloader.dataset = ConfigDict(in_memory)
    cfg.train_dataloader.update(collate_fn=dict(type="mmkd_logit.batch_collate"))
    cfg.val_evaluator = [dict(type="KeepFields")]
    KeepFields.rounds = []
    runner = Runner.from_cfg(cfg)
    runner.train()
    cache = runner.model.teachers[0].cache
    assert len(KeepFields.rounds[-1]) == 64
    assert KeepFields.rounds[-1][0]["teacher_logits"].shape == (10,)
    assert cache.hits + cache.misses == 64  # those of training alone


def test_a_model_that_is_no_classifier_is_left_alone(tmp_path):
    runner = run(tmp_path, digits_student())
    runner.model = torch.nn.Linear(2, 2)
    hook = LogitOutputsHook()
    hook.before_test(runner)
    assert not runner.model._forward_hooks
    assert not hook._handles


@pytest.mark.parametrize("on_gpu", [False, True])
def test_scores_and_labels_on_a_gpu_come_in_one_copy(tmp_path, monkeypatch, on_gpu):
    """Metrics would copy those of each sample, and wait."""
    joined, stack = [], torch.stack

    def counted(tensors, *args, **kwargs):
        joined.append(len(tensors))
        return stack(tensors, *args, **kwargs)

    with monkeypatch.context() as patch:
        if on_gpu:
            patch.setattr(torch.Tensor, "is_cpu", False)
        patch.setattr(logit_outputs.torch, "stack", counted)
        run(tmp_path, digits_student(), epochs=1)
    assert (joined.count(16) >= 3 * 4) == on_gpu  # of 4 batches
    samples = KeepFields.rounds[0]
    assert torch.equal(
        stacked(samples, "pred_score").argmax(1), stacked(samples, "pred_label")[:, 0]
    )
    assert torch.equal(stacked(samples, "pred_score"), stacked(samples, "logits").softmax(1))
