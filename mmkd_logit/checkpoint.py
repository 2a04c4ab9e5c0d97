"""Reading checkpoints of anybody without running what is in them, and writing such ones."""

import copy
import functools
import hashlib
import http.client
import os
import re
import sys
import tarfile
import zipfile
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from enum import Enum
from pathlib import Path, PurePath
from pickle import UnpicklingError
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mm
import numpy as np
import torch
import yaml
from mmengine.config import ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import PickleHandler, YamlHandler, register_handler
from mmengine.logging.history_buffer import HistoryBuffer
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mmkd_logit.utils.arguments import did_you_mean, first_line
from mmkd_logit.utils.files import why_damaged

# What a checkpoint may name besides tensors and plain containers.
#
# MMEngine's training checkpoints hold ``HistoryBuffer`` objects. Their pickles call
# ``builtins.getattr``, which leads to any code, and numpy's array builders, which are harmful in
# general: a dtype whose state is set from a file can pass bytes for objects. Under these names a
# checkpoint meets stand-ins that do the harmless part.

_NUMBERS = "?bBhHiIlLqQefdFD"
_STATISTICS = ("min", "max", "current", "mean")


def _number_type(code: Any, *_: Any) -> np.dtype:
    """Return numpy's own dtype object, which ``__setstate__`` leaves as it is, byte order too."""
    found = np.dtype(code) if type(code) is str else None
    if found is None or not found.isnative or found.char not in _NUMBERS:
        raise UnpicklingError(f"numpy.dtype({code!r}) is not allowed in a checkpoint")
    return np.dtype(found.type)


def _history_statistic(owner: Any, name: Any) -> Callable:
    if owner is HistoryBuffer and type(name) is str and name in _STATISTICS:
        return vars(HistoryBuffer)[name]
    raise UnpicklingError(f"getattr({owner!r}, {name!r}) is not allowed in a checkpoint")


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
    HistoryBuffer,
    _stand_in("builtins.bytes", lambda: b""),  # of an empty array
    _stand_in("numpy.dtype", _number_type),
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
    users = torch.serialization.get_safe_globals()
    taken = {_name(entry) for entry in _ALLOWED}
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*(e for e in users if _name(e) not in taken), *_ALLOWED])
    statistics = HistoryBuffer._statistics_methods
    before = {name: vars(HistoryBuffer)[name] for name in _STATISTICS} | statistics
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(users)
        statistics.clear()  # a checkpoint may have set others, for the whole process
        statistics.update(before)


# What a checkpoint of ours may hold: what the above reads.

_READABLE = {type(None), bool, int, float, complex, str, bytes, bytearray, Tensor, nn.Parameter}
_READABLE |= {torch.Size, torch.dtype, torch.device, torch.layout, HistoryBuffer}
_CONTAINERS: Any = ((tuple, tuple), (Set, set), (Sequence, list), (deque, list))
_FUNCTIONS = (FunctionType, MethodType, BuiltinFunctionType, type)
# Objects get these back as their attributes, where another container may behave differently.
_ATTRIBUTES = ("param_schedulers", "optimizer")


def make_plain(checkpoint: dict[str, Any]) -> None:
    """Replace what a checkpoint holds by what :func:`load_from_file` reads, or raise ValueError."""
    for key, value in checkpoint.items():
        checkpoint[key] = _plain(value, key)


def _plain(value: Any, path: str) -> Any:
    """Return a value itself if it can be read, or one that can."""
    if type(value) in _READABLE:
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain_array(value, path)
    if isinstance(value, Enum):
        return _plain(value.value, path)
    if isinstance(value, PurePath):
        return str(value)
    base: Any
    for base in (str, int, float, complex, bytes):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, path)
    for base, kind in _CONTAINERS:
        if isinstance(value, base) and (type(value) is kind or not path.startswith(_ATTRIBUTES)):
            return kind(_plain(item, f"{path}[{n}]") for n, item in enumerate(value))
    _refuse(value, path)


def _plain_array(value: Any, path: str) -> Any:
    if value.dtype.char in _NUMBERS and type(value) in (np.ndarray, np.memmap):
        readable = type(value) is np.ndarray and value.dtype.isnative
        return value if readable else np.array(value, value.dtype.newbyteorder("="))
    if value.dtype.char in _NUMBERS and isinstance(value, np.generic):
        return value
    if value.dtype.kind not in "SUO":
        _refuse(value, path)
    return _plain(value.tolist(), path)


def _plain_mapping(value: Mapping, path: str) -> Any:
    known = type(value) in (dict, OrderedDict, Counter)
    if not known and path.startswith(_ATTRIBUTES) and not isinstance(value, ConfigDict):
        _refuse(value, path)
    entries = {}
    for key, item in value.items():
        # A scheduler has its functions, such as OneCycleLR's anneal_func, when it is built.
        if not (path.startswith("param_schedulers") and isinstance(item, _FUNCTIONS)):
            named = isinstance(key, str) and key.isidentifier()
            place = f"{path}.{key}" if named else f"{path}[{key!r}]"
            entries[_plain(key, place)] = _plain(item, place)
    result: Any = copy.copy(value) if known else {}  # with a state_dict's versions of modules
    result.clear()
    result.update(entries)
    return result


def _refuse(value: Any, path: str) -> NoReturn:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise ValueError(
        f"{path} would be a {kind} in checkpoints, which cannot be read back without running code; "
        "where it is set, make it numbers, text, lists, dicts, tensors or arrays of numbers, or "
        "leave it out of the state"
    )


# Reading checkpoints through MMEngine.
#
# MMEngine allows ``getattr``, or falls back to the unsafe reader, and when it resumes it executes
# the text ``meta['config']`` of the checkpoint.

FORCE, FORBID = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


class CheckpointError(ValueError):
    """A checkpoint cannot be read."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint asks for more than tensors and plain containers."""


@contextmanager
def _weights_only_forced() -> Iterator[None]:
    """Make every ``torch.load`` below us, whatever calls it, read safely."""
    variables = {name: os.environ.pop(name, None) for name in (FORCE, FORBID)}
    os.environ[FORCE] = "1"
    ours = dict(
        get_torch_safe_globals=list,  # theirs allows getattr
        _safe_torch_load=functools.partial(torch.load, weights_only=True),
        load_from_http=load_from_url,
    )
    theirs = {name: getattr(mm, name) for name in ours if hasattr(mm, name)}
    for name in theirs:
        setattr(mm, name, ours[name])
    try:
        with only_safe_globals():
            yield
    finally:
        for name, function in theirs.items():
            setattr(mm, name, function)
        del os.environ[FORCE]
        os.environ.update({name: value for name, value in variables.items() if value is not None})


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
    except (CheckpointError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle may fail in any way
        scheme, known, name = filename.partition("://")
        if known and isinstance(error, KeyError) and error.args == (name,):
            raise CheckpointError(
                f"{filename} is not a published checkpoint: {scheme} has no {name!r}"
            ) from None
        raise CheckpointError(
            f"{filename} cannot be read as a checkpoint ({first_line(error)}); "
            "it may be cut short or another kind of file"
        ) from None


def _as_mmengines(checkpoint: Any, filename: str) -> Any:
    """Show MMEngine the weights, and nothing that it would execute or delete when resuming."""
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{filename} holds a {type(checkpoint).__name__} and no weights; a checkpoint is a "
            "dict with a state_dict, or a state_dict"
        )
    state = find_state_dict(checkpoint)
    if state and state is not checkpoint:
        checkpoint["state_dict"] = state
    if isinstance(checkpoint.get("meta"), dict):
        checkpoint["meta"].pop("config", None)  # MMEngine itself writes ``cfg``
    hub = checkpoint.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, dict) else None
    for key, value in info.items() if isinstance(info, dict) else ():
        if _deletes_other_files(key, value):
            raise UnsafeCheckpointError(
                f"{filename} is refused: resuming from it would delete files that are no "
                f"checkpoints ({key} = {value!r})"
            )
    return checkpoint


def _deletes_other_files(key: Any, value: Any) -> bool:
    """Whether resuming with this entry deletes what MMEngine has not saved, or a folder."""
    if key == "keep_ckpt_ids":
        return not isinstance(value, list) or not all(type(item) is int for item in value)
    if str(key).startswith("best_ckpt") and value is not None:
        path = Path(value) if type(value) is str else Path()
        is_best = path.name.startswith("best_") and path.suffix == ".pth"
        return not is_best or path.is_dir()
    return False


def _safely(loader: Callable) -> Callable:
    """Make a loader read safely, whether it is MMEngine's, ours or a plugin's."""

    @functools.wraps(loader)
    def load(filename: str, map_location: Any = None, **options: Any) -> Any:
        with _clear_errors(filename), _weights_only_forced():
            checkpoint = loader(filename, map_location, **options)
        return _as_mmengines(checkpoint, filename)

    load.reads_safely = True  # type: ignore[attr-defined]
    return load


def existing(filename: str) -> Path:
    """Return the path of a local checkpoint."""
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint {filename} does not exist")
    return path


@functools.lru_cache
def _why_damaged(path: Path, modified: int, size: int) -> str | None:
    """Look at all bytes of a file once, until it changes."""
    return why_damaged(path)


@_safely
def load_from_file(filename: str, map_location: Any = None, mmap: bool = False) -> Any:
    """Read a local checkpoint; with ``mmap``, only the tensors that are looked at."""
    path = existing(filename)
    with path.open("rb") as file:
        if file.read(64).lstrip().lower().startswith((b"<!doctype", b"<html")):
            raise ValueError("it is a web page: the address moved, or asks for a login")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path, map_location if isinstance(map_location, str) else "cpu")
    status = path.stat()
    why = _why_damaged(path, status.st_mtime_ns, status.st_size)
    if why is not None:
        raise ValueError(why)
    _refuse_big_endian(path)
    mmap = mmap and zipfile.is_zipfile(path)  # older versions of torch wrote no zip files
    return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


# The state of a numpy.dtype for big-endian numbers, which the one that we allow does not take:
# ('>', None, None, None, -1, -1), where the text may stand earlier in the pickle.
_BIG_ENDIAN = re.compile(
    rb"X\x01\0\0\0>(?:q(.)(?:.*h\1)?|r(.{4})(?:.*j\2)?)NNN(?:J\xff{4}){2}", re.DOTALL
)


def _refuse_big_endian(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        pickles = [path.read_bytes()]
    else:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            pickles = [archive.read(name) for name in names]
    if any(_BIG_ENDIAN.search(pickle) for pickle in pickles):
        raise ValueError("it holds big-endian arrays; save them as array.astype(array.dtype.type)")


def read_lazily(filename: str) -> Any:
    """Read a local checkpoint, but keep of its tensors only those that are looked at."""
    return load_from_file(filename, "cpu", mmap=True)


@_safely
def load_from_url(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint to torch's cache, or take it from there, and read it.

    A file whose name holds its hash is compared with it. The first process downloads; on other
    machines, the others do.
    """
    name = urlparse(filename).path.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise CheckpointError(f"{filename} names no file to download")
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    new = not path.is_file()
    if new and is_main_process():
        _download(filename, path)
    barrier()
    if not path.is_file():
        _download(filename, path)
    try:
        return load_from_file(str(path), map_location)
    except CheckpointError as error:
        if new and is_main_process():
            path.unlink(missing_ok=True)
        advice = "the download is not kept" if new else f"it was kept as {path}; delete it"
        text = str(error).replace(str(path), filename)
        raise type(error)(f"{text} ({advice})") from None


def _download(url: str, path: Path) -> None:
    # As PyTorch, torchvision and OpenMMLab name files: resnet50-0676ba61.pth.
    sha256 = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(
            url, str(path), sha256 and sha256[1], progress=sys.stderr.isatty()
        )
    except RuntimeError as error:  # the hash is another; torch has removed its partial file
        raise CheckpointError(
            f"{url} is refused: it is not the file that its name says ({error}), so it was damaged "
            "on its way or exchanged. If you trust it, download it yourself and name the file"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise OSError(f"{url} cannot be downloaded: {error}") from None


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
    ours = {mm.load_from_local: load_from_file, mm.load_from_http: load_from_url}
    for prefix, loader in list(mm.CheckpointLoader._schemes.items()):
        if not hasattr(loader, "reads_safely"):
            replacement = ours.get(loader) or _safely(loader)
            mm.CheckpointLoader.register_scheme(prefix, replacement, force=True)
    mm._load_checkpoint_to_model = _load_by_name


_load_to_model = mm._load_checkpoint_to_model


@functools.wraps(_load_to_model)
def _load_by_name(model: nn.Module, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
    """Load the weights of an ``init_cfg`` under the names of the network."""
    state = weights_for(model, checkpoint)
    _load_to_model(model, dict(state_dict=state) if state else checkpoint, *args, **kwargs)
    return checkpoint


# What a command line changes in its process before it reads a file that may be anybody's.
#
# MMEngine reads ``.pkl`` with pickle and ``.yaml`` with a loader that calls any function, an
# environment variable makes torch's reader of checkpoints careless, and Python's tarfile writes
# wherever an archive says.


# In Python it takes seconds a config, as MMEngine reads 85 files of mmpretrain's for each.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_Loader):
    """Reads what ``yaml.safe_load`` reads, and the tuples that MMEngine writes."""


_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node)),
)


class _PlainYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        try:
            return super().load_from_fileobj(file, Loader=_PlainLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"YAML is refused: {' '.join(str(error).split())}") from None


class _NoPickle(PickleHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        raise ValueError(
            "a pickle (.pkl) is refused, since it could run code when read; write what it holds "
            "as JSON and name that file"
        )


def install_safe_reading() -> None:
    """Let this process, and those that it starts, run nothing that lies in a data file.

    Checkpoints are read by :func:`install_safe_checkpoint_loading`, and any other ``torch.load``
    that does not say otherwise takes tensors and plain containers alone, whatever
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` says. What MMEngine reads by a file's ending, such as
    annotations of a data set, is JSON or plain YAML; a pickle is refused, though still written.
    No member of an archive is unpacked outside the folder that it is unpacked to, on Python
    3.10.12, 3.11.4, 3.12 and later.

    Our command lines call it before they read anything. A config is a program all the same,
    whatever its ending: it names the functions to call.

    Example:
        >>> from mmkd_logit.engine import install_safe_reading
        >>> install_safe_reading()
    """
    install_safe_checkpoint_loading()
    os.environ.pop(FORBID, None)
    register_handler(["yaml", "yml"])(_PlainYaml)
    register_handler(["pkl", "pickle"])(_NoPickle)
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)


# Weights by name: those of any code's checkpoints, under the names of a network.

_HOLDERS = ("state_dict", "model", "model_state_dict", "net", "weights", "state_dict_ema")
_WRAPPER = re.compile(r"(module|_orig_mod|model|net|student)\.")

ADAPTERS = "feature_adapters"  # the trained adapters of a distiller, as its child
_BESIDE = (f"{ADAPTERS}.", "n_averaged")  # the latter is a counter of torch's AveragedModel


def find_state_dict(checkpoint: Any) -> Mapping[str, Any]:
    """Return the weights in a checkpoint of any code, under its names; empty if it has none."""
    state: Mapping[str, Any] = {}
    inner = checkpoint
    while isinstance(inner, Mapping):
        state = inner
        inner = next((state[key] for key in _HOLDERS if isinstance(state.get(key), Mapping)), None)
    return state if any(isinstance(value, Tensor) for value in state.values()) else {}


def weights_for(network: nn.Module, checkpoint: Any) -> Mapping[str, Any]:
    """Return the weights in a checkpoint of any code under the names of a network.

    The prefixes of wrappers (``module._orig_mod.``) are taken off until a name is the network's,
    and torchvision's names of a ResNet become mmpretrain's. Names that do not fit then stay.
    """
    state, own, prefix = find_state_dict(checkpoint), network.state_dict(), ""
    beside = tuple(each for each in _BESIDE if not any(key.startswith(each) for key in own))
    # Character by character, and no name begins with a half of a wrapper's.
    common = os.path.commonprefix([k for k in state if not k.startswith(beside)])  # noqa: RUF071
    while not any(prefix + name in state for name in own):
        wrapper = _WRAPPER.match(common, len(prefix))
        if wrapper is None:
            break
        prefix += wrapper[0]
    names = {key: key.removeprefix(prefix) for key in state}
    names = {key: name for key, name in names.items() if not name.startswith(beside)}
    if _is_torchvisions(names.values(), own):
        for key, name in names.items():
            names[key] = f"head.{name}" if name.startswith("fc.") else f"backbone.{name}"
    if not own.keys() & set(names.values()):
        names = {key: key for key in names}
    if names == {key: key for key in state}:
        return state
    named: Any = OrderedDict((name, state[key]) for key, name in names.items())
    versions = getattr(state, "_metadata", {})  # of modules
    named._metadata = OrderedDict((k.removeprefix(prefix), v) for k, v in versions.items())
    return named


# Every parameter and buffer of torchvision's ResNet, ResNeXt and Wide ResNet.
_RESNET = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])|fc)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


def _is_torchvisions(names: Collection[str], own: Collection[str]) -> bool:
    """Whether all names are those of torchvision's ResNets, and a network has mmpretrain's.

    The blocks have the same names in both; around them, ``conv1`` is ``backbone.conv1`` and ``fc``
    is ``head.fc``.
    """
    ends = {"conv1.weight", "fc.weight", "fc.bias"} <= set(names)
    wanted = {"backbone.conv1.weight", "head.fc.weight"} <= set(own)
    return ends and wanted and all(map(_RESNET.fullmatch, names))


def load_exactly(
    network: nn.Module,
    checkpoint: Any,
    source: str,
    who: str = "the network of this config",
    advice: str = "Name the config that the checkpoint was trained by.",
) -> Mapping[str, Any]:
    """Load all weights of a checkpoint, or raise ValueError; return them by the network's names.

    BatchNorm's counters may be missing.
    """
    state, own = weights_for(network, checkpoint), network.state_dict()
    if not state:
        keys = ", ".join(map(repr, checkpoint)) if isinstance(checkpoint, Mapping) else "none"
        raise ValueError(
            f"{source} holds no state_dict for {who}; its keys: {keys[:200]}. {advice}"
        )
    sizes, problems = [], []
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, AttributeError, TypeError) as error:  # sizes differ, or no tensors
        missing = [key for key in own if key not in state]
        unexpected = [key for key in state if key not in own]
        pairs = {key: (_size(state[key]), _size(own[key])) for key in own if key in state}
        sizes = [f"{key}: {one}, not {two}" for key, (one, two) in pairs.items() if one != two]
        problems = [] if sizes else [first_line(error)[:200]]
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    named = {"missing keys": missing, "unexpected keys": unexpected, "size mismatch": sizes}
    for what, found in named.items():
        if found:
            more = ", ..." if len(found) > 1 else ""
            problems.append(f"{what} ({len(found)} of {len(own)}) {found[0][:80]!r}{more}")
    if unexpected:
        problems.append(_explain(state, own, missing, unexpected))
    if problems:
        problems = [problem for problem in problems if problem]
        raise ValueError(f"{source} does not fit {who}: {'; '.join(problems)}. {advice}")
    return state


def _explain(state: Mapping, own: Mapping, missing: list[str], unexpected: list[str]) -> str:
    """Say of what network the names may be."""
    prefix = os.path.commonprefix([*state]).rpartition(".")[0]  # noqa: RUF071
    if prefix and len(state) > 1:
        return f"all its keys begin with '{prefix[:80]}.'"
    if {key.partition(".")[0] for key in state} == {"features", "classifier"}:
        return (
            "they are torchvision's names of a network other than a ResNet; take mmpretrain's "
            "weights: name the model, such as 'mobilenet-v2_8xb32_in1k'"
        )
    for part in {key.partition(".")[0] for key in own}:
        if all(f"{part}.{key}" in own for key in state):
            return f"they are the weights of its {part} alone"
    nearest = did_you_mean(missing[0], unexpected)[:120] if missing else ""
    return f"for {missing[0][:80]!r}{nearest}" if nearest else ""


def _size(value: Any) -> Any:
    known = isinstance(value, Tensor) and not is_lazy(value)
    return tuple(value.shape) if known else type(value).__name__


def state_hash(state: Mapping[str, Any]) -> str:
    """Hash tensors by their names."""
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
