"""What a checkpoint may name besides tensors and plain containers.

MMEngine's training checkpoints hold ``HistoryBuffer`` objects. Their pickles call
``builtins.getattr``, which leads to any code, and numpy's array builders. Under these names a
checkpoint meets stand-ins that do the harmless part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmkd_logit._safe_arrays import ARRAY_GLOBALS, only_globals, stand_in

_STATISTICS = ("min", "max", "current", "mean")


def _history_statistic(owner: Any, name: Any) -> Callable:
    if owner is HistoryBuffer and type(name) is str and name in _STATISTICS:
        return vars(HistoryBuffer)[name]
    raise UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed in a checkpoint")


_ALLOWED: list[Any] = [
    stand_in("builtins.getattr", _history_statistic),
    HistoryBuffer,
    *ARRAY_GLOBALS,
]


def _name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


@contextmanager
def only_safe_globals() -> Iterator[None]:
    """Allow our globals, and those that the user allowed torch, but for what ours stand for."""
    taken = {_name(entry) for entry in _ALLOWED}
    users = torch.serialization.get_safe_globals()
    kept = [entry for entry in users if _name(entry) not in taken]
    statistics = HistoryBuffer._statistics_methods
    defaults = {name: vars(HistoryBuffer)[name] for name in _STATISTICS} | statistics
    try:
        with only_globals([*kept, *_ALLOWED]):
            yield
    finally:
        statistics.clear()  # a checkpoint may have set others, for the whole process
        statistics.update(defaults)
