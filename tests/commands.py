"""Command lines run in this process, on configs of a second."""

import itertools
from pathlib import Path

import pytest

from mmkd_logit.engine import test as test_tool
from mmkd_logit.engine import train as train_tool

PROJECT = Path(__file__).resolve().parents[1]
STUDENT = "configs/wrn/wrn10-1-thin_digits.py"
KD = "configs/kd/wrn16-2_wrn10-1-thin_kl-t3_digits.py"

# What the configs of digits measure on the test data.
METRICS = {
    *("accuracy/top1", "accuracy/top5"),
    *("class_accuracy/mean", "class_accuracy/std", "class_accuracy/min"),
    *("calibration/ece", "calibration/ece_adaptive", "calibration/nll"),
    *("logits/sum_mean", "logits/sum_std", "logits/norm", "logits/entropy", "logits/tld"),
}
METRICS_BESIDE_A_TEACHER = {
    *("agreement/top1", "agreement/top5", "accuracy/teacher_top1", "distance/mean"),
    *("distance/q05", "distance/q25", "distance/q50", "distance/q75", "distance/q95"),
    *("calibration/teacher_ece", "calibration/teacher_ece_adaptive", "calibration/teacher_nll"),
    *("logits/teacher_sum_mean", "logits/sum_deviation"),
    *("logits/teacher_entropy", "logits/teacher_tld"),
}

_number = itertools.count()  # MMEngine keeps every experiment by its config's name

_PLAIN = """
_base_ = '../{base}'
train_cfg = dict(max_epochs=1, val_interval=1)
train_dataloader = dict(batch_size=32, dataset=dict(dataset=dict(indices=64)))
val_dataloader = dict(dataset=dict(dataset=dict(indices=40)))
test_dataloader = dict(dataset=dict(dataset=dict(indices=100)))
default_hooks = dict(checkpoint=dict(interval=1))
"""
_KD = """
_base_ = './{student}.py'
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{{{_base_.model}}}},
    teacher=dict(config='tiny/{teacher}.py', checkpoint='work_dirs/{teacher}/seed0/final.pth'),
    loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
"""
_TAUGHT = """
_base_ = './{base}.py'
model = dict(teacher=dict(
    config='tiny/{teacher}.py', checkpoint='work_dirs/{teacher}/seed0/final.pth'))
"""
_NOISY = """
_base_ = './{base}'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.5,
        dataset={{{{_base_.train_dataloader.dataset}}}}))
"""


class Tiny:
    """Configs of a teacher, a student and the distilled student, in the current folder.

    Attributes:
        teacher, student, kd: Their paths.
    """

    def __init__(self, folder="."):
        number = next(_number)
        self.teacher, self.student, self.kd = (
            f"tiny/{name}{number}.py" for name in ("teacher", "student", "kd")
        )
        Path(folder, "tiny").mkdir(exist_ok=True)
        plain = _PLAIN.format(base=STUDENT)
        names = dict(student=Path(self.student).stem, teacher=Path(self.teacher).stem)
        for path, text in (
            (self.teacher, plain),
            (self.student, plain),
            (self.kd, _KD.format(**names)),
        ):
            Path(folder, path).write_text(text)


def taught_by(teacher, kd, more=""):
    """Write a config like ``kd`` whose teacher is what the config ``teacher`` trains."""
    names = dict(base=Path(kd).stem, teacher=Path(teacher).stem)
    path = Path(kd).with_stem(f"taught{next(_number)}")
    path.write_text(_TAUGHT.format(**names) + more)
    return str(path)


def noisy(config, more=""):
    """Write a config like another one, half of whose training labels are noise."""
    path = Path(config).with_stem(f"noisy{next(_number)}")
    path.write_text(_NOISY.format(base=Path(config).name) + more)
    return str(path)


def make_workplace(folder):
    """Make the project's configs and tools visible in a folder."""
    for name in ("configs", "tools"):
        Path(folder, name).symlink_to(PROJECT / name)


def folder_of(config, seed=0):
    return Path("work_dirs", Path(config).stem, f"seed{seed}")


def unique_name():
    """Return a setting that gives a run its own name; MMEngine keeps every experiment by it."""
    return f"experiment_name=command{next(_number)}"


def train(config, *words, **settings):
    """Run tools/train.py."""
    settings["experiment_name"] = f"command{next(_number)}"
    options = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    train_tool.main([config, *map(str, words), "--cfg-options", *options])


def test(config, checkpoint, *words):
    """Run tools/test.py."""
    name = f"experiment_name=command{next(_number)}"
    test_tool.main([config, str(checkpoint), *map(str, words), "--cfg-options", name])


test.__test__ = False


def error_of(capsys, main, *words):
    """Return the one line that a failing command writes, without 'error: '."""
    capsys.readouterr()
    words = [*map(str, words)]
    if main in (train_tool.main, test_tool.main):
        words += ["--cfg-options", f"experiment_name=command{next(_number)}"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")
