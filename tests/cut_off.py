"""Runs that are cut off and resumed in one process, by the function behind the command line."""

import copy

import pytest
from mmengine.hooks import Hook
from runs import digits_distiller, digits_student, run_config

from mmkd_logit.engine.cli import TrainingStarted
from mmkd_logit.engine.train import run_training

EMA = dict(type="EMAHook", momentum=0.2)
MIXUP = dict(augments=[dict(type="Mixup", alpha=0.8), dict(type="CutMix", alpha=1.0)])
MSE = dict(type="mmkd_logit.LogitMSELoss")


class Killed(Exception):
    """What ends a run as a kill would: nothing is cleaned up or written any more."""


class Cut(Hook):
    """Ends a run in a phase, after all other hooks, once so many iterations are done."""

    priority = "LOWEST"

    def __init__(self, done, phase="after_train_iter"):
        def kill(runner, **kwargs):
            if runner.iter + (phase == "after_train_iter") == done:
                raise Killed

        setattr(self, phase, kill)


def train(cfg, resume=None, *hooks, **kwargs):
    return run_training(cfg, resume, TrainingStarted(), *hooks, **kwargs)


def train_in_parts(make, *cuts):
    """Train what ``make`` gives a config of, cut off several times; return the last part's run."""
    for cut in cuts:
        with pytest.raises(Killed):
            train(make(), "auto", cut if isinstance(cut, Hook) else Cut(cut))
    return train(make(), "auto")


def kind_of_run(folder, model, epochs=3, saved=None, hooks=(), **kwargs):
    """Config of a run of 4 iterations an epoch, with a checkpoint every second iteration."""
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=2, max_keep_ckpts=2)
    averaged = [dict(data_src="kd", method_name="mean", window_size=3)]
    kwargs.setdefault("log_processor", dict(window_size=3, custom_cfg=averaged))
    return run_config(
        model,
        folder,
        epochs=epochs,
        custom_hooks=[*copy.deepcopy(list(hooks)), dict(type="mmkd_logit.FinalCheckpointHook")],
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=2),
            checkpoint=saved or checkpoint,
            runtime_info=dict(type="mmkd_logit.LazyRuntimeInfoHook"),
            logit_outputs=dict(type="mmkd_logit.LogitOutputsHook"),
            classifier_sum=dict(type="mmkd_logit.ClassifierSumHook"),
            train_accuracy=dict(type="mmkd_logit.TrainAccuracyHook"),
        ),
        **kwargs,
    )


def from_memory(cfg, noise=False, workers=0, crop=True):
    """Take the training images from memory, or by workers, cropped by seed, epoch and sample."""
    loader = cfg.train_dataloader
    if crop:
        loader.dataset.pipeline = [
            dict(type="RandomCrop", crop_size=8, padding=1),
            dict(type="PackInputs"),
        ]
    wrapper = "SeededDataset" if workers else "InMemoryDataset"
    loader.dataset = dict(type=f"mmkd_logit.{wrapper}", dataset=loader.dataset)
    if noise:
        loader.dataset = dict(
            type="mmkd_logit.NoisyLabelDataset", dataset=loader.dataset, kind="symmetric", rate=0.4
        )
    loader.sampler = dict(type="mmkd_logit.SeededSampler", sampler=loader.sampler)
    loader.collate_fn = dict(type="mmkd_logit.batch_collate")
    loader.num_workers, loader.persistent_workers = workers, workers > 0
    cfg.data_preprocessor.type = "mmkd_logit.BatchPreprocessor"
    return cfg


def plain(folder, **kwargs):
    """Dropout, MixUp, crops that are drawn in this process, averaged weights."""
    student = digits_student(drop_rate=0.3, train_cfg=MIXUP)
    cfg = kind_of_run(folder, student, hooks=[EMA], **kwargs)
    crop = dict(type="RandomCrop", crop_size=8, padding=1)
    cfg.train_dataloader.dataset.pipeline.insert(0, crop)
    return cfg


def kd(folder, epochs=3, **kwargs):
    student = digits_student(drop_rate=0.3)
    return kind_of_run(folder, digits_distiller(student, alpha=0.5), epochs, **kwargs)


def noisy_ensemble(folder):
    """Noisy labels, images from memory, two teachers."""
    teachers = [dict(config=digits_student(widen_factor=w), checkpoint=None) for w in (1, 2)]
    model = digits_distiller(digits_student(drop_rate=0.3), teacher=teachers, ensemble="probs")
    return from_memory(kind_of_run(folder, model, hooks=[EMA]), noise=True)


def sequential(folder, **kwargs):
    """Another loss after an epoch and another teacher after two, which metrics look at."""
    teacher = dict(config=digits_student(widen_factor=3), checkpoint=None)
    stages = [dict(begin=1, loss_kd=MSE), dict(begin=2, teacher=teacher, alpha=0.5)]
    hook = dict(type="mmkd_logit.SequentialTeacherHook", stages=stages)
    evaluator = [dict(type="Accuracy"), dict(type="mmkd_logit.TeacherAgreement")]
    model = digits_distiller(digits_student(drop_rate=0.3), alpha=0.7)
    return kind_of_run(folder, model, hooks=[EMA, hook], val_evaluator=evaluator, **kwargs)


def cached(folder, storage="disk"):
    """The teacher's logits are kept where MMKD_LOGIT_TEACHER_CACHE says."""
    teacher = dict(config=digits_student(widen_factor=2), checkpoint=None)
    teacher["cache"] = dict(storage=storage)
    model = digits_distiller(digits_student(drop_rate=0.3), teacher=teacher)
    return from_memory(kind_of_run(folder, model))


def accumulating(folder):
    """Gradients of three iterations make a step, which no checkpoint waits for."""
    cfg = kd(folder)
    cfg.optim_wrapper.accumulative_counts = 3
    return cfg


def with_workers(folder):
    """Persistent workers, of the training images and of those that are validated.

    The best checkpoint has that of iteration 4 written again, after the validation.
    """
    saved = dict(type="CheckpointHook", by_epoch=False, interval=2, save_best="accuracy/top1")
    cfg = from_memory(kd(folder, saved=saved), workers=2)
    cfg.val_dataloader.update(num_workers=1, persistent_workers=True)
    return cfg


def by_iteration(folder, sampler="InfiniteSampler"):
    """A run that counts iterations, validates within a pass and changes its loss."""
    stages = dict(type="mmkd_logit.SequentialTeacherHook", by_epoch=False)
    stages["stages"] = [dict(begin=6, loss_kd=MSE)]
    cfg = kind_of_run(
        folder,
        digits_distiller(digits_student(drop_rate=0.3), alpha=0.5),
        hooks=[EMA, stages],
        train_cfg=dict(by_epoch=False, max_iters=12, val_interval=6),
        param_scheduler=dict(type="MultiStepLR", by_epoch=False, milestones=[5], gamma=0.5),
        log_processor=dict(by_epoch=False, window_size=3),
    )
    cfg.train_dataloader.sampler.type = sampler
    return from_memory(cfg)


def by_passes(folder):
    """The same with a sampler that ends after each pass."""
    return by_iteration(folder, sampler="DefaultSampler")


KINDS = dict(
    plain=plain,
    noisy_ensemble=noisy_ensemble,
    sequential=sequential,
    accumulating=accumulating,
    with_workers=with_workers,
    by_iteration=by_iteration,
    by_passes=by_passes,
)
