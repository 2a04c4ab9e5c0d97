"""The components that a config asks for, and whether they take what it gives them."""

import inspect
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope, Registry
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader

from mmkd_logit._arguments import arguments_of, did_you_mean, refuse_unknown

from ._config_values import schedules

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
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
        """Make sure that the class exists and takes these arguments.

        Raises:
            ValueError: If not.
        """
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
    """Give everything that the Runner will build from a config.

    Args:
        cfg: A complete config.

    Raises:
        ValueError: If something that must be a list or a dict is not.
    """
    yield from _model_parts("model", cfg.model, True)
    if _takes_preprocessor(cfg):
        kind = "mmpretrain.ClsDataPreprocessor"  # whatever the scope, as the classifier builds it
        yield Part("data_preprocessor", cfg.data_preprocessor, registries.MODELS, kind)
    for name in _LOADERS:
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
    from mmkd_logit.models._teacher_spec import OPTIONS
    from mmkd_logit.models.teacher_cache import TeacherCache

    yield Part(path, spec, None, None, ("config", "checkpoint", *OPTIONS))
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
