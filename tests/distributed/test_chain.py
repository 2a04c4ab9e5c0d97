"""A chain over two processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commands import PROJECT, folder_of, long_chain, write_chain

from mmkd_logit.engine.fingerprint import read_run, weights_hash
from mmkd_logit.engine.results import read_lines


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
    return re.findall(r"^stage (\d) of 3, \w+: (.*)", output, re.MULTILINE)


def family(pid):
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    started = children.read_text().split() if children.is_file() else []
    return [pid, *(one for child in started for one in family(int(child)))]


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


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_two_processes_agree_on_what_is_finished_cut_off_or_changed(workplace, free_ports):
    chain, stages = long_chain(epochs=10)
    words = [chain, "--results", "runs.jsonl"]
    folder = folder_of(chain)
    first, second, third = (
        folder / f"{number}_{Path(stage['config']).stem}" for number, stage in enumerate(stages, 1)
    )
    process = start(free_ports[0], *words)
    end = time.monotonic() + 300
    while not (second / "last_checkpoint").is_file():
        assert process.poll() is None, process.said.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    kill(process)
    assert not (second / "final.pth").exists()
    assert not third.exists()
    epoch = Path((second / "last_checkpoint").read_text()).stem.split("_")[1]

    # Each line once, not once a process.
    assert finish(start(free_ports[1], *words)) == [
        ("1", f"finished before, {first}/final.pth"),
        ("2", f"was cut off, goes on from {second}/epoch_{epoch}.pth"),
        ("3", f"starts in {third}"),
    ]
    rows = read_lines(Path("runs.jsonl"))
    assert [row["weights"] for row in rows] == [
        weights_hash(path / "final.pth") for path in (first, second, third)
    ]
    assert [row["teachers"] for row in rows[1:]] == [[row["weights"]] for row in rows[:2]]
    assert [row["processes"] for row in rows] == [2] * 3
    assert read_run(third)["processes"] == 2
    assert rows[1]["resumed_at"] == int(epoch) * rows[1]["iterations"] // 10

    stages[2]["overrides"] = ["model.alpha=0.9"]
    write_chain(*stages, path=chain)
    before = torch.load(third / "final.pth", weights_only=False)["state_dict"]
    assert finish(start(free_ports[2], *words)) == [
        ("1", f"finished before, {first}/final.pth"),
        ("2", f"finished before, {second}/final.pth"),
        ("3", f"starts anew in {third}: model.alpha: not set -> 0.9"),
    ]
    after = torch.load(third / "final.pth", weights_only=False)["state_dict"]
    assert not torch.equal(before["head.fc.weight"], after["head.fc.weight"])
    assert len(read_lines(Path("runs.jsonl"))) == 4


@pytest.fixture
def free_ports():
    import socket

    sockets = [socket.socket() for _ in range(3)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
