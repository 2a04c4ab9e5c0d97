"""Small parts: configs of layers, adapters' weights, the random state."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from mmkd_logit.utils.arguments import first_line


def check_layer(name: str, cfg: Any, build: Callable[[dict], Any], example: str) -> None:
    """Make sure that a layer can be built."""
    if cfg is None:
        return
    if not isinstance(cfg, dict) or not cfg.get("type"):
        raise ValueError(f"{name} must be a dict such as {example}, got {cfg!r}")
    try:
        build(dict(cfg))
    except Exception as error:  # of mmcv's registry or of the layer
        raise ValueError(
            f"{name}={cfg!r} builds no layer ({first_line(error)}); take {example}"
        ) from None


def check_init_cfg(init_cfg: Any) -> None:
    """Make sure that ``init_cfg`` is a config or several."""
    given = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    for each in given:
        if each is not None and not (isinstance(each, dict) and each.get("type")):
            raise ValueError(
                "init_cfg must be a dict such as dict(type='Kaiming', layer='Conv2d'), a list of "
                f"them, or None, got {init_cfg!r}"
            )


# The trained adapters of a distiller in checkpoints, which the student's need not hold.


ADAPTERS = "feature_adapters"


@contextmanager
def adapters_aside(distiller: nn.Module) -> Iterator[None]:
    """Take the adapters out of reach, such as of the student's ``init_cfg``."""
    adapters = distiller._modules.pop(ADAPTERS, None)
    try:
        yield
    finally:
        if adapters is not None:
            distiller.add_module(ADAPTERS, adapters)


def load_around_adapters(
    distiller: nn.Module, load: Callable[..., None], state_dict: dict, prefix: str, *args: Any
) -> None:
    """Load a module's own state as if its adapters were not there, then hand theirs on.

    Students of other libraries rename every key on the way. Where a checkpoint has no adapters,
    they stay as they are and nothing counts as missing.
    """
    begin = f"{prefix}{ADAPTERS}."
    theirs = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(begin)}
    load(state_dict, prefix, *args)
    adapters = distiller._modules.get(ADAPTERS)
    if adapters is not None:
        own = {begin + key: value for key, value in adapters.state_dict().items()}
        state_dict.update(theirs or own)


def without_adapters(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a ``state_dict`` but for those of adapters."""
    return {
        key: value
        for key, value in state.items()
        if not key.removeprefix("module.").startswith(f"{ADAPTERS}.")
    }


# Leave the random generators as they were.


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore Python's, NumPy's and torch's (CPU and every CUDA device's) generators on exit.

    Building a network draws numbers even when its weights are loaded afterwards; without this a
    run with a teacher would shuffle and augment differently from one without.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
