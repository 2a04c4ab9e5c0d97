"""Configs of layers, whose errors in mmcv do not say where they stand."""

from collections.abc import Callable
from typing import Any

from mmkd_logit._arguments import first_line


def check_layer(name: str, cfg: Any, build: Callable[[dict], Any], example: str) -> None:
    """Make sure that a layer can be built.

    Args:
        name: The argument, for messages.
        cfg: Its config; None is a default.
        build: Builds one.
        example: What would do.

    Raises:
        ValueError: If it cannot.
    """
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
    """Make sure that ``init_cfg`` is a config or several.

    Args:
        init_cfg: As of mmengine's ``BaseModule``.

    Raises:
        ValueError: If it is something else.
    """
    given = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    for each in given:
        if each is not None and not (isinstance(each, dict) and each.get("type")):
            raise ValueError(
                "init_cfg must be a dict such as dict(type='Kaiming', layer='Conv2d'), a list of "
                f"them, or None, got {init_cfg!r}"
            )
