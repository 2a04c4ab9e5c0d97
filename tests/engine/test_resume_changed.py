"""A run does not go on from the checkpoint of another unnoticed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Tiny, error_of, folder_of, make_workplace, train
from mmengine.config import Config
from runs import digits_student, run_config

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine.fingerprint import (
    computed_content,
    fingerprint,
    fingerprint_of,
    list_changes,
    read_run,
    row_fingerprint,
)
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.train import main

RESUMED = "is of a run that differs in "
ADVICE = (
    ". Restore that, begin a new run in another --work-dir, or go on all the same with "
    "--resume-changed"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return computed_content(config(tmp_path_factory.mktemp("made")))


def config(folder, **changes):
    """A config with each kind of field, and what they name."""
    for name in ("teacher.pth", "labels.npz"):
        Path(folder, name).write_text(name)
    teacher = dict(config="configs/wrn/wrn16-2.py", checkpoint=str(folder / "teacher.pth"))
    noise = dict(type="mmkd_logit.NoisyLabelDataset", kind="file", file=str(folder / "labels.npz"))
    cfg = Config(
        dict(
            model=dict(type="mmkd_logit.LogitDistiller", alpha=0.5, teacher=teacher),
            train_dataloader=dict(batch_size=16, num_workers=0, dataset=noise),
            val_dataloader=dict(batch_size=16),
            test_dataloader=dict(batch_size=16),
            train_cfg=dict(by_epoch=True, max_epochs=3, val_interval=1),
            param_scheduler=[dict(type="MultiStepLR", milestones=[1, 2])],
            custom_hooks=[dict(type="EMAHook", momentum=0.1)],
            randomness=dict(seed=0),
            work_dir="here",
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model.alpha": 0.9}, ["model.alpha: 0.5 -> 0.9"]),
        ({"randomness.seed": 1}, ["randomness.seed: 0 -> 1"]),
        ({"param_scheduler.0.milestones": [1]}, ["param_scheduler.0.milestones: [1, 2] -> [1]"]),
        (
            {"train_dataloader.dataset.key": "x" * 99},
            ['train_dataloader.dataset.key: not set -> "' + "x" * 56 + "..."],
        ),
        ({"custom_hooks.0.momentum": 0.2}, ["custom_hooks.0.momentum: 0.1 -> 0.2"]),
        ({"model.teacher.micro_batch": 8}, ["model.teacher.micro_batch: not set -> 8"]),
        (
            {"model.teacher.config": "configs/wrn/wrn16-4.py"},
            [
                "model.teacher.network.backbone.widen_factor: 2 -> 4",
                "model.teacher.network.head.in_channels: 128 -> 256",
            ],
        ),
        ({"train_dataloader.batch_size": 8}, ["processes x train_dataloader.batch_size: 1 x 16"]),
        ({"load_from": "epoch_1.pth"}, ['load_from: not set -> "epoch_1.pth"']),
        # What may differ.
        ({"train_cfg.max_epochs": 9, "work_dir": "there", "launcher": "pytorch"}, []),
        ({"train_dataloader.num_workers": 4, "val_dataloader.batch_size": 2}, []),
        ({"test_dataloader.batch_size": 1, "train_cfg.val_interval": 2}, []),
        ({"default_hooks": dict(logger=dict(type="LoggerHook", interval=1))}, []),
        ({"custom_hooks": [dict(type="EMAHook", momentum=0.1), {"type": "mmkd_logit.X"}]}, ["c"]),
    ],
)
def test_changes_are_told_by_field(tmp_path, made, changes, told):
    found = list_changes(made, computed_content(config(tmp_path, **changes)))
    assert len(found) == len(told), found
    for text, begin in zip(found, told, strict=True):
        assert text.startswith(begin)


def test_files_count_by_their_content(tmp_path, made):
    """Those of the other run lie in another folder."""
    cfg = config(tmp_path)
    assert list_changes(made, computed_content(cfg)) == []
    (tmp_path / "teacher.pth").write_text("trained longer")
    (tmp_path / "labels.npz").write_text("by other people")
    told = list_changes(made, computed_content(cfg))
    assert [text.partition(":")[0] for text in told] == [
        "model.teacher.weights",
        "train_dataloader.dataset.file",
    ]


def test_processes_may_change_with_the_batch(tmp_path, made, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert list_changes(made, computed_content(config(tmp_path))) == []  # without a launcher
    two = dict(launcher="pytorch")
    assert list_changes(made, computed_content(config(tmp_path, **two))) == [
        "processes x train_dataloader.batch_size: 1 x 16 -> 2 x 16"
    ]
    half = config(tmp_path, **{"train_dataloader.batch_size": 8}, **two)
    assert list_changes(made, computed_content(half)) == []


@pytest.mark.parametrize("damaged", [None, {}, [1], dict(model={}), dict(processes="2")])
def test_damaged_descriptions_are_refused(made, damaged):
    with pytest.raises(ValueError, match="what the checkpoint says of its run is damaged"):
        list_changes(damaged, made)


class Trained:
    """A teacher and its student, and a run with another seed."""

    def __init__(self, folder):
        os.chdir(folder)
        make_workplace(folder)
        self.tiny = Tiny()
        train(self.tiny.kd, "--train-teacher")
        train(self.tiny.student, "--seed", 5)
        self.student = folder_of(self.tiny.student, seed=5)


def test_a_changed_run_stops_unless_told_otherwise(trained, tmp_path, capsys):
    folder = shutil.copytree(folder_of(trained.tiny.kd), tmp_path / "run")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    words = ["--resume", "--work-dir", folder]
    message = error_of(capsys, main, trained.tiny.kd, *words, "--cfg-options", "model.alpha=0.9")
    assert message == f"{folder}/epoch_1.pth {RESUMED}model.alpha: not set -> 0.9{ADVICE}"
    # Nothing was written, not even MMEngine's copy of the config.
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == before
    again = dict(model__alpha=0.9, train_cfg__max_epochs=2)
    train(trained.tiny.kd, *words, "--resume-changed", **again)
    assert load_from_file(str(folder / "final.pth"))["meta"]["epoch"] == 2
    said = "".join(path.read_text() for path in folder.glob("*/*.log"))
    assert "Going on all the same with model.alpha: not set -> 0.9" in said


def test_another_teacher_and_other_pictures(trained, capsys, monkeypatch):
    teacher = folder_of(trained.tiny.teacher) / "final.pth"
    content = torch.load(teacher, weights_only=True)
    content["state_dict"]["head.fc.bias"] += 1
    before = teacher.read_bytes()
    torch.save(content, teacher)
    message = error_of(capsys, main, trained.tiny.kd, "--resume")
    assert f"{RESUMED}model.teacher.weights: " in message
    teacher.write_bytes(before)

    monkeypatch.setattr("mmkd_logit.datasets.Digits.get_data_info", shifted)
    message = error_of(capsys, main, trained.tiny.kd, "--resume")
    assert f"{RESUMED}the training images or labels (hash " in message


def shifted(self, idx):
    """What another version of the data would hold."""
    info = super(type(self), self).get_data_info(idx)
    return dict(info, img=np.roll(info["img"], 1))


def test_the_seed_is_the_checkpoints(trained, tmp_path, capsys):
    words = ["--seed", 6, "--resume", trained.student / "epoch_1.pth"]
    message = error_of(capsys, main, trained.tiny.student, *words)
    assert f"{RESUMED}randomness.seed: 5 -> 6{ADVICE}" in message
    more = ["--resume-changed", "--results", tmp_path / "runs.jsonl"]
    train(trained.tiny.student, *words, *more, train_cfg__max_epochs=2)
    (row,) = read_lines(tmp_path / "runs.jsonl")
    assert row["seed"] == 5


def test_a_changed_run_is_no_run_of_its_config(trained, tmp_path):
    """Neither its row nor its folder is taken for one, and it can be resumed again."""
    folder = shutil.copytree(trained.student, tmp_path / "run")
    words = ["--seed", 5, "--work-dir", folder, "--results", tmp_path / "runs.jsonl"]
    lr = dict(optim_wrapper__optimizer__lr=0.03)
    first = folder / "epoch_1.pth"
    more = ("--resume", first, "--resume-changed")
    train(trained.tiny.student, *words, *more, train_cfg__max_epochs=2, **lr)
    for row in (read_lines(tmp_path / "runs.jsonl")[0], read_run(folder)):
        (change,) = row["computed"]["changed"]
        assert change.startswith("optim_wrapper.optimizer.lr: ")
        content = {key: value for key, value in row["computed"].items() if key != "changed"}
        assert row_fingerprint(row) != fingerprint(content)
    last = max(folder.glob("epoch_*.pth"))
    changed = load_from_file(str(last))["made_of"]["computed"]["changed"]
    assert changed == [change]
    train(trained.tiny.student, *words, "--resume", last, train_cfg__max_epochs=3, **lr)
    assert read_lines(tmp_path / "runs.jsonl")[1]["computed"]["changed"] == changed


def test_many_changes_are_cut_short(trained, capsys):
    words = ["configs/wrn/wrn16-2.py", "--resume", trained.student / "epoch_1.pth"]
    message = error_of(capsys, main, *words)
    assert message.count(" -> ") == 8
    assert " more. Restore that" in message


def test_what_is_kept_of_a_config_is_text_that_runs_nothing(trained):
    made_of = load_from_file(str(trained.student / "epoch_1.pth"))["made_of"]
    assert json.loads(json.dumps(made_of))["computed"]["model"]["type"] == "ImageClassifier"
    assert set(made_of) == {"computed", "data"}


def test_a_checkpoint_of_version_0_1_0(trained, tmp_path, capsys):
    folder = shutil.copytree(trained.student, tmp_path / "run")
    path = folder / "epoch_1.pth"
    checkpoint = load_from_file(str(path))
    checkpoint["made_of"] = dict(config="{}", origin={}, data=checkpoint["made_of"]["data"])
    torch.save(checkpoint, path)
    words = ["--seed", 5, "--resume", "--work-dir", folder]
    message = error_of(capsys, main, trained.tiny.student, *words)
    why = "the version of mmkd_logit (0.1.0), whose settings cannot be compared"
    assert message == f"{path} {RESUMED}{why}{ADVICE}"
    train(trained.tiny.student, *words, "--resume-changed", train_cfg__max_epochs=2)
    assert load_from_file(str(folder / "final.pth"))["meta"]["epoch"] == 2


def test_what_decides_the_weights_counts(tmp_path):
    """The order of the samples, and what a schedule follows."""

    def of(**changes):
        return fingerprint_of(run_config(digits_student(), tmp_path, **changes))

    log = dict(logger=dict(type="LoggerHook"))
    assert of(default_hooks=log) != of(default_hooks=dict(log, sampler_seed=None))
    follows = dict(type="ReduceOnPlateauLR", monitor="accuracy/top1", rule="greater")
    other = dict(type="Accuracy", thrs=0.9)
    assert of(param_scheduler=follows) != of(param_scheduler=follows, val_evaluator=other)
    assert of() == of(val_evaluator=other)
    follows = dict(type="ReduceOnPlateauLR")  # the loss, by default
    rare = dict(by_epoch=True, max_epochs=2, val_interval=2)
    assert of(param_scheduler=follows) != of(param_scheduler=follows, train_cfg=rare)
