"""What a checkpoint may name besides tensors and plain containers.

MMEngine's training checkpoints hold ``HistoryBuffer`` objects. Their pickles call
``builtins.getattr``, ``numpy.dtype`` and numpy's array builders, each of which is harmful in
general: ``getattr`` leads to any code, and a dtype whose state is set from a file can pass
bytes for objects. Under these names a checkpoint meets stand-ins that do the harmless part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

_STATISTICS = ("min", "max", "current", "mean")
_NUMBERS = "?bBhHiIlLqQefdFD"


def _history_statistic(owner: Any, name: Any) -> Callable:
    if owner is HistoryBuffer and type(name) is str and name in _STATISTICS:
        return vars(HistoryBuffer)[name]
    raise UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed in a checkpoint")


def _number_type(code: Any, *_: Any) -> np.dtype:
    """Return numpy's own dtype object, which ``__setstate__`` leaves as it is.

    So it leaves the byte order too: files of big-endian machines are not for us.
    """
    found = np.dtype(code) if type(code) is str else None
    if found is None or not found.isnative or found.char not in _NUMBERS:
        raise UnpicklingError(f"numpy.dtype({code!r}) is not allowed in a checkpoint")
    return np.dtype(found.type)


def _stand_in(full_name: str, function: Callable) -> Callable:
    """Give a function the name by which torch looks up an allowed global."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, _, call.__name__ = full_name.rpartition(".")
    call.__qualname__ = call.__name__
    return call


_multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray
_ALLOWED: list[Any] = [
    _stand_in("builtins.getattr", _history_statistic),
    _stand_in("numpy.dtype", _number_type),
    HistoryBuffer,
    np.ndarray,
    *{type(np.dtype(char)) for char in _NUMBERS},
]
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2
    _ALLOWED.append(_stand_in(f"{_module}._reconstruct", _multiarray._reconstruct))
    _ALLOWED.append(_stand_in(f"{_module}.scalar", _multiarray.scalar))


def _name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


@contextmanager
def only_safe_globals() -> Iterator[None]:
    """Allow our globals, and those that the user allowed torch, but for what ours stand for."""
    before = torch.serialization.get_safe_globals()
    taken = {_name(entry) for entry in _ALLOWED}
    kept = [entry for entry in before if _name(entry) not in taken]
    statistics = HistoryBuffer._statistics_methods
    defaults = {name: vars(HistoryBuffer)[name] for name in _STATISTICS} | statistics
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*kept, *_ALLOWED])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
        statistics.clear()  # a checkpoint may have set others, for the whole process
        statistics.update(defaults)
