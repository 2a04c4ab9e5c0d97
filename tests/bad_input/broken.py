"""Broken data and checkpoints: what reads them, what is broken and how, the words, the message.

In words, {checkpoint} and the like are those of a finished run in the current folder, and
broken/NAME.pth the checkpoints that ``write_checkpoints`` makes of it.
"""

from pathlib import Path

import numpy as np
import torch
from networks import build
from runs import digits_student

KINDS = dict(
    other="other architecture",
    classes="other class count",
    nan="NaN weights",
    inf="infinite weights",
    huge="infinite logits",
    part="missing weights",
    html="html page",
    short="truncated",
    empty="empty file",
    text="no checkpoint",
    list="no weights inside",
)


def write_checkpoints(weights):
    """Write the broken relatives of a checkpoint to the folder ``broken``.

    Args:
        weights: What the sound one holds.
    """
    folder = Path("broken")
    folder.mkdir()
    state = weights["state_dict"]
    head = dict(state)
    head["head.fc.weight"], head["head.fc.bias"] = torch.zeros(7, 16), torch.zeros(7)
    changes = dict(
        other=build(digits_student(depth=16, widen_factor=2)).state_dict(),
        classes=head,
        nan={**state, "backbone.stem.weight": state["backbone.stem.weight"] * float("nan")},
        inf={**state, "head.fc.bias": torch.full((10,), float("inf"))},
        huge={**state, "head.fc.weight": torch.full((10, 16), 3e38)},
        part={name: value for name, value in state.items() if not name.startswith("head.")},
    )
    for name, changed in changes.items():
        torch.save({**weights, "state_dict": changed}, folder / f"{name}.pth")
    torch.save([1, 2], folder / "list.pth")
    whole = (folder / "part.pth").read_bytes()
    contents = dict(
        html=b"<!DOCTYPE html><html><body>Sign in</body></html>",
        short=whole[: len(whole) // 2],
        empty=b"",
        text=b"these are no weights\n" * 9,
    )
    for name, content in contents.items():
        (folder / f"{name}.pth").write_bytes(content)


def write_labels():
    """Write broken files of labels and of exported logits for the 901 training digits."""
    from mmkd_logit.datasets import Digits

    digits = Digits("train", pipeline=[])
    right = np.array([digits.get_data_info(i)["gt_label"] for i in range(len(digits))])
    np.savez("right.npz", noisy=right, clean_label=right)
    whole = Path("right.npz").read_bytes()
    Path("short.npz").write_bytes(whole[:200])
    Path("page.npz").write_text("<!DOCTYPE html><html></html>")
    Path("nothing.npz").write_bytes(b"")
    np.savez("range.npz", noisy=right + 100, clean_label=right)
    np.savez("negative.npz", noisy=right - 1, clean_label=right)
    np.savez("length.npz", noisy=right[:-1], clean_label=right[:-1])
    np.savez("other.npz", noisy=right, clean_label=right[::-1])
    np.savez("coarse.npz", noisy=right // 5, clean_label=right)
    np.savez("fraction.npz", noisy=right + 0.5, clean_label=right)
    np.savez("objects.npz", noisy=np.array([{}, {}], dtype=object))
    logits = dict(index=np.arange(901), label=right, clean_label=right, logits=np.eye(10)[right])
    np.savez("no_logits.npz", **{name: logits[name] for name in logits if name != "logits"})
    np.savez("nan_logits.npz", **{**logits, "logits": np.full((901, 10), np.nan)})
    np.savez("twice.npz", **{**logits, "index": np.zeros(901, int)})
    np.savez("flat.npz", **{**logits, "logits": np.zeros(901)})
    np.savez("fewer.npz", **{name: array[:900] for name, array in logits.items()})


_STUDENT = ["{student}", "--results", "runs.jsonl"]
_KD = ["{kd}", "--results", "runs.jsonl"]


def _options(words, *options):
    return [*words, "--cfg-options", *options]


def _everywhere(name, says):
    """Give a broken checkpoint to each place that reads one."""
    path = f"broken/{name}.pth"
    places = {
        ("train", "teacher"): _options(_KD, f"model.teacher.checkpoint={path}"),
        ("train", "load_from"): _options(_STUDENT, f"load_from={path}"),
        ("train", "init_cfg"): _options(
            _STUDENT, "model.init_cfg.type=Pretrained", f"model.init_cfg.checkpoint={path}"
        ),
        ("train", "--resume"): [*_STUDENT, "--resume", path],
        ("test", "checkpoint"): ["{student}", path],
        ("dump_logits", "checkpoint"): ["{student}", path],
    }
    return [(*place, KINDS[name], places[place], text) for place, text in says.items()]


_TEACHER, _LOAD, _INIT = ("train", "teacher"), ("train", "load_from"), ("train", "init_cfg")
_RESUME, _TEST = ("train", "--resume"), ("test", "checkpoint")
_DUMP = ("dump_logits", "checkpoint")

CHECKPOINTS = [
    *_everywhere(
        "other",
        {
            _TEACHER: "config and checkpoint are of the same network",
            _LOAD: "is of another network",
            _INIT: "is of another network",
            _TEST: "Name the config that the checkpoint was trained by",
            _DUMP: "does not fit",
        },
    ),
    *_everywhere(
        "classes",
        {
            _TEACHER: "broken/classes.pth",
            _TEST: "head.fc.weight",
            _DUMP: "head.fc.weight",
        },
    ),
    *_everywhere(
        "part",
        {
            _TEACHER: "missing keys",
            _TEST: "missing keys",
            _DUMP: "missing keys",
        },
    ),
    *_everywhere(
        "nan",
        {
            _TEACHER: "NaN or infinity",
            _LOAD: "take a checkpoint from before training diverged",
            _INIT: "take a checkpoint from before",
            _TEST: "NaN or infinity",
            _DUMP: "are not finite",
        },
    ),
    *_everywhere(
        "inf",
        {
            _TEACHER: "head.fc.bias",
            _LOAD: "head.fc.bias",
            _TEST: "head.fc.bias",
        },
    ),
    *_everywhere("huge", {_TEACHER: "are not finite", _DUMP: "are not finite"}),
    *_everywhere(
        "html",
        {place: "it is a web page" for place in (_TEACHER, _LOAD, _INIT, _RESUME, _TEST, _DUMP)},
    ),
    *(
        row
        for name, places in (
            ("short", (_TEACHER, _LOAD, _INIT, _RESUME, _TEST, _DUMP)),
            ("empty", (_TEACHER, _RESUME, _TEST)),
            ("text", (_LOAD, _INIT, _TEST, _DUMP)),
        )
        for row in _everywhere(name, {place: f"broken/{name}.pth" for place in places})
    ),
    *_everywhere(
        "list", {place: "holds a list and no weights" for place in (_TEACHER, _LOAD, _INIT, _TEST)}
    ),
]

DATA = [
    (
        "train",
        "model.head.num_classes",
        "wrong label range",
        _options(_STUDENT, "model.head.num_classes=5"),
        "set num_classes of the head to 10",
    ),
    (
        "train",
        "model.backbone.in_channels",
        "grey for colour",
        _options(_STUDENT, "model.backbone.in_channels=3"),
        "(C, H, W) = (1, 8, 8)",
    ),
    (
        "train",
        "data_preprocessor",
        "grey for colour",
        _options(_STUDENT, "data_preprocessor.mean=[1,2,3]", "data_preprocessor.std=[1,2,3]"),
        "give it one mean and std a channel",
    ),
    (
        "train",
        "model.head.in_channels",
        "layers do not fit",
        _options(_STUDENT, "model.head.in_channels=7"),
        "the head and the data's transforms agree",
    ),
    (
        "train",
        "train_dataloader.dataset",
        "colour for grey",
        ["colour.py"],
        "(C, H, W) = (3, 8, 8)",
    ),
    (
        "train",
        "val_dataloader.dataset",
        "colour for grey",
        ["colour_val.py"],
        "the validation images, (C, H, W) = (3, 8, 8)",
    ),
    (
        "train",
        "train_dataloader.batch_size",
        "no batch",
        _options(_STUDENT, "train_dataloader.batch_size=100", "train_dataloader.drop_last=True"),
        "lower batch_size, or set drop_last=False",
    ),
    (
        "train",
        "model.teacher",
        "other class count",
        _options(_KD, "model.student.head.num_classes=11"),
        "10 classes and the student 11",
    ),
    (
        "train",
        "model.loss_kd",
        "overflowing loss",
        _options(_KD, "model.loss_kd.type=mmkd_logit.DKDLoss", "model.loss_kd.beta=1e39"),
        "with which no training begins",
    ),
    ("train", "custom_hooks", "other class count", ["stages.py"], "classes"),
    ("train", "train_dataloader.dataset", "missing folder", ["folder.py"], "no_such_folder"),
    ("train", "train_dataloader.dataset", "truncated", ["pictures.py"], "cannot be read"),
]

_NOISY = dict(type="mmkd_logit.NoisyLabelDataset", kind="file", key="noisy")
_SCORED = dict(type="mmkd_logit.DataSubset", by="entropy", quantiles=(0, 0.5))


def _noisy(file, **more):
    return dict(_NOISY, file=file, **more)


# Built as they stand around the training digits, or of CIFAR-100 in the folder ``cifar``.
FILES = [
    ("NoisyLabelDataset", "file", "missing file", _noisy("no.npz"), "no.npz does not exist"),
    ("NoisyLabelDataset", "file", "wrong ending", _noisy("a_file.txt"), ".npz"),
    ("NoisyLabelDataset", "file", "truncated", _noisy("short.npz"), "damaged"),
    ("NoisyLabelDataset", "file", "html page", _noisy("page.npz"), "damaged"),
    ("NoisyLabelDataset", "file", "empty file", _noisy("nothing.npz"), "nothing.npz"),
    ("NoisyLabelDataset", "file", "objects inside", _noisy("objects.npz"), "could run code"),
    ("NoisyLabelDataset", "file", "wrong label range", _noisy("range.npz"), "0 to 9"),
    ("NoisyLabelDataset", "file", "negative", _noisy("negative.npz"), "-1"),
    ("NoisyLabelDataset", "file", "wrong length", _noisy("length.npz"), "900"),
    ("NoisyLabelDataset", "file", "of other data", _noisy("other.npz"), "another order"),
    ("NoisyLabelDataset", "file", "empty class", _noisy("coarse.npz"), "array of the labels?"),
    ("NoisyLabelDataset", "file", "fraction for a count", _noisy("fraction.npz"), "fraction.npz"),
    ("NoisyLabelDataset", "key", "no such name", _noisy("right.npz", key="nosiy"), "noisy"),
    (
        "NoisyLabelDataset",
        "clean_key",
        "no such name",
        _noisy("right.npz", clean_key="clear"),
        "clean_label",
    ),
    ("DataSubset", "scores", "missing file", dict(_SCORED, scores="no.npz"), "no.npz"),
    ("DataSubset", "scores", "truncated", dict(_SCORED, scores="short.npz"), "damaged"),
    (
        "DataSubset",
        "scores",
        "missing part",
        dict(_SCORED, scores="no_logits.npz"),
        "has no logits",
    ),
    ("DataSubset", "scores", "not a number", dict(_SCORED, scores="nan_logits.npz"), "finite"),
    ("DataSubset", "scores", "repeated", dict(_SCORED, scores="twice.npz"), "once"),
    ("DataSubset", "scores", "wrong length", dict(_SCORED, scores="flat.npz"), "floats (N, K)"),
    ("DataSubset", "scores", "too few", dict(_SCORED, scores="fewer.npz"), "lacks 1 of"),
    ("CIFAR100", "data_root", "missing file", "cifar_missing", "are missing or damaged"),
    ("CIFAR100", "data_root", "truncated", "cifar_short", "are missing or damaged"),
    ("CIFAR100", "data_root", "wrong md5", "cifar_flipped", "are missing or damaged"),
    ("CIFAR100", "data_root", "html page", "cifar_page", "are missing or damaged"),
]

_STOPPED = r"training stopped at iteration \d+ \(epoch 1\): the loss is not finite: .*"
_SAMPLES = r".* first sample \d+.*; the batch has samples \d+, "
# They train until a number is none.
DIVERGING = [
    (
        "train",
        "optim_wrapper.optimizer.lr",
        "NaN logits",
        _options(_STUDENT, "optim_wrapper.optimizer.lr=1e36"),
        _STOPPED + r"loss=(nan|inf).*the student's logits are not finite" + _SAMPLES,
    ),
    (
        "train",
        "optim_wrapper.optimizer.lr",
        "infinite logits",
        _options(_KD, "optim_wrapper.optimizer.lr=1e30"),
        _STOPPED + r"loss_kd=(nan|inf).*student's logits are not finite" + _SAMPLES,
    ),
]
