import json
import multiprocessing
import os
import resource
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from runs import digits_student
from runs import run_config as short_run

from mmkd_logit.datasets import Digits, NoisyLabelDataset
from mmkd_logit.engine import fingerprint as provenance
from mmkd_logit.engine.cli import TrainingStarted
from mmkd_logit.engine.fingerprint import (
    dataset_hash,
    describe_test,
    read_run,
    same_test,
    teacher_hashes,
    weights_hash,
)
from mmkd_logit.engine.results import ResultsRecorder, append_line, plain, read_lines
from mmkd_logit.engine.runner import ExactRunner
from mmkd_logit.engine.train import run_training


def append_many(path, name, count):
    for number in range(count):
        append_line(path, dict(name=name, number=number, filler="ä" * (number * 97 % 5000)))


def test_many_processes_lose_and_tear_nothing(tmp_path):
    path = tmp_path / "new" / "folder" / "runs.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(path, name, 50)) for name in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        read_lines(path)  # a reader in between sees whole rows only
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    rows = read_lines(path)
    for name in range(4):
        assert [row["number"] for row in rows if row["name"] == name] == list(range(50))
    assert path.read_text().count("\n") == len(rows) == 200


def test_a_torn_line_is_passed_over_and_taken_away(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_line(path, dict(a=1))
    whole = path.read_bytes()
    for torn in (b"{", b'{"a": 2, "b": "\xc3', b"  ", b"\0\0\0", b'{"a": 2\0\0'):
        path.write_bytes(whole + torn)
        assert read_lines(path) == [dict(a=1)]
        append_line(path, dict(a=3))
        assert read_lines(path) == [dict(a=1), dict(a=3)]
        assert path.read_bytes() == whole + b'{"a": 3}\n'


def test_a_last_line_without_its_end_stays(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')  # as some editors leave it
    assert read_lines(path) == [dict(a=1), dict(a=2)]
    append_line(path, dict(a=3))
    assert read_lines(path) == [dict(a=1), dict(a=2), dict(a=3)]


def test_what_is_no_row_stays_and_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a diary\nits last line")
    with pytest.raises(ValueError, match=r"notes.txt:1 is not a results line; .* another file"):
        read_lines(path)
    append_line(path, dict(a=1))
    assert path.read_text() == 'a diary\nits last line\n{"a": 1}\n'
    for last in ("its last line", "{a: 1, b: 2}", "{\\rtf1 my text}"):
        path.write_text(f'{{"a": 1}}\n{last}')
        with pytest.raises(ValueError, match=r"notes.txt:2 is not a results line"):
            read_lines(path)
        append_line(path, dict(a=2))
        assert path.read_text() == f'{{"a": 1}}\n{last}\n{{"a": 2}}\n'


@pytest.mark.parametrize("line", ["{torn", "3", "[1]", "null", "<html>", "\udcff"])
def test_other_lines_are_named(tmp_path, line):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line.encode(errors="surrogateescape") + b'\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"runs.jsonl:3 is not a results line; remove it"):
        read_lines(path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_line(path, dict(a=1))
    before = path.read_bytes()

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            append_line(path, dict(a="x" * 10_000))
        except OSError:
            os._exit(0)
        os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.read_bytes() == before


def test_plain_values():
    value = dict(
        a=torch.tensor([[1, 2]]), b=np.float32(0.5), c=(1, None, True), d={1: "ä"}, e=slice(3)
    )
    expected = dict(a=[[1, 2]], b=0.5, c=[1, None, True], d={"1": "ä"}, e="slice(None, 3, None)")
    assert plain(value) == expected
    assert json.loads(json.dumps(plain(value))) == expected


def run_config(**kwargs):
    fields = dict(test_dataloader={}, test_cfg={}, test_evaluator={})
    return Config(dict(model=dict(type="X"), randomness=dict(seed=3), **{**fields, **kwargs}))


def test_what_cannot_be_recorded_is_known_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"lacks test_dataloader, test_evaluator$"):
        ResultsRecorder("r.jsonl", run_config(test_dataloader=None, test_evaluator=None), [])
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "runs.jsonl"):
        with pytest.raises(ValueError, match=r"is a (folder|file)"):
            ResultsRecorder(str(path), run_config(), [])
    ResultsRecorder(None, run_config(test_dataloader=None), [])


def test_the_clock_starts_when_the_teachers_are_there(tmp_path):
    recorder = ResultsRecorder(str(tmp_path / "r.jsonl"), run_config(), ["a.py"])
    recorder.begin -= 1000  # a long training of the teacher
    recorder.start(run_config())
    metrics = dict(top1=torch.tensor(0.5), matrix=np.eye(2), nan=float("nan"))
    hub = MessageHub("clock")
    for value in (50.0, 70.0, 60.0):
        hub.update_scalar("val/accuracy/top1", value)
    loader = types.SimpleNamespace(dataset=[])
    runner = types.SimpleNamespace(
        hooks=[],
        test=lambda: metrics, seed=3, epoch=2, iter=8, work_dir=str(tmp_path), world_size=8,
        message_hub=hub, train_dataloader=loader, test_dataloader=loader,
    )  # fmt: skip
    args = types.SimpleNamespace(config="a.py", cfg_options=dict(x=[1, (2,)]), train_metrics=False)
    row = recorder.record(runner, args, TrainingStarted())
    assert row["train_seconds"] < 100
    assert row["overrides"] == dict(x=[1, [2]])
    assert row["weights"] is None
    (read,) = read_lines(tmp_path / "r.jsonl")
    assert read["test"]["matrix"] == [[1, 0], [0, 1]]
    assert read["test"]["top1"] == 0.5
    assert read["processes"] == 8
    assert read["best"] == {"accuracy/top1": 70.0}
    assert read["data"] == dict(train=None, test=None)  # of lists nothing is known
    assert read["command"] == ["python", "tools/train.py", "a.py"]
    assert time.strptime(read["finished"], "%Y-%m-%dT%H:%M:%SZ")


def test_hash_of_the_data():
    def digits(**kwargs):
        return dataset_hash(Digits(**kwargs))

    whole = digits(split="train")
    assert whole == digits(split="train")
    assert len({whole, digits(split="test"), digits(split="train", indices=900)}) == 3
    noisy = NoisyLabelDataset(dict(type="mmkd_logit.Digits"), kind="symmetric", rate=0.1)
    assert dataset_hash(noisy) != whole


def test_hashes_of_teachers(tmp_path, monkeypatch):
    file = tmp_path / "a b.pth"
    file.write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_hash(file) == sha
    assert weights_hash(tmp_path) is None
    teachers = [
        dict(config="c.py", checkpoint=str(file)),
        dict(config="c.py", checkpoint="~/a b.pth"),
        dict(config="c.py", checkpoint="gone.pth"),
        dict(config="c.py", checkpoint="open-mmlab://resnet50"),
        "resnet50_8xb32_in1k",
    ]
    hashes = [sha, sha, None, "open-mmlab://resnet50", "resnet50_8xb32_in1k"]
    assert teacher_hashes(Config(dict(model=dict(teacher=teachers)))) == hashes
    assert teacher_hashes(Config(dict(model=dict(teacher=teachers[0])))) == [sha]
    assert teacher_hashes(Config(dict(model=dict(type="ImageClassifier")))) == []
    stages = [dict(begin=1, alpha=0.5), dict(begin=2, teacher=teachers[1:])]
    hooks = [dict(type="EMAHook"), dict(type="mmkd_logit.SequentialTeacherHook", stages=stages)]
    sequential = Config(dict(model=dict(teacher=teachers[0]), custom_hooks=hooks))
    assert teacher_hashes(sequential) == hashes


def test_the_commit_is_this_projects_only(tmp_path, monkeypatch):
    """Installed inside somebody else's repository we have none."""
    package = tmp_path / "venv" / "mmkd_logit" / "engine"
    package.mkdir(parents=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance._commit() == dict(commit=None, dirty=None)
    monkeypatch.setattr(
        provenance, "__file__", str(tmp_path / "mmkd_logit" / "engine" / "provenance.py")
    )
    assert len(provenance._commit()["commit"]) == 40
    assert provenance._commit()["dirty"] is False


def test_versions_name_the_stack():
    versions = provenance._versions()
    assert versions["python"] == sys.version.split()[0]
    for name in ("mmengine", "mmcv", "mmpretrain"):
        assert {f"onedl-{name}", name, f"{name}-lite"} & set(versions)


def test_a_row_of_a_gpu_says_where_float32_is_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H100")
    machine = provenance.describe_machine()
    assert machine["device"] == "H100"
    assert machine["tf32"] == dict(convolutions=True, matmul=False)
    monkeypatch.undo()
    assert "tf32" not in provenance.describe_machine()


def test_a_row_is_of_the_averaged_weights_that_are_saved(tmp_path):
    """The test after training begins EMAHook anew, with the weights that it finds."""
    hooks = [dict(type="EMAHook", momentum=0.02), dict(type="mmkd_logit.FinalCheckpointHook")]
    cfg = short_run(digits_student(), tmp_path / "run", epochs=6, custom_hooks=hooks)
    recorder, started = ResultsRecorder(str(tmp_path / "rows.jsonl"), cfg, []), TrainingStarted()
    recorder.start(cfg)
    args = types.SimpleNamespace(train_metrics=False, config="x.py", cfg_options={})
    row = recorder.record(run_training(cfg, None, started, test=True), args, started)
    alone = short_run(digits_student(), tmp_path / "alone")
    alone.load_from = str(tmp_path / "run" / "final.pth")
    assert row["test"] == plain(ExactRunner.from_cfg(alone).test())


def test_a_changed_run_says_the_seed_that_it_took_from_its_checkpoint(tmp_path):
    def cfg(seed, epochs):
        return short_run(digits_student(), tmp_path, epochs=epochs, randomness=dict(seed=seed))

    run_training(cfg(3, 1), None, TrainingStarted())
    run_training(cfg(7, 2), "auto", TrainingStarted(), resume_changed=True)
    run = read_run(tmp_path)
    assert (run["seed"], run["computed"]["randomness"]["seed"]) == (3, 3)


def test_a_row_counts_for_the_metrics_that_it_has():
    cfg = Config(dict(test_evaluator=dict(type="ExpectedCalibrationError", num_bins=3)))
    row = dict(tested=describe_test(cfg))
    assert same_test(row, describe_test(cfg))
    cfg.test_evaluator.num_bins = 15
    assert not same_test(row, describe_test(cfg))
    del row["tested"]["test_evaluator"]  # of a row that does not say by which
    assert same_test(row, describe_test(cfg))
    assert same_test({}, describe_test(cfg))
