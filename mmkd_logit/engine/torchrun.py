"""``python -m mmkd_logit.engine.torchrun``: torchrun that leaves the talking to the processes.

When a process ends with an error, torchrun prints a page of traceback of its own below the one
line that says what was wrong. Here it only passes the failure on.
"""

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(argv: Sequence[str] | None = None) -> None:
    """Start processes as torchrun does.

    Args:
        argv: torchrun's command line without the program's name; ``sys.argv`` by default.
    """
    # One thread a process is also torchrun's default, but it warns when it sets it itself.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(list(sys.argv[1:] if argv is None else argv))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"process {rank} failed with exit status {failure.exitcode}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
