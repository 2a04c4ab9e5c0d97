"""Reading pickled arrays without running what is in the file.

torch's ``weights_only=True`` reads tensors and plain containers only. numpy's arrays pickle as
calls of ``numpy.dtype`` and numpy's array builders, which are harmful in general: a dtype whose
state is set from a file can pass bytes for objects. Under these names a file meets stand-ins that
do the harmless part.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = "?bBhHiIlLqQefdFD"


def _number_type(code: Any, *_: Any) -> np.dtype:
    """Return numpy's own dtype object, which ``__setstate__`` leaves as it is.

    So it leaves the byte order too: files of big-endian machines are not for us.
    """
    found = np.dtype(code) if type(code) is str else None
    if found is None or not found.isnative or found.char not in _NUMBERS:
        raise UnpicklingError(f"numpy.dtype({code!r}) is not allowed in a checkpoint")
    return np.dtype(found.type)


def stand_in(full_name: str, function: Callable) -> Callable:
    """Give a function the name by which torch looks up an allowed global.

    Args:
        full_name: Such as ``builtins.getattr``.
        function: What is called under that name.
    """

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, _, call.__name__ = full_name.rpartition(".")
    call.__qualname__ = call.__name__
    return call


_multiarray = (np._core if hasattr(np, "_core") else np.core).multiarray
ARRAY_GLOBALS: list[Any] = [
    stand_in("numpy.dtype", _number_type),
    np.ndarray,
    *{type(np.dtype(char)) for char in _NUMBERS},
]
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and numpy 2
    ARRAY_GLOBALS.append(stand_in(f"{_module}._reconstruct", _multiarray._reconstruct))
    ARRAY_GLOBALS.append(stand_in(f"{_module}.scalar", _multiarray.scalar))


@contextmanager
def only_globals(entries: Iterable[Any]) -> Iterator[None]:
    """Make these, and no others, what ``torch.load(weights_only=True)`` allows.

    Args:
        entries: As of :func:`torch.serialization.add_safe_globals`.
    """
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(entries))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def state_hash(state: Mapping[str, Any]) -> str:
    """Hash tensors by their names.

    Args:
        state: Such as a ``state_dict``.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):  # a module's extra state
            digest.update(f"{name} {value!r}".encode())
            continue
        value = value.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
