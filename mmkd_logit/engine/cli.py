"""Errors of command lines in one line, and the command that goes on."""

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from mmkd_logit.utils.files import FULL

TRACEBACK_VARIABLE = "MMKD_LOGIT_TRACEBACK"


class TrainingStarted:
    """Remembers whether the first iteration has begun, and which one it was.

    Until then whatever goes wrong is most likely in the config, the data or the checkpoints;
    later an unexpected error is a defect and deserves its traceback.
    """

    def __init__(self, again: str | None = None) -> None:
        self.value = False
        self.iteration: int | None = None
        self.again = again
        self.work_dir: str | None = None


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
    told = logging.raiseExceptions
    logging.raiseExceptions = False  # a log that cannot be written prints a page for each line
    try:
        yield
    except KeyboardInterrupt:
        _end_interrupted(started)
    except Exception as error:
        if _is_of_interruption(error):
            _end_interrupted(started)
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        training = started is not None and started.value
        if training and not isinstance(error, (ValueError, OSError)):
            raise
        if training or os.environ.get("LOCAL_RANK", "0") == "0":
            known = isinstance(error, (ValueError, OSError))
            where = "" if known else f" ({_where(error)}; {TRACEBACK_VARIABLE}=1 shows all)"
            print(f"error: {_message(error)}{_what_next(error, started)}{where}", file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(1) from None
    finally:
        logging.raiseExceptions = told


def _end_interrupted(started: TrainingStarted | None) -> NoReturn:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        advice = (
            f"; continue with: {started.again}" if started is not None and started.again else ""
        )
        print(f"\ninterrupted{advice}", file=sys.stderr)
    raise SystemExit(130) from None


def _is_of_interruption(error: BaseException | None) -> bool:
    """Whether somebody made another error of it, as MMEngine does when it formats a config."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False


def _message(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(str(text).split())
    known = isinstance(error, (ValueError, OSError))
    return text if known and text else f"{type(error).__name__}: {text}"


def _what_next(error: BaseException, started: TrainingStarted | None) -> str:
    """Say after a full disk how to go on; what our own writers say of it is whole already."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return ""
    explained = getattr(error, "is_explained", False)
    where = f" (of {started.work_dir})" if started is not None and started.work_dir else ""
    said = f"{where}; what was written before is whole. Make space, then run again"
    said = "" if explained else said
    return f"{said}: {started.again}" if started is not None and started.again else said


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}"
