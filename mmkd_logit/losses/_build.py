"""Building modules of a config, with words for what is no config of one."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmkd_logit._arguments import did_you_mean
from mmkd_logit.registry import MODELS

LOSS = "dict(type='mmkd_logit.LogitMSELoss')"


def build_module(what: str, spec: Any, example: str = LOSS) -> nn.Module:
    """Build a module from its config.

    Args:
        what: The setting that it was given for, for messages.
        spec: The config; a module is returned as it is.
        example: A config that would do.

    Raises:
        ValueError: If it is no config, or of a type that is not registered.
    """
    if isinstance(spec, nn.Module):
        return spec
    if not isinstance(spec, Mapping) or not spec.get("type"):
        raise ValueError(f"{what} must be a config such as {example}, or a module, got {spec!r}")
    check_registered(what, spec["type"])
    return MODELS.build(spec)


def check_registered(what: str, kind: Any, registry: Any = MODELS) -> None:
    """Make sure that there is a model component of a name.

    Args:
        what: The setting that names it, for messages.
        kind: The ``type`` of a config; a class is as good as registered.
        registry: Where it is looked up, as it will build it.

    Raises:
        ValueError: If there is none; the message has the nearest name.
    """
    if not isinstance(kind, str):
        return
    with registry.switch_scope_and_registry(None) as place:
        try:
            found = place.get(kind)
        except Exception:  # MMEngine raises what it likes where a module cannot be imported
            found = None
        known = [f"mmkd_logit.{name}" for name in MODELS.module_dict]
        known += list(place.module_dict)
    if found is None:
        hint = did_you_mean(kind, known) or "; check its spelling and scope"
        raise ValueError(f"{what}: no component {kind!r} is registered{hint}")
