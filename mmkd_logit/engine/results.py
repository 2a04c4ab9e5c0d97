"""One JSON line for each finished run."""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmkd_logit import __version__

from .config import config_hash, seed_of

_PACKAGES = ("torch", "torchvision", "numpy")
_STACK = ("mmengine", "mmcv", "mmpretrain")


class ResultsRecorder:
    """Tests the final weights of a run and appends its results to a file.

    A row says what was run (config, overrides, seed, command), with what (commit, versions,
    device, teachers' hashes), what came out (``test``: the metrics of the config's test data
    with the weights after the last epoch, nothing selected) and how long it took.

    Args:
        path: The file of JSON lines; None records nothing.
        cfg: The complete config, before training.
        argv: The command line.
    """

    def __init__(self, path: str | None, cfg: Config, argv: Sequence[str]) -> None:
        self.path = Path(path) if path is not None else None
        self.config_hash = config_hash(cfg)
        self.argv = list(argv)
        self.begin = time.time()

    def record(self, runner: Runner, args: argparse.Namespace) -> dict | None:
        """Test and append.

        Args:
            runner: After training.
            args: The parsed command line.

        Returns:
            The row, or None where nothing is recorded.
        """
        if self.path is None:
            return None
        seconds = time.time() - self.begin
        metrics = runner.test()
        if not is_main_process():
            return None
        row = dict(
            config=args.config,
            overrides={key: _plain(value) for key, value in sorted(args.cfg_options.items())},
            config_hash=self.config_hash,
            seed=seed_of(runner.cfg),
            epochs=runner.epoch,
            test={key: float(value) for key, value in metrics.items()},
            train_seconds=round(seconds, 1),
            command=["python", "tools/train.py", *self.argv],
            teachers=_teacher_hashes(runner.cfg.model),
            device=_device(),
            processes=int(os.environ.get("WORLD_SIZE", 1)),
            versions=_versions(),
            **_commit(),
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        append_line(self.path, row)
        return row


def append_line(path: Path, row: dict) -> None:
    """Append one JSON line, whole or not at all, also with other processes appending.

    Args:
        path: The file; its folder is made.
        row: What JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(row, sort_keys=True) + "\n").encode()
    with open(path, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_lines(path: Path) -> list[dict]:
    """Read the rows of a results file; none where it does not exist.

    Args:
        path: The file.

    Raises:
        ValueError: If a line is not JSON, naming it.
    """
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise ValueError(f"{path}:{number} is not a results line; remove it") from None
    return rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def _teacher_hashes(model: dict) -> list[str]:
    teachers = model.get("teacher") or []
    hashes = []
    for spec in teachers if isinstance(teachers, (list, tuple)) else [teachers]:
        checkpoint = spec.get("checkpoint") if isinstance(spec, dict) else None
        if checkpoint and Path(checkpoint).is_file():
            hashes.append(hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest())
        else:
            hashes.append(str(checkpoint or spec))
    return hashes


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores)"


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
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return dict(commit=None, dirty=None)
    return dict(commit=head.stdout.strip(), dirty=bool(dirty.stdout.strip()))
