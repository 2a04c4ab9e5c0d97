"""What a process of ``tools/reproduce.py`` does: train one run."""

import fcntl
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from mmkd_logit.engine.dump import main as dump_logits
from mmkd_logit.engine.score import main as score
from mmkd_logit.engine.together import main as train_together
from mmkd_logit.engine.train import main as train

_TOOLS = {
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


def train_as_job(
    words: Sequence[str], scoring: Sequence[str], log: str, tool: str = "train.py"
) -> None:
    """Run a tool as a job of a cluster.

    Args:
        words: As of :func:`train_in_process`.
        scoring: As of :func:`train_in_process`.
        log: The file that what it prints is appended to.
        tool: As of :func:`train_in_process`.

    Raises:
        RuntimeError: If it ended with an error, which the log tells.
    """
    try:
        train_in_process(words, scoring, log, {}, tool)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"tools/{tool} ended with status {end.code}; see {log}") from None


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
