"""Disks without room: one clear line, and what was there is whole."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Tiny, error_of, folder_of, train
from disks import fill, small_disk

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.datasets.in_memory import Views
from mmkd_logit.engine.results import append_line, read_lines
from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.engine.train import main
from mmkd_logit.metrics import LogitDump
from mmkd_logit.models.teacher_cache import TeacherCache
from mmkd_logit.utils import files as _atomic_files

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "2m") as folder:
        yield folder


@pytest.mark.parametrize("name", ["epoch_2.pth", "final.pth"])
def test_training_goes_on_when_there_is_room(workplace, disk, monkeypatch, capsys, name):
    tiny = Tiny()
    Path("work_dirs").symlink_to(disk)
    folder = folder_of(tiny.student)
    open_part, plugs = _atomic_files._open_part, []

    def opened(target):  # others need the disk too
        if target.name == name:
            plugs.append(fill(disk))
        return open_part(target)

    words = [tiny.student, "--cfg-options", "train_cfg.max_epochs=2"]
    with monkeypatch.context() as patch:
        patch.setattr(_atomic_files, "_open_part", opened)
        message = error_of(capsys, main, *words)
    begin = rf"^.*{folder}/{name} cannot be written: no space is left on the disk \(.* to write, "
    end = r"whole\. Make space, then run again: python tools/train.py .* --resume$"
    assert re.search(begin, message)
    assert re.search(end, message)
    last = 1 if name == "epoch_2.pth" else 2
    assert last_checkpoint(folder) == folder / f"epoch_{last}.pth"
    assert not list(folder.glob(".*.part"))
    assert not (folder / "final.pth").exists()
    plugs[0].unlink()
    train(tiny.student, "--resume", train_cfg__max_epochs=2)
    assert load_from_file(str(folder / "final.pth"))["meta"]["epoch"] == 2


def test_no_room_for_logs(workplace, disk, capsys):
    """They are MMEngine's, which does not say which file it is."""
    tiny = Tiny()
    Path("work_dirs").symlink_to(disk)
    folder = folder_of(tiny.student)
    train(tiny.student)
    before = (folder / "epoch_1.pth").read_bytes()
    plug = fill(disk)
    words = [tiny.student, "--resume", "--cfg-options", "train_cfg.max_epochs=2"]
    message = error_of(capsys, main, *words)  # one line, and no traceback of logging's
    assert message.startswith("[Errno 28] No space left on device")
    assert f"run again: python tools/train.py {tiny.student} --cfg-options train_cfg" in message
    assert (folder / "epoch_1.pth").read_bytes() == before
    plug.unlink()
    train(tiny.student, "--resume", train_cfg__max_epochs=2)
    assert (folder / "final.pth").is_file()


def test_results(disk):
    path = disk / "results/runs.jsonl"
    append_line(path, dict(row=1))
    plug = fill(disk)
    big = dict(row="x" * 100_000)
    message = rf"^{path} cannot be written: no space is left on the disk \(97\.\d KiB to write, "
    with pytest.raises(OSError, match=message):
        append_line(path, big)
    assert read_lines(path) == [dict(row=1)]
    assert path.read_bytes() == b'{"row": 1}\n'
    plug.unlink()
    append_line(path, big)
    assert read_lines(path) == [dict(row=1), big]


def ask(cache, asked):
    numbers = np.arange(64)
    views = Views("pictures", 64, 1, index=numbers, view=np.zeros(64, int))

    def compute(inputs):
        asked.append(len(inputs))
        return inputs * 2

    pictures = torch.arange(64.0)[:, None].repeat(1, 1000)
    return cache(pictures, views, compute, lambda views: dict(num_classes=1000)), pictures * 2


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_cache_is_no_reason_to_stop(disk, when):
    """It lacks what did not fit, and never holds something wrong."""
    plug = fill(disk, left=0 if when == "before" else 100_000)
    if when == "before":
        for number in range(10_000):  # nor may it make a folder
            try:
                (disk / str(number)).mkdir()
            except OSError:
                break
    asked = []
    cache = TeacherCache(root=str(disk / "cache"))
    for _ in range(3):
        found, expected = ask(cache, asked)
        assert torch.equal(found, expected)
    assert asked[0] == 64
    assert 0 < asked[-1] <= 64
    cache.forget()
    plug.unlink()
    again = []
    for _ in range(2):
        found, expected = ask(TeacherCache(root=str(disk / "cache")), again)
        assert torch.equal(found, expected)
    assert len(again) == 1


def test_dumps(disk):
    dump = LogitDump(str(disk / "test.npz"))
    samples = [dict(logits=torch.zeros(1000), gt_label=torch.tensor([1]))] * 32
    for count in (1, 6):
        plug = fill(disk, left=200_000 * count) if count == 6 else None
        for _ in range(count):
            dump.process({}, samples)
        if count == 1:
            dump.evaluate(32)
            before = (disk / "test.npz").read_bytes()
            continue
        with pytest.raises(ValueError, match=r"test\.npz cannot be written: no space is left"):
            dump.evaluate(32 * count)
        assert plug is not None
    assert (disk / "test.npz").read_bytes() == before
    assert sorted(os.listdir(disk)) == ["plug", "test.npz"]
    with pytest.raises(OSError, match="cannot be written: no space is left on the disk"):
        dump.process({}, samples * 20)
