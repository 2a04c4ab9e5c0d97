"""One training step at a time: ours by a Runner, the bare loop's, and torchdistill's."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from mmkd_logit.checkpoint import install_safe_checkpoint_loading
from mmkd_logit.engine import train
from mmkd_logit.engine.check import check_config
from mmkd_logit.engine.config import change_teachers, model_teachers
from mmkd_logit.losses.feature import find_torchdistill
from mmkd_logit.models import TeacherSettings
from mmkd_logit.models.teacher_cache import TeacherCache
from mmkd_logit.utils.arguments import type_name

from .bare_loop import ArrayImages, BareLoop, usual_transform

_OURS = ("InMemoryDataset", "SeededDataset")


def change_innermost(spec: Any, change: Callable[[Any], Any]) -> Any:
    """Return the config of a data set with the one that reads images changed."""
    if "dataset" in spec:
        return dict(spec, dataset=change_innermost(spec["dataset"], change))
    return change(spec)


def _without_ours(spec: Any) -> Any:
    if type_name(spec) in _OURS:
        return _without_ours(spec["dataset"])
    return dict(spec, dataset=_without_ours(spec["dataset"])) if "dataset" in spec else spec


# From a kd config to the one that is timed.


_number = itertools.count()  # MMEngine keeps every experiment by name


def base_config(
    path: str,
    work_dir: str,
    overrides: dict[str, Any] | None = None,
    batch_size: int | None = None,
    synthetic: int | None = None,
) -> tuple[Config, list[str]]:
    """Read a kd config as ``tools/train.py`` does, without what is not part of a step.

    Validation, checkpoints and caches go (variants bring their own caches, and a full one on the
    disk would make them all warm), training does not end. Where a teacher's checkpoint is missing
    the teacher keeps random weights.
    """
    args = train.build_parser().parse_args([path, "--work-dir", work_dir, "--no-validate"])
    args.cfg_options = dict(overrides or {})
    cfg = train.build_config(args)
    check_config(cfg)
    if not model_teachers(cfg):
        raise ValueError(f"{path} has no model.teacher; tools/benchmark.py times kd configs")
    if batch_size is not None:
        cfg.train_dataloader.batch_size = batch_size
    if synthetic is not None:
        _use_random_images(cfg, synthetic)
    notes: list[str] = []
    change_teachers(cfg, lambda teacher: _plain_teacher(teacher, notes))
    keep_only_steps(cfg)
    if synthetic is not None:
        notes.append(f"data: {synthetic} random images")
    return cfg, notes


def keep_only_steps(cfg: Config) -> None:
    """Let a config train without end and do nothing else: no validation, no files, no log."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.train_dataloader.drop_last = True
    cfg.default_hooks = dict(cfg.get("default_hooks") or {}, checkpoint=None)
    hooks = cfg.get("custom_hooks") or []
    left_out = ("FinalCheckpointHook", "ProgressBarHook")
    cfg.custom_hooks = [hook for hook in hooks if type_name(hook) not in left_out]
    cfg.train_cfg.max_epochs = 10**6
    cfg.log_level = "ERROR"


def _plain_teacher(teacher: TeacherSettings, notes: list[str]) -> dict[str, Any]:
    spec = teacher.as_config()
    spec.pop("cache", None)
    if teacher.file is not None and not teacher.file.is_file():
        spec["checkpoint"] = None
        notes.append(f"teacher: random weights, as there is no {teacher.checkpoint}")
    return spec


def edited(cfg: Config) -> Config:
    """Return a copy of a config with a name of its own for MMEngine."""
    new = Config(cfg.to_dict())
    new.experiment_name = f"benchmark{next(_number)}"
    return new


def _use_random_images(cfg: Config, number: int) -> None:
    def random_images(spec: Any) -> dict[str, Any]:
        kind = str(type_name(spec))
        if kind != "Digits" and not kind.startswith("CIFAR"):
            raise ValueError(f"--synthetic stands for CIFAR or the digits, not for {kind}")
        return dict(
            type="mmkd_logit.RandomImages",
            num_samples=number,
            num_classes=int(cfg.data_preprocessor.get("num_classes", 100)),
            img_shape=(8, 8, 1) if kind == "Digits" else (32, 32, 3),
            pipeline=spec["pipeline"],
        )

    loader = cfg.train_dataloader
    loader.dataset = change_innermost(loader.dataset, random_images)


# A run of MMEngine's, one iteration at a time.


class RunnerSession:
    """What ``tools/train.py`` does with a config, driven step by step.

    Everything is the Runner's own: how model, loader, hooks and optimizer are built, and
    ``run_iter`` of its train loop with all hooks. Only the loop over epochs stands here, since a
    loop of MMEngine's cannot be halted between two iterations.
    """

    def __init__(self, cfg: Config) -> None:
        if not cfg.train_cfg.get("by_epoch", True) or "type" in cfg.train_cfg:
            raise ValueError("only configs with train_cfg=dict(by_epoch=True, ...) can be timed")
        install_safe_checkpoint_loading()
        self.batch_size: int = cfg.train_dataloader.batch_size
        self.runner: Runner = _HaltedRunner.from_cfg(cfg)
        self.runner.train()
        self.loader = self.runner.train_loop.dataloader
        check_size(len(self.loader), self.batch_size)
        self.stock = stock_of(self.loader)
        self._steps = self._iterate()

    def step(self) -> None:
        """Load a batch and train on it, with all hooks."""
        next(self._steps)

    @property
    def caches(self) -> list[TeacherCache]:
        """The caches of the teachers."""
        teachers = self.runner.model.teachers
        return [teacher.cache for teacher in teachers if teacher.cache is not None]

    def _iterate(self) -> Iterator[None]:
        runner, loop = self.runner, self.runner.train_loop
        runner.call_hook("before_train")
        while True:
            runner.call_hook("before_train_epoch")
            runner.model.train()
            for number, batch in enumerate(loop.dataloader):
                loop.run_iter(number, batch)
                yield
            runner.call_hook("after_train_epoch")
            loop._epoch += 1


def check_size(batches: int, batch_size: int) -> None:
    """Refuse data that are too few."""
    if batches < 1:
        raise ValueError(f"there are fewer than {batch_size} images, a batch; take a smaller one")


def stock_of(loader: DataLoader) -> int:
    """Return how many batches the workers of a loader may have ready before they are asked."""
    return loader.num_workers * (loader.prefetch_factor or 0)


class _HaltedRunner(Runner):
    """Gets everything ready for training and stops before the first epoch."""

    def build_train_loop(self, loop: Any) -> Any:
        built = super().build_train_loop(loop)
        built.run = lambda: None
        return built

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        if fn_name != "after_run":  # of train(), which comes back before anything has run
            super().call_hook(fn_name, **kwargs)


# Other loops on the networks, data and loss of a config.


class BareSession:
    """A :class:`BareLoop` that trains what a kd config trains: the same networks, called alone."""

    caches: ClassVar[list[TeacherCache]] = []

    def __init__(
        self, cfg: Config, device: str | torch.device, workers: int = 0, **settings: Any
    ) -> None:
        loop = BareLoop(**_task(cfg), device=device, workers=workers, **settings)
        self.loader = loop.loader
        self.batch_size: int = cfg.train_dataloader.batch_size
        check_size(len(self.loader), self.batch_size)
        self.stock = stock_of(self.loader)
        batches = loop.batches()
        self.step = lambda: loop.step(*next(batches))


class TorchdistillSession:
    """The training loop of torchdistill 1.1 on the same networks, data and loss.

    Everything is torchdistill's own: data loader, distillation box, loss, optimizer, and its log.
    Only the lines that its example ``image_classification.py`` has between them stand here.
    """

    caches: ClassVar[list[TeacherCache]] = []

    def __init__(self, cfg: Config, device: str | torch.device, workers: int = 0) -> None:
        task = _task(cfg)
        self.device = torch.device(device)
        self.batch_size: int = task["batch_size"]
        check_size(len(task["data"]) // self.batch_size, self.batch_size)
        kwargs = dict(batch_size=self.batch_size, num_workers=workers, drop_last=True)
        loader = dict(
            dataset_id="train",
            sampler=dict(class_or_func=RandomSampler),
            kwargs=dict(kwargs, pin_memory=self.device.type == "cuda"),
        )
        sgd = dict(lr=task["lr"], momentum=0.9, nesterov=True, weight_decay=task["weight_decay"])
        model = dict(forward_proc="forward_batch_only")
        self.box = find_torchdistill("core.distillation", "DistillationBox")(
            teacher_model=task["teacher"].eval(),
            student_model=task["student"],
            dataset_dict=dict(train=task["data"]),
            train_config=dict(
                num_epochs=1,
                train_data_loader=loader,
                teacher=dict(model, requires_grad=False),
                student=model,
                criterion=_criterion(task["loss"], task["tau"], task["alpha"]),
                optimizer=dict(key="SGD", kwargs=sgd),
            ),
            device=self.device,
            device_ids=None,
            distributed=False,
            lr_factor=1,
        )
        self.loader: DataLoader = self.box.train_data_loader
        self.stock = stock_of(self.loader)
        steps = self._iterate()
        self.step = lambda: next(steps)

    def _iterate(self) -> Iterator[None]:
        box = self.box
        for epoch in itertools.count():
            box.pre_epoch_process(epoch=epoch)
            log = find_torchdistill("misc.log", "MetricLogger")(delimiter="  ")
            for name in ("lr", "img/s"):
                log.add_meter(name, find_torchdistill("misc.log", "SmoothedValue")(window_size=10))
            for images, labels, extra in log.log_every(self.loader, 1000, f"Epoch: [{epoch}]"):
                start = time.time()
                images, labels = images.to(self.device), labels.to(self.device)
                loss = box.forward_process(images, labels, extra)
                box.post_forward_process(loss=loss)
                log.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
                log.meters["img/s"].update(len(images) / (time.time() - start))
                yield
            box.post_epoch_process()


def _criterion(loss: str, tau: float, alpha: float) -> dict[str, Any]:
    """Return torchdistill's config of ``(1 - alpha) * CE + alpha * KD``."""
    student = dict(is_from_teacher=False, module_path=".", io="output")

    def between(kind: str, target: dict[str, Any]) -> dict[str, Any]:
        wrapper = dict(key="SimpleLossWrapper", kwargs=dict(input=student, target=target))
        return dict(criterion=dict(key=kind, kwargs={}), criterion_wrapper=wrapper)

    if loss == "mse":
        kd = between("MSELoss", dict(student, is_from_teacher=True))
    else:
        whose = {
            f"{whose}_module_{what}": value
            for whose in ("student", "teacher")
            for what, value in (("path", "."), ("io", "output"))
        }
        kd = dict(criterion=dict(key="KDLoss", kwargs=dict(whose, temperature=tau, alpha=0.0)))
    terms = dict(kd=dict(kd, weight=alpha * (1 if loss == "mse" else tau**2)))
    if alpha < 1:
        ce = between("CrossEntropyLoss", dict(uses_label=True))
        terms["ce"] = dict(ce, weight=1 - alpha)
    return dict(key="WeightedSumLoss", kwargs=dict(sub_terms=terms))


def _task(cfg: Config) -> dict[str, Any]:
    """Return networks, data and settings for a loop that knows nothing of OpenMMLab."""
    teachers = model_teachers(cfg)
    if cfg.model.get("weights"):
        raise ValueError(
            "the bare loop and torchdistill's have alpha, not weights; name --variants"
        )
    if len(teachers) != 1:
        raise ValueError(
            f"the bare loop and torchdistill's have one teacher, the config {len(teachers)}; "
            "choose --variants"
        )
    optimizer = cfg.optim_wrapper.optimizer
    return dict(
        student=_network(cfg.model.student),
        teacher=_network(teachers[0].resolve().model),
        data=_data(cfg),
        batch_size=cfg.train_dataloader.batch_size,
        alpha=cfg.model.get("alpha", 1.0),
        lr=optimizer.lr,
        weight_decay=optimizer.get("weight_decay", 0.0),
        **_loss(cfg.model.loss_kd),
    )


def _network(cfg: Any) -> nn.Module:
    if isinstance(cfg, nn.Module):
        return cfg
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(cfg)


def _loss(cfg: Any) -> dict[str, Any]:
    kind, tau = type_name(cfg), float(cfg.get("tau", 1.0))
    if kind == "LogitMSELoss" or (kind == "ScaledKLDivLoss" and tau == float("inf")):
        return dict(loss="mse", tau=1.0)
    if kind == "ScaledKLDivLoss":
        return dict(loss="kl", tau=tau)
    raise ValueError(f"the bare loop has MSE and KL, not {kind}; choose --variants")


def _data(cfg: Config) -> Dataset:
    """Return the config's images, as torchvision's data sets hold them."""
    spec = _without_ours(cfg.train_dataloader.dataset)
    preprocessor = cfg.get("data_preprocessor") or {}
    inner = spec
    while "dataset" in inner:
        inner = inner["dataset"]
    transform = _transform(inner.get("pipeline") or [], preprocessor)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        dataset = DATASETS.build(change_innermost(spec, lambda inner: dict(inner, pipeline=[])))
    dataset.full_init()
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not infos or "img" not in infos[0]:
        raise ValueError("the bare loop reads images that a data set holds in memory, not files")
    images = np.stack([info["img"] for info in infos])
    return ArrayImages(images, [info["gt_label"] for info in infos], transform)


def _transform(pipeline: Sequence[dict], preprocessor: dict) -> Callable:
    crop, padding, flip = None, 0, 0.0
    for step in pipeline:
        kind = type_name(step)
        if kind == "RandomCrop":
            crop, padding = step["crop_size"], step.get("padding") or 0
        elif kind == "RandomFlip" and step.get("direction", "horizontal") == "horizontal":
            flip = step["prob"]
        elif kind != "PackInputs":
            raise ValueError(f"the bare loop cannot do the {kind} of the config's pipeline")
    mean, std = preprocessor.get("mean") or [0.0], preprocessor.get("std") or [1.0]
    return usual_transform([m / 255 for m in mean], [s / 255 for s in std], crop, padding, flip)
