"""Plain settings of a config, checked before MMEngine meets them one by one."""

import math
from collections.abc import Callable, Iterator
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import optim

from mmkd_logit._arguments import did_you_mean, refuse_unknown, type_name
from mmkd_logit._checks import check_choice, check_count, check_flag, check_number, check_text
from mmkd_logit.optim._clip_grad import check_clip_grad

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DICTS = (*_LOADERS, "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "randomness", "env_cfg")
_MORE_DICTS = ("default_hooks", "auto_scale_lr", "log_processor", "model_wrapper_cfg", "visualizer")

_TOGETHER = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)
_WRAPPERS = {None, "OptimWrapper", "AmpOptimWrapper", "ApexOptimWrapper"}
_WRAPPERS |= {"AutocastOptimWrapper"}
_LEVELS = ("CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET")

Check = Callable[[str, Any], Any]


def check_values(cfg: Config) -> None:
    """Check the values of a config's plain settings.

    Args:
        cfg: A complete config.

    Raises:
        ValueError: If one is of the wrong kind or out of range.
    """
    for name in (*_DICTS, *_MORE_DICTS):
        if not isinstance(cfg.get(name), dict | None):
            raise ValueError(f"{name} must be a dict of settings, got {cfg[name]!r}")
    for names in _TOGETHER:
        absent = [name for name in names if cfg.get(name) is None]
        if absent and len(absent) < len(names):
            raise ValueError(f"a run needs {', '.join(names)}; {absent[0]} is missing")
    for path, holder, checks in _settings(cfg):
        for name, check in checks.items():
            if holder.get(name) is not None:
                check(f"{path}.{name}" if path else name, holder[name])
    for path, wrapper in _optimizers(cfg):
        if type_name(wrapper) in _WRAPPERS:
            check_clip_grad(wrapper.get("clip_grad"), f"{path}.clip_grad")
        if type_name(wrapper.get("constructor")) in (None, "DefaultOptimWrapperConstructor"):
            _check_paramwise(f"{path}.paramwise_cfg", wrapper.get("paramwise_cfg") or {})
    work_dir = Path(str(cfg.get("work_dir") or "."))
    for folder in (work_dir, *work_dir.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"work_dir={str(work_dir)!r}: {folder} is a file; name a folder")


def _check_paramwise(path: str, given: dict) -> None:
    """Refuse misspelt names; what is none of MMEngine's at all, it passes over, and so do we."""
    refuse_unknown(path, [name for name in given if did_you_mean(name, _PARAMWISE)], _PARAMWISE)
    for name in given:
        if name in _PARAMWISE and name.endswith("_mult"):
            check_number(f"{path}.{name}", given[name])


def _logged(path: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, dict) for each in value):
        raise ValueError(
            f"{path} must be a list of dicts such as dict(data_src='loss', method_name='mean', "
            f"window_size=10), got {value!r}"
        )
    for each in value:
        check_text(f"data_src in {path}", each.get("data_src"), "the name of a logged value")
        check_text(f"method_name in {path}", each.get("method_name"), "such as 'mean'")
        size = each.get("window_size", 1)
        if size not in ("epoch", "global"):
            check_count(f"window_size in {path}, neither 'epoch' nor 'global',", size)


def _settings(cfg: Config) -> Iterator[tuple[str, dict, dict[str, Check]]]:
    yield "", cfg, _TOP
    yield "train_cfg", cfg.get("train_cfg") or {}, _TRAIN
    for name in ("val_cfg", "test_cfg"):
        yield name, cfg.get(name) or {}, _VAL
    for name in _LOADERS:
        yield name, cfg.get(name) or {}, _LOADER
    for name in ("randomness", "env_cfg", "auto_scale_lr"):
        yield name, cfg.get(name) or {}, _PLAIN
    environment = cfg.get("env_cfg") or {}
    yield "env_cfg.mp_cfg", environment.get("mp_cfg") or {}, _PROCESSES
    yield "env_cfg.dist_cfg", environment.get("dist_cfg") or {}, _DISTRIBUTED
    yield "log_processor", cfg.get("log_processor") or {}, _LOG
    hooks = cfg.get("default_hooks") or {}
    for name, checks in (("logger", _LOGGER), ("checkpoint", _CHECKPOINT)):
        if isinstance(hooks.get(name), dict):
            yield f"default_hooks.{name}", hooks[name], checks
    for path, wrapper in _optimizers(cfg):
        yield path, wrapper, dict(accumulative_counts=check_count)
        optimizer = wrapper.get("optimizer")
        if isinstance(optimizer, dict) and hasattr(optim, str(type_name(optimizer))):
            yield f"{path}.optimizer", optimizer, _OPTIMIZER  # what those of others take, they know
    for path, schedule in schedules(cfg):
        yield path, schedule, _SCHEDULE


def _optimizers(cfg: Config) -> Iterator[tuple[str, dict]]:
    wrapper = cfg.get("optim_wrapper") or {}
    yield "optim_wrapper", wrapper
    for name, each in (wrapper.get("students") or {}).items():
        yield f"optim_wrapper.students.{name}", each


def schedules(cfg: Config) -> Iterator[tuple[str, dict]]:
    """Give the parameter schedulers of a config, by their places.

    Args:
        cfg: A config with one, a list of them, or a dict of lists.

    Raises:
        ValueError: If there is something else.
    """
    yield from _schedules("param_scheduler", cfg.get("param_scheduler"))


def _schedules(path: str, given: Any) -> Iterator[tuple[str, dict]]:
    if given is None:
        return
    if isinstance(given, (list, tuple)):
        for number, each in enumerate(given):
            yield from _schedules(f"{path}.{number}", each)
    elif not isinstance(given, dict):
        raise ValueError(f"{path} must be a dict such as dict(type='MultiStepLR'), got {given!r}")
    elif "type" in given:
        yield path, given
    else:
        for name, each in given.items():
            if not isinstance(each, (dict, list, tuple)):
                raise ValueError(f"{path} has no type, and its {name} is no scheduler: {each!r}")
            yield from _schedules(f"{path}.{name}", each)


def _finite(path: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"{path} must be a finite number, got {value!r}")


def _from_zero(path: str, value: Any) -> None:
    check_count(path, value, 0)


def _count_or_never(path: str, value: Any) -> None:
    if type(value) is not int or value < -1:
        raise ValueError(f"{path} must be an integer from 1 on, or -1 for never, got {value!r}")


def _milestones(path: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path} must be a list of numbers from 0 on, got {value!r}")
    for each in value:
        check_number(f"one of {path}", each)


def _above_zero(path: str, value: Any) -> None:
    check_number(path, value, zero=False)


def _dynamic_intervals(path: str, value: Any) -> None:
    pairs = value if isinstance(value, (list, tuple)) else [value]
    for each in pairs:
        pair = isinstance(each, (list, tuple)) and len(each) == 2
        if not pair or any(type(number) is not int or number < 0 for number in each):
            raise ValueError(
                f"{path} must be a list of (begin, val_interval), integers, got {value!r}"
            )


def _seed(path: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError(f"{path} must be an integer from 0 to 2**32 - 1, got {value!r}")


def _threads(path: str, value: Any) -> None:
    check_count(path, value, -1)


def _start_method(path: str, value: Any) -> None:
    check_choice(path, value, get_all_start_methods())


def _backend(path: str, value: Any) -> None:
    check_text(path, value, "a backend of torch.distributed, such as 'nccl' or 'gloo'")


def _level(path: str, value: Any) -> None:
    number = type(value) is int and value >= 0
    if not number and not (isinstance(value, str) and value in _LEVELS):
        raise ValueError(f"{path} must be one of {', '.join(_LEVELS)}, got {value!r}")


def _compile(path: str, value: Any) -> None:
    if not isinstance(value, (bool, dict)):
        raise ValueError(
            f"{path} must be True, False or a dict of torch.compile's arguments, got {value!r}"
        )


def _checkpoint(path: str, value: Any) -> None:
    check_text(path, value, "the path or URL of a checkpoint, or None")


_TOP: dict[str, Check] = dict(
    log_level=_level,
    load_from=_checkpoint,
    resume=check_flag,
    find_unused_parameters=check_flag,
    default_scope=check_text,
    compile=_compile,
)
_TRAIN: dict[str, Check] = dict(
    max_epochs=check_count,
    max_iters=check_count,
    val_interval=check_count,
    val_begin=_from_zero,
    by_epoch=check_flag,
    dynamic_intervals=_dynamic_intervals,
    fast_forward_on_resume=check_flag,
)
_VAL: dict[str, Check] = dict(fp16=check_flag)
_LOADER: dict[str, Check] = dict(
    batch_size=check_count,
    num_workers=_from_zero,
    drop_last=check_flag,
    pin_memory=check_flag,
    persistent_workers=check_flag,
)
_PLAIN: dict[str, Check] = dict(
    seed=_seed,
    deterministic=check_flag,
    diff_rank_seed=check_flag,
    cudnn_benchmark=check_flag,
    base_batch_size=check_count,
    enable=check_flag,
)
_PROCESSES: dict[str, Check] = dict(mp_start_method=_start_method, opencv_num_threads=_threads)
_DISTRIBUTED: dict[str, Check] = dict(backend=_backend)
_LOG: dict[str, Check] = dict(window_size=check_count, by_epoch=check_flag, custom_cfg=_logged)
_LOGGER: dict[str, Check] = dict(interval=check_count)
_CHECKPOINT: dict[str, Check] = dict(interval=_count_or_never, max_keep_ckpts=_count_or_never)
_OPTIMIZER: dict[str, Check] = dict(
    lr=check_number,
    momentum=check_number,
    dampening=check_number,
    weight_decay=check_number,
    nesterov=check_flag,
)
_SCHEDULE: dict[str, Check] = dict(
    milestones=_milestones,
    gamma=check_number,
    begin=check_number,  # a part of an epoch, where these are converted to iterations
    end=_above_zero,
    T_max=_above_zero,
    step_size=_above_zero,
    by_epoch=check_flag,
    convert_to_iter_based=check_flag,
    factor=_finite,
    start_factor=_finite,
    end_factor=_finite,
    eta_min=_finite,
    power=_finite,
)
# Those of MMEngine's DefaultOptimWrapperConstructor, which asks for these and looks at no others.
_PARAMWISE = (
    *("custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult"),
    *("dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate"),
)
