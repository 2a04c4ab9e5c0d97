"""Checkpoints that appear whole, and then the file that names the last one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmkd_logit._atomic_files import write_text
from mmkd_logit._run_file import note_checkpoint

from ._atomic_backend import ATOMIC

POINTER = "last_checkpoint"  # as MMEngine calls it
INTERRUPTED = "interrupted.pth"  # of a run that was asked to stop, until its next checkpoint


def save_atomically(runner: Runner, folder: str, filename: str, **kwargs: Any) -> None:
    """Save a checkpoint that appears whole or not at all.

    Args:
        runner: Of the run.
        folder: Where.
        filename: Its name there.
        **kwargs: Of ``Runner.save_checkpoint``. Where they name another file backend, or an old
            one, its files are as whole as it makes them.
    """
    chosen = kwargs.get("backend_args"), kwargs.get("file_client_args")
    if chosen == (None, None) and "://" not in str(folder):
        kwargs["backend_args"] = dict(backend=ATOMIC)
    runner.save_checkpoint(folder, filename, **kwargs)


def point_to(runner: Runner, checkpoint: str, gone: Sequence[str] = ()) -> None:
    """Make a saved checkpoint the one that the run goes on from.

    Args:
        runner: Of the run.
        checkpoint: Its path.
        gone: Paths of those that will be removed after this.
    """
    if is_main_process():
        note_checkpoint(runner.work_dir, checkpoint, gone)
        write_text(Path(runner.work_dir, POINTER), checkpoint)
