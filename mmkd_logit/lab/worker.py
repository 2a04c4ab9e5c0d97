"""A tool's command line in a process of its own, or as a job of a cluster.

``python -m mmkd_logit.lab.worker train.py CONFIG ...`` runs ``tools/train.py`` from any folder.
"""

import importlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkd_logit.engine.fingerprint import should_resume
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.utils.cli import TOOLS
from mmkd_logit.utils.files import open_in_place

_ERRORS = (1, 2)  # any other exit status is that of a signal, after which a job may run again


def run_tool(tool: str, argv: Sequence[str], log: str | None = None) -> None:
    """Run a tool; this process ends with its exit status."""
    if log is not None:
        _send_output_to(log)
    sys.argv = [f"tools/{tool}", *argv]
    importlib.import_module(TOOLS[tool][0]).main(list(argv))


def run_forked(tool: str, argv: Sequence[str], log: str, environment: dict[str, str]) -> None:
    """Run a tool in a process that a server has forked."""
    import torch

    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run_tool(tool, argv, log)


def _end_with_parent() -> None:
    """Train no longer than ``tools/reproduce.py`` lives, even if it was killed by SIGKILL."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _send_output_to(log: str) -> None:
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = open_in_place(log, os.O_WRONLY | os.O_APPEND)
    for number, name in ((1, "stdout"), (2, "stderr")):
        getattr(sys, name).flush()
        os.dup2(file, number)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, errors="replace", closefd=False))
    os.close(file)


class Job:
    """A tool's command line as a job of submitit.

    A job whose time is over or whose machine is preempted saves, see
    ``mmkd_logit.PreemptionHook``, is queued again and resumes.
    """

    def __call__(self, tool: str, argv: Sequence[str], log: str) -> None:
        """Run the tool."""
        try:
            run_tool(tool, resumed(tool, argv), log)
        except SystemExit as end:
            if end.code in _ERRORS:
                raise RuntimeError(
                    f"tools/{tool} ended with status {end.code}; see {log}"
                ) from None
            if end.code:  # submitit takes it for no result of the job
                raise

    def checkpoint(self, *args: Any) -> Any:
        """Return what submitit queues again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, *args)


def resumed(tool: str, argv: Sequence[str]) -> list[str]:
    """Return the command line that resumes a run, if the run has begun."""
    if tool != "train.py" or "--resume" in argv:
        return list(argv)
    try:
        begun = should_resume(build_config(build_parser().parse_args(list(argv))))
    except (ValueError, OSError):  # the tool says so in its log
        begun = False
    return [argv[0], *["--resume", "auto"] * begun, *argv[1:]]


if __name__ == "__main__":
    run_tool(sys.argv[1], sys.argv[2:])
