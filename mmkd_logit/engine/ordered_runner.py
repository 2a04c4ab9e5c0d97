"""Logs in folders of their own, whatever the clock says."""

import re
import time
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner

_FORMAT, _STAMP = "%Y%m%d_%H%M%S", re.compile(r"\d{8}_\d{6}")


class OrderedRunner(Runner):
    """MMEngine's Runner, whose folder of logs is a new one, with a name after those that exist.

    MMEngine names it by the second of the start. Two starts in one second would write into the
    same ``scalars.json``, and after the clock was set back a later start has an earlier name.
    """

    _timestamp: str

    def setup_env(self, env_cfg: dict) -> None:
        """Do so when the processes know each other.

        Args:
            env_cfg: As of MMEngine's.
        """
        super().setup_env(env_cfg)
        stamps: list[Any] = [self._timestamp]
        if is_main_process():
            stamps = [later_stamp(self._timestamp, self._work_dir)]
        broadcast_object_list(stamps)
        (self._timestamp,) = stamps


def later_stamp(stamp: str, work_dir: str | Path) -> str:
    """Return a time in a name, or the first second after all those in a folder.

    Args:
        stamp: Such as ``20240131_235959``.
        work_dir: The folder.
    """
    known = [path.name for path in Path(work_dir).iterdir() if _seconds(path.name) is not None]
    last = max(known, default="")
    seconds = _seconds(last)
    while seconds is not None and stamp <= last:  # summer time may repeat an hour
        seconds += 1
        stamp = time.strftime(_FORMAT, time.localtime(seconds))
    return stamp


def _seconds(name: str) -> float | None:
    if not _STAMP.fullmatch(name):
        return None
    try:
        return time.mktime(time.strptime(name, _FORMAT))
    except (ValueError, OverflowError):
        return None
