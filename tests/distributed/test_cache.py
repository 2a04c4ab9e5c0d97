"""Two processes fill one cache at the same time."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from networks import build, wrn

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def test_two_processes_share_a_cache_and_agree(tmp_path):
    torch.save(build(wrn(widen_factor=2), seed=3).state_dict(), tmp_path / "teacher.pth")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += [f"--master_port={free_port()}", str(HERE / "cache_worker.py"), str(tmp_path)]
    paths = os.pathsep.join([str(HERE.parent), str(PROJECT)])
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["right"]
    assert second["right"]
    assert torch.equal(first["logits"], second["logits"])
    (folder,) = (tmp_path / "caches").iterdir()
    assert not list(folder.glob("*.part"))
    assert first["missing"] + second["missing"] == 0
    assert first["entries"] == second["entries"] == 24 * 6
    # Each used what the other had computed: alone, it would have met every picture itself.
    assert min(first["misses"], second["misses"]) < 24 * 6
