"""Checking a config before anything is built or written.

What a class does not take it refuses when it is built; here are names that MMEngine would pass
over, and values with which a run would begin.
"""

import importlib.util
import math
import numbers
import re
from collections.abc import Callable, Collection
from difflib import get_close_matches
from inspect import Parameter, signature
from multiprocessing import get_all_start_methods
from pathlib import Path
from typing import Any, NamedTuple

from mmengine import registry
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from mmkd_logit.optim.autocast import check_clip_grad
from mmkd_logit.registry import find_class
from mmkd_logit.utils.arguments import (
    arguments_of,
    check_count,
    check_flag,
    check_number,
    check_out_folder,
    check_text,
    is_ours,
    refuse_unknown,
    type_name,
)

# What stands where. MMEngine reads much of it with ``.get`` and passes over what is misspelt.


class Place(NamedTuple):
    """What a config builds somewhere.

    The target is the registry of its type; without types, the class or function that takes the
    settings, or the defaults of what MMEngine reads with ``.get``, by name.
    """

    path: str  # a regular expression for its place in the config
    target: Any
    default: str | None = None  # the type where the config names none
    also: tuple[str, ...] = ()  # settings that the Runner reads by itself


_STUDENTS = r"students\.[^.]*[^.\d][^.]*"  # by name
_MODULE = "student|backbone|neck|head|loss|loss_kd|data_preprocessor|config"
_MODULE = rf"({_MODULE}|student_adapter|teacher_adapter|{_STUDENTS})(\.\d+)?"
_INIT = r"(model|custom_hooks)\..*init_cfg(\.\d+)?"
_LOADER = r"(train|val|test)_dataloader"
_DATASET = rf"{_LOADER}\.(.*\.)?dataset(s\.\d+)?"
_EVALUATOR = r"(train|val|test)_evaluator(\.metrics)?(\.\d+)?"
_OPTIM = rf"optim_wrapper(\.{_STUDENTS})?"
_BESIDE_WRAPPER = ("optimizer", "paramwise_cfg", "constructor", "students")
_SCHEDULER = r"param_scheduler(\.\d+)?|param_scheduler\.[a-z]\w*(\.\d+)?"
_PARAMWISE = dict(custom_keys=None, bypass_duplicate=False, bias_lr_mult=1.0, bias_decay_mult=1.0)
_PARAMWISE |= dict(norm_decay_mult=1.0, flat_decay_mult=1.0, dwconv_decay_mult=1.0)
_PARAMWISE |= dict(dcn_offset_lr_mult=1.0)
_ENVIRONMENT = dict(cudnn_benchmark=False, mp_cfg=None, dist_cfg=None, resource_limit=4096)


def _custom_cfg(
    data_src: str, method_name: str, window_size: Any = 1, log_name: Any = None, **of_method: Any
) -> None:
    """Take what LogProcessor reads."""


PLACES = [
    Place(r"model", registry.MODELS),
    Place(rf"(model|custom_hooks\.\d+\.stages\.\d+)\.(.*\.)?{_MODULE}", registry.MODELS),
    Place(_INIT, registry.WEIGHT_INITIALIZERS, also=("override",)),
    Place(r"data_preprocessor", registry.MODELS, "mmpretrain.ClsDataPreprocessor"),
    Place(_LOADER, DataLoader, also=("num_batch_per_epoch",)),
    Place(_DATASET, registry.DATASETS),
    Place(rf"{_DATASET}\.pipeline\.\d+", registry.TRANSFORMS),
    Place(rf"{_LOADER}\.(batch_)?sampler(\.sampler)*", registry.DATA_SAMPLERS),
    Place(rf"{_LOADER}\.collate_fn", registry.FUNCTIONS),
    Place(_EVALUATOR, registry.METRICS),
    Place(r"default_hooks", dict),
    Place(r"default_hooks\.[a-z]\w*|custom_hooks\.\d+", registry.HOOKS, also=("priority",)),
    Place(r"train_cfg", registry.LOOPS, "EpochBasedTrainLoop", ("by_epoch",)),
    Place(r"val_cfg", registry.LOOPS, "ValLoop"),
    Place(r"test_cfg", registry.LOOPS, "TestLoop"),
    Place(_OPTIM, registry.OPTIM_WRAPPERS, "OptimWrapper", _BESIDE_WRAPPER),
    Place(rf"{_OPTIM}\.optimizer", registry.OPTIMIZERS),
    Place(rf"{_OPTIM}\.paramwise_cfg", _PARAMWISE),
    Place(_SCHEDULER, registry.PARAM_SCHEDULERS, also=("convert_to_iter_based",)),
    Place(r"visualizer", registry.VISUALIZERS, "Visualizer"),
    Place(r"visualizer\.vis_backends(\.\d+)?", registry.VISBACKENDS),
    Place(r"model_wrapper_cfg", registry.MODEL_WRAPPERS, "MMDistributedDataParallel"),
    Place(r"log_processor", registry.LOG_PROCESSORS, "LogProcessor"),
    Place(r"log_processor\.custom_cfg\.\d+", _custom_cfg),
    Place(r"randomness", dict(seed=None, diff_rank_seed=False, deterministic=False)),
    Place(r"env_cfg", _ENVIRONMENT),
    Place(r"env_cfg\.mp_cfg", set_multi_processing),
    Place(r"env_cfg\.dist_cfg", init_dist),
    Place(r"auto_scale_lr", dict(base_batch_size=None, enable=False)),
]
_DEFAULT_HOOKS = {"runtime_info", "timer", "sampler_seed", "logger", "param_scheduler"}
_DEFAULT_HOOKS |= {"checkpoint", "visualization"}
# Arguments that come from the Runner, or from what builds the component.
_GIVEN = ("runner", "dataloader", "evaluator", "params", "launcher", "distributed")
# That take any numbers, or check them as ours does.
_PREPROCESSORS = (None, "ClsDataPreprocessor", "BatchPreprocessor")
# Their classes check values when they are built, or mean something else by the names below.
_CHECK_VALUES = (
    registry.MODELS,
    registry.DATASETS,
    registry.TRANSFORMS,
    registry.METRICS,
    registry.FUNCTIONS,
    registry.WEIGHT_INITIALIZERS,
)
# Where defaults say what values are.
_OF_KNOWN_VALUES = ("mmengine.", "torch.", "mmkd_logit.", "mmpretrain.engine.")
_OF_FRACTIONS = (registry.OPTIMIZERS, registry.PARAM_SCHEDULERS)  # a default of 0 is no count here
# Names that may have a meaning are refused where they are this close to a known one, or have its
# letters in another order. No variable in mmpretrain's configs is or has.
_CLOSE = 0.86

# Read from a config beside the arguments of Runner.
_MORE_FIELDS = {"model_wrapper_cfg", "find_unused_parameters", "compile", "tta_model"}
_MORE_FIELDS |= {"tta_pipeline", "data_root", "sync_bn", "custom_imports", "generations"}
_MORE_FIELDS |= {"activation_checkpointing", "efficient_conv_bn_eval", "train_evaluator"}
_TOGETHER = (
    ("train_dataloader", "train_cfg", "optim_wrapper"),
    ("val_dataloader", "val_cfg", "val_evaluator"),
    ("test_dataloader", "test_cfg", "test_evaluator"),
)

# Values that no class refuses, by their places: what they must be, and whether they are.


def _count(value: Any, least: int = 1, below: float = math.inf) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and least <= value < below


def _number(value: Any, below: float = math.inf) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and 0 <= value < below


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _file_pattern(value: Any) -> bool:
    try:
        return Path(value).name == value and value.format(1) != value.format(2)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return False


def _statistic(value: Any) -> bool:
    try:
        HistoryBuffer([1.0], [1]).statistics(value, window_size=1)
    except (KeyError, TypeError):
        return False
    return True


def _intervals(value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    pairs = [pair if isinstance(pair, (list, tuple)) else () for pair in value]
    return all(len(pair) == 2 and _count(pair[0], 0) and _count(pair[1]) for pair in pairs)


def _network(value: Any) -> bool:
    return bool(value) and not isinstance(value, numbers.Real)


def _one_or_several(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(
        map(holds, value if isinstance(value, (list, tuple)) and value else [value])
    )


def _schedule(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_number, value))


class Rule(NamedTuple):
    """What values at a place must be."""

    path: str  # a regular expression for the place
    what: str  # a value must be, for the message
    holds: Callable[[Any], bool]  # whether a value is so; None is no value


_LEVELS = ("CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET")
_COUNTS = r".*\.(batch_size|base_batch_size|max_epochs|max_iters|accumulative_counts)"
_COUNTS += r"|.*_dataloader\.prefetch_factor|log_processor\.window_size|generations"
_FLAGS = r".*\.(by_epoch|convert_to_iter_based)|resume|find_unused_parameters"
_CUSTOM, _OF_SCHEDULER = r".*custom_cfg\.\d+", rf"({_SCHEDULER})"
_SAVING = r"default_hooks\.checkpoint"
_STARTS = get_all_start_methods()
RULES = [
    Rule(_COUNTS, "an integer from 1 on", _count),
    Rule(_FLAGS, "True or False", lambda v: isinstance(v, bool)),
    Rule(r".*\.(data_src|_scope_)|default_scope|experiment_name", "text", _text),
    Rule(r"model\.(.*\.)?(backbone|head)", "a dict such as dict(type=...)", _network),
    Rule(r"compile", "True, False or torch.compile's dict", lambda v: isinstance(v, bool | dict)),
    Rule(r"load_from", "the path or URL of a checkpoint, or None", _text),
    Rule(r"randomness\.seed", "an integer from 0 to 2**32 - 1", lambda v: _count(v, 0, 2**32)),
    Rule(r"log_level", f"one of {str(_LEVELS)[1:-1]}", lambda v: _count(v, 0) or v in _LEVELS),
    Rule(r".*dist_cfg\.backend", "a backend such as 'nccl' or 'gloo'", _text),
    Rule(r".*\.mp_start_method", f"one of {_STARTS}", _STARTS.__contains__),
    Rule(r".*\.opencv_num_threads", "an integer from -1 on", lambda v: _count(v, -1, 2**31)),
    Rule(r".*_dataloader\.num_workers", "an integer from 0 to 1023", lambda v: _count(v, 0, 1024)),
    Rule(rf"({_EVALUATOR}|.*\.head)\.topk", "integers from 1 on", _one_or_several(_count)),
    Rule(rf"{_CUSTOM}\.method_name", "'mean', 'max', 'min', 'current' or the like", _statistic),
    Rule(
        rf"{_CUSTOM}\.window_size",
        "an integer from 1 on, 'epoch' or 'global'",
        lambda v: _count(v) or v in ("epoch", "global"),
    ),
    Rule(r"train_cfg\.dynamic_intervals", "a list of (begin, val_interval)", _intervals),
    Rule(
        rf"{_OF_SCHEDULER}\.(end|T_max|step_size)",
        "a finite number above 0",
        lambda v: _number(v) and v > 0,
    ),
    Rule(rf"{_OF_SCHEDULER}\.eta_min", "a finite number of at least 0", _number),
    Rule(rf"{_OF_SCHEDULER}\.milestones", "a list of numbers of at least 0", _schedule),
    Rule(rf"{_OPTIM}\.optimizer\.momentum", "a number from 0 to below 1", lambda v: _number(v, 1)),
    Rule(r".*_hooks\.\w+\.filename_tmpl", "a file's name, with {} for the number", _file_pattern),
    Rule(rf"{_SAVING}\.out_dir", "the name of a folder", lambda v: isinstance(v, Path) or _text(v)),
    Rule(rf"{_SAVING}\.(save_best|[a-z]+_keys)", "text or a list of texts", _one_or_several(_text)),
    Rule(rf"{_SAVING}\.[a-z_]+_args", "a dict of settings", lambda v: isinstance(v, dict)),
    # MMEngine takes the last samples of a negative number.
    Rule(
        rf"{_DATASET}\.indices",
        "a number of samples from 1 on, or their list",
        lambda v: _count(v) or isinstance(v, list | tuple),
    ),
]
_COUNTED = ("milestones", "step_size", "begin", "end")  # in epochs or iterations


def _rule_of(path: str) -> Rule | None:
    return next((rule for rule in RULES if re.fullmatch(rule.path, path)), None)


def _check_rule(path: str, value: Any) -> None:
    rule = _rule_of(path)
    if rule is not None and value is not None and not rule.holds(value):
        raise ValueError(f"{path} must be {rule.what}, got {value!r}")


def fields_of(cfg: Config) -> set[str]:
    """Return the names that a setting on the command line may begin with."""
    return {*cfg, *signature(Runner.__init__).parameters, *_MORE_FIELDS} - {"self"}


def _meant(name: str, known: Collection[str]) -> str | None:
    """Return the known name that a name without a meaning would be a misspelling of."""
    exchanged = [each for each in known if sorted(each) == sorted(name)]
    return next(iter(exchanged or get_close_matches(name, known, 1, _CLOSE)), None)


def check_config(cfg: Config) -> None:
    """Refuse a config whose names or values cannot be meant, before anything is written.

    Checked are misspelt fields, the arguments of every component that the Runner builds, by the
    signature of its class, and values that no class refuses. Variables of a config's own are left
    alone unless they look like a misspelt field; an underscore in front tells them apart.
    """
    _check_top(cfg)
    scope = cfg.get("default_scope") or "mmpretrain"
    if importlib.util.find_spec(scope) is None and registry.MODELS._search_child(scope) is None:
        raise ValueError(
            "default_scope must be an installed package with registries, such as 'mmpretrain', "
            f"got {scope!r}"
        )
    with registry.DefaultScope.overwrite_default_scope(scope):
        for name in fields_of(Config()):
            _check_place(name, cfg.get(name), cfg)


def _check_top(cfg: Config) -> None:
    known = fields_of(Config())
    second = re.compile(rf"({'|'.join(known)})(_|\d).*|_.*|.*_pipeline")
    for name in cfg:
        close = _meant(name, known)
        if name not in known and close and not second.fullmatch(name):
            raise ValueError(
                f"a config has no field {name!r}; did you mean {close}? (A variable of your own "
                f"passes as _{name}.)"
            )
    if not isinstance(cfg.get("model"), dict):
        raise ValueError(f"a run needs model=dict(type=...), got {cfg.get('model')!r}")
    for names in _TOGETHER:
        missing = [name for name in names if cfg.get(name) is None]
        if missing and len(missing) < len(names):
            raise ValueError(f"a run needs {', '.join(names)}; {missing[0]} is missing")
    for name, value in cfg.items():
        _check_rule(name, value)
    if cfg.get("work_dir") is not None:
        check_out_folder("work_dir", check_text("work_dir", cfg.work_dir))


def _place(path: str) -> Place | None:
    return next((place for place in PLACES if re.fullmatch(place.path, path)), None)


def _check_place(path: str, spec: Any, parent: Any) -> None:
    """Check what a config has at a place, and everything inside it."""
    place, each = _place(path), _place(f"{path}.0")
    # The class of a network says by itself what else it takes there, such as a module or a name.
    inner = place is not None and place.target is registry.MODELS and "." in path
    wrong = (str, int, float, type(None)) if path[-1].isdigit() else (str, int, float)
    if isinstance(spec, (list, tuple)):
        if place is not None and each is None:
            raise ValueError(f"{path} must be a dict of settings, got {spec!r}")
        for number, item in enumerate(spec):
            if each is not None or isinstance(item, (dict, list, tuple)):
                _check_place(f"{path}.{number}", item, parent)
    elif place is None and each is not None and spec is not None:
        raise ValueError(f"{path} must be a list of dicts such as dict(type=...), got {spec!r}")
    elif isinstance(spec, wrong) and place is not None and not inner:
        raise ValueError(f"{path} must be a dict such as dict(type=...), got {spec!r}")
    elif isinstance(spec, dict):
        for name, item in spec.items():
            _check_rule(f"{path}.{name}", item)
        if place is not None and _is_component(path, spec, place, parent):
            _check_component(path, spec, place)
            if place.target is registry.PARAM_SCHEDULERS:
                return
        elif place is None and is_ours(spec.get("type")):
            _check_component(path, spec, PLACES[0])
        elif re.search(r"\.teacher(\.\d+)?$", path) and "config" in spec:
            _check_by_reading(path, spec)
        if place is not None and place.target is _PARAMWISE:
            _check_decay(path, spec, parent)
        for name, item in spec.items():
            _check_place(f"{path}.{name}", item, spec)


def _check_decay(path: str, spec: dict, wrapper: dict) -> None:
    """Refuse factors of a weight decay that is left to the default of the optimizer."""
    custom = spec.get("custom_keys")
    layers = [spec, *(custom.values() if isinstance(custom, dict) else ())]
    names = [name for layer in layers if isinstance(layer, dict) for name in layer]
    factors = [name for name in names if name.endswith("decay_mult")]
    optimizer = wrapper.get("optimizer") or {}
    if factors and "type" in optimizer and optimizer.get("weight_decay") is None:
        raise ValueError(
            f"{path}: {factors[0]} needs weight_decay=... in the optimizer, whose default "
            "MMEngine does not know"
        )


def _is_component(path: str, spec: dict, place: Place, parent: Any) -> bool:
    """Whether settings are those of one component, of a class that is known."""
    if "type" in spec:
        return True
    if path == "data_preprocessor":  # whose class the model chooses
        kind = str(type_name(parent.get("model")))
        return kind.endswith(("Classifier", "LogitDistiller", "StudentGroup"))
    if place.target is _PARAMWISE:
        return type_name(parent.get("constructor")) in (None, "DefaultOptimWrapperConstructor")
    if place.target is registry.METRICS:
        return "metrics" not in spec
    return (place.target is not registry.MODELS or path == "model") and path != "param_scheduler"


def _check_by_reading(path: str, spec: dict) -> None:
    """Let the reader of a teacher's settings, or of a preprocessor's, check them."""
    from mmkd_logit.models import TeacherSettings
    from mmkd_logit.models.preprocessor import check_settings

    read = check_settings if path == "data_preprocessor" else TeacherSettings.from_config
    try:
        read(spec)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_component(path: str, spec: dict, place: Place) -> None:
    """Make sure that a class exists, has these arguments, and that their values can be meant."""
    target, defaults, more = place.target, place.target, False
    of_class = isinstance(target, registry.Registry)
    if of_class:
        kind = spec.get("type", place.default)
        if kind is None and path.startswith("default_hooks."):
            refuse_unknown("default_hooks", [path.partition(".")[2]], _DEFAULT_HOOKS)
        if path == "train_cfg" and "type" not in spec and not spec.get("by_epoch", True):
            kind = "IterBasedTrainLoop"
        target = find_class(path, target, kind)
    if callable(target):
        arguments, more = arguments_of(target)
        # Only a class of ours, or its parents, surely takes no more than it names.
        more = more or (not is_ours(target) and _has_kwargs(target))
        defaults = {name: argument.default for name, argument in arguments.items()}
    known = [name for name in dict.fromkeys((*place.also, *defaults)) if name not in _GIVEN]
    own = "type" if of_class else ""
    given = [name for name in spec if name != own and not name.startswith("_")]
    if more:
        absent = [name for name in known if name not in given]
        given = [name for name in given if _meant(name, absent)]
    refuse_unknown(path, given, known)
    for name in known if target is place.target else ():
        if defaults.get(name) is Parameter.empty and spec.get(name) is None:
            raise ValueError(f"{path} needs {name}; add {name}=...")
    if path == "data_preprocessor" and type_name(spec) in _PREPROCESSORS:
        _check_by_reading(path, spec)
    known_values = target is place.target or target.__module__.startswith(_OF_KNOWN_VALUES)
    if not known_values or place.target in _CHECK_VALUES:
        return
    for name, value in spec.items():
        default = defaults.get(name)
        if name == "clip_grad" and value is not None:
            check_clip_grad(value, f"{path}.{name}")
        elif value is not None or isinstance(default, (int, float)):
            _check_like(f"{path}.{name}", value, default, place)
    if place.target is registry.PARAM_SCHEDULERS and not spec.get("convert_to_iter_based"):
        for name in _COUNTED:
            values = spec.get(name)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if value is not None:
                    check_count(f"{path}.{name}, without convert_to_iter_based,", value, 0)


def _check_like(path: str, value: Any, default: Any, place: Place) -> None:
    """Check a value by the default of its argument: a flag, a count or a number."""
    if _rule_of(path) is not None:  # which has been checked
        return
    if isinstance(default, bool):
        check_flag(path, value)
    elif isinstance(default, int) and place.target not in _OF_FRACTIONS:
        interval = path.endswith("interval")
        check_count(path, value, min(default, 1 if interval else 0))
        if interval and not value:
            raise ValueError(f"{path} is 0; take a number from 1 on, or -1 for never")
    elif isinstance(default, (int, float)) and default >= 0:
        check_number(path, value)


def _has_kwargs(target: Callable) -> bool:
    try:
        return any(p.kind is Parameter.VAR_KEYWORD for p in signature(target).parameters.values())
    except (TypeError, ValueError):
        return True
