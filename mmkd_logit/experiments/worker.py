"""What a process of ``tools/reproduce.py`` does: train one run."""

import fcntl
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmkd_logit.engine.cache import main as cache
from mmkd_logit.engine.dump import main as dump_logits
from mmkd_logit.engine.provenance import is_origin
from mmkd_logit.engine.score import main as score
from mmkd_logit.engine.together import main as train_together
from mmkd_logit.engine.train import main as train
from mmkd_logit.engine.train_config import build_config, build_parser

_TOOLS = {
    "cache.py": cache,
    "train.py": train,
    "train_together.py": train_together,
    "dump_logits.py": dump_logits,
}


def train_in_process(
    words: Sequence[str],
    scoring: Sequence[str],
    log: str,
    environment: dict[str, str],
    tool: str = "train.py",
) -> None:
    """Run a tool in this process, which ends with its exit status.

    Args:
        words: The command line without the program's name.
        scoring: That of ``tools/score_samples.py``, run before, or nothing.
        log: The file that what it prints is appended to.
        environment: Variables to set.
        tool: Of these.
    """
    os.environ.update(environment)
    _send_output_to(log)
    _end_with_parent()
    if "OMP_NUM_THREADS" in environment:
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    if scoring:
        _score_once(scoring)
    _TOOLS[tool](words)


_ERRORS = (1, 2)  # other exit statuses are of jobs that a signal ended, and that may run again


class Job:
    """A run as a job of a cluster, for submitit.

    A job whose time is over or whose machine is wanted back saves, see
    ``mmkd_logit.PreemptionHook``, is put into the queue again and goes on.

    Args:
        again: Whether it was in the queue before.
    """

    def __init__(self, again: bool = False) -> None:
        self.again = again

    def __call__(
        self, words: Sequence[str], scoring: Sequence[str], log: str, tool: str = "train.py"
    ) -> None:
        """Run a tool.

        Args:
            words: As of :func:`train_in_process`.
            scoring: As of :func:`train_in_process`.
            log: The file that what it prints is appended to.
            tool: As of :func:`train_in_process`.

        Raises:
            RuntimeError: If it ended with an error, which the log tells.
        """
        if self.again or int(os.environ.get("SLURM_RESTART_COUNT", "0")):
            words = resumed(words, tool)
        try:
            train_in_process(words, scoring, log, {}, tool)
        except SystemExit as end:
            if end.code in _ERRORS:
                text = f"tools/{tool} ended with status {end.code}; see {log}"
                raise RuntimeError(text) from None
            if end.code:  # submitit takes no result of it then
                raise

    def checkpoint(self, *args: Any) -> Any:
        """Return what submitit puts into the queue.

        Args:
            *args: Of the call.
        """
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Job(again=True), *args)


def resumed(words: Sequence[str], tool: str) -> list[str]:
    """Return the command line that goes on with a run, if the run has begun.

    Args:
        words: That which began it.
        tool: As of :func:`train_in_process`; ``train_together.py`` goes on by itself.
    """
    if tool != "train.py" or "--resume" in words:
        return list(words)
    cfg = build_config(build_parser().parse_args(list(words)))
    begun = is_origin(cfg)
    return [words[0], *["--resume", "auto"] * begun, *words[1:]]


def _score_once(scoring: Sequence[str]) -> None:
    """Score unless another run of the same teacher has done so meanwhile."""
    checkpoint, scores = Path(scoring[1]), Path(scoring[2])
    with open(f"{scores}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not are_newer(scores, checkpoint):
            score(scoring)


def are_newer(scores: Path, checkpoint: Path) -> bool:
    """Whether scores were computed after their teacher was trained.

    Args:
        scores: The file of scores.
        checkpoint: The teacher's.
    """
    return scores.is_file() and scores.stat().st_mtime_ns > checkpoint.stat().st_mtime_ns


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
