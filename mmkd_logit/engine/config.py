"""From a config file and a command line to the config of a run."""

import argparse
import ast
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from mmengine.config import Config, ConfigDict, DictAction

from mmkd_logit.registry import load_config
from mmkd_logit.utils.arguments import check_count, did_you_mean, type_name
from mmkd_logit.utils.cli import program

from .check import fields_of

if TYPE_CHECKING:
    from mmkd_logit.models import TeacherSettings


class _Overrides(DictAction):
    """MMEngine's parser of KEY=VALUE; wrong syntax is a usage error, spaces in paths stay."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values or ():
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise argparse.ArgumentError(self, f"{text!r} is not KEY=VALUE")
            try:
                options[key] = self._parse(value)
            except (AssertionError, ValueError, SyntaxError) as error:
                raise argparse.ArgumentError(self, f"{text!r}: {error}") from None
        setattr(namespace, self.dest, options)

    def _parse(self, value: str) -> Any:
        plain = value.strip("'\"")
        if plain.startswith(("{", "[{")):  # a teacher, or a list of them
            return ast.literal_eval(plain)
        if "," in plain or plain[:1] in ("(", "["):
            return self._parse_iterable(value)
        return self._parse_int_float_bool(plain)


def add_override_argument(parser: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Add a flag that takes ``KEY=VALUE`` several times and gives a dict of parsed values."""
    parser.add_argument(
        flag, nargs="+", action=_Overrides, default={}, metavar="KEY=VALUE", help=text
    )


IN_MEMORY = "InMemoryDataset"
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DICTS = [*_LOADERS, "model", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "randomness"]
_DICTS += ["default_hooks", "log_processor", "env_cfg", "visualizer"]
_MMENGINES = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
_ELSEWHERE = dict(
    launcher="say --launcher",
    custom_imports="write it into the config file, which is read before",
)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share; they are mmpretrain's."""
    parser.add_argument("--work-dir", help="folder for logs, checkpoints and metrics")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision (GPU)")
    parser.add_argument("--no-pin-memory", action="store_true", help="do not pin memory")
    add_override_argument(
        parser,
        "--cfg-options",
        "override settings of the config, such as model.alpha=0.9 or train_cfg.max_epochs=5",
    )
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="job launcher",
    )
    # torch.distributed.launch passes this one instead of the variable that torchrun sets.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags by which a command that trains, or looks at what was trained, names a run."""
    parser.add_argument("--seed", type=int, help="random seed, randomness.seed of the config")
    text = "train N epochs, with the config's schedule in proportion; teachers keep theirs"
    parser.add_argument("--epochs", type=int, metavar="N", help=text)
    text = "train in bfloat16, channels last, on CPU or GPU; results rows say so"
    parser.add_argument("--fast", action="store_true", help=text)
    text = "train in channels last without changing the precision; results rows say so"
    parser.add_argument("--channels-last", action="store_true", help=text)


def apply_recipe_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Scale the schedule to ``--epochs``, and choose the precision."""
    if args.epochs is not None:
        scale_epochs(cfg, args.epochs)
    if args.amp and args.fast:
        raise ValueError("--fast and --amp both choose the precision; give one of them")
    if args.amp:
        use_amp(cfg)
    if args.fast:
        make_fast(cfg)
    if args.channels_last:
        use_channels_last(cfg)


def read_config(path: str) -> Config:
    """Read a config file."""
    if Path(path).is_file() and Path(path).suffix not in (".py", ".json", ".yaml", ".yml"):
        raise ValueError(f"{path} is no config: its name must end in .py, .json or .yaml")
    cfg = load_config(path)
    if not cfg.get("model"):
        raise ValueError(f"{path} defines no model; it is not the config of a run")
    _check_dicts(cfg)
    return cfg


def read_training_config(args: argparse.Namespace, cfg: Config | None = None) -> Config:
    """Read the config that a command line names, to train with its seed."""
    cfg = read_config(args.config) if cfg is None else cfg
    if cfg.get("train_cfg") is None or cfg.get("train_dataloader") is None:
        raise ValueError(f"{args.config} has no train_cfg or train_dataloader to train with")
    if args.seed is not None:
        cfg.randomness = dict(cfg.get("randomness") or {}, seed=args.seed)
    return cfg


def apply_common_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Merge overrides, defaults of the dataloaders and the work folder into a config.

    The work folder is, in this order, ``--work-dir``, the config's, or
    ``work_dirs/CONFIG/seedK``.
    """
    mpi = getattr(args, "launcher", None) == "mpi"
    known = os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK") if mpi else None
    os.environ.setdefault("LOCAL_RANK", known or str(args.local_rank))
    _merge(cfg, args.cfg_options)
    for name in _LOADERS:
        loader = cfg.get(name)
        if loader is None:
            continue
        loader.setdefault("collate_fn", dict(type="mmkd_logit.batch_collate"))
        loader.setdefault("pin_memory", not _stays_on_gpu(loader))
        if args.no_pin_memory:
            loader["pin_memory"] = False
        if name == "train_dataloader":
            loader.setdefault("persistent_workers", True)
        if not loader.get("num_workers"):
            loader["persistent_workers"] = False  # torch refuses it without workers
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        suffix = "_channels-last" if getattr(args, "channels_last", False) else ""
        suffix = "_fast" if getattr(args, "fast", False) else suffix
        cfg.work_dir = default_work_dir(args.config, seed_of(cfg), suffix)
    cfg.work_dir = str(cfg.work_dir)
    hooks = cfg.get("default_hooks") or {}
    for name in [name for name, hook in hooks.items() if hook is None and name not in _MMENGINES]:
        del hooks[name]  # to be switched off; MMEngine asserts that it is one of its own
    use_generations(cfg, args.config)


def _stays_on_gpu(loader: dict) -> bool:
    """Whether batches are made on the GPU, if there is one, whose memory cannot be pinned."""
    dataset = loader.get("dataset")
    while isinstance(dataset, dict):
        if type_name(dataset) == IN_MEMORY:
            return dataset.get("device", "cpu") != "cpu" and not loader.get("num_workers")
        dataset = dataset.get("dataset")
    return False


def _check_dicts(cfg: Config) -> None:
    """Refuse other things where this command looks for settings."""
    for name in _DICTS:
        if not isinstance(cfg.get(name), dict if name == "model" else dict | None):
            raise ValueError(f"{name} must be a dict of settings, got {cfg[name]!r}")


def _merge(cfg: Config, overrides: dict[str, Any]) -> None:
    """Merge overrides, refusing what MMEngine would pass over in silence or fail on later."""
    fields = fields_of(cfg)
    for key in overrides:
        name = key.split(".")[0]
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise ValueError(f"--cfg-options {key}: a config has no field {name!r}{hint}")
        if name in _ELSEWHERE:
            raise ValueError(f"--cfg-options {key} has no effect; {_ELSEWHERE[name]}")
    try:
        for key, value in overrides.items():
            _clear_other_types(_at(cfg, key), value)
            cfg.merge_from_dict({key: value})
    except (TypeError, KeyError, IndexError, AssertionError) as error:
        raise ValueError(f"--cfg-options does not fit the config: {error}") from None
    _check_dicts(cfg)
    if "data_root" in overrides:
        for name in _LOADERS:
            _set_data_root(cfg.get(name), overrides["data_root"])


def _at(cfg: Any, key: str) -> Any:
    """Return what a config has at the place of an override, or None."""
    for name in key.split("."):
        if isinstance(cfg, (list, tuple)) and name.isdigit() and int(name) < len(cfg):
            cfg = cfg[int(name)]
        else:
            cfg = cfg.get(name) if isinstance(cfg, dict | Config) else None
    return cfg


def _clear_other_types(old: Any, new: Any) -> None:
    """Remove the settings of a component that an override replaces by one of another type."""
    if isinstance(old, dict) and isinstance(new, dict):
        if "type" in new and type_name(new) != type_name(old):
            old.clear()
        for name, value in new.items():
            _clear_other_types(old.get(name), value)


def _set_data_root(cfg: Any, data_root: str) -> None:
    """Carry a config's one ``data_root`` to the data sets, also the wrapped ones."""
    if isinstance(cfg, dict):
        if "data_root" in cfg:
            cfg["data_root"] = data_root
        for value in cfg.values():
            _set_data_root(value, data_root)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            _set_data_root(value, data_root)


def seed_of(cfg: Config) -> int | None:
    """Return the seed that a config fixes, or None."""
    return (cfg.get("randomness") or {}).get("seed")


def default_work_dir(config: str, seed: int | None, suffix: str = "") -> str:
    """Return ``work_dirs/CONFIG/seedK`` (without ``seedK`` when no seed is fixed).

    Example:
        >>> default_work_dir('configs/kd/wrn28-4_wrn16-2_mse.py', 0)
        'work_dirs/wrn28-4_wrn16-2_mse/seed0'
    """
    folder = Path("work_dirs", Path(config.split("::")[-1]).stem + suffix)
    return str(folder if seed is None else folder / f"seed{seed}")


def use_amp(cfg: Config) -> None:
    """Turn on automatic mixed precision for training."""
    if not torch.cuda.is_available():
        raise ValueError("--amp needs a GPU; leave it out on a CPU")
    wrapper: ConfigDict | dict[str, Any] = cfg.get("optim_wrapper") or {}
    if type_name(wrapper) not in (None, "OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"--amp cannot change the optimizer wrapper {wrapper['type']}")
    wrapper["type"] = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


# Shorter runs of the same recipe.


_EPOCHS_OF_SCHEDULERS = (
    *("milestones", "begin", "end", "T_max", "step_size", "total_iters", "total_steps", "periods"),
)


def scale_epochs(cfg: Config, epochs: int) -> None:
    """Train for another number of epochs, with all the config's epochs in proportion.

    Scaled are the epochs of ``param_scheduler``, the intervals of validation in ``train_cfg``, and
    of hooks the ``begin`` of stages, ``EMAHook``'s ``begin_epoch`` and ``SwitchRecipeHook``'s
    ``action_epoch``, each to at least 1 (0 stays 0); what a hook changes, changes before the end.

    Example:
        >>> from mmengine.config import Config
        >>> cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=200),
        ...                   param_scheduler=dict(type='MultiStepLR', milestones=[100, 150])))
        >>> scale_epochs(cfg, 10)
        >>> cfg.train_cfg.max_epochs, cfg.param_scheduler.milestones
        (10, [5, 8])
    """
    before = (cfg.get("train_cfg") or {}).get("max_epochs")
    if not before:
        raise ValueError("--epochs needs a config that trains by epochs (train_cfg.max_epochs)")
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {epochs}")

    def scaled(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [scaled(item) for item in value]
        return max(1, round(value * epochs / before)) if value else value

    cfg.train_cfg.max_epochs = epochs
    for key in ("val_interval", "val_begin", "dynamic_intervals"):
        if cfg.train_cfg.get(key):
            cfg.train_cfg[key] = scaled(cfg.train_cfg[key])
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if scheduler.get("by_epoch", True):
            for key in _EPOCHS_OF_SCHEDULERS:
                if scheduler.get(key) is not None:
                    scheduler[key] = scaled(scheduler[key])
            if scheduler.get("end") is not None:
                scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    for hook in cfg.get("custom_hooks") or []:
        for stage in hook.get("stages") or [] if hook.get("by_epoch", True) else []:
            if "begin" in stage:
                stage["begin"] = min(scaled(stage["begin"]), epochs - 1)  # or it never began
        if hook.get("begin_epoch"):
            hook["begin_epoch"] = min(scaled(hook["begin_epoch"]), epochs - 1)
        for recipe in hook.get("schedule") or [] if type_name(hook) == "SwitchRecipeHook" else []:
            recipe["action_epoch"] = scaled(recipe["action_epoch"])


# Teachers whose checkpoints are local files, and the runs that write them.


FINAL = "final.pth"
_FINAL_HOOK = "FinalCheckpointHook"


class LocalTeacher(NamedTuple):
    """A teacher whose checkpoint is a local file."""

    config: str | None  # the config file that trains it
    checkpoint: str  # which need not exist
    setting: str = "model.teacher.checkpoint"  # the field of the student's config that names it
    generation: int | None = None  # which one of a config with ``generations`` it is

    @property
    def is_missing(self) -> bool:
        """Whether the file does not exist."""
        return not Path(self.checkpoint).expanduser().is_file()

    @property
    def can_be_trained(self) -> bool:
        """Whether training the config writes the file."""
        return self.config is not None and Path(self.checkpoint).name == FINAL

    @property
    def folder(self) -> Path:
        """The work folder of the run that trains it."""
        return Path(self.checkpoint).expanduser().parent

    @property
    def seed(self) -> int | None:
        """The seed in the name of its folder."""
        folder = self.folder.parent if self.generation else self.folder
        found = re.fullmatch(r"seed(\d+)", folder.name)
        return int(found[1]) if found else None

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``tools/train.py`` that train it."""
        words = [str(self.config)]
        if self.seed is not None:
            words += ["--seed", str(self.seed)]
        if self.seed is None or self.folder != Path(default_work_dir(words[0], self.seed)):
            words += ["--work-dir", str(self.folder)]
        if self.generation:
            words += ["--cfg-options", f"generations={self.generation}"]
        return words

    @property
    def command(self) -> str:
        """The command that trains it."""
        return shlex.join([*program("train.py"), *self.arguments])


def write_final(cfg: Config) -> None:
    """Make a run write ``final.pth``."""
    hooks = cfg.get("custom_hooks") or []
    named = (hook.get("filename", FINAL) for hook in hooks if type_name(hook) == _FINAL_HOOK)
    if FINAL not in named:
        cfg.custom_hooks = [*hooks, dict(type=f"mmkd_logit.{_FINAL_HOOK}")]


def use_generations(cfg: Config, config: str) -> None:
    """Let a config with ``generations=N``, born-again distillation, be its own teacher's config.

    The run is the last of N generations. Each is taught by the one before, in the folder
    ``generationK`` of the work folder, and the first by the teacher that the config names.
    """
    number = cfg.get("generations")
    if number is None or number == 1:
        return
    check_count("generations", number)
    teacher = cfg.model.get("teacher")
    if not isinstance(teacher, dict) or type_name(cfg.model) != "LogitDistiller":
        raise ValueError(
            f"generations={number} needs a distilling config with one teacher, "
            "model.teacher=dict(config=..., checkpoint=...), that teaches the first generation"
        )
    folder = Path(cfg.work_dir)
    if folder.name == f"generation{number}":
        folder = folder.parent
    teacher.update(config=config, checkpoint=str(folder / f"generation{number - 1}" / FINAL))


def teachers_of(cfg: Config) -> dict[str, "TeacherSettings"]:
    """Return the teachers that a config names, by the fields that name them."""
    found = {}
    for name, holder in _holders(cfg):
        given = holder.get("teacher") or []
        if not isinstance(given, (list, tuple)):
            found[name] = _read(given)
            continue
        for number, spec in enumerate(given):
            found[f"{name}.{number}"] = _read(spec)
    return found


def model_teachers(cfg: Config) -> list["TeacherSettings"]:
    """List the teachers that a run begins with."""
    return [each for name, each in teachers_of(cfg).items() if name.startswith("model.")]


def later_teachers(cfg: Config) -> list[str]:
    """List the fields of a config that name the teachers of its hook's stages."""
    return [name for name in teachers_of(cfg) if not name.startswith("model.")]


def change_teachers(cfg: Config, change: Callable[["TeacherSettings"], Any]) -> None:
    """Replace what a config says of each of its teachers."""
    for _, holder in _holders(cfg):
        given = holder.get("teacher")
        if isinstance(given, (list, tuple)):
            holder["teacher"] = [change(_read(spec)) for spec in given]
        elif given:
            holder["teacher"] = change(_read(given))


def _read(spec: Any) -> "TeacherSettings":
    from mmkd_logit.models import TeacherSettings  # imports every network

    return TeacherSettings.from_config(spec)


def _holders(cfg: Config) -> list[tuple[str, dict]]:
    """List the parts of a config that name teachers, and how their fields are called."""
    holders = [("model.teacher", cfg.model)]
    for name, student in (cfg.model.get("students") or {}).items():  # of a StudentGroup
        holders.append((f"model.students.{name}.teacher", student))
    for i, hook in enumerate(cfg.get("custom_hooks") or []):
        if type_name(hook) == "SequentialTeacherHook":
            stages = hook.get("stages")
            for k, stage in enumerate(stages if isinstance(stages, (list, tuple)) else []):
                if isinstance(stage, dict):  # the hook refuses others
                    holders.append((f"custom_hooks.{i}.stages.{k}.teacher", stage))
    return holders


def local_teachers(cfg: Config) -> list[LocalTeacher]:
    """List the teachers of a config whose checkpoints are local files."""
    if type_name(cfg.model) != "LogitDistiller":
        return []
    generations = cfg.get("generations") or 1
    found: dict[tuple, LocalTeacher] = {}
    for name, settings in teachers_of(cfg).items():
        if settings.file is None:
            continue
        config = settings.config if isinstance(settings.config, str) else None
        generation = generations - 1 if name == "model.teacher" and generations > 1 else None
        teacher = LocalTeacher(config, settings.checkpoint, f"{name}.checkpoint", generation)
        found.setdefault((config, settings.checkpoint), teacher)
    return list(found.values())


def find_missing_teachers(cfg: Config) -> list[LocalTeacher]:
    """List the teachers of a config whose local checkpoints do not exist."""
    return [teacher for teacher in local_teachers(cfg) if teacher.is_missing]


def explain_missing(missing: list[LocalTeacher]) -> str:
    """Say which command makes the missing teachers."""
    lines = []
    for teacher in missing:
        if teacher.can_be_trained:
            how = f"make it with: {teacher.command}"
        elif teacher.config:
            how = f"set {teacher.setting} to a checkpoint of {teacher.config}"
        else:
            how = f"set {teacher.setting} to an existing file"
        lines.append(f"the teacher's checkpoint {teacher.checkpoint} does not exist; {how}")
    if any(teacher.can_be_trained for teacher in missing):
        lines.append("or add --train-teacher to train it first")
    return "; ".join(lines)


# ``--fast``: the same training in fewer digits.


EXACT = "float32"
_AUTOCAST, _CHANNELS_LAST = "AutocastOptimWrapper", "ChannelsLastHook"
# Fused, each of these is one operation on a GPU, and on a CPU SGD gives the same bits.
_FUSED = ("SGD", "Adam", "AdamW")


def make_fast(cfg: Config) -> None:
    """Let a config's student and teachers compute in bfloat16, channels last.

    Weights, gradients, the optimizer's state, losses and evaluation stay float32. What the config
    says of these settings already stays.
    """
    wrapper: ConfigDict | dict[str, Any] = cfg.get("optim_wrapper") or {}
    kind = type_name(wrapper) or "OptimWrapper"
    if kind not in ("OptimWrapper", _AUTOCAST):
        raise ValueError(
            f"--fast sets optim_wrapper.type and the config has {kind}; leave one of them out"
        )
    wrapper["type"] = f"mmkd_logit.{_AUTOCAST}"
    wrapper.setdefault("dtype", "bfloat16")
    optimizer = wrapper.get("optimizer") or {}
    if type_name(optimizer) in _FUSED and not {"fused", "foreach", "capturable"} & set(optimizer):
        optimizer["fused"] = True
    use_channels_last(cfg)
    fast = dict(channels_last=True, autocast="bfloat16")
    change_teachers(cfg, lambda teacher: fast | teacher.as_config())


def use_channels_last(cfg: Config) -> None:
    """Let a config's student train in channels last; its teachers compute as they are."""
    if not _has_hook(cfg):
        hooks = cfg.get("custom_hooks") or []
        cfg.custom_hooks = [*hooks, dict(type=f"mmkd_logit.{_CHANNELS_LAST}")]


def describe_numerics(cfg: Config) -> str:
    """Say in which digits a config trains."""
    wrapper = cfg.get("optim_wrapper") or {}
    precision = _precision(wrapper)
    layout = ["channels_last"] * _has_hook(cfg)
    compiled = ["compiled"] * bool(cfg.get("compile"))
    fused = ["fused"] * bool((wrapper.get("optimizer") or {}).get("fused"))
    texts = [", ".join([precision, *layout, *compiled, *fused])]
    for teacher in teachers_of(cfg).values():
        theirs = [teacher.autocast or precision]
        theirs += ["channels_last"] * bool(teacher.channels_last)
        theirs += ["compiled"] * bool(teacher.compile)
        rounded = teacher.arithmetic.get("cache")  # only where it is not float32
        stored = [f"logits stored in {rounded['dtype']}"] if rounded else []
        if theirs != [precision, *layout, *compiled] or stored:
            texts.append(f"teacher {', '.join([*theirs, *stored])}")
    return "; ".join(dict.fromkeys(texts))


def _has_hook(cfg: Config) -> bool:
    hooks = cfg.get("custom_hooks") or []
    return any(type_name(hook) == _CHANNELS_LAST for hook in hooks)


def _precision(wrapper: Any) -> str:
    kind = type_name(wrapper)
    if kind == _AUTOCAST:
        return str(wrapper.get("dtype", "bfloat16")).removeprefix("torch.")
    if kind == "AmpOptimWrapper":
        return str(wrapper.get("dtype") or "float16").removeprefix("torch.")
    return EXACT
