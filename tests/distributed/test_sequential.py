"""Stages of a run over two and four processes."""

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from processes import run_ranks
from runs import sequential_run, steps_of

from mmkd_logit.engine.launch import prepare_launch

STATES = [("ScaledKLDivLoss", 1.0, 32), ("LogitMSELoss", 1.0, 32), ("LogitMSELoss", 0.5, 48)]


def train_ranks(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    rank, later = dist.get_rank(), int(dist.get_rank() > 0)
    result = {}
    for name, begins in (("together", (1, 2)), ("apart", (1 + later, 2 + later))):
        cfg = sequential_run(folder / name, begins, batch_size=16 // dist.get_world_size())
        if name == "apart":
            cfg.train_cfg.max_epochs = 4  # the later processes must reach its last stage
        prepare_launch(cfg, "pytorch")
        result[name] = steps_of(cfg)
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(tmp_path_factory, request):
    """What each of 2 and of 4 processes did."""
    folder = tmp_path_factory.mktemp("sequential")
    run_ranks(request.param, train_ranks, folder)
    files = [folder / f"{rank}.pt" for rank in range(request.param)]
    return [torch.load(file, weights_only=False) for file in files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process on the joined batches."""
    return steps_of(sequential_run(tmp_path_factory.mktemp("alone"), batch_size=16))


def distance(first, second):
    """Largest distance of two steps' gradients, relative to the largest gradient."""
    largest = max(value.abs().max() for value in first.values())
    return max((first[key] - second[key]).abs().max() / largest for key in first).item()


def test_all_switch_at_the_same_iteration_to_the_gradients_of_one_process(ranks, alone):
    expected = [(i, *STATES[i // 4]) for i in range(12)]
    assert [state for state, _ in alone] == expected
    together = [rank["together"] for rank in ranks]
    for run in together:
        assert [state for state, _ in run] == expected
    for (_, one), (_, first), *others in zip(alone, *together, strict=True):
        assert all(torch.equal(first[key], other[key]) for _, other in others for key in first)
        assert distance(one, first) < 1e-3


def test_control_processes_that_switch_apart(ranks, alone):
    """DDP hides it: all have the same gradients, but not those of one process."""
    first, second = (rank["apart"] for rank in ranks[:2])
    assert [a[0] == b[0] for a, b in zip(first, second, strict=True)] == [True] * 4 + [
        *([False] * 8 + [True] * 4)
    ]
    distances = [distance(one, ours) for (_, one), (_, ours) in zip(alone, first, strict=False)]
    assert max(distances[:4]) < 1e-3
    assert min(distances[4:]) > 1e-2
