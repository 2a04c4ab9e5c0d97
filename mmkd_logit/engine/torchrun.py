"""``python -m mmkd_logit.engine.torchrun``: torchrun that leaves the talking to the processes.

When a process ends with an error, torchrun prints a page of traceback of its own below the one
line that says what was wrong. Here it only passes the failure on. A signal by which a scheduler
wants the machine back is passed on to the processes too, also SIGUSR1, and the exit status is then
theirs: see ``mmkd_logit.PreemptionHook``.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

_STOPPED = (128 + signal.SIGTERM, os.EX_TEMPFAIL)  # of processes that have saved


def _pass_on(number: int, frame: Any) -> None:
    raise SignalException(f"signal {number}", signal.Signals(number))


def main(argv: Sequence[str] | None = None) -> None:
    """Start processes as torchrun does."""
    # One thread a process is also torchrun's default, but it warns when it sets it itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    before = signal.signal(signal.SIGUSR1, _pass_on)  # torchrun does so with four others
    try:
        torchrun(list(sys.argv[1:] if argv is None else argv))
    except SignalException as error:
        again = error.sigval == signal.SIGUSR1
        raise SystemExit(os.EX_TEMPFAIL if again else 128 + error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode in _STOPPED:
            raise SystemExit(failure.exitcode) from None
        print(f"process {rank} failed with exit status {failure.exitcode}", file=sys.stderr)
        raise SystemExit(1) from None
    finally:
        signal.signal(signal.SIGUSR1, before)


if __name__ == "__main__":
    main()
