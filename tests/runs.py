"""Short runs with MMEngine's Runner on a few digits."""

import copy
import itertools

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from networks import wrn

_number = itertools.count()  # MMEngine keeps every experiment by name


def digits_student(**kwargs):
    cfg = wrn(num_classes=10, **kwargs)
    cfg["backbone"].update(in_channels=1, strides=(1, 1, 2))
    return cfg


def digits_distiller(student=None, **kwargs):
    teacher = dict(config=digits_student(widen_factor=2), checkpoint=None)
    return {
        "type": "mmkd_logit.LogitDistiller",
        "student": student or digits_student(),
        "teacher": teacher,
        "loss_kd": dict(type="mmkd_logit.ScaledKLDivLoss", tau=4),
        **kwargs,
    }


def run_config(model, work_dir, epochs=2, images=64, batch_size=16, **kwargs):
    """Config of a run: 64 digits, 4 iterations an epoch."""

    def loader(split, shuffle):
        return dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=dict(
                type="mmkd_logit.Digits",
                split=split,
                indices=images,
                pipeline=[dict(type="PackInputs")],
            ),
            sampler=dict(type="DefaultSampler", shuffle=shuffle),
            collate_fn=dict(type="default_collate"),
        )

    cfg = dict(
        default_scope="mmpretrain",
        experiment_name=f"test{next(_number)}",
        model=copy.deepcopy(model),
        data_preprocessor=dict(num_classes=10, mean=[78.0], std=[96.0]),
        work_dir=str(work_dir),
        train_dataloader=loader("train", True),
        val_dataloader=loader("val", False),
        val_evaluator=dict(type="Accuracy"),
        test_dataloader=loader("test", False),
        test_evaluator=dict(type="Accuracy"),
        train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
        val_cfg=dict(),
        test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-3)),
        param_scheduler=dict(type="MultiStepLR", milestones=[1], gamma=0.5),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook")
        ),
        randomness=dict(seed=3),
        log_level="ERROR",
    )
    cfg.update(kwargs)
    return Config(cfg)


def train(model, work_dir, **kwargs):
    runner = Runner.from_cfg(run_config(model, work_dir, **kwargs))
    runner.train()
    return runner


def weights(runner_or_model):
    model = getattr(runner_or_model, "model", runner_or_model)
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


@HOOKS.register_module(force=True)
class StopAfter(Hook):
    """Ends a run early, as a kill between epochs would."""

    priority = "VERY_LOW"

    def __init__(self, epoch):
        self.epoch = epoch

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            runner.train_loop.stop_training = True


@HOOKS.register_module(force=True)  # pytest imports this file twice
class Steps(Hook):
    """Notes the gradient of every step, and what the distiller then was."""

    priority = "VERY_LOW"

    def __init__(self):
        self.log = []

    def before_train(self, runner):
        model = getattr(runner.model, "module", runner.model)

        def note(optimizer, args, kwargs):
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
            teacher = model.teachers[0].model.head.in_channels
            state = (runner.iter, type(model.loss_kd).__name__, model.alpha, teacher)
            self.log.append((state, gradients))

        runner.optim_wrapper.optimizer.register_step_pre_hook(note)


def sequential_run(work_dir, begins=(1, 2), **kwargs):
    """Config of a run of three stages, without batch statistics, whose steps are noted."""
    student = digits_student()
    student["backbone"]["norm_eval"] = True
    teacher = dict(config=digits_student(widen_factor=3), checkpoint=None)
    stages = [
        dict(begin=begins[0], loss_kd=dict(type="mmkd_logit.LogitMSELoss")),
        dict(begin=begins[1], alpha=0.5, teacher=teacher),
    ]
    hook = dict(type="mmkd_logit.SequentialTeacherHook", stages=stages)
    hooks = [hook, dict(type="Steps")]
    model = digits_distiller(student)
    return run_config(model, work_dir, epochs=3, custom_hooks=hooks, **kwargs)


def steps_of(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return next(hook for hook in runner.hooks if type(hook).__name__ == Steps.__name__).log
