"""One run in a work folder at a time.

The lock is the kernel's (``flock``), which takes it away when the process ends in whatever way.
The package filelock falls back to marker files on disks without locks, and a run that is killed
leaves those behind.
"""

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from mmkd_logit.utils.files import explained, open_in_place, remove_parts

from .launch import from_first_process

LOCK = ".lock"
_TRIES, _PAUSE = 5, 0.05  # user_of holds the lock for a moment
_held: set[IO[bytes]] = set()


class FolderInUseError(ValueError):
    """Another process trains in a work folder."""


@contextmanager
def only_run_in(*folders: str | Path) -> Iterator[None]:
    """Keep other runs out of work folders, for all processes of this run.

    The first process holds a lock on a file in each. Over NFS it holds between machines where the
    server has locks (not with ``nolock`` or ``local_lock``), on Lustre with ``-o flock``; a disk
    without locks gives a warning and no protection.

    What a killed run left half written is removed.
    """
    with ExitStack() as stack:

        def enter() -> None:
            for folder in folders:
                stack.enter_context(_locked(Path(folder)))
                remove_parts(folder)

        from_first_process(enter)
        yield


def user_of(folder: str | Path) -> str | None:
    """Say which other process trains in a folder, or None where none does."""
    try:
        with open(Path(folder, LOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _describe(Path(folder))
    except OSError:
        return None
    return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_in_place(path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0)
    except OSError as error:
        raise explained(error, path, None, f"the work folder {folder}") from error
    with file:
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise FolderInUseError(
                        f"the work folder {folder} is in use by {_describe(folder)}; wait for it, "
                        "end it, or give this run another --work-dir"
                    ) from None
                time.sleep(_PAUSE)
            except OSError as error:
                text = f"warning: the disk of {folder} has no locks ({error.strerror or error}); "
                text += "see to it that no other run writes there"
                print(text, file=sys.stderr, flush=True)
                break
        user = dict(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=shlex.join(["python", *sys.argv])[:500],
        )
        with suppress(OSError):  # only a text; the disk may be full
            file.truncate(0)
            file.write(json.dumps(user).encode())
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            with suppress(OSError):
                file.truncate(0)


def _describe(folder: Path) -> str:
    try:
        user = json.loads((folder / LOCK).read_text())
        return f"process {user['pid']} on {user['host']} since {user['since']} ({user['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget() -> None:
    """Leave the locks to the parent: a worker that outlives it must not hold them."""
    while _held:
        _held.pop().close()


os.register_at_fork(after_in_child=_forget)
