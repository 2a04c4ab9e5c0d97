"""Configs in MMEngine's pure-Python style, whose types are classes."""

from pathlib import Path

import pytest
from commands import Tiny, folder_of, test, train
from mmengine.config import Config

from mmkd_logit.engine.fingerprint import fingerprint_of
from mmkd_logit.engine.results import describe_method, read_lines
from mmkd_logit.engine.train import build_config, build_parser

IMPORTS = """
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from torch.optim import SGD

from mmkd_logit.datasets import Digits, InMemoryDataset, SeededSampler, batch_collate
from mmkd_logit.hooks import LogitOutputsHook
from mmkd_logit.losses import ScaledKLDivLoss
from mmkd_logit.metrics import TeacherAgreement
from mmkd_logit.models import BatchPreprocessor, LogitDistiller, WideResNetCIFAR
"""
SETTINGS = """
default_scope = 'mmpretrain'
randomness = dict(seed=0)
data_preprocessor = dict(type=BatchPreprocessor, mean=[77.8], std=[95.9], to_rgb=False)
net = dict(
    type=ImageClassifier,
    backbone=dict(type=WideResNetCIFAR, depth=10, widen_factor=1, base_channels=4, in_channels=1,
                  strides=(1, 1, 2)),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=16))
model = dict(
    type=LogitDistiller, student=net, loss_kd=dict(type=ScaledKLDivLoss, tau=4), alpha=0.9,
    teacher=dict(config='{teacher}', checkpoint='{folder}/final.pth'))
train_dataloader = dict(
    batch_size=32, num_workers=0, collate_fn=dict(type=batch_collate),
    sampler=dict(type=SeededSampler, sampler=dict(type=DefaultSampler, shuffle=True)),
    dataset=dict(type=InMemoryDataset, dataset=dict(
        type=Digits, split='train', indices=64, pipeline=[dict(type=PackInputs)])))
val_dataloader = dict(
    batch_size=32, num_workers=0, collate_fn=dict(type=batch_collate),
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=InMemoryDataset, dataset=dict(
        type=Digits, split='val', indices=40, pipeline=[dict(type=PackInputs)])))
val_evaluator = [dict(type=Accuracy), dict(type=TeacherAgreement)]
test_dataloader, test_evaluator = val_dataloader, val_evaluator
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9))
custom_hooks = [dict(type=LogitOutputsHook)]
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg, test_cfg = dict(), dict()
"""


@pytest.fixture
def pure(workplace):
    tiny = Tiny()
    text = SETTINGS.format(teacher=tiny.teacher, folder=folder_of(tiny.teacher))
    Path("pure.py").write_text(IMPORTS + text)
    return tiny


def test_every_command_takes_them(pure, capsys):
    train("pure.py", "--train-teacher", "--results", "r.jsonl")
    train("pure.py", "--train-teacher", "--results", "r.jsonl", "--fast")
    # The teacher that is there has more digits than --fast asks for.
    assert "final.pth was trained before, without --fast" in capsys.readouterr().out
    teacher, exact, fast = read_lines(Path("r.jsonl"))
    method = describe_method(configure("pure.py"))
    assert (method["loss"], method["tau"]) == ("ScaledKLDivLoss", 4)
    assert method["network"].startswith("WideResNetCIFAR depth=10")
    assert exact["teachers"] == fast["teachers"] == [teacher["weights"]]
    assert fast["numerics"].startswith("bfloat16, channels_last")
    checkpoint = folder_of("pure.py") / "epoch_1.pth"
    test("pure.py", checkpoint, "--tta")
    Path(folder_of(pure.teacher), "final.pth").unlink()
    capsys.readouterr()
    test("pure.py", checkpoint)
    said = capsys.readouterr()
    assert "accuracy/top1" in said.out
    assert "nothing is compared with the teacher" in said.err


def configure(path):
    return build_config(build_parser().parse_args([path]))


def test_they_are_the_run_that_names_say(pure):
    names = Config.fromfile("pure.py").to_dict()
    Path("names.py").write_text(Config(names).pretty_text)
    assert "type='mmkd_logit" in Path("names.py").read_text()
    assert fingerprint_of(configure("names.py")) == fingerprint_of(configure("pure.py"))
