"""Several runs as one leave what each would leave alone."""

import json
import shlex
import time
from pathlib import Path

import pytest
import torch
from commands import Tiny, error_of, folder_of, train
from runs import assert_same

from mmkd_logit.engine import group as together
from mmkd_logit.engine import train as train_tool
from mmkd_logit.engine import train as training
from mmkd_logit.engine.fingerprint import read_run, should_resume, weights_hash
from mmkd_logit.engine.group import (
    batches_key,
    common_work_dir,
    join_configs,
    read_members,
    split_scalars,
    why_alone,
)
from mmkd_logit.engine.results import find_row, read_lines


@pytest.fixture
def tiny(workplace):
    tiny = Tiny()
    # Without the random crop, whose draws a resumed run does not repeat.
    for name in (tiny.teacher, tiny.student):
        text = Path(name).read_text()
        plain = "dataset=dict(indices=64, pipeline=[dict(type='PackInputs')])"
        Path(name).write_text(text.replace("dataset=dict(indices=64)", plain, 1))
    train(tiny.teacher)
    return tiny


def lines_of(tiny, *more):
    kl = "model.loss_kd.type=mmkd_logit.ScaledKLDivLoss model.loss_kd.tau=3"
    return [
        f"{tiny.student} --epochs 2 --work-dir together/ce",
        f"{tiny.kd} --epochs 2 --work-dir together/mse --train-metrics",
        f"{tiny.kd} --epochs 2 --work-dir together/kl --cfg-options {kl}",
        *more,
    ]


def write(lines, path="runs.txt"):
    Path(path).write_text("# a comment\n\n" + "".join(f"{line}\n" for line in lines))
    return path


def state(folder):
    return torch.load(Path(folder, "final.pth"), weights_only=False)["state_dict"]


def train_alone(lines):
    for line in lines:
        words = shlex.split(line.replace("together/", "alone/"))
        train_tool.main([words[0], "--results", "alone.jsonl", *words[1:]])
        time.sleep(1.01 - time.time() % 1)  # MMEngine keeps every experiment by name and second


def comparable(row):
    """What two runs of the same thing say alike."""
    keys = ("config", "overrides", "fingerprint", "seed", "teachers", "data", "epochs")
    keys += ("iterations", "resumed_at", "processes", "test", "train", "best")
    return {key: row[key] for key in keys}


def test_each_run_leaves_what_it_leaves_alone(tiny):
    lines = lines_of(tiny)
    together.main([write(lines), "--results", "rows.jsonl"])
    train_alone(lines)
    rows, alone = read_lines(Path("rows.jsonl")), read_lines(Path("alone.jsonl"))
    assert list(map(comparable, rows)) == list(map(comparable, alone))
    assert [row["train"] is None for row in rows] == [True, False, True]
    assert [row["together"] for row in rows] == [3, 3, 3]
    words = shlex.split("python tools/train_together.py runs.txt --results rows.jsonl")
    assert rows[0]["command"] == words
    for name in ("ce", "mse", "kl"):
        assert_same(state(f"together/{name}"), state(f"alone/{name}"))
        runs = [read_run(f"{folder}/{name}") for folder in ("together", "alone")]
        assert runs[0]["computed"] == runs[1]["computed"]
    assert rows[1]["test"] != rows[2]["test"]


def test_scalars_are_those_of_each_run(tiny):
    lines = lines_of(tiny)
    together.main([write(lines)])
    train_alone(lines[1:2])
    (file,) = Path("together/mse").glob("*/vis_data/scalars.json")
    (expected,) = Path("alone/mse").glob("*/vis_data/scalars.json")
    kept = [
        [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "data_time")}
            for line in path.read_text().splitlines()
        ]
        for path in (file, expected)
    ]
    for line in kept[1]:  # of the test that --results asked for
        assert set(line) - {"step"}
    assert kept[0] == kept[1][: len(kept[0])]
    assert any("loss_kd" in line for line in kept[0])
    assert any("accuracy/top1" in line for line in kept[0])


def test_what_was_recorded_counts_as_the_run(tiny):
    """tools/reproduce.py finds the rows; a run of the same name alone needs no training."""
    together.main([write(lines_of(tiny)), "--results", "rows.jsonl"])
    rows = read_lines(Path("rows.jsonl"))
    for member, row in zip(read_members("runs.txt"), rows, strict=True):
        assert find_row(member.cfg, rows) == row


@pytest.mark.parametrize("when", [3, 6])
def test_a_run_that_was_cut_off_goes_on(tiny, monkeypatch, when, capsys):
    lines = lines_of(tiny)
    mark = training._MarkStart.before_train_iter

    def interrupt(self, runner, batch_idx, data_batch=None):
        mark(self, runner, batch_idx, data_batch)
        if runner.iter == when:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._MarkStart, "before_train_iter", interrupt)
        # Two iterations an epoch of 64 images in batches of 32, longer below.
        with pytest.raises(SystemExit):
            together.main([write([line.replace("--epochs 2", "--epochs 4") for line in lines])])
    members = read_members("runs.txt")
    for member in members:
        assert not Path(member.cfg.work_dir, "final.pth").is_file()
        assert should_resume(member.cfg)
    together.main(["runs.txt", "--results", "rows.jsonl"])
    rows = read_lines(Path("rows.jsonl"))
    assert {row["resumed_at"] for row in rows} == {when - when % 2}
    train_alone([line.replace("--epochs 2", "--epochs 4") for line in lines[1:]])
    for name in ("mse", "kl"):
        assert_same(state(f"together/{name}"), state(f"alone/{name}"))
    # A third call has nothing left to do.
    before = Path("together/kl/final.pth").stat().st_mtime_ns
    together.main(["runs.txt", "--results", "rows.jsonl"])
    assert len(read_lines(Path("rows.jsonl"))) == 3
    assert Path("together/kl/final.pth").stat().st_mtime_ns == before


def test_rows_that_a_kill_prevented_are_written_by_the_next_call(tiny):
    together.main([write(lines_of(tiny)), "--results", "rows.jsonl"])
    first, *_ = Path("rows.jsonl").read_text().splitlines(keepends=True)
    Path("rows.jsonl").write_text(first)
    Path("together/kl/final.pth").unlink()
    before = state("together/mse")
    together.main(["runs.txt", "--results", "rows.jsonl"])
    rows = read_lines(Path("rows.jsonl"))
    assert [Path(row["command"][-3]).name for row in rows] == ["runs.txt"] * 3
    assert [row["overrides"] == {} for row in rows] == [True, True, False]
    assert_same(state("together/mse"), before)


def test_other_settings_begin_anew(tiny):
    together.main([write(lines_of(tiny))])
    before = state("together/mse")
    lines = lines_of(tiny)
    lines[1] += " --cfg-options optim_wrapper.optimizer.lr=0.05"
    together.main([write(lines)])
    assert not torch.equal(state("together/mse")["head.fc.weight"], before["head.fc.weight"])
    members = read_members("runs.txt")
    assert common_work_dir([m.cfg for m in members[:2]]) != common_work_dir(
        [m.cfg for m in members]
    )


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("--seed 3", "differ in randomness; to share batches"),
        ("--cfg-options train_dataloader.batch_size=16", "differ in train_dataloader"),
        ("--cfg-options data_preprocessor.mean=[1.0]", "differ in data_preprocessor"),
        (
            "--cfg-options optim_wrapper.accumulative_counts=2",
            r"must be trained alone: its optimizer accumulates",
        ),
        (
            "--cfg-options default_hooks.checkpoint.save_best=accuracy/top1",
            "must be trained alone: save_best",
        ),
        (
            "--cfg-options model.student.train_cfg.augments.type=Mixup",
            "must be trained alone: MixUp and the like",
        ),
        ("--cfg-options load_from=x.pth", "must be trained alone: load_from and resume"),
        ("--cfg-options default_hooks.ema.type=EMAHook", "must be trained alone: ema of default"),
        ("--resume", "a line names one run, without --resume"),
        ("--results x.jsonl", "a line names one run, without --results"),
        ("--train-teacher", "a line names one run, without --train-teacher"),
        ("--cfg-options model.teacher.checkpoint=none.pth", "none.pth does not exist"),
    ],
)
def test_what_cannot_share_is_one_line(tiny, capsys, more, text):
    import re

    line = f"{tiny.kd} --epochs 2 --work-dir together/more {more}"
    error = error_of(capsys, together.main, write(lines_of(tiny, line)))
    assert re.search(text, error), error
    assert not Path("together/ce/final.pth").exists()


def test_a_run_does_not_teach_another_of_the_list(tiny, capsys):
    folder = folder_of(tiny.teacher)
    before = Path(folder, "final.pth").read_bytes()
    lines = [f"{tiny.teacher} --epochs 2", *lines_of(tiny)]
    lines[0] += f" --work-dir {folder}"
    error = error_of(capsys, together.main, write(lines))
    assert "which another run of the list makes; train that one first" in error
    assert Path(folder, "final.pth").read_bytes() == before


def test_a_list_that_cannot_be_trained_removes_nothing(tiny, capsys):
    lines = lines_of(tiny)
    train_alone(lines[:1])
    before = Path("alone/ce/final.pth").read_bytes()
    lines = [line.replace("together/ce", "alone/ce") for line in lines]
    lines[2] = lines[2].replace("tau=3", "tau=-1")
    assert "tau" in error_of(capsys, together.main, write(lines))
    assert Path("alone/ce/final.pth").read_bytes() == before
    assert Path("alone/ce/last_checkpoint").is_file()


def test_what_is_tested_is_what_is_there(tiny):
    """The weights of a row and its metrics belong together, whoever wrote final.pth."""
    together.main([write(lines_of(tiny)), "--results", "first.jsonl"])
    final = Path("together/mse/final.pth")
    content = torch.load(final, weights_only=False)
    for value in content["state_dict"].values():
        value.zero_()
    torch.save(content, final)
    together.main(["runs.txt", "--results", "rows.jsonl"])
    rows, first = read_lines(Path("rows.jsonl")), read_lines(Path("first.jsonl"))
    assert rows[1]["weights"] == weights_hash(final) != first[1]["weights"]
    assert rows[1]["test"] != first[1]["test"]
    assert rows[2]["test"] == first[2]["test"]


def test_one_run_can_be_measured_again_alone(tiny):
    lines = lines_of(tiny)
    together.main([write(lines), "--results", "rows.jsonl"])
    before = Path("together/kl/final.pth").read_bytes()
    words = shlex.split(lines[2])
    more = ["--results", "again.jsonl", "--train-metrics", "--resume", "auto"]
    train_tool.main([words[0], *more, *words[1:]])
    (again,) = read_lines(Path("again.jsonl"))
    row = read_lines(Path("rows.jsonl"))[2]
    assert Path("together/kl/final.pth").read_bytes() == before
    assert again["test"] == row["test"]
    assert again["weights"] == row["weights"]
    assert again["train"]
    # Its optimizer is there too: it can be trained on.
    state = torch.load("together/kl/epoch_2.pth", weights_only=False)
    assert state["optimizer"]["param_groups"]
    assert state["meta"]["epoch"] == 2


def test_wrong_lists_are_one_line(workplace, capsys):
    assert "none.txt does not exist" in error_of(capsys, together.main, "none.txt")
    Path("one.txt").write_text("configs/wrn/wrn10-1_digits.py\n")
    assert "names 1 runs" in error_of(capsys, together.main, "one.txt")
    Path("two.txt").write_text("configs/wrn/wrn10-1_digits.py\n" * 2)
    assert "write to the same work_dir" in error_of(capsys, together.main, "two.txt")


def test_sequential_teachers_and_features_train_alone(project):
    from mmkd_logit.engine.train import build_config, build_parser

    def read(name, *words):
        return build_config(build_parser().parse_args([name, *words]))

    kd = read("configs/kd/wrn28-4_wrn16-2_mse.py")
    assert why_alone(kd) is None
    assert why_alone(read("configs/wrn/wrn16-2.py")) is None
    assert batches_key(kd) == batches_key(read("configs/wrn/wrn16-2.py"))
    assert batches_key(kd) != batches_key(read("configs/wrn/wrn16-2.py", "--seed", "1"))
    (switching, *_) = sorted(Path("configs/sequential").glob("wrn*then*.py"))
    assert "SequentialTeacherHook" in why_alone(read(str(switching)))
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
