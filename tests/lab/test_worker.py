"""Runs as jobs of a cluster."""

import pickle
from pathlib import Path

import pytest
from commands import Tiny

from mmkd_logit.engine.fingerprint import describe_run, write_run
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab import pools as worker
from mmkd_logit.lab.pools import Job, resumed


@pytest.fixture
def calls(monkeypatch):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    calls = []
    monkeypatch.setattr(worker, "train_in_process", lambda *args: calls.append(args[0]))
    return calls


def begun(words):
    cfg = build_config(build_parser().parse_args(words))
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    write_run(cfg.work_dir, **describe_run(cfg))


def test_a_job_that_was_queued_again_goes_on(workplace, calls, monkeypatch):
    words = [Tiny().student, "--seed", "3"]
    on = [words[0], "--resume", "auto", *words[1:]]
    Job()(words, "log")
    begun(words)
    Job()(words, "log")  # the first time somebody has decided already
    again = Job().checkpoint(words, "log", "train.py")
    again = pickle.loads(pickle.dumps(again))
    again.function(*again.args)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # slurm did it itself
    Job()(words, "log")
    Job()(on, "log")
    Job()(["runs.txt"], "log", "train_together.py")
    assert calls == [words, words, on, on, on, ["runs.txt"]]


def test_what_is_there_of_another_run_is_not_gone_on_with(workplace):
    words = [Tiny().student, "--seed", "3"]
    assert resumed(words, "train.py") == words
    begun([*words, "--cfg-options", "model.backbone.drop_rate=0.5"])
    assert resumed(words, "train.py") == words
    begun(words)
    assert resumed(words, "train.py")[1:3] == ["--resume", "auto"]


@pytest.mark.parametrize(
    ("code", "error"), [(1, RuntimeError), (2, RuntimeError), (143, SystemExit), (-1, SystemExit)]
)
def test_only_errors_are_results(monkeypatch, code, error):
    """submitit keeps an exception as the result of a job, which then never runs again."""

    def end(*args):
        raise SystemExit(code)

    monkeypatch.setattr(worker, "train_in_process", end)
    with pytest.raises(error):
        Job()(["c.py"], "log")
    monkeypatch.setattr(worker, "train_in_process", lambda *args: None)
    assert Job()(["c.py"], "log") is None
