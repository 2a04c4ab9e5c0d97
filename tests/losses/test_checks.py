import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mmkd_logit.losses import LogitMSELoss, ScaledKLDivLoss
from mmkd_logit.losses.base import RECIPE

LOSSES = {
    "LogitMSELoss": LogitMSELoss,
    "ScaledKLDivLoss": lambda *args, **kwargs: ScaledKLDivLoss(4, "tau^2", *args, **kwargs),
}


@pytest.fixture(params=LOSSES)
def build(request):
    """The class, or the class at tau = 4."""
    return LOSSES[request.param]


def error_of(loss, *args, **kwargs):
    with pytest.raises(ValueError, match=type(loss).__name__) as error:
        loss(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    ("student", "teacher", "class_dim", "why"),
    [
        ((4, 5), (4, 6), -1, "differ in shape"),
        ((4, 5), (3, 5), -1, "differ in shape"),
        ((4, 5), (4, 1), -1, "differ in shape"),
        ((4, 5), (5,), -1, "differ in shape"),
        ((4, 5, 2, 2), (4, 5), 1, "differ in shape"),
        ((5,), (5,), -1, "a batch and a class dimension"),
        ((), (), -1, "a batch and a class dimension"),
        ((4, 1), (4, 1), -1, "at least 2 classes"),
        ((4, 0), (4, 0), -1, "at least 2 classes"),
        ((4, 5, 1), (4, 5, 1), 2, "at least 2 classes"),
        ((0, 5), (0, 5), -1, "empty"),
        ((4, 5, 0), (4, 5, 0), 1, "empty"),
        ((4, 5), (4, 5), 2, "out of range"),
        ((4, 5), (4, 5), -2, "meets the batch"),
        ((4, 5), (4, 5), -3, "out of range"),
    ],
)
def test_shapes(build, student, teacher, class_dim, why):
    text = error_of(build(class_dim=class_dim), torch.zeros(student), torch.zeros(teacher))
    assert why in text
    assert "Allowed: " in text
    assert f"student_logits {student} torch.float32" in text
    assert f"teacher_logits {teacher} torch.float32, class_dim={class_dim}" in text


@pytest.mark.parametrize(
    ("student", "teacher", "why"),
    [
        (torch.float32, torch.float64, "differ in dtype"),
        (torch.bfloat16, torch.float32, "differ in dtype"),
        (torch.int64, torch.float32, "differ in dtype"),
        (torch.complex64, torch.complex64, "floating-point"),
    ],
)
def test_dtypes(build, student, teacher, why):
    logits = torch.zeros(4, 5)
    text = error_of(build(), logits.to(student), logits.to(teacher))
    assert why in text
    assert f"(4, 5) {student}" in text
    assert f"(4, 5) {teacher}" in text


def test_not_tensors(build):
    text = error_of(build(), (torch.zeros(4, 5),), torch.zeros(4, 5))
    assert "got tuple as student_logits and Tensor as teacher_logits" in text


@pytest.mark.parametrize("labels", [torch.zeros(4).long(), torch.zeros(4, 5).int()])
def test_labels_name_the_distiller(build, labels):
    text = error_of(build(), torch.zeros(4, 5), labels)
    assert f"{tuple(labels.shape)} {labels.dtype}" in text
    assert "(4, 5) torch.float32" in text
    assert "mmkd_logit.LogitDistiller" in text
    assert "teacher=dict(config=...," in text


def test_arguments_of_a_head_name_the_distiller(build):
    soft = torch.zeros(4, 5)
    text = error_of(build(), soft, soft, avg_factor=4, weight=None)
    assert "'avg_factor', 'weight'" in text
    assert RECIPE in text


def test_as_the_loss_of_a_head(build):
    from mmpretrain.models import LinearClsHead
    from mmpretrain.structures import DataSample

    head = LinearClsHead(5, 3, loss=torch.nn.Identity())
    head.loss_module = build()
    samples = [DataSample().set_gt_label(1) for _ in range(4)]
    with pytest.raises(ValueError, match=r"mmkd_logit\.LogitDistiller"):
        head.loss((torch.zeros(4, 3),), samples)


def test_recipe_is_a_config(tmp_path):
    (tmp_path / "base.py").write_text("model = dict(type='ImageClassifier')\n")
    text = RECIPE.replace("...", "'file'")
    (tmp_path / "kd.py").write_text(f"_base_ = 'base.py'\n{text}\n")
    model = Config.fromfile(tmp_path / "kd.py").model
    assert model.type == "mmkd_logit.LogitDistiller"
    assert model.student == {"type": "ImageClassifier"}


@pytest.mark.parametrize("reduction", ["max", None, "", 1, ["mean"]])
def test_reduction(build, reduction):
    with pytest.raises(ValueError, match="'mean', 'batchmean', 'sum', 'none'") as error:
        build(reduction=reduction)
    assert f"reduction={reduction!r}" in str(error.value)


@pytest.mark.parametrize("class_dim", [0, False, True, 1.0, None, "1"])
def test_class_dim(build, class_dim):
    with pytest.raises(ValueError, match="batch dimension") as error:
        build(class_dim=class_dim)
    assert f"class_dim={class_dim!r}" in str(error.value)


def test_no_state(build):
    assert not build().state_dict()
    assert not list(build().buffers())


def test_built_by_prefix():
    loss = MODELS.build(dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf", reduction="sum"))
    assert type(loss) is ScaledKLDivLoss
    assert loss.tau == float("inf")
    assert type(MODELS.build(dict(type="mmkd_logit.LogitMSELoss"))) is LogitMSELoss


def test_built_by_prefix_in_a_new_process():
    code = (
        "from mmengine.registry import MODELS\n"
        "print(MODELS.build(dict(type='mmkd_logit.LogitMSELoss')),"
        "MODELS.build(dict(type='mmkd_logit.ScaledKLDivLoss', tau=4)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "LogitMSELoss(" in out.stdout
    assert "ScaledKLDivLoss(tau=4.0" in out.stdout
