"""Errors of command lines in one line, and the command that goes on."""

import io
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mmkd_logit.utils.files import FULL

TRACEBACK_VARIABLE = "MMKD_LOGIT_TRACEBACK"


@dataclass
class TrainingStarted:
    """Whether the first iteration has begun, and which one it was.

    Before, an error is most likely in the config, the data or the checkpoints; later an unexpected
    one is a defect and deserves its traceback.

    Attributes:
        again: The command that resumes the run.
    """

    again: str | None = None
    value: bool = False
    iteration: int | None = None
    work_dir: str | None = None

    @property
    def advice(self) -> str:
        """How to go on, to be added to a message."""
        return f"; continue with: {self.again}" if self.again else ""


def resume_command(tool: str, argv: Sequence[str], flag: bool = True) -> str:
    """Return the command that goes on with what a command line began."""
    words = list(argv)
    while "--resume" in words:  # from what is the latest now
        place = words.index("--resume")
        named = place + 1 < len(words) and not words[place + 1].startswith("-")
        del words[place : place + 1 + named]
    words = [word for word in words if not word.startswith("--resume=")]
    program = ["python", f"tools/{tool}"]
    if tool == "train.py" and words[1:3] == ["--launcher", "pytorch"]:  # of tools/dist_train.sh
        size = os.environ.get("LOCAL_WORLD_SIZE", "1")
        program, words = ["tools/dist_train.sh"], [words[0], size, *words[3:]]
    of_slurm = [words[i] for i in (1, 3, 4) if i < len(words)]
    if tool == "train.py" and of_slurm == ["--work-dir", "--launcher", "slurm"]:
        names = [os.environ.get(f"SLURM_JOB_{key}", key) for key in ("PARTITION", "NAME")]
        program = ["tools/slurm_train.sh", *names]
        words = [words[0], words[2], *words[5:]]
    return shlex.join([*program, *words, *["--resume"] * flag])


@contextmanager
def one_line_errors(started: TrainingStarted | None = None) -> Iterator[None]:
    """End the program with status 1 and one line on standard error.

    Covers every exception before training has started, and afterwards those that speak to the
    user (``ValueError``, ``OSError``). Before training has started all processes of a run fail
    alike and the first one of each machine speaks. ``MMKD_LOGIT_TRACEBACK=1`` shows tracebacks
    all the same.
    """
    started = started or TrainingStarted()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    raises = logging.raiseExceptions
    logging.raiseExceptions = False  # a log that cannot be written prints a page for each line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no run ends for want of a character in ASCII
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if _is_interruption(error):
            if first:
                print(f"\ninterrupted{started.advice}", file=sys.stderr)
            raise SystemExit(130) from None
        known = isinstance(error, (ValueError, OSError))
        if os.environ.get(TRACEBACK_VARIABLE) == "1" or (started.value and not known):
            raise
        if started.value or first:
            print(f"error: {_describe(error)}{_after_full_disk(error, started)}", file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(1) from None
    finally:
        logging.raiseExceptions = raises


def _is_interruption(error: BaseException | None) -> bool:
    """Whether it was, also where another error was made of it, as MMEngine formats a config."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _describe(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(str(text).split())
    if isinstance(error, (ValueError, OSError)):
        return text or f"{type(error).__name__}: "
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"raised in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}"
    return f"{type(error).__name__}: {text} ({where}; {TRACEBACK_VARIABLE}=1 shows all)"


def _after_full_disk(error: BaseException, started: TrainingStarted) -> str:
    """Say how to go on; what our own writers say of a full disk is complete."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return ""
    text = ""
    if not getattr(error, "is_explained", False):
        where = f" (of {started.work_dir})" if started.work_dir else ""
        text = f"{where}; what was written before is whole. Make space, then run again"
    return f"{text}: {started.again}" if started.again else text
