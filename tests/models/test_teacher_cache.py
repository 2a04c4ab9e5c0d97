"""What a cache gives is what the teacher gives, bit for bit, or an error."""

import copy
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from networks import batch, build, distiller, wrn
from torch import nn

from mmkd_logit.datasets.in_memory import SampleBatch, Views
from mmkd_logit.models import FrozenTeacher, TeacherCache, teacher_cache
from mmkd_logit.models.teacher_cache import ROWS, SUMS, LogitStore

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

IMAGES, VIEWS = 40, 9
PREPROCESSOR = dict(type="mmpretrain.ClsDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3)


def lively(network, seed=5):
    """Give batch norm statistics and gains as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """Configs of a WRN-10-1 and a WRN-16-2 with checkpoints."""
    folder = tmp_path_factory.mktemp("networks")
    made = {}
    for depth, widen in ((10, 1), (16, 2)):
        config = wrn(depth, widen, num_classes=10, base_channels=16)
        config["data_preprocessor"] = copy.deepcopy(PREPROCESSOR)
        path = folder / f"wrn{depth}-{widen}.pth"
        torch.save(lively(build(config, seed=depth)).state_dict(), path)
        made[depth] = dict(config=config, checkpoint=str(path))
    return made


def teacher_of(spec, tmp_path=None, mean=120.0, **cache):
    """A teacher that knows how its images are normalized."""
    options = {"storage": "memory", **cache}
    if tmp_path is not None:
        options.setdefault("root", str(tmp_path))
    teacher = FrozenTeacher(dict(spec, cache=options))
    student = build(wrn(num_classes=10, data_preprocessor=dict(PREPROCESSOR, mean=[mean] * 3)))
    teacher.set_input_normalization(student.data_preprocessor)
    return teacher


def images_of(index, view, seed=0, size=8):
    """The same image for the same numbers."""
    every = torch.randn(
        IMAGES * VIEWS, 3, size, size, generator=torch.Generator().manual_seed(seed)
    )
    return every[torch.from_numpy(index * VIEWS + view)]


def batch_of(n=128, seed=0, pictures="of a test"):
    """Different images and the numbers of their views."""
    numbers = np.random.default_rng(seed).permutation(IMAGES * VIEWS)[:n]
    index, view = np.divmod(numbers, VIEWS)
    return images_of(index, view), Views(pictures, IMAGES, VIEWS, index, view)


def part(views, rows):
    return Views(
        views.pictures, views.samples, views.per_sample, views.index[rows], views.view[rows]
    )


STORAGES = ("memory", "disk")
COMPUTED = (
    dict(),
    dict(channels_last=True),
    dict(autocast="bfloat16"),
    dict(autocast="bfloat16", channels_last=True),
)


@pytest.fixture
def said(monkeypatch):
    """What caches log."""
    lines = []
    monkeypatch.setattr(teacher_cache, "print_log", lambda text, *_, **__: lines.append(text))
    return lines


@pytest.mark.parametrize("options", COMPUTED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_hit_and_miss_cold_and_warm_give_the_same_bits(networks, tmp_path, options, dtype):
    spec = dict(networks[16], **options)
    inputs, views = batch_of()
    cold = teacher_of(spec, tmp_path, storage="disk", dtype=dtype)
    expected = cold(inputs, views)
    assert (cold.cache.hits, cold.cache.misses) == (0, 128)
    assert expected.dtype == torch.float32
    assert torch.equal(cold(inputs, views), expected)
    assert (cold.cache.hits, cold.cache.misses) == (128, 128)
    warm = teacher_of(spec, tmp_path, storage="disk", dtype=dtype)
    assert torch.equal(warm(inputs, views), expected)
    assert (warm.cache.hits, warm.cache.misses) == (128, 0)
    # The cache changes nothing but the rounding to dtype.
    plain = FrozenTeacher(dict(spec, micro_batch=32))
    plain.set_input_normalization(cold.model.data_preprocessor)
    assert torch.equal(plain(inputs).to(getattr(torch, dtype)).float(), expected)
    for storage in STORAGES:
        for missing in (1, 5, 127):
            rows = np.random.default_rng(missing).permutation(128)[missing:]
            mixed = teacher_of(spec, tmp_path / str(missing), storage=storage, dtype=dtype)
            mixed(inputs[rows], part(views, rows))
            assert torch.equal(mixed(inputs, views), expected)
            assert mixed.cache.misses == 128


def test_the_size_of_the_teachers_images_has_entries_of_its_own(networks, tmp_path):
    inputs, views = batch_of()
    found = []
    for size in (None, 24, 24):
        spec = networks[10] | ({} if size is None else dict(input_size=size))
        teacher = teacher_of(spec, tmp_path, storage="disk")
        found.append((teacher(inputs, views), teacher.cache.misses))
    (plain, _), (large, _), (again, _) = found
    assert [misses for _, misses in found] == [128, 128, 0]
    assert torch.equal(again, large)
    assert not torch.equal(plain, large)


def test_ambient_precision_has_entries_of_its_own(networks, tmp_path):
    inputs, views = batch_of()
    teacher = teacher_of(networks[10], tmp_path, storage="disk")
    full = teacher(inputs, views)
    with torch.autocast("cpu", torch.bfloat16):
        half = teacher(inputs, views)
        assert torch.equal(teacher(inputs, views), half)
    assert not torch.equal(half, full)
    assert torch.equal(teacher(inputs, views), full)
    assert (teacher.cache.hits, teacher.cache.misses) == (256, 256)
    assert len(list(tmp_path.iterdir())) == 2


def test_layout_of_the_images_changes_no_bit(networks, tmp_path):
    """A student in channels_last gives its teacher such images, of which some are missing."""
    inputs, views = batch_of()
    last = inputs.contiguous(memory_format=torch.channels_last)
    expected = teacher_of(networks[16])(inputs, views)
    mixed = teacher_of(networks[16])
    assert torch.equal(mixed(last[:100], part(views, slice(100))), expected[:100])
    assert torch.equal(mixed(last, views), expected)


def changes(networks):
    """What differs from the teacher that filled the cache."""
    own = copy.deepcopy(networks[10])
    own["config"]["data_preprocessor"]["mean"] = [100.0] * 3
    deeper = copy.deepcopy(networks[10])
    deeper["config"]["backbone"]["drop_rate"] = 0.5
    return dict(
        network=dict(spec=networks[16]),
        normalization=dict(mean=121.0),
        teachers_normalization=dict(spec=own),
        config=dict(spec=deeper),
        dtype=dict(dtype="float16"),
        precision=dict(spec=dict(networks[10], autocast="bfloat16")),
        layout=dict(spec=dict(networks[10], channels_last=True)),
        micro_batch=dict(spec=dict(networks[10], micro_batch=16)),
        compiler=dict(spec=dict(networks[10], compile=dict(backend="eager"))),
    )


@pytest.mark.parametrize("name", list(changes({10: dict(config=wrn(data_preprocessor={})), 16: 0})))
def test_a_change_of_what_decides_the_logits_begins_another_cache(networks, tmp_path, name):
    inputs, views = batch_of(40)
    teacher_of(networks[10], tmp_path, storage="disk")(inputs, views)
    arguments = dict(changes(networks)[name])
    spec = arguments.pop("spec", networks[10])
    changed = teacher_of(spec, tmp_path, storage="disk", **arguments)
    logits = changed(inputs, views)
    assert changed.cache.hits == 0
    arguments.pop("dtype", None)
    alone = teacher_of(spec, tmp_path / "alone", storage="memory", **arguments)
    rounded = getattr(torch, changed.cache.dtype)
    assert torch.equal(alone(inputs, views).to(rounded).float(), logits)
    again = teacher_of(networks[10], tmp_path, storage="disk")
    again(inputs, views)
    assert again.cache.misses == 0


def test_other_weights_and_other_images_begin_another_cache(networks, tmp_path):
    inputs, views = batch_of(40)
    teacher_of(networks[10], tmp_path, storage="disk")(inputs, views)
    state = torch.load(networks[10]["checkpoint"], weights_only=True)
    for name in ("head.fc.bias", "backbone.norm.running_mean"):
        other = {key: value.clone() for key, value in state.items()}
        other[name].view(-1)[0] = torch.nextafter(other[name].view(-1)[0], torch.tensor(9.0))
        torch.save(other, tmp_path / "other.pth")
        spec = dict(networks[10], checkpoint=str(tmp_path / "other.pth"))
        changed = teacher_of(spec, tmp_path, storage="disk")
        changed(inputs, views)
        assert changed.cache.hits == 0, name
    same = teacher_of(networks[10], tmp_path, storage="disk")
    for other in (
        Views("others", IMAGES, VIEWS, views.index, views.view),
        Views(views.pictures, IMAGES + 1, VIEWS, views.index, views.view),
        Views(views.pictures, IMAGES, VIEWS + 1, views.index, views.view),
    ):
        fresh = teacher_of(networks[10], tmp_path, storage="disk")
        fresh(inputs, other)
        assert fresh.cache.hits == 0
    # One cache object sees several data sets, and keeps them apart as well.
    same(inputs, views)
    same(inputs + 1, Views("brighter", IMAGES, VIEWS, views.index, views.view))
    assert same.cache.misses == 40


def test_moved_weights_are_the_same_teacher(networks, tmp_path):
    inputs, views = batch_of(40)
    teacher_of(networks[10], tmp_path, storage="disk")(inputs, views)
    torch.save(torch.load(networks[10]["checkpoint"], weights_only=True), tmp_path / "moved.pth")
    spec = dict(networks[10], checkpoint=str(tmp_path / "moved.pth"))
    moved = teacher_of(spec, tmp_path, storage="disk")
    moved(inputs, views)
    assert moved.cache.misses == 0


def test_another_normalization_closes_the_cache(networks):
    inputs, views = batch_of(40)
    teacher = teacher_of(networks[10])
    teacher(inputs, views)
    student = build(wrn(num_classes=10, data_preprocessor=dict(PREPROCESSOR, std=[70.0] * 3)))
    teacher.set_input_normalization(student.data_preprocessor)
    converted = teacher(inputs, views)
    assert teacher.cache.hits == 0
    torch.testing.assert_close(converted, teacher.model(inputs * (70 / 60)), rtol=1e-4, atol=1e-4)
    teacher.set_input_normalization(student.data_preprocessor)
    teacher(inputs, views)
    assert teacher.cache.hits == 40


def test_an_unknown_normalization_is_refused(networks):
    teacher = FrozenTeacher(dict(networks[10], cache=dict(storage="memory")))
    with pytest.raises(ValueError, match="was not told how images are normalised"):
        teacher(*batch_of())


def test_views_without_numbers_are_refused(networks, tmp_path):
    inputs, views = batch_of()
    teacher = teacher_of(networks[10])
    with pytest.raises(ValueError, match=r"MixUp, CutMix, Cutout.*InMemoryDataset"):
        teacher(inputs)
    with pytest.raises(ValueError, match="128 images have 5 numbers of images and 5 of views"):
        teacher(inputs, part(views, slice(5)))
    for index, view in ((IMAGES, 0), (0, VIEWS), (-1, 0), (0, -1)):
        outside = Views("x", IMAGES, VIEWS, np.array([index]), np.array([view]))
        with pytest.raises(ValueError, match="invalid entry in coordinates"):
            teacher(inputs[:1], outside)
    spec = dict(config=wrn(data_preprocessor=PREPROCESSOR), checkpoint=None)
    model = build(distiller(teacher=dict(spec, cache=dict(storage="memory"))))
    with pytest.raises(ValueError, match="MixUp"):
        model(*batch(), mode="loss")
    assert model.student(batch()[0]).shape == (6, 4)


def test_batches_that_are_mixed_never_reach_a_cache(networks, tmp_path):
    """Also where mmpretrain's own preprocessor mixes them and leaves their numbers."""
    from mmpretrain.models import ClsDataPreprocessor

    from mmkd_logit.models import BatchPreprocessor

    mix = dict(augments=dict(type="Mixup", alpha=1.0), probs=1.0)
    for kind in (ClsDataPreprocessor, BatchPreprocessor):
        teacher = teacher_of(networks[10], tmp_path)
        mixing = kind(mean=[120.0], std=[60.0], num_classes=10, batch_augments=mix)
        with pytest.raises(ValueError, match="MixUp, CutMix"):
            teacher.set_input_normalization(mixing)


def test_other_preprocessors_have_another_cache():
    from mmpretrain.models import ClsDataPreprocessor

    from mmkd_logit.models import BatchPreprocessor
    from mmkd_logit.models.teacher_cache import describe_preprocessor

    settings = dict(mean=[120.0], std=[60.0])
    described = [describe_preprocessor(k(**settings)) for k in (ClsDataPreprocessor,) * 2]
    assert described[0] == described[1] != describe_preprocessor(BatchPreprocessor(**settings))
    for other in (dict(settings, mean=[121.0]), dict(settings, std=[61.0]), {}):
        assert describe_preprocessor(ClsDataPreprocessor(**other)) != described[0]


def test_distiller_takes_the_numbers_of_the_batch(networks):
    inputs, views = batch_of(12)
    samples = SampleBatch(torch.arange(12) % 10, views.index, (8, 8), views=views)
    student = wrn(num_classes=10, data_preprocessor=PREPROCESSOR)
    caches = [dict(storage="memory"), None]
    teachers = [dict(networks[10], cache=cache, micro_batch=32) for cache in caches]
    model = build(distiller(student=student, teacher=teachers))
    first = model.teacher_logits(inputs, samples)
    assert torch.equal(model.teacher_logits(inputs, samples), first)
    assert [t.cache and t.cache.hits for t in model.teachers] == [12, None]
    plain = build(distiller(student=student, teacher=[teachers[1]] * 2))
    assert torch.equal(plain.teacher_logits(inputs), first)  # without annotations
    assert copy.deepcopy(model).teachers[0].cache is model.teachers[0].cache


@pytest.mark.parametrize("storage", STORAGES)
def test_a_cache_beyond_its_bound_is_declined_and_not_half_filled(tmp_path, storage, said):
    """360 rows of 10 float16 take 8640 bytes with their checksums."""
    for bound, hits in ((8639, 0), (8640, 2)):
        cache = TeacherCache(storage, "float16", root=tmp_path / str(bound), max_gib=bound / 2**30)
        for _ in range(2):
            assert torch.equal(ask(cache, 3, 350), expected(3, 350, dtype=torch.float16))
        assert (cache.hits, cache.misses) == (hits, 4 - hits)
        assert cache.report()["bytes"] == (8640 if hits else 0)
    declined, opened = said
    assert "No teacher cache: the 9 views of 40 images would take 8.05e-06 GiB" in declined
    assert "holds 0 of 360 logits and takes 8.05e-06 GiB when full." in opened
    assert not (tmp_path / "8639").exists()


def test_the_expected_hit_rate_is_said(tmp_path, said):
    """200 epochs draw 162 (1 - (161/162)^200) = 115.05 of 162 views of an image, 57.5 %."""
    views = Views("x", 5, 162, np.arange(5), np.zeros(5, int))
    MessageHub.get_current_instance().update_info("max_epochs", 200)
    for _ in range(2):
        cache = TeacherCache(root=tmp_path)
        cache(torch.zeros(5, 3), views, lambda x: x, lambda _: dict(num_classes=3))
    assert said[0].endswith("At least 42.5% of the look-ups of 200 epochs will be hits.")
    assert "holds 5 of 810 logits" in said[1]
    assert "At least 42.8%" in said[1]


def ask(cache, *numbers, classes=10):
    """Look up rows whose logits are a function of their number."""
    numbers = np.array(numbers, dtype=np.int64)
    index, view = np.divmod(numbers, VIEWS)
    inputs = torch.from_numpy(numbers)[:, None].double()
    return cache(
        inputs.float(),
        Views("x", IMAGES, VIEWS, index, view),
        lambda x: torch.sin((x + 1) * torch.arange(1, classes + 1)),
        lambda _: dict(num_classes=classes),
    )


def expected(*numbers, classes=10, dtype=torch.float32):
    x = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return torch.sin((x + 1) * torch.arange(1, classes + 1)).to(dtype).float()


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("classes", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_number_of_classes(tmp_path, storage, classes, dtype):
    cache = TeacherCache(storage, dtype, root=tmp_path)
    rounded = getattr(torch, dtype)
    for numbers in ((5, 4, 9), (9, 5, 359), (0, 0, 0), ()):
        logits = ask(cache, *numbers, classes=classes)
        assert torch.equal(logits, expected(*numbers, classes=classes, dtype=rounded))
        assert logits.dtype == torch.float32
    assert cache.report()["entries"] == 5


@pytest.mark.parametrize("storage", STORAGES)
def test_another_number_of_classes_than_announced(tmp_path, storage):
    cache = TeacherCache(storage, root=tmp_path)
    views = Views("x", IMAGES, VIEWS, np.array([0]), np.array([0]))
    with pytest.raises(ValueError, match=r"for 10 classes, got logits of shape \(1, 3\)"):
        cache(torch.zeros(1, 3), views, lambda x: x, lambda _: dict(num_classes=10))


def test_a_logit_beyond_float16_is_an_error(tmp_path):
    views = Views("x", IMAGES, VIEWS, np.array([0]), np.array([0]))
    for storage in STORAGES:
        cache = TeacherCache(storage, "float16", root=tmp_path)
        with pytest.raises(ValueError, match=r"does not fit float16.*dtype='float32'"):
            cache(torch.full((1, 3), 7e4), views, lambda x: x, lambda _: dict(num_classes=3))
        assert cache.report()["entries"] == 0


def files_of(tmp_path):
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    return folder, folder / ROWS, folder / SUMS


def flip(path, place):
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize(
    ("dtype", "name", "row", "checksum"),
    [
        ("float32", "289e5523b6b69e9a54620faf87f1dfea", "0000c03f000000c000005040", "1b3f1977"),
        ("float16", "0b34d9f7b9118fc49eef74872daa0eda", "003e00c080420000", "bdd1d809"),
    ],
)
def test_folders_of_format_1_stay_readable(tmp_path, dtype, name, row, checksum):
    """Name, layout and checksum are those of earlier versions."""
    views = Views("x", 2, 2, np.array([1]), np.array([0]))
    cache = TeacherCache("disk", dtype, root=tmp_path)
    logits = torch.tensor([[1.5, -2.0, 3.25]])
    cache(logits, views, lambda x: x, lambda _: dict(num_classes=3))
    row, checksum = bytes.fromhex(row), bytes.fromhex(checksum)
    for file, content in ((ROWS, row), (SUMS, checksum)):
        empty = bytes(len(content))
        assert (tmp_path / name / file).read_bytes() == empty * 2 + content + empty
    meta = json.loads((tmp_path / name / "meta.json").read_text())
    assert meta == dict(
        dtype=dtype, format=1, num_classes=3, per_sample=2, pictures="x", rows=4, samples=2
    )


def test_the_description_of_a_teacher_stays(networks, tmp_path):
    """It names the folder: with another one, the caches of earlier versions are not found."""
    teacher = teacher_of(networks[10], tmp_path, storage="disk")
    teacher(*batch_of(4))
    folder, *_ = files_of(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    assert set(meta.pop("machine")) == {"torch", "device", "half"}
    preprocessor = dict(type="ClsDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3)
    hidden = dict(_channel_conversion=None, _enable_normalize=True, to_rgb=False)
    assert meta == dict(
        teacher="mmkd_logit.WideResNetCIFAR",
        weights=teacher_cache.weights_hash(teacher.model),
        model=networks[10]["config"],
        preprocessor=dict(preprocessor, **hidden, pad_size_divisor=1, pad_value=0),
        conversion=[],
        inputs="torch.float32",
        num_classes=10,
        computed=dict(
            channels_last=False, compile=False, micro_batch=32, precision="torch.float32"
        ),
        dtype="float32",
        pictures="of a test",
        samples=IMAGES,
        per_sample=VIEWS,
        rows=IMAGES * VIEWS,
        format=1,
    )


class OnGPU:
    """Logits that a GPU is still computing, for the store."""

    def __init__(self, logits):
        self.logits, self.shape, self.is_cuda = logits, logits.shape, True
        self.device = torch.device("cuda", 3)

    def to(self, device, non_blocking):
        assert (device, non_blocking) == ("cpu", True)
        return self.logits


@pytest.mark.parametrize("full", [False, True])
def test_logits_of_a_gpu_are_written_by_a_thread(tmp_path, monkeypatch, said, full):
    """One batch at a time, and what goes wrong there is said or raised here."""
    computed, written, devices = threading.Event(), [], []

    class Event:
        record = staticmethod(lambda: None)

        def __init__(self, blocking):
            assert blocking  # otherwise a core spins

        def synchronize(self):
            assert devices[-1:] == [torch.device("cuda", 3)]
            computed.wait(30)

    def write(*args):
        written.append(threading.current_thread())
        if full:
            raise OSError(28, "No space left on device")
        return write_rows(*args)

    write_rows = teacher_cache._write_rows
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(teacher_cache, "_write_rows", write)
    store = LogitStore(8, 3, "float32", tmp_path / "store")
    logits = torch.randn(2, 3)
    store.put(np.array([1, 6]), OnGPU(logits))
    assert not written
    assert not store.get(np.array([1, 6]), torch.device("cpu"))[1].any()
    computed.set()
    store.flush()
    assert written[0] is not threading.current_thread()
    found, there = store.get(np.array([1, 6]), torch.device("cpu"))
    assert there.all() == (not full) == store.writable
    if full:
        assert "is only read from now on: [Errno 28]" in said[-1]
    else:
        assert torch.equal(found, logits)
    rounded = LogitStore(8, 3, "float16")
    rounded.put(np.array([1, 6]), OnGPU(torch.full((2, 3), math.inf).half()))
    with pytest.raises(ValueError, match="does not fit float16"):
        rounded.flush()


def test_a_gpu_is_described_with_its_libraries_and_their_settings(monkeypatch):
    """Also where a precision was set, after which torch refuses to say allow_tf32."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    cudnn, matmul, device = torch.backends.cudnn, torch.backends.cuda.matmul, torch.device("cuda")

    def check():
        before = teacher_cache.describe_machine(device)
        assert set(before) == {"torch", "device", "cudnn", "tf32", "benchmark", "deterministic"}
        assert before["tf32"] == dict(convolutions=True, matmul=False)
        cudnn.benchmark = True
        assert teacher_cache.describe_machine(device) == dict(before, benchmark=True)
        if hasattr(cudnn, "conv"):  # torch 2.9
            cudnn.conv.fp32_precision, matmul.fp32_precision = "ieee", "tf32"
            found = teacher_cache.describe_machine(device)["tf32"]
            assert found == dict(convolutions=False, matmul=True)

    must_end_well(start(check))  # these switches cannot be put back


def test_open_caches_see_each_others_rows(tmp_path):
    first, second = (TeacherCache("disk", root=tmp_path) for _ in range(2))
    ask(first, 0), ask(second, 0)
    assert second.hits == 1
    ask(first, *range(20))
    assert torch.equal(ask(second, *range(20)), expected(*range(20)))
    assert second.misses == 0


def test_a_damaged_row_is_computed_again(tmp_path):
    ask(TeacherCache("disk", root=tmp_path), *range(20))
    _, rows, sums = files_of(tmp_path)
    for place in range(7 * 40, 8 * 40, 3):  # bytes of row 7
        flip(rows, place)
        cache = TeacherCache("disk", root=tmp_path)
        assert torch.equal(ask(cache, *range(20)), expected(*range(20)))
        assert (cache.hits, cache.misses) == (19, 1)
    flip(sums, 7 * 4 + 1)
    cache = TeacherCache("disk", root=tmp_path)
    ask(cache, *range(20))
    assert cache.misses == 1


def test_a_row_in_anothers_place_or_half_written_is_computed_again(tmp_path):
    ask(TeacherCache("disk", root=tmp_path), *range(20))
    _, rows, sums = files_of(tmp_path)
    content, check = bytearray(rows.read_bytes()), bytearray(sums.read_bytes())
    content[3 * 40 : 4 * 40], check[3 * 4 : 4 * 4] = content[:40], check[:4]  # row 0 as row 3
    content[5 * 40 : 5 * 40 + 24] = bytes(24)  # the first half never reached the disk
    content[6 * 40 : 7 * 40] = bytes(40)  # nor this row, whose checksum did
    content[8 * 40 + 20 : 9 * 40] = content[9 * 40 + 20 : 10 * 40]  # of two writers
    rows.write_bytes(content), sums.write_bytes(check)
    cache = TeacherCache("disk", root=tmp_path)
    assert torch.equal(ask(cache, *range(20)), expected(*range(20)))
    assert (cache.hits, cache.misses) == (16, 4)


def test_checksums_of_rows_that_end_in_zeros_differ():
    """bfloat16 kept as float32 has 16 zeros at the end of each word."""
    store = LogitStore(1, 10, "float32")
    logits = torch.randn(20000, 10).bfloat16().float()
    words = logits.numpy().view(np.uint32)
    sums = store._checksum(words, np.zeros(len(words), np.int64))
    pairs = 20000 * 19999 / 2 / 2**32  # expected to agree by chance
    assert len(words) - len(np.unique(sums)) <= pairs + 5
    low = np.unique(sums & 0xFFFF)
    assert len(low) > 15000  # not the upper half of the sum alone


@pytest.mark.parametrize("cut", [ROWS, SUMS])
@pytest.mark.parametrize("how", ["shorter", "longer", "empty", "gone"])
def test_files_of_another_length_are_mended(tmp_path, cut, how):
    ask(TeacherCache("disk", root=tmp_path), *range(20))
    folder, *_ = files_of(tmp_path)
    content = (folder / cut).read_bytes()
    row = len(content) // (IMAGES * VIEWS)
    if how == "gone":
        (folder / cut).unlink()
    else:
        there = dict(shorter=content[: 10 * row], longer=content + b"x", empty=b"")
        (folder / cut).write_bytes(there[how])
    cache = TeacherCache("disk", root=tmp_path)
    assert torch.equal(ask(cache, *range(20)), expected(*range(20)))
    assert cache.misses == dict(shorter=10, longer=0, empty=20, gone=20)[how]
    assert (folder / cut).stat().st_size == len(content)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", None])
def test_a_lost_description_is_written_again(tmp_path, content):
    ask(TeacherCache("disk", root=tmp_path), 1)
    folder, *_ = files_of(tmp_path)
    whole = (folder / "meta.json").read_bytes()
    (folder / "meta.json").unlink()
    if content is not None:
        (folder / "meta.json").write_bytes(content)
    cache = TeacherCache("disk", root=tmp_path)
    ask(cache, 1)
    assert cache.hits == 1
    assert (folder / "meta.json").read_bytes() == whole
    assert not list(folder.glob("*.part"))


def test_a_removed_folder_ends_nothing(tmp_path):
    cache = TeacherCache("disk", root=tmp_path / "a")
    ask(cache, 1)
    shutil.rmtree(tmp_path / "a")
    assert torch.equal(ask(cache, 1, 2), expected(1, 2))
    assert torch.equal(ask(TeacherCache("disk", root=tmp_path / "a"), 1, 2), expected(1, 2))


@pytest.mark.parametrize("name", [ROWS, SUMS, "meta.json"])
def test_no_link_is_followed_for_writing(tmp_path, said, name):
    """One to a file of the right size is read."""
    ask(TeacherCache("disk", root=tmp_path / "root"), 1, 2)
    file, precious = files_of(tmp_path / "root")[0] / name, tmp_path / "precious"
    whole = file.read_bytes()
    file.unlink()
    file.symlink_to(precious)
    for content in (whole, whole[:-1]):
        precious.write_bytes(content)
        cache = TeacherCache("disk", root=tmp_path / "root")
        assert torch.equal(ask(cache, 1, 2, 3), expected(1, 2, 3))
        assert precious.read_bytes() == content
        if name != "meta.json":
            assert cache.hits == 2 * (content == whole)
            assert f"{name} cannot be written: it is a link" in said[-1 - (content == whole)]


def test_a_root_that_cannot_be_made_is_no_cache(tmp_path, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"must be a folder, and .*file is a file"):
        TeacherCache("disk", root=tmp_path / "file")
    cache = TeacherCache("disk", root=tmp_path / "file" / "below")
    assert torch.equal(ask(cache, 1), expected(1))
    assert "No teacher cache" in said[-1]


def test_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(TeacherCache().root) == "work_dirs/teacher_cache"
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "scratch"))
    ask(TeacherCache(), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]
    assert TeacherCache(root="here").root.name == "here"


def test_files_take_the_disk_that_they_need(tmp_path):
    cache = TeacherCache("disk", root=tmp_path)
    views = Views("x", 50000, 162, np.array([49999]), np.array([161]))
    cache(torch.zeros(1, 100), views, lambda x: x, lambda _: dict(num_classes=100))
    _, rows, sums = files_of(tmp_path)
    assert rows.stat().st_size == 50000 * 162 * 100 * 4
    assert rows.stat().st_blocks * 512 < 2**20
    assert sums.stat().st_size == 50000 * 162 * 4
    assert cache.report()["bytes"] == 50000 * 162 * 404


def start(function, *args):
    """Run a function in a process that inherits all that this one has imported."""
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    return process


def must_end_well(*processes):
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_a_full_disk_ends_the_filling_alone(tmp_path, said):
    def fill():
        cache = TeacherCache("disk", root=tmp_path)
        ask(cache, 1, 2)
        # No file may grow beyond 4 KiB from here on, as on a disk that is full.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for _ in range(2):
            assert torch.equal(ask(cache, *range(360)), expected(*range(360)))
        assert torch.equal(ask(cache, 1, 2), expected(1, 2))
        assert sum("is only read from now on: [Errno 27]" in line for line in said) == 1

    must_end_well(start(fill))
    ask(cache := TeacherCache("disk", root=tmp_path), *range(360))
    assert 2 <= cache.hits < 360


def test_a_read_only_cache_is_read_and_none_can_be_made_there(said):
    def read():
        if os.getuid() == 0:  # root may write everywhere
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
        cache = TeacherCache("disk", root=root)
        for _ in range(2):
            assert torch.equal(ask(cache, 1, 2, 3), expected(1, 2, 3))
        assert (cache.hits, cache.misses, cache.report()["entries"]) == (4, 2, 2)
        assert "is only read from now on" in said[-2]
        ask(TeacherCache("disk", "float16", root=root), 1)
        assert "No teacher cache" in said[-1]
        for name in ("files", "folder", "closed/below"):
            assert torch.equal(ask(TeacherCache("disk", root=Path(root, name)), 1), expected(1))
            assert "No teacher cache" in said[-1]
            assert "ermission denied" in said[-1]

    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are closed to others
        os.chmod(root, 0o755)
        ask(TeacherCache("disk", root=root), 1, 2)
        folder, *_ = files_of(Path(root))
        for name in ("files", "folder"):
            ask(TeacherCache("disk", root=Path(root, name)), 1)
        for path in (*files_of(Path(root, "files"))[1:], files_of(Path(root, "folder"))[0]):
            path.chmod(0)
        Path(root, "closed").mkdir(0)
        for path in (*folder.iterdir(), folder, Path(root)):
            path.chmod(0o555 if path.is_dir() else 0o444)
        reader = start(read)
        reader.join(60)
        Path(root).chmod(0o755), folder.chmod(0o755)
        must_end_well(reader)


def write(root, seed, turns):
    draw = np.random.default_rng(seed)
    for turn in range(turns):
        cache = TeacherCache("disk", root=root / str(turn))
        for _ in range(40):
            numbers = draw.integers(0, IMAGES * VIEWS, 16)
            found = ask(cache, *numbers, classes=100)
            assert torch.equal(found, expected(*numbers, classes=100))


def check_all(tmp_path):
    """Compare all rows that are there; return how many they are."""
    hits = 0
    for root in tmp_path.iterdir():
        cache = TeacherCache("disk", root=root)
        everything = range(IMAGES * VIEWS)
        assert torch.equal(ask(cache, *everything, classes=100), expected(*everything, classes=100))
        hits += cache.hits
    return hits


def test_killed_while_writing_leaves_no_wrong_row(tmp_path):
    for wait in (0.0, 0.011, 0.023):
        writer = start(write, tmp_path, 1, 100000)
        while not (tmp_path / "3").exists():
            time.sleep(0.001)
        time.sleep(wait)
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
    assert check_all(tmp_path) > 0


def test_several_writers_at_once(tmp_path):
    must_end_well(*[start(write, tmp_path, seed, 6) for seed in range(3)])
    assert check_all(tmp_path) > 6 * 300  # more than one of them could have written


def test_a_later_teacher_has_a_cache_of_its_own(networks, tmp_path):
    inputs, views = batch_of(12)
    samples = SampleBatch(torch.arange(12) % 10, views.index, (8, 8), views=views)
    student = wrn(num_classes=10, data_preprocessor=PREPROCESSOR)
    disk = dict(storage="disk", root=str(tmp_path))
    specs = [dict(networks[depth], cache=disk) for depth in (10, 16)]
    model = build(distiller(student=student, teacher=specs[0]))
    first = model.teacher_logits(inputs, samples)
    model.switch(teacher=specs[1])
    second = model.teacher_logits(inputs, samples)
    assert not torch.equal(first, second)
    assert len(list(tmp_path.iterdir())) == 2
    model.switch(teacher=specs[0])
    assert torch.equal(model.teacher_logits(inputs, samples), first)
    assert (model.teachers[0].cache.hits, model.teachers[0].cache.misses) == (12, 0)


def test_an_ensemble_keeps_the_logits_of_each(networks, tmp_path):
    inputs, views = batch_of(12)
    samples = SampleBatch(torch.arange(12) % 10, views.index, (8, 8), views=views)
    student = wrn(num_classes=10, data_preprocessor=PREPROCESSOR)
    disk = dict(storage="disk", root=str(tmp_path))
    both = [dict(networks[depth], cache=disk) for depth in (10, 16)]
    joined = build(distiller(student=student, teacher=both, ensemble="probs"))
    cold = joined.teacher_logits(inputs, samples)
    assert torch.equal(joined.teacher_logits(inputs, samples), cold)
    alone = build(distiller(student=student, teacher=both[1]))
    alone.teacher_logits(inputs, samples)
    assert alone.teachers[0].cache.misses == 0  # the member's logits serve it alone
