"""Places where runs are trained: processes of this machine, or jobs of a cluster."""

import ctypes
import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from mmkd_logit.engine.fingerprint import should_resume
from mmkd_logit.engine.group import main as train_together
from mmkd_logit.engine.logits import main as dump_logits
from mmkd_logit.engine.precompute import main as precompute
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.engine.train import main as train

_TOOLS = {
    "precompute.py": precompute,
    "train.py": train,
    "train_together.py": train_together,
    "dump_logits.py": dump_logits,
}


def train_in_process(
    words: Sequence[str], log: str, environment: dict[str, str], tool: str = "train.py"
) -> None:
    """Run a tool in this process, which ends with its exit status."""
    os.environ.update(environment)
    _send_output_to(log)
    _end_with_parent()
    if "OMP_NUM_THREADS" in environment:
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    _TOOLS[tool](words)


_ERRORS = (1, 2)  # other exit statuses are of jobs that a signal ended, and that may run again


class Job:
    """A run as a job of a cluster, for submitit.

    A job whose time is over or whose machine is wanted back saves, see
    ``mmkd_logit.PreemptionHook``, is put into the queue again and goes on.
    """

    def __init__(self, again: bool = False) -> None:
        self.again = again

    def __call__(self, words: Sequence[str], log: str, tool: str = "train.py") -> None:
        """Run a tool."""
        if self.again or int(os.environ.get("SLURM_RESTART_COUNT", "0")):
            words = resumed(words, tool)
        try:
            train_in_process(words, log, {}, tool)
        except SystemExit as end:
            if end.code in _ERRORS:
                text = f"tools/{tool} ended with status {end.code}; see {log}"
                raise RuntimeError(text) from None
            if end.code:  # submitit takes no result of it then
                raise

    def checkpoint(self, *args: Any) -> Any:
        """Return what submitit puts into the queue."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Job(again=True), *args)


def resumed(words: Sequence[str], tool: str) -> list[str]:
    """Return the command line that goes on with a run, if the run has begun."""
    if tool != "train.py" or "--resume" in words:
        return list(words)
    cfg = build_config(build_parser().parse_args(list(words)))
    begun = should_resume(cfg)
    return [words[0], *["--resume", "auto"] * begun, *words[1:]]


def _send_output_to(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for number, name in ((1, "stdout"), (2, "stderr")):
        setattr(sys, name, os.fdopen(number, "w", buffering=1, errors="replace", closefd=False))


def _end_with_parent() -> None:
    """Let nothing train on when ``tools/reproduce.py`` was killed, not even with kill -9."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


# Places where runs are trained: processes of this machine, or jobs of a cluster.


LOG = "train.log"


class Pool(Protocol):
    """Where runs are trained."""

    processes: int

    def has_room(self) -> bool:
        """Whether another run can start now."""

    def start(self, key: str, words: Sequence[str], tool: str = "train.py") -> None:
        """Train a run whose work folder is ``key`` by ``tools/TOOL WORDS``."""

    def finished(self) -> dict[str, bool]:
        """Which runs have ended since the last call, and whether well."""

    def stop(self) -> None:
        """End what is under way."""


def default_devices() -> list[str]:
    """Return the first GPU; without one, a CPU process a core, 8 at most."""
    if torch.cuda.is_available():
        return ["0"]
    return ["cpu"] * min(8, os.cpu_count() or 1)


class LocalPool:
    """One run on each device of this machine, each in a process of its own.

    On CPUs the processes are forked from a server that has imported everything, which saves the
    ten seconds that an import of mmpretrain takes, again and again. With GPUs each starts afresh:
    what is imported asks for GPUs, and CUDA does not survive a fork.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        for device in devices:
            if device != "cpu" and not all(part.isdigit() for part in device.split("+")):
                raise ValueError(f"--devices are numbers of GPUs or cpu, got {device!r}")
        sizes = {len(device.split("+")) for device in devices}
        if len(sizes) != 1:
            raise ValueError(f"--devices must give each run as many GPUs, got {list(devices)}")
        (self.processes,) = sizes
        self._free = list(devices)
        self._threads = max(1, (os.cpu_count() or 1) // len(devices))
        self._jobs: dict[str, tuple[str, Any]] = {}
        on_cpu = set(devices) == {"cpu"}
        self._context: Any = multiprocessing.get_context("forkserver" if on_cpu else "spawn")
        if on_cpu:
            self._context.set_forkserver_preload(["mmkd_logit.lab._preload"])

    def has_room(self) -> bool:
        """Whether another run can start now."""
        return bool(self._free)

    def start(self, key: str, words: Sequence[str], tool: str = "train.py") -> None:
        """Train a run."""
        device = self._free.pop(0)
        environment: dict[str, str] = {}
        if device == "cpu":
            threads = os.environ.get("OMP_NUM_THREADS", str(self._threads))
            environment.update(CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS=threads)
        else:
            environment["CUDA_VISIBLE_DEVICES"] = device.replace("+", ",")
        log = str(Path(key, LOG))
        if self.processes == 1:
            process: Any = self._context.Process(
                target=train_in_process,
                args=(list(words), log, environment, tool),
                name=key,
            )
            with _environment(environment):  # a server, or a process, sees it from its beginning
                process.start()
        else:
            process = _Torchrun(words, log, environment, self.processes, tool)
        self._jobs[key] = (device, process)

    def finished(self) -> dict[str, bool]:
        """Which runs have ended since the last call, and whether well."""
        ended = {}
        for key, (device, process) in list(self._jobs.items()):
            if not process.is_alive():
                process.join()
                ended[key] = process.exitcode == 0
                del self._jobs[key]
                self._free.append(device)
        return ended

    def stop(self) -> None:
        """End what is under way."""
        for _, process in self._jobs.values():
            process.terminate()
        for _, process in self._jobs.values():
            process.join()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _end_child_with_parent() -> None:
    """Have the kernel end this process when the one that started it ends (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class _Torchrun:
    """A run on several GPUs, looking like a ``multiprocessing.Process``."""

    def __init__(
        self, words: Sequence[str], log: str, environment: dict, size: int, tool: str
    ) -> None:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        torchrun = [sys.executable, "-m", "mmkd_logit.engine.torchrun", "--standalone"]
        command = [*torchrun, f"--nproc_per_node={size}", str(Path("tools", tool)), *words]
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                # Before --cfg-options, which takes every word behind it.
                [*command[:6], "--launcher", "pytorch", *command[6:]],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                preexec_fn=_end_child_with_parent,
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def join(self) -> None:
        self._process.wait()

    def terminate(self) -> None:
        self._process.terminate()

    @property
    def exitcode(self) -> int | None:
        return self._process.returncode


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
        # One that nobody has filled: results are handed around, and submitit reads pickles in it.
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

    def start(self, key: str, words: Sequence[str], tool: str = "train.py") -> None:
        """Queue a run."""
        log = str(Path(key, LOG).resolve())
        self._jobs[key] = self._executor.submit(Job(), list(words), log, tool)

    def finished(self) -> dict[str, bool]:
        """Which jobs have ended since the last call, and whether well."""
        ended = {}
        for key, job in list(self._jobs.items()):
            if job.done():
                ended[key] = job.exception() is None
                del self._jobs[key]
        return ended

    def stop(self) -> None:
        """Cancel what is queued or running."""
        for job in self._jobs.values():
            job.cancel()
