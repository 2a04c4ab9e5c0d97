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
from .config_hash import config_hash, without_exact_caches
from .teachers import teacher_specs

ORIGIN = "origin.json"
_TASKS = dict(slurm="SLURM_NTASKS", mpi="OMPI_COMM_WORLD_SIZE")
_PACKAGES = ("torch", "torchvision", "numpy")
_STACK = ("mmengine", "mmcv", "mmpretrain")


def origin_of(cfg: Config) -> dict[str, Any]:
    """Return what decides a run's weights: config, seed, teachers, label files, processes.

    Args:
        cfg: A complete config, without ``resume``.
    """
    return dict(
        config_hash=config_hash(cfg),
        seed=seed_of(cfg),
        teachers=teacher_hashes(cfg),
        files=_data_files((cfg.get("train_dataloader") or {}).get("dataset")),
        processes=_processes(cfg),
    )


def _processes(cfg: Config) -> int:
    """Return how many processes train, also before slurm's or MPI's have found each other."""
    names = ("WORLD_SIZE", _TASKS.get(cfg.get("launcher"), ""))
    return next((int(os.environ[name]) for name in names if name in os.environ), 1)


def _data_files(dataset: Any) -> dict[str, str]:
    """Hash the files that the wrappers of a data set name: labels, matrices, scores."""
    found: dict[str, str] = {}
    while isinstance(dataset, dict):
        for field in ("file", "matrix", "scores"):
            name = dataset.get(field)
            if isinstance(name, str):
                found[name] = file_hash(Path(name).expanduser()) or "missing"
        dataset = dataset.get("dataset")
    return found


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
        return json.loads(Path(work_dir, ORIGIN).read_text())
    except (OSError, ValueError):
        return None


def teacher_hashes(cfg: Config) -> list[str]:
    """Return the SHA-256 of each teacher's local checkpoint, or what stands for the teacher.

    Args:
        cfg: Any config; one without a teacher gives none.
    """
    hashes = []
    for spec in teacher_specs(cfg):
        checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
        file = Path(checkpoint).expanduser() if isinstance(checkpoint, str) else None
        known = file_hash(file) if file is not None else None
        hashes.append(known or str(checkpoint or without_exact_caches(spec)))
    return hashes


def file_hash(path: str | Path) -> str | None:
    """Return the SHA-256 of a file, or None where it does not exist.

    Args:
        path: The file.
    """
    if not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
