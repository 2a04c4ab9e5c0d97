"""tools/reproduce.py, with real trainings of a second."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import PROJECT, Tiny, error_of, folder_of, train

from mmkd_logit.engine.fingerprint import weights_hash
from mmkd_logit.engine.results import read_lines
from mmkd_logit.lab import reproduce
from mmkd_logit.lab.experiment import read_once
from mmkd_logit.lab.report.data import read_dump
from mmkd_logit.lab.reproduce import main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


@pytest.fixture
def tiny(workplace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # also where we are not installed
    tiny = Tiny()
    read_once.cache_clear()
    Path("small.py").write_text(
        "title = 'Small'\n"
        f"runs = dict(big=dict(row='Teacher', config={tiny.teacher!r}),\n"
        f"            alone=dict(row='Alone', config={tiny.student!r}),\n"
        f"            kd=dict(row='Distilled', config={tiny.kd!r}, teacher='big'))\n"
        "comparisons = [('kd', 'alone')]\n"
    )
    return tiny


def test_students_that_start_together_compute_no_logit_twice(tiny, capsys):
    """The cache of their teacher is filled before, once, by views of their seed alone."""
    text = Path(tiny.kd).read_text()
    Path(tiny.kd).write_text(text.replace("final.pth')", "final.pth', cache=dict(storage='disk'))"))
    run = f"dict(row='{{}}', config={tiny.kd!r}, teacher='big', overrides=['model.alpha={{}}'])"
    Path("pair.py").write_text(
        "title = 'Pair'\n"
        f"runs = dict(big=dict(config={tiny.teacher!r}, seed=0),\n"
        f"            a={run.format('A', 0.5)}, b={run.format('B', 0.9)})\n"
    )
    words = ["pair.py", "--devices", "cpu,cpu", "--no-report"]
    main([*words, "--dry-run"])
    assert "3 of 3 runs to do: cost unknown" in capsys.readouterr().out
    main([*words, "--dry-run", "--estimate"])
    *plan, total = capsys.readouterr().out.splitlines()
    assert [": to do, about " in line for line in plan] == [True] * 3
    assert re.fullmatch(r"3 of 3 runs to do: \d+ s of one device; the caches .* GB of disk", total)
    assert not Path("work_dirs").exists()
    main(words)
    rows = read_lines(Path("results/runs.jsonl"))
    students = [row for row in rows if row["config"] == tiny.kd]
    assert len(students) == 2
    for row in students:
        folder = Path(row["command"][row["command"].index("--work-dir") + 1])
        assert "100.0% of 64 logits were in the cache" in (folder / "train.log").read_text()
    fills = list(Path("work_dirs").glob("*/seed0/precompute/*/train.log"))
    assert len(fills) == 1
    assert "\n64 logits computed" in fills[0].read_text()
    assert "for 2 students" in capsys.readouterr().err
    # A run without a cache ends with the same weights.
    Path("tiny/uncached.py").write_text(text.replace("final.pth')", "final.pth', micro_batch=32)"))
    train("tiny/uncached.py", model__alpha=0.5)
    weights = weights_hash(folder_of("tiny/uncached.py") / "final.pth")
    assert weights in {row["weights"] for row in students}


def test_from_nothing_to_the_table(tiny, capsys, monkeypatch):
    main(["small.py", "--seeds", "2"])
    first = capsys.readouterr()
    table = first.out
    assert table.startswith("### Small\n")
    assert first.err.splitlines()[-1] == "report: results/report.html"
    rows = read_lines(Path("results/runs.jsonl"))
    assert len(rows) == 6
    assert "| Distilled | " in table
    assert "(paired t-test over 2 seeds)" in table
    assert Path("results/small.md").read_text() + "\n" == table
    assert len(Path("results/small.csv").read_text().splitlines()) == 4
    record = json.loads(Path("results/small.json").read_text())
    assert record["command"] == ["python", "tools/reproduce.py", "small.py", "--seeds", "2"]
    assert [run["name"] for run in record["runs"]] == ["big", "alone", "kd"] * 2
    for run in record["runs"]:
        assert run["weights"] in [row["weights"] for row in rows]
        folder = Path("results", record["root"])
        assert folder.joinpath(run["files"]["log"]).is_file()
        (scalars,) = run["files"]["scalars"]
        assert "loss" in json.loads(folder.joinpath(scalars).read_text().splitlines()[0])
    kinds = {run["name"]: run["method"]["kind"] for run in record["runs"]}
    assert kinds == dict(big="ce", alone="ce", kd="mse")
    assert record["runs"][2]["teachers"] == [record["runs"][0]["work_dir"]]
    teachers = {row["seed"]: row["weights"] for row in rows if row["config"] == tiny.teacher}
    for row in rows:
        assert row["teachers"] == ([teachers[row["seed"]]] if row["config"] == tiny.kd else [])
        assert row["train"] is None
        assert row["best"]["accuracy/top1"] >= 0
    assert len({row["data"]["train"] for row in rows}) == 1
    page = " ".join(re.sub(r"<[^>]+>", "", Path("results/report.html").read_text()).split())
    assert "python tools/reproduce.py small.py --seeds 2 --dump-logits" in page
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        main(["small.py", "--seeds", "2", "--no-report"])
        sys.stdout.seek(0)
        assert sys.stdout.read() == table.replace("±", "?")
    assert Path("results/small.md").read_text() + "\n" == table
    assert capsys.readouterr().err.count("done before") == 6
    main(["small.py", "--seeds", "3", "--dry-run"])
    plan = capsys.readouterr().out.splitlines()
    assert [": done" in line for line in plan] == [True] * 6 + [False] * 4
    assert plan[-1].startswith("3 of 9 runs to do: ")
    assert " s of one device" in plan[-1]
    main(["small.py", "--seeds", "3", "--no-train", "--no-report"])
    assert capsys.readouterr().out == table
    record = json.loads(Path("results/small.json").read_text())
    assert record["command"][2:] == ["small.py", "--seeds", "3", "--no-report"]
    assert len(record["runs"]) == 6
    assert len(read_lines(Path("results/runs.jsonl"))) == 6
    check_the_command_for_logits(capsys)
    with open("small.py", "a") as file:
        file.write("metrics = [dict(title='train', key='train.accuracy/top1')]\n")
    main(["small.py", "--only", "alone", "--no-report"])  # measured, not trained, again
    (*_, row) = read_lines(Path("results/runs.jsonl"))
    assert row["resumed_at"] == row["iterations"]
    assert row["weights"] in {row["weights"] for row in rows}  # students stay this teacher's
    assert f"| Alone | {row['train']['accuracy/top1']:.2f} (1) |" in capsys.readouterr().out


def check_the_command_for_logits(capsys):
    """The report names it; it computes from the weights that are there."""
    command = ["small.py", "--dump-logits", "--no-report"]
    main([*command, "--dry-run"])
    plan = capsys.readouterr().out.splitlines()
    assert plan[-4].endswith("done, but for its logits (seed 0)")
    main(command)
    assert capsys.readouterr().err.count("its logits are written") == 3
    rows = read_lines(Path("results/runs.jsonl"))
    assert len(rows) == 6
    by_weights = {row["weights"]: row for row in rows}
    for run in json.loads(Path("results/small.json").read_text())["runs"]:
        row = by_weights[run["weights"]]
        for split in ("train", "test"):
            dump = read_dump(Path("results", "..", run["files"]["dumps"][split]))
            assert dump.identity["weights"] == row["weights"]
            assert dump.identity["data"] == row["data"][split]
        top1 = 100 * (dump.logits.argmax(1) == dump.label).mean()
        assert top1 == pytest.approx(row["test"]["accuracy/top1"])
        assert (dump.teacher_logits is None) == (run["name"] != "kd")
    main(command)
    assert capsys.readouterr().err.count("done before\n") == 3


def test_an_experiment_anywhere(tmp_path, monkeypatch, capsys):
    """Its file and configs lie outside the checkout, and so does the current folder."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    lab, here = tmp_path / "lab", tmp_path / "here"
    for folder in (lab, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    base = str(PROJECT / "configs/wrn/wrn10-1-thin_digits.py")
    short = "train_cfg = dict(max_epochs=1)\n"
    (lab / "my_net.py").write_text(f"_base_ = {base!r}\n{short}")
    (lab / "my_kd.py").write_text(
        "_base_ = './my_net.py'\nmodel = dict(_delete_=True, type='mmkd_logit.LogitDistiller', "
        "student={{_base_.model}}, loss_kd=dict(type='mmkd_logit.LogitMSELoss'), "
        "teacher=dict(config='my_net.py', checkpoint='nowhere.pth'))\n"
    )
    (lab / "mine.py").write_text(
        "title = 'Mine'\nruns = dict(big=dict(row='Teacher', config='my_net.py'),\n"
        "            kd=dict(row='Distilled', config='my_kd.py', teacher='big'))\n"
    )
    main([str(lab / "mine.py"), "--no-report", "--devices", "cpu"])
    assert "| Distilled | " in capsys.readouterr().out
    teacher, student = read_lines(here / "results/runs.jsonl")
    assert student["teachers"] == [teacher["weights"]]
    assert teacher["config"] == str(lab / "my_net.py")
    assert sorted(path.name for path in here.iterdir()) == ["results", "work_dirs"]
    message = error_of(capsys, main, lab / "mine.py", "../lab/mine.py")
    assert message == "two experiments are named 'mine' and would write the same tables"
    assert "the experiment nope.py does not exist" in error_of(capsys, main, "nope.py")


def test_a_student_group_leaves_the_rows_of_single_runs(tiny, capsys):
    Path("group.py").write_text(
        "title = 'Group'\n"
        f"runs = dict(big=dict(config={tiny.teacher!r}), alone=dict(row='A', "
        f"config={tiny.student!r}, overrides=['optim_wrapper.optimizer.lr=0.05']), "
        f"**{{f'a{{alpha}}': dict(row=alpha, config={tiny.kd!r}, "
        "teacher='big', overrides=[f'model.alpha={alpha}']) for alpha in ('0.5', '0.9')})\n"
    )
    words = ["group.py", "--devices", "cpu", "--no-report"]
    main([*words, "--share-teacher"])
    first = capsys.readouterr()
    assert "in a group with 2 others" in first.err
    rows = read_lines(Path("results/runs.jsonl"))
    assert [row["group_size"] for row in rows] == [1, 3, 3, 3]
    main(words)  # without the flag: nothing is left to do
    second = capsys.readouterr()
    assert second.err.count("done before") == 4
    assert second.out == first.out


# Which the digits do not have, as each run finds out.
THREE_CHANNELS = ["data_preprocessor.mean=[1,2,3]", "data_preprocessor.std=[1,2,3]"]


def test_failures_and_reduced_size(tiny, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["small.py", "--no-report", "--cfg-options", *THREE_CHANNELS])
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert "| Distilled | 1 failed |" in out
    assert out.endswith("Nothing finished.\n\n")
    assert "failed, see work_dirs/" in err
    assert "cannot take the training images" in err
    record = json.loads(Path("results/small.json").read_text())
    assert [run["weights"] for run in record["runs"]] == [None] * 3
    assert record["metrics"][0]["cells"]["kd"]["failed"] == 1
    assert "not trained, its teacher" in err


def test_a_cluster(tiny, capsys):
    """submitit runs the jobs itself where its executor is the local one."""
    pytest.importorskip("submitit")
    words = ["small.py", "--only", "alone", "--launcher", "local", "--no-report"]
    main([*words, "--cluster-option", "timeout_min=5"])
    assert "| Alone | " in capsys.readouterr().out
    assert len(read_lines(Path("results/runs.jsonl"))) == 1
    for option, message in (
        (["--cluster-option", "nonsense=5"], "submitit refuses a --cluster-option: "),
        (["--devices", "0"], "--devices is for this machine"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    ):
        assert error_of(capsys, main, *words, *option).startswith(message)


def test_standard_output_is_the_tables_alone(tmp_path):
    """What MMEngine says of an environment variable in a config is no part of them."""
    command = [sys.executable, PROJECT / "tools/reproduce.py", "table1", "--scale", "cpu"]
    variables = {**os.environ, "CIFAR100_ROOT": "elsewhere", "PYTHONPATH": str(PROJECT)}
    command += ["--only", "ce", "--dry-run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    *plan, total = done.stdout.splitlines()
    assert [line.partition("/")[0] for line in plan] == ["work_dirs"] * 3
    assert total.startswith("3 of 3 runs to do")
    assert "CIFAR100_ROOT" in done.stderr


def test_it_leaves_signals_as_they_were(workplace, monkeypatch):
    def handlers():
        return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]

    before, during = handlers(), []
    monkeypatch.setattr(reproduce, "read_lines", lambda path: during.extend(handlers()) or [])
    main(["digits", "--dry-run", "--only", "teacher"])
    assert handlers() == before
    assert during[0] is during[1]
    assert during[0] not in before


def test_wrong_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = ", ".join(sorted(path.stem for path in (PROJECT / "configs/paper").glob("*.py")))
    message = error_of(capsys, main, "nope")
    assert message == f"no experiment 'nope' (known: {known}, all); or name a file: PATH.py"
    assert error_of(capsys, main, "digits", "--epochs", -3) == "--epochs must be at least 1, got -3"
    words = ["digits", "table1", "--only", "nope*"]
    assert error_of(capsys, main, *words) == "--only nope* fits no run of these experiments"
    message = error_of(capsys, main, "digits", "--share-teacher", 0)
    assert message == "--share-teacher must be at least 1, got 0"
    assert error_of(capsys, main, "digits", "--seeds", 0) == "--seeds must be at least 1, got 0"
    message = error_of(capsys, main, "digits", "--devices", "gpu")
    assert message == "--devices are numbers of GPUs or cpu, got 'gpu'"
    message = error_of(capsys, main, "digits", "--devices", "0,1+2")
    assert message == "--devices must give each run as many GPUs, got ['0', '1+2']"
    if not torch.cuda.is_available():
        message = error_of(capsys, main, "digits", "--devices", "0,99")
        assert message == "--devices 0,99: there is no GPU 0 among the 0 that are visible here"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")  # CUDA itself counts one
    assert "no GPU 2 among the 2 that" in error_of(capsys, main, "digits", "--devices", "0,2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    message = error_of(capsys, main, "digits", "--scale", "nope")
    assert message == "no scale 'nope' of the experiments (known: cpu, digits)"
    Path("results").touch()
    assert "results is a file; name a folder" in error_of(capsys, main, "digits")
    Path("results").unlink()
    words = ["digits", "--cfg-options", "model.nonsense=1"]
    assert "model has no setting 'nonsense'" in error_of(capsys, main, *words)
    assert not Path("results").exists()
