"""What each of the two processes of test_resume.py does; see ranks.py."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from cut_off import EMA, Cut, Killed, kd, train
from mmengine.config import Config
from other_number import Served, steady

from mmkd_logit.engine.launch import prepare_launch

HALF = 8


def two_processes(folder):
    """A run whose ranks draw and normalise each in its own way, and make a step of 3 iterations."""
    cfg = kd(folder, 2, batch_size=HALF, randomness=dict(seed=3, diff_rank_seed=True), hooks=[EMA])
    cfg.optim_wrapper.accumulative_counts = 3
    prepare_launch(cfg, "pytorch")
    return cfg


def cut_off(cfg, done, *hooks):
    with pytest.raises(Killed):
        train(cfg, "auto", Cut(done), *hooks)
    dist.barrier()  # while gradients accumulate, a process is ahead of what the first one writes


def with_states_swapped(source, target):
    """Let the first process copy a folder and mix up what each of them draws."""
    if dist.get_rank() == 0:
        shutil.copytree(source, target)
        checkpoint = torch.load(target / "iter_2.pth", weights_only=False)
        torch.save(checkpoint, target / "kept.pth")
        first, second = checkpoint["resume_state"]["processes"]
        first["random"], second["random"] = second["random"], first["random"]
        torch.save(checkpoint, target / "iter_2.pth")
    dist.barrier()
    return target


def main(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    folder = Path(folder)
    parts = folder / "parts"
    train(two_processes(folder / "whole"))
    cut_off(two_processes(parts), 3)
    train(two_processes(with_states_swapped(parts, folder / "swapped")), "auto")
    cut_off(two_processes(parts), 5)
    train(two_processes(parts), "auto")
    other_number(folder)
    dist.destroy_process_group()


def other_number(folder):
    """Go on from a checkpoint of one process, and leave one of two."""
    served = Served()
    cfg = steady(folder / "one to two", batch_size=HALF)
    prepare_launch(cfg, "pytorch")
    train(cfg, "auto", served)
    torch.save(served.samples, folder / f"{dist.get_rank()}.pt")
    cfg = steady(folder / "two to one", batch_size=HALF)
    prepare_launch(cfg, "pytorch")
    cut_off(cfg, 3)
