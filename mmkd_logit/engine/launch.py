"""Processes of a run: with or without GPUs, by torchrun, slurm or MPI.

``python -m mmkd_logit.engine.launch`` is torchrun with shorter errors, see :func:`main`.
"""

import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.logging import MMLogger
from mmengine.utils.dl_utils import set_multi_processing
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from mmkd_logit.checkpoint import install_safe_reading

from .cli import TrainingStarted, one_line_errors

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LAUNCHER = "MMKD_LOGIT_LAUNCHER"  # the number of the process that started those of a run
_SAVED = (128 + signal.SIGTERM, os.EX_TEMPFAIL)  # exit status of processes that a signal stopped
T = TypeVar("T")


def silence_known_warnings() -> None:
    """Hide the warning that mmcv without compiled operators prints; we use none of them."""
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Make a config run under a launcher, over gloo where there is no GPU.

    MMEngine's own start-up calls CUDA, so without one the process group is made here, before
    the Runner, and its model wrapper is told to use no device.
    """
    cfg.launcher = launcher
    if cfg.get("model_wrapper_cfg") and "find_unused_parameters" in cfg:  # MMEngine would ignore it
        cfg.model_wrapper_cfg.setdefault("find_unused_parameters", cfg.find_unused_parameters)
    if get_device() == "cpu":
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if cfg.get(name):
                cfg[name]["pin_memory"] = False  # pinning needs a GPU and warns without
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if launcher == "pytorch" and missing:
        raise ValueError(
            f"launcher 'pytorch' needs {', '.join(missing)} in the environment; "
            "start with tools/dist_train.sh CONFIG GPUS or torchrun"
        )
    if launcher == "pytorch":
        _end_with_launcher()
    if launcher == "none" or torch.cuda.is_available():
        if cfg.get("env_cfg") and launcher != "none":  # the others wait while one writes logits
            cfg.env_cfg["dist_cfg"] = dict(timeout=1800) | (cfg.env_cfg.get("dist_cfg") or {})
        return
    if launcher != "pytorch":
        raise ValueError(
            f"launcher {launcher!r} needs GPUs; without one use tools/dist_train.sh (gloo)"
        )
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    wrapper = cfg.get("model_wrapper_cfg") or dict(
        type="MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )
    wrapper["device_ids"] = None
    cfg.model_wrapper_cfg = wrapper


def start_processes(cfg: Config) -> None:
    """Join the processes on GPUs before the Runner does, to decide together what is to be done."""
    if cfg.launcher != "none" and not is_distributed():
        env_cfg = cfg.get("env_cfg") or {}
        set_multi_processing(**env_cfg.get("mp_cfg", {}), distributed=True)
        init_dist(cfg.launcher, **env_cfg.get("dist_cfg", {}))


def from_first_process(look: Callable[[], T]) -> T:
    """Return what the first process finds, or raise its error, in all processes.

    Another process could look at a file later, or through another mount.
    """
    found: list[Any] = [None, None]
    if is_main_process():
        try:
            found = [look(), None]
        except (ValueError, OSError) as error:
            found = [None, error if isinstance(error, ValueError) else OSError(str(error))]
    broadcast_object_list(found)
    if found[1] is not None:
        raise found[1]
    return found[0]


# The end of a run.


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the process that started this one ends (Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end_with_launcher() -> None:
    """Train no longer than torchrun lives, even if it was killed by SIGKILL."""
    end_with_parent()
    launcher = os.environ.pop(_LAUNCHER, None)
    if launcher is not None and os.getppid() != int(launcher):
        try:
            os.kill(int(launcher), 0)  # a shell may stand between
        except ProcessLookupError:  # it ended while this process imported
            signal.raise_signal(signal.SIGTERM)


def keep_freed_memory() -> None:
    """Let glibc use freed memory again, where no GPU is used; ``MMKD_LOGIT_MALLOPT=0`` does not.

    By default it maps each block above 32 MiB anew, such as an activation of 128 images at every
    step, and the kernel clears the pages. No result changes.
    """
    if os.environ.get("MMKD_LOGIT_MALLOPT") == "0" or torch.cuda.is_available():
        return
    with suppress(OSError, AttributeError):  # another system, or another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: free memory at the heap's end stays


@contextmanager
def running_tool(started: TrainingStarted | None = None) -> Iterator[None]:
    """Run a command line: errors are one line, files are read safely, no process group is left.

    Threads of gloo that an exiting interpreter finds may abort it, also at the end that a signal
    asked for. After an error the group stays: other processes may wait in it.
    """
    with one_line_errors(started):
        silence_known_warnings()
        with redirect_stdout(sys.stderr):  # standard output is for tables and a run's log
            MMLogger.get_current_instance()  # that MMEngine says with what it reads of a config
        install_safe_reading()
        keep_freed_memory()
        if not gc.get_freeze_count():
            gc.freeze()  # what was imported stays: no need to look through it for garbage
        try:
            yield
        except SystemExit:
            _leave()
            raise
        _leave()


def _leave() -> None:
    if dist.is_initialized():
        gc.collect()  # DDP also holds the group
        dist.destroy_process_group()


# torchrun.


def _pass_on(number: int, frame: Any) -> None:
    raise SignalException(f"signal {number}", signal.Signals(number))


def main(argv: Sequence[str] | None = None) -> None:
    """Start processes as torchrun does, and leave messages and exit statuses to them.

    Below the one line in which a process says what is wrong, torchrun prints a page of traceback
    of its own. Here it only passes the failure on. A signal by which a scheduler wants the machine
    back, also SIGUSR1, is passed on to the processes: see ``mmkd_logit.PreemptionHook``.
    """
    # One thread a process is also torchrun's default, but it warns when it sets it itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[_LAUNCHER] = str(os.getpid())
    before = signal.signal(signal.SIGUSR1, _pass_on)  # torchrun does so with four others
    try:
        torchrun(list(sys.argv[1:] if argv is None else argv))
    except SignalException as error:
        again = error.sigval == signal.SIGUSR1
        raise SystemExit(os.EX_TEMPFAIL if again else 128 + error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode in _SAVED:
            raise SystemExit(failure.exitcode) from None
        print(f"process {rank} failed with exit status {failure.exitcode}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGUSR1, before)
        del os.environ[_LAUNCHER]


if __name__ == "__main__":
    main()
