"""Train accuracy is that of the whole, un-augmented training set: see test_logits.py too."""

from pathlib import Path

import pytest
from commands import Tiny, noisy, train
from mmengine.config import Config

from mmkd_logit.engine.results import read_lines, training_data_loader

CLEAN = "train_evaluator = [dict(type='Accuracy'), dict(type='mmkd_logit.CleanLabelAccuracy')]\n"


def test_noisy_labels_and_clean_ones(workplace):
    config = noisy(Tiny().student, CLEAN)
    train(config, "--results", "r.jsonl", "--train-metrics", "--epochs", 2)
    (row,) = read_lines(Path("r.jsonl"))
    assert set(row["train"]) == {"accuracy/top1", "accuracy/clean_top1"}
    assert "accuracy/clean_top1" not in row["test"]
    assert row["label_noise"]["realised_rate"] == pytest.approx(0.5, abs=0.1)
    assert row["labels"]


def test_the_pipeline_is_found_below_wrappers():
    def loader(dataset):
        return dict(dataset=dataset, batch_size=4)

    inner = dict(type="X", pipeline=["crop"])
    wrapped = dict(type="W", dataset=dict(type="V", datasets=[inner, inner]))
    cfg = Config(
        dict(
            train_dataloader=loader(wrapped),
            test_dataloader=loader(dict(type="X", split="test", pipeline=["pack"])),
        )
    )
    found = training_data_loader(cfg)
    assert [d["pipeline"] for d in found["dataset"]["dataset"]["datasets"]] == [["pack"]] * 2
    assert inner["pipeline"] == ["crop"]
    assert found["batch_size"] == 4
    cfg.train_dataloader.dataset = dict(type="X")
    with pytest.raises(ValueError, match="the training data cannot be read un-augmented"):
        training_data_loader(cfg)
