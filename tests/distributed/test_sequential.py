"""Stages of a run over two and four processes."""

import pytest
import torch
from processes import run_ranks
from runs import sequential_run, steps_of

STATES = [("ScaledKLDivLoss", 1.0, 32), ("LogitMSELoss", 1.0, 32), ("LogitMSELoss", 0.5, 48)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_ranks("distributed/sequential_worker.py", tmp_path_factory.mktemp("sequential"))


def runs(folder, name, world):
    files = [folder / str(world) / f"{rank}.pt" for rank in range(world)]
    return [torch.load(file, weights_only=False)[name] for file in files]


@pytest.fixture(scope="module")
def alone(folder):
    """One process on the joined batches."""
    return steps_of(sequential_run(folder / "alone", batch_size=16))


def distance(first, second):
    """Largest distance of two steps' gradients, relative to the largest gradient."""
    largest = max(value.abs().max() for value in first.values())
    return max((first[key] - second[key]).abs().max() / largest for key in first).item()


@pytest.mark.parametrize("world", [2, 4])
def test_all_switch_at_the_same_iteration_to_the_gradients_of_one_process(folder, alone, world):
    expected = [(i, *STATES[i // 4]) for i in range(12)]
    assert [state for state, _ in alone] == expected
    for run in runs(folder, "together", world):
        assert [state for state, _ in run] == expected
    for (_, one), (_, first), *others in zip(alone, *runs(folder, "together", world), strict=True):
        assert all(torch.equal(first[key], other[key]) for _, other in others for key in first)
        assert distance(one, first) < 1e-3


@pytest.mark.parametrize("world", [2, 4])
def test_control_processes_that_switch_apart(folder, alone, world):
    """DDP hides it: all have the same gradients, but not those of one process."""
    first, second = runs(folder, "apart", world)[:2]
    assert [a[0] == b[0] for a, b in zip(first, second, strict=True)] == [True] * 4 + [
        *([False] * 8 + [True] * 4)
    ]
    distances = [distance(one, ours) for (_, one), (_, ours) in zip(alone, first, strict=False)]
    assert max(distances[:4]) < 1e-3
    assert min(distances[4:]) > 1e-2
