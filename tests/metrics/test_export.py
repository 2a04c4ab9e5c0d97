"""Every sample's logits in one file: whole, in order, once, and in little memory."""

import gc
import json
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler
from mmpretrain.structures import DataSample
from processes import run_ranks

from mmkd_logit.metrics import LogitDump

K, D = 7, 5


def truth(n, seed=0, num_classes=K, features=D):
    """The arrays that an export of n samples must hold."""
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return generator.normal(size=shape).astype(np.float32)

    label = generator.integers(num_classes, size=n)
    return dict(
        index=100 + 3 * np.arange(n),
        label=label,
        clean_label=np.where(generator.random(n) < 0.3, (label + 1) % num_classes, label),
        logits=normal(n, num_classes),
        prelogits=normal(n, features),
        teacher_logits=normal(n, num_classes),
        teacher_prelogits=normal(n, 2 * features),
    )


def sample_of(arrays, i):
    sample = DataSample(metainfo=dict(sample_idx=int(arrays["index"][i])))
    sample.set_gt_label(int(arrays["label"][i]))
    if arrays["clean_label"][i] != arrays["label"][i]:
        sample.set_field(int(arrays["clean_label"][i]), "clean_label", field_type="metainfo")
    for name in ("logits", "prelogits", "teacher_logits", "teacher_prelogits"):
        if name in arrays:
            sample.set_field(torch.from_numpy(arrays[name][i]), name)
    return sample.to_dict()


def batches_of(indices, batch_size, size, **kwargs):
    arrays = truth(size, **kwargs)
    for start in range(0, len(indices), batch_size):
        yield [sample_of(arrays, i) for i in indices[start : start + batch_size]]


def layers():
    generator = np.random.default_rng(9)
    return dict(
        weight=generator.normal(size=(K, D)).astype(np.float32),
        bias=generator.normal(size=K).astype(np.float32),
    )


def export_to(path, batches, size, **kwargs):
    export = LogitDump(
        str(path), **{"identity": dict(seed=1, split="test"), "layers": layers, **kwargs}
    )
    export.dataset_meta = dict(classes=tuple(f"class {k}" for k in range(K)))
    for batch in batches:
        export.process({}, batch)
    assert export.evaluate(size) == {}
    return export


def read(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_holds_every_sample_in_order(tmp_path, batch_size):
    path = tmp_path / "logits" / "test.npz"
    export_to(path, batches_of(range(23), batch_size, 23), 23)
    found, expected = read(path), {**truth(23), **layers()}
    assert found.keys() == {*expected, "classes", "identity"}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == (np.float32 if array.dtype.kind == "f" else np.int64), name
    assert found["classes"].tolist() == [f"class {k}" for k in range(K)]
    assert found["classes"].dtype.kind == "U"
    assert found["identity"].ndim == 0
    assert json.loads(str(found["identity"])) == dict(seed=1, split="test")
    assert [file.name for file in path.parent.iterdir()] == ["test.npz"]


def test_equals_what_numpy_writes(tmp_path):
    """Member for member, the bytes of numpy.savez."""
    export_to(tmp_path / "ours.npz", batches_of(range(23), 4, 23), 23)
    np.savez(tmp_path / "theirs.npz", **read(tmp_path / "ours.npz"))
    ours, theirs = (zipfile.ZipFile(tmp_path / f"{name}.npz") for name in ("ours", "theirs"))
    with ours, theirs:
        assert ours.testzip() is None
        assert ours.namelist() == theirs.namelist()
        for name in ours.namelist():
            assert ours.read(name) == theirs.read(name), name


def export_by_ranks(folder, size):
    dist.init_process_group("gloo")
    os.chdir(folder)  # where MMEngine exchanges results
    indices = list(DefaultSampler(range(size), shuffle=False))
    export_to("all.npz", batches_of(indices, 4, size), size)
    rest = indices[:-2] if dist.get_rank() == dist.get_world_size() - 1 else indices
    try:
        export_to("short.npz", batches_of(rest, 4, size), size)
    except ValueError as error:
        Path(f"{dist.get_rank()}.refused").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("size", [37, 38, 1])
def test_several_processes_write_the_file_of_one(tmp_path, world, size):
    folder = tmp_path / "several"
    folder.mkdir()
    run_ranks(world, export_by_ranks, folder, size)
    export_to(tmp_path / "one.npz", batches_of(range(size), 5, size), size)
    assert (tmp_path / "one.npz").read_bytes() == (folder / "all.npz").read_bytes()
    names = {path.name for path in folder.iterdir()}
    assert names == {"all.npz", *(f"{rank}.refused" for rank in range(world))}
    for rank in range(world):
        said = (folder / f"{rank}.refused").read_text()
        assert f"process {world - 1} of {world} has" in said


def test_only_what_there_is(tmp_path):
    arrays = {k: v for k, v in truth(3).items() if k in ("index", "label", "clean_label", "logits")}
    export = LogitDump(str(tmp_path / "a.npz"))
    samples = [sample_of(arrays, i) for i in range(3)]
    for sample in samples:
        del sample["sample_idx"]
    export.process({}, samples)
    export.evaluate(3)
    found = read(tmp_path / "a.npz")
    assert found.keys() == {"index", "label", "clean_label", "logits", "identity"}
    assert found["index"].tolist() == [0, 1, 2]


def test_a_second_round_begins_anew(tmp_path):
    path = tmp_path / "a.npz"
    export = export_to(path, batches_of(range(8), 4, 8), 8)
    before = path.read_bytes()
    for batch in batches_of(range(8), 3, 8):
        export.process({}, batch)
    export.identity = dict(seed=2)
    export.evaluate(8)
    assert path.read_bytes() != before
    np.testing.assert_array_equal(read(path)["logits"], truth(8)["logits"])


def test_half_precision_becomes_float32(tmp_path):
    sample = dict(logits=torch.tensor([1.5, 2.0]).bfloat16(), gt_label=torch.tensor([0]))
    export = LogitDump(str(tmp_path / "a.npz"))
    export.process({}, [sample])
    export.evaluate(1)
    assert read(tmp_path / "a.npz")["logits"].dtype == np.float32


def test_memory_is_bounded(tmp_path):
    """Of 24 MB the 16 that numpy writes at a time; reading all is the negative control."""
    n, k = 6000, 1000
    row = np.zeros(k, np.float32)

    def batches():
        for start in range(0, n, 100):
            yield [
                dict(
                    logits=torch.from_numpy(row + i),
                    gt_label=torch.tensor([i % k]),
                    sample_idx=i,
                )
                for i in range(start, start + 100)
            ]

    tracemalloc.start()
    try:
        export = LogitDump(str(tmp_path / "a.npz"))
        for batch in batches():
            export.process({}, batch)
        export.evaluate(n)
        _, peak = tracemalloc.get_traced_memory()
        assert (tmp_path / "a.npz").stat().st_size > 4 * n * k
        assert peak < 19e6, peak
        tracemalloc.reset_peak()
        whole = read(tmp_path / "a.npz")["logits"]
        assert tracemalloc.get_traced_memory()[1] > 4 * n * k
    finally:
        tracemalloc.stop()
    assert whole[:, 0].tolist() == list(range(n))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("indices", "size", "says"),
    [
        ([0, 1, 2], 4, "process 0 of 1 has 3 samples of a data set of 4, expected 4; the data"),
        ([0, 1, 2, 3, 3], 4, "has 5 samples of a data set of 4"),
        ([0, 1, 2, 2], 4, "sample 106 came 2 times and 1 others are missing"),
        ([], 4, "LogitDump got no samples"),
    ],
)
def test_missing_or_repeated_samples(tmp_path, indices, size, says):
    (tmp_path / "a.npz").write_text("of before")
    with pytest.raises(ValueError, match=says):
        export_to(tmp_path / "a.npz", batches_of(indices, 3, size), size)
    assert files_in(tmp_path) == ["a.npz"]
    assert (tmp_path / "a.npz").read_text() == "of before"


def test_a_disk_without_room_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with pytest.raises(ValueError, match=r"a\.npz cannot be written: no space is left"):
        export_to(tmp_path / "a.npz", batches_of(range(8), 4, 8), 8)
    assert files_in(tmp_path) == []


def test_layers_that_fail_leave_nothing(tmp_path):
    def fail():
        raise RuntimeError("no such layer")

    with pytest.raises(RuntimeError, match="no such layer"):
        export_to(tmp_path / "a.npz", batches_of(range(8), 4, 8), 8, layers=fail)
    assert files_in(tmp_path) == []


def test_a_pass_that_is_broken_off_leaves_nothing(tmp_path):
    export = LogitDump(str(tmp_path / "a.npz"))
    export.process({}, next(batches_of(range(4), 4, 4)))
    assert len(files_in(tmp_path)) == 1
    del export
    gc.collect()
    assert files_in(tmp_path) == []


def sample(**fields):
    return {"logits": torch.zeros(3), "gt_label": torch.tensor([1]), "sample_idx": 0, **fields}


@pytest.mark.parametrize(
    ("batches", "says"),
    [
        ([[dict(gt_label=torch.tensor([1]))]], "add dict.type='mmkd_logit.LogitOutputsHook'"),
        ([[sample(gt_label=torch.tensor([1, 2]))]], "one label a sample"),
        ([[dict(logits=torch.zeros(3))]], "needs a gt_label in every sample"),
        ([[sample(gt_label=torch.tensor([3]))]], "integer labels from 0 to 2"),
        ([[sample(clean_label=-1)]], "got clean_label from -1"),
        ([[sample(logits=torch.tensor([0, 1, torch.nan]))]], "the logits of sample 0 are not fi"),
        ([[sample(teacher_logits=torch.zeros(4))]], "a teacher of the student's classes"),
        ([[sample()], [sample(logits=torch.zeros(4))]], r"first .*logits f4\[3\], later .*\[4\]"),
        ([[sample()], [sample(prelogits=torch.zeros(2))]], "samples differ in their fields"),
        ([[sample(), sample(prelogits=torch.zeros(2))]], "prelogits in every sample, 1 of 2 have"),
    ],
)
def test_samples_that_do_not_fit(tmp_path, batches, says):
    export = LogitDump(str(tmp_path / "a.npz"))
    *before, last = batches
    for batch in before:
        export.process({}, batch)
    with pytest.raises(ValueError, match=says):
        export.process({}, last)
