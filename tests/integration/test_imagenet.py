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


def loader(name, folder="resnet", what="val_dataloader", **dataset):
    cfg = Config.fromfile(f"configs/{folder}/{name}.py")[what]
    cfg.update(num_workers=0, persistent_workers=False, batch_size=8)
    cfg.dataset.update(dataset)
    init_default_scope("mmpretrain")
    return Runner.build_dataloader(cfg, seed=0)


def test_classes_are_the_folders_in_order(at_imagenet):
    labels = np.load(os.environ["IMAGENET_SAMPLE"])["labels"]
    for what in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset = loader("resnet18_in1k", what=what).dataset
        assert np.array_equal(dataset.get_gt_labels(), labels)
        assert dataset[0]["inputs"].shape == (3, 224, 224)
        assert dataset.CLASSES[0] == "tench, Tinca tinca"


def test_inputs_are_those_that_torchvisions_weights_expect(at_imagenet, images):
    """The files' short edge is 256, so that no resizing differs between the two libraries."""
    from PIL import Image

    val = loader("resnet152_in1k")
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


def test_validation_images_may_lie_flat(at_imagenet, images):
    """As ILSVRC's own archive unpacks, with a list in meta/."""
    root = at_imagenet / "flat"
    (root / "val").mkdir(parents=True)
    (root / "meta").mkdir()
    nested = sorted((images / "val").glob("*/*.JPEG"))[:8]
    for number, path in enumerate(nested):
        (root / f"val/{number}.JPEG").symlink_to(path)
    (root / "meta/val.txt").write_text("".join(f"{i}.JPEG {900 + i}\n" for i in range(8)))
    dataset = loader("resnet18_in1k", data_root=str(root)).dataset
    assert list(dataset.get_gt_labels()) == list(range(900, 908))
    assert torch.equal(dataset[3]["inputs"], loader("resnet18_in1k").dataset[3]["inputs"])


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


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ([], r"No such file or directory: 'data/imagenet/train'"),
        (["train/n01440764"], r"The number of subfolders \(1\) doesn't match .* classes \(1000\)"),
    ],
)
def test_wrong_folder_is_explained(folders, words, workplace, teacher, capsys, monkeypatch):
    monkeypatch.delenv("IMAGENET_ROOT", raising=False)
    for folder in folders:
        (workplace / "data/imagenet" / folder).mkdir(parents=True)
    with pytest.raises(SystemExit):
        train(CONFIG, model__teacher__checkpoint=teacher)
    assert re.search(rf"^error: .*{words}", capsys.readouterr().err)
