"""Processes and jobs in which tools run, with a training of a moment."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import PROJECT, Tiny

from mmkd_logit.engine.fingerprint import describe_run, write_run
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab import worker
from mmkd_logit.lab.pools import ClusterPool, LocalPool
from mmkd_logit.lab.worker import Job, resumed

WAIT = 300
LONG = ["configs/wrn/wrn16-2_digits.py", "--epochs", "10000"]
# Trains until it is killed.
PROGRAM = f"""
import time
from mmkd_logit.lab.pools import LocalPool
if __name__ == "__main__":
    pool = LocalPool(["cpu", "cpu"])
    pool.start("runs/long", {LONG!r}, "train.py")
    time.sleep(1000)
"""


def wait_for(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def all_of(pool, number):
    ended = {}
    wait_for(lambda: ended.update(pool.finished()) or len(ended) == number)
    return ended


def text_of(folder):
    return Path(folder, "train.log").read_text()


def test_processes_on_cpus(workplace, monkeypatch):
    """Two at once, of which one fails; then one that is stopped."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "before")
    pool = LocalPool(["cpu", "cpu"])
    pool.start("runs/a", ["--help"], "train.py")
    assert pool.has_room()
    pool.start("runs/b", ["nope.py"], "train.py")
    assert not pool.has_room()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "before"
    assert all_of(pool, 2) == {"runs/a": True, "runs/b": False}
    assert pool.has_room()
    assert "--train-teacher" in text_of("runs/a")
    assert text_of("runs/b") == "error: the config nope.py does not exist\n"
    pool.start("runs/b", ["nope.py"], "train.py")
    pool.start("runs/long", LONG, "train.py")
    assert all_of(pool, 1) == {"runs/b": False}
    assert text_of("runs/b").count("error") == 2  # what was there stays
    log = Path("runs/long/train.log")
    wait_for(lambda: log.is_file() and "Epoch(train)" in log.read_text())
    pool.stop()
    assert pool.finished() == {"runs/long": False}


def test_a_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "train.log").symlink_to("precious")
    with pytest.raises(OSError, match=r"train\.log cannot be written: it is a link"):
        worker.run_tool("train.py", [], str(tmp_path / "train.log"))
    assert (tmp_path / "precious").read_text() == "mine"


def test_nothing_trains_on_when_we_were_killed(workplace):
    Path("program.py").write_text(PROGRAM)
    log = Path("runs/long/train.log")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen([sys.executable, "program.py"], env=environment) as process:
        try:
            wait_for(lambda: log.is_file() and "Epoch(train)" in log.read_text())
        finally:
            process.send_signal(signal.SIGKILL)
    ends = []

    def silent():
        ends.append(log.stat().st_size)
        time.sleep(1)
        return ends[-2:] == [ends[-1]] * 2 and len(ends) > 1

    wait_for(silent)


SHOW = """
import os, sys
print(*sys.argv[1:], 'on', os.environ['CUDA_VISIBLE_DEVICES'], 'as', os.environ.get('RANK'))
"""


@pytest.fixture
def shows(tmp_path, monkeypatch):
    """A package in the current folder whose worker imports and trains nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for folder in ("mmkd_logit", "mmkd_logit/lab", "mmkd_logit/engine"):
        Path(folder).mkdir()
        Path(folder, "__init__.py").touch()
    Path("mmkd_logit/lab/worker.py").write_text(SHOW)
    Path("mmkd_logit/engine/launch.py").write_text("from torch.distributed.run import main; main()")


def test_programs_on_gpus(shows):
    """Each sees its own device from the beginning; a GPU that is named twice has two runs."""
    pool = LocalPool(["0", "0", "7"])
    for name in "abc":
        assert pool.has_room()
        pool.start(f"runs/{name}", ["c.py", "--seed", name], "train.py")
    assert not pool.has_room()
    assert all_of(pool, 3) == {f"runs/{name}": True for name in "abc"}
    for name, device in zip("abc", "007", strict=True):
        assert text_of(f"runs/{name}") == f"train.py c.py --seed {name} on {device} as None\n"


def test_several_processes_a_run(shows, monkeypatch):
    """torchrun starts them, on the GPUs of those that we may use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    pool = LocalPool(["0+1"])
    assert pool.processes == 2
    pool.start("runs/a", ["c.py", "--cfg-options", "a=1"], "train.py")
    assert all_of(pool, 1) == {"runs/a": True}
    command = "train.py --launcher pytorch c.py --cfg-options a=1 on 4,5 as"
    assert sorted(text_of("runs/a").splitlines()) == [f"{command} 0", f"{command} 1"]


@pytest.fixture
def calls(monkeypatch):
    calls = []
    monkeypatch.setattr(worker, "run_tool", lambda tool, argv, log: calls.append(argv))
    return calls


def begun(argv):
    cfg = build_config(build_parser().parse_args(argv))
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    write_run(cfg.work_dir, **describe_run(cfg))


def test_a_job_that_was_queued_again_is_resumed(workplace, calls):
    argv = [Tiny().student, "--seed", "3"]
    again = [argv[0], "--resume", "auto", *argv[1:]]
    Job()("train.py", argv, "log")
    begun(argv)
    Job()("train.py", argv, "log")  # slurm started it again
    requeued = pickle.loads(pickle.dumps(Job().checkpoint("train.py", argv, "log")))
    requeued.function(*requeued.args)
    Job()("train.py", again, "log")
    Job()("train_group.py", ["runs.txt"], "log")
    Job()("train.py", ["nope.py"], "log")
    assert calls == [argv, again, again, again, ["runs.txt"], ["nope.py"]]


def test_checkpoints_of_another_run_are_not_resumed(workplace):
    argv = [Tiny().student, "--seed", "3"]
    assert resumed("train.py", argv) == argv
    begun([*argv, "--cfg-options", "model.backbone.drop_rate=0.5"])
    assert resumed("train.py", argv) == argv
    begun(argv)
    assert resumed("train.py", argv)[1:3] == ["--resume", "auto"]


@pytest.mark.parametrize(
    ("code", "error"), [(1, RuntimeError), (2, RuntimeError), (143, SystemExit), (-1, SystemExit)]
)
def test_only_errors_are_results(monkeypatch, calls, code, error):
    """submitit keeps an exception as the result of a job, which then never runs again."""
    assert Job()("train.py", ["c.py"], "log") is None

    def end(*args):
        raise SystemExit(code)

    monkeypatch.setattr(worker, "run_tool", end)
    with pytest.raises(error):
        Job()("train.py", ["c.py"], "log")


def test_a_job_that_fails(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    errors = {"runs/a": None, "runs/b": RuntimeError("tools/train.py ended with status 1")}

    class Executor:
        def __init__(self, folder, cluster):
            self.update_parameters = lambda: None

        def submit(self, job, tool, argv, log):
            error = errors[str(Path(log).parent.relative_to(tmp_path))]
            return SimpleNamespace(done=lambda: True, exception=lambda: error)

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.chdir(tmp_path)
    pool = ClusterPool("slurm", "submitit", 2, {})
    for folder in errors:
        assert pool.has_room()
        pool.start(folder, ["c.py"], "train.py")
    assert not pool.has_room()
    assert pool.finished() == {"runs/a": True, "runs/b": False}
    assert pool.has_room()
