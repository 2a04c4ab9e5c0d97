from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runs import assert_same, digits_student, run_config, train, weights

HOOK = dict(type="mmkd_logit.FinalCheckpointHook")


@HOOKS.register_module()
class Fails(Hook):
    """Ends a run as a crash would, and looks at the folder."""

    seen = None

    def after_train_epoch(self, runner):
        Fails.seen = sorted(path.name for path in Path(runner.work_dir).glob("*.pth*"))
        raise RuntimeError("power cut")


@HOOKS.register_module()
class Looks(Hook):
    """Notes whether the file is there before it is written."""

    priority = "VERY_HIGH"
    seen = None

    def after_train(self, runner):
        Looks.seen = Path(runner.work_dir, "final.pth").is_file()


def load(path):
    return torch.load(path, weights_only=False)


def test_weights_after_the_last_iteration(tmp_path):
    runner = train(digits_student(), tmp_path, epochs=2, images=32, custom_hooks=[HOOK])
    final = load(tmp_path / "final.pth")
    assert_same(final["state_dict"], weights(runner))
    assert_same(final["state_dict"], load(tmp_path / "epoch_2.pth")["state_dict"])
    assert (final["meta"]["epoch"], final["meta"]["iter"]) == (2, 4)
    assert not {"optimizer", "param_schedulers"} & set(final)
    assert not list(tmp_path.glob(".*.part"))


def test_it_loads_as_any_checkpoint(tmp_path):
    runner = train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=[HOOK])
    other = Runner.from_cfg(
        run_config(digits_student(), tmp_path / "b", load_from=str(tmp_path / "final.pth"))
    )
    assert other.test() == runner.test()


def test_absent_while_training_and_after_a_crash(tmp_path):
    (tmp_path / "final.pth").write_text("of an earlier run")
    hooks = [HOOK, dict(type="Fails")]
    with pytest.raises(RuntimeError, match="power cut"):
        train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=hooks)
    assert "final.pth" not in Fails.seen
    assert not (tmp_path / "final.pth").exists()
    # A leftover of a crash while the file was written goes.
    (tmp_path / ".final.pth.1-00000000.part").write_text("half")
    runner = train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=[HOOK])
    assert_same(load(tmp_path / "final.pth")["state_dict"], weights(runner))
    assert not list(tmp_path.glob(".*.part"))


def test_resuming_a_finished_run_keeps_it(tmp_path):
    runner = train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=[HOOK])
    hooks = [HOOK, dict(type="Looks")]
    again = train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=hooks, resume=True)
    assert Looks.seen is True
    assert again.iter == runner.iter
    assert_same(load(tmp_path / "final.pth")["state_dict"], weights(runner))


def test_with_ema_it_holds_the_averages(tmp_path):
    hooks = [dict(type="EMAHook", momentum=0.3), HOOK]
    runner = train(digits_student(), tmp_path, epochs=2, images=32, custom_hooks=hooks)
    final = load(tmp_path / "final.pth")
    ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook))
    assert_same(final["state_dict"], dict(ema.ema_model.module.state_dict()))
    assert not torch.equal(final["state_dict"]["head.fc.weight"], runner.model.head.fc.weight)


def test_name_of_the_file(tmp_path):
    hook = dict(HOOK, filename="teacher.pth")
    train(digits_student(), tmp_path, epochs=1, images=32, custom_hooks=[hook])
    assert (tmp_path / "teacher.pth").is_file()
    assert not (tmp_path / "final.pth").exists()
