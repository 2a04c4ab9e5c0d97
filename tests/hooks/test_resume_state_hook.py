"""What checkpoints keep of random states and processes; resumed runs: engine/."""

import io
import random

import numpy as np
import torch
from mmengine.runner import Runner
from runs import digits_student, run_config, train

from mmkd_logit.engine.resume import capture_random_states, restore_random_states

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
