import copy
import random

import numpy as np
import pytest
import torch
from networks import build, wrn
from torch import nn

from mmkd_logit.models import FrozenTeacher


@pytest.fixture
def checkpoint(tmp_path):
    """A trained-looking classifier's checkpoint, and the classifier."""
    model = build(wrn(drop_rate=0.5), seed=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    path = tmp_path / "teacher.pth"
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return str(path), model.eval()


def test_gives_the_logits_of_the_checkpoint_without_gradient(checkpoint):
    path, model = checkpoint
    teacher = FrozenTeacher(dict(config=wrn(drop_rate=0.5), checkpoint=path))
    x = torch.randn(3, 3, 8, 8, requires_grad=True)
    logits = teacher(x)
    assert not logits.requires_grad
    assert torch.equal(logits, model(x))
    assert torch.equal(teacher(x), logits)  # dropout is off
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_pretrained_init_cfg_names_the_checkpoint(checkpoint):
    path, model = checkpoint
    spec = wrn(drop_rate=0.5, init_cfg=dict(type="Pretrained", checkpoint=path))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(FrozenTeacher(spec)(x), model(x))


def test_config_file_and_ddp_prefix(checkpoint, tmp_path):
    path, model = checkpoint
    state = {
        f"module.{key}": value
        for key, value in torch.load(path, weights_only=True)["state_dict"].items()
    }
    torch.save(state, path)
    config = tmp_path / "thin wrn.py"
    config.write_text(f"model = {wrn(drop_rate=0.5)!r}\n")
    x = torch.randn(2, 3, 8, 8)
    teacher = FrozenTeacher(dict(config=str(config), checkpoint=path))
    assert teacher.name == "thin wrn"
    assert torch.equal(teacher(x), model(x))


def test_distilling_config_means_its_student(checkpoint):
    path, model = checkpoint
    outer = dict(
        type="mmkd_logit.LogitDistiller",
        student=dict(type="LogitDistiller", student=wrn(drop_rate=0.5), teacher="a", loss_kd={}),
        teacher="b",
        loss_kd={},
    )
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(FrozenTeacher(dict(config=outer, checkpoint=path))(x), model(x))


def test_published_model_is_found_by_name():
    teacher = FrozenTeacher("resnet18_8xb16_cifar10")
    assert teacher._spec.checkpoint.startswith("https://")
    assert teacher._spec.model["backbone"]["type"] == "ResNet_CIFAR"


def test_building_leaves_every_generator_as_it_was(checkpoint):
    path, _ = checkpoint
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    FrozenTeacher(dict(config=wrn(drop_rate=0.5), checkpoint=path)).build()
    FrozenTeacher(dict(config=wrn(), checkpoint=None)).build()
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    # The control: without the guard the same construction does draw numbers.
    build(wrn(), seed=3)
    assert not torch.equal(torch.get_rng_state(), before[2])


def test_deep_copy_is_the_same_object():
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint=None))
    assert copy.deepcopy([teacher])[0] is teacher


def test_other_normalisation_is_converted():
    images = torch.randint(256, (2, 3, 8, 8)).float()
    theirs = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    mine = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
    spec = dict(config=wrn(data_preprocessor=theirs), checkpoint=None)
    teacher = FrozenTeacher(spec)
    student = build(wrn(data_preprocessor=mine))
    teacher.expect_inputs_of(student.data_preprocessor)
    seen_by_student = student.data_preprocessor(dict(inputs=images.byte()))["inputs"]
    raw = teacher.model.data_preprocessor(dict(inputs=images.byte()))["inputs"]
    torch.testing.assert_close(teacher(seen_by_student), teacher.model(raw))
    assert not torch.allclose(teacher.model(seen_by_student), teacher.model(raw))


def test_equal_normalisation_changes_no_bit():
    same = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    teacher = FrozenTeacher(dict(config=wrn(data_preprocessor=same), checkpoint=None))
    teacher.expect_inputs_of(build(wrn(data_preprocessor=same)).data_preprocessor)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(teacher(x), teacher.model(x))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("head.fc.bias"), ["missing keys", "head.fc.bias"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["unexpected keys", "extra"]),
        (lambda s: s.update({"head.fc.bias": torch.zeros(9)}), ["head.fc.bias", "size mismatch"]),
        (lambda s: s.clear(), ["no state_dict"]),
        (lambda s: s.update(text="x"), ["no state_dict"]),
    ],
)
def test_checkpoint_that_does_not_fit(checkpoint, change, words):
    path, _ = checkpoint
    state = torch.load(path, weights_only=True)["state_dict"]
    change(state)
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match=r"teacher\.pth") as error:
        FrozenTeacher(dict(config=wrn(drop_rate=0.5), checkpoint=path)).build()
    for word in words:
        assert word in str(error.value)


def test_missing_batch_counters_are_fine(checkpoint):
    path, model = checkpoint
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    torch.save(state, path)
    FrozenTeacher(dict(config=wrn(drop_rate=0.5), checkpoint=path)).build()


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (7, ValueError, "cannot read a teacher from 7"),
        ({}, ValueError, "cannot read a teacher"),
        (dict(config=wrn()), ValueError, "no checkpoint"),
        (wrn(), ValueError, "no checkpoint"),
        (dict(config=wrn(), checkpoint=3), ValueError, "must be text"),
        (dict(config=wrn(), checkpoint="x", weights="y"), ValueError, "weights"),
        ("no_such_model", ValueError, "neither a config file nor an mmpretrain model"),
        ("nowhere/wrn.py", FileNotFoundError, "nowhere/wrn.py does not exist"),
        (dict(config=5, checkpoint="x"), ValueError, "cannot read a teacher's config"),
    ],
)
def test_wrong_specs(spec, error, words):
    with pytest.raises(error, match=words):
        FrozenTeacher(spec)


def test_missing_checkpoint_names_the_remedy():
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint="work_dirs/none.pth"))
    with pytest.raises(FileNotFoundError, match=r"work_dirs/none\.pth.*--train-teacher"):
        teacher.build()


def test_network_that_gives_no_single_tensor():
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ValueError, match="gives a tuple"):
        FrozenTeacher(Two())(torch.rand(1, 2))
