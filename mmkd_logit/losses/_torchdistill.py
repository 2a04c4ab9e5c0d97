"""torchdistill, which is installed only where its methods are used."""

import inspect
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from mmkd_logit._arguments import refuse_unknown
from mmkd_logit._checks import check_choice, check_count, check_flag, check_number


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
    """Raise ValueError for a setting that torchdistill would pass over in silence or fail on later.

    Args:
        name: What the message calls the function.
        function: A class or function of torchdistill.
        given: Settings of the user.
        ours: Those that the user does not set.

    Raises:
        ValueError: If one is unknown, of the wrong kind, or missing.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.kind in kinds and p.name not in ours
    ]
    allowed = [p.name for p in parameters]
    refuse_unknown(name, given, allowed)
    for setting, check in _CHECKS.items():
        if setting in given:
            check(f"{setting} of {name}", given[setting])
    lacking = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if lacking:
        raise ValueError(f"{name} needs {', '.join(lacking)}; it takes {', '.join(allowed)}")


def _check_sizes(what: str, value: Any, least: int) -> None:
    """Check one number, or one for height and one for width."""
    for each in value if isinstance(value, (list, tuple)) and value else [value]:
        check_count(what, each, least)


_REDUCTIONS = ("mean", "sum", "none", "batchmean")
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "mode": lambda what, value: check_choice(what, value, ("code", "paper")),
    "reduction": lambda what, value: check_choice(what, value, _REDUCTIONS),
    "margin": check_number,
    "p": lambda what, value: check_number(what, value, zero=False),
    "k": lambda what, value: check_number(what, value, zero=False),
    "num_input_channels": check_count,
    "num_output_channels": check_count,
    "kernel_size": lambda what, value: _check_sizes(what, value, 1),
    "stride": lambda what, value: _check_sizes(what, value, 1),
    "padding": lambda what, value: _check_sizes(what, value, 0),
    "uses_relu": check_flag,
    "uses_bn": check_flag,
    "uses_decoder": check_flag,
}
