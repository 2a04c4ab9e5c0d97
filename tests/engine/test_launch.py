import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from commands import PROJECT, STUDENT
from mmengine.config import Config
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmkd_logit.engine import launch
from mmkd_logit.engine.fingerprint import describe_run

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def started_groups(monkeypatch):
    """Without a GPU and without truly starting a process group."""
    groups = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(launch.dist, "is_initialized", lambda: bool(groups))
    monkeypatch.setattr(launch.dist, "init_process_group", groups.append)
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    return groups


def config(**kwargs):
    return Config(dict(model=dict(), train_dataloader=dict(pin_memory=True), **kwargs))


def test_one_process(started_groups):
    cfg = config(val_dataloader=None)
    launch.prepare_launch(cfg, "none")
    assert cfg.launcher == "none"
    assert "model_wrapper_cfg" not in cfg
    assert not started_groups


@pytest.mark.parametrize(("given", "seconds"), [({}, 1800), (dict(timeout=60), 60)])
def test_processes_on_gpus_wait_for_the_one_that_writes(monkeypatch, given, seconds):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    cfg = config(env_cfg=dict(dist_cfg=dict(backend="nccl", **given)))
    launch.prepare_launch(cfg, "slurm")
    assert cfg.env_cfg.dist_cfg == dict(backend="nccl", timeout=seconds)


def test_gloo_without_a_gpu(started_groups, monkeypatch):
    for name in TORCHRUN:
        monkeypatch.setenv(name, "0")
    cfg = config(find_unused_parameters=True)
    launch.prepare_launch(cfg, "pytorch")
    assert started_groups == ["gloo"]
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.model_wrapper_cfg == dict(
        type="MMDistributedDataParallel",
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    cfg = config(model_wrapper_cfg=dict(type="Mine"))
    launch.prepare_launch(cfg, "pytorch")  # the teacher's run comes first in the same group
    assert started_groups == ["gloo"]
    assert cfg.model_wrapper_cfg == dict(type="Mine", device_ids=None)


@pytest.mark.parametrize(
    ("launcher", "variable"), [("slurm", "SLURM_NTASKS"), ("mpi", "OMPI_COMM_WORLD_SIZE")]
)
def test_processes_are_counted_before_they_have_met(project, monkeypatch, launcher, variable):
    cfg = Config.fromfile(STUDENT)
    cfg.launcher = launcher
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv(variable, "4")
    assert describe_run(cfg)["processes"] == 4
    cfg.launcher = "none"  # an interactive job of one process
    assert describe_run(cfg)["processes"] == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # as schedulers do
    assert describe_run(cfg)["processes"] == 1
    cfg.launcher = launcher
    assert describe_run(cfg)["processes"] == 2


def test_processes_meet_before_they_decide(monkeypatch):
    """With slurm on GPUs; what MMEngine's Runner would do later."""
    met = []
    monkeypatch.setattr(launch, "init_dist", lambda *a, **k: met.append((a, k)))
    monkeypatch.setattr(launch, "set_multi_processing", lambda **k: met.append(k))
    env_cfg = dict(mp_cfg=dict(mp_start_method="fork"), dist_cfg=dict(backend="nccl", timeout=9))
    launch.start_processes(Config(dict(launcher="slurm", env_cfg=env_cfg)))
    assert met == [
        dict(mp_start_method="fork", distributed=True),
        (("slurm",), dict(backend="nccl", timeout=9)),
    ]
    launch.start_processes(Config(dict(launcher="none", env_cfg=env_cfg)))
    assert len(met) == 2


@pytest.mark.parametrize("main_process", [True, False])
def test_the_first_process_looks_for_all(monkeypatch, main_process):
    def look():
        raise FileNotFoundError(2, "gone", "a file")

    sent = []
    monkeypatch.setattr(launch, "is_main_process", lambda: main_process)
    monkeypatch.setattr(launch, "broadcast_object_list", lambda found: sent.append(list(found)))
    assert launch.from_first_process(lambda: 3) == (3 if main_process else None)
    if main_process:
        with pytest.raises(OSError, match="gone"):
            launch.from_first_process(look)
        assert isinstance(sent[1][1], OSError)  # the others hear of it
    else:
        assert launch.from_first_process(look) is None


@pytest.mark.parametrize("absent", TORCHRUN)
@pytest.mark.parametrize("gpu", [False, True])
def test_torchrun_is_named(started_groups, monkeypatch, absent, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for name in TORCHRUN:
        monkeypatch.setenv(name, "0")
    monkeypatch.delenv(absent)
    with pytest.raises(ValueError, match=rf"needs {absent} in .*tools/dist_train.sh CONFIG GPUS"):
        launch.prepare_launch(config(), "pytorch")


def test_slurm_needs_gpus(started_groups):
    for launcher in ("slurm", "mpi"):
        with pytest.raises(ValueError, match=f"'{launcher}' needs GPUs; without one use"):
            launch.prepare_launch(config(), launcher)


@pytest.mark.parametrize(
    "script", sorted(path.name for path in Path(PROJECT, "tools").glob("*.sh"))
)
def test_shell_scripts(script):
    path = str(PROJECT / "tools" / script)
    subprocess.run(["bash", "-n", path], check=True)
    assert Path(path).stat().st_mode & 0o111
    done = subprocess.run([path], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def scripts(folder, **texts):
    """Programs that a shell script meets in the place of the true ones."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("status", "variables", "ends", "requeued"),
    [
        (0, {}, 0, False),
        (75, {}, 75, False),  # the command that goes on is on the screen
        (75, dict(SLURM_JOB_ID="7"), 0, True),
        (1, dict(SLURM_JOB_ID="7"), 1, False),
        (143, dict(SLURM_JOB_ID="7", SLURM_RESTART_COUNT="2"), 143, False),
    ],
)
def test_slurm_script(tmp_path, status, variables, ends, requeued):
    environment = scripts(
        tmp_path / "bin", srun=f'echo srun "$@"; exit {status}', scontrol='echo scontrol "$@"'
    )
    words = [str(PROJECT / "tools/slurm_train.sh"), "gpu", "kd", "c.py", "w", "--fast"]
    environment = {**environment, **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == ends
    first, *rest = done.stdout.splitlines()
    assert first.startswith("srun -p gpu --job-name=kd ")
    assert "--signal=USR1@120" in first
    resume = " --resume" if "SLURM_RESTART_COUNT" in variables else ""
    assert first.endswith(f"train.py c.py --work-dir w --launcher slurm --fast{resume}")
    assert rest == ["scontrol requeue 7"] * requeued


@pytest.mark.parametrize(
    ("command", "variables", "torchrun", "tool"),
    [
        (
            "dist_train.sh c.py 2",
            dict(PORT="7"),
            "--nnodes=1 --node_rank=0 --master_addr=127.0.0.1 --master_port=7 "
            "--nproc_per_node=2 --max_restarts=0",
            "train.py c.py",
        ),
        (
            "dist_train.sh c.py 4",
            dict(MAX_RESTARTS="3"),
            "--nnodes=1 --rdzv_backend=c10d --rdzv_id=mmkd_logit --rdzv_endpoint=127.0.0.1:29500 "
            "--local_addr=127.0.0.1 --nproc_per_node=4 --max_restarts=3",
            "train.py c.py",
        ),
        (
            "dist_test.sh c.py w.pth 2",
            dict(NNODES="2", NODE_RANK="1", MASTER_ADDR="host"),
            "--nnodes=2 --node_rank=1 --master_addr=host --master_port=29500 --nproc_per_node=2",
            "test.py c.py w.pth",
        ),
    ],
)
def test_torchrun_scripts(tmp_path, command, variables, torchrun, tool):
    """What they start; tests/distributed starts it."""
    environment = {**scripts(tmp_path / "bin", python='echo "$@"'), **variables}
    script, *words = command.split()
    words = [str(PROJECT / "tools" / script), *words, "--out", "o"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    tool = f"{PROJECT}/tools/{tool} --launcher pytorch --out o"
    assert done.stdout == f"-m mmkd_logit.engine.launch {torchrun} {tool}\n"


def failure(status):
    return ChildFailedError("train", {0: ProcessFailure(0, 1, status, "")})


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (failure(1), 1, "process 0 failed with exit status 1\n"),
        (failure(143), 143, ""),
        (failure(75), 75, ""),
        (SignalException("", signal.SIGTERM), 143, ""),
        (SignalException("", signal.SIGINT), 130, ""),
        (SignalException("", signal.SIGUSR1), 75, ""),
    ],
)
def test_torchrun_ends_as_its_processes(monkeypatch, capsys, error, status, said):
    def run(argv):
        raise error

    monkeypatch.setattr(launch, "torchrun", run)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as stopped:
        launch.main(["x"])
    assert stopped.value.code == status
    assert capsys.readouterr().err == said
    assert signal.getsignal(signal.SIGUSR1) == before


def test_torchrun_passes_sigusr1_on(monkeypatch):
    def run(argv):
        signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(launch, "torchrun", run)
    with pytest.raises(SystemExit) as stopped:
        launch.main(["x"])
    assert stopped.value.code == 75
