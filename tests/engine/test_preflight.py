"""What cannot work is said before the first iteration; what can is let alone.

Wrong data and weights given to the tools are in ``tests/bad_input``.
"""

import copy
import math
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import DATASETS, HOOKS, MODELS, Registry
from mmengine.runner import Runner
from mmpretrain.models import LinearClsHead
from runs import assert_same, digits_distiller, digits_student, run_config, weights
from torch.utils.data import IterableDataset, Sampler

from mmkd_logit.datasets import Digits
from mmkd_logit.engine.check import check_config
from mmkd_logit.engine.preflight import check_loaded, is_known
from mmkd_logit.losses.base import LogitLoss

HOOK = dict(type="mmkd_logit.PreflightHook")
EARLY = dict(type="EarlyStoppingHook", monitor="acuracy/top1", rule="greater")
ONCE = dict(epochs=1, images=16, param_scheduler=None)


@HOOKS.register_module(force=True)  # pytest imports this file twice
class Counts(Hook):
    """Counts iterations."""

    done = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.done += 1


@DATASETS.register_module(force=True)
class Odd(Digits):
    """Digits of which every second label is left out by the loss, and none is above four."""

    def load_data_list(self):
        found = super().load_data_list()
        for number, each in enumerate(found):
            each["gt_label"] = -100 if number % 2 else each["gt_label"] % 5
        return found


@MODELS.register_module(force=True)
class TwoHeads(LinearClsHead):
    """A head of one's own, which gives no matrix of logits."""

    def forward(self, feats):
        logits = super().forward(feats)
        return logits if self.training else (logits, logits)

    def predict(self, feats, data_samples=None):
        return self._get_predictions(super().forward(feats), data_samples)


@MODELS.register_module(force=True)
class NeedsLabels(TwoHeads):
    """A head of one's own that does not know evaluation without labels."""

    def forward(self, feats):
        raise NotImplementedError


def run_of(model, work_dir, **kwargs):
    settings = {**ONCE, "custom_hooks": [HOOK, dict(type="Counts")], **kwargs}
    return run_config(model, work_dir, **settings)


def error_of(cfg):
    """Return why a run does not begin."""
    runner = Runner.from_cfg(cfg)
    with pytest.raises(ValueError, match=r"\S") as caught:
        runner.train()
    (counts,) = (hook for hook in runner.hooks if isinstance(hook, Counts) or hasattr(hook, "done"))
    assert not counts.done
    message = str(caught.value)
    assert "\n" not in message
    return message


def iterations_of(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.iter


def test_it_leaves_no_trace(tmp_path):
    """Weights, BatchNorm's statistics, the random generators and what is drawn are the same."""
    found = []
    for name, hooks in (("with", [HOOK]), ("without", [])):
        model = digits_distiller(digits_student(drop_rate=0.3))
        runner = Runner.from_cfg(run_config(model, tmp_path / name, custom_hooks=hooks))
        runner.train()
        found.append({**weights(runner), "random": torch.get_rng_state()})
    assert_same(*found)


@pytest.mark.parametrize(("classes", "says"), [(9, "from 0 to 9 and the network has 9 classes")])
def test_labels(tmp_path, classes, says):
    student = digits_student()
    student["head"]["num_classes"] = classes
    cfg = run_of(student, tmp_path, images=200)
    assert says in error_of(cfg)


def test_teachers_of_this_stage_and_of_later_ones(tmp_path):
    colour = digits_student(widen_factor=2)
    colour["backbone"]["in_channels"] = 3
    teacher = dict(config=colour, checkpoint=None)
    message = error_of(run_of(digits_distiller(teacher=teacher), tmp_path / "now"))
    assert "teacher mmkd_logit.WideResNetCIFAR cannot take the training images" in message
    stages = [dict(begin=1, teacher=teacher)]
    later = dict(type="mmkd_logit.SequentialTeacherHook", stages=stages)
    cfg = run_of(digits_distiller(), tmp_path / "later", epochs=2)
    cfg.custom_hooks = [later, *cfg.custom_hooks]
    assert "cannot take the training images" in error_of(cfg)


def test_metrics_of_the_test(tmp_path):
    metric = dict(type="mmkd_logit.ExpectedCalibrationError", num_bins=0)
    assert "num_bins" in error_of(run_of(digits_student(), tmp_path, test_evaluator=metric))


def test_normalised_to_no_numbers(tmp_path):
    cfg = run_of(digits_student(), tmp_path)
    cfg.data_preprocessor["std"] = [0.0]
    assert "look at mean and std of data_preprocessor" in error_of(cfg)


def test_weights(tmp_path):
    model = MODELS.build(dict(copy.deepcopy(digits_student()), data_preprocessor=None))
    state = model.state_dict()
    state["backbone.groups.0.0.norm1.running_var"][0] = float("inf")
    torch.save(dict(state_dict=state), tmp_path / "inf.pth")
    message = error_of(run_of(digits_student(), tmp_path / "run", load_from=f"{tmp_path}/inf.pth"))
    assert "backbone.groups.0.0.norm1.running_var hold NaN or infinity" in message
    assert "take a checkpoint from before training diverged" in message


def test_groups_name_the_student(tmp_path):
    wrong = digits_student()
    wrong["backbone"]["in_channels"] = 3
    optimizer = dict(optimizer=dict(type="SGD", lr=0.05))
    group = dict(
        type="mmkd_logit.StudentGroup", students=dict(a=digits_student(), b=wrong), seeds=0
    )
    cfg = run_of(
        group,
        tmp_path,
        optim_wrapper=dict(
            constructor="mmkd_logit.StudentGroupOptimConstructor",
            students=dict(a=optimizer, b=optimizer),
        ),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    assert "the student b cannot take the training images" in error_of(cfg)


def test_labels_that_the_loss_leaves_out_pass(tmp_path):
    student = digits_student()
    student["head"].update(num_classes=5)
    cfg = run_of(student, tmp_path)
    cfg.data_preprocessor.num_classes = 5
    for name in ("train_dataloader", "val_dataloader"):
        cfg[name]["dataset"]["type"] = "Odd"
    assert iterations_of(cfg) == 1


@pytest.mark.parametrize("head", ["TwoHeads", "NeedsLabels"])
def test_heads_of_ones_own_pass(tmp_path, head):
    """Whatever they do in evaluation; the second is not evaluated, nor trained to the end."""
    student = digits_student()
    student["head"]["type"] = head
    cfg = run_of(student, tmp_path)
    if head == "NeedsLabels":
        with pytest.raises(NotImplementedError):  # of its own, in the first iteration
            iterations_of(cfg)
    else:
        assert iterations_of(cfg) == 1


def test_a_network_without_a_head_that_counts_passes(tmp_path):
    student = digits_student()
    student["head"] = dict(
        type="mmpretrain.MultiTaskHead",
        task_heads=dict(only=dict(type="LinearClsHead", num_classes=10)),
        in_channels=16,
    )
    runner = Runner.from_cfg(run_of(student, tmp_path))
    runner.call_hook("before_run")
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == "PreflightHook")
    hook.before_train(runner)


def test_samplers_and_streams_of_ones_own_pass(tmp_path):
    class Own(Sampler):
        pass

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    loader = Runner.build_dataloader(run_of(digits_student(), tmp_path).train_dataloader)
    names = ("sampler", "batch_sampler", "collate_fn", "dataset")
    parts = {name: getattr(loader, name) for name in names}
    assert is_known(SimpleNamespace(**parts))
    own = Own.__new__(Own)
    others = dict(sampler=own, batch_sampler=own, collate_fn=lambda batch: batch, dataset=Stream())
    for name, other in others.items():
        assert not is_known(SimpleNamespace(**{**parts, name: other}))


# The gradient of distillation.


class Scaled(LogitLoss):
    """A loss of one's own that gives a wrong gradient."""

    label, shift_invariant = "scaled", False

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, student, teacher):
        return (student - teacher).square().mean() * self.factor


@pytest.mark.parametrize(
    ("factor", "says"), [(1e9, r"is \d\S*e\+\d\d, with which"), (math.nan, "is nan, with which")]
)
def test_gradients_that_would_destroy_the_student(tmp_path, factor, says):
    message = error_of(run_of(digits_distiller(loss_kd=Scaled(factor)), tmp_path))
    assert re.search(f"gradient of Scaled for the first logits of the student {says}", message)


def equal_logits():
    student = digits_student()
    student["head"]["init_cfg"] = dict(type="Constant", layer="Linear", val=0)
    return student


def test_a_gradient_that_stays_zero(tmp_path):
    """Of logits that are all equal; where cross-entropy moves them the run begins."""
    flat = dict(student=equal_logits(), loss_kd=Scaled(0))
    assert "is zero and stays so: all its logits are equal" in error_of(
        run_of(digits_distiller(**flat), tmp_path / "a")
    )
    assert iterations_of(run_of(digits_distiller(**flat, alpha=0.5), tmp_path / "b")) == 1


@pytest.mark.parametrize(
    ("loss", "more"),
    [
        (dict(type="mmkd_logit.LogitMSELoss"), dict(student=equal_logits())),
        (dict(type="mmkd_logit.DISTLoss"), dict(student=equal_logits())),
        (dict(type="mmkd_logit.DKDLoss"), {}),
        (dict(type="mmkd_logit.ScaledKLDivLoss", tau=0, scale="max(tau, tau^2)"), {}),
        (dict(type="mmkd_logit.ScaledKLDivLoss", tau=math.inf), {}),
        (dict(type="mmkd_logit.ScaledKLDivLoss", tau=4), dict(alpha=0)),
    ],
)
def test_right_gradients_pass(tmp_path, loss, more):
    assert iterations_of(run_of(digits_distiller(loss_kd=loss, **more), tmp_path)) == 1


def test_a_student_that_equals_its_teacher(tmp_path):
    """As where a run begins from its teacher's weights."""
    torch.manual_seed(0)
    network = MODELS.build(dict(digits_student(), data_preprocessor=None))
    torch.save(dict(state_dict=network.state_dict()), tmp_path / "w.pth")
    teacher = dict(config=digits_student(), checkpoint=str(tmp_path / "w.pth"))
    cfg = run_of(digits_distiller(teacher=teacher), tmp_path / "run")
    cfg.load_from = str(tmp_path / "w.pth")
    runner = Runner.from_cfg(cfg)
    warned = []
    runner.logger.warning = warned.append
    runner.train()
    assert "is zero; do student and teacher have the same weights?" in warned[0]


# Metrics.


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (dict(type="Accuracy", topk=[-1]), "Accuracy cannot measure the first validation images"),
        (dict(type="Accuracy", topk=11), "Accuracy cannot measure the first validation images"),
        (dict(type="Accuracy", topk=[]), "Accuracy cannot measure the first validation images"),
        (dict(type="mmkd_logit.TeacherAgreement", topk=11), "the network 10 classes"),
    ],
)
def test_metrics_that_cannot_measure(tmp_path, metric, says):
    cfg = run_of(digits_distiller(), tmp_path, val_evaluator=metric)
    cfg.custom_hooks.append(dict(type="mmkd_logit.LogitOutputsHook"))
    assert says in error_of(cfg)
    tested = run_of(digits_distiller(), tmp_path / "test", test_evaluator=cfg.val_evaluator)
    tested.custom_hooks[0] = dict(HOOK, test=True)
    tested.custom_hooks.append(dict(type="mmkd_logit.LogitOutputsHook"))
    assert says.replace("validation", "test") in error_of(tested)


@pytest.mark.parametrize(
    "changes",
    [
        dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="acuracy/top1"))),
        dict(custom_hooks=[HOOK, dict(type="Counts"), EARLY]),
        dict(
            param_scheduler=dict(type="ReduceOnPlateauLR", monitor="acuracy/top1", rule="greater")
        ),
    ],
)
def test_metrics_that_are_followed_and_do_not_exist(tmp_path, changes):
    cfg = run_of(digits_student(), tmp_path, **changes)
    message = error_of(cfg)
    assert "follows the metric 'acuracy/top1'" in message
    assert "did you mean accuracy/top1?; it gives accuracy/top1" in message


def test_images_that_are_smaller_than_their_crop(tmp_path):
    cfg = run_of(digits_student(), tmp_path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [dict(type="RandomCrop", crop_size=100), *pipeline]
    assert "is larger than the training images, which stay (8, 8)" in error_of(cfg)
    cfg.train_dataloader.dataset.pipeline[0].update(crop_size=10, padding=1)
    cfg.experiment_name += "_padded"
    assert iterations_of(cfg) == 1


def test_classes_of_the_preprocessor(tmp_path):
    cfg = run_of(digits_student(), tmp_path)
    cfg.data_preprocessor.num_classes = 3
    assert "num_classes is 3 and the student gives 10 logits; set it to 10" in error_of(cfg)


@pytest.mark.parametrize(
    ("parts", "fits"),
    [
        (("backbone.", "head."), True),
        (("backbone.",), True),  # another head, which is left out of the count
        (("backbone.groups.1.",), True),  # a part of another network
        (("backbone.stem.",), False),
        (("head.",), False),
        ((), False),
    ],
)
def test_how_much_of_a_checkpoint_fits(parts, fits):
    model = MODELS.build(dict(copy.deepcopy(digits_student()), data_preprocessor=None))
    state = {k: v for k, v in model.state_dict().items() if k.startswith(parts)} if parts else {}
    if fits:
        check_loaded(model, dict(state_dict=state), "x.pth")
        check_loaded(model, {f"module.{k}": v for k, v in state.items()}, "x.pth")
    else:
        with pytest.raises(ValueError, match=r"x.pth is of another network: \d+ of \d+ weights"):
            check_loaded(model, dict(state_dict=state), "x.pth")


@pytest.mark.parametrize(
    "changes",
    [
        dict(train_dataloader2=dict(), val_dataloader_b=dict(), train_dataset=dict(), lr=0.1),
        dict(_optim_wraper=dict(), my_pipeline=[], train_pipelines=[]),
        dict(
            param_scheduler=[
                dict(type="LinearLR", begin=0, end=0.5, convert_to_iter_based=True),
                dict(type="MultiStepLR", milestones=[0.5, 1.5], convert_to_iter_based=True),
                dict(type="CosineAnnealingParamScheduler", param_name="weight_decay", T_max=1.5),
            ]
        ),
        dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=-1), timer=None)),
        dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", max_keep_ckpts=0))),
        dict(custom_hooks=[EMAHook(), dict(type="EMAHook", gamma=100, priority="LOW")]),
        dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=1e9))),
        dict(
            optim_wrapper=dict(
                optimizer=dict(type="SGD", lr=0.0), clip_grad=dict(max_norm=float("inf"))
            )
        ),
        dict(train_cfg=dict(type="mmengine.runner.IterBasedTrainLoop", max_iters=5)),
        dict(val_evaluator=[dict(type="Accuracy"), dict(type="SingleLabelMetric")]),
        dict(env_cfg=dict(mp_cfg=dict(mp_start_method="spawn", opencv_num_threads=-1))),
        dict(val_cfg=None, val_dataloader=None, val_evaluator=None),
        dict(load_from="https://somewhere/x.pth", log_level="DEBUG"),
        dict(log_level=20),
        dict(compile=True, find_unused_parameters=True),
        dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])),
    ],
)
def test_right_configs(changes):
    cfg = run_config(digits_distiller(), "work", **copy.deepcopy(changes))
    check_config(cfg)


def test_a_scope_of_ones_own():
    Registry("model", scope="a_scope_of_ones_own", parent=MODELS, locations=[])
    cfg = run_config(digits_distiller(), "work", default_scope="a_scope_of_ones_own")
    for name in ("train", "val", "test"):  # what a scope does not have has another one's name
        cfg[f"{name}_dataloader"]["dataset"]["pipeline"] = [dict(type="mmpretrain.PackInputs")]
        cfg[f"{name}_evaluator"] = dict(type="mmpretrain.Accuracy")
    check_config(cfg)


@pytest.mark.parametrize("layer", ["Liner", ["Conv2d", "Liner"]])
def test_initialization_of_layers_that_do_not_exist(tmp_path, layer):
    cfg = run_of(digits_student(), tmp_path)
    cfg.model.head.init_cfg = dict(type="Normal", layer=layer, std=0.01)
    message = error_of(cfg)
    assert "layer='Liner' in the init_cfg of LinearClsHead names no class" in message
    assert "did you mean Linear?" in message
    cfg.model.head.init_cfg.layer = ["GroupNorm", "Linear"]
    cfg.experiment_name += "_right"
    assert iterations_of(cfg) == 1


def test_log_lines_of_what_nothing_logs(tmp_path):
    names = ("los", "train/loss", "kd")
    averaged = [dict(data_src=name, method_name="mean", window_size=2) for name in names]
    cfg = run_of(digits_student(), tmp_path, log_processor=dict(custom_cfg=averaged))
    runner = Runner.from_cfg(cfg)
    said = []
    runner.logger.warning = said.append
    runner.train()
    (text,) = (text for text in said if "custom_cfg" in text)
    assert "names 'los', which is not logged; did you mean loss?" in text
