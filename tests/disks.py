"""Small disks, and disks that can only be read, where this process may mount some."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder, size="1m"):
    """Mount a disk of a size on a folder; skip the test where that is not permitted."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    _mount(words)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder):
    """Make a folder one that can only be read, also for root."""
    folder = Path(folder)
    _mount(["mount", "--bind", str(folder), str(folder)])
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(words):
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        why = done.stderr.strip() if done.returncode else None
    except OSError as error:  # no such program
        why = str(error)
    if why is not None:
        pytest.skip(f"this process may not mount a disk: {why}")


def fill(folder, left=0):
    """Fill a disk but for some bytes; returns the file to remove."""
    plug = Path(folder, "plug")
    with open(plug, "wb", buffering=0) as file:
        block = os.statvfs(folder).f_bsize
        try:
            while os.statvfs(folder).f_bavail * block > left:
                file.write(b"x" * block)
        except OSError:
            pass
    return plug
