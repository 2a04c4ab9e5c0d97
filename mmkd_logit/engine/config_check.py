"""Checking a config before anything is built."""

import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from inspect import signature
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import optim
from torch.utils.data import DataLoader

from mmkd_logit.optim.autocast import check_clip_grad
from mmkd_logit.utils.arguments import (
    arguments_of,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_text,
    did_you_mean,
    refuse_unknown,
    type_name,
)

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
    """Check the values of a config's plain settings."""
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
    """Give the parameter schedulers of a config, by their places."""
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


# The components that a config asks for, and whether they take what it gives them.


_LOADER_FIELDS = ("train_dataloader", "val_dataloader", "test_dataloader")
_EVALUATORS = ("val_evaluator", "test_evaluator", "train_evaluator")
# What the Runner, and no class, reads from the config of a component.
_ALWAYS = ("type", "_scope_")
_GIVEN = ("runner", "dataloader", "evaluator", "params")  # by the Runner
_WRAPPER = ("optimizer", "paramwise_cfg", "constructor", "students")
_RANDOMNESS = ("seed", "diff_rank_seed", "deterministic")
_ENVIRONMENT = ("cudnn_benchmark", "mp_cfg", "dist_cfg", "resource_limit")
# Where a model names another component of the kind that MODELS holds.
_MODEL_FIELDS = {"student", "backbone", "neck", "head", "loss", "loss_kd", "data_preprocessor"}
_MODEL_FIELDS |= {"student_adapter", "teacher_adapter"}
# Other packages whose classes hand on what stands behind **kwargs to their parents.
_MISSPELT = 0.86  # where any name may be meant
_HANDED_ON = ("mmengine.optim.scheduler", "mmpretrain.datasets", "mmpretrain.evaluation")


class Part(NamedTuple):
    """One component of a config.

    Attributes:
        path: Its place.
        spec: What the config says.
        registry: Where its type is looked up; None for settings without a type.
        default: Its type, or the function that takes the settings, where none is named.
        also: What may be said beside the arguments.
    """

    path: str
    spec: Any
    registry: Registry | None
    default: Any = None
    also: tuple[str, ...] = ()

    def check(self) -> None:
        """Make sure that the class exists and takes these arguments."""
        if not isinstance(self.spec, dict):
            raise ValueError(
                f"{self.path} must be a dict such as dict(type=...), got {self.spec!r}"
            )
        target = self.default
        if self.registry is not None:
            target = _find(self.registry, self.spec.get("type", self.default), self.path)
        names, open_ = arguments_of(target) if callable(target) else ([], False)
        known = [name for name in (*self.also, *names) if name not in _GIVEN]
        given = [name for name in self.spec if name not in _ALWAYS]
        if open_ or (callable(target) and _keeps_the_rest(target)):
            lacking = [name for name in known if name not in given]
            given = [name for name in given if get_close_matches(name, lacking, 1, _MISSPELT)]
        refuse_unknown(self.path, given, list(dict.fromkeys(known)))


def _find(registry: Registry, kind: Any, path: str) -> Any:
    """Return the class of a name, as it will be looked up when it is built."""
    if kind is None:
        raise ValueError(f"{path} has no type; say which component it is with type=...")
    if not isinstance(kind, str):
        return kind
    # As MMEngine's build does, but without a warning where a package has no registry of the kind.
    scope = DefaultScope.get_current_instance()
    child = registry._search_child(scope.scope_name) if scope is not None else None
    place = registry if child is None else child  # an empty one is false
    try:
        found = place.get(kind)
    except Exception:  # MMEngine raises what it likes where a module cannot be imported
        found = None
    if found is None:
        places = [place, *([place.parent] if place.parent else [])]
        known = [name for each in places for name in each.module_dict]
        ours = registry._search_child("mmkd_logit")
        known += [f"mmkd_logit.{name}" for name in (ours.module_dict if ours else ())]
        hint = did_you_mean(kind, known) or "; check its spelling and scope"
        raise ValueError(f"{path}.type: no {registry.name} {kind!r} is registered{hint}")
    return found


def _keeps_the_rest(target: Callable) -> bool:
    """Whether a class of others may do with its ``**kwargs`` what only it knows."""
    module = target.__module__
    if module.startswith("mmkd_logit.") or (
        module.startswith(_HANDED_ON) and ".transforms" not in module
    ):
        return False
    function: Any = target.__init__ if inspect.isclass(target) else target
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def parts_of(cfg: Config) -> Iterator[Part]:
    """Give everything that the Runner will build from a config."""
    yield from _model_parts("model", cfg.model, True)
    if _takes_preprocessor(cfg):
        kind = "mmpretrain.ClsDataPreprocessor"  # whatever the scope, as the classifier builds it
        yield Part("data_preprocessor", cfg.data_preprocessor, registries.MODELS, kind)
    for name in _LOADER_FIELDS:
        if cfg.get(name) is not None:
            yield from _loader_parts(name, cfg[name])
    for name in _EVALUATORS:
        yield from _evaluator_parts(name, cfg.get(name))
    yield from _hook_parts(cfg)
    yield from _loop_parts(cfg)
    yield from _optimizer_parts("optim_wrapper", cfg.get("optim_wrapper"))
    for path, schedule in schedules(cfg):
        also = ("convert_to_iter_based",)
        yield Part(path, schedule, registries.PARAM_SCHEDULERS, None, also)
    if cfg.get("visualizer") is not None:
        yield Part("visualizer", cfg.visualizer, registries.VISUALIZERS, "Visualizer")
    yield from _plain_parts(cfg)


def _takes_preprocessor(cfg: Config) -> bool:
    """Whether the preprocessor's class is known: its own type, or that of a classifier."""
    given = cfg.get("data_preprocessor")
    if given is None:
        return False
    model = cfg.model.get("student") if "student" in cfg.model else cfg.model
    kind = str((model or {}).get("type")) if isinstance(model, dict) else ""
    classifies = kind.endswith("Classifier") or "students" in cfg.model
    return not isinstance(given, dict) or "type" in given or classifies


def _model_parts(path: str, spec: Any, known: bool) -> Iterator[Part]:
    """Give a model and what is inside it; of other kinds only what is ours."""
    if isinstance(spec, (list, tuple)):
        for number, each in enumerate(spec):
            if isinstance(each, (dict, list, tuple)):
                yield from _model_parts(f"{path}.{number}", each, known)
        return
    if not isinstance(spec, dict):
        return
    kind = spec.get("type")
    if kind is not None and (known or str(kind).startswith("mmkd_logit.")):
        yield Part(path, spec, registries.MODELS)
    elif "config" in spec and re.search(r"\.teacher(\.\d+)?$", path):
        yield from _teacher_parts(path, spec)
    for name, each in spec.items():
        inside = name in _MODEL_FIELDS or path.endswith(".students") or name == "config"
        yield from _model_parts(f"{path}.{name}", each, inside)


def _teacher_parts(path: str, spec: dict) -> Iterator[Part]:
    from mmkd_logit.models import TeacherCache, TeacherSettings

    yield Part(path, spec, None, TeacherSettings)
    if isinstance(spec.get("cache"), dict):
        yield Part(f"{path}.cache", spec["cache"], None, TeacherCache)


def _loader_parts(path: str, loader: dict) -> Iterator[Part]:
    also = ("num_batch_per_epoch",)
    yield Part(path, loader, None, DataLoader, also)
    if "dataset" not in loader:
        raise ValueError(f"{path} has no dataset; say which data it reads with dataset=dict(...)")
    yield from _dataset_parts(f"{path}.dataset", loader["dataset"])
    for name in ("sampler", "batch_sampler"):
        if loader.get(name) is not None:
            yield from _sampler_parts(f"{path}.{name}", loader[name])
    collate = loader.get("collate_fn")
    if collate is not None and not callable(collate):
        yield Part(f"{path}.collate_fn", collate, registries.FUNCTIONS)


def _sampler_parts(path: str, sampler: Any) -> Iterator[Part]:
    yield Part(path, sampler, registries.DATA_SAMPLERS)
    if isinstance(sampler, dict) and isinstance(sampler.get("sampler"), dict):
        yield from _sampler_parts(f"{path}.sampler", sampler["sampler"])


def _dataset_parts(path: str, dataset: Any) -> Iterator[Part]:
    yield Part(path, dataset, registries.DATASETS)
    if not isinstance(dataset, dict):
        return
    if "dataset" in dataset:
        yield from _dataset_parts(f"{path}.dataset", dataset["dataset"])
    for number, each in enumerate(dataset.get("datasets") or ()):
        yield from _dataset_parts(f"{path}.datasets.{number}", each)
    pipeline = dataset.get("pipeline") or ()
    if not isinstance(pipeline, (list, tuple)):
        raise ValueError(f"{path}.pipeline must be a list of transforms, got {pipeline!r}")
    for number, step in enumerate(pipeline):
        if not callable(step):
            yield Part(f"{path}.pipeline.{number}", step, registries.TRANSFORMS)


def _evaluator_parts(path: str, evaluator: Any) -> Iterator[Part]:
    if isinstance(evaluator, dict) and "metrics" in evaluator:
        path, evaluator = f"{path}.metrics", evaluator["metrics"]
    if isinstance(evaluator, dict):
        yield Part(path, evaluator, registries.METRICS)
    elif evaluator is not None:
        if not isinstance(evaluator, (list, tuple)):
            raise ValueError(f"{path} must be a dict or a list of metrics, got {evaluator!r}")
        for number, metric in enumerate(evaluator):
            yield Part(f"{path}.{number}", metric, registries.METRICS)


def _hook_parts(cfg: Config) -> Iterator[Part]:
    hooks = cfg.get("default_hooks") or {}
    for name, hook in hooks.items():
        if hook is None or isinstance(hook, Hook):
            continue
        if not isinstance(hook, dict) or "type" not in hook:
            hint = did_you_mean(name, [other for other in hooks if other != name])
            raise ValueError(
                f"default_hooks.{name} must be None or a hook's dict(type=...), got {hook!r}{hint}"
            )
        yield Part(f"default_hooks.{name}", hook, registries.HOOKS, None, ("priority",))
    custom = cfg.get("custom_hooks") or []
    if not isinstance(custom, (list, tuple)):
        raise ValueError(f"custom_hooks must be a list of hooks, got {custom!r}")
    for number, hook in enumerate(custom):
        if isinstance(hook, Hook):
            continue
        path = f"custom_hooks.{number}"
        yield Part(path, hook, registries.HOOKS, None, ("priority",))
        for k, stage in enumerate(hook.get("stages") or () if isinstance(hook, dict) else ()):
            yield from _model_parts(f"{path}.stages.{k}", stage, False)


def _loop_parts(cfg: Config) -> Iterator[Part]:
    by_epoch = (cfg.get("train_cfg") or {}).get("by_epoch", True)
    defaults = dict(train_cfg="EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    for name, default in {**defaults, "val_cfg": "ValLoop", "test_cfg": "TestLoop"}.items():
        if cfg.get(name) is not None:
            yield Part(name, cfg[name], registries.LOOPS, default, ("by_epoch",))


def _optimizer_parts(path: str, wrapper: Any) -> Iterator[Part]:
    if wrapper is None:
        return
    yield Part(path, wrapper, registries.OPTIM_WRAPPERS, "OptimWrapper", _WRAPPER)
    if wrapper.get("optimizer") is not None:
        yield Part(f"{path}.optimizer", wrapper["optimizer"], registries.OPTIMIZERS)
    for name, each in (wrapper.get("students") or {}).items():
        yield from _optimizer_parts(f"{path}.students.{name}", each)


def _plain_parts(cfg: Config) -> Iterator[Part]:
    environment = cfg.get("env_cfg") or {}
    yield Part("env_cfg", environment, None, None, _ENVIRONMENT)
    multi = environment.get("mp_cfg") or {}
    yield Part("env_cfg.mp_cfg", multi, None, set_multi_processing)
    yield Part("randomness", cfg.get("randomness") or {}, None, None, _RANDOMNESS)
    scale = cfg.get("auto_scale_lr") or {}
    yield Part("auto_scale_lr", scale, None, None, ("enable", "base_batch_size"))
    processor = cfg.get("log_processor") or {}
    yield Part("log_processor", processor, registries.LOG_PROCESSORS, "LogProcessor")
    if cfg.get("model_wrapper_cfg") is not None:
        default = "MMDistributedDataParallel"
        yield Part("model_wrapper_cfg", cfg.model_wrapper_cfg, registries.MODEL_WRAPPERS, default)


# What MMEngine would pass over in silence, or fail on when a run has begun to write.


# What is read from a config beside the Runner's own arguments.
_MORE_FIELDS = {"model_wrapper_cfg", "find_unused_parameters", "compile", "tta_model"}
_MORE_FIELDS |= {"tta_pipeline", "data_root", "sync_bn", "custom_imports"}
_MORE_FIELDS |= {"activation_checkpointing", "efficient_conv_bn_eval", "train_evaluator"}

# Of the variables in mmpretrain's configs none that is no pipeline comes closer than 0.82 to a
# field, and of a field with two letters exchanged few are further than this.
_CLOSE = 0.86


def fields_of(cfg: Config) -> set[str]:
    """Return the names that a setting on the command line may begin with."""
    return {*cfg, *signature(Runner.__init__).parameters, *_MORE_FIELDS} - {"self"}


def check_config(cfg: Config) -> None:
    """Refuse a config whose names or values cannot be meant, before anything is written.

    Checked are misspelt fields, the arguments of every component that the Runner builds, by the
    signature of its class, and the values of plain settings. Variables of one's own are left
    alone unless they look like a misspelt field; an underscore in front tells them apart.
    """
    _check_fields(cfg)
    check_values(cfg)
    scope = cfg.get("default_scope") or "mmpretrain"
    if importlib.util.find_spec(scope) is None and ROOT._search_child(scope) is None:
        raise ValueError(
            "default_scope must be an installed package with registries, such as 'mmpretrain', "
            f"got {scope!r}"
        )
    with suppress(ImportError):  # as MMEngine, which makes its registries known so
        importlib.import_module(f"{scope}.registry")
    with DefaultScope.overwrite_default_scope(scope):
        for part in parts_of(cfg):
            part.check()
            if part.path == "data_preprocessor":
                _check_preprocessor(part.spec)


def _check_preprocessor(given: dict) -> None:
    """Check numbers that mmpretrain's preprocessor takes as they come; ours is one of its kind."""
    from mmkd_logit.models.preprocessor import check_settings

    if type_name(given) in (None, "ClsDataPreprocessor", "BatchPreprocessor"):
        try:
            check_settings(given)
        except ValueError as error:
            raise ValueError(f"data_preprocessor: {error}") from None


def _check_fields(cfg: Config) -> None:
    known = fields_of(Config())
    for name in cfg:
        if name in known or name.startswith("_") or name.endswith("_pipeline"):
            continue
        if any(re.match(rf"{field}(_|\d)", name) for field in known):  # a second one
            continue
        close = get_close_matches(name, known, 1, cutoff=_CLOSE)
        if close:
            raise ValueError(
                f"a config has no field {name!r}; did you mean {close[0]}? (A variable of your own "
                f"passes as _{name}.)"
            )
