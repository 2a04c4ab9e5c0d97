"""From a kd config to the one that is timed."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_logit._arguments import type_name
from mmkd_logit.engine import train
from mmkd_logit.engine.config_check import check_config
from mmkd_logit.engine.teachers import change_teachers, model_teachers

from .data_forms import change_innermost, innermost

_ENDLESS = 10**6  # epochs
_number = itertools.count()  # MMEngine keeps every experiment by name


def base_config(
    path: str,
    work_dir: str,
    overrides: dict[str, Any] | None = None,
    batch_size: int | None = None,
    synthetic: int | None = None,
    launcher: str = "none",
) -> tuple[Config, list[str]]:
    """Read a kd config as ``tools/train.py`` does, without what is not part of a step.

    Validation, checkpoints and caches go (variants bring their own caches, and a full one on the
    disk would make them all warm), training does not end. Where a teacher's checkpoint is missing
    the teacher keeps random weights.

    Args:
        path: The config.
        work_dir: For logs.
        overrides: As of ``--cfg-options``.
        batch_size: For each process; None for the config's.
        synthetic: Train on that many random images instead; None for the config's data.
        launcher: As of ``tools/train.py``.

    Returns:
        The config, and what the user should know about it.

    Raises:
        FileNotFoundError: If the config does not exist.
        ValueError: If it has no teacher or is not what can be timed.
    """
    words = [path, "--work-dir", work_dir, "--no-validate", "--launcher", launcher]
    args = train.build_parser().parse_args(words)
    args.cfg_options = dict(overrides or {})
    cfg = train.build_config(args)
    check_config(cfg)
    if not model_teachers(cfg):
        raise ValueError(f"{path} has no model.teacher; tools/benchmark.py times kd configs")
    if batch_size is not None:
        cfg.train_dataloader.batch_size = batch_size
    if synthetic is not None:
        _use_random_images(cfg, synthetic)
    change_teachers(cfg, _without_cache)
    notes = _without_checkpoints(cfg)
    cfg.train_dataloader.drop_last = True
    cfg.default_hooks = dict(cfg.get("default_hooks") or {}, checkpoint=None)
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks") or [] if _stays(hook)]
    cfg.train_cfg.max_epochs = _ENDLESS
    cfg.log_level = "ERROR"
    if synthetic is not None:
        notes.append(f"data: {synthetic} random images")
    return cfg, notes


def edited(cfg: Config, **fields: Any) -> Config:
    """Return a copy of a config with other fields, and a name of its own for MMEngine.

    Args:
        cfg: A config.
        **fields: Merged into it.
    """
    new = Config(cfg.to_dict())
    new.merge_from_dict(fields)
    new.experiment_name = f"benchmark{next(_number)}"
    return new


def _stays(hook: dict) -> bool:
    """Leave out what writes checkpoints and what draws, as it does where nobody watches."""
    return type_name(hook) not in ("FinalCheckpointHook", "ProgressBarHook")


def _without_cache(spec: Any) -> Any:
    if not isinstance(spec, dict):
        return spec
    return {key: value for key, value in spec.items() if key != "cache"}


def _without_checkpoints(cfg: Config) -> list[str]:
    notes = []
    for spec in model_teachers(cfg):
        checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
        if not isinstance(checkpoint, str) or "://" in checkpoint:
            continue
        if not Path(checkpoint).expanduser().is_file():
            spec["checkpoint"] = None
            notes.append(f"teacher: random weights, as there is no {checkpoint}")
    return notes


def _use_random_images(cfg: Config, number: int) -> None:
    spec = innermost(cfg.train_dataloader.dataset)
    shape: Sequence[int] = (32, 32, 3)
    classes = int(cfg.data_preprocessor.get("num_classes", 100))
    if type_name(spec) == "Digits":
        shape = (8, 8, 1)
    elif not str(type_name(spec)).startswith("CIFAR"):
        raise ValueError(f"--synthetic stands for CIFAR or the digits, not for {spec.type}")
    images = dict(
        type="mmkd_logit.RandomImages",
        num_samples=number,
        num_classes=classes,
        img_shape=shape,
        pipeline=spec.pipeline,
    )
    loader = cfg.train_dataloader
    loader.dataset = change_innermost(loader.dataset, lambda _: images)
