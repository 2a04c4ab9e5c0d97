"""The bare loop on the networks, data and loss of a config."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR100

from mmkd_logit._arguments import type_name
from mmkd_logit.engine.teachers import model_teachers
from mmkd_logit.models._teacher_spec import resolve_teacher
from mmkd_logit.models.teacher_cache import TeacherCache

from .bare_loop import ArrayImages, BareLoop, WideResNet, usual_transform
from .data_forms import change_innermost, innermost
from .runner_session import Probe, check_size, stock_of

_WRN_SETTINGS = {"depth", "widen_factor", "in_channels", "strides", "base_channels"}
_WRN_SETTINGS |= {"stem_channels"}


class BareSession:
    """A :class:`BareLoop` that trains what a kd config trains.

    Wide ResNets are the loop's own; other networks are mmpretrain's, called like any module.
    A student without a teacher is the same with ``alpha=0``.

    Args:
        cfg: A complete config of one teacher, with MSE or KL, that loads by mmpretrain's pipeline
            of RandomCrop, RandomFlip and PackInputs.
        device: Where to compute.
        **settings: Of :class:`BareLoop`.

    Raises:
        ValueError: If the loop cannot do what the config does.
    """

    def __init__(self, cfg: Config, device: str | torch.device, **settings: Any) -> None:
        loader = cfg.train_dataloader
        self.batch_size: int = loader.batch_size
        self.students = 1
        optimizer = cfg.optim_wrapper.optimizer
        (teacher,) = model_teachers(cfg)
        taught = teacher if isinstance(teacher, nn.Module) else resolve_teacher(teacher).model
        self.loop = BareLoop(
            _network(cfg.model.student),
            _network(taught),
            _data(cfg),
            batch_size=self.batch_size,
            alpha=cfg.model.get("alpha", 1.0),
            workers=loader.get("num_workers", 0),
            device=device,
            lr=optimizer.lr,
            weight_decay=optimizer.get("weight_decay", 0.0),
            **_loss(cfg.model.loss_kd),
            **settings,
        )
        check_size(len(self.loop.loader), self.batch_size)
        self.stock = stock_of(self.loop.loader)
        self._batches = self.loop.batches()

    def step(self) -> None:
        """Load a batch and train on it."""
        self.loop.step(*self._fetch())

    def loader(self) -> Callable[[], Any]:
        """Return a function that loads one batch and copies it to the device."""
        return lambda: self.loop.to_device(*self._fetch())

    def device(self) -> torch.device:
        """Return where the networks are."""
        return self.loop.device

    def probes(self) -> list[Probe]:
        """Return the methods that do the parts of a step: object, name, part."""
        loop = self.loop
        return [
            (self, "_fetch", "data"),
            (loop, "to_device", "data"),
            (loop, "run_teacher", "teacher"),
            (loop, "run_student", "student"),
            (loop.optimizer, "step", "optimizer"),
            (loop.optimizer, "zero_grad", "optimizer"),
        ]

    def state(self) -> list[Any]:
        """Return what lives from step to step: modules and the optimizer."""
        return [self.loop.student, self.loop.teacher, self.loop.optimizer]

    def caches(self) -> list[TeacherCache]:
        """Return none."""
        return []

    def _fetch(self) -> Any:
        return next(self._batches)


class _Logits(nn.Module):
    """A classifier of mmpretrain's that is called with images alone."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(x, mode="tensor")


def _network(cfg: Any) -> nn.Module:
    """Build the loop's own WRN where the config is one, else the config's network."""
    if isinstance(cfg, nn.Module):
        return _Logits(cfg)
    backbone = cfg.get("backbone") or {}
    settings = {key: value for key, value in backbone.items() if key in _WRN_SETTINGS}
    own = type_name(backbone) == "WideResNetCIFAR" and set(backbone) - {"type"} <= _WRN_SETTINGS
    if own and type_name(cfg["head"]) == "LinearClsHead":
        return WideResNet(num_classes=cfg["head"]["num_classes"], **settings)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        classifier = MODELS.build(cfg)
    classifier.init_weights()
    return _Logits(classifier)


def _loss(cfg: Any) -> dict[str, Any]:
    kind, tau = type_name(cfg), cfg.get("tau", 1.0)
    if kind == "LogitMSELoss" or (kind == "ScaledKLDivLoss" and tau == float("inf")):
        return dict(loss="mse")
    if kind == "ScaledKLDivLoss":
        return dict(loss="kl", tau=tau)
    raise ValueError(f"the bare loop has MSE and KL, not {kind}; leave the variants 'bare' out")


def _data(cfg: Config) -> Dataset:
    """Return torchvision's data set where the config has CIFAR-100, else one of arrays."""
    whole, preprocessor = cfg.train_dataloader.dataset, cfg.get("data_preprocessor") or {}
    spec = innermost(whole)
    transform = _transform(spec.get("pipeline") or [], preprocessor)
    if type_name(whole) == "CIFAR100" and not spec.get("indices"):
        folder = Path(spec["data_root"])
        if (folder / "cifar-100-python").is_dir():
            return CIFAR100(str(folder), train=True, transform=transform, download=False)
    images, labels = _arrays(change_innermost(whole, lambda spec: dict(spec, pipeline=[])))
    return ArrayImages(images, labels, transform)


def _arrays(spec: dict) -> tuple[np.ndarray, Sequence[int]]:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        dataset = DATASETS.build(spec)
    dataset.full_init()
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    if not infos or "img" not in infos[0]:
        raise ValueError("the bare loop reads images that a data set holds in memory, not files")
    return np.stack([info["img"] for info in infos]), [info["gt_label"] for info in infos]


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
