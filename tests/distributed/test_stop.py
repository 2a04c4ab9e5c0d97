"""Signals to processes of a run, over gloo."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from commands import Tiny, folder_of
from processes import HERE, alive, environment_of, family, run

from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.utils.files import why_damaged

LAUNCH = [sys.executable, "-m", "mmkd_logit.engine.launch", "--nproc_per_node=2"]
LAUNCH += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]


def launch(folder, name):
    return run(*LAUNCH, str(HERE / "distributed/stop_worker.py"), str(folder), name)


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


LONG = """
train_cfg = dict(max_epochs=300)
train_dataloader = dict(dataset=dict(dataset=dict(indices=320)))
"""


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def killed_launcher(words):
    """Start two ranks, kill what started them when the body is through, and wait for their end."""
    with subprocess.Popen(words, env=environment_of()) as process:
        try:
            wait_for(lambda: len(family(process.pid)) >= 3, 120)
            ranks = family(process.pid)[1:]
            yield
        finally:
            process.kill()
    try:
        wait_for(lambda: not any(map(alive, ranks)), 30)
    finally:
        for rank in filter(alive, ranks):
            os.kill(rank, signal.SIGKILL)


@pytest.mark.timeout(400)
def test_ranks_end_with_a_launcher_that_is_killed(workplace):
    """Also before they have imported anything; what was trained is saved."""
    student = Tiny().student
    folder = folder_of(student)
    long = Path(student).with_stem(f"{Path(student).stem}long")
    long.write_text(f"_base_ = './{Path(student).name}'\n{LONG}")
    words = [*LAUNCH, "tools/train.py", str(long), "--launcher", "pytorch", f"--work-dir={folder}"]
    with killed_launcher(words):
        pass
    assert not folder.exists()
    with killed_launcher(words):
        wait_for((folder / "last_checkpoint").is_file, 120)
    saved = last_checkpoint(folder)
    iteration = torch.load(saved, weights_only=False)["meta"]["iter"]
    done = run(*words, "--resume", "--cfg-options", f"train_cfg.max_epochs={iteration // 5 + 2}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"iter: {iteration}" in done.stdout
    assert (folder / "final.pth").is_file()
