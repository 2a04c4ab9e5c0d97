"""Broken data and checkpoints end a tool in one line, before training, and change no file."""

import hashlib
import pickle
import re
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from bad_input import broken
from bad_input.components import DIGITS
from bad_input.test_tools import TOOLS
from commands import unique_name
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.datasets import CIFAR100
from mmpretrain.registry import DATASETS

_IMAGES = """
_base_ = './{student}'
train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(_delete_=True, {dataset}))
"""
_COLOUR = """
_base_ = './{student}'
{split}_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True, type='mmkd_logit.RandomImages', num_samples=40, num_classes=10,
            img_shape=(8, 8, 3), pipeline=[dict(type='PackInputs')])))
"""
_STAGES = """
_base_ = './{kd}'
train_cfg = dict(max_epochs=2)
custom_hooks = [
    dict(
        type='mmkd_logit.SequentialTeacherHook',
        stages=[dict(begin=1, teacher=dict(config='{student}', checkpoint='broken/classes.pth'))])]
"""
_LOADING = "pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]"


@pytest.fixture(scope="module")
def broken_files(finished_run):
    """Everything broken that the rows name, in the folder of the finished run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished_run.folder)
        broken.write_checkpoints(finished_run.weights("epoch"))
        broken.write_labels()
        words = finished_run.words
        for name, split in (("colour", "train"), ("colour_val", "val")):
            Path(f"{name}.py").write_text(_COLOUR.format(split=split, **words))
        Path("stages.py").write_text(_STAGES.format(**words))
        for name in ("a", "b"):
            Path("pictures", name).mkdir(parents=True)
            Path("pictures", name, "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
        for name, folder in (("folder", "no_such_folder"), ("pictures", "pictures")):
            dataset = f"type='CustomDataset', data_prefix='{folder}', {_LOADING}"
            Path(f"{name}.py").write_text(_IMAGES.format(dataset=dataset, **words))
        yield finished_run


@pytest.mark.parametrize(
    ("tool", "field", "kind", "words", "says"),
    [*broken.CHECKPOINTS, *broken.DATA],
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in [*broken.CHECKPOINTS, *broken.DATA]],
)
def test_broken_file(
    tool, field, kind, words, says, broken_files, prior, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(EpochBasedTrainLoop, "run_iter", lambda *args: pytest.fail("it trains"))
    words = [word.format(**prior.words) for word in words]
    if tool in ("train", "test", "dump_logits"):
        words += [] if "--cfg-options" in words else ["--cfg-options"]
        words += [unique_name()]
    if tool == "dump_logits":
        words += ["--out", str(tmp_path / "dumps")]
    with pytest.raises(SystemExit) as stopped:
        TOOLS[tool].main(words)
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(
    ("tool", "field", "kind", "words", "says"),
    broken.DIVERGING,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in broken.DIVERGING],
)
def test_diverging(tool, field, kind, words, says, broken_files, prior, capsys, tmp_path):
    """It trains, and stops where the numbers end; nothing of an earlier run is in its folder."""
    words = [word.format(**prior.words) for word in words]
    with pytest.raises(SystemExit) as stopped:
        TOOLS[tool].main([*words, unique_name(), "--work-dir", str(tmp_path)])
    assert stopped.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(says, lines[0]), lines[0]
    assert not list(tmp_path.glob("*.pth"))


def write_cifar(folder):
    """Write a CIFAR-100 of four pictures, and return the lists of its files for the class."""
    home = Path(folder, CIFAR100.base_folder)
    home.mkdir(parents=True)
    pictures = np.zeros((4, 3072), np.uint8)
    labels = [0, 1, 2, 3]
    contents = dict(
        train=dict(data=pictures, fine_labels=labels),
        test=dict(data=pictures, fine_labels=labels),
        meta=dict(fine_label_names=list(map(str, range(100)))),
    )
    hashes = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        Path(home, name).write_bytes(data)
        hashes[name] = hashlib.md5(data).hexdigest()
    return hashes


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Folders with CIFAR-100, as it is and broken."""

    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("mmpretrain.datasets.cifar.download_and_extract_archive", no_network)
    monkeypatch.chdir(tmp_path)
    for name in ("", "_short", "_flipped", "_page"):
        hashes = write_cifar(f"cifar{name}")
    Path("cifar_missing").mkdir()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", hashes["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", hashes["test"]]])
    meta = dict(filename="meta", key="fine_label_names", md5=hashes["meta"])
    monkeypatch.setattr(CIFAR100, "meta", meta)
    train = Path(CIFAR100.base_folder, "train")
    whole = Path("cifar", train).read_bytes()
    Path("cifar_short", train).write_bytes(whole[:1000])
    Path("cifar_flipped", train).write_bytes(whole[:500] + b"\x01" + whole[501:])
    Path("cifar_page", train).write_bytes(b"<!DOCTYPE html>")


def test_sound_cifar(cifar):
    assert len(DATASETS.build(in_memory("cifar"))) == 4


def in_memory(root):
    init_default_scope("mmpretrain")
    pictures = dict(
        type="CIFAR100", split="train", data_root=root, pipeline=[dict(type="PackInputs")]
    )
    return dict(type="mmkd_logit.InMemoryDataset", dataset=pictures)


@pytest.mark.parametrize(
    ("name", "field", "kind", "value", "says"),
    broken.FILES,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in broken.FILES],
)
def test_broken_data(name, field, kind, value, says, cifar, broken_files, monkeypatch):
    if name == "CIFAR100":
        cfg = in_memory(value)
    else:
        monkeypatch.chdir(broken_files.folder)
        cfg = dict(value, dataset=dict(DIGITS, indices=None))
    init_default_scope("mmpretrain")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        DATASETS.build(cfg)
    message = str(caught.value)
    assert "\n" not in message
    assert says in message
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("words", [["right.npz", "noisy"]])
def test_sound_labels(words, broken_files, monkeypatch):
    monkeypatch.chdir(broken_files.folder)
    init_default_scope("mmpretrain")
    cfg = dict(broken.FILES[0][3], file=words[0], key=words[1], dataset=dict(DIGITS, indices=None))
    assert len(DATASETS.build(cfg)) == 901
