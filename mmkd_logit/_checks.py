"""Checks of single values that all components share; each says what was given and is allowed."""

import math
import numbers
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any


def check_number(name: str, value: object, zero: bool = True) -> float:
    """Return ``value`` as a float, or raise ValueError if it is not finite and at least 0.

    Args:
        name: What the message calls it.
        value: What was given.
        zero: Whether 0 is allowed.

    Raises:
        ValueError: As said.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (number > 0 or (zero and number == 0)):
            return number
    allowed = "of at least 0" if zero else "above 0"
    raise ValueError(f"{name}={value!r} must be a finite number {allowed}")


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return ``value`` as an int.

    Args:
        name: What the message calls it.
        value: What was given.
        least: The smallest that is allowed.

    Raises:
        ValueError: If it is no whole number, or smaller.
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if whole and int(value) >= least:  # type: ignore[call-overload]
        return int(value)  # type: ignore[call-overload]
    raise ValueError(f"{name} must be an integer from {least} on, got {value!r}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False: ``'no'`` would count as yes.

    Args:
        name: What the message calls it.
        value: What was given.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False, got {value!r}")


def check_choice(name: str, value: object, allowed: Collection[Any]) -> Any:
    """Return ``value`` if it is one of those allowed.

    Args:
        name: What the message calls it.
        value: What was given.
        allowed: Values that can be compared with anything.

    Raises:
        ValueError: If it is something else.
    """
    if any(type(value) is type(each) and value == each for each in allowed):
        return value
    raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_text(name: str, value: object, what: str = "text") -> str:
    """Return ``value`` if it is text that is not empty.

    Args:
        name: What the message calls it.
        value: What was given.
        what: What the text is, for the message.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{name} must be {what}, got {value!r}")


def check_out_folder(name: str, path: str | Path) -> None:
    """Make sure that a folder can be written to, before the work that it will hold is done.

    Args:
        name: What the message calls it.
        path: The folder; it need not exist.

    Raises:
        ValueError: If it is a file, a folder of it is one, or it may not be written.
    """
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{name}: {path} is a file; name a folder")
    check_out_file(name, folder / "file")


def check_out_file(name: str, path: str | Path) -> None:
    """Make sure that a file can be written, before the work that it will hold is done.

    Args:
        name: What the message calls it.
        path: The file; it and its folders need not exist.

    Raises:
        ValueError: If it is a folder, a folder of it is a file, or one may not be written.
    """
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
            raise ValueError(f"{name}: {folder} is a file and cannot hold {file.name}")
