"""Errors of command lines in one line, and the command that goes on."""

import io
import logging
import os
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmkd_logit.utils.cli import one_line, program
from mmkd_logit.utils.files import FULL

TRACEBACK_VARIABLE = "MMKD_LOGIT_TRACEBACK"


@dataclass
class TrainingStarted:
    """Whether the first iteration has begun, and which one it was.

    Before, an error is most likely in the config, the data or the checkpoints; later an unexpected
    one is a defect and deserves its traceback.
    """

    again: str | None = None  # the command that resumes the run
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
    start = program(tool)
    if tool == "train.py" and words[1:3] == ["--launcher", "pytorch"]:  # of tools/dist_train.sh
        size = os.environ.get("LOCAL_WORLD_SIZE", "1")
        start, words = ["tools/dist_train.sh"], [words[0], size, *words[3:]]
    of_slurm = [words[i] for i in (1, 3, 4) if i < len(words)]
    if tool == "train.py" and of_slurm == ["--work-dir", "--launcher", "slurm"]:
        names = [os.environ.get(f"SLURM_JOB_{key}", key) for key in ("PARTITION", "NAME")]
        start = ["tools/slurm_train.sh", *names]
        words = [words[0], words[2], *words[5:]]
    return shlex.join([*start, *words, *["--resume"] * flag])


@contextmanager
def one_line_errors(started: TrainingStarted | None = None) -> Iterator[None]:
    """End the program with status 1 and one line on standard error.

    Covers every exception before training has started, and afterwards those that speak to the
    user (``ValueError``, ``OSError``) or are of a number of the config (``OverflowError``). Before
    training has started all processes of a run fail alike and the first one of each machine speaks.
    ``MMKD_LOGIT_TRACEBACK=1`` shows tracebacks all the same.
    """
    started = started or TrainingStarted()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    raises = logging.raiseExceptions
    logging.raiseExceptions = False  # a log that cannot be written prints a page for each line
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no run ends for want of a character in ASCII
    try:
        yield
    except (Exception, KeyboardInterrupt) as raised:
        error = _cause(raised, started)
        if isinstance(error, KeyboardInterrupt):
            if first:
                print(f"\ninterrupted{started.advice}", file=sys.stderr)
            raise SystemExit(130) from None
        known = isinstance(error, (ValueError, OSError, OverflowError))
        if os.environ.get(TRACEBACK_VARIABLE) == "1" or (started.value and not known):
            raise error from None
        if started.value or first:
            print(f"error: {_describe(error)}{_after_full_disk(error, started)}", file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(1) from None
    finally:
        logging.raiseExceptions = raises


def _cause(error: BaseException, started: TrainingStarted) -> BaseException:
    """Return what happened: MMEngine says of any error while it formats a config that it failed.

    A signal may arrive there, or the end of a loader's worker.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    for each in chain:
        if isinstance(each, KeyboardInterrupt):
            return each
        if str(each).startswith("DataLoader worker"):
            return OSError(f"{each} Is memory short? Lower num_workers{started.advice}")
        if str(error).startswith(f"{each} in "):  # MMEngine adds the hook, as an object
            return each
    return error


def _describe(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    text = one_line(str(text))
    place = _place_of(error)
    if isinstance(error, (ValueError, OSError)) and text:
        return f"{place}{text}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"raised in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}"
    # An assertion without words says itself.
    text = textwrap.shorten(text or frame.line or "", 1500)
    advice = "; change these settings" if place else ""
    return (
        f"{place}{type(error).__name__}: {text}{advice} ({where}; {TRACEBACK_VARIABLE}=1 shows all)"
    )


def _place_of(error: BaseException) -> str:
    """Name the place in the config of what MMEngine was building, or return nothing."""
    specs: list[Any] = []
    configs: list[Config] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        given, holder = frame.f_locals.get("cfg"), frame.f_locals.get("self")
        if isinstance(given, Config):
            configs.append(given)
        elif isinstance(holder, Runner):
            configs.append(holder.cfg)
        elif frame.f_code.co_name in ("build_from_cfg", "_initialize"):  # of weights
            specs.append(given)
    # The innermost one that still is what the config says: some classes change what they build.
    contents = [cfg.to_dict() for cfg in configs]
    places = (_find(found, spec) for spec in reversed(specs) if spec for found in contents)
    return next((f"{place}: " for place in places if place), "")


def _find(value: Any, spec: Any, place: str = "") -> str | None:
    """Return the place of settings in a config."""
    if place and value == spec:
        return place
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        if isinstance(each, (dict, list, tuple)):
            found = _find(each, spec, f"{place}.{name}".lstrip("."))
            if found:
                return found
    return None


def _after_full_disk(error: BaseException, started: TrainingStarted) -> str:
    """Say how to go on; what our own writers say of a full disk is complete."""
    if not isinstance(error, OSError) or error.errno not in FULL:
        return ""
    text = ""
    if not getattr(error, "is_explained", False):
        where = f" (of {started.work_dir})" if started.work_dir else ""
        text = f"{where}; what was written before is whole. Make space, then run again"
    return f"{text}: {started.again}" if started.again else text
