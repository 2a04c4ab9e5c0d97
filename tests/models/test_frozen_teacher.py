import contextlib
import copy
import logging
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import batch, build, distiller, wrn
from runs import assert_same
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmkd_logit.models import FrozenTeacher
from mmkd_logit.registry import MODELS


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


def test_a_built_network_loads_the_checkpoint_that_is_named(checkpoint):
    path, model = checkpoint
    x, network = torch.randn(2, 3, 8, 8), build(wrn(), seed=5)
    assert not torch.equal(FrozenTeacher(copy.deepcopy(network))(x), model(x))
    assert torch.equal(FrozenTeacher(dict(config=network, checkpoint=path))(x), model(x))


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
    assert teacher.network.checkpoint.startswith("https://")
    assert teacher.network.model["backbone"]["type"] == "ResNet_CIFAR"


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


def test_other_normalisation_is_converted():
    images = torch.randint(256, (2, 3, 8, 8)).float()
    theirs = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    mine = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
    spec = dict(config=wrn(data_preprocessor=theirs), checkpoint=None)
    teacher = FrozenTeacher(spec)
    student = build(wrn(data_preprocessor=mine))
    teacher.set_input_normalization(student.data_preprocessor)
    seen_by_student = student.data_preprocessor(dict(inputs=images.byte()))["inputs"]
    raw = teacher.model.data_preprocessor(dict(inputs=images.byte()))["inputs"]
    torch.testing.assert_close(teacher(seen_by_student), teacher.model(raw))
    assert not torch.allclose(teacher.model(seen_by_student), teacher.model(raw))


@pytest.mark.parametrize("normalizes", ["student", "teacher"])
def test_one_network_normalizes_and_the_other_does_not(normalizes, monkeypatch):
    texts = []
    monkeypatch.setattr("mmkd_logit.models.teacher.print_log", lambda text, *_: texts.append(text))
    images = torch.randint(256, (2, 3, 8, 8)).float()
    values = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    theirs, mine = (values if normalizes == name else {} for name in ("teacher", "student"))
    spec = dict(config=wrn(data_preprocessor=theirs), checkpoint=None)
    student = build(wrn(data_preprocessor=mine))
    seen = student.data_preprocessor(dict(inputs=images.byte()))["inputs"]
    for said in ({}, theirs or dict(mean=[0.0], std=[1.0])):
        teacher = FrozenTeacher(spec | said)
        teacher.set_input_normalization(student.data_preprocessor)
        found = teacher(seen)
        raw = teacher.model.data_preprocessor(dict(inputs=images.byte()))["inputs"]
        assert torch.allclose(found, teacher.model(raw), atol=1e-3) == bool(said)
    warned = [text for text in texts if "Only the data preprocessor" in text]
    assert [f"of the {normalizes} normalises" in text for text in warned] == [True]


def test_equal_normalisation_changes_no_bit():
    same = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])
    teacher = FrozenTeacher(dict(config=wrn(data_preprocessor=same), checkpoint=None))
    teacher.set_input_normalization(build(wrn(data_preprocessor=same)).data_preprocessor)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(teacher(x), teacher.model(x))


@pytest.mark.parametrize("module", [True, False])
def test_a_network_without_a_preprocessor_says_its_mean_and_std(module):
    """As torchvision's networks do, on pixels from 0 to 255."""
    network, images = build(wrn()).eval(), torch.randint(256, (2, 3, 8, 8)).float()
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    spec = dict(config=network) if module else dict(config=wrn(), checkpoint=None)
    want = network((images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])
    for theirs in ({}, dict(mean=[127.5] * 3, std=[100.0] * 3)):
        teacher = FrozenTeacher(dict(spec, mean=mean, std=std))
        teacher.model.load_state_dict(network.state_dict())
        preprocessor = build(wrn(data_preprocessor=theirs)).data_preprocessor
        teacher.set_input_normalization(preprocessor)
        seen = preprocessor(dict(inputs=images.byte()))["inputs"]
        torch.testing.assert_close(teacher(seen), want, rtol=1e-4, atol=1e-4)
    teacher = FrozenTeacher(dict(spec, mean=[0.485] * 3, std=[0.229] * 3))
    teacher.set_input_normalization(preprocessor)
    with pytest.raises(ValueError, match="for pixels from 0 to 1; multiply them by 255"):
        teacher.build()


def test_images_in_the_teachers_size(checkpoint):
    path, model = checkpoint
    x = torch.randn(2, 3, 8, 8)
    for size in (12, [12, 12]):
        teacher = FrozenTeacher(dict(config=wrn(), checkpoint=path, input_size=size))
        want = F.interpolate(x, (12, 12), mode="bilinear", antialias=True)
        assert torch.equal(teacher(x), model(want))
        assert not torch.equal(teacher(x), model(x))
    assert teacher.settings.arithmetic == dict(input_size=(12, 12))
    assert FrozenTeacher(dict(config=wrn(), checkpoint=path)).settings.arithmetic == {}
    same = FrozenTeacher(dict(config=wrn(), checkpoint=path, input_size=8))
    assert torch.equal(same(x), model(x))


@pytest.mark.parametrize(
    ("pipelines", "own"),
    [
        (dict(test=[dict(type="ResizeEdge", scale=14), dict(type="CenterCrop", crop_size=12)]), 12),
        (dict(test=[], train=[dict(type="mmpretrain.RandomCrop", crop_size=16, padding=4)]), 16),
        (dict(train=[dict(type="RandomResizedCrop", scale=12), dict(type="PackInputs")]), 12),
        (dict(test=[dict(type="CenterCrop", crop_size=8)]), None),
        (dict(test=[dict(type="Resize", scale=(12, 16))]), (16, 12)),  # mmcv's: width, height
        (dict(test=[dict(type="PackInputs")]), None),
    ],
)
def test_images_of_another_size_than_the_teachers_are_warned_of(pipelines, own, monkeypatch):
    logged = []
    monkeypatch.setattr("mmkd_logit.models.teacher.print_log", lambda *words: logged.append(words))
    loaders = {
        f"{key}_dataloader": dict(dataset=dict(type="X", dataset=dict(type="Y", pipeline=value)))
        for key, value in pipelines.items()
    }
    config = dict(model=wrn(), **loaders)
    teacher = FrozenTeacher(dict(config=config, checkpoint=None))
    for _ in range(2):
        teacher(torch.randn(2, 3, 8, 8))
    said = [text for text, _, *level in logged if level == [logging.WARNING]]
    assert len(said) == (own is not None)
    if own:
        height, width = own if isinstance(own, tuple) else (own, own)
        assert f"of 8x8 pixels, and its config has images of {height}x{width}" in said[0]
        assert f"input_size=({height}, {width})" in said[0]
        logged.clear()
        FrozenTeacher(dict(config=config, checkpoint=None, input_size=own))(torch.ones(1, 3, 8, 8))
        assert all("pixels" not in text for text, *_ in logged)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("head.fc.bias"), ["missing keys", "head.fc.bias"]),
        (lambda s: s.update(extra=torch.zeros(1)), ["unexpected keys", "extra"]),
        (lambda s: s.update({"head.fc.bias": torch.zeros(9)}), ["head.fc.bias", "size mismatch"]),
        (lambda s: s.clear(), ["no state_dict"]),
        (lambda s: s.update(text="x"), ["unexpected keys", "text"]),
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
        (7, ValueError, "needs a model with a type, got 7"),
        ({}, ValueError, "cannot read a teacher"),
        (dict(config=wrn()), ValueError, "no checkpoint"),
        (wrn(), ValueError, "no checkpoint"),
        (dict(config=wrn(), checkpoint=3), ValueError, "must be a path, a URL"),
        (dict(config=wrn(), checkpoint="x", weights="y"), ValueError, "weights"),
        ("no_such_model", ValueError, "neither a config file nor an mmpretrain model"),
        ("nowhere/wrn.py", FileNotFoundError, "nowhere/wrn.py does not exist"),
        (dict(config=5, checkpoint="x"), ValueError, "needs a model with a type, got 5"),
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


OPTIONS = [
    dict(channels_last=True),
    dict(micro_batch=4),
    dict(autocast="bfloat16"),
    dict(autocast="float32"),
    dict(compile=dict(backend="aot_eager"), micro_batch=2, channels_last=True),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_change_how_the_logits_are_computed_and_not_what_they_are(checkpoint, options):
    path, model = checkpoint
    teacher = FrozenTeacher(dict(config=wrn(drop_rate=0.5), checkpoint=path, **options))
    x = torch.randn(5, 3, 8, 8, requires_grad=True)
    logits = teacher(x)
    assert logits.shape == (5, 4)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    half = options.get("autocast") == "bfloat16"
    torch.testing.assert_close(logits, model(x), rtol=0.05 if half else 1e-5, atol=0.05 * half)
    assert torch.equal(teacher(x), logits)
    assert not half or not torch.equal(logits, model(x))


def test_cpu_float16(checkpoint):
    path, model = checkpoint
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint=path, autocast="float16"))
    x = torch.randn(5, 3, 8, 8)
    assert teacher(x).dtype == torch.float32
    torch.testing.assert_close(teacher(x), model(x), rtol=0.01, atol=0.01)


class Sizes(nn.Module):
    """Notes the batches that come."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.flatten(1)[:, :3]


class Casts(TorchDispatchMode):
    """Counts copies to another type."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_frozen_weights_are_cast_once(checkpoint, precision, channels_last):
    """The same bits as autocast's, which casts them at every pass; the weights stay."""
    path, _ = checkpoint
    images, dtype = torch.randn(4, 3, 16, 16), getattr(torch, precision)
    spec = dict(config=wrn(), checkpoint=path, autocast=precision, channels_last=channels_last)
    teacher = FrozenTeacher(spec)
    plain = copy.deepcopy(FrozenTeacher(dict(spec, autocast=None)).model)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", dtype), Casts() as theirs:
        expected = plain(images).float()
    teacher(images)
    with Casts() as ours:
        assert torch.equal(teacher(images), expected)
    layers = [m for m in plain.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = sum(p is not None for m in layers for p in (m.weight, m.bias))
    assert theirs.count - ours.count == weights > 5
    assert_same(teacher.model.state_dict(), plain.state_dict())
    with torch.no_grad():
        assert torch.equal(teacher.model(images), plain(images))


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8])
def test_micro_batches_have_one_size_and_end_in_zeros(n):
    network = Sizes()
    x = torch.rand(n, 1, 2, 2)
    logits = FrozenTeacher(dict(config=network, micro_batch=4))(x)
    assert torch.equal(logits, x.flatten(1)[:, :3])
    assert {len(piece) for piece in network.seen} == {4}
    together = torch.cat(network.seen)
    assert torch.equal(together[:n], x)
    assert not together[n:].any()


def test_on_a_device_before_it_is_used_there(checkpoint):
    """What a compiled iteration made for itself, a CUDA graph would overwrite in the next."""
    path, _ = checkpoint
    options = dict(checkpoint=path, autocast="bfloat16", mean=[1.0], std=[2.0])
    teacher = FrozenTeacher(dict(config=wrn(drop_rate=0.5), **options))
    preprocessor = dict(type="mmpretrain.ClsDataPreprocessor", mean=[0.0], std=[1.0])
    teacher.set_input_normalization(MODELS.build(preprocessor))
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(teacher), "_precision", lambda *_: contextlib.nullcontext())
        patch.setattr(type(teacher), "_forward", lambda self, network, inputs: inputs)
        assert teacher(torch.randn(2, 3, 8, 8, device="meta")).is_meta
    for module in teacher.model.modules():
        made += getattr(module.forward, "_copies", {}).get(torch.device("meta"), [])
    assert made
    assert all(copy is None or (copy.is_meta and copy.dtype == torch.bfloat16) for copy in made)


def test_a_gpu_compiles_passes_of_one_size():
    given = dict(config=wrn(), checkpoint=None, cache=dict(storage="memory"))
    gpu = torch.device("cuda")
    assert FrozenTeacher(given).settings.images_a_pass(gpu) is None
    assert FrozenTeacher(dict(given, compile=True)).settings.images_a_pass(gpu) == 32


def test_one_shape_is_compiled_once(checkpoint):
    path, _ = checkpoint
    shapes = []

    def backend(graph, inputs):
        shapes.append(inputs[-1].shape)
        return graph

    options = dict(compile=dict(backend=backend), micro_batch=4)
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint=path, **options))
    for n in (8, 3, 1, 5):
        teacher(torch.randn(n, 3, 8, 8))
    assert len(shapes) == 1
    # The control: without micro-batches each size is another shape.
    teacher = FrozenTeacher(dict(config=wrn(), checkpoint=path, compile=dict(backend=backend)))
    for n in (8, 3, 5):
        teacher(torch.randn(n, 3, 8, 8))
    assert len(shapes) == 4


def test_as_the_surrounding_says_or_not(checkpoint):
    path, _ = checkpoint
    x = torch.randn(2, 3, 8, 8)
    spec = dict(config=wrn(), checkpoint=path)
    free, full = FrozenTeacher(spec), FrozenTeacher(dict(spec, autocast="float32"))
    half = FrozenTeacher(dict(spec, autocast="bfloat16"))
    expected = free(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(full(x), expected)
        assert torch.equal(free(x), half(x))
        assert not torch.equal(free(x), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(channels_last="yes"), "channels_last must be True or False, got 'yes'"),
        (dict(autocast="int8"), "autocast must be one of 'bfloat16', 'float16', 'float32'"),
        (dict(autocast=torch.bfloat16), "autocast must be one of"),
        (dict(autocast=True), "autocast must be one of.*got True"),
        (dict(compile="inductor"), "compile must be True, False or a dict"),
        (dict(input_size=0), "input_size must be an integer from 1 on, got 0"),
        (dict(input_size=[8, 8, 3]), "input_size is one number or two"),
        (dict(mean=[1.0]), "mean and std must be lists of one number a channel, both or neither"),
        (dict(mean=[1.0], std=[0]), "std must be above 0"),
        (dict(micro_batch=0), "micro_batch must be an integer from 1 on, got 0"),
        (dict(micro_batch=2.0), "micro_batch must be an integer from 1 on"),
        (dict(micro_batch=True), "micro_batch must be an integer from 1 on"),
        (dict(cache=True), "cache is a dict of storage, dtype, root, max_gib, or None, got True"),
        (dict(cache=dict(size=3)), "no setting 'size'; it takes storage, dtype, root, max_gib"),
        (
            dict(cache=dict(storage="tape")),
            "storage of .* one of 'memory', 'disk', got 'tape'",
        ),
        (
            dict(cache=dict(dtype="bfloat16")),
            "dtype of .* one of 'float32', 'float16', got",
        ),
        (dict(cache=dict(max_gib=0)), "max_gib of .*=0 must be a finite number above 0"),
        (dict(cache=dict(max_gib=float("nan"))), "max_gib of .*=nan must be a finite number"),
        (dict(cache=dict(max_gib="4")), "max_gib of .*='4' must be a finite number"),
        (dict(cache=dict(root=3)), "root of .* must be the name of a folder, got 3"),
        (dict(cache=dict(root="")), "root of .* must be the name of a folder, got ''"),
        (dict(chanels_last=True), r"no setting 'chanels_last'; did you mean channels_last\?"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(ValueError, match=words):
        FrozenTeacher(dict(config=wrn(), checkpoint=None, **options))


@pytest.mark.parametrize(
    "options", [dict(micro_batch=8), dict(compile=True), dict(cache=dict(storage="memory"))]
)
def test_features_need_the_whole_forward(options):
    term = dict(student="backbone", teacher="backbone", loss=nn.MSELoss())
    teacher = dict(config=wrn(), checkpoint=None, **options)
    with pytest.raises(ValueError, match=r"feature_kd looks into the forward of teacher.*leave"):
        build(distiller(teacher=teacher, feature_kd=[term]))
    fine = dict(config=wrn(), checkpoint=None, channels_last=True, autocast="bfloat16")
    model = build(distiller(teacher=fine, feature_kd=[term]))
    assert model(*batch(), mode="loss")["loss_feature_0"] > 0


def test_teachers_of_an_ensemble_have_their_own_options(checkpoint):
    path, _ = checkpoint
    spec = dict(config=wrn(drop_rate=0.5), checkpoint=path)
    teachers = [dict(spec, autocast="bfloat16"), dict(spec, micro_batch=2), spec]
    model = build(distiller(teacher=teachers))
    x, _ = batch()
    logits = [teacher(x) for teacher in model.teachers]
    assert torch.equal(model.teacher_logits(x), torch.stack(logits).mean(0))
    assert not torch.equal(logits[0], logits[2])
    assert [teacher.settings.micro_batch for teacher in model.teachers] == [None, 2, None]
