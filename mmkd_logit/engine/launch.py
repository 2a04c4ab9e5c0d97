"""Starting the processes of a run, with or without a GPU."""

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from mmkd_logit.utils.arguments import type_name

_SYNC_BN = ("SyncBN", "MMSyncBN", "SyncBatchNorm")
_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def silence_known_warnings() -> None:
    """Hide the warning that mmcv without compiled operators prints; we use none of them."""
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Make a config run under a launcher, over gloo where there is no GPU.

    MMEngine's own start-up calls CUDA, so without one the process group is made here, before
    the Runner, and its model wrapper is told to use no device.
    """
    cfg.launcher = launcher
    if get_device() == "cpu":
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if cfg.get(name):
                cfg[name]["pin_memory"] = False  # pinning needs a GPU and warns without
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if launcher == "pytorch" and missing:
        raise ValueError(
            f"launcher 'pytorch' needs {', '.join(missing)} in the environment; "
            "start with tools/dist_train.sh CONFIG GPUS or torchrun"
        )
    if launcher == "none" or torch.cuda.is_available():
        return
    if launcher != "pytorch":
        raise ValueError(
            f"launcher {launcher!r} needs GPUs; without one use tools/dist_train.sh (gloo)"
        )
    if int(os.environ["WORLD_SIZE"]) > 1:
        _refuse_sync_bn(cfg)
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    wrapper = cfg.get("model_wrapper_cfg") or dict(
        type="MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    wrapper["device_ids"] = None
    cfg.model_wrapper_cfg = wrapper


def _refuse_sync_bn(cfg: Config) -> None:
    """Say at once what PyTorch would say at the first batch; a frozen teacher may have it."""
    where = "sync_bn" if cfg.get("sync_bn") else _find_sync_bn(cfg.get("model"), "model")
    if where:
        raise ValueError(
            f"{where} asks for SyncBN, which PyTorch computes on GPUs only; on CPUs take BN (each "
            "process then normalises by its own batch), or one process"
        )


def _find_sync_bn(value: Any, where: str) -> str | None:
    if isinstance(value, dict):
        if type_name(value) in _SYNC_BN:
            return where
        parts = [(f"{where}.{key}", part) for key, part in value.items() if key != "teacher"]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{where}.{place}", part) for place, part in enumerate(value)]
    else:
        return None
    return next(filter(None, (_find_sync_bn(part, name) for name, part in parts)), None)
