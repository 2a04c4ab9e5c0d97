"""Where runs are trained: processes of this machine, or jobs of a cluster."""

import multiprocessing
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from mmkd_logit.engine.launch import end_with_parent
from mmkd_logit.utils.files import open_in_place

from .worker import Job, run_forked

LOG = "train.log"


def default_devices() -> list[str]:
    """Return the first GPU; without one, a CPU process a core, 8 at most."""
    if torch.cuda.is_available():
        return ["0"]
    return ["cpu"] * min(8, os.cpu_count() or 1)


class LocalPool:
    """One run at a time on each of the devices, each in a process of its own.

    On CPUs the processes are forked from a server that has imported everything, which saves the
    ten seconds that importing mmpretrain takes. On GPUs each is a new program: libraries ask for
    GPUs when they are imported, and CUDA does not survive a fork.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        for device in devices:
            if device != "cpu" and not all(part.isdigit() for part in device.split("+")):
                raise ValueError(f"--devices are numbers of GPUs or cpu, got {device!r}")
        self.gpus = {int(part) for each in devices if each != "cpu" for part in each.split("+")}
        sizes = {len(device.split("+")) for device in devices}
        if len(sizes) != 1:
            raise ValueError(f"--devices must give each run as many GPUs, got {list(devices)}")
        (self.processes,) = sizes
        self._free = list(devices)
        cores = max(1, (os.cpu_count() or 1) // len(devices))
        self.threads = int(os.environ.get("OMP_NUM_THREADS", cores))
        self._running: dict[str, tuple[str, Any]] = {}
        self._forkserver = multiprocessing.get_context("forkserver")
        self._forkserver.set_forkserver_preload(["mmkd_logit.lab._preload"])

    def has_room(self) -> bool:
        """Whether another run can start now."""
        return bool(self._free)

    def start(self, folder: str, argv: Sequence[str], tool: str) -> None:
        """Run ``tools/TOOL ARGV`` with its log in a folder, which also names it."""
        device = self._free.pop(0)
        log = Path(folder, LOG)
        start = self._start_forked if device == "cpu" else self._start_program
        self._running[folder] = (device, start(device, argv, tool, log))

    def _start_forked(self, device: str, argv: Sequence[str], tool: str, log: Path) -> Any:
        environment = dict(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS=str(self.threads))
        process = self._forkserver.Process(
            target=run_forked, args=(tool, list(argv), str(log), environment)
        )
        with patch.dict(os.environ, environment):  # of the server, which the first process starts
            process.start()
        return process

    def _start_program(self, device: str, argv: Sequence[str], tool: str, log: Path) -> Any:
        command = ["-m", "mmkd_logit.lab.worker", tool]
        if self.processes > 1:
            torchrun = ["-m", "mmkd_logit.engine.launch", "--standalone"]
            command = [*torchrun, f"--nproc_per_node={self.processes}", *command]
            argv = ["--launcher", "pytorch", *argv]  # behind --cfg-options it would be an override
        # Numbers are of the GPUs that this process sees.
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        gpus = [visible[int(part)] if visible else part for part in device.split("+")]
        log.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(open_in_place(log, os.O_WRONLY | os.O_APPEND), "ab") as file:
            return _Program(
                [sys.executable, *command, *argv],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
                preexec_fn=end_with_parent,
            )

    def finished(self) -> dict[str, bool]:
        """Return which runs have ended since the last call, and whether they succeeded."""
        ended = {}
        for folder, (device, process) in list(self._running.items()):
            if process.exitcode is not None:
                ended[folder] = process.exitcode == 0
                del self._running[folder]
                self._free.append(device)
        return ended

    def stop(self) -> None:
        """End the running processes."""
        for _, process in self._running.values():
            process.terminate()
        for _, process in self._running.values():
            process.join()


class _Program(subprocess.Popen):
    """A new program with the names of ``multiprocessing.Process``."""

    join = subprocess.Popen.wait

    @property
    def exitcode(self) -> int | None:
        return self.poll()


class ClusterPool:
    """Jobs of a cluster, through submitit."""

    processes = 1

    def __init__(
        self, cluster: str, folder: str | Path, at_once: int, settings: dict[str, Any]
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise ValueError('a cluster needs submitit: pip install -e ".[cluster]"') from None
        # A new folder: submitit reads pickles in it, and folders of results are handed around.
        own = Path(folder, f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}")
        self._executor = submitit.AutoExecutor(folder=own, cluster=cluster)
        try:
            self._executor.update_parameters(**settings)
        except (NameError, TypeError, ValueError) as error:
            raise ValueError(f"submitit refuses a --cluster-option: {error}") from None
        self._at_once = at_once
        self._jobs: dict[str, Any] = {}

    def has_room(self) -> bool:
        """Whether another job may be queued."""
        return len(self._jobs) < self._at_once

    def start(self, folder: str, argv: Sequence[str], tool: str) -> None:
        """Queue ``tools/TOOL ARGV`` with its log in a folder, which also names it."""
        log = str(Path(folder, LOG).resolve())
        self._jobs[folder] = self._executor.submit(Job(), tool, list(argv), log)

    def finished(self) -> dict[str, bool]:
        """Return which jobs have ended since the last call, and whether they succeeded."""
        ended = {f: job.exception() is None for f, job in self._jobs.items() if job.done()}
        for folder in ended:
            del self._jobs[folder]
        return ended

    def stop(self) -> None:
        """Cancel the jobs that are queued or running."""
        for job in self._jobs.values():
            job.cancel()
