"""Runs whose machine is wanted back."""

import multiprocessing.util
import os
import shlex
import signal
import time
import warnings
from pathlib import Path

import pytest
import stop_hooks  # noqa: F401
import torch
from commands import Tiny, train
from processes import fork
from torch.utils.data import DataLoader

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine import preemption
from mmkd_logit.engine.cli import resume_command
from mmkd_logit.engine.fingerprint import read_run
from mmkd_logit.engine.preemption import PreemptionHook, protect_workers
from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.utils.files import why_damaged

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")

ITERATIONS = """
_base_ = './{base}'
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=6, val_interval=3)
train_dataloader = dict(batch_size=8, dataset=dict(dataset=dict(indices=64)))
param_scheduler = dict(_delete_=True, type='MultiStepLR', by_epoch=False, milestones=[4])
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2), logger=dict(interval=1))
custom_hooks = [*_base_.custom_hooks, dict(type='SignalAt', iteration=3, name='{name}')]
"""


def by_iterations(name):
    base = Path(Tiny().student)
    path = base.with_name(f"{base.stem}_{name.lower()}.py")
    path.write_text(ITERATIONS.format(base=base.name, name=name))
    return str(path)


def stopped(capsys, *words, **settings):
    """Run until the signal; return the status and the last line of standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        train(*words, **settings)
    return end.value.code, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 75)])
def test_saved_and_gone_on_with(workplace, capsys, name, code):
    config = by_iterations(name)
    words = ["--work-dir", "cut off"]
    workers = 1 if name == "SIGTERM" else 0  # they get the signal too
    before = signal.getsignal(getattr(signal, name))
    status, line = stopped(capsys, config, *words, train_dataloader__num_workers=workers)
    assert status == code
    saved = Path("cut off/interrupted.pth").absolute()
    begin = f"stopped by {name} after iteration 3 of 6, saved as {saved}; continue with: "
    assert line.startswith(f"{begin}python tools/train.py {config} --work-dir 'cut off' --cfg-opt")
    assert line.endswith(" --resume")
    assert last_checkpoint("cut off") == Path("cut off/interrupted.pth")
    assert why_damaged(saved) is None
    assert load_from_file(str(saved))["meta"]["iter"] == 3
    assert not Path("cut off/final.pth").exists()
    assert signal.getsignal(getattr(signal, name)) == before
    train(config, *words, "--resume", train_dataloader__num_workers=workers)
    assert not saved.exists()  # the next checkpoint takes its place
    assert len(read_run("cut off")["logs"]) == 2
    train(config, "--work-dir", "whole", "--cfg-options", "custom_hooks.1.iteration=99")
    first, second = (load_from_file(f"{folder}/final.pth") for folder in ("cut off", "whole"))
    for key, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][key]), key


def test_whoever_listened_before_is_told(workplace, capsys):
    """submitit puts the job into the queue again; its signal is SIGUSR2."""
    told = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: told.append(number))
    try:
        config = by_iterations("SIGUSR2")
        status, line = stopped(capsys, config, "--work-dir", "run")
        assert told == [signal.SIGUSR2]
        assert signal.getsignal(signal.SIGUSR2)(0, None) is None
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert status == 75
    assert line.startswith("stopped by SIGUSR2 after iteration 3 of 6, saved as ")
    assert told == [signal.SIGUSR2, 0]


def test_after_the_last_iteration(workplace, capsys):
    config = by_iterations("SIGTERM")
    settings = dict(train_cfg__max_iters=3, train_cfg__val_interval=3)
    status, line = stopped(capsys, config, "--work-dir", "run", **settings)
    assert (status, line.partition(";")[0].split(", ")[0]) == (
        143,
        "stopped by SIGTERM after iteration 3 of 3",
    )
    train(config, "--work-dir", "run", "--resume", **settings)
    assert Path("run/final.pth").is_file()


def in_a_child(do):
    """Do something in a child and return how it ended."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(do), 0)[1])


def send(*names):
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("pause", "sent", "ends"),
    [
        (2.0, ["SIGTERM", "SIGTERM", "SIGUSR1"], 7),  # one event that came by several ways
        (0.0, ["SIGTERM"], 7),
        (0.0, ["SIGTERM", "SIGTERM"], -signal.SIGTERM),
        (0.0, ["SIGUSR1", "SIGTERM"], -signal.SIGTERM),
        (0.0, ["SIGUSR1", "SIGUSR1"], -signal.SIGUSR1),
        (2.0, ["SIGUSR2"], -signal.SIGUSR2),  # not ours
    ],
)
def test_a_second_signal_ends_it_at_once(monkeypatch, pause, sent, ends):
    monkeypatch.setattr(preemption, "_ONE_EVENT", pause)

    def listen():
        signals = PreemptionHook()
        signals.listen()
        send(*sent)

    assert in_a_child(listen) == ends


def test_restored_as_they_were():
    signals = PreemptionHook()
    before = [signal.getsignal(number) for number in preemption.EXIT_CODES]
    signals.listen()
    assert signal.getsignal(signal.SIGTERM) not in before
    signals.listen()
    signals.release()
    assert [signal.getsignal(number) for number in preemption.EXIT_CODES] == before


at_birth = []  # what a process does first when it is forked
os.register_at_fork(after_in_child=lambda: [do() for do in at_birth])


def test_workers_leave_signals_to_their_process(monkeypatch):
    monkeypatch.setitem(globals(), "at_birth", [lambda: send("SIGTERM", "SIGUSR1")])
    loader = DataLoader(range(4), num_workers=1, persistent_workers=True)
    protect_workers(loader)
    protect_workers(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch's stay behind
        batches = iter(loader)
    assert int(next(batches)) == 0  # it has begun
    (worker,) = batches._workers
    for name in ("SIGTERM", "SIGUSR1", "SIGTERM"):
        os.kill(worker.pid, getattr(signal, name))
    assert [int(batch) for batch in batches] == [1, 2, 3]
    begin = time.monotonic()
    loader._iterator._shutdown_workers()
    assert time.monotonic() - begin < 4  # a worker that does not end is waited for five seconds
    assert worker.exitcode == 0
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_process_ends_with_workers_that_nothing_has_ended():
    def train():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch's stay behind
        loader = DataLoader(range(4), num_workers=2, persistent_workers=True)
        protect_workers(loader)
        next(iter(loader))
        multiprocessing.util._exit_function()  # as when a program ends

    assert in_a_child(train) == 7


def test_the_command_that_goes_on(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_JOB_PARTITION", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)

    def command(text, tool="train.py", flag=True):
        return resume_command(tool, shlex.split(text), flag)

    assert command("c.py") == "python tools/train.py c.py --resume"
    assert command("c.py --resume") == "python tools/train.py c.py --resume"
    assert command("c.py --resume old.pth --amp") == "python tools/train.py c.py --amp --resume"
    assert command("c.py --resume=auto --seed 3") == "python tools/train.py c.py --seed 3 --resume"
    assert command("c.py --work-dir 'a b' --cfg-options x=1") == (
        "python tools/train.py c.py --work-dir 'a b' --cfg-options x=1 --resume"
    )
    assert command("runs.txt", "train_group.py", False) == ("python tools/train_group.py runs.txt")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert command("c.py --launcher pytorch --fast") == "tools/dist_train.sh c.py 8 --fast --resume"
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    monkeypatch.setenv("SLURM_JOB_NAME", "kd")
    assert command("c.py --work-dir w --launcher slurm --fast") == (
        "tools/slurm_train.sh gpu kd c.py w --fast --resume"
    )
