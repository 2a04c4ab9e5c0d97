"""Which labels a run learns from, as its user meets it."""

import json
import logging
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, make_workplace, train
from mmengine.config import Config
from mmengine.runner import Runner
from runs import digits_student, run_config

from mmkd_logit.datasets import Digits, NoisyLabelDataset, draws
from mmkd_logit.engine.fingerprint import fingerprint_of
from mmkd_logit.engine.train import main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")

NOISY = """
_base_ = './{plain}.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        dataset={{{{_base_.train_dataloader.dataset}}}}))
"""
PART = """
_base_ = './{plain}.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.DataSubset',
        per_class=0.5,
        dataset={{{{_base_.train_dataloader.dataset}}}}))
"""


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A student's config, plain, on noisy labels and on a part of the data; the first two ran."""
    folder = tmp_path_factory.mktemp("trained")
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = Tiny()
        plain = Path(tiny.student)
        for name, text in (("noisy", NOISY), ("part", PART)):
            path = plain.with_name(f"{name}-{plain.name}")
            path.write_text(text.format(plain=plain.stem))
            setattr(tiny, name, str(path))
        train(tiny.noisy, "--results", "noisy.jsonl")
        train(tiny.student, "--results", "plain.jsonl")
    return folder, tiny


@pytest.fixture
def tiny(trained_once, tmp_path, monkeypatch):
    """The configs and runs, in a folder of the test's own."""
    folder, tiny = trained_once
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tiny


def log_of(config):
    (log,) = folder_of(config).glob("*/*.log")
    return log.read_text()


def test_said_in_log_checkpoint_and_row(tiny):
    digits = Digits(indices=64)
    expected = NoisyLabelDataset(digits, kind="symmetric", rate=0.4).description["label_noise"]
    line = re.search("Training labels: (.*)", log_of(tiny.noisy))[1]
    assert line == (
        f"symmetric noise, {expected['realised_rate']:.2%} wrong, SHA-256 "
        f"{expected['sha256'][:16]}, 64 samples, rate 0.4, seed 0"
    )
    for name in ("epoch_1.pth", "final.pth"):
        meta = torch.load(folder_of(tiny.noisy) / name, weights_only=False)["meta"]
        assert meta["dataset_meta"]["label_noise"] == expected
    row = json.loads(Path("noisy.jsonl").read_text())
    assert row["labels"] == expected["sha256"]
    assert row["label_noise"] == expected


def test_nothing_to_say_without_noise(tiny):
    assert "Training labels" not in log_of(tiny.student)
    row = json.loads(Path("plain.jsonl").read_text())
    assert row["labels"] is row["label_noise"] is None


def test_the_same_labels_go_on(tiny):
    folder = folder_of(tiny.noisy)
    said = torch.load(folder / "epoch_1.pth", weights_only=False)["meta"]["dataset_meta"]
    train(tiny.noisy, "--resume", folder / "epoch_1.pth", train_cfg__max_epochs=2)
    meta = torch.load(folder / "epoch_2.pth", weights_only=False)["meta"]
    assert meta["epoch"] == 2
    assert meta["dataset_meta"]["label_noise"] == said["label_noise"]


def test_other_labels_are_refused_by_their_settings_unless_told_otherwise(tiny, capsys):
    setting = "train_dataloader.dataset.rate"
    words = ["--resume", "--cfg-options", f"{setting}=0.6"]
    assert f"differs in {setting}: 0.4 -> 0.6. " in error_of(capsys, main, tiny.noisy, *words)
    again = dict(train_dataloader__dataset__rate=0.6, train_cfg__max_epochs=2)
    train(tiny.noisy, "--resume", "--resume-changed", **again)
    logs = "".join(path.read_text() for path in folder_of(tiny.noisy).glob("*/*.log"))
    assert f"Going on all the same with {setting}: 0.4 -> 0.6" in logs
    assert "the training images or labels (hash " in logs
    meta = torch.load(folder_of(tiny.noisy) / "epoch_2.pth", weights_only=False)["meta"]
    assert meta["dataset_meta"]["label_noise"]["rate"] == 0.6


@pytest.mark.parametrize(("config", "other"), [("noisy", "student"), ("student", "noisy")])
def test_noise_neither_comes_nor_goes(tiny, capsys, config, other):
    checkpoint = folder_of(getattr(tiny, other)) / "epoch_1.pth"
    message = error_of(capsys, main, getattr(tiny, config), "--resume", checkpoint)
    assert "differs in train_dataloader.dataset." in message
    # Weights are another matter: fine-tuning on noisy labels is a new run.
    train(getattr(tiny, config), load_from=checkpoint.with_name("final.pth"))


@pytest.mark.parametrize("wrapped", ["noisy", "part"])
def test_labels_and_samples_are_compared_and_not_only_settings(tiny, capsys, monkeypatch, wrapped):
    """As after a change of the rule by which they are drawn."""
    config = getattr(tiny, wrapped)
    train(config)
    other = partial(draws.draw, 1)
    monkeypatch.setattr(draws, "draw", lambda seed, *words: other(*words))
    message = error_of(capsys, main, config, "--resume", "--cfg-options", "train_cfg.max_epochs=2")
    assert "differs in the training images or labels (hash " in message


def test_watching_is_no_part_of_the_config():
    cfg = Config(dict(model=dict(type="x"), custom_hooks=[]))
    before = fingerprint_of(cfg)
    cfg.custom_hooks = [dict(type="mmkd_logit.LabelNoiseHook")]
    assert fingerprint_of(cfg) == before
    cfg.custom_hooks = [dict(type="EMAHook")]
    assert fingerprint_of(cfg) != before


def test_the_hook_may_be_in_the_config_already(tiny):
    config = Path(tiny.noisy).with_stem("twice")
    hooks = "custom_hooks = [dict(type='mmkd_logit.LabelNoiseHook')]\n"
    config.write_text(Path(tiny.noisy).read_text() + hooks)
    train(str(config))
    assert log_of(config).count("Training labels") == 1


@pytest.mark.parametrize("joined", [False, True])
def test_with_mmengines_runner_alone(tmp_path, caplog, joined):
    """Without our command line the hook is in the config; ConcatDataset hands on no metainfo."""

    def runner(seed, **settings):
        cfg = run_config(digits_student(), tmp_path, epochs=1, images=32)
        clean = cfg.train_dataloader.dataset
        noisy = dict(
            type="mmkd_logit.NoisyLabelDataset", dataset=clean, kind="pair", rate=0.5, seed=seed
        )
        datasets = dict(type="ConcatDataset", datasets=[clean, noisy])
        cfg.train_dataloader.dataset = datasets if joined else noisy
        cfg.custom_hooks = [dict(type="mmkd_logit.LabelNoiseHook")]
        cfg.update(settings)
        return Runner.from_cfg(cfg)

    with caplog.at_level(logging.INFO):
        runner(0).train()
        again = dict(resume=True, load_from=str(tmp_path / "epoch_1.pth"))
        runner(0, **again).train()
    assert "metainfo" not in caplog.text
    meta = torch.load(again["load_from"], weights_only=False)["meta"]["dataset_meta"]
    assert meta["label_noise"]["realised_rate"] == 0.5
    runner(1, load_from=again["load_from"]).test()  # weights, and no training
