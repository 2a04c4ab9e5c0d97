"""One clear line for what the user did wrong, the whole traceback for what we did wrong."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK_VARIABLE = "MMKD_LOGIT_TRACEBACK"


class TrainingStarted:
    """Remembers whether the first iteration has begun, and which one it was.

    Until then whatever goes wrong is most likely in the config, the data or the checkpoints;
    later an unexpected error is a defect and deserves its traceback.
    """

    def __init__(self) -> None:
        self.value = False
        self.iteration: int | None = None


@contextmanager
def one_line_errors(started: TrainingStarted | None = None) -> Iterator[None]:
    """End the program with status 1 and one line on standard error.

    Covers every exception before training has started, and afterwards those that speak to the
    user (``ValueError``, ``OSError``). Before training has started all processes of a run fail
    alike and the first one of each machine speaks. ``MMKD_LOGIT_TRACEBACK=1`` shows tracebacks
    all the same.

    Args:
        started: Says whether training has started; None for programs that only read.
    """
    try:
        yield
    except KeyboardInterrupt:
        advice = "" if started is None else "; continue with --resume"
        print(f"\ninterrupted{advice}", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE) == "1":
            raise
        training = started is not None and started.value
        if training and not isinstance(error, (ValueError, OSError)):
            raise
        if training or os.environ.get("LOCAL_RANK", "0") == "0":
            known = isinstance(error, (ValueError, OSError))
            where = "" if known else f" ({_where(error)}; {TRACEBACK_VARIABLE}=1 shows all)"
            print(f"error: {_message(error)}{where}", file=sys.stderr)
        sys.stderr.flush()
        raise SystemExit(1) from None


def _message(error: BaseException) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    text = " ".join(str(text).split())
    known = isinstance(error, (ValueError, OSError))
    return text if known and text else f"{type(error).__name__}: {text}"


def _where(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}"
