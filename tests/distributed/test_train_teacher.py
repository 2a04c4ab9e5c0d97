"""Teachers that are trained first, over two processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import PROJECT, Tiny, folder_of, taught_by
from processes import alive, family

from mmkd_logit.engine.fingerprint import read_run, weights_hash
from mmkd_logit.engine.results import read_lines

LONG = """
train_cfg = dict(max_epochs=10, val_interval=100)
train_dataloader = dict(dataset=dict(dataset=dict(indices=320)))
"""


def start(port, *words):
    """Start tools/dist_train.sh over two processes on CPU."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CUDA_VISIBLE_DEVICES": "",
        "PORT": port,
    }
    command = ["tools/dist_train.sh", words[0], "2", *words[1:]]
    with open(f"said-{port}", "w") as said:  # a pipe that nobody reads would be full in the end
        process = subprocess.Popen(
            command, env=environment, stdout=said, stderr=subprocess.STDOUT, text=True
        )
    process.said = Path(said.name)
    return process


def finish(process):
    process.wait(timeout=300)
    output = process.said.read_text()
    assert process.returncode == 0, output[-3000:]
    return re.findall(r"^the teacher (\S+)/final.pth (.*)$", output, re.MULTILINE)


def kill(process):
    """Kill both ranks, and what started them, at once."""
    members = family(process.pid)
    assert len(members) >= 3
    for pid in members:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60  # the ranks are not our children
    while any(Path(f"/proc/{pid}/fd").is_dir() and alive(pid) for pid in members):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_two_processes_agree_on_what_is_there_or_cut_off(workplace, free_ports):
    tiny = Tiny()
    second = taught_by(tiny.teacher, tiny.kd, LONG)
    third = taught_by(second, tiny.kd)
    words = [third, "--train-teacher", "--results", "runs.jsonl", "--resume"]
    folders = [folder_of(config) for config in (tiny.teacher, second, third)]
    process = start(free_ports[0], *words)
    end = time.monotonic() + 300
    while not (folders[1] / "last_checkpoint").is_file():
        assert process.poll() is None, process.said.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    kill(process)
    assert not (folders[1] / "final.pth").exists()
    epoch = int(Path((folders[1] / "last_checkpoint").read_text()).stem.split("_")[1])

    # Each line once, not once a process.
    assert finish(start(free_ports[1], *words)) == [
        (str(folders[0]), "was trained before"),
        (str(folders[1]), "goes on"),
    ]
    rows = read_lines(Path("runs.jsonl"))
    assert [row["weights"] for row in rows] == [weights_hash(f / "final.pth") for f in folders]
    assert [row["teachers"] for row in rows[1:]] == [[row["weights"]] for row in rows[:2]]
    assert [row["processes"] for row in rows] == [2] * 3
    assert read_run(folders[2])["processes"] == 2
    assert rows[1]["resumed_at"] == epoch * rows[1]["iterations"] // 10


@pytest.fixture
def free_ports():
    import socket

    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
