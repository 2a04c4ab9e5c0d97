"""What a cache gives is what the teacher gives, bit for bit, or an error."""

import copy
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import PROJECT
from networks import batch, build, distiller, wrn
from torch import nn

from mmkd_logit.datasets.in_memory import SampleBatch, Views
from mmkd_logit.models import FrozenTeacher, TeacherCache
from mmkd_logit.models.logit_store import ROWS, SUMS, LogitStore

IMAGES, VIEWS = 40, 9
_number = itertools.count()
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
    """A teacher, told what its images look like."""
    options = {"storage": "memory", **cache}
    if tmp_path is not None:
        options.setdefault("root", str(tmp_path))
    teacher = FrozenTeacher(dict(spec, cache=options))
    student = build(wrn(num_classes=10, data_preprocessor=dict(PREPROCESSOR, mean=[mean] * 3)))
    teacher.set_input_normalization(student.data_preprocessor)
    return teacher


def pictures_of(index, view, seed=0, size=8):
    """The same picture for the same numbers."""
    every = torch.randn(
        IMAGES * VIEWS, 3, size, size, generator=torch.Generator().manual_seed(seed)
    )
    return every[torch.from_numpy(index * VIEWS + view)]


def batch_of(n=128, seed=0, pictures="of a test"):
    """Different pictures and their numbers."""
    numbers = np.random.default_rng(seed).permutation(IMAGES * VIEWS)[:n]
    index, view = np.divmod(numbers, VIEWS)
    return pictures_of(index, view), Views(pictures, IMAGES, VIEWS, index, view)


def part(views, rows):
    return Views(
        views.pictures, views.samples, views.per_sample, views.index[rows], views.view[rows]
    )


STORAGES = ("memory", "disk", "device")
COMPUTED = (
    dict(),
    dict(channels_last=True),
    dict(autocast="bfloat16"),
    dict(autocast="bfloat16", channels_last=True),
)


@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize("options", COMPUTED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_hit_and_miss_cold_and_warm_give_the_same_bits(networks, tmp_path, depth, options, dtype):
    spec = dict(networks[depth], **options)
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
    # The cache changes nothing but for what is said: rounding to dtype.
    plain = FrozenTeacher(dict(spec, micro_batch=32))
    plain.set_input_normalization(cold.model.data_preprocessor)
    assert torch.equal(plain(inputs).to(getattr(torch, dtype)).float(), expected)
    for storage in STORAGES:
        for seed, missing in enumerate((1, 5, 127)):
            for rows in (
                np.arange(missing),
                np.arange(128 - missing, 128),
                np.random.default_rng(seed).permutation(128)[:missing],
            ):
                mixed = teacher_of(
                    spec, tmp_path / str(next(_number)), storage=storage, dtype=dtype
                )
                rest = np.setdiff1d(np.arange(128), rows)
                mixed(inputs[rest], part(views, rest))
                assert torch.equal(mixed(inputs, views), expected)
                assert mixed.cache.misses == len(rest) + missing
                assert torch.equal(mixed(inputs, views), expected)
                assert mixed.cache.misses == 128


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
        normalisation=dict(mean=121.0),
        teachers_normalisation=dict(spec=own),
        config=dict(spec=deeper),
        dtype=dict(dtype="float16"),
        precision=dict(spec=dict(networks[10], autocast="bfloat16")),
        layout=dict(spec=dict(networks[10], channels_last=True)),
        micro_batch=dict(spec=dict(networks[10], micro_batch=16)),
        compiler=dict(spec=dict(networks[10], compile=dict(backend="eager"))),
    )


@pytest.mark.parametrize("name", list(changes({10: dict(config=wrn(data_preprocessor={})), 16: 0})))
def test_whatever_decides_the_logits_begins_another_cache(networks, tmp_path, name):
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


def test_other_weights_and_other_pictures_begin_another_cache(networks, tmp_path):
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
    # One cache object sees several sets of pictures, and keeps them apart as well.
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


def test_told_of_another_normalisation_it_forgets(networks):
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


def test_not_told_of_the_normalisation_it_refuses(networks):
    teacher = FrozenTeacher(dict(networks[10], cache=dict(storage="memory")))
    with pytest.raises(ValueError, match="was not told how images are normalised"):
        teacher(*batch_of())


def test_pictures_without_numbers_are_refused(networks, tmp_path):
    inputs, views = batch_of()
    teacher = teacher_of(networks[10])
    with pytest.raises(ValueError, match=r"MixUp, CutMix, Cutout.*InMemoryDataset"):
        teacher(inputs)
    with pytest.raises(ValueError, match="128 pictures have 5 numbers of images and 5 of views"):
        teacher(inputs, part(views, slice(5)))
    for index, view in ((IMAGES, 0), (0, VIEWS), (-1, 0), (0, -1)):
        outside = Views("x", IMAGES, VIEWS, np.array([index]), np.array([view]))
        with pytest.raises(ValueError, match=r"an image of 40 or a view of 9 has a number outside"):
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


def test_preprocessors_of_another_class_have_another_cache():
    from mmpretrain.models import ClsDataPreprocessor

    from mmkd_logit.models import BatchPreprocessor
    from mmkd_logit.models.teacher_cache import describe_preprocessor

    settings = dict(mean=[120.0], std=[60.0])
    described = [describe_preprocessor(k(**settings)) for k in (ClsDataPreprocessor,) * 2]
    assert described[0] == described[1] != describe_preprocessor(BatchPreprocessor(**settings))


def test_distiller_takes_the_numbers_of_the_batch(networks):
    inputs, views = batch_of(12)
    samples = SampleBatch(torch.arange(12) % 10, views.index, (8, 8), views=views)
    student = wrn(num_classes=10, data_preprocessor=PREPROCESSOR)
    caches = [dict(storage="memory"), dict(storage="device"), None]
    teachers = [dict(networks[10], cache=cache, micro_batch=32) for cache in caches]
    model = build(distiller(student=student, teacher=teachers))
    first = model.teacher_logits(inputs, samples)
    assert torch.equal(model.teacher_logits(inputs, samples), first)
    assert [t.cache and t.cache.hits for t in model.teachers] == [12, 12, None]
    plain = build(distiller(student=student, teacher=[teachers[2]] * 3))
    assert torch.equal(plain.teacher_logits(inputs), first)  # without annotations
    assert copy.deepcopy(model).teachers[0].cache is model.teachers[0].cache


@pytest.mark.parametrize("storage", STORAGES)
def test_what_does_not_fit_is_computed_each_time(tmp_path, storage, caplog):
    """Rows of 10 float32 take 44 bytes with their checksum; 17 images of 9 views 6732."""
    cache = TeacherCache(storage, root=tmp_path, max_gib=7000 / 2**30)
    every = np.arange(IMAGES * VIEWS)
    index, view = np.divmod(every, VIEWS)
    views = Views("x", IMAGES, VIEWS, index, view)
    logits = torch.randn(len(every), 10)
    calls = []

    def compute(inputs):
        calls.append(inputs[:, 0].long())
        return logits[calls[-1]]

    inputs = torch.from_numpy(every)[:, None].float()
    for _ in range(3):
        assert torch.equal(cache(inputs, views, compute, lambda _: dict(num_classes=10)), logits)
    kept = 17 * VIEWS
    assert [len(call) for call in calls] == [len(every), len(every) - kept, len(every) - kept]
    assert calls[2].min() == kept
    assert cache.report() == dict(
        hits=2 * kept, misses=3 * len(every) - 2 * kept, entries=kept, bytes=kept * 44
    )


def test_nothing_fits(tmp_path):
    cache = TeacherCache("disk", root=tmp_path, max_gib=1e-9)
    with pytest.raises(ValueError, match=r"max_gib=1e-09 has no room for the 9 views of one image"):
        ask(cache, 0)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_short_from_the_start():
    views = Views("x", 10**9, 1000, np.array([0]), np.array([0]))
    for storage, words in (
        ("memory", r"may grow to .* GiB and this machine has .* GiB of memory left"),
        ("device", r"cpu has no room for a teacher cache of .* GiB"),
    ):
        cache = TeacherCache(storage, max_gib=1e7)
        with pytest.raises(ValueError, match=words):
            cache(torch.zeros(1, 1), views, None, lambda _: dict(num_classes=10))


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
    for storage in ("memory", "disk", "device"):
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


def test_a_damaged_row_is_computed_again(tmp_path):
    ask(TeacherCache("disk", root=tmp_path), *range(20))
    _, rows, sums = files_of(tmp_path)
    for place in range(7 * 40, 8 * 40):  # each byte of row 7
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


def test_without_the_checksum_the_damage_would_go_unseen(tmp_path, monkeypatch):
    monkeypatch.setattr(
        LogitStore, "_checksum", lambda self, words, numbers: np.ones(len(words), np.uint32)
    )
    ask(TeacherCache("disk", root=tmp_path), *range(20))
    flip(files_of(tmp_path)[1], 7 * 40 + 2)
    assert not torch.equal(
        ask(TeacherCache("disk", root=tmp_path), *range(20)), expected(*range(20))
    )


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


def test_a_root_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"root is a folder, and .*file is a file"):
        TeacherCache("disk", root=tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        ask(TeacherCache("disk", root=tmp_path / "file" / "below"), 1)


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
    assert (rows.stat().st_blocks + sums.stat().st_blocks) * 512 < 2**20
    assert cache.report()["bytes"] == 50000 * 162 * 404


LIMITED = """
import resource, sys, torch
sys.path[:0] = {paths!r}
from models.test_teacher_cache import ask, expected
from mmkd_logit.models import TeacherCache
cache = TeacherCache("disk", root={root!r})
ask(cache, 1, 2)
# No file may grow beyond 4 KiB from here on, as on a disk that is full.
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for _ in range(2):
    assert torch.equal(ask(cache, *range(360)), expected(*range(360)))
assert torch.equal(ask(cache, 1, 2), expected(1, 2))
print(cache.report(), cache.hits)
"""


def python(text, tmp_path, **values):
    values = dict(paths=[str(PROJECT / "tests"), str(PROJECT)], root=str(tmp_path), **values)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", text.format(**values)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_full_disk_ends_the_filling_alone(tmp_path):
    done = python(LIMITED, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("is only read from now on: [Errno 27]") == 1
    ask(cache := TeacherCache("disk", root=tmp_path), *range(360))
    assert 2 <= cache.hits < 360


READ_ONLY = """
import os, sys, torch
sys.path[:0] = {paths!r}
from models.test_teacher_cache import ask, expected
from mmkd_logit.models import TeacherCache
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
cache = TeacherCache("disk", root={root!r})
assert torch.equal(ask(cache, 1, 2, 3), expected(1, 2, 3))
assert torch.equal(ask(cache, 1, 2, 3), expected(1, 2, 3))
print(cache.report())
try:
    TeacherCache("disk", "float16", root={root!r})
    ask(TeacherCache("disk", "float16", root={root!r}), 1)
except PermissionError as error:
    print("refused", error)
"""


def test_a_read_only_cache_is_read_and_none_can_be_made_there(tmp_path_factory):
    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are closed to others
        os.chmod(root, 0o755)
        ask(TeacherCache("disk", root=root), 1, 2)
        folder, *_ = files_of(Path(root))
        for path in (*folder.iterdir(), folder, Path(root)):
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = python(READ_ONLY, root)
        Path(root).chmod(0o755), folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "'hits': 4, 'misses': 2, 'entries': 2" in done.stdout
    assert "refused" in done.stdout
    assert "is only read from now on" in done.stdout + done.stderr


WRITER = """
import sys, torch, numpy
sys.path[:0] = {paths!r}
from models.test_teacher_cache import IMAGES, VIEWS, ask, expected
from mmkd_logit.models import TeacherCache
draw = numpy.random.default_rng({seed})
for turn in range({turns}):
    cache = TeacherCache("disk", root={root!r} + "/" + str(turn), max_gib=1)
    print(turn, flush=True)
    for _ in range(40):
        numbers = draw.integers(0, IMAGES * VIEWS, 16)
        assert torch.equal(ask(cache, *numbers, classes=100), expected(*numbers, classes=100))
"""


def check_all(tmp_path):
    """Compare all that is claimed to be there; return how much that is."""
    hits = 0
    for root in tmp_path.iterdir():
        cache = TeacherCache("disk", root=root)
        everything = range(IMAGES * VIEWS)
        assert torch.equal(ask(cache, *everything, classes=100), expected(*everything, classes=100))
        hits += cache.hits
        assert next(iter(cache._stores.values())).damaged() == 0
    return hits


def test_killed_while_writing_leaves_no_wrong_row(tmp_path):
    text = WRITER.format(
        paths=[str(PROJECT / "tests"), str(PROJECT)], root=str(tmp_path), seed=1, turns=100000
    )
    command = [sys.executable, "-W", "ignore", "-c", text]
    for wait in (0.0, 0.011, 0.023):
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for line in writer.stdout:
            if line.strip() == b"3":
                break
        time.sleep(wait)
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
    assert check_all(tmp_path) > 0


def test_several_writers_at_once(tmp_path):
    writers = [
        subprocess.Popen(
            [
                *(sys.executable, "-W", "ignore", "-c"),
                WRITER.format(
                    paths=[str(PROJECT / "tests"), str(PROJECT)],
                    root=str(tmp_path),
                    seed=seed,
                    turns=6,
                ),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert check_all(tmp_path) > 6 * 300


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
