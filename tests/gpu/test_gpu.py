"""Runs on a GPU: no wait for the device, exact resume, equal caches, flat memory.

They skip without one. MMKD_LOGIT_GPU_TESTS=cpu runs them on a CPU, to test the tests.
"""

import contextlib
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from commands import PROJECT, Tiny, train
from cut_off import KINDS, cached, from_memory, kd, kind_of_run, plain, train_in_parts
from cut_off import train as train_run
from mmengine.hooks import Hook
from runs import assert_same, digits_distiller, digits_student, weights
from same_runs import assert_same_runs

from mmkd_logit.losses import DISTLoss, DKDLoss, LogitMSELoss, ScaledKLDivLoss

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("MMKD_LOGIT_GPU_TESTS") != "cpu", reason="no GPU"
)


@contextlib.contextmanager
def waits_refused():
    """Let torch raise where the CPU would wait for the GPU."""
    if ON_GPU:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")


class NoWaits(Hook):
    """Refuses waits within the iterations of a run, first ones aside: hooks, losses, update."""

    priority = "HIGHEST"

    def __init__(self, first=3):
        self.first, self.stack, self.checked = first, contextlib.ExitStack(), 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter >= self.first:
            self.stack.enter_context(waits_refused())
            self.checked += 1
            runner.optim_wrapper.optimizer.register_step_post_hook(lambda *_: self.stack.close())


def deterministic(cfg):
    cfg.randomness = dict(seed=3, deterministic=True)
    return cfg


def uncached(folder):
    model = digits_distiller(digits_student(drop_rate=0.3))
    return from_memory(kind_of_run(folder, model))


def student(folder):
    return from_memory(kind_of_run(folder, digits_student(drop_rate=0.3)))


@pytest.mark.parametrize("make", [student, uncached, cached], ids=lambda make: make.__name__)
def test_an_iteration_does_not_wait_for_the_gpu(tmp_path, monkeypatch, make):
    """From the batch to the update, with logits that are computed and, later, cached ones."""
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "cache"))
    for run in ("cold", "warm"):
        cfg = make(tmp_path / run)
        cfg.default_hooks.logger.interval = 100
        hook = NoWaits()
        if run == "warm" or make is not cached:  # a cold cache looks at what is missing
            train_run(cfg, None, hook)
            assert hook.checked
        else:
            train_run(cfg)


LOSSES = [
    LogitMSELoss(),
    *(ScaledKLDivLoss(tau=tau) for tau in (1.0, 4.0, 100.0, math.inf)),
    DKDLoss(),
    DISTLoss(),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_losses_equal_those_of_a_cpu_in_float64(loss, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(64, 100, generator=generator).to(dtype) for _ in range(2)]
    labels = torch.randint(100, (64,), generator=generator)
    found = []
    for device, precision in ((DEVICE, dtype), ("cpu", torch.float64)):
        inputs = [each.to(device, precision, copy=True) for each in logits]
        inputs[0].requires_grad_()
        needed = (labels.to(device),) if getattr(loss, "needs_labels", False) else ()
        value = loss(*inputs, *needed)
        value.backward()
        found.append((value.detach().double().cpu(), inputs[0].grad.double().cpu()))
    (value, gradient), (right, right_gradient) = found
    rounding = 1e-6 if dtype is torch.float32 else 1e-2
    assert value.item() == pytest.approx(right.item(), rel=1e-6)
    scale = right_gradient.abs().max()
    torch.testing.assert_close(gradient / scale, right_gradient / scale, rtol=0, atol=rounding)


def test_no_cache_a_cold_one_and_a_warm_one_give_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "cache"))
    runs = [train_run(deterministic(uncached(tmp_path / "uncached")))]
    runs += [train_run(deterministic(cached(tmp_path / name))) for name in ("cold", "warm")]
    assert_same(weights(runs[1]), weights(runs[2]))
    if not ON_GPU:  # there misses are computed in one pass, filled up to 32 images
        assert_same(weights(runs[0]), weights(runs[1]))


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_within_an_epoch(tmp_path, kind):
    """Deterministic algorithms are a condition on a GPU; README says so."""
    train_run(deterministic(KINDS[kind](tmp_path / "whole")))
    train_in_parts(lambda: deterministic(KINDS[kind](tmp_path / "parts")), 5, 7)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("workers", [0, 2])
def test_pinned_batches_and_workers_give_the_same_run(tmp_path, workers):
    runs = []
    for pinned in (False, ON_GPU):
        cfg = deterministic(from_memory(kd(tmp_path / str(pinned)), workers=workers))
        cfg.train_dataloader.pin_memory = pinned
        runs.append(weights(train_run(cfg)))
    assert_same(*runs)


class Memory(Hook):
    """Notes the allocated bytes after each epoch."""

    def __init__(self):
        self.bytes = []

    def after_train_epoch(self, runner):
        self.bytes.append(torch.cuda.memory_allocated() if ON_GPU else 0)


@pytest.mark.parametrize("make", [plain, uncached, cached], ids=lambda make: make.__name__)
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path, monkeypatch, make):
    monkeypatch.setenv("MMKD_LOGIT_TEACHER_CACHE", str(tmp_path / "cache"))
    cfg, hook = make(tmp_path / "run"), Memory()
    cfg.train_cfg.max_epochs = 5
    train_run(cfg, None, hook)
    assert len(hook.bytes) == 5
    assert hook.bytes[4] <= hook.bytes[1] + 4096


COMPILED = dict(mode="reduce-overhead") if ON_GPU else dict(backend="eager")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo
@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--fast"], {}),
        pytest.param(["--amp"], {}, marks=pytest.mark.skipif(not ON_GPU, reason="no GPU")),
        ([], dict(compile=COMPILED)),
        (["--fast"], dict(compile=COMPILED)),
    ],
)
def test_commands_in_other_precisions(workplace, flags, settings):
    tiny = Tiny()
    train(tiny.teacher)
    train(tiny.kd, *flags, **settings)
    (final,) = workplace.glob("work_dirs/kd*/seed0/final.pth")
    state = torch.load(final, weights_only=False)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.skipif(not ON_GPU, reason="no GPU; the same with gloo is in tests/distributed")
def test_a_rank_of_nccl_stops_and_resumes(workplace):
    """torchrun with one process saves at SIGTERM, goes on, and ends its process group."""
    tiny = Tiny()
    command = [str(PROJECT / "tools/dist_train.sh"), tiny.student, "1"]
    command += ["--cfg-options", "train_cfg.max_epochs=100"]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(PROJECT), *sys.path]))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as child:
        for line in child.stdout:
            if "Epoch(train)" in line:
                os.killpg(child.pid, signal.SIGTERM)
                break
        child.stdout.read()
    assert child.returncode
    (saved,) = workplace.glob("work_dirs/*/seed0/interrupted.pth")
    again = subprocess.run(
        [*command[:3], "--resume", *command[3:]], env=environment, check=False, **pipes
    )
    assert again.returncode == 0, again.stdout[-2000:]
    assert "terminate called" not in again.stdout
    assert saved.with_name("final.pth").is_file()
