"""The ImageNet configs on real JPEGs, through the command lines."""

import json
import os
import re
import shutil
from pathlib import Path

import commands
import imagenet
import numpy as np
import pytest
import torch
import torchvision
from commands import folder_of
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

CONFIG = "configs/kd/resnet34_resnet18_mse_in1k.py"
SMALL = {  # 8 images in batches of 4, in this process; what the network sees stays as it is
    "train_dataloader__batch_size": 4,
    "train_dataloader__num_workers": 0,
    "train_dataloader__dataset__dataset__indices": 8,
    "val_dataloader__batch_size": 4,
    "val_dataloader__num_workers": 0,
    "val_dataloader__dataset__indices": 4,
    "test_dataloader__batch_size": 4,
    "test_dataloader__num_workers": 0,
    "test_dataloader__dataset__indices": 4,
    "optim_wrapper__optimizer__lr": 0.01,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of 1000 classes with an image each."""
    sample = os.environ.get("IMAGENET_SAMPLE")
    if not sample or not Path(sample).is_file():
        pytest.skip("IMAGENET_SAMPLE does not name an npz with ImageNet's JPEGs")
    root = tmp_path_factory.mktemp("imagenet")
    imagenet.unpack(sample, root)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def at_imagenet(images, workplace, monkeypatch):
    """The workplace, with the images where the configs look by themselves."""
    monkeypatch.delenv("IMAGENET_ROOT", raising=False)
    (workplace / "data").mkdir()
    (workplace / "data/imagenet").symlink_to(images)
    return workplace


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A file as torchvision publishes them."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("torchvision") / "resnet34.pth"
    torch.save(torchvision.models.resnet34().state_dict(), path)
    return path


def train(config, *words, **settings):
    commands.train(config, *words, **{**SMALL, **settings})


def test_train_resume_and_test(at_imagenet, teacher, tmp_path):
    settings = {"model__teacher__checkpoint": teacher}
    train(CONFIG, **settings, train_cfg__max_epochs=1)
    rows = tmp_path / "results.jsonl"
    train(CONFIG, "--resume", "--results", rows, **settings, train_cfg__max_epochs=2)
    row = json.loads(rows.read_text())
    assert (row["resumed_at"], row["iterations"], row["epochs"]) == (2, 4, 2)

    # The student alone, as mmpretrain's ResNet-18.
    final = folder_of(CONFIG) / "final.pth"
    state = torch.load(final, weights_only=False)["state_dict"]
    assert len(state) == len(torchvision.models.resnet18().state_dict())

    small = [f"{k.replace('__', '.')}={v}" for k, v in SMALL.items() if k.startswith("test_")]
    words = ["--out", "metrics.json", "--out-item", "metrics", "--cfg-options", *small]
    commands.test(CONFIG, final, *words, f"model.teacher.checkpoint={teacher}")
    assert json.loads(Path("metrics.json").read_text()) == row["test"]
    commands.test("configs/resnet/resnet18_in1k.py", final, *words)
    alone = json.loads(Path("metrics.json").read_text())
    assert {"accuracy/top1", "calibration/nll", "calibration/ece"} <= alone.keys()
    assert alone.items() < row["test"].items()


def loader(name, folder="resnet", what="val_dataloader"):
    cfg = Config.fromfile(f"configs/{folder}/{name}.py")[what]
    cfg.update(num_workers=0, persistent_workers=False, batch_size=8)
    init_default_scope("mmpretrain")
    return Runner.build_dataloader(cfg, seed=0)


def test_inputs_are_those_that_torchvisions_weights_expect(at_imagenet, images):
    """The files' short edge is 256, so that no resizing differs between the two libraries."""
    from PIL import Image

    train, val = (loader("resnet152_in1k", what=f"{w}_dataloader") for w in ("train", "val"))
    assert train.dataset[0]["inputs"].shape == (3, 224, 224)
    preset = torchvision.models.ResNet152_Weights.IMAGENET1K_V1.transforms()
    preprocessor = Config.fromfile("configs/resnet/resnet152_in1k.py").data_preprocessor
    preprocessor = MODELS.build(preprocessor)
    compared = 0
    for i in range(8):
        path = val.dataset.get_data_info(i)["img_path"]
        with Image.open(path) as image:
            if min(image.size) != 256:
                continue
            theirs = preset(image.convert("RGB"))
        data = dict(inputs=[val.dataset[i]["inputs"]])
        ours = preprocessor(data)["inputs"][0]
        assert (ours - theirs).abs().mean() < 0.02  # a grey level is 0.017
        assert (ours.flip(0) - theirs).abs().mean() > 0.1  # the control: blue for red
        compared += 1
    assert compared >= 4


def test_noisy_teacher_looks_at_the_same_random_25th(at_imagenet):
    name = "resnet152_stop81_in1k"
    first, again = (loader(name, "noisy_teacher").dataset for _ in range(2))
    labels = first.get_gt_labels()
    assert len(labels) == len(set(labels)) == 1000 // 25
    assert np.array_equal(labels, again.get_gt_labels())
    assert list(labels) != list(range(40))  # the first 40 images would be one class of the real set
    assert {Path(first.get_data_info(i)["img_path"]).parts[-3] for i in range(40)} == {"train"}
    assert [step.__class__.__name__ for step in first.dataset.pipeline.transforms] == [
        "LoadImageFromFile",
        "ResizeEdge",
        "CenterCrop",
        "PackInputs",
    ]
    test = loader(name, "noisy_teacher", "test_dataloader").dataset
    assert Path(test.get_data_info(0)["img_path"]).parts[-3] == "val"


def test_wrong_folder_is_explained(workplace, teacher, capsys, monkeypatch):
    monkeypatch.delenv("IMAGENET_ROOT", raising=False)
    with pytest.raises(SystemExit):
        train(CONFIG, model__teacher__checkpoint=teacher)
    words = "No such file or directory: 'data/imagenet/train'"
    assert re.search(rf"^error: .*{words}", capsys.readouterr().err)
