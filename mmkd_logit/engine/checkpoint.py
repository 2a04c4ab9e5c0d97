"""Reading checkpoints without running what is in them.

A checkpoint is a pickle, and a pickle can run any code. torch's ``weights_only=True`` reads
tensors and plain containers only; ``_checkpoint_globals`` says what we allow beyond them.
MMEngine instead allows ``getattr``, or falls back to the unsafe reader, and when it resumes it
executes the text ``meta['config']`` of the checkpoint.
"""

import functools
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import mmengine.runner.checkpoint as mm
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import get

from mmkd_logit._sealed_files import why_damaged

from ._checkpoint_globals import only_safe_globals
from .download import fetch

_REMOTE_FILES = (r"(\S+\:)?s3://", r"(\S+\:)?petrel://")
FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class UnsafeCheckpointError(ValueError):
    """A checkpoint asks for more than tensors and plain containers."""


@contextmanager
def _weights_only_forced() -> Iterator[None]:
    """Make every ``torch.load`` below us, whoever calls it, read safely."""
    before = {name: os.environ.pop(name, None) for name in (FORCE, FORBID)}
    os.environ[FORCE] = "1"
    theirs = getattr(mm, "get_torch_safe_globals", None)  # allows getattr
    if theirs is not None:
        mm.get_torch_safe_globals = list
    try:
        with only_safe_globals():
            yield
    finally:
        if theirs is not None:
            mm.get_torch_safe_globals = theirs
        del os.environ[FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextmanager
def _clear_errors(filename: str) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        lines = [line.strip() for line in str(error).splitlines()] or ["it is not a checkpoint"]
        telling = [line for line in lines if re.search("GLOBAL|Unsupported|not allowed", line)]
        raise UnsafeCheckpointError(
            f"{filename} is refused: it is damaged, or it holds more than weights and could run "
            f"code when read ({(telling or lines)[0]}). Ask its author for a file with the "
            "state_dict alone."
        ) from None
    except (UnsafeCheckpointError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{filename} cannot be read as a checkpoint ({reason}); "
            "it may be cut short or another kind of file"
        ) from None


def _without_orders(checkpoint: Any, filename: str) -> Any:
    """Take out what MMEngine would execute, and refuse what it would delete, when resuming."""
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{filename} holds a {type(checkpoint).__name__} and no weights; a checkpoint is a "
            "dict with a state_dict, or a state_dict"
        )
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)  # MMEngine itself writes ``cfg``
    for key, value in _runtime_info(checkpoint).items():
        numbers = isinstance(value, list) and all(type(item) is int for item in value)
        best = value is None or _is_best(value)
        if (key == "keep_ckpt_ids" and not numbers) or (
            str(key).startswith("best_ckpt") and not best
        ):
            raise UnsafeCheckpointError(
                f"{filename} is refused: resuming from it would delete files that are no "
                f"checkpoints ({key} = {value!r})"
            )
    return checkpoint


def _runtime_info(checkpoint: dict) -> dict:
    hub = checkpoint.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, dict) else None
    return info if isinstance(info, dict) else {}


def _is_best(value: Any) -> bool:
    """Whether it is what MMEngine calls a best checkpoint; it would also delete a folder."""
    path = Path(value) if type(value) is str else Path()
    return path.name.startswith("best_") and path.suffix == ".pth" and not path.is_dir()


def _safely(loader: Callable) -> Callable:
    """Make a loader of MMEngine's, of ours or of anybody's read safely."""

    @functools.wraps(loader)
    def load_from_wrapped(filename: str, map_location: Any = None) -> Any:
        with _clear_errors(filename), _weights_only_forced():
            checkpoint = loader(filename, map_location)
        return _without_orders(checkpoint, filename)

    load_from_wrapped.reads_safely = True  # type: ignore[attr-defined]
    return load_from_wrapped


def existing(filename: str) -> Path:
    """Return the path of a local checkpoint.

    Args:
        filename: As a user gives it.

    Raises:
        FileNotFoundError: If it does not exist.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {filename} does not exist")
    return path


def _undamaged(filename: str) -> Path:
    path = existing(filename)
    with path.open("rb") as file:
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise ValueError("it is a web page: the address moved, or asks for a login")
    why = why_damaged(path)
    if why is not None:
        raise ValueError(why)
    return path


@_safely
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
    path = _undamaged(filename)
    return torch.load(path, map_location=map_location, weights_only=True)


@_safely
def read_lazily(filename: str, map_location: Any = "cpu") -> Any:
    """Read a local checkpoint, but keep of its tensors only those that are looked at.

    Args:
        filename: Its path.
        map_location: As of :func:`torch.load`.

    Raises:
        FileNotFoundError: If it does not exist.
        UnsafeCheckpointError: If it could run code.
        ValueError: If it cannot be read.
    """
    path = _undamaged(filename)
    lazily = zipfile.is_zipfile(path)  # older versions of torch wrote no zip files
    return torch.load(path, map_location=map_location, weights_only=True, mmap=lazily)


def load_from_url(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint, or take it from torch's cache, and read it.

    Args:
        filename: Its URL.
        map_location: As of :func:`torch.load`.

    Raises:
        OSError: If it cannot be downloaded.
        UnsafeCheckpointError: If it could run code.
        ValueError: If it cannot be read, or is not the file that its name says; it is not kept
            then. Of a file that was in the cache before, the message says where.
    """
    path, new = fetch(filename)
    try:
        return load_from_file(str(path), map_location)
    except ValueError as error:
        if new and is_main_process():
            path.unlink(missing_ok=True)
        advice = "the download is not kept" if new else f"it was kept as {path}; delete it"
        text = str(error).replace(str(path), filename)
        raise type(error)(f"{text} ({advice})") from None


def load_from_zoo(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint by name: ``torchvision://``, ``open-mmlab://`` or ``mmcls://``.

    Args:
        filename: The name with its scheme.
        map_location: As of :func:`torch.load`.

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


@_safely
def load_from_store(filename: str, map_location: Any = None) -> Any:
    """Read a checkpoint from object storage through MMEngine's file backends.

    Args:
        filename: Its address.
        map_location: As of :func:`torch.load`.
    """
    content = get(filename, backend_args={"backend": "petrel"})
    return torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)


def install_safe_checkpoint_loading() -> None:
    """Make MMEngine read every checkpoint safely in this process.

    Replaces the loader of each of ``CheckpointLoader``'s prefixes, so ``--resume``,
    ``load_from``, ``init_cfg`` and teachers are covered. Our command lines call it; importing
    this package does not. To be called after the config's ``custom_imports``, which may bring
    loaders of their own; a second call does no harm.

    Example:
        >>> from mmkd_logit.engine import install_safe_checkpoint_loading
        >>> install_safe_checkpoint_loading()
    """
    ours = {"": load_from_file, "http://": load_from_url, "https://": load_from_url}
    ours |= dict.fromkeys(_REMOTE_FILES, load_from_store)
    for scheme in ("modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://", "mmcls://"):
        ours[scheme] = load_from_zoo
    for prefix, loader in list(mm.CheckpointLoader._schemes.items()):
        if loader in ours.values() or getattr(loader, "reads_safely", False):
            continue  # installed before
        known = prefix in ours and loader.__module__ == mm.__name__
        replacement = ours[prefix] if known else _safely(loader)
        mm.CheckpointLoader.register_scheme(prefix, replacement, force=True)
