"""Training accuracy from the logits of training itself."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from networks import build
from runs import assert_same, digits_distiller, digits_student, run_config, weights

from mmkd_logit.hooks.networks import LogitObserver

HOOK = dict(type="mmkd_logit.TrainAccuracyHook")
LAZY = dict(type="mmkd_logit.LazyRuntimeInfoHook")
KL = dict(type="mmkd_logit.ScaledKLDivLoss", tau=4)
IN_MEMORY = dict(
    type="mmkd_logit.InMemoryDataset",
    dataset=dict(
        type="mmkd_logit.Digits", indices=64, pipeline=[dict(type="mmpretrain.PackInputs")]
    ),
)


def rows(work_dir):
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in lines if any(key.endswith("loss") for key in row)]


@HOOKS.register_module(force=True)
class NoteLogits(Hook):
    """Runs the head again on the features that it got, before the step changes it."""

    def before_train(self, runner):
        self.each, self.inside = [], False
        runner.model.head.register_forward_pre_hook(self._note)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.inside = True
        self.labels = [int(sample.gt_label) for sample in data_batch["data_samples"]]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.inside = False

    def _note(self, head, args):
        if self.inside:
            logits = head.fc(args[0][-1].detach())
            right = [
                int(row.argmax()) == label for row, label in zip(logits, self.labels, strict=True)
            ]
            self.each.append((sum(right), len(right)))


def config(work_dir, model, interval=1, hooks=(HOOK,), batch_size=24, **kwargs):
    default = dict(
        logger=dict(type="LoggerHook", interval=interval, ignore_last=False), runtime_info=LAZY
    )
    kwargs.setdefault("default_hooks", default)
    return run_config(model, work_dir, batch_size=batch_size, custom_hooks=list(hooks), **kwargs)


def run(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


MODELS = {
    "plain": digits_student(),
    "alpha 1": digits_distiller(loss_kd=KL),
    "alpha 0.5": digits_distiller(loss_kd=KL, alpha=0.5),
    "alpha 0": digits_distiller(loss_kd=KL, alpha=0.0),
}


@pytest.mark.parametrize(
    ("name", "interval", "in_memory"),
    [
        ("plain", 1, False),
        ("plain", 2, True),
        ("alpha 1", 1, True),
        ("alpha 0.5", 2, False),
        ("alpha 0.5", 1, True),
        ("alpha 0", 1, False),
    ],
)
def test_is_the_mean_over_the_epoch_so_far(tmp_path, name, interval, in_memory):
    """64 images in batches of 24: the last one of an epoch has 16 and counts less."""
    cfg = config(tmp_path, MODELS[name], interval, [HOOK, dict(type="NoteLogits")])
    if in_memory:
        cfg.train_dataloader.dataset = IN_MEMORY
        cfg.train_dataloader.collate_fn = dict(type="mmkd_logit.batch_collate")
        cfg.data_preprocessor.type = "mmkd_logit.BatchPreprocessor"
    runner = run(cfg)
    (note,) = (hook for hook in runner.hooks if type(hook).__name__ == "NoteLogits")
    assert [n for _, n in note.each] == [24, 24, 16] * 2
    lines = rows(tmp_path)
    assert len(lines) == (6 if interval == 1 else 4)
    for row in lines:
        begin = 3 * (row["epoch"] - 1)
        right, total = map(sum, zip(*note.each[begin : row["iter"]], strict=True))
        assert row["batch_top1"] == pytest.approx(100 * right / total, abs=1e-4)
    assert len({row["batch_top1"] for row in lines}) > 1


def test_weights_are_the_same_bits_without_it(tmp_path):
    watched = run(config(tmp_path / "a", digits_distiller(alpha=0.5)))
    plain = run(config(tmp_path / "b", digits_distiller(alpha=0.5), hooks=()))
    assert "batch_top1" not in rows(tmp_path / "b")[0]
    assert_same(weights(watched), weights(plain))


def test_mixed_labels_are_not_guessed(tmp_path):
    model = digits_student()
    model["train_cfg"] = dict(augments=dict(type="Mixup", alpha=0.8))
    model["head"]["loss"] = dict(type="mmpretrain.CrossEntropyLoss", use_soft=True)
    run(config(tmp_path, model, epochs=1))
    assert rows(tmp_path)
    assert not [row for row in rows(tmp_path) if "batch_top1" in row]


def test_no_labels_are_no_accuracy(tmp_path):
    class Unlabelled(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            for sample in data_batch["data_samples"]:
                del sample.gt_label

    runner = Runner.from_cfg(config(tmp_path, digits_distiller(loss_kd=KL), epochs=1))
    runner.register_hook(Unlabelled())
    runner.train()
    assert rows(tmp_path)
    assert not [row for row in rows(tmp_path) if "batch_top1" in row]


def test_validation_is_not_observed(tmp_path):
    """It passes the same modules, whose hooks are removed at the end."""
    runner = Runner.from_cfg(config(tmp_path, digits_student(), epochs=1))
    seen = []

    class Look(Hook):
        def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            (hook,) = (h for h in runner.hooks if type(h).__name__ == "TrainAccuracyHook")
            seen.append(hook._observers[""].take())

    runner.register_hook(Look())
    hooks = len(runner.model.head._forward_hooks)
    runner.train()
    assert seen == [{}] * 3
    assert len(runner.model.head._forward_hooks) == hooks


def test_a_loop_that_counts_iterations(tmp_path):
    cfg = config(tmp_path, digits_student(), hooks=[HOOK, dict(type="NoteLogits")])
    cfg.train_cfg = dict(by_epoch=False, max_iters=5, val_interval=100)
    cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    cfg.log_processor = dict(by_epoch=False)
    cfg.param_scheduler = None
    runner = run(cfg)
    (note,) = (hook for hook in runner.hooks if type(hook).__name__ == "NoteLogits")
    lines = rows(tmp_path)
    assert [row["iter"] for row in lines] == [1, 2, 3, 4, 5]
    right, total = map(sum, zip(*note.each[3:5], strict=True))
    assert lines[-1]["batch_top1"] == pytest.approx(100 * right / total, abs=1e-4)


def test_students_of_a_group_have_their_own(tmp_path):
    """Each what it has in a run of its own."""
    preprocessor = dict(num_classes=10, mean=[78.0], std=[96.0])
    students = dict(ce=digits_student(), kl=digits_distiller(loss_kd=KL))
    alone = {}
    for name, model in students.items():
        run(config(tmp_path / name, model, val_cfg=None, val_dataloader=None, val_evaluator=None))
        alone[name] = [row["batch_top1"] for row in rows(tmp_path / name)]
        model["data_preprocessor"] = preprocessor
    cfg = config(
        tmp_path / "group", dict(type="mmkd_logit.StudentGroup", students=students, seeds=3)
    )
    cfg.optim_wrapper = dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students=dict.fromkeys(students, cfg.optim_wrapper.to_dict()),
    )
    cfg.param_scheduler = {name: [cfg.param_scheduler] for name in students}
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    run(cfg)
    for name, values in alone.items():
        assert [row[f"{name}/batch_top1"] for row in rows(tmp_path / "group")] == values
    assert alone["ce"] != alone["kl"]


def test_the_log_does_not_wait_for_its_device(tmp_path):
    """What is noted is a tensor, taken to the host when somebody reads it."""
    noted = []

    class Look(Hook):
        priority = "LOW"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            noted.append(outputs["batch_top1"])

    runner = Runner.from_cfg(config(tmp_path, digits_student(), epochs=1))
    runner.register_hook(Look())
    runner.train()
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in noted)


class Passes(Hook):
    """Runs batches in training mode after an epoch, as PreciseBNHook does."""

    def after_train_epoch(self, runner):
        with torch.no_grad():
            for data in runner.train_dataloader:
                data = runner.model.data_preprocessor(data, training=True)
                runner.model(**data, mode="loss")


def test_passes_of_other_hooks_do_not_count(tmp_path):
    logged = []
    for name, more in (("a", []), ("b", [Passes()])):
        runner = Runner.from_cfg(config(tmp_path / name, digits_student()))
        for each in runner.model.modules():  # so that the passes change nothing
            each.momentum = 0.0 if hasattr(each, "running_mean") else None
        for each in more:
            runner.register_hook(each)
        runner.train()
        logged.append([row["batch_top1"] for row in rows(tmp_path / name)])
    assert len(logged[0]) == 6
    assert logged[0] == logged[1]


def test_a_margin_is_not_looked_at():
    cfg = digits_student()
    cfg["head"] = {**cfg["head"], "type": "mmpretrain.ArcFaceClsHead"}
    cfg["head"].pop("init_cfg", None)
    model = build(cfg).train()
    inputs = torch.randn(16, 1, 8, 8)
    observer = LogitObserver(model, training=True)
    labels = model(inputs).argmax(1)
    observer.take()
    model.loss(inputs, [DataSample().set_gt_label(int(label)) for label in labels])
    assert torch.equal(observer.take()["logits"].argmax(1), labels)
