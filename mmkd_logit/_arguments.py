"""What classes and functions take, and what to say of a name that they do not.

The registries import this file, so it needs the standard library alone.
"""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def type_name(spec: Any) -> str | None:
    """Return the name of the class that a config builds, without the prefix of its package.

    Args:
        spec: The config of a component, or its ``type``: ``'CheckpointHook'``,
            ``'mmengine.CheckpointHook'`` or the class itself.

    Returns:
        The name, or None where there is no type.

    Example:
        >>> type_name(dict(type='mmengine.CheckpointHook', interval=1))
        'CheckpointHook'
    """
    kind = spec.get("type") if isinstance(spec, Mapping) else spec
    if isinstance(kind, str):
        return kind.rpartition(".")[-1]
    return getattr(kind, "__name__", None)


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return ``'; did you mean NAME?'`` for the nearest known name, or nothing.

    Args:
        name: What was written.
        known: What there is.
    """
    close = get_close_matches(str(name), [str(each) for each in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def first_line(error: BaseException) -> str:
    """Return what an error says, without its further lines and its class if it says anything.

    Args:
        error: Any.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def refuse_unknown(what: str, given: Iterable[object], known: Collection[str]) -> None:
    """Make sure that every name is known.

    Args:
        what: Whose names they are, for the message.
        given: Names of the user.
        known: What there is, in the order of the message.

    Raises:
        ValueError: If one is not.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        takes = f"{' It' if hint else '; it'} takes {', '.join(known) or 'none'}"
        raise ValueError(f"{what} has no setting {unknown[0]!r}{hint}{takes}")


def arguments_of(target: Callable) -> tuple[list[str], bool]:
    """Return the names of the arguments that a class or function takes by keyword.

    ``**kwargs`` of a class are taken to be its parent's; under another name they are its own.

    Args:
        target: The class or function.

    Returns:
        The names, and whether there may be others.
    """
    names: list[str] = []
    for layer in _layers(target):
        try:
            parameters = list(inspect.signature(layer).parameters.values())
        except (TypeError, ValueError):  # of C
            return names, True
        parameters = parameters[inspect.isclass(target) :]  # without self
        names += [p.name for p in parameters if p.kind in _NAMED and p.name not in names]
        rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        if not rest:
            return names, False
        if rest != ["kwargs"] or not inspect.isclass(target):
            return names, True
    return names, False


def _layers(target: Callable) -> list[Callable]:
    if not inspect.isclass(target):
        return [target]
    found = [vars(each)["__init__"] for each in target.__mro__ if "__init__" in vars(each)]
    own: list[Callable] = [each for each in found if _plain(each) is not object.__init__]
    return own


def _plain(function: Any) -> Any:
    return inspect.unwrap(function)


def explain_arguments(cls: type) -> None:
    """Let a class refuse arguments that it does not take in one line that says what it takes.

    Python's TypeError names neither the arguments there are nor the one that was meant.

    Args:
        cls: Changed in place.
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
    if _plain(init) is object.__init__:
        return
    own = list(inspect.signature(init).parameters.values())[1:]
    lacking = [
        p.name
        for p in own[len(args) :]
        if p.kind in _NAMED and p.default is p.empty and p.name not in kwargs
    ]
    if lacking:
        raise ValueError(
            f"{cls.__name__} needs {', '.join(lacking)}; it takes {', '.join(names) or 'none'}"
        )
