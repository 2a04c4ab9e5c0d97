"""Two processes that are cut off, and runs that go on with another number of them."""

import pytest
import torch
from cut_off import Cut, Killed, train
from other_number import Served, steady
from processes import run_ranks
from same_runs import assert_same_runs, differences

from mmkd_logit.checkpoint import load_from_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What both processes left; one process has begun what they went on with."""
    folder = tmp_path_factory.mktemp("resume")
    with pytest.raises(Killed):
        train(steady(folder / "2/one to two", batch_size=16), None, Cut(3))
    return run_ranks("distributed/resume_worker.py", folder, worlds=(2,)) / "2"


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
