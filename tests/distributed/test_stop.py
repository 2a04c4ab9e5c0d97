"""Signals to processes of a run, over gloo."""

import os
import signal
import subprocess
import time

import pytest
import torch
from commands import STUDENT, folder_of, train_tool
from mmengine.config import Config
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from processes import Child, alive, environment_of, family, run_ranks, start_ranks
from stop_hooks import SignalAt

from mmkd_logit.engine.launch import main as launch
from mmkd_logit.engine.launch import prepare_launch
from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.utils.files import why_damaged


class Line(BaseModel):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode="loss"):
        return dict(loss=(self.weight - inputs).square().mean())


def train_line(folder, name):
    """A run over gloo, of which the second process gets a signal."""
    torch.distributed.init_process_group("gloo")
    loader = dict(
        dataset=torch.arange(400.0),
        batch_size=2,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=lambda numbers: dict(inputs=torch.stack(numbers)),
    )
    Runner(
        model=MMDistributedDataParallel(Line()),
        work_dir=str(folder),
        launcher="pytorch",
        train_dataloader=loader,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=100),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        custom_hooks=[SignalAt(3, name, rank=1), dict(type="mmkd_logit.PreemptionHook")],
        log_level="ERROR",
    ).train()


def test_all_stop_after_the_same_iteration(tmp_path):
    """Only the second process gets the signal; what is saved is of one moment of both."""
    ranks = start_ranks(2, train_line, tmp_path, "SIGTERM")
    assert [rank.wait() for rank in ranks] == [143, 143], ranks[0].said[-3000:]
    saved = last_checkpoint(tmp_path)
    assert saved.name == "interrupted.pth"
    assert why_damaged(saved) is None
    assert torch.load(saved, weights_only=False)["meta"]["iter"] == 3


@pytest.mark.timeout(60)
def test_one_that_dies_takes_the_others_along(tmp_path):
    """Also without a launcher that ends them."""
    first, second = start_ranks(2, train_line, tmp_path, "SIGKILL")
    assert second.wait() == -signal.SIGKILL
    assert first.wait() == 1
    assert last_checkpoint(tmp_path) is None


PROGRAM = """
import os, signal, time
rank, ends = int(os.environ['RANK']), {ends}
assert os.environ['MMKD_LOGIT_LAUNCHER'] == str(os.getppid())
if ends[rank] is None:
    time.sleep(600)
if ends[rank] < 0:
    os.kill(os.getpid(), -ends[rank])
os._exit(ends[rank])
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("ends", "status", "said"),
    [
        ([0, 0], 0, ""),
        ([143, 143], 143, ""),
        ([None, -9], 1, "process 1 failed with exit status -9\n"),
        ([1, None], 1, "process 0 failed with exit status 1\n"),
    ],
)
def test_torchrun_ends_as_its_processes(tmp_path, ends, status, said):
    """One that waits for ever is ended at once; torchrun's own patience is half a minute."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(ends=ends))
    words = ["--nproc_per_node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    torchrun = Child(launch, [*words, str(program)])
    assert torchrun.wait() == status
    assert torchrun.said == said


def test_a_launcher_that_ended_while_a_process_imported(tmp_path):
    gone = Child(int)
    gone.wait()
    cfg = Config(dict(model=dict(type="x")))
    variables = dict(MMKD_LOGIT_LAUNCHER=gone.pid)
    (rank,) = start_ranks(1, prepare_launch, cfg, "pytorch", **variables)
    assert rank.wait() == -signal.SIGTERM


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.timeout(400)
def test_ranks_end_with_a_launcher_that_is_killed(workplace):
    """What was trained is saved."""
    folder = folder_of(STUDENT)
    options = ["train_dataloader.dataset.dataset.indices=320", "train_dataloader.batch_size=32"]
    options += ["default_hooks.checkpoint.interval=1", "train_cfg.val_interval=100"]
    words = ["--work-dir", str(folder), "--cfg-options", *options]
    command = ["tools/dist_train.sh", STUDENT, "2", *words, "train_cfg.max_epochs=300"]
    with subprocess.Popen(command, env=environment_of()) as launcher:
        try:
            wait_for((folder / "last_checkpoint").is_file, 200)
            ranks = family(launcher.pid)[1:]
        finally:
            launcher.kill()
    assert len(ranks) == 2
    try:
        wait_for(lambda: not any(map(alive, ranks)), 30)
    finally:
        for rank in filter(alive, ranks):
            os.kill(rank, signal.SIGKILL)
    saved = last_checkpoint(folder)
    assert saved.name == "interrupted.pth"
    iteration = torch.load(saved, weights_only=False)["meta"]["iter"]
    words = [STUDENT, "--launcher", "pytorch", "--resume", *words]
    said, _ = run_ranks(2, train_tool.main, [*words, f"train_cfg.max_epochs={iteration // 5 + 2}"])
    assert f"iter: {iteration}" in said
    assert (folder / "final.pth").is_file()
