"""Reading checkpoints without running what is in them.

A checkpoint is a pickle, and a pickle can run any code. torch's ``weights_only=True`` reads
tensors and plain containers only, but MMEngine's training checkpoints also hold
``HistoryBuffer`` objects, whose pickles call ``builtins.getattr``; MMEngine therefore allows
``getattr`` itself, or falls back to the unsafe reader. Here ``getattr`` means a stand-in that
serves nothing but HistoryBuffer's own statistics.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import mmengine.runner.checkpoint as mm
import numpy as np
import torch
from mmengine.fileio import get
from mmengine.logging.history_buffer import HistoryBuffer

_STATISTICS = ("min", "max", "current", "mean")
_REMOTE_FILES = (r"(\S+\:)?s3://", r"(\S+\:)?petrel://")


class UnsafeCheckpointError(ValueError):
    """A checkpoint asks for more than tensors and plain containers."""


def _history_statistic(owner: Any, name: str) -> Callable:
    if owner is HistoryBuffer and name in _STATISTICS:
        return vars(HistoryBuffer)[name]
    raise UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed in a checkpoint")


# torch knows an allowed global by these names.
_history_statistic.__module__, _history_statistic.__qualname__ = "builtins", "getattr"
_history_statistic.__name__ = "getattr"


def _allowed_globals() -> list[Any]:
    core = np._core if hasattr(np, "_core") else np.core
    allowed: list[Any] = [_history_statistic, HistoryBuffer, np.ndarray, np.dtype]
    allowed += [core.multiarray._reconstruct, core.multiarray.scalar]
    # The dtypes of log histories and of scalars in a checkpoint's meta.
    allowed += {type(np.dtype(t)) for t in (bool, "i4", "i8", "u4", "u8", "f2", "f4", "f8")}
    return allowed


@contextmanager
def _weights_only_forced() -> Iterator[None]:
    """Make every ``torch.load`` below us, whoever calls it, read safely."""
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            yield
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before


@contextmanager
def _clear_errors(filename: str) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        reason = str(error).splitlines()[0] if str(error) else "it is not a checkpoint"
        for line in str(error).splitlines():
            if "GLOBAL" in line or "Unsupported" in line or "not allowed" in line:
                reason = line.strip()
                break
        raise UnsafeCheckpointError(
            f"{filename} is refused: it is damaged, or it holds more than weights and could run "
            f"code when read ({reason}). Ask its author for a file with the state_dict alone."
        ) from None
    except (EOFError, RuntimeError) as error:
        raise ValueError(
            f"{filename} cannot be read as a checkpoint ({str(error).splitlines()[0]}); "
            "it may be cut short or another kind of file"
        ) from None


def load_from_file(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint.

    Args:
        filename: Its path.
        map_location: As of :func:`torch.load`.

    Raises:
        FileNotFoundError: If it does not exist.
        UnsafeCheckpointError: If it could run code.
        ValueError: If it cannot be read.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {filename} does not exist")
    with _clear_errors(filename), _weights_only_forced():
        return torch.load(path, map_location=map_location, weights_only=True)


def load_from_url(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint, or take it from torch's cache, and read it."""
    with _clear_errors(filename), _weights_only_forced():
        return mm.load_from_http(filename, map_location=map_location)


def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint by name: ``torchvision://``, ``open-mmlab://`` or ``mmcls://``.

    Raises:
        ValueError: If there is no such name.
    """
    scheme, _, name = filename.partition("://")
    if scheme in ("modelzoo", "torchvision"):
        known = mm.get_torchvision_models()
    elif scheme == "mmcls":
        known = mm.get_mmcls_models()
    else:
        known = mm.get_external_models()
        name = mm.get_deprecated_model_names().get(name, name)
    if name not in known:
        raise ValueError(f"{filename} is not a published checkpoint: {scheme} has no {name!r}")
    target = known[name]
    if not target.startswith(("http://", "https://")):
        return load_from_file(str(Path(mm._get_mmengine_home(), target)), map_location)
    checkpoint = load_from_url(target, map_location)
    return mm._process_mmcls_checkpoint(checkpoint) if scheme == "mmcls" else checkpoint


def load_from_store(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint from object storage through MMEngine's file backends."""
    content = get(filename, backend_args={"backend": "petrel"})
    with _clear_errors(filename), _weights_only_forced():
        return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)


def _refuse(filename: str, map_location: Any = None) -> Any:
    raise ValueError(f"{filename}: this store is not supported; download the file and name it")


def _safely(loader: Callable) -> Callable:
    """Wrap a loader that we do not know."""

    def load_from_elsewhere(filename: str, map_location: Any = None) -> Any:
        with _clear_errors(filename), _weights_only_forced():
            return loader(filename, map_location)

    return load_from_elsewhere


def install_safe_checkpoint_loading() -> None:
    """Make MMEngine read every checkpoint safely in this process.

    Replaces the loader of each of ``CheckpointLoader``'s prefixes, so ``--resume``,
    ``load_from``, ``init_cfg`` and teachers are covered. Our command lines call it; importing
    this package does not.

    Example:
        >>> from mmkd_logit.engine import install_safe_checkpoint_loading
        >>> install_safe_checkpoint_loading()
    """
    ours = {"": load_from_file, "http://": load_from_url, "https://": load_from_url}
    ours |= dict.fromkeys(_REMOTE_FILES, load_from_store)
    for scheme in ("modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://", "mmcls://"):
        ours[scheme] = load_from_zoo
    ours["pavi://"] = _refuse  # MMEngine's loader for it allows getattr and cannot be told not to
    for prefix, loader in list(mm.CheckpointLoader._schemes.items()):
        if getattr(loader, "__module__", None) == __name__:
            continue  # installed before
        replacement = ours.get(prefix) or _safely(loader)
        mm.CheckpointLoader.register_scheme(prefix, replacement, force=True)
