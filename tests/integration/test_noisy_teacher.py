"""Teachers that stop early: what they look at, and that they stop."""

import json
from pathlib import Path

import commands
import pytest
import torch
from commands import folder_of
from mmengine.config import Config

from mmkd_logit.engine.config import find_missing_teachers

TEACHER = "configs/noisy_teacher/wrn16-2_stop53_digits.py"
STUDENT = "configs/noisy_teacher/wrn16-2-stop53_wrn10-1-thin_kl-t1_digits.py"
STOPPED = {
    "wrn16-2_stop53_digits": ("wrn/wrn16-2_digits", 53.77),
    "wrn28-4_stop53": ("wrn/wrn28-4", 53.77),
    "wrn16-2-half_stop53_samples": ("data_amount/wrn10-1-half_samples", 53.77),
    "resnet152_stop81_in1k": ("resnet/resnet152_in1k", 81.16),
}


def load(name):
    return Config.fromfile(f"configs/{name}.py")


def accuracies(config):
    """Train accuracy after each epoch, as logged."""
    (file,) = folder_of(config).glob("*/vis_data/scalars.json")
    lines = map(json.loads, file.read_text().splitlines())
    return [line["accuracy/top1"] for line in lines if "accuracy/top1" in line]


@pytest.mark.parametrize("name", STOPPED)
def test_is_the_plain_config_but_for_the_end(name, project):
    plain, threshold = STOPPED[name]
    ours, plain = load(f"noisy_teacher/{name}"), load(plain)
    *hooks, stop = ours.custom_hooks
    assert hooks == plain.custom_hooks
    assert stop.type == "mmengine.EarlyStoppingHook"
    assert (stop.monitor, stop.rule) == ("accuracy/top1", "greater")
    assert (stop.stopping_threshold, stop.strict) == (threshold, True)
    assert stop.patience > ours.train_cfg.max_epochs
    assert ours.train_cfg.val_interval == 1
    assert ours.train_cfg.max_epochs == plain.train_cfg.max_epochs
    changed = {"custom_hooks", "val_dataloader", "train_cfg"}
    if name.endswith("_samples"):  # its students' config, but for the network
        changed.add("model")
        backbone = {**ours.model.backbone, "depth": 10, "widen_factor": 1}
        assert backbone == plain.model.backbone
    assert {k: v for k, v in ours.items() if k not in changed} == {
        k: v for k, v in plain.items() if k not in changed
    }


@pytest.mark.parametrize("name", STOPPED)
def test_looks_at_clean_training_images(name, project):
    cfg = load(f"noisy_teacher/{name}")
    loaders = (cfg.val_dataloader, cfg.train_dataloader, cfg.test_dataloader)
    outer = [each.dataset for each in loaders]
    if "per_class" in outer[1]:  # the same part of them
        parts = [{k: v for k, v in each.items() if k != "dataset"} for each in outer[:2]]
        assert parts[0] == parts[1]
        outer[:2] = (each.dataset for each in outer[:2])
    seen, train, test = (each.get("dataset", each) for each in outer)
    assert seen.split == train.split == "train" != test.split
    assert seen.get("data_root") == train.get("data_root")
    steps = [
        [
            {k: v for k, v in step.items() if k != "_scope_"}
            for step in each.get("pipeline") or each.dataset.pipeline
        ]
        for each in (outer[0], outer[2], outer[1])
    ]
    assert steps[0] == steps[1] != steps[2]


def test_stop_by_epoch(project):
    cfg = load("noisy_teacher/wrn28-4_10e")
    plain = load("wrn/wrn28-4")
    assert cfg.train_cfg.max_epochs == 10
    cfg.train_cfg.max_epochs = plain.train_cfg.max_epochs
    assert cfg.to_dict() == plain.to_dict()


def test_stops_at_the_threshold_and_teaches(workplace):
    commands.train(STUDENT, "--train-teacher", train_cfg__max_epochs=1)
    seen = accuracies(TEACHER)
    assert len(seen) < load("noisy_teacher/wrn16-2_stop53_digits").train_cfg.max_epochs
    assert all(value <= 53.77 for value in seen[:-1])
    assert seen[-1] > 53.77

    final = folder_of(TEACHER) / "final.pth"
    meta = torch.load(final, weights_only=False)["meta"]
    assert meta["epoch"] == len(seen)
    # The file's own accuracy on the training images, through the other command line.
    words = ["--out", "metrics.json", "--out-item", "metrics"]
    words += ["--cfg-options", "test_dataloader.dataset.dataset.split=train"]
    commands.test("configs/wrn/wrn16-2_digits.py", final, *words)
    metrics = json.loads(Path("metrics.json").read_text())
    assert metrics["accuracy/top1"] == pytest.approx(seen[-1])

    assert (folder_of(STUDENT) / "final.pth").is_file()
    assert not find_missing_teachers(Config.fromfile(STUDENT))


def test_does_not_stop_below_the_threshold(workplace):
    """The control: nothing else in the config ends a run early."""
    commands.train(
        TEACHER,
        train_cfg__max_epochs=2,
        train_dataloader__dataset__dataset__indices=64,
        custom_hooks__1__stopping_threshold=101,
    )
    assert len(accuracies(TEACHER)) == 2
    assert (folder_of(TEACHER) / "final.pth").is_file()
