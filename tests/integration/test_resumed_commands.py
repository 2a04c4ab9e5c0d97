"""Command lines that are cut off and given again leave what they leave at once."""

import shutil
from pathlib import Path

import pytest
from commands import Tiny, folder_of, make_workplace, taught_by, train
from cut_off import Cut, Killed, cached
from cut_off import train as train_config
from same_runs import assert_same_runs, curves, row_differences, value_differences

from mmkd_logit.engine import group
from mmkd_logit.engine import train as train_tool
from mmkd_logit.engine.group import common_work_dir, read_runs
from mmkd_logit.engine.results import read_lines

EVERY = dict(default_hooks__checkpoint__by_epoch=False, default_hooks__checkpoint__interval=1)
_LONG = """
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1))
"""
EVERY_WORDS = [f"{key.replace('__', '.')}={value}" for key, value in EVERY.items()]


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder with configs and their teacher, trained."""
    folder = tmp_path_factory.mktemp("taught")
    make_workplace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tiny = Tiny()
        train(tiny.teacher)
    return tiny, folder


@pytest.fixture
def two_places(taught, tmp_path, monkeypatch):
    """Two copies of that folder, and a function that goes to one of them."""
    tiny, folder = taught
    for name in ("whole", "parts"):
        shutil.copytree(folder, tmp_path / name, symlinks=True)

    def go(name):
        monkeypatch.chdir(tmp_path / name)

    return tiny, go


def cut_off(module, number, done, command):
    """Call a command, of whose runs one is cut off; the first is number 0."""
    run, runs = module.run_training, []

    def run_and_cut(cfg, resume, started, *hooks, **kwargs):
        runs.append(cfg)
        more = [Cut(done)] if len(runs) == number + 1 else []
        return run(cfg, resume, started, *hooks, *more, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_training", run_and_cut)
        with pytest.raises(Killed):
            command()


def assert_same_rows():
    whole, parts = (read_lines(Path(f"../{name}/runs.jsonl")) for name in ("whole", "parts"))
    assert len(whole) == len(parts) > 0
    for pair in zip(whole, parts, strict=True):
        assert row_differences(*pair) == []
    return whole, parts


def test_teachers_that_are_trained_first(two_places, capsys):
    """The second is cut off within an epoch; its student has the same teacher all the same."""
    tiny, go = two_places
    configs = [f"tiny/{name}.py" for name in ("first", "second", "last")]

    def command():
        words = ["--train-teacher", "--results", "runs.jsonl", "--resume"]
        train(configs[-1], *words, train_cfg__max_epochs=2, **EVERY)

    for place in ("whole", "parts"):
        go(place)
        for teacher, config in zip((tiny.teacher, *configs), configs, strict=False):
            Path(taught_by(teacher, tiny.kd, _LONG)).rename(config)
        if place == "whole":
            command()
    cut_off(train_tool, 2, 3, command)  # the first of all is there, and tested for its row
    capsys.readouterr()
    command()
    first, second, last = map(folder_of, configs)
    said = capsys.readouterr().out
    assert f"the teacher {first}/final.pth was trained before\n" in said
    assert f"the teacher {second}/final.pth goes on\n" in said
    _, parts = assert_same_rows()
    assert [row["resumed_at"] for row in parts] == [2, 0, 3, 0]
    for folder in (first, second, last):
        assert_same_runs(Path("../whole", folder), folder)


def test_runs_together(two_places):
    tiny, go = two_places
    for name in ("whole", "parts"):
        go(name)
        lines = [
            f"{tiny.kd} --work-dir group/{loss} --cfg-options train_cfg.max_epochs=2 "
            f"model.loss_kd.type=mmkd_logit.{loss} {' '.join(EVERY_WORDS)}\n"
            for loss in ("LogitMSELoss", "ScaledKLDivLoss")
        ]
        lines[1] = lines[1].replace("\n", " model.loss_kd.tau=3\n")
        Path("runs.txt").write_text("".join(lines))
        if name == "whole":
            group.main(["runs.txt", "--results", "runs.jsonl"])
    cut_off(group, 0, 3, lambda: group.main(["runs.txt"]))
    group.main(["runs.txt", "--results", "runs.jsonl"])
    _, parts = assert_same_rows()
    assert [row["resumed_at"] for row in parts] == [3, 3]
    folder = common_work_dir([member.cfg for member in read_runs("runs.txt")])
    for run in (folder, "group/LogitMSELoss", "group/ScaledKLDivLoss"):
        assert_same_runs(Path("../whole", run), Path(run))
    # Alone again, from what it left.
    words = ["--resume", "--work-dir", "group/LogitMSELoss", "--results", "again.jsonl"]
    losses = {"model.loss_kd.type": "mmkd_logit.LogitMSELoss"}
    train(tiny.kd, *words, train_cfg__max_epochs=2, **losses)
    (again,) = read_lines(Path("again.jsonl"))
    assert value_differences(again["test"], parts[0]["test"]) == []


def test_a_single_command_with_its_row(two_places):
    """Saved by epochs, as our configs are, and killed before the validation."""
    tiny, go = two_places
    command = (tiny.kd, "--results", "runs.jsonl")
    settings = dict(train_cfg__max_epochs=3)
    go("whole")
    train(*command, **settings)
    go("parts")
    cut_off(train_tool, 0, 3, lambda: train(*command, **settings))
    train(*command, "--resume", **settings)
    whole, parts = assert_same_rows()
    assert (parts[0]["resumed_at"], parts[0]["best"]) == (2, whole[0]["best"])
    assert_same_runs(Path("../whole", folder_of(tiny.kd)), folder_of(tiny.kd))


@pytest.mark.parametrize("storage", ["disk", "memory"])
def test_cold_and_warm_caches(tmp_path, monkeypatch, storage):
    """In memory the cache is gone with the process; on disk the second part begins with it."""
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "first"))
    whole = train_config(cached(tmp_path / "whole"))
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "second"))
    with pytest.raises(Killed):
        train_config(cached(tmp_path / "parts", storage), None, Cut(7))
    parts = train_config(cached(tmp_path / "parts", storage), "auto")
    hits = [run.model.teachers[0].cache.hits for run in (whole, parts)]
    assert hits[1] > hits[0] // 2 if storage == "disk" else hits[1] <= hits[0] // 2
    state = [run.model.state_dict() for run in (whole, parts)]
    assert value_differences(*map(dict, state)) == []
    assert value_differences(*(curves(tmp_path / name) for name in ("whole", "parts"))) == []
