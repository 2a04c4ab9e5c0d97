"""What an exhibit file must hold, place by place, so that whoever reads it can trust it."""

import reprlib
from typing import Any, NamedTuple


class Each(NamedTuple):
    """A dictionary whose values are alike.

    Attributes:
        shape: Of every value.
    """

    shape: Any


# A type stands for its values (float for whole numbers too, never for True), a list for lists of
# its one shape, a tuple for one of several, a dictionary for its fields. ``?`` ends the name of a
# field that may be absent or null.
_CELL = {
    "by_seed": Each(float),
    "mean": (float, None),
    "std": (float, None),
    "n": int,
    "failed": int,
    "paper": (float, None),
    "mark": str,
    "difference": (float, None),
}
_METRIC = {
    "title": str,
    "key": str,
    "cells": Each(_CELL),
    "comparisons?": [{"text": str}],
}
_METHOD = {
    "kind": str,
    "tau?": (float, str),
    "alpha?": float,
    "loss?": str,
    "network?": str,
    "teacher_config?": str,
    "label_noise?": {"kind?": str, "rate?": float},
}
_ROW = {
    "seed?": int,
    "epochs?": int,
    "test?": dict,
    "train?": dict,
    "versions?": Each(str),
    "data?": Each((str, None)),
    "teachers?": [(str, None)],
    "weights?": str,
    "fingerprint?": str,
    "device?": str,
    "numerics?": str,
    "commit?": str,
    "dirty?": bool,
    "processes?": int,
    "iterations?": int,
    "resumed_at?": int,
    "train_seconds?": float,
    "together?": int,
    "finished?": str,
}
_RUN = {
    "name": str,
    "seed": int,
    "work_dir": str,
    "config": str,
    "epochs": (int, None),
    "overrides?": [str],
    "teachers?": [str],
    "method": _METHOD,
    "command": [str],
    "row": (_ROW, None),
    "files": {"log?": str, "scalars?": [str], "dumps?": Each(str)},
}
EXHIBIT = {
    "name": str,
    "scale?": str,
    "title": str,
    "note?": str,
    "protocol?": str,
    "legend?": Each(str),
    "command": [str],
    "root": str,
    "cells": Each([str]),
    "metrics": [_METRIC],
    "runs": [_RUN],
}
_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    None: "null",
}


def check(value: Any, shape: Any, where: str = "") -> None:
    """Make sure that a value is as its shape says.

    Args:
        value: Of JSON.
        shape: As above.
        where: The value's place, for the error.

    Raises:
        ValueError: If it is not; says the place, what is there and what belongs there.
    """
    if isinstance(shape, dict):
        _expect(value, (dict,), where)
        for name, inner in shape.items():
            _check_field(value, name, inner, where)
    elif isinstance(shape, Each):
        _expect(value, (dict,), where)
        for name, item in value.items():
            check(item, shape.shape, f"{where}[{reprlib.repr(name)}]")
    elif isinstance(shape, list):
        _expect(value, (list,), where)
        for position, item in enumerate(value):
            check(item, shape[0], f"{where}[{position}]")
    elif isinstance(shape, tuple) and isinstance(shape[0], dict):
        if value is not None:
            check(value, shape[0], where)
    else:
        _expect(value, shape if isinstance(shape, tuple) else (shape,), where)


def _check_field(value: dict, name: str, shape: Any, where: str) -> None:
    known = name.rstrip("?")
    place = f"{where}.{known}".lstrip(".")
    if value.get(known) is None and name.endswith("?"):
        return
    if known not in value:
        raise ValueError(f"{place} is missing")
    check(value[known], shape, place)


def _expect(value: Any, kinds: tuple, where: str) -> None:
    if not any(_is(value, kind) for kind in kinds):
        wanted = " or ".join(_NAMES[kind] for kind in kinds)
        raise ValueError(f"{where or 'it'} is {reprlib.repr(value)} and not {wanted}")


def _is(value: Any, kind: Any) -> bool:
    if kind is None or isinstance(value, bool):
        return value is None if kind is None else kind is bool
    if isinstance(value, int):
        return kind in (int, float) and abs(value) < 10**300  # beyond, there is no such float
    return isinstance(value, kind)
