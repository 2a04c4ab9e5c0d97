"""What checkpoints keep of random states, places and processes; resumed runs: engine/."""

import io
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from runs import digits_student, run_config, train

from mmkd_logit.engine.resume import (
    Place,
    capture_random_states,
    read_place,
    restore_random_states,
    seed_random_states,
)

HOOK = dict(type="mmkd_logit.ResumeStateHook")


def draw():
    gauss = (random.gauss(0, 1), np.random.normal(), torch.randn(()).item())  # each keeps a second
    return (*gauss, random.random(), np.random.rand(), torch.rand(()).item(), random.gauss(0, 1))


def test_random_states_survive_a_safe_checkpoint():
    draw()
    file = io.BytesIO()
    torch.save(capture_random_states(), file)
    expected = [draw() for _ in range(700)]  # beyond a block of the Mersenne Twister
    assert [draw() for _ in range(700)] != expected
    file.seek(0)
    restore_random_states(torch.load(file, weights_only=True))
    assert [draw() for _ in range(700)] == expected


@pytest.mark.parametrize("name", ["python", "numpy_more", "torch"])
def test_damaged_random_states_are_refused(name):
    states = capture_random_states()
    for damaged in (dict(states, **{name: torch.zeros(5)}), dict(states, **{name: None}), None):
        with pytest.raises(ValueError, match="random states are damaged"):
            restore_random_states(damaged)


def test_states_of_new_processes_follow_from_seed_iteration_and_rank():
    drawn = {}
    for numbers in [(0, 0, 1), (0, 0, 2), (0, 1, 1), (1, 0, 1)]:
        seed_random_states(*numbers)
        drawn[numbers] = draw()
        torch.rand(9)
        seed_random_states(*numbers)
        assert draw() == drawn[numbers]
    assert len({value for values in drawn.values() for value in values}) == 28


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        dict(epoch=1, iter=2, batch=0),
        dict(epoch=1, iter=2, batch=-1, validated=True),
        dict(epoch=1, iter=2.0, batch=0, validated=True),
        dict(epoch=True, iter=2, batch=0, validated=True),
        dict(epoch=1, iter=2, batch=0, validated=1),
    ],
)
def test_places(wrong):
    place = Place(1, 6, 2, validated=False)
    assert read_place(place._asdict()) == place
    with pytest.raises(ValueError, match="is no place in a run"):
        read_place(wrong)


def test_with_mmengines_loop_it_does_nothing(tmp_path):
    runner = train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=[HOOK])
    assert "resume_state" not in torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    again = train(digits_student(), tmp_path, epochs=2, images=32, custom_hooks=[HOOK], resume=True)
    assert (runner.iter, again.iter) == (2, 4)


def test_validating_and_testing_alone_needs_no_loop(tmp_path):
    runner = Runner.from_cfg(run_config(digits_student(), tmp_path, images=32, custom_hooks=[HOOK]))
    assert runner.val()
    assert runner.test()
    assert isinstance(runner._train_loop, dict)  # it was not built
