"""Checkpoints at whatever moment a run ends."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from runs import assert_same, digits_student, run_config, weights

from mmkd_logit.engine.fingerprint import read_run
from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.engine.save import AtomicCheckpointHook
from mmkd_logit.utils import files as _atomic_files
from mmkd_logit.utils.files import why_damaged

OURS = "mmkd_logit.AtomicCheckpointHook"


def run(folder, epochs=3, kind=OURS, resume=False, **hook):
    settings = dict(type=kind, interval=1, **hook)
    cfg = run_config(
        digits_student(),
        folder,
        epochs=epochs,
        images=16,
        default_hooks=dict(checkpoint=settings),
        visualizer=dict(type="Visualizer", vis_backends=[]),
    )
    if resume:
        found = last_checkpoint(folder)
        cfg.load_from, cfg.resume = (None, False) if found is None else (str(found), True)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def files(folder):
    return sorted(path.name for path in Path(folder).glob("*.pth"))


def load(path):
    return torch.load(path, weights_only=False)


def test_they_are_mmengines(tmp_path):
    settings = dict(max_keep_ckpts=2, save_best="auto")
    mine = run(tmp_path / "ours", **settings)
    theirs = run(tmp_path / "theirs", kind="CheckpointHook", **settings)
    assert files(tmp_path / "ours") == files(tmp_path / "theirs")
    assert len(files(tmp_path / "ours")) == 3
    for name in files(tmp_path / "ours"):
        first, second = (load(tmp_path / kind / name) for kind in ("ours", "theirs"))
        assert first.keys() == second.keys()
        assert_same(first["state_dict"], second["state_dict"])
        assert why_damaged(tmp_path / "ours" / name, only_zip=True) is None
    hubs = [each.message_hub for each in (mine, theirs)]
    assert hubs[0].get_info("best_score") == hubs[1].get_info("best_score")
    assert Path(tmp_path, "ours/last_checkpoint").read_text() == str(tmp_path / "ours/epoch_3.pth")
    assert read_run(tmp_path / "ours")["checkpoints"] == [
        str(tmp_path / f"ours/epoch_{epoch}.pth") for epoch in (2, 3)
    ]


@pytest.fixture
def moments(tmp_path, monkeypatch):
    """Copies of a run's folder before and after each change: a file gets its name, or goes."""
    folder, copies = tmp_path / "run", []

    def keep():
        copies.append(tmp_path / f"moment{len(copies)}")
        shutil.copytree(folder, copies[-1])

    def at(change):
        def changed(*args):
            keep()
            change(*args)
            keep()

        return changed

    monkeypatch.setattr(_atomic_files, "_swap", at(_atomic_files._swap))
    monkeypatch.setattr("os.remove", at(os.remove))
    return folder, copies


def test_a_kill_at_any_moment(moments, monkeypatch):
    """One that is whole is there from the first on, and the run ends as if nothing had been."""
    settings = dict(max_keep_ckpts=1, save_best="accuracy/top1", rule="less")
    folder, copies = moments
    whole = run(folder, **settings)
    monkeypatch.undo()
    assert len(copies) >= 30
    before = 0
    for number, copy in enumerate(copies):
        bests = [copy / name for name in files(copy) if name.startswith("best")]
        assert all(why_damaged(path) is None for path in bests)
        found = last_checkpoint(copy)
        epoch = 0 if found is None else load(found)["meta"]["epoch"]
        assert epoch in (before, before + 1)  # never back, and never none once there was one
        assert found is None or found.parent == copy
        before = epoch
        if number % 9 == 4:
            assert_same(weights(run(copy, resume=True, **settings)), weights(whole))
            names = [name for name in files(copy) if not name.startswith("best")]
            assert names == ["epoch_3.pth"]
            assert not list(copy.glob(".*.part"))


def test_too_many_are_removed_by_the_next_start(tmp_path, monkeypatch):
    """The run was killed after it named the new one and before it removed an old one."""
    with monkeypatch.context() as patch:
        patch.setattr(AtomicCheckpointHook, "_remove_outdated", lambda self: None)
        run(tmp_path, max_keep_ckpts=2)
    assert files(tmp_path) == ["epoch_1.pth", "epoch_2.pth", "epoch_3.pth"]
    run(tmp_path, max_keep_ckpts=2, resume=True)
    assert files(tmp_path) == ["epoch_2.pth", "epoch_3.pth"]


def test_a_best_one_with_the_name_that_it_had(tmp_path):
    """A validation that is done again may give another score."""
    settings = dict(interval=1, max_keep_ckpts=1, save_param_scheduler=False)
    hook = AtomicCheckpointHook(save_best="a", rule="greater", **settings)
    cfg = run_config(digits_student(), tmp_path, images=16)
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(cfg.train_cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    hook.before_train(runner)
    hook.after_train_epoch(runner)
    runner.train_loop._epoch = 1
    hook.after_val_epoch(runner, dict(a=1.0))
    hook.after_val_epoch(runner, dict(a=2.0))
    assert files(tmp_path) == ["best_a_epoch_1.pth", "epoch_1.pth"]
    runner.train_loop._epoch = 2
    hook.after_val_epoch(runner, dict(a=3.0))
    assert [name for name in files(tmp_path) if "best" in name] == ["best_a_epoch_2.pth"]


@pytest.mark.parametrize("save_best", ["a", ["a", "b"]])
def test_only_a_best_one_of_its_own_is_removed(tmp_path, monkeypatch, save_best):
    """The folder was moved, or the checkpoint is of another run, whose best one must stay."""
    theirs = tmp_path / "theirs" / "best_a_epoch_1.pth"
    theirs.parent.mkdir()
    theirs.touch()
    cfg = run_config(digits_student(), tmp_path / "run", images=16)
    hook = AtomicCheckpointHook(save_best=save_best, rule="greater", out_dir=str(tmp_path / "disk"))
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(cfg.train_cfg)
    key = "best_ckpt" if save_best == "a" else "best_ckpt_a"
    runner.message_hub.update_info(key, str(theirs))
    hook.before_train(runner)
    own = tmp_path / "disk" / "run"
    assert runner.message_hub.get_info(key) == str(own / theirs.name)
    own.mkdir(parents=True)
    (own / theirs.name).touch()
    runner.train_loop._epoch = 2
    runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
    save, there = runner.save_checkpoint, []

    def saving(*args, **kwargs):
        there.append((own / theirs.name).is_file())
        save(*args, **kwargs)

    monkeypatch.setattr(runner, "save_checkpoint", saving)
    hook.after_val_epoch(runner, dict(a=1.0, b=2.0))
    assert there[0]  # until the new one is
    assert theirs.is_file()
    assert "best_a_epoch_2.pth" in files(own)
    assert theirs.name not in files(own)


def test_another_backend_is_left_alone(tmp_path):
    hook = AtomicCheckpointHook(backend_args=dict(backend="local"))
    assert isinstance(hook, CheckpointHook)
    assert hook.backend_args == dict(backend="local")
    run(tmp_path, epochs=1, backend_args=dict(backend="local"))
    assert files(tmp_path) == ["epoch_1.pth"]
    assert b"sha256=" not in (tmp_path / "epoch_1.pth").read_bytes()[-71:]
