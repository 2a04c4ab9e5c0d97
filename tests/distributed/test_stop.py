"""Signals to processes of a run, over gloo."""

import sys

import pytest
import torch
from processes import HERE, run

from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.utils.files import why_damaged


def launch(folder, name):
    words = [sys.executable, "-m", "mmkd_logit.engine.launch", "--nproc_per_node=2"]
    words += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    return run(*words, str(HERE / "distributed/stop_worker.py"), str(folder), name)


def test_all_stop_after_the_same_iteration(tmp_path):
    """Only the second process gets the signal; what is saved is of one moment of both."""
    done = launch(tmp_path, "SIGTERM")
    assert done.returncode == 143, done.stderr[-3000:]
    assert "exit status" not in done.stderr
    saved = last_checkpoint(tmp_path)
    assert saved.name == "interrupted.pth"
    assert why_damaged(saved) is None
    assert torch.load(saved, weights_only=False)["meta"]["iter"] == 3


@pytest.mark.timeout(180)
def test_one_that_dies_takes_the_others_along(tmp_path):
    """Nobody waits for it; torchrun's own patience is half a minute."""
    done = launch(tmp_path, "SIGKILL")
    assert done.returncode == 1
    assert "process 1 failed with exit status -9" in done.stderr or "process 0" in done.stderr
    assert last_checkpoint(tmp_path) is None
