"""What a run computes: the content that decides its weights, its fingerprint, and run.json."""

import functools
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS

from mmkd_logit import __version__
from mmkd_logit.checkpoint import find_state_dict, read_lazily, state_hash
from mmkd_logit.registry import config_path
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.files import write_text

from .config import change_teachers, seed_of, teachers_of

FILES = ("file", "matrix")  # fields in which the wrappers of a data set name files
_TASKS = dict(slurm="SLURM_NTASKS", mpi="OMPI_COMM_WORLD_SIZE")

# The one table of what counts. These fields of a config decide a run's weights; all others say
# where a run writes, how it is started, what is measured and what is logged.
_COMPUTED = (
    *("model", "data_preprocessor", "train_dataloader", "optim_wrapper", "param_scheduler"),
    *("train_cfg", "auto_scale_lr", "custom_hooks", "randomness", "load_from"),
    *("compile", "sync_bn"),
)
# These count only where a hook or a schedule acts on a validation metric, which its ``monitor``
# names.
_VALIDATION = ("val_dataloader", "val_cfg", "val_evaluator")
_VALIDATION_TIMES = ("val_interval", "val_begin", "dynamic_intervals")
# Inside the fields that count: where data lie and how they are loaded. Pictures are functions of
# seed, epoch and sample, never of a worker.
_LOADING = (
    *("data_root", "num_workers", "prefetch_factor", "pin_memory", "persistent_workers"),
    *("lazy_init", "serialize_data", "download", "device", "_scope_"),
)
# Hooks of MMEngine and mmpretrain that only watch; ours say so by ``changes_training = False``.
_WATCHING = {
    *("IterTimerHook", "LoggerHook", "CheckpointHook", "RuntimeInfoHook", "VisualizationHook"),
    *("ProfilerHook", "NPUProfilerHook", "EmptyCacheHook"),
    *("ParamSchedulerHook", "DistSamplerSeedHook"),  # MMEngine's default
}
_PREFIX = re.compile(r"(?:mmengine|mmcv|mmpretrain|mmkd_logit)(?:\.\w+)*\.(\w+)")


def computed_content(
    cfg: Config, processes: int | None = None, weights: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what decides the weights that a run ends with.

    That is the network, data, optimizer, schedule, losses and seed, each teacher as the hash of
    its weights, its network and how it computes, the content of files of labels and of logits
    that samples are chosen by, and the number of processes. Paths, the prefixes of packages, and
    what is only measured or logged do not count. A teacher's cache does not count either, as it
    gives the bits that the teacher would compute, unless it rounds them.
    """
    content = {key: cfg.get(key) for key in (*_COMPUTED, *_VALIDATION, "default_hooks")}
    content = Config(content).to_dict()
    _describe_teachers(content, weights or {})
    if content.get("load_from"):
        content["load_from"] = weights_hash(content["load_from"]) or str(content["load_from"])
    content = _plain(content)
    content["processes"] = processes or count_processes(cfg)
    content["randomness"] = dict(content.get("randomness") or {}, seed=seed_of(cfg))
    return reduce_content(content)


def reduce_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Leave of a content what counts by the rules of this version.

    Of the content that a results row keeps, the fingerprint is computed with this, so that rows
    outlive a change of these rules.
    """
    kept = {key: _reduced(content[key]) for key in _COMPUTED if content.get(key)}
    hooks = content.get("custom_hooks") or []
    defaults = content.get("default_hooks") or {}
    changing = [hook for hook in [*hooks, *defaults.values()] if changes_training(hook)]
    for name in ("param_scheduler", "sampler_seed"):
        if name in defaults and defaults[name] is None:
            changing.append(dict(without=name))
    kept["custom_hooks"] = [_reduced(hook) for hook in changing]
    if not (kept.get("auto_scale_lr") or {}).get("enable"):
        kept.pop("auto_scale_lr", None)
    following = json.dumps([kept["custom_hooks"], kept.get("param_scheduler")])
    if '"monitor"' in following or '"ReduceOnPlateau' in following:
        kept.update({key: _reduced(content[key]) for key in _VALIDATION if content.get(key)})
    else:
        train_cfg = kept.get("train_cfg") or {}
        kept["train_cfg"] = {k: v for k, v in train_cfg.items() if k not in _VALIDATION_TIMES}
    if content.get("changed"):  # resumed all the same, with --resume-changed
        kept["changed"] = content["changed"]
    kept["processes"] = content.get("processes", 1)
    return kept


def fingerprint(content: Mapping[str, Any]) -> str:
    """Identify what a run computes: the same in other folders and on other machines."""
    text = json.dumps(reduce_content(content), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_of(cfg: Config, processes: int | None = None) -> str:
    """Return the fingerprint of a config."""
    return fingerprint(computed_content(cfg, processes))


def row_fingerprint(row: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of a results row by the rules of this version."""
    return fingerprint(row["computed"]) if isinstance(row.get("computed"), dict) else None


def describe_test(cfg: Config) -> dict[str, Any]:
    """Return on what weights are tested, in which digits and by which metrics."""
    names = ("test_dataloader", "test_cfg", "test_evaluator", "train_evaluator")
    content = {key: cfg.get(key) for key in names}
    return _plain(Config(content).to_dict())


def same_test(row: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Say whether a results row or an export was tested on this, as far as it says on what."""
    tested = row.get("tested") or {}
    return _reduced(tested) == _reduced({key: content.get(key) for key in tested})


def _reduced(value: Any) -> Any:
    if isinstance(value, dict):
        if "pipeline" in value and isinstance(value.get("dataset"), dict):
            # A wrapper's transforms replace those of the data set in it.
            inner = dict(value["dataset"], pipeline=value["pipeline"])
            value = {**value, "dataset": inner}
            del value["pipeline"]
        return {key: _reduced(item) for key, item in value.items() if key not in _LOADING}
    return [_reduced(item) for item in value] if isinstance(value, list) else value


def changes_training(hook: Any) -> bool:
    """Return whether the hook that a config names decides the weights that a run ends with."""
    name = hook.get("type") if isinstance(hook, Mapping) else None
    if not isinstance(name, str):
        return hook is not None
    scopes = [""] if "." in name else ["mmkd_logit.", "mmpretrain.", "mmengine."]
    found = [HOOKS.get(f"{scope}{name}") for scope in scopes]
    watching = type_name(name) in _WATCHING
    return not watching and getattr(next(filter(None, found), None), "changes_training", True)


def _plain(value: Any, key: str = "") -> Any:
    """Return a value as JSON has it, with names instead of classes and of scoped names."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        if key in FILES:
            return file_hash(value) or "missing"
        if key == "scores":  # of a DataSubset
            return _logits_hash(value) or "missing"
        if key == "checkpoint":  # of ``init_cfg``
            return value if "://" in value else weights_hash(value) or "missing"
        scoped = _PREFIX.fullmatch(value)
        return scoped[1] if scoped else Path(value).name if value.startswith("/") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)  # alpha=1 and alpha=1.0
    if value is None or isinstance(value, (int, float)):
        return value
    return type_name(value) or str(value)


def _by_file(compute: Callable[[str], Any]) -> Callable[[str | Path], Any]:
    """Compute something of a file once, until it changes; None where the file does not exist."""
    cached = functools.lru_cache(maxsize=256)(lambda path, mtime, size: compute(path))

    @functools.wraps(compute)
    def of_file(path: str | Path) -> Any:
        file = Path(path).expanduser()
        if not file.is_file():
            return None
        status = file.stat()
        return cached(str(file.resolve()), status.st_mtime_ns, status.st_size)

    return of_file


def _describe_teachers(content: dict[str, Any], weights: Mapping[str, str]) -> None:
    """Replace what the content says of teachers by what they are."""
    holder = Config(dict(model=content.get("model"), custom_hooks=content.get("custom_hooks")))
    if holder.get("model") is None:
        return
    change_teachers(holder, lambda spec: _describe_teacher(spec, weights))
    content.update({key: value for key, value in holder.to_dict().items() if key in content})


def _describe_teacher(teacher: Any, weights: Mapping[str, str]) -> dict[str, Any]:
    checkpoint = teacher.checkpoint
    known = weights.get(checkpoint) if isinstance(checkpoint, str) else None
    described = dict(network=_network_of(teacher), weights=known or _teacher_weights(teacher))
    return described | teacher.arithmetic


def _network_of(teacher: Any) -> Any:
    config = teacher.config
    try:
        if isinstance(config, str) and config_path(config).is_file():
            return _read_network(config_path(config))
        if isinstance(config, str) and not config.endswith((".py", ".json", ".yml", ".yaml")):
            return config  # the name of a published model
        return replace(teacher, checkpoint=None).resolve().model
    except (ValueError, FileNotFoundError):
        return config if isinstance(config, Mapping) else None  # building it will say why


@_by_file
def _read_network(config: str) -> Any:
    from mmkd_logit.models import TeacherSettings  # imports every network

    return TeacherSettings(config, None).resolve().model


def _teacher_weights(teacher: Any) -> str | None:
    if teacher.file is not None:
        return weights_hash(teacher.file)
    return teacher.checkpoint if isinstance(teacher.checkpoint, str) else None


def teacher_hashes(cfg: Config) -> list[str | None]:
    """Return the hash of each teacher's weights, or the name of published ones."""
    return [
        str(teacher.config) if teacher.checkpoint is ... else _teacher_weights(teacher)
        for teacher in teachers_of(cfg).values()
    ]


@_by_file
def file_hash(path: str) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@_by_file
def weights_hash(path: str) -> str | None:
    """Return the SHA-256 of a checkpoint's ``state_dict``, whatever else the file holds."""
    try:
        state = find_state_dict(read_lazily(path))
    except (ValueError, OSError):
        state = {}
    return state_hash(state) if state else file_hash(path)


@_by_file
def _logits_hash(path: str) -> str | None:
    """Hash the arrays that rank samples; the file also says when and where it was exported."""
    from mmkd_logit.datasets.subset import read_logits

    try:
        arrays = read_logits(path)
    except ValueError:  # building the data set says why
        return file_hash(path)
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def count_processes(cfg: Config) -> int:
    """Return how many processes train, also before slurm's or MPI's have found each other."""
    if cfg.get("launcher") in (None, "none"):  # whatever a scheduler has set
        return 1
    names = ("WORLD_SIZE", _TASKS.get(cfg.get("launcher"), ""))
    return next((int(os.environ[name]) for name in names if name in os.environ), 1)


# ``run.json`` of a work folder: what its run computes, its logs and its checkpoints, oldest first.
#
# The folder may also hold those of earlier runs, and names made of times say neither that nor,
# where a clock was set back, what came first.


RUN = "run.json"


def describe_run(cfg: Config, processes: int | None = None) -> dict[str, Any]:
    """Return what identifies a run, in ``run.json`` and in results rows."""
    content = computed_content(cfg, processes)
    return dict(
        fingerprint=fingerprint(content),
        computed=content,
        seed=seed_of(cfg),
        teachers=teacher_hashes(cfg),
        processes=content["processes"],
    )


def read_run(work_dir: str | Path) -> dict[str, Any]:
    """Return what a work folder records of its run; empty where it records nothing."""
    run: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        content = json.loads(Path(work_dir, RUN).read_text(encoding="utf-8"))
        run.update(content if isinstance(content, dict) else {})
    for key in ("logs", "checkpoints"):
        names = run.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            run.pop(key, None)
    return run


def write_run(work_dir: str | Path, **fields: Any) -> None:
    """Change fields of ``run.json``."""
    content = read_run(work_dir) | fields
    write_text(Path(work_dir, RUN), json.dumps(content, indent=1) + "\n")


def log_folders(work_dir: str | Path, among: Collection[str]) -> list[str]:
    """Return the folders of the run's logs in the order in which they were begun."""
    logs = read_run(work_dir).get("logs")
    return [name for name in logs if name in among] if logs else sorted(among)


def should_resume(cfg: Config, processes: int | None = None) -> bool:
    """Return whether the work folder of a config holds this very run, finished or cut off.

    Then it is resumed; otherwise it starts anew.
    """
    return row_fingerprint(read_run(cfg.work_dir)) == fingerprint_of(cfg, processes)


# The environment, which does not decide a run's weights.


_PACKAGES = (
    *("torch", "torchvision", "numpy"),
    *(
        f"{a}{name}{b}"
        for name in ("mmengine", "mmcv", "mmpretrain")
        for a, b in (("onedl-", ""), ("", ""), ("", "-lite"))
    ),
)


def dataset_hash(dataset: Any) -> str | None:
    """Identify the samples of a data set: images (or their files' names) and labels, in order."""
    if not hasattr(dataset, "get_data_info"):
        return None
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = info.get("img")
        if image is not None:
            digest.update(np.ascontiguousarray(image).tobytes())
        else:  # the content of files is not read: they may be millions
            digest.update("/".join(Path(str(info.get("img_path"))).parts[-2:]).encode())
        digest.update(str(info.get("gt_label")).encode())
    return digest.hexdigest()[:16]


def describe_machine() -> dict[str, Any]:
    """Return device, versions, and the commit of the code; of a GPU, where float32 is TF32."""
    described: dict[str, Any] = dict(device=f"CPU ({platform.machine()}, {os.cpu_count()} cores)")
    if torch.cuda.is_available():
        from mmkd_logit.models.teacher_cache import describe_tf32  # imports every network

        described = dict(device=torch.cuda.get_device_name(), tf32=describe_tf32())
    return dict(described, versions=_versions(), **_commit())


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "mmkd-logit": __version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _commit() -> dict[str, Any]:
    """Return the commit of this checkout and whether files were changed; None when installed."""
    project = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        settings: Any = dict(cwd=project, stderr=subprocess.DEVNULL, text=True)
        return subprocess.check_output(["git", *words], **settings).strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != project:
            return dict(commit=None, dirty=None)  # another repository around an installed package
        changed = git("status", "--porcelain", "--untracked-files=no")
        return dict(commit=git("rev-parse", "HEAD"), dirty=bool(changed))
    except (OSError, subprocess.CalledProcessError):
        return dict(commit=None, dirty=None)


# What another run differs in that shall go on from a checkpoint.


# Fields that may differ: a run may be made longer, and batches are compared with the processes.
_BATCH, _PROCESSES = "train_dataloader.batch_size", "processes"
_HARMLESS = ("train_cfg.max_epochs", "train_cfg.max_iters", _BATCH, _PROCESSES, "changed")


def list_changes(before: Any, now: Mapping[str, Any]) -> list[str]:
    """Say what two runs differ in that decides their weights.

    The number of epochs may differ, and the number of processes while an iteration has as many
    images.
    """
    if not isinstance(before, dict) or not isinstance(before.get("processes"), int):
        raise ValueError("what the checkpoint says of its run is damaged; resume an earlier one")
    theirs, ours = (dict(_flatten(reduce_content(each))) for each in (before, now))
    changed = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    changes = [
        f"{key}: {_short(theirs.get(key))} -> {_short(ours.get(key))}"
        for key in changed
        if key not in _HARMLESS
    ]
    if _images(theirs) != _images(ours):
        sizes = [f"{each[_PROCESSES]} x {each.get(_BATCH)}" for each in (theirs, ours)]
        changes.append(f"processes x {_BATCH}: {' -> '.join(sizes)}")
    return changes


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Give the values of nested dicts and lists of dicts by their dotted names."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        yield name, value
        return
    for key, item in value.items():
        yield from _flatten(item, f"{name}.{key}" if name else str(key))


def _images(fields: Mapping[str, Any]) -> int | None:
    """Return how many images an iteration has over all processes, where the config says so."""
    size = fields.get(_BATCH)
    return fields[_PROCESSES] * size if isinstance(size, int) else None


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
