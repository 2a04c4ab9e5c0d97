"""Train accuracy is that of the whole, un-augmented training set."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from commands import Tiny, folder_of, noisy, train
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmkd_logit.datasets import Digits
from mmkd_logit.engine.results import read_lines, training_data_loader

CLEAN = "train_evaluator = [dict(type='Accuracy'), dict(type='mmkd_logit.CleanLabelAccuracy')]\n"


def test_against_a_loop_of_our_own(workplace):
    tiny = Tiny()
    train(tiny.student, "--results", "r.jsonl", "--train-metrics")
    (row,) = read_lines(Path("r.jsonl"))
    cfg = Config.fromfile(tiny.student)
    init_default_scope("mmpretrain")
    model = MODELS.build({**cfg.model, "data_preprocessor": cfg.data_preprocessor})
    state = torch.load(folder_of(tiny.student) / "final.pth", weights_only=False)["state_dict"]
    model.load_state_dict(state)
    model.eval()
    for split, images in (("train", 64), ("test", 100)):
        data = list(itertools.islice(Digits(split=split), images))
        inputs = torch.stack([torch.as_tensor(d["img"]).permute(2, 0, 1) for d in data])
        batch = model.data_preprocessor(dict(inputs=inputs))
        with torch.no_grad():
            guess = model(batch["inputs"]).argmax(-1)
        right = (guess == torch.tensor([d["gt_label"] for d in data])).float().mean().item() * 100
        assert row[split]["accuracy/top1"] == pytest.approx(right, abs=1e-3)
    # What MMEngine writes of a test has no numbers of training images.
    (log,) = folder_of(tiny.student).glob("2*/2*.json")
    assert json.loads(log.read_text())["accuracy/top1"] == row["test"]["accuracy/top1"]


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
