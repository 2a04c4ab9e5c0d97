"""Operations of a training step, each of which is a kernel that a GPU is to be given.

WRN-28 teaches WRN-16, whose widths and images decide no number of operations. The step runs on a
CPU and takes the ways of a GPU. A GPU needs 4 to 6 us for a launch, so that 190 of them are as
long as the computation on a large one.
"""

import collections

import pytest
from cut_off import from_memory, kind_of_run, train
from mmengine.hooks import Hook
from runs import digits_distiller, digits_student
from torch.utils._python_dispatch import TorchDispatchMode

from mmkd_logit.datasets import augment
from mmkd_logit.engine.config import make_fast
from mmkd_logit.models import TeacherSettings

# These only look at memory that is there, take some, or are notes for a profiler.
NO_KERNELS = ("empty", "new_empty", "promote_types", "_record_function")
MSE = dict(type="mmkd_logit.LogitMSELoss")
KL = dict(type="mmkd_logit.ScaledKLDivLoss", tau=4)


class Launches(TorchDispatchMode):
    """Counts operations by their name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        returned = [each.alias_info for each in function._schema.returns]
        view = any(alias is not None and not alias.is_write for alias in returned)
        if not view and not function.__name__.startswith(NO_KERNELS):
            self.counts[str(function)] += 1
        return function(*args, **(kwargs or {}))


class OneIteration(Hook):
    """Counts from one batch to the next: hooks, step, update, augmentation of the next batch."""

    priority = "HIGHEST"

    def __init__(self, iteration):
        self.iteration, self.launches = iteration, Launches()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.launches.__enter__()
        elif runner.iter == self.iteration + 1:
            self.launches.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def ways_of_a_gpu(monkeypatch):
    monkeypatch.setattr(augment, "crop_on_host", augment.crop_on_device)
    monkeypatch.setattr(augment, "flip_on_host", augment.flip_on_device)
    monkeypatch.setattr(TeacherSettings, "images_a_pass", lambda self, device: self.micro_batch)


def config(folder, model):
    """As the configs of CIFAR-100 train; ``foreach`` is torch's default on a GPU."""
    paramwise = dict(norm_decay_mult=0.0, flat_decay_mult=0.0, bias_decay_mult=0.0)
    optimizer = dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    cfg = kind_of_run(
        folder,
        model,
        epochs=2,
        images=256,
        batch_size=64,
        optim_wrapper=dict(optimizer=dict(optimizer, foreach=True), paramwise_cfg=paramwise),
    )
    from_memory(cfg)
    flip = dict(type="RandomFlip", prob=0.5, direction="horizontal")
    cfg.train_dataloader.dataset.dataset.pipeline.insert(1, flip)
    cfg.default_hooks.pop("classifier_sum")  # not in the configs of CIFAR-100
    cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 100
    return cfg


def count(folder, model, fast=False, iteration=2):
    cfg, hook = config(folder, model), OneIteration(iteration)
    if fast:
        cfg.optim_wrapper.optimizer.pop("foreach")
        make_fast(cfg)
    train(cfg, None, hook)
    launches = hook.launches.counts
    print(f"{folder.name}: {launches.total()}, {dict(launches.most_common())}")
    return launches.total()


def taught(loss, **teacher):
    teacher = dict(config=digits_student(depth=28), checkpoint=None, **teacher)
    return digits_distiller(digits_student(depth=16), teacher=teacher, loss_kd=loss)


def test_a_plain_step(tmp_path):
    assert count(tmp_path / "plain", digits_student(depth=16)) <= 170


def test_a_step_with_a_teacher(tmp_path, monkeypatch):
    """Alone, with a cold cache of its logits and with a warm one."""
    cached = taught(MSE, cache=dict(storage="disk", root=str(tmp_path / "cache")))
    live = count(tmp_path / "live", taught(MSE))
    cold = count(tmp_path / "cold", cached)
    assert live <= 265
    assert cold <= live + 8
    assert count(tmp_path / "warm", cached) <= 175
    # The control: in passes of 32 images each of them has the launches of the network.
    monkeypatch.undo()
    assert count(tmp_path / "pieces", taught(MSE, micro_batch=32)) > live + 80


def test_a_warm_step_with_the_exact_divergence(tmp_path):
    """In float64 and without cancellation, which takes 40 operations more than the MSE."""
    cached = taught(KL, cache=dict(storage="disk", root=str(tmp_path / "cache")))
    assert count(tmp_path / "cold", cached) <= 305
    assert count(tmp_path / "warm", cached) <= 210


def test_a_fast_step(tmp_path):
    """In bfloat16, with a cast for each weight of the student and none for the teacher's."""
    cached = taught(MSE, cache=dict(storage="disk", root=str(tmp_path / "cache")))
    assert count(tmp_path / "live", taught(MSE), fast=True) <= 300
    assert count(tmp_path / "cold", cached, fast=True) <= 300
    assert count(tmp_path / "warm", cached, fast=True) <= 205
