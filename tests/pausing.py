"""A process that stops for ever inside a write, for a test that kills it there.

A place is ``within`` (half of the bytes are written), ``before`` (all are, under another name) or
``after`` (the file has its name, and nothing that follows was done); a name is a pattern of the
file's name, such as ``epoch_*.pth``, ``last_checkpoint``, ``runs.jsonl`` (appended to, so only
``within``) or ``logits.bin`` (of a teacher's cache, likewise); a count says at which such write,
from 1 on. When the process has stopped, the file ``sign`` exists and holds the path that is being
written.
"""

import io
import os
import time
from fnmatch import fnmatch
from pathlib import Path

from mmkd_logit.utils import files as _atomic_files


class Pause:
    """Counts the writes to files of a name and stops at one of them."""

    def __init__(self, place, name, count, sign):
        self.place, self.name, self.left, self.sign = place, name, int(count), Path(sign)
        self.target = None

    def comes(self, place, path):
        """Whether to stop here."""
        if place != self.place or not fnmatch(Path(path).name, self.name):
            return False
        self.left -= 1
        return self.left == 0

    def stop(self, path):
        self.note(path)
        while True:
            time.sleep(60)

    def note(self, path):
        new = self.sign.with_name(f"{self.sign.name}.new")
        new.write_text(str(path))
        os.replace(new, self.sign)


class Half(io.BufferedWriter):
    """A file that stops once half of a large piece, or a piece of a small one, is on the disk."""

    def __init__(self, file, pause, target):
        super().__init__(file.detach())
        self.pause, self.target = pause, target

    def write(self, content):
        content = memoryview(content).cast("B")
        super().write(content[: max(1, len(content) // 2)])
        self.flush()
        self.pause.stop(self.target)


def install(pause):
    """Make our writers stop."""
    open_part, swap = _atomic_files._open_part, _atomic_files._swap

    def opened(target):
        part, file = open_part(target)
        return part, Half(file, pause, target) if pause.comes("within", target) else file

    def swapped(part, target):
        if pause.comes("before", target):
            pause.stop(target)
        swap(part, target)
        if pause.comes("after", target):
            pause.stop(target)

    _atomic_files._open_part, _atomic_files._swap = opened, swapped
    if pause.name.endswith(".jsonl"):
        _stop_in_rows(pause)
    if pause.name.endswith(".bin"):
        _stop_in_cache(pause)


def _stop_in_rows(pause):
    from mmkd_logit.engine import results

    write_all = results._write_all

    def written(file, content):
        if pause.comes("within", file.name):
            file.write(content[: len(content) // 2])
            pause.stop(file.name)
        write_all(file, content)

    results._write_all = written


def _stop_in_cache(pause):
    from mmkd_logit.models import teacher_cache

    write_rows = teacher_cache._write_rows

    def written(file, numbers, array):
        path = os.readlink(f"/proc/self/fd/{file}")
        if pause.comes("within", path):
            half = max(1, array.shape[-1] // 2) if array.ndim > 1 else 0
            if half:  # a row of which one half is there
                place = int(numbers[0]) * array[0].nbytes
                os.pwrite(file, array[0, :half].tobytes(), place)
            pause.stop(path)
        write_rows(file, numbers, array)

    teacher_cache._write_rows = written
