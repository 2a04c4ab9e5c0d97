"""Checkpoints that are damaged or gone."""

from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, train

from mmkd_logit import checkpoint
from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine.fingerprint import write_run
from mmkd_logit.engine.results import read_lines
from mmkd_logit.engine.resume import find_checkpoint, last_checkpoint
from mmkd_logit.engine.train import main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replace(path):
    path.write_text("<html>you need to log in</html>")


DAMAGE = dict(cut=cut, empty=empty, flip=flip, replace=replace, remove=Path.unlink)


def make(folder, epochs):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"epoch_{epoch}.pth" for epoch in epochs]
    for epoch, path in zip(epochs, paths, strict=True):
        torch.save(dict(meta=dict(epoch=epoch), state_dict=dict(w=torch.zeros(40))), path)
    write_run(folder, checkpoints=[*map(str, paths)])
    return folder


@pytest.mark.parametrize("how", DAMAGE)
def test_the_one_before(tmp_path, how):
    folder = make(tmp_path / "run", [1, 2, 3])
    last = folder / "epoch_3.pth"
    assert find_checkpoint(folder) == (last, [])
    DAMAGE[how](last)
    found, (problem,) = find_checkpoint(folder)
    assert found == folder / "epoch_2.pth"
    assert f"{last} " in problem
    DAMAGE[how](found)
    found, problems = find_checkpoint(folder)
    assert (found, len(problems)) == (folder / "epoch_1.pth", 2)
    DAMAGE[how](found)
    found, problems = find_checkpoint(folder)
    assert (found, len(problems)) == (None, 3)
    moved = folder.rename(tmp_path / "moved")
    assert find_checkpoint(moved)[0] is None


def test_those_of_another_run_are_never_taken(tmp_path):
    """The folder was used before; what lies there looks like a later or an earlier epoch."""
    folder = make(tmp_path, [1, 2, 8, 9])
    (folder / "last_checkpoint").write_text(str(folder / "epoch_9.pth"))
    write_run(folder, checkpoints=[])
    assert last_checkpoint(folder) is None
    write_run(folder, checkpoints=[str(folder / "epoch_2.pth")])
    assert last_checkpoint(folder) == folder / "epoch_2.pth"
    empty(folder / "epoch_2.pth")
    assert last_checkpoint(folder) is None


def test_a_folder_of_mmengines_own(tmp_path):
    folder = make(tmp_path, [9, 10, 11])
    (folder / "run.json").unlink()
    assert last_checkpoint(folder) is None
    (folder / "last_checkpoint").write_text(str(folder / "epoch_10.pth"))
    assert last_checkpoint(folder) == folder / "epoch_10.pth"
    flip(folder / "epoch_10.pth")
    assert last_checkpoint(folder) is None


def test_what_cannot_be_read_now_is_an_error(tmp_path, monkeypatch):
    """It says nothing of the file: a run that began anew would write over it."""
    folder = make(tmp_path, [1, 2])

    def stale(path, only_zip=False):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("mmkd_logit.checkpoint.why_damaged", stale)
    with pytest.raises(OSError, match="Stale"):
        last_checkpoint(folder)


def test_its_bytes_are_looked_at_once_until_they_change(tmp_path, monkeypatch):
    (name,) = make(tmp_path, [1]).glob("*.pth")
    looks = []
    look = checkpoint.why_damaged
    monkeypatch.setattr(checkpoint, "why_damaged", lambda path: looks.append(path) or look(path))
    assert last_checkpoint(tmp_path) == name
    assert load_from_file(str(name))["meta"] == checkpoint.read_lazily(str(name))["meta"]
    assert len(looks) == 1
    flip(name)
    assert last_checkpoint(tmp_path) is None
    assert len(looks) == 2


def test_a_file_that_the_user_names(workplace, capsys):
    tiny = Tiny()
    path = make(Path("old"), [1]) / "epoch_1.pth"
    flip(path)
    why = "cannot be read as a checkpoint (epoch_1/data/0 in it does not fit its checksum)"
    for words in (
        [tiny.student, "--resume", path],
        [tiny.kd, "--cfg-options", f"model.teacher.checkpoint={path}"],
    ):
        message = error_of(capsys, main, *words)
        assert message == f"{path} {why}; it may be cut short or another kind of file"


def weights(path):
    return load_from_file(str(path))["state_dict"]


def assert_weights(path, expected):
    found = weights(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def warning_of(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    return line


def test_a_run_goes_on_from_the_one_before(workplace, capsys):
    tiny = Tiny()
    folder = folder_of(tiny.student)
    train(tiny.student, train_cfg__max_epochs=2)
    whole = weights(folder / "final.pth")
    flip(folder / "epoch_2.pth")
    (folder / "final.pth").unlink()
    capsys.readouterr()
    train(tiny.student, "--resume", "--results", "runs.jsonl", train_cfg__max_epochs=2)
    line = warning_of(capsys)
    assert line.startswith(f"warning: {folder}/epoch_2.pth cannot be read as a checkpoint (")
    assert " does not fit its checksum" in line
    assert line.endswith(f"; going on from {folder}/epoch_1.pth")
    assert read_lines(Path("runs.jsonl"))[0]["resumed_at"] == 2
    assert_weights(folder / "final.pth", whole)
    for path in folder.glob("epoch_*.pth"):
        cut(path)
    train(tiny.student, "--resume", train_cfg__max_epochs=2)
    line = warning_of(capsys)
    begin = f"warning: no checkpoint of {folder} is whole ({folder}/epoch_2.pth cannot be read"
    assert line.startswith(begin)
    assert line.endswith("; starting from the beginning")
    assert_weights(folder / "final.pth", whole)
