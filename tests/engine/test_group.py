"""The runs of a student group leave what each leaves alone."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, make_workplace, train
from runs import assert_same

from mmkd_logit.engine import group
from mmkd_logit.engine import train as training
from mmkd_logit.engine.fingerprint import read_run, should_resume, weights_hash
from mmkd_logit.engine.group import (
    batches_key,
    common_work_dir,
    join_configs,
    read_runs,
    split_scalars,
    why_alone,
)
from mmkd_logit.engine.results import find_row, read_lines
from mmkd_logit.engine.train import build_config, build_parser

KL = "model.loss_kd.type=mmkd_logit.ScaledKLDivLoss"


class Trained:
    """A teacher, and a group of three students that ended."""

    def __init__(self, folder):
        make_workplace(folder)
        os.chdir(folder)
        self.tiny = Tiny()
        # Without the random crop, whose draws a resumed run does not repeat.
        for name in (self.tiny.teacher, self.tiny.student):
            text = Path(name).read_text()
            plain = "dataset=dict(indices=64, pipeline=[dict(type='PackInputs')])"
            Path(name).write_text(text.replace("dataset=dict(indices=64)", plain, 1))
        train(self.tiny.teacher)
        shutil.copytree(".", "before", symlinks=True)
        group.main([write(self.lines()), "--results", "rows.jsonl"])

    def lines(self, *more, epochs=2):
        return [
            f"{self.tiny.student} --epochs {epochs} --work-dir group/ce",
            f"{self.tiny.kd} --epochs {epochs} --work-dir group/mse --train-metrics",
            f"{self.tiny.kd} --epochs {epochs} --work-dir group/kl --cfg-options {KL} "
            "model.loss_kd.tau=3",
            *more,
        ]


@pytest.fixture
def copied(trained_once, tmp_path, monkeypatch):
    """A copy of the folder that the group left."""
    folder, trained = trained_once
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return trained


@pytest.fixture
def untrained(trained_once, tmp_path, monkeypatch):
    """A copy of the folder with the teacher alone."""
    folder, trained = trained_once
    shutil.copytree(folder / "before", tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return trained


def write(lines, path="runs.txt"):
    Path(path).write_text("# a comment\n\n" + "".join(f"{line}\n" for line in lines))
    return path


def state(folder):
    return torch.load(Path(folder, "final.pth"), weights_only=False)["state_dict"]


def train_alone(lines, folder="alone"):
    for line in lines:
        config, *words = shlex.split(line.replace("group/", f"{folder}/"))
        train(config, "--results", "alone.jsonl", *words)


def comparable(row):
    """What two runs of the same thing say alike."""
    keys = ("config", "fingerprint", "seed", "teachers", "data", "epochs", "iterations")
    keys += ("resumed_at", "processes", "test", "train", "best", "weights")
    return {key: row[key] for key in keys}


def logged(folder):
    (file,) = Path(folder).glob("*/vis_data/scalars.json")
    lines = map(json.loads, file.read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in ("time", "data_time")} for line in lines]


def test_each_run_leaves_what_it_leaves_alone(copied):
    lines = copied.lines()
    train_alone(lines)
    rows, alone = read_lines(Path("rows.jsonl")), read_lines(Path("alone.jsonl"))
    assert list(map(comparable, rows)) == list(map(comparable, alone))
    assert [row["train"] is None for row in rows] == [True, False, True]
    assert [row["group_size"] for row in rows] == [3, 3, 3]
    assert rows[0]["command"][2:] == ["runs.txt", "--results", "rows.jsonl"]
    assert rows[1]["test"] != rows[2]["test"]
    for name in ("ce", "mse", "kl"):
        assert_same(state(f"group/{name}"), state(f"alone/{name}"))
        runs = [read_run(Path(folder, name)) for folder in ("group", "alone")]
        assert runs[0]["computed"] == runs[1]["computed"]
    kept, expected = logged("group/mse"), logged("alone/mse")
    assert kept == expected[: len(kept)]  # then the test that --results asked for
    assert {"loss_kd", "accuracy/top1"} <= {key for line in kept for key in line}
    hub = torch.load("group/mse/epoch_2.pth", weights_only=False)["message_hub"]
    assert {"train/loss_kd", "val/accuracy/top1", "train/lr"} <= hub["log_scalars"].keys()
    assert not [key for part in hub.values() for key in part if re.match(r"\w+/s\d", key)]
    # tools/reproduce.py finds the rows; a run of the same name alone needs no training.
    for run, row in zip(read_runs("runs.txt"), rows, strict=True):
        assert find_row(run.cfg, rows) == row


def test_a_group_that_was_cut_off_goes_on(untrained, monkeypatch):
    lines, when = untrained.lines(epochs=3), 3
    mark = training._MarkStart.before_train_iter

    def interrupt(self, runner, batch_idx, data_batch=None):
        mark(self, runner, batch_idx, data_batch)
        if runner.iter == when:  # of 6, two an epoch
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._MarkStart, "before_train_iter", interrupt)
        with pytest.raises(SystemExit):
            group.main([write(lines)])
    for run in read_runs("runs.txt"):
        assert not Path(run.cfg.work_dir, "final.pth").is_file()
        assert should_resume(run.cfg)
    group.main(["runs.txt", "--results", "rows.jsonl"])
    assert {row["resumed_at"] for row in read_lines(Path("rows.jsonl"))} == {when - 1}
    train_alone(lines[2:])
    assert_same(state("group/kl"), state("alone/kl"))


def test_a_second_call_does_what_is_missing(copied):
    before = [Path(f"group/{name}/final.pth").stat().st_mtime_ns for name in ("ce", "mse")]
    weights = state("group/kl")
    rows = Path("rows.jsonl").read_text().splitlines(keepends=True)
    Path("rows.jsonl").write_text(rows[0])
    Path("group/kl/final.pth").unlink()
    group.main(["runs.txt", "--results", "rows.jsonl"])
    assert_same(state("group/kl"), weights)
    after = read_lines(Path("rows.jsonl"))
    assert list(map(comparable, after)) == [
        comparable({**json.loads(row), "resumed_at": resumed})
        for row, resumed in zip(rows, (0, 4, 4), strict=True)
    ]
    assert before == [Path(f"group/{n}/final.pth").stat().st_mtime_ns for n in ("ce", "mse")]


def test_other_settings_begin_anew(copied):
    before = state("group/mse")
    lines = copied.lines()[1:]
    lines[0] += " --cfg-options optim_wrapper.optimizer.lr=0.05"
    group.main([write(lines)])
    assert not torch.equal(state("group/mse")["head.fc.weight"], before["head.fc.weight"])
    cfgs = [run.cfg for run in read_runs("runs.txt")]
    assert common_work_dir(cfgs[:1]) != common_work_dir(cfgs)


def test_what_is_tested_is_what_is_there(copied):
    """The weights of a row and its metrics belong together, whoever wrote final.pth."""
    first = read_lines(Path("rows.jsonl"))
    final = Path("group/mse/final.pth")
    content = torch.load(final, weights_only=False)
    for value in content["state_dict"].values():
        value.zero_()
    torch.save(content, final)
    group.main(["runs.txt", "--results", "again.jsonl"])
    rows = read_lines(Path("again.jsonl"))
    assert rows[1]["weights"] == weights_hash(final) != first[1]["weights"]
    assert rows[1]["test"] != first[1]["test"]
    assert rows[2]["test"] == first[2]["test"]


def test_one_run_can_be_measured_again_alone(copied):
    before = Path("group/kl/final.pth").read_bytes()
    config, *words = shlex.split(copied.lines()[2])
    train(config, "--results", "again.jsonl", "--train-metrics", "--resume", "auto", *words)
    (again,) = read_lines(Path("again.jsonl"))
    row = read_lines(Path("rows.jsonl"))[2]
    assert Path("group/kl/final.pth").read_bytes() == before
    assert (again["test"], again["weights"]) == (row["test"], row["weights"])
    assert again["train"]
    # Its optimizer is there too: it can be trained on.
    state = torch.load("group/kl/epoch_2.pth", weights_only=False)
    assert state["optimizer"]["param_groups"]
    assert state["meta"]["epoch"] == 2


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("randomness.seed=3", "differ in randomness; to share batches"),
        ("train_dataloader.batch_size=16", "differ in train_dataloader"),
        ("data_preprocessor.mean=[1.0]", "differ in data_preprocessor"),
        ("optim_wrapper.accumulative_counts=2", "alone: its optimizer accumulates"),
        ("default_hooks.checkpoint.save_best=accuracy/top1", "alone: save_best"),
        ("model.student.train_cfg.augments.type=Mixup", "alone: MixUp and the like"),
        ("load_from=x.pth", "alone: load_from and resume"),
        ("default_hooks.ema.type=EMAHook", "alone: EMAHook changes the training of one model"),
        ("work_dir=group/ce", "write to the same work_dir"),
    ],
)
def test_what_cannot_share(trained, more, text):
    words = [trained.tiny.kd, "--epochs", "2", "--cfg-options", more]
    cfgs = [run.cfg for run in read_runs(write(trained.lines(), "other.txt"))]
    with pytest.raises(ValueError, match=text):
        join_configs(dict(enumerate([*cfgs, build_config(build_parser().parse_args(words))])))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("--resume", "a line names one run, without --resume"),
        ("--results x.jsonl", "a line names one run, without --results"),
        ("--train-teacher", "a line names one run, without --train-teacher"),
        ("--cfg-options model.teacher.checkpoint=none.pth", "none.pth does not exist"),
        ("--cfg-options model.loss_kd.tua=3", "loss_kd has no setting 'tua'"),
    ],
)
def test_wrong_lines_are_one_line(untrained, capsys, more, text):
    line = f"{untrained.tiny.kd} --epochs 2 --work-dir group/more {more}"
    error = error_of(capsys, group.main, write(untrained.lines(line)))
    assert re.search(text, error), error
    assert not Path("group/ce").exists()


def test_a_run_does_not_teach_another_of_the_list(untrained, capsys):
    folder = folder_of(untrained.tiny.teacher)
    before = Path(folder, "final.pth").read_bytes()
    lines = [f"{untrained.tiny.teacher} --epochs 2 --work-dir {folder}", *untrained.lines()]
    error = error_of(capsys, group.main, write(lines))
    assert "which another run of the list makes; train that one first" in error
    assert Path(folder, "final.pth").read_bytes() == before


def test_a_list_that_cannot_be_trained_removes_nothing(copied, capsys):
    before = Path("group/ce/final.pth").read_bytes()
    lines = copied.lines()
    lines[2] = lines[2].replace("tau=3", "tau=-1")
    assert "tau" in error_of(capsys, group.main, write(lines))
    assert Path("group/ce/final.pth").read_bytes() == before
    assert Path("group/ce/last_checkpoint").is_file()


def test_sequential_teachers_and_features_train_alone(project):
    def read(name, *words):
        return build_config(build_parser().parse_args([name, *words]))

    kd = read("configs/kd/wrn28-4_wrn16-2_mse.py")
    assert why_alone(kd) is None
    assert why_alone(read("configs/wrn/wrn16-2.py")) is None
    assert batches_key(kd) == batches_key(read("configs/wrn/wrn16-2.py"))
    assert batches_key(kd) != batches_key(read("configs/wrn/wrn16-2.py", "--seed", "1"))
    (switching, *_) = sorted(Path("configs/sequential").glob("wrn*then*.py"))
    assert "SequentialTeacherHook" in why_alone(read(str(switching)))
    follows = read("configs/kd/wrn28-4_wrn16-2_mse.py")
    follows.param_scheduler = dict(type="ReduceOnPlateauLR", monitor="accuracy/top1")
    assert "follows a validation" in why_alone(follows)
    (features, *_) = sorted(Path("configs/methods").glob("*fitnet*.py"))
    assert "features" in why_alone(read(str(features)))
    with pytest.raises(ValueError, match=r"the run a .* must be trained alone"):
        join_configs(dict(a=read(str(switching)), b=kd))


def test_only_the_students_own_lines_are_split_off(tmp_path):
    source = tmp_path / "all" / "2026" / "vis_data" / "scalars.json"
    source.parent.mkdir(parents=True)
    rows = [
        {"s1.lr": 0.1, "s10.lr": 0.2, "s1/loss": 1.0, "s10/loss": 2.0, "time": 3, "step": 1},
        {"s10/accuracy/top1": 5.0, "step": 2},
    ]
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    split_scalars(tmp_path / "all", tmp_path / "one", "s1")
    lines = (tmp_path / "one/2026/vis_data/scalars.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"lr": 0.1, "loss": 1.0, "time": 3, "step": 1}]
