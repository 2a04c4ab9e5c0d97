"""Checking a run before it writes: its config, then its weights and one sample of its data."""

import copy
import importlib.util
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from inspect import Parameter, signature
from multiprocessing import get_all_start_methods
from typing import Any, NamedTuple

import torch
from mmengine import registry
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from mmkd_logit.checkpoint import find_state_dict, weights_for
from mmkd_logit.hooks.networks import trained_networks, unwrapped
from mmkd_logit.optim.autocast import check_clip_grad
from mmkd_logit.registry import HOOKS, find_class
from mmkd_logit.utils.arguments import (
    arguments_of,
    check_choice,
    check_count,
    check_flag,
    check_number,
    check_out_folder,
    check_text,
    first_line,
    refuse_unknown,
    type_name,
)

# The config: what its places take, and values that no class refuses when it is built.


class Place(NamedTuple):
    """What a config builds somewhere.

    Attributes:
        path: A regular expression for its place in the config.
        target: The registry of its type; without types, the class or function that takes the
            settings, or the defaults of what MMEngine reads with ``.get``, by name.
        default: The type where the config names none.
        also: Settings that the Runner reads by itself.
    """

    path: str
    target: Any
    default: str | None = None
    also: tuple[str, ...] = ()


_STUDENTS = r"students\.[^.]*[^.\d][^.]*"  # by name
_MODULE = "student|backbone|neck|head|loss|loss_kd|data_preprocessor|config"
_MODULE = rf"({_MODULE}|student_adapter|teacher_adapter|{_STUDENTS})(\.\d+)?"
_LOADER = r"(train|val|test)_dataloader"
_DATASET = rf"{_LOADER}\.(.*\.)?dataset(s\.\d+)?"
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
    Place(r"data_preprocessor", registry.MODELS, "mmpretrain.ClsDataPreprocessor"),
    Place(_LOADER, DataLoader, also=("num_batch_per_epoch",)),
    Place(_DATASET, registry.DATASETS),
    Place(rf"{_DATASET}\.pipeline\.\d+", registry.TRANSFORMS),
    Place(rf"{_LOADER}\.(batch_)?sampler(\.sampler)*", registry.DATA_SAMPLERS),
    Place(rf"{_LOADER}\.collate_fn", registry.FUNCTIONS),
    Place(r"(train|val|test)_evaluator(\.metrics)?(\.\d+)?", registry.METRICS),
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
)
_OF_KNOWN_VALUES = ("mmengine.", "torch.", "mmkd_logit.")  # where defaults say what values are
_OF_FRACTIONS = (registry.OPTIMIZERS, registry.PARAM_SCHEDULERS)  # a default of 0 is no count here
# Other packages whose classes hand on ``**kwargs`` to their parents.
_HANDED_ON = ("mmengine.optim.scheduler", "mmpretrain.evaluation", "mmpretrain.datasets.")
# Names that may have a meaning are refused where they are this close to a known one. No variable
# in mmpretrain's configs is, and most names with two letters exchanged are.
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

Check = Callable[[str, Any], Any]
_LEVELS = ("CRITICAL", "FATAL", "ERROR", "WARNING", "WARN", "INFO", "DEBUG", "NOTSET")


def _level(path: str, value: Any) -> None:
    if type(value) is not int or value < 0:
        check_choice(path, value, _LEVELS)


def _compile(path: str, value: Any) -> None:
    if not isinstance(value, dict):
        check_flag(f"{path}, no dict of torch.compile's arguments,", value)


def _seed(path: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**32:
        raise ValueError(f"{path} must be an integer from 0 to 2**32 - 1, got {value!r}")


def _window(path: str, value: Any) -> None:
    if ".custom_cfg." not in path:
        check_count(path, value)
    elif value not in ("epoch", "global"):
        check_count(f"{path}, neither 'epoch' nor 'global',", value)


def _milestones(path: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{path} must be a list of numbers from 0 on, got {value!r}")
    for each in value:
        check_number(f"one of {path}", each)


def _dynamic_intervals(path: str, value: Any) -> None:
    for pair in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"{path} must be a list of (begin, val_interval), got {value!r}")
        check_count(f"begin in {path}", pair[0], 0)
        check_count(f"val_interval in {path}", pair[1])


# Of the top level.
_TOP: dict[str, Check] = dict(
    log_level=_level,
    load_from=partial(check_text, what="the path or URL of a checkpoint, or None"),
    resume=check_flag,
    find_unused_parameters=check_flag,
    default_scope=check_text,
    compile=_compile,
    generations=check_count,
)
# By the name of the setting, where the default of the argument does not say what it takes.
_VALUES: dict[str, Check] = dict(
    **dict.fromkeys(("batch_size", "base_batch_size", "max_epochs", "max_iters"), check_count),
    **dict.fromkeys(("accumulative_counts", "prefetch_factor"), check_count),
    **dict.fromkeys(("by_epoch", "convert_to_iter_based"), check_flag),
    **dict.fromkeys(("end", "T_max", "step_size"), partial(check_number, zero=False)),
    **dict.fromkeys(("data_src", "method_name"), check_text),
    backend=partial(check_text, what="a backend of torch.distributed, such as 'nccl' or 'gloo'"),
    clip_grad=lambda path, value: check_clip_grad(value, path),
    dynamic_intervals=_dynamic_intervals,
    eta_min=check_number,
    milestones=_milestones,
    mp_start_method=partial(check_choice, allowed=get_all_start_methods()),
    opencv_num_threads=partial(check_count, least=-1),
    seed=_seed,
    window_size=_window,
)


def fields_of(cfg: Config) -> set[str]:
    """Return the names that a setting on the command line may begin with."""
    return {*cfg, *signature(Runner.__init__).parameters, *_MORE_FIELDS} - {"self"}


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
    with suppress(ImportError):  # as MMEngine, which makes its registries known so
        importlib.import_module(f"{scope}.registry")
    with registry.DefaultScope.overwrite_default_scope(scope):
        for name in fields_of(Config()):
            _check_place(name, cfg.get(name), cfg)


def _check_top(cfg: Config) -> None:
    known = fields_of(Config())
    second = re.compile(rf"({'|'.join(known)})(_|\d).*|_.*|.*_pipeline")
    for name in cfg:
        close = get_close_matches(name, known, 1, _CLOSE)
        if name not in known and close and not second.fullmatch(name):
            raise ValueError(
                f"a config has no field {name!r}; did you mean {close[0]}? (A variable of your own "
                f"passes as _{name}.)"
            )
    if not isinstance(cfg.get("model"), dict):
        raise ValueError(f"a run needs model=dict(type=...), got {cfg.get('model')!r}")
    for names in _TOGETHER:
        missing = [name for name in names if cfg.get(name) is None]
        if missing and len(missing) < len(names):
            raise ValueError(f"a run needs {', '.join(names)}; {missing[0]} is missing")
    for name, check in _TOP.items():
        if cfg.get(name) is not None:
            check(name, cfg[name])
    check_out_folder("work_dir", check_text("work_dir", cfg.get("work_dir") or "."))


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
        if place is not None and _is_component(path, spec, place, parent):
            _check_component(path, spec, place)
            if place.target is registry.PARAM_SCHEDULERS:
                return
        elif place is None and str(spec.get("type")).startswith("mmkd_logit."):
            _check_component(path, spec, PLACES[0])
        elif re.search(r"\.teacher(\.\d+)?$", path) and "config" in spec:
            _check_by_reading(path, spec)
        for name, item in spec.items():
            _check_place(f"{path}.{name}", item, spec)


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
    if isinstance(target, registry.Registry):
        kind = spec.get("type", place.default)
        if kind is None and path.startswith("default_hooks."):
            refuse_unknown("default_hooks", [path.partition(".")[2]], _DEFAULT_HOOKS)
        if path == "train_cfg" and "type" not in spec and not spec.get("by_epoch", True):
            kind = "IterBasedTrainLoop"
        target = find_class(path, target, kind)
    if callable(target):
        arguments, more = arguments_of(target)
        more = more or _keeps_kwargs(target)
        defaults = {name: argument.default for name, argument in arguments.items()}
    known = [name for name in dict.fromkeys((*place.also, *defaults)) if name not in _GIVEN]
    given = [name for name in spec if name != "type" and not name.startswith("_")]
    if more:
        absent = [name for name in known if name not in given]
        given = [name for name in given if get_close_matches(name, absent, 1, _CLOSE)]
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
        if value is not None or isinstance(default, (int, float)):
            check = _VALUES.get(name) or partial(_check_like, default=default, place=place)
            check(f"{path}.{name}", value)


def _keeps_kwargs(target: Callable) -> bool:
    """Whether a class of another package may do with its ``**kwargs`` what only it knows."""
    module = target.__module__
    if module.startswith("mmkd_logit.") or (
        module.startswith(_HANDED_ON) and ".transforms" not in module
    ):
        return False
    try:
        return any(p.kind is Parameter.VAR_KEYWORD for p in signature(target).parameters.values())
    except (TypeError, ValueError):
        return True


def _check_like(path: str, value: Any, default: Any, place: Place) -> None:
    """Check a value by the default of its argument: a flag, a count or a number."""
    if isinstance(default, bool):
        check_flag(path, value)
    elif isinstance(default, int) and place.target not in _OF_FRACTIONS:
        check_count(path, value, min(default, 1 if path.endswith("interval") else 0))
    elif isinstance(default, (int, float)) and default >= 0:
        check_number(path, value)


# The run: weights and data that a network cannot take, said before the first iteration.


_FIT = 0.1  # of another network next to nothing fits; what begins with a part of it has more
_MOST_LABELS = 100_000  # that are read one by one
_IGNORED_LABEL = -100  # by torch's cross entropy
_KNOWN = {"torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmkd_logit", "timm"}
_KNOWN |= {"transformers"}


# The second name is that of version 0.1.0, which dumped configs hold.
@HOOKS.register_module(name=["PreflightHook", "RunCheckHook"])
class PreflightHook(Hook):
    """Refuse data and weights that a model cannot use, before training and before testing.

    Otherwise they would end a run at its first iteration, when it has begun to write over an
    earlier one, or after an epoch, or would be ignored. Checked are

    - the weights, which must be finite,
    - ``load_from`` and ``init_cfg=dict(type='Pretrained')``: where a file has less than a tenth
      of the weights outside the head, it is of another network, and MMEngine would only warn,
    - one sample of the training and of the validation data, whose image passes preprocessor,
      student and teachers in evaluation mode, without a change to them or to the random
      generators: channels, sizes and the number of classes must agree, logits be finite,
    - the labels, which must be classes of the network, and the loader, which must give batches,
    - the metrics of the test, whose arguments would be read after training.

    Tried are classifiers of mmpretrain and ours, and distillers, on data that mmengine, mmpretrain
    or we join to batches; what others need is not known. ``tools/train.py`` and ``tools/test.py``
    add this hook.

    Raises:
        ValueError: If something of this does not fit.
    """

    changes_training = False

    # Its checks come before other hooks clear the work folder of an earlier run.
    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a checkpoint with the model that is to be trained from it."""
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            model = unwrapped(runner)
            check_loaded(model, checkpoint, str(runner._load_from))
            checkpoint["state_dict"] = weights_for(model, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Check weights, data and the metrics of the test."""
        _check_weights(runner)
        if isinstance(runner._test_evaluator, (dict, list)):  # which is built after training
            runner.build_evaluator(copy.deepcopy(runner._test_evaluator))
        if not runner._resume and runner._load_from is None:
            for network in trained_networks(runner).values():
                _check_pretrained(network)
        _check_data(runner, runner.train_dataloader, "training")
        if runner.val_loop is not None:
            _check_data(runner, runner.val_dataloader, "validation")

    def before_test(self, runner: Runner) -> None:
        """Check weights and test data."""
        _check_weights(runner)
        _check_data(runner, runner.test_dataloader, "test", teach=False)


def _check_weights(runner: Runner) -> None:
    from mmkd_logit.models.teacher import broken_weights

    for prefix, network in trained_networks(runner).items():
        broken = broken_weights(network)
        if broken:
            source = runner._load_from or "its init_cfg"
            raise ValueError(
                f"the weights of {_student(prefix)} are not finite at the beginning: "
                f"{broken} hold NaN or infinity. They come from {source}; take a "
                "checkpoint from before training diverged"
            )


def _student(prefix: str) -> str:
    return f"the student {prefix.rstrip('/')}".rstrip()


def _check_pretrained(network: Any) -> None:
    """Compare the files that ``init_cfg`` names with the modules that load them."""
    for module in getattr(network, "student", network).modules():
        given = getattr(module, "init_cfg", None)
        for init in given if isinstance(given, (list, tuple)) else [given]:
            if type_name(init) == "Pretrained" and isinstance(init, dict):
                source = str(init["checkpoint"])
                prefix = (init.get("prefix") or "").rstrip(".") + "."
                checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
                state = find_state_dict(checkpoint)
                if prefix != ".":
                    names = [name for name in state if name.startswith(prefix)]
                    state = {name.removeprefix(prefix): state[name] for name in names}
                check_loaded(module, state, f"{source} of init_cfg")


def check_loaded(model: nn.Module, checkpoint: Any, source: str) -> None:
    """Compare a checkpoint with a model, before MMEngine loads what fits and warns of the rest.

    Fine-tuning may bring another head, so the head is left out. Networks that rename what they
    load are skipped.
    """
    given = weights_for(model, checkpoint)
    if given and any(module._load_state_dict_pre_hooks for module in model.modules()):
        return
    own = {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith(("head.", "feature_adapters."))
    }
    shapes = {name: getattr(given.get(name), "shape", None) for name in own}
    misfits = [name for name, value in own.items() if shapes[name] != value.shape]
    count = sum(value.numel() for value in own.values())
    fitting = count - sum(own[name].numel() for name in misfits)
    if fitting < _FIT * count:
        first = misfits[0]
        theirs = "none" if first not in given else tuple(shapes[first] or ())
        raise ValueError(
            f"{source} is of another network: {fitting} of {count} weights fit; of {first}, "
            f"{tuple(own[first].shape)}, it has {theirs}. Take a checkpoint of this network, or "
            "train without it"
        )


def _check_data(runner: Runner, loader: Any, what: str, teach: bool = True) -> None:
    model = unwrapped(runner)
    networks = {
        prefix: network
        for prefix, network in trained_networks(runner).items()
        if _can_be_tried(getattr(network, "student", network))
    }
    if not networks or not is_known(loader):
        return
    with _evaluating(model):
        inputs = _preprocess(model.data_preprocessor, _first_batch(loader, what), what)
        for prefix, network in networks.items():
            who, student = _student(prefix), getattr(network, "student", network)
            advice = "make backbone.in_channels, the head and the data's transforms agree"
            logits = _logits_of(partial(student, mode="tensor"), inputs, who, what, advice)
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                if student is network:
                    continue  # a head that is not known here
                raise ValueError(
                    f"{who} does not give one (N, K) tensor of logits; only classifiers with one "
                    "linear output can be distilled"
                )
            classes = logits.shape[1]
            _check_labels(loader.dataset, classes, what)
            for teacher, on_cpu in _teachers(network, runner) if teach else ():
                _check_teacher(teacher, inputs.cpu() if on_cpu else inputs, classes, what)


def _can_be_tried(network: Any) -> bool:
    """Whether a network surely takes an image by itself, in evaluation mode."""
    from mmpretrain.models.classifiers import BaseClassifier

    known = _is_library(network) and _is_library(getattr(network, "head", None))
    return isinstance(network, BaseClassifier) and known


def _is_library(thing: Any) -> bool:
    """Whether a function, or the class of an object, is of a library that is known here."""
    thing = getattr(thing, "func", thing)  # a functools.partial
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return thing is None or str(module).partition(".")[0] in _KNOWN


def is_known(loader: Any) -> bool:
    """Whether one sample of a loader can be had without its sampler."""
    parts = (loader.sampler, loader.batch_sampler, loader.collate_fn)
    return not isinstance(loader.dataset, IterableDataset) and all(map(_is_library, parts))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network predict without a change to it, or to the random generators."""
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models.build import preserve_random_state

    modes = [(module, module.training) for module in network.modules()]
    own = network.training
    try:
        with torch.no_grad(), preserve_random_state():
            network.eval()
            yield
    finally:
        network.train(own)
        for module, mode in modes:
            module.training = mode


def _try(problem: str, advice: str, run: Callable, *args: Any) -> Any:
    """Call what may raise anything, and make a line of it."""
    try:
        return run(*args)
    except Exception as error:
        raise ValueError(f"{problem} ({first_line(error)}); {advice}") from error


def _first_batch(loader: Any, what: str) -> Any:
    """Return a batch of one sample, without the workers and the sampler of the loader."""
    from mmkd_logit.datasets import SampleKey
    from mmkd_logit.datasets.wrapper import SampleWrapper

    dataset, batches = loader.dataset, None
    with suppress(TypeError):  # an endless sampler has no length
        batches = len(loader)
    if batches == 0:
        raise ValueError(
            f"the {what} loader gives no batch: {len(dataset)} samples with "
            f"batch_size={loader.batch_size} and drop_last={loader.drop_last}; lower batch_size, "
            "or set drop_last=False"
        )
    if isinstance(dataset, SampleWrapper) and dataset.in_memory:  # a black image stands for one
        return dict(inputs=torch.zeros((1, *dataset.picture_shape), dtype=torch.uint8))
    key: Any = SampleKey(0, 0, 0) if getattr(dataset, "seeded", False) else 0
    return _try(
        f"the first sample of the {what} data cannot be read",
        "check data_root, the files and the transforms",
        lambda: loader.collate_fn([dataset[key]]),
    )


def _shape_of(inputs: Any) -> str:
    first = inputs[0] if inputs is not None and len(inputs) else None
    return f"(C, H, W) = {tuple(first.shape) if isinstance(first, Tensor) else '?'}"


def _preprocess(preprocessor: Any, batch: Any, what: str) -> Any:
    """Return the images as the networks get them."""
    images = batch.get("inputs") if isinstance(batch, dict) else None
    inputs = _try(
        f"data_preprocessor cannot take the {what} images, {_shape_of(images)}",
        "give it one mean and std a channel",
        lambda: preprocessor(batch, False)["inputs"],
    )
    if isinstance(inputs, Tensor) and not torch.isfinite(inputs).all():
        raise ValueError(
            f"the first {what} image holds NaN or infinity once it is normalised; look at mean and "
            "std of data_preprocessor, and at the data's transforms"
        )
    return inputs


def _check_teacher(teacher: Any, inputs: Tensor, classes: int, what: str) -> None:
    who, advice = f"teacher {teacher.name}", "it must be trained on such images"
    logits = _logits_of(teacher.dry_run, inputs, who, what, advice)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"{who} gives logits of {logits.shape[-1]} classes and the student {classes}; "
            "distilling logits needs the same classes"
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of {who} for the first {what} image are not finite; look at its weights "
            "and at its config's data_preprocessor"
        )


def _logits_of(network: Callable, inputs: Any, who: str, what: str, advice: str) -> Any:
    problem = f"{who} cannot take the {what} images, {_shape_of(inputs)}"
    output = _try(problem, advice, network, inputs)
    return getattr(output, "logits", output)  # Hugging Face wraps them


def _teachers(network: Any, runner: Runner) -> Iterator[tuple[Any, bool]]:
    """Give the teachers of a run, and whether they are on the CPU until their stage begins."""
    if not hasattr(network, "teachers"):
        return
    if network.needs_teacher:
        yield from ((teacher, False) for teacher in network.teachers)
    for hook in runner.hooks:
        yield from ((teacher, True) for teacher in getattr(hook, "later_teachers", list)())


def _check_labels(dataset: Any, classes: int, what: str) -> None:
    found = _label_range(dataset) if classes > 1 else None  # of one logit, labels are 0 and 1
    if found is not None and not 0 <= found[0] <= found[1] < classes:
        raise ValueError(
            f"the {what} labels are from {found[0]} to {found[1]} and the network has {classes} "
            f"classes, 0 to {classes - 1}; set num_classes of the head to {found[1] + 1}, or take "
            "other data"
        )


def _label_range(dataset: Any) -> tuple[int, int] | None:
    """Return the smallest and the largest label, or None where samples have several or none."""
    from mmkd_logit.datasets.wrapper import SampleWrapper

    try:
        if isinstance(dataset, SampleWrapper):  # which have them at hand
            labels = torch.as_tensor(dataset.get_gt_labels())
        else:
            places = range(0, len(dataset), 1 + len(dataset) // _MOST_LABELS)
            labels = torch.as_tensor([dataset.get_data_info(i)["gt_label"] for i in places])
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return None
    if labels.ndim != 1 or labels.is_floating_point():
        return None
    labels = labels[labels != _IGNORED_LABEL]
    return (int(labels.min()), int(labels.max())) if len(labels) else None
