"""One config for several runs that share their batches."""

import copy
import json
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmkd_logit._arguments import type_name

from .config import seed_of
from .teachers import FINAL

# In these the runs may differ.
_OWN = (
    "model",
    "optim_wrapper",
    "param_scheduler",
    "work_dir",
    "log_processor",
    "filename",
    "experiment_name",
)
_FINAL = "FinalCheckpointHook"
_ALLOWED_HOOKS = (
    *(_FINAL, "ProgressBarHook", "LabelNoiseHook", "ChannelsLastHook", "LogitOutputsHook"),
    *("ClassifierSumHook", "TrainAccuracyHook", "FiguresHook", "RunCheckHook", "FiniteLossHook"),
)
_DEFAULT_HOOKS = (
    *("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"),
    *("visualization", "logit_outputs", "classifier_sum", "train_accuracy", "figures"),
)


def why_alone(cfg: Config) -> str | None:
    """Say why a run cannot share its batches with others, or return None.

    Args:
        cfg: Its complete config.
    """
    for hook in cfg.get("custom_hooks") or []:
        if not isinstance(hook, dict) or type_name(hook) not in _ALLOWED_HOOKS:
            kind = hook.get("type") if isinstance(hook, dict) else hook
            return f"{kind} of custom_hooks expects a model of its own"
        if hook.get("filename", FINAL) != FINAL:
            return f"its last checkpoint is named {hook['filename']}"
    known = set(cfg.get("default_hooks") or {}) - set(_DEFAULT_HOOKS)
    if known:
        return f"{sorted(known)[0]} of default_hooks expects a model of its own"
    if cfg.get("load_from") or cfg.get("resume"):
        return "load_from and resume are for one model"
    if _augments(cfg):
        return "MixUp and the like are drawn for one student"
    if cfg.model.get("feature_kd"):
        return "feature_kd needs the teacher's features"
    if seed_of(cfg) is None:
        return "randomness.seed is not set"
    optim = cfg.optim_wrapper
    if optim.get("accumulative_counts", 1) != 1 or type_name(optim) == "AmpOptimWrapper":
        return "its optimizer accumulates gradients or scales its loss"
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if checkpoint.get("save_best"):
        return "save_best is of one student"
    return None


def _augments(cfg: Config) -> bool:
    """Whether batches are mixed: by the model's ``train_cfg`` or by its preprocessor."""
    models = [cfg.model, cfg.model.get("student") or {}]
    mixed = [(model.get("train_cfg") or {}).get("augments") for model in models]
    makers = [holder.get("data_preprocessor") or {} for holder in (cfg, *models)]
    return any(mixed) or any(maker.get("batch_augments") for maker in makers)


def batches_key(cfg: Config) -> str:
    """Return what runs must agree in to share their batches.

    Args:
        cfg: A complete config.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key not in _OWN}
    content["precision"] = [cfg.optim_wrapper.get(key) for key in ("type", "dtype")]
    content["preprocessor"] = _preprocessor(cfg)
    return json.dumps(content, sort_keys=True, default=repr)


def _preprocessor(cfg: Config) -> Any:
    model = cfg.model
    inner = model.get("student") if type_name(model) == "LogitDistiller" else None
    for holder in (inner or {}, model, cfg):
        if holder.get("data_preprocessor"):
            return dict(holder["data_preprocessor"])
    return None


def join_configs(cfgs: Mapping[str, Config]) -> Config:
    """Return the config that trains several runs' students in one.

    Args:
        cfgs: Complete configs by the names that students will have.

    Raises:
        ValueError: If one cannot share, or they differ in more than model, optimizer and
            schedule.
    """
    for name, cfg in cfgs.items():
        why = why_alone(cfg)
        if why is not None:
            raise ValueError(f"the run {name} ({cfg.work_dir}) must be trained alone: {why}")
    if len({cfg.work_dir for cfg in cfgs.values()}) < len(cfgs):
        raise ValueError("two runs write to the same work_dir; give one of them --work-dir")
    first = next(iter(cfgs.values()))
    expected = json.loads(batches_key(first))
    for name, cfg in cfgs.items():
        found = json.loads(batches_key(cfg))
        keys = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
        if keys:
            raise ValueError(
                f"the runs {next(iter(cfgs))} and {name} differ in {', '.join(sorted(keys))}; to "
                "share batches they may differ in model, optim_wrapper and param_scheduler only"
            )
    return _joined(first, cfgs)


def _joined(first: Config, cfgs: Mapping[str, Config]) -> Config:
    joint = copy.deepcopy(first)
    seed = seed_of(first)
    joint.model = dict(
        type="mmkd_logit.StudentGroup",
        students={name: copy.deepcopy(cfg.model.to_dict()) for name, cfg in cfgs.items()},
        seeds=seed,
    )
    joint.optim_wrapper = dict(
        constructor="mmkd_logit.StudentGroupOptimConstructor",
        students={name: copy.deepcopy(cfg.optim_wrapper.to_dict()) for name, cfg in cfgs.items()},
    )
    schedules = {name: copy.deepcopy(cfg.get("param_scheduler")) for name, cfg in cfgs.items()}
    joint.param_scheduler = {name: value or [] for name, value in schedules.items()}
    if joint.get("val_cfg") is not None:
        joint.val_cfg = dict(joint.val_cfg, type="mmkd_logit.StudentGroupValLoop")
    wrapper = dict(joint.get("model_wrapper_cfg") or {}, type="mmkd_logit.StudentGroupDDP")
    wrapper.setdefault("broadcast_buffers", False)  # as MMEngine does without such a field
    if joint.get("find_unused_parameters"):
        wrapper["find_unused_parameters"] = True
    joint.model_wrapper_cfg = wrapper
    hooks = joint.get("custom_hooks") or []
    joint.custom_hooks = [hook for hook in hooks if type_name(hook) != _FINAL]
    joint.log_processor = _join_logs(joint, cfgs)
    return joint


def _join_logs(joint: Config, cfgs: Mapping[str, Config]) -> dict[str, Any]:
    """Average what each run averages in its log lines, under the names of the group."""
    processor = dict(joint.get("log_processor") or {})
    custom = []
    for name, cfg in cfgs.items():
        for entry in (cfg.get("log_processor") or {}).get("custom_cfg") or []:
            renamed = dict(entry, data_src=f"{name}/{entry['data_src']}")
            if "log_name" in entry:
                renamed["log_name"] = f"{name}/{entry['log_name']}"
            custom.append(renamed)
    processor["custom_cfg"] = custom
    return processor
