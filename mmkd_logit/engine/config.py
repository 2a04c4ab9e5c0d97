"""From a config file and a command line to the config of a run."""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict, DictAction

# Fields of a config that say where a run writes and how it is started, not what it computes.
_WHERE_AND_HOW = (
    "work_dir",
    "launcher",
    "resume",
    "load_from",
    "custom_hooks",
    "default_hooks",
    "visualizer",
    "vis_backends",
    "log_level",
    "log_processor",
    "data_root",
)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share; they are mmpretrain's."""
    parser.add_argument("--work-dir", help="folder for logs, checkpoints and metrics")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision (GPU)")
    parser.add_argument("--no-pin-memory", action="store_true", help="do not pin memory")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings of the config, such as model.alpha=0.9 or train_cfg.max_epochs=5",
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
        ValueError: If it has no model.
    """
    if path.startswith("mmpretrain::"):
        from mmengine.hub import get_config

        cfg = get_config(path)
    else:
        if not Path(path).is_file():
            raise FileNotFoundError(f"the config {path} does not exist")
        cfg = Config.fromfile(path)
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
    """
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(name) is not None:
            loader = cfg[name]
            loader.setdefault("pin_memory", True)
            loader.setdefault("collate_fn", dict(type="default_collate"))
            if name == "train_dataloader":
                loader.setdefault("persistent_workers", True)
            if args.no_pin_memory:
                loader["pin_memory"] = False
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(name) is not None and not cfg[name].get("num_workers"):
            cfg[name]["persistent_workers"] = False  # torch refuses it without workers
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = default_work_dir(args.config, seed_of(cfg))


def seed_of(cfg: Config) -> int | None:
    """Return the seed that a config fixes, or None."""
    return (cfg.get("randomness") or {}).get("seed")


def default_work_dir(config: str, seed: int | None) -> str:
    """Return ``work_dirs/CONFIG/seedK`` (without ``seedK`` when no seed is fixed).

    Example:
        >>> default_work_dir('configs/kd/wrn28-4_wrn16-2_mse.py', 0)
        'work_dirs/wrn28-4_wrn16-2_mse/seed0'
    """
    folder = Path("work_dirs", Path(config.split("::")[-1]).stem)
    return str(folder if seed is None else folder / f"seed{seed}")


def use_amp(cfg: Config) -> None:
    """Turn on automatic mixed precision for training.

    Raises:
        ValueError: Without a GPU, since MMEngine's ``AmpOptimWrapper`` needs one, or if the
            config's optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    if not torch.cuda.is_available():
        raise ValueError("--amp needs a GPU; leave it out on a CPU")
    wrapper: ConfigDict | dict[str, Any] = cfg.optim_wrapper
    if wrapper.get("type", "OptimWrapper") not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"--amp cannot change the optimizer wrapper {wrapper['type']}")
    wrapper["type"] = "AmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")


def config_hash(cfg: Config) -> str:
    """Identify what a config computes: equal configs in other folders have the same hash.

    Args:
        cfg: A complete config.

    Returns:
        16 hexadecimal digits.
    """
    content = {key: value for key, value in cfg.to_dict().items() if key not in _WHERE_AND_HOW}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
