"""torchdistill, which is installed only where its methods are used."""

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def find_class(module: str, name: str) -> Callable:
    """Return a class of torchdistill, or raise ImportError naming the extra that brings it."""
    try:
        return getattr(import_module(f"torchdistill.{module}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchdistill":
            raise
        raise ImportError(
            f"{name} is torchdistill's, which is not installed: "
            'pip install -e ".[methods]" (or pip install "mmkd-logit[methods]")'
        ) from None


def check_settings(
    name: str, function: Callable, given: Mapping[str, Any], ours: Collection[str] = ()
) -> None:
    """Raise ValueError for a setting that torchdistill would not know and pass over in silence.

    Args:
        name: What the message calls the function.
        function: A class or function of torchdistill.
        given: Settings of the user.
        ours: Those that the user does not set.
    """
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    allowed = [p.name for p in parameters if p.kind in kinds and p.name not in ours]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ValueError(f"{name} has no settings {unknown}; it takes {', '.join(allowed)}")
