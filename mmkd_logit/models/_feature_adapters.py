"""The trained adapters of a distiller in checkpoints, which the student's need not hold."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

ADAPTERS = "feature_adapters"


@contextmanager
def adapters_aside(distiller: nn.Module) -> Iterator[None]:
    """Take the adapters out of reach, such as of the student's ``init_cfg``.

    Args:
        distiller: The module, with adapters or without.
    """
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

    Args:
        distiller: The module, with adapters or without.
        load: ``_load_from_state_dict`` of the module.
        state_dict: As of it; changed in place.
        prefix: As of it.
        *args: The rest of its arguments.
    """
    begin = f"{prefix}{ADAPTERS}."
    theirs = {key: state_dict.pop(key) for key in list(state_dict) if key.startswith(begin)}
    load(state_dict, prefix, *args)
    adapters = distiller._modules.get(ADAPTERS)
    if adapters is not None:
        own = {begin + key: value for key, value in adapters.state_dict().items()}
        state_dict.update(theirs or own)


def without_adapters(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a ``state_dict`` but for those of adapters.

    Args:
        state: With or without the prefix ``module.``.
    """
    return {
        key: value
        for key, value in state.items()
        if not key.removeprefix("module.").startswith(f"{ADAPTERS}.")
    }
