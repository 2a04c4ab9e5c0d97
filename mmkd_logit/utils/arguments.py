"""Checking single values and the arguments of classes, with one-line errors.

The registries import this file, so it needs the standard library alone.
"""

import functools
import inspect
import math
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def type_name(spec: Any) -> str | None:
    """Return the name of the class that a config builds, without the prefix of its package.

    Example:
        >>> type_name(dict(type='mmengine.CheckpointHook', interval=1))
        'CheckpointHook'
    """
    kind = spec.get("type") if isinstance(spec, Mapping) else spec
    if isinstance(kind, str):
        return kind.rpartition(".")[-1]
    return getattr(kind, "__name__", None)


def is_ours(kind: Any) -> bool:
    """Whether a component, given by its name or itself, is of this package."""
    name = kind if isinstance(kind, str) else getattr(kind, "__module__", "")
    return str(name).startswith("mmkd_logit.")


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return ``'; did you mean NAME?'`` for the nearest known name, or nothing."""
    close = get_close_matches(str(name), [str(each) for each in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def without(value: Any, drop: Callable[[str, Any], bool]) -> Any:
    """Return nested dicts and lists without the entries of which ``drop(key, value)`` holds."""
    if isinstance(value, dict):
        return {key: without(item, drop) for key, item in value.items() if not drop(key, item)}
    return [without(item, drop) for item in value] if isinstance(value, list) else value


def first_line(error: BaseException) -> str:
    """Return what an error says, without its further lines and its class if it says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def refuse_unknown(what: str, given: Iterable[object], known: Collection[str]) -> None:
    """Make sure that every name is known."""
    unknown = [name for name in given if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        takes = f"{' It' if hint else '; it'} takes {', '.join(known) or 'none'}"
        raise ValueError(f"{what} has no setting {unknown[0]!r}{hint}{takes}")


def arguments_of(target: Callable) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return what a class or function takes by keyword, and whether it may take more.

    ``**kwargs`` of a class are taken to be its parent's; under another name they are its own.
    """
    found: dict[str, inspect.Parameter] = {}
    layers, is_class = [target], inspect.isclass(target)
    if inspect.isclass(target):
        own = [vars(each)["__init__"] for each in target.__mro__ if "__init__" in vars(each)]
        layers = [each for each in own if inspect.unwrap(each) is not object.__init__]
    for layer in layers:
        try:
            parameters = list(inspect.signature(layer).parameters.values())
        except (TypeError, ValueError):  # of C
            return found, True
        for parameter in parameters[is_class:]:  # without self
            if parameter.kind in _NAMED:
                found.setdefault(parameter.name, parameter)
        rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        if rest != ["kwargs"] or not is_class:
            return found, bool(rest)
    return found, False


def explain_arguments(cls: type) -> None:
    """Let a class refuse arguments that it does not take in one line that says what it takes.

    Python's TypeError names neither the arguments there are nor the one that was meant.
    """
    init: Callable = cls.__init__  # type: ignore[misc]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        _check_call(cls, init, args, kwargs)
        try:
            init(self, *args, **kwargs)
        except TypeError as error:
            twice = re.search(r"got multiple values for (?:keyword )?argument '(\w+)'", str(error))
            if twice is None or twice[1] not in kwargs:
                raise
            raise ValueError(f"{cls.__name__} sets {twice[1]} itself; leave it out") from None

    cls.__init__ = __init__  # type: ignore[misc]


def _check_call(cls: type, init: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
    names, open_ = arguments_of(cls)
    if not open_:
        refuse_unknown(cls.__name__, kwargs, names)
    if inspect.unwrap(init) is object.__init__:
        return
    own = list(inspect.signature(init).parameters.values())[1 + len(args) :]
    missing = [
        p.name for p in own if p.kind in _NAMED and p.default is p.empty and p.name not in kwargs
    ]
    if missing:
        raise ValueError(
            f"{cls.__name__} needs {', '.join(missing)}; it takes {', '.join(names) or 'none'}"
        )


# Checks of single values that all components share; each says what was given and is allowed.


def check_number(name: str, value: object, zero: bool = True) -> float:
    """Return ``value`` as a float, or raise ValueError if it is not finite and at least 0."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (number > 0 or (zero and number == 0)):
            return number
    allowed = "of at least 0" if zero else "above 0"
    raise ValueError(f"{name}={value!r} must be a finite number {allowed}")


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` as an int."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and int(value) >= least:  # type: ignore[call-overload]
        return int(value)  # type: ignore[call-overload]
    raise ValueError(f"{name} must be an integer from {least} on, got {value!r}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False: ``'no'`` would count as yes."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: object, allowed: Collection[Any]) -> Any:
    """Return ``value`` if it is one of those allowed."""
    if any(type(value) is type(each) and value == each for each in allowed):
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_text(name: str, value: object, what: str = "text") -> str:
    """Return ``value`` if it is text that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{name} must be {what}, got {value!r}")


def check_out_folder(name: str, path: str | Path) -> None:
    """Make sure that a folder can be written to, before the work that it will hold is done."""
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name}: {path} is a file; name a folder")
    check_out_file(name, folder / "file")


def check_out_file(name: str, path: str | Path) -> None:
    """Make sure that a file can be written, before the work that it will hold is done."""
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(f"{name}: {path} is a folder; name a file in it")
    if file.exists() and not os.access(file, os.W_OK):
        raise ValueError(f"{name}: {path} may not be written; name another file")
    for folder in file.absolute().parents:
        if folder.is_dir():
            if not file.exists() and not os.access(folder, os.W_OK):
                raise ValueError(f"{name}: {folder} may not be written; name another folder")
            return
        if folder.exists():
            raise ValueError(f"{name}: {folder} is a file; name a folder")
