"""Runs that are cut off and resumed equal those that are not, bit for bit."""

import multiprocessing
import os
import shutil

import pytest
import torch
from cut_off import EMA, KINDS, Cut, Killed, kd, plain, sequential, train, train_in_parts
from mmengine.hooks import Hook
from mmengine.runner import Runner
from runs import weights
from same_runs import assert_same_runs, curves, differences, value_differences
from stop_hooks import SignalAt

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine.resume import MADE_OF, STATE, ResumeStateHook, last_checkpoint
from mmkd_logit.engine.runner import QuietRunner, make_resumable


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_within_an_epoch_and_at_its_end(tmp_path, kind):
    """Iterations 5 and 7 are done twice, from the end of an epoch and from within one."""
    train(KINDS[kind](tmp_path / "whole"))
    train_in_parts(lambda: KINDS[kind](tmp_path / "parts"), 5, 7)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(("kind", "persistent"), [("with_workers", True), ("by_iteration", False)])
def test_no_workers_are_left(tmp_path, kind, persistent):
    cfg = KINDS[kind](tmp_path)
    cfg.train_dataloader.update(num_workers=2, persistent_workers=persistent)
    before = multiprocessing.active_children()
    runner = train(cfg)
    assert multiprocessing.active_children() == before
    assert runner.train_loop.dataloader.num_workers == 2


@pytest.mark.parametrize("iteration", [7, 8])
def test_asked_to_stop_within_an_epoch_and_at_its_end(half, tmp_path, iteration, capsys):
    """What a scheduler's signal leaves is of that very iteration, due to be saved or not."""
    folder = tmp_path / "parts"
    with pytest.raises(SystemExit) as end:
        train(plain(folder), None, SignalAt(iteration, "SIGTERM"))
    assert end.value.code == 143
    capsys.readouterr()
    saved = last_checkpoint(folder)
    assert saved.name == "interrupted.pth"
    assert load_from_file(str(saved))[STATE]["place"]["iter"] == iteration
    note = Note()
    train(plain(folder), "auto", note)
    assert note.seen[0] == (iteration // 4, iteration, iteration % 4)
    assert_same_runs(half / "whole", folder)


class Note(Hook):
    """Notes the iterations that a run does, and their places in the epoch."""

    def __init__(self):
        self.seen, self.validations = [], 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append((runner.epoch, runner.iter, batch_idx))

    def before_val(self, runner):
        self.validations += 1


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run with dropout and MixUp, and one that was cut off after 6 of 12 iterations."""
    folder = tmp_path_factory.mktemp("half")
    train(plain(folder / "whole"))
    with pytest.raises(Killed):
        train(plain(folder / "part"), None, Cut(7))
    return folder


def go_on(half, folder, change=None, **kwargs):
    """Resume the half run from a changed checkpoint, in another folder."""
    checkpoint = load_from_file(str(half / "part" / "iter_6.pth"))
    if change is not None:
        change(checkpoint)
    folder.mkdir(exist_ok=True)
    torch.save(checkpoint, folder / "changed.pth")
    note = Note()
    runner = train(plain(folder, **kwargs), str(folder / "changed.pth"), note)
    return runner, note.seen, load_from_file(str(half / "whole" / "iter_12.pth"))


def test_an_iteration_keeps_its_number(half, tmp_path):
    _, seen, whole = go_on(half, tmp_path)
    assert seen == [(n // 4, n, n % 4) for n in range(6, 12)]
    last = load_from_file(str(tmp_path / "iter_12.pth"))
    assert value_differences(last["optimizer"], whole["optimizer"]) == []
    assert (tmp_path / "final.pth").read_bytes() == (half / "whole/final.pth").read_bytes()
    lines = curves(tmp_path)["loss"][0]
    assert lines.tolist() == [8, 10, 12]


@pytest.mark.parametrize("name", ["torch", "numpy", "numpy_more"])
def test_without_the_random_states_it_is_another_run(half, tmp_path, name):
    """The control: dropout, crops and MixUp draw from these."""

    def change(checkpoint):
        states = checkpoint[STATE]["processes"][0]["random"]
        if name == "torch":
            states[name] = torch.Generator().manual_seed(5).get_state()
        elif name == "numpy":
            states[name] = states[name].flip(0)
        else:
            states[name][0] = (states[name][0] + 7) % 600

    _, seen, whole = go_on(half, tmp_path, change)
    assert len(seen) == 6
    assert value_differences(
        load_from_file(str(tmp_path / "iter_12.pth"))["optimizer"], whole["optimizer"]
    )


def test_a_checkpoint_of_others_is_resumed_and_said_to_be_inexact(half, tmp_path):
    def change(checkpoint):
        del checkpoint[STATE], checkpoint[MADE_OF]

    runner, seen, whole = go_on(half, tmp_path, change, log_level="INFO")
    assert seen == [(n // 4, n, n % 4) for n in range(6, 12)]
    said = "".join(path.read_text() for path in tmp_path.glob("*/*.log"))
    assert "Continuing in epoch 2, after 6 iterations, not exactly: the checkpoint has no" in said
    assert "changed.pth does not say of what run it is; nothing is compared with it" in said
    assert not torch.equal(weights(runner)["head.fc.weight"], whole["state_dict"]["head.fc.weight"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("hooks"), "KeyError"),
        (lambda state: state.pop("place"), "KeyError"),
        (lambda state: state["place"].update(epoch=-1), "epoch=-1, .* is no progress of a run"),
        (lambda state: state["place"].update(iter=2.0), "iter=2.0, .* is no progress of a run"),
        (lambda state: state["processes"][0].pop("random"), "KeyError"),
        (lambda state: state["processes"][0]["random"].update(torch=torch.zeros(3)), "Error"),
        (
            lambda state: state["processes"][0]["buffers"].update({"model.no": torch.zeros(1)}),
            r"KeyError\('model.no'\)",
        ),
    ],
)
def test_damaged_states_are_refused(half, tmp_path, change, reason):
    message = rf"the state in .*changed.pth is damaged or of another model \(.*{reason}.*\); resume"
    with pytest.raises(ValueError, match=message):
        go_on(half, tmp_path, lambda checkpoint: change(checkpoint[STATE]))
    assert not (tmp_path / "final.pth").exists()


def renamed(state, prefix):
    for name in [*state]:
        state[prefix + name] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["state_dict"].clear(), "holds no state_dict for the network of this config"),
        (
            lambda c: renamed(c["state_dict"], "branch."),
            r"missing keys \(\d\d of \d\d\) '.*', \.\.\.; unexpected .* begin with 'branch.'",
        ),
        (
            lambda c: c["state_dict"].pop("head.fc.bias"),
            r"missing keys \(1 .* 'head.fc.bias'",
        ),
        (lambda c: c["state_dict"].update({"head.x": torch.zeros(1)}), "unexpected .* 'head.x'"),
        (
            lambda c: c["state_dict"].update({"head.fc.bias": torch.zeros(7)}),
            r"size mismatch \(1 of \d\d\) 'head.fc.bias: \(7,\), not \(10,\)'",
        ),
        (lambda c: c.update(state_dict=None), "holds no state_dict"),
        (lambda c: c["ema_state_dict"].clear(), "no state_dict for the average"),
    ],
)
def test_weights_that_do_not_fit_are_refused(half, tmp_path, change, reason):
    with pytest.raises(ValueError, match=rf"changed.pth .*{reason}") as error:
        go_on(half, tmp_path, change)
    assert len(str(error.value).replace(str(tmp_path), "")) < 600
    assert [path.name for path in tmp_path.glob("*.pth")] == ["changed.pth"]


def test_the_prefixes_of_wrappers_are_left_out(half, tmp_path):
    go_on(half, tmp_path, lambda checkpoint: renamed(checkpoint["state_dict"], "module._orig_mod."))
    assert (tmp_path / "final.pth").read_bytes() == (half / "whole/final.pth").read_bytes()


def evaluated(folder, **kwargs):
    """A run by epochs that keeps its best weights, and stops early."""
    stop = dict(type="EarlyStoppingHook", monitor="accuracy/top1", patience=2, min_delta=90.0)
    saved = dict(type="CheckpointHook", interval=1, max_keep_ckpts=2, save_best="accuracy/top1")
    cfg = kd(folder, epochs=6, saved=saved, hooks=[EMA, stop], **kwargs)
    cfg.param_scheduler = dict(
        type="ReduceOnPlateauLR", monitor="accuracy/top1", rule="greater", patience=0, threshold=90
    )
    return cfg


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run of 6 epochs that has stopped after 3."""
    folder = tmp_path_factory.mktemp("stopped") / "whole"
    assert train(evaluated(folder)).iter == 12
    return folder


def test_cut_off_before_in_and_after_a_validation(stopped, tmp_path):
    """The third cut is between what is written of the best weights and what comes after it."""
    cuts = [Cut(4, "before_val"), Cut(4, "before_val_iter"), Cut(4, "after_val_epoch")]
    train_in_parts(lambda: evaluated(tmp_path / "parts"), *cuts, Cut(8, "after_val_iter"))
    assert_same_runs(stopped, tmp_path / "parts")
    assert curves(stopped)["accuracy/top1"][0].tolist() == [1, 2, 3]


def test_a_validation_that_is_due_is_of_the_stage_before_it(tmp_path):
    """The stage that begins after epoch 2 has another teacher, which the validation compares."""
    saved = dict(type="CheckpointHook", interval=1)
    train(sequential(tmp_path / "whole", saved=saved))
    train_in_parts(lambda: sequential(tmp_path / "parts", saved=saved), Cut(8, "before_val"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("forgotten", ["validated", "hooks"])
def test_without_its_validations_it_is_another_run(stopped, tmp_path, monkeypatch, forgotten):
    """The controls of the test above."""
    load = ResumeStateHook.after_load_checkpoint

    def forget(self, runner, checkpoint):
        if forgotten == "validated":
            checkpoint[STATE]["place"]["validated"] = True
        else:
            checkpoint[STATE]["hooks"] = []
        load(self, runner, checkpoint)

    cut = Cut(4, "before_val") if forgotten == "validated" else Cut(8, "after_val_epoch")
    monkeypatch.setattr(ResumeStateHook, "after_load_checkpoint", forget)
    train_in_parts(lambda: evaluated(tmp_path / "parts"), cut)
    assert differences(stopped, tmp_path / "parts")


def test_a_finished_run_trains_nothing_and_stays_as_it_is(half, tmp_path):
    shutil.copytree(half / "whole", tmp_path / "again")
    note = Note()
    runner = train(plain(tmp_path / "again"), "auto", note)
    assert (runner.epoch, runner.iter, note.seen) == (3, 12, [])
    assert note.validations == 1  # its last checkpoint was written before it
    assert_same_runs(half / "whole", tmp_path / "again")


def test_nothing_to_resume_is_said(tmp_path, capsys):
    with pytest.raises(Killed):
        train(plain(tmp_path), "auto", Cut(1))
    assert f"nothing to resume in {tmp_path}; starting from the beginn" in capsys.readouterr().out


def test_a_run_without_a_seed_takes_that_of_its_checkpoint(tmp_path):
    """MMEngine takes it too late: the sampler then has another."""

    def seedless(folder, **randomness):
        return plain(folder, randomness=dict(seed=None) | randomness)

    with pytest.raises(Killed):
        train(seedless(tmp_path / "parts"), None, Cut(7))
    seed = load_from_file(str(tmp_path / "parts/iter_6.pth"))["meta"]["seed"]
    train(seedless(tmp_path / "parts"), "auto")
    train(seedless(tmp_path / "whole", seed=seed))
    files = [tmp_path / name / "final.pth" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_with_mmengines_runner_the_hook_and_the_loop_are_enough(tmp_path):
    def cfg(folder, **kwargs):
        made = plain(folder, **kwargs)
        make_resumable(made)
        made.custom_hooks.append(dict(type="mmkd_logit.ResumeStateHook"))
        return made

    Runner.from_cfg(cfg(tmp_path / "whole")).train()
    runner = Runner.from_cfg(cfg(tmp_path / "parts"))
    runner.register_hook(Cut(7))
    with pytest.raises(Killed):
        runner.train()
    Runner.from_cfg(cfg(tmp_path / "parts", resume=True)).train()
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_runs_say_so_to_cublas(monkeypatch, deterministic):
    """Before anything runs on a GPU, and without overruling what is set."""
    name, given = "CUBLAS_WORKSPACE_CONFIG", []
    monkeypatch.setattr(Runner, "set_randomness", lambda _, **settings: given.append(settings))
    runner, settings = object.__new__(QuietRunner), dict(seed=1, deterministic=deterministic)
    monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        runner.set_randomness(**settings)
        assert os.environ.get(name) == (":4096:8" if deterministic else None)
        os.environ[name] = ":16:8"
        runner.set_randomness(**settings)
        assert os.environ[name] == ":16:8"
    assert given == [settings] * 2


def test_a_run_that_a_threshold_stopped_is_resumed_at_its_end(tmp_path):
    """Its last checkpoint is written again after the validation, which is not done again then."""

    def cfg():
        stop = dict(type="EarlyStoppingHook", monitor="accuracy/top1", stopping_threshold=1.0)
        saved = dict(type="CheckpointHook", interval=1, save_best="accuracy/top1")
        return kd(tmp_path, epochs=4, saved=saved, hooks=[stop])

    assert train(cfg()).iter == 4
    final = (tmp_path / "final.pth").read_bytes()
    assert train(cfg(), "auto").iter == 4
    assert (tmp_path / "final.pth").read_bytes() == final
