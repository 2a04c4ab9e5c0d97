"""From a config file and a command line to the config of a run."""

import argparse
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mmkd_logit._arguments import type_name

from .config_check import fields_of
from .overrides import add_override_argument

IN_MEMORY = "InMemoryDataset"
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DICTS = (*_LOADERS, "model", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "randomness")
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


def read_config(path: str) -> Config:
    """Read a config file.

    Args:
        path: A ``.py`` file, or ``mmpretrain::...``.

    Raises:
        FileNotFoundError: If it, or a file in its ``_base_``, does not exist.
        ValueError: If it has no model, or is no config file.
    """
    if path.startswith("mmpretrain::"):
        from mmengine.hub import get_config

        try:
            cfg = get_config(path)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(f"mmpretrain has no config {path} ({error})") from None
    else:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the config {path} does not exist")
        if Path(path).suffix not in (".py", ".json", ".yaml", ".yml"):
            raise ValueError(f"{path} is no config: its name must end in .py, .json or .yaml")
        cfg = Config.fromfile(path)
    if not cfg.get("model") and "stages" in cfg:
        raise ValueError(f"{path} is a chain of runs; name the config of one of its stages here")
    if not cfg.get("model"):
        raise ValueError(f"{path} defines no model; it is not the config of a run")
    return cfg


def apply_common_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Merge overrides, defaults of the dataloaders and the work folder into a config.

    The work folder is, in this order, ``--work-dir``, the config's, or
    ``work_dirs/CONFIG/seedK``.

    Args:
        cfg: Changed in place.
        args: Parsed flags of :func:`add_common_arguments` and ``config``.

    Raises:
        ValueError: If an override names no field of a config or gives it the wrong kind of
            value, or the seed is not one.
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    for name in _LOADERS:
        if cfg.get(name) is not None:
            loader = cfg[name]
            loader.setdefault("pin_memory", not _stays_on_gpu(loader))
            loader.setdefault("collate_fn", dict(type="mmkd_logit.batch_collate"))
            if name == "train_dataloader":
                loader.setdefault("persistent_workers", True)
            if args.no_pin_memory:
                loader["pin_memory"] = False
    _merge(cfg, args.cfg_options)
    for name in _LOADERS:
        if cfg.get(name) is not None and not cfg[name].get("num_workers"):
            cfg[name]["persistent_workers"] = False  # torch refuses it without workers
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = default_work_dir(args.config, seed_of(cfg), getattr(args, "fast", False))
    cfg.work_dir = str(cfg.work_dir)


def _stays_on_gpu(loader: dict) -> bool:
    """Whether batches are made on the GPU, if there is one, whose memory cannot be pinned."""
    dataset = loader.get("dataset")
    while isinstance(dataset, dict):
        if type_name(dataset) == IN_MEMORY:
            return dataset.get("device", "cpu") != "cpu" and not loader.get("num_workers")
        dataset = dataset.get("dataset")
    return False


def _merge(cfg: Config, overrides: dict[str, Any]) -> None:
    """Merge overrides, refusing what MMEngine would pass over in silence or fail on later."""
    fields = fields_of(cfg)
    for key in overrides:
        name = key.split(".")[0]
        if name not in fields:
            close = get_close_matches(name, fields, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"--cfg-options {key}: a config has no field {name!r}{hint}")
        if name in _ELSEWHERE:
            raise ValueError(f"--cfg-options {key} has no effect; {_ELSEWHERE[name]}")
    try:
        cfg.merge_from_dict(overrides)
    except (TypeError, KeyError, IndexError, AssertionError) as error:
        raise ValueError(f"--cfg-options does not fit the config: {error}") from None
    for name in _DICTS:
        if not isinstance(cfg.get(name), dict if name == "model" else dict | None):
            raise ValueError(f"{name} must be a dict of settings, got {cfg[name]!r}")
    if "data_root" in overrides:
        for name in _LOADERS:
            _set_data_root(cfg.get(name), overrides["data_root"])
    seed = seed_of(cfg)
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ValueError(f"the seed must be an integer from 0 to 2**32 - 1, got {seed!r}")


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


def default_work_dir(config: str, seed: int | None, fast: bool = False) -> str:
    """Return ``work_dirs/CONFIG/seedK`` (without ``seedK`` when no seed is fixed).

    Args:
        config: The config file.
        seed: The seed.
        fast: Whether it is ``work_dirs/CONFIG_fast/seedK``, so that no run takes fewer digits for
            a teacher's exact weights.

    Example:
        >>> default_work_dir('configs/kd/wrn28-4_wrn16-2_mse.py', 0)
        'work_dirs/wrn28-4_wrn16-2_mse/seed0'
    """
    folder = Path("work_dirs", Path(config.split("::")[-1]).stem + "_fast" * fast)
    return str(folder if seed is None else folder / f"seed{seed}")


def use_amp(cfg: Config) -> None:
    """Turn on automatic mixed precision for training.

    Raises:
        ValueError: Without a GPU, since MMEngine's ``AmpOptimWrapper`` needs one, or if the
            config's optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    if not torch.cuda.is_available():
        raise ValueError("--amp needs a GPU; leave it out on a CPU")
    wrapper: ConfigDict | dict[str, Any] = cfg.get("optim_wrapper") or {}
    if type_name(wrapper) not in (None, "OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"--amp cannot change the optimizer wrapper {wrapper['type']}")
    wrapper["type"] = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")
