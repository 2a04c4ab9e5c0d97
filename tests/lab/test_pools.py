"""Processes of our own, with a tools/train.py of a moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import PROJECT

from mmkd_logit.lab.pools import LocalPool

WAIT = 60


@pytest.fixture
def pool(workplace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pool = LocalPool(["cpu", "cpu"])
    yield pool
    pool.stop()


def wait_for(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def all_of(pool, number):
    ended = {}
    wait_for(lambda: ended.update(pool.finished()) or len(ended) == number)
    return ended


def test_two_at_once_and_one_fails(pool):
    pool.start("runs/a", ["--help"])
    assert pool.has_room()
    pool.start("runs/b", ["nope.py"])
    assert not pool.has_room()
    assert all_of(pool, 2) == {"runs/a": True, "runs/b": False}
    assert pool.has_room()
    assert "--train-teacher" in Path("runs/a/train.log").read_text()
    assert Path("runs/b/train.log").read_text() == "error: the config nope.py does not exist\n"
    pool.start("runs/b", ["nope.py"])
    all_of(pool, 1)
    assert Path("runs/b/train.log").read_text().count("error") == 2  # what was there stays


LONG = """
import sys, time
from mmkd_logit.lab.pools import LocalPool
if __name__ == "__main__":
    pool = LocalPool(["cpu"])
    pool.start("runs/long", ["configs/wrn/wrn16-2_digits.py", "--epochs", "10000"])
    time.sleep(1000)
"""


def test_nothing_trains_on_when_we_were_killed(workplace):
    Path("long.py").write_text(LONG)
    log = Path("runs/long/train.log")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "long.py"], env=environment) as process:
        try:
            wait_for(lambda: log.is_file() and "Epoch(train)" in log.read_text())
        finally:
            process.send_signal(signal.SIGKILL)
    ends = []

    def silent():
        ends.append(log.stat().st_size)
        time.sleep(1)
        return ends[-2:] == [ends[-1]] * 2 and len(ends) > 1

    wait_for(silent)


def test_no_fork_where_there_are_gpus(workplace, monkeypatch):
    """CUDA does not survive it, and each process must see its own device from the beginning."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pool = LocalPool(["7"])
    assert pool._context.get_start_method() == "spawn"
    assert LocalPool(["cpu"])._context.get_start_method() == "forkserver"
    seen = []
    start = pool._context.Process.start

    def note(process):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        start(process)

    monkeypatch.setattr(pool._context.Process, "start", note)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    pool.start("runs/a", ["nope.py"])
    assert seen == ["7"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
    assert all_of(pool, 1) == {"runs/a": False}
    assert "the config nope.py does not exist" in Path("runs/a/train.log").read_text()


def test_stop(pool):
    pool.start("runs/long", ["configs/wrn/wrn16-2_digits.py", "--epochs", "10000"])
    log = Path("runs/long/train.log")
    wait_for(lambda: log.is_file() and "Epoch(train)" in log.read_text())
    pool.stop()
    assert pool.finished() == {"runs/long": False}


def test_several_processes_a_run(workplace, monkeypatch):
    """torchrun starts them; without a GPU they would speak gloo, so the device is a pretence."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    pool = LocalPool(["0+1"])
    assert pool.processes == 2
    pool.start("runs/a", ["nope.py"])
    assert all_of(pool, 1) == {"runs/a": False}
    assert "error: the config nope.py does not exist" in Path("runs/a/train.log").read_text()
