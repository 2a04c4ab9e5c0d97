"""Building and reading the data set that another wraps, with words for what goes wrong."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset
from mmpretrain.datasets import CIFAR10
from mmpretrain.registry import DATASETS

from mmkd_logit._arguments import did_you_mean
from mmkd_logit.registry import DATASETS as OURS


def build_dataset(spec: dict, wrapper: str) -> Any:
    """Build a data set from its config.

    Args:
        spec: The config.
        wrapper: What wraps it, for messages.

    Raises:
        ValueError: If it has no type, or one that is not registered.
    """
    kind = spec.get("type")
    if not kind:
        raise ValueError(
            f"{wrapper} wraps a data set such as dict(type='CIFAR100', data_root=...), got {spec!r}"
        )
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            try:
                found = registry.get(kind)
            except Exception:  # MMEngine raises what it likes
                found = None
            known = [*registry.module_dict, *(f"mmkd_logit.{name}" for name in OURS.module_dict)]
        if found is None:
            hint = did_you_mean(kind, known) or "; check its spelling and scope"
            raise ValueError(f"{wrapper}: no data set {kind!r} is registered{hint}")
    return DATASETS.build(spec)


@contextmanager
def reading(dataset: Any) -> Iterator[None]:
    """Say where the data should lie and what to do, if they cannot be read.

    Files of CIFAR that are there and damaged are not downloaded again, which would write over them.

    Args:
        dataset: Any; errors of those that read files of a ``data_root`` are explained.

    Raises:
        ValueError: Instead of an OSError, RuntimeError or AssertionError of such a data set.
    """
    download = getattr(dataset, "download", None)
    if isinstance(dataset, CIFAR10) and any(path.is_file() for path, _ in _files(dataset)):
        dataset.download = False
    try:
        yield
    except (OSError, RuntimeError, AssertionError) as error:
        root = getattr(dataset, "data_root", None)
        if not isinstance(dataset, BaseDataset) or not root:
            raise
        raise ValueError(_explain(dataset, root, error)) from error
    finally:
        if download is not None:
            dataset.download = download


def _files(dataset: CIFAR10) -> list[tuple[Path, str]]:
    folder = Path(str(dataset.data_prefix["root"]), dataset.base_folder)
    return [(folder / name, md5) for name, md5 in (*dataset.train_list, *dataset.test_list)]


def _explain(dataset: Any, root: str, error: Exception) -> str:
    name = type(dataset).__name__
    advice = (
        "put the files there, or say where they are with --cfg-options data_root=FOLDER (our "
        "configs also look at CIFAR100_ROOT and IMAGENET_ROOT)"
    )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if not isinstance(dataset, CIFAR10):
        return f"the data of {name} cannot be read from {root!r} ({reason}); {advice}"
    missing = [str(path) for path, _ in _files(dataset) if not path.is_file()]
    damaged = [str(path) for path, md5 in _files(dataset) if path.is_file() and not _has(path, md5)]
    if damaged:
        return (
            f"{', '.join(damaged)} of {name} {'are' if len(damaged) > 1 else 'is'} damaged: cut "
            "short or another file, as the MD5 is not the published one. Remove the folder "
            f"{str(Path(root, dataset.base_folder))!r} to have it downloaded again, or unpack "
            f"{dataset.url} there"
        )
    if missing:
        return (
            f"{', '.join(missing)} of {name} {'are' if len(missing) > 1 else 'is'} missing and "
            f"cannot be downloaded ({reason}). Unpack {dataset.url} in {root!r}, or {advice}"
        )
    return f"the data of {name} cannot be read from {root!r} ({reason}); {advice}"


def _has(path: Path, md5: str) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == md5
