"""The kinds of runs: small commands on digits, in folders of their own."""

import shutil
from pathlib import Path
from typing import NamedTuple

from commands import make_workplace

_STUDENT = """
_base_ = '../configs/wrn/wrn10-1-thin_digits.py'
model = dict(backbone=dict(drop_rate=0.3))
train_cfg = dict(max_epochs=3, val_interval=1)
train_dataloader = dict(batch_size=16, dataset=dict(dataset=dict(indices=64)))
val_dataloader = dict(dataset=dict(dataset=dict(indices=40)))
test_dataloader = dict(dataset=dict(dataset=dict(indices=40)))
test_evaluator = dict(_delete_=True, type='Accuracy')
param_scheduler = dict(milestones=[1, 2])
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='mmkd_logit.AtomicCheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    runtime_info=dict(type='mmkd_logit.LazyRuntimeInfoHook'),
    logit_outputs=dict(type='mmkd_logit.LogitOutputsHook'),
    classifier_sum=dict(type='mmkd_logit.ClassifierSumHook'),
    train_accuracy=dict(type='mmkd_logit.TrainAccuracyHook'))
"""
_TEACHER = """
_base_ = './student.py'
model = dict(backbone=dict(widen_factor={width}, drop_rate=0.0), head=dict(in_channels={channels}))
train_cfg = dict(max_epochs=1)
"""
_PLAIN = """
_base_ = './student.py'
mixed = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
model = dict(train_cfg=dict(augments=mixed))
default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
custom_hooks = [dict(type='EMAHook', momentum=0.2), *_base_.custom_hooks]
"""
_KD = """
_base_ = './student.py'
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{{{_base_.model}}}},
    teacher={teacher},
    alpha=0.5,
    loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=4){more})
"""
_NOISY = """
_base_ = './kd.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        dataset={{_base_.train_dataloader.dataset}}))
"""
_SEQUENTIAL = """
_base_ = './kd.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_logit.SequentialTeacherHook',
        stages=[
            dict(begin=1, loss_kd=dict(type='mmkd_logit.LogitMSELoss')),
            dict(begin=2, alpha=0.8, teacher={other})])]
"""
_SHORT = """
_base_ = './{base}.py'
train_cfg = dict(max_epochs=2)
"""
_TAUGHT = """
_base_ = './kd.py'
train_cfg = dict(max_epochs=2)
model = dict(teacher=dict(config='tiny/{teacher}.py', checkpoint='run/{teacher}/final.pth'))
"""
_TWO = """
_base_ = './kd.py'
train_dataloader = dict(batch_size=8)
randomness = dict(diff_rank_seed=True)
"""
_WORKERS = """
_base_ = './kd.py'
train_dataloader = dict(num_workers=2, persistent_workers=True)
val_dataloader = dict(num_workers=1, persistent_workers=True)
"""
# Changes of kd.
_OPTIMIZED = {
    "one cycle": """
param_scheduler = dict(
    _delete_=True, type='OneCycleLR', eta_max=0.1, total_steps=12, by_epoch=False)
""",
    "adamw cosine": """
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.05))
param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', T_max=12, by_epoch=False)
""",
    "accumulating": "optim_wrapper = dict(accumulative_counts=3)",
    "averaged": "custom_hooks = [dict(type='EMAHook', momentum=0.2), *_base_.custom_hooks]",
}
_CACHE = dict(storage="disk")
TEACHERS = ("teacher", "other")
_RESULTS = ("--results", "runs.jsonl")


class Kind(NamedTuple):
    """A command and what it leaves.

    Attributes:
        name: Of the kind.
        words: Of the command line.
        tool: Its name.
        folders: Patterns of the work folders that it leaves.
        told: Whether it goes on by ``--resume``, or by itself.
        processes: How many.
        caches: Whether the teacher's logits are on the disk before it begins, or None.
    """

    name: str
    words: tuple[str, ...]
    tool: str = "train.py"
    folders: tuple[str, ...] = ("run",)
    told: bool = True
    processes: int = 1
    caches: bool | None = None


def _alone(name, config, **more):
    words = (f"tiny/{config}.py", "--work-dir", "run", *_RESULTS)
    return Kind(name, words, **more)


KINDS = {
    kind.name: kind
    for kind in (
        _alone("plain", "plain"),
        _alone("kd", "kd"),
        _alone("ensemble", "ensemble"),
        _alone("noisy labels", "noisy"),
        _alone("sequential", "sequential"),
        Kind(
            "teachers first",
            ("tiny/third.py", "--work-dir", "run/third", "--train-teacher", *_RESULTS),
            folders=("run/*",),
        ),
        Kind(
            "group",
            ("tiny/runs.txt", "--results", "runs.jsonl"),
            "train_group.py",
            ("run/*", "work_dirs/group/*"),
            told=False,
        ),
        _alone("cold cache", "cached", caches=False),
        _alone("warm cache", "cached", caches=True),
        _alone("loader workers", "workers"),
        _alone("two processes", "two", processes=2),
        *(_alone(name, name.replace(" ", "_")) for name in _OPTIMIZED),
    )
}


def make_base(folder):
    """Write the configs, whose teachers are still to be trained: ``TEACHERS``."""
    make_workplace(folder)
    tiny = Path(folder, "tiny")
    tiny.mkdir()
    first, other = (dict(config=f"tiny/{n}.py", checkpoint=f"{n}/final.pth") for n in TEACHERS)
    texts = dict(
        student=_STUDENT,
        teacher=_TEACHER.format(width=2, channels=32),
        other=_TEACHER.format(width=1, channels=16),
        plain=_PLAIN,
        kd=_KD.format(teacher=first, more=""),
        ensemble=_KD.format(teacher=[first, other], more=", ensemble='probs'"),
        cached=_KD.format(teacher=dict(first, cache=_CACHE), more=""),
        noisy=_NOISY,
        sequential=_SEQUENTIAL.replace("{other}", str(other)),
        first=_SHORT.format(base="teacher"),
        second=_TAUGHT.format(teacher="first"),
        third=_TAUGHT.format(teacher="second"),
        two=_TWO,
        workers=_WORKERS,
    )
    for name, change in _OPTIMIZED.items():
        texts[name.replace(" ", "_")] = f"_base_ = './kd.py'\n{change}"
    for name, text in texts.items():
        Path(tiny, f"{name}.py").write_text(text)
    lines = [
        f"tiny/kd.py --work-dir run/{number} --cfg-options train_cfg.max_epochs=2 "
        f"model.alpha={0.3 + number / 2}\n"
        for number in range(2)
    ]
    Path(tiny, "runs.txt").write_text("".join(lines))


def copy_place(source, target):
    """Copy a place with all that was made in it."""
    shutil.copytree(source, target, symlinks=True)
    return Path(target)
