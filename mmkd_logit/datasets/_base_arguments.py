"""Arguments of mmpretrain's ``BaseDataset``, which takes them as they come."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd_logit._checks import check_count, check_flag


def check_base_arguments(given: Mapping[str, Any]) -> None:
    """Check what a data set of ours hands on to its parent.

    Args:
        given: By name.

    Raises:
        ValueError: If an argument is of another kind.
        FileNotFoundError: If there is no file of the classes' names.
    """
    for name in ("test_mode", "lazy_init", "serialize_data"):
        if name in given:
            check_flag(name, given[name])
    if "max_refetch" in given:
        check_count("max_refetch", given["max_refetch"], 0)
    pipeline = given.get("pipeline", ())
    if not isinstance(pipeline, (list, tuple)) or not all(
        callable(step) or (isinstance(step, Mapping) and step.get("type")) for step in pipeline
    ):
        raise ValueError(
            "pipeline must be a list of transforms such as dict(type='PackInputs'), got "
            f"{pipeline!r}"
        )
    classes = given.get("classes")
    if isinstance(classes, str) and not Path(classes).expanduser().is_file():
        raise FileNotFoundError(f"classes={classes!r}: there is no such file of names")
    if not isinstance(classes, (str, list, tuple, type(None))):
        raise ValueError(f"classes must be a list of names, or a file of them, got {classes!r}")
    if not isinstance(given.get("metainfo"), (Mapping, type(None))):
        raise ValueError(
            f"metainfo must be a dict such as dict(classes=[...]), got {given['metainfo']!r}"
        )


def check_indices(indices: Any, size: int) -> None:
    """Check which samples are wanted.

    Args:
        indices: As of mmengine's ``BaseDataset``: the first N, the last for -N, a list of their
            numbers, or None for all.
        size: How many there are.

    Raises:
        ValueError: If there are no such samples, or it is no choice of them.
    """
    if indices is None:
        return
    whole = isinstance(indices, int) and not isinstance(indices, bool)
    if whole and 0 < abs(indices) <= size:
        return
    listed = isinstance(indices, (list, tuple)) and len(indices) > 0
    if not whole and listed and all(type(i) is int and -size <= i < size for i in indices):
        return
    raise ValueError(
        f"indices must be a number of samples from 1 to {size} (-N: the last N), or a list of "
        f"sample numbers from 0 to {size - 1}, got {indices!r}"
    )
