"""What a run was made of: config, teachers, code, machine."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from mmkd_logit import __version__
from mmkd_logit._atomic_files import write_text

from .config import seed_of
from .fingerprint import (
    computed_content,
    fingerprint,
    fingerprint_of,
    row_fingerprint,
    teacher_hashes,
)

ORIGIN = "origin.json"
_PACKAGES = ("torch", "torchvision", "numpy")
_STACK = ("mmengine", "mmcv", "mmpretrain")


def origin_of(cfg: Config, processes: int | None = None) -> dict[str, Any]:
    """Return what decides a run's weights.

    Args:
        cfg: A complete config, without ``resume``.
        processes: How many processes train; by default as the environment says.

    Returns:
        ``computed``, the content of :func:`~mmkd_logit.engine.fingerprint.computed_content`, its
        ``fingerprint``, and apart from these the ``seed``, the hashes of the ``teachers`` and the
        number of ``processes``.
    """
    content = computed_content(cfg, processes)
    return dict(
        fingerprint=fingerprint(content),
        computed=content,
        seed=seed_of(cfg),
        teachers=teacher_hashes(cfg),
        processes=content["processes"],
    )


def write_origin(work_dir: str | Path, origin: dict[str, Any]) -> None:
    """Note in a work folder whose checkpoints it holds.

    Args:
        work_dir: The folder.
        origin: Of :func:`origin_of`.
    """
    write_text(Path(work_dir, ORIGIN), json.dumps(origin))


def read_origin(work_dir: str | Path) -> dict[str, Any] | None:
    """Return what :func:`write_origin` noted, or None.

    Args:
        work_dir: The folder.
    """
    try:
        origin = json.loads(Path(work_dir, ORIGIN).read_text())
    except (OSError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None


def is_origin(cfg: Config, processes: int | None = None) -> bool:
    """Return whether the checkpoints in a run's work folder are of this very run.

    Args:
        cfg: A complete config, without ``resume``.
        processes: How many processes train; by default as the environment says.
    """
    noted = read_origin(cfg.work_dir)
    return noted is not None and row_fingerprint(noted) == fingerprint_of(cfg, processes)


def dataset_hash(dataset: Any) -> str | None:
    """Identify the samples of a data set: pictures (or their files' names) and labels, in order.

    Args:
        dataset: With ``get_data_info``, as mmpretrain's; any other gives None.

    Returns:
        16 hexadecimal digits.
    """
    if not hasattr(dataset, "get_data_info"):
        return None
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = info.get("img")
        if image is not None:
            digest.update(np.ascontiguousarray(image).tobytes())
        else:  # the content of files is not read: they may be millions
            digest.update("/".join(Path(str(info.get("img_path"))).parts[-2:]).encode())
        digest.update(str(info.get("gt_label")).encode())
    return digest.hexdigest()[:16]


def describe_machine() -> dict[str, Any]:
    """Return device, versions, and the commit of the code."""
    device = f"CPU ({platform.machine()}, {os.cpu_count()} cores)"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    return dict(device=device, versions=_versions(), **_commit())


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "mmkd-logit": __version__}
    for name in _PACKAGES:
        versions[name] = version(name)
    for name in _STACK:
        for package in (f"onedl-{name}", name, f"{name}-lite"):
            try:
                versions[package] = version(package)
                break
            except PackageNotFoundError:
                continue
    return versions


def _commit() -> dict[str, Any]:
    """Return the commit of this checkout and whether files were changed; None when installed."""
    project = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=project, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != project:
            return dict(commit=None, dirty=None)  # somebody else's repository around us
        changed = git("status", "--porcelain", "--untracked-files=no")
        return dict(commit=git("rev-parse", "HEAD"), dirty=bool(changed))
    except (OSError, subprocess.CalledProcessError):
        return dict(commit=None, dirty=None)
