"""Which labels a run learns from, as its user meets it."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, make_workplace, train
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from runs import digits_student, run_config

from mmkd_logit.datasets import Digits, NoisyLabelDataset
from mmkd_logit.engine.fingerprint import fingerprint_of
from mmkd_logit.engine.train import build_config, build_parser, main

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


def hash_in(config, **changes):
    words = [config, "--cfg-options", *(f"{key}={value}" for key, value in changes.items())]
    cfg = build_config(build_parser().parse_args(words if changes else [config]))
    return DATASETS.build(cfg.train_dataloader.dataset).description["label_noise"]["sha256"][:16]


def resume_error(config, folder, *options):
    """Resume another run's checkpoint; our command line would refuse the config before."""
    words = [config, "--work-dir", "other", "--cfg-options", "train_cfg.max_epochs=2"]
    cfg = build_config(build_parser().parse_args([*words, *options]))
    cfg.resume, cfg.load_from = True, str(folder / "epoch_1.pth")
    cfg.custom_hooks = [dict(type="mmkd_logit.LabelNoiseHook")]
    with pytest.raises(ValueError, match=r"^cannot resume with other training") as error:
        Runner.from_cfg(cfg).train()
    return str(error.value)


def test_resume_with_other_labels_is_refused(tiny):
    folder = folder_of(tiny.noisy)
    option = "train_dataloader.dataset.seed=1"
    message = resume_error(tiny.noisy, folder, option)
    sizes = "64 samples, rate 0.4"
    before, now = hash_in(tiny.noisy), hash_in(tiny.noisy, **{option[:-2]: 1})
    assert before != now
    assert re.fullmatch(
        "cannot resume with other training labels: the checkpoint's are symmetric noise, "
        rf".* wrong, SHA-256 {before}, {sizes}, seed 0, the config's symmetric noise, .* wrong, "
        rf"SHA-256 {now}, {sizes}, seed 1; restore the settings of train_dataloader.dataset, or "
        "begin a new run in another work folder",
        message,
    )
    message = resume_error(tiny.noisy, folder, "train_dataloader.dataset.rate=0.6")
    assert "rate 0.4" in message
    assert "rate 0.6" in message
    assert "the config's the data set's own" in resume_error(tiny.student, folder)
    assert not Path("other/epoch_2.pth").exists()

    # The same labels go on.
    train(tiny.noisy, "--resume", folder / "epoch_1.pth", train_cfg__max_epochs=2)
    meta = torch.load(folder / "epoch_2.pth", weights_only=False)["meta"]
    assert meta["epoch"] == 2
    assert meta["dataset_meta"]["label_noise"]["sha256"].startswith(before)


def test_other_labels_are_refused_by_their_settings_unless_told_otherwise(tiny, capsys):
    setting = "train_dataloader.dataset.rate"
    words = ["--resume", "--cfg-options", f"{setting}=0.6"]
    assert f"differs in {setting}: 0.4 -> 0.6. " in error_of(capsys, main, tiny.noisy, *words)
    again = dict(train_dataloader__dataset__rate=0.6, train_cfg__max_epochs=2)
    train(tiny.noisy, "--resume", "--resume-changed", **again)
    logs = "".join(path.read_text() for path in folder_of(tiny.noisy).glob("*/*.log"))
    assert f"Going on all the same with {setting}: 0.4 -> 0.6" in logs
    assert "Going on with other training labels: the checkpoint's are symmetric noise, " in logs
    meta = torch.load(folder_of(tiny.noisy) / "epoch_2.pth", weights_only=False)["meta"]
    assert meta["dataset_meta"]["label_noise"]["rate"] == 0.6


def test_a_clean_run_cannot_go_on_with_noise(tiny):
    message = resume_error(tiny.noisy, folder_of(tiny.student))
    assert "the checkpoint's are the data set's own, the config's symmetric noise" in message
    # Weights are another matter: fine-tuning on noisy labels is a new run.
    train(tiny.noisy, load_from=folder_of(tiny.student) / "final.pth")


def test_resume_with_other_samples_is_refused(tiny):
    train(tiny.part)
    folder = folder_of(tiny.part)
    message = resume_error(tiny.part, folder, "train_dataloader.dataset.seed=1")
    assert message.startswith("cannot resume with other training samples: the checkpoint's are ")
    assert "the config's the data set's own" in resume_error(tiny.student, folder)
    train(tiny.part, "--resume", train_cfg__max_epochs=2)
    assert (folder / "epoch_2.pth").is_file()


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
    with pytest.raises(ValueError, match="cannot resume with other training labels"):
        runner(1, **again).train()
    runner(1, load_from=again["load_from"]).test()  # weights, and no training
