"""Reading arrays from files that may be anybody's."""

from pathlib import Path

import numpy as np
import torch

from mmkd_logit._safe_arrays import ARRAY_GLOBALS, only_globals

_SUFFIXES = (".npy", ".npz", ".pt", ".pth")
_UNNAMED = ""
_CLEAN = "clean_label"  # in the published files of CIFAR-10N and CIFAR-100N


def read_arrays(path: str | Path, only: str | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a file; pickled objects are refused unread.

    Args:
        path: .npy, .npz or .pt.
        only: The one suffix that is allowed.

    Returns:
        The arrays by name; one without a name is under ``''``.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it holds something else or cannot be read.
    """
    file = Path(path).expanduser()
    allowed = (only,) if only else _SUFFIXES
    if file.suffix not in allowed:
        raise ValueError(f"{path} must be a file of type {', '.join(allowed)}")
    if not file.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        arrays = _from_torch(file) if file.suffix in (".pt", ".pth") else _from_numpy(file)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file may fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is refused: it is damaged, or it holds more than arrays of numbers and could "
            f"run code when read ({reason})"
        ) from None
    if not arrays:
        raise ValueError(f"{path} holds no array")
    return arrays


def _from_numpy(file: Path) -> dict[str, np.ndarray]:
    if file.suffix == ".npy":
        return {_UNNAMED: np.load(file, allow_pickle=False)}
    # Opened here: NumPy leaves a file open that turns out to be no archive.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _from_torch(file: Path) -> dict[str, np.ndarray]:
    with only_globals(ARRAY_GLOBALS):
        content = torch.load(file, map_location="cpu", weights_only=True)
    named = content.items() if isinstance(content, dict) else [(_UNNAMED, content)]
    arrays = {}
    for name, value in named:
        if isinstance(value, torch.Tensor):
            value = value.detach()
            arrays[str(name)] = (value.double() if value.is_floating_point() else value).numpy()
        elif isinstance(value, (np.ndarray, list, tuple)):
            arrays[str(name)] = np.asarray(value)
    return arrays


def read_labels(
    path: str, key: str | None, clean_key: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read labels, and the clean labels where the file has them.

    Args:
        path: As of :func:`read_arrays`.
        key: The array of the labels; None where there is one only.
        clean_key: The array of the clean labels; None for ``'clean_label'``, if it is there.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it has no such array, or several and no key is given.
    """
    arrays = read_arrays(path)
    for name in (key, clean_key):
        if name is not None and name not in arrays:
            if list(arrays) == [_UNNAMED]:
                raise ValueError(f"{path} holds one array without a name; leave out {name!r}")
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(arrays)}")
    if clean_key is None and _CLEAN in arrays and key != _CLEAN:
        clean_key = _CLEAN
    if key is None:
        names = [name for name in arrays if name != clean_key]
        if len(names) != 1:
            raise ValueError(f"{path} holds {', '.join(arrays)}; say which with key=")
        key = names[0]
    return arrays[key], None if clean_key is None else arrays[clean_key]
