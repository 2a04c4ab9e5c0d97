"""Two processes that are cut off, and runs that go on with another number of them."""

import shutil

import pytest
import torch
import torch.distributed as dist
from cut_off import EMA, Cut, Killed, from_memory, kd, kind_of_run, train
from mmengine.config import Config
from mmengine.hooks import Hook
from processes import run_ranks
from runs import digits_distiller, digits_student
from same_runs import assert_same_runs, differences

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine.launch import prepare_launch

HALF = 8


def steady(folder, batch_size):
    """Config of a run without batch statistics and dropout, which may be cut into two halves."""
    student = digits_student()
    student["backbone"]["norm_eval"] = True
    model = digits_distiller(student, alpha=0.5)
    return from_memory(kind_of_run(folder, model, 2, batch_size=batch_size, log_level="INFO"))


class Served(Hook):
    """Notes which samples each iteration sees."""

    def __init__(self):
        self.samples = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.samples[runner.iter] = sorted(data_batch["data_samples"].index.tolist())


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


def train_ranks(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes left; one process has begun what they went on with."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.raises(Killed):
        train(steady(folder / "one to two", batch_size=16), None, Cut(3))
    run_ranks(2, train_ranks, folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    """One process that was not cut off, and what it saw."""
    served = Served()
    runner = train(steady(folder / "alone", batch_size=16), None, served)
    return runner, served.samples


def test_cut_off_within_an_epoch_and_at_its_end(folder):
    assert_same_runs(folder / "whole", folder / "parts")


def test_each_process_has_its_own_state(folder):
    """Gradients and BatchNorm's statistics, too; another's random states make another run."""
    state = load_from_file(str(folder / "swapped/kept.pth"))["resume_state"]
    first, second = state["processes"]
    assert not torch.equal(first["random"]["torch"], second["random"]["torch"])
    name = "head.fc.weight"
    assert not torch.equal(first["gradients"][name], second["gradients"][name])
    names = set(second["buffers"])
    assert any(name.startswith("model.") and name.endswith("running_mean") for name in names)
    assert any(name.startswith("average0.") for name in names)
    assert "final.pth" in differences(folder / "whole", folder / "swapped")


def test_two_processes_go_on_with_the_batches_of_one(folder, alone):
    runner, samples = alone
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert list(ranks[0]) == list(ranks[1]) == list(range(2, 8))
    for number in range(2, 8):
        assert sorted(ranks[0][number] + ranks[1][number]) == samples[number]
        assert ranks[0][number] != ranks[1][number]
    assert_close(runner, folder / "one to two")
    said = "".join(path.read_text() for path in (folder / "one to two").glob("*/*.log"))
    assert "not exactly: with 2 processes instead of 1" in said


def test_one_process_goes_on_with_the_batches_of_two(folder, alone):
    runner, samples = alone
    served = Served()
    train(steady(folder / "two to one", batch_size=16), "auto", served)
    assert served.samples == {number: samples[number] for number in range(2, 8)}
    assert_close(runner, folder / "two to one")


def assert_close(runner, folder):
    final = load_from_file(str(folder / "final.pth"))["state_dict"]
    for name, value in runner.model.state_dict().items():
        torch.testing.assert_close(final[name], value, rtol=1e-4, atol=1e-6, msg=name)
