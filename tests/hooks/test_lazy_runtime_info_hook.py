"""The same log as MMEngine's, without a wait for each of its values."""

import copy
import json
import pickle
import re

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runs import digits_distiller, digits_student, run_config, sequential_run
from torch.utils._python_dispatch import TorchDispatchMode

from mmkd_logit.hooks import LazyRuntimeInfoHook
from mmkd_logit.hooks.async_log import LazyBuffer

LAZY = dict(type="mmkd_logit.LazyRuntimeInfoHook")
TIMES = {"time", "data_time", "memory"}


def hooks(runtime_info, interval=1, **more):
    return dict(
        logger=dict(type="LoggerHook", interval=interval),
        checkpoint=dict(type="CheckpointHook", interval=1, save_best="auto"),
        runtime_info=runtime_info,
        **more,
    )


def scalars(work_dir):
    (file,) = work_dir.glob("*/vis_data/scalars.json")
    return [
        [(key, value) for key, value in json.loads(line).items() if key not in TIMES]
        for line in file.read_text().splitlines()
    ]


def log_lines(work_dir):
    (file,) = work_dir.glob("*/*.log")
    found = re.findall(r"INFO - ((?:Epoch|Iter)\(.*)", file.read_text())
    return [re.sub(r"(eta|time|data_time): \S+", "", line) for line in found]


def histories(checkpoint):
    hub = torch.load(checkpoint, weights_only=False)["message_hub"]
    assert all(type(buffer) is HistoryBuffer for buffer in hub["log_scalars"].values())
    return {
        key: [(array.dtype, array.tolist()) for array in buffer.data]
        for key, buffer in hub["log_scalars"].items()
        if "time" not in key
    }, hub["resumed_keys"]


@pytest.mark.parametrize("interval", [1, 3, 50])
def test_log_files_and_checkpoints_are_mmengines(tmp_path, interval):
    written = []
    for name, hook in (("theirs", dict(type="RuntimeInfoHook")), ("ours", LAZY)):
        folder = tmp_path / name
        cfg = run_config(digits_distiller(alpha=0.5), folder, default_hooks=hooks(hook, interval))
        cfg.log_level = "INFO"
        runner = Runner.from_cfg(cfg)
        runner.train()
        hub = runner.message_hub
        data = {key: buffer.data[0].tolist() for key, buffer in hub.log_scalars.items()}
        data = {key: values for key, values in data.items() if "time" not in key}
        best = sorted(path.name for path in folder.glob("best*"))
        saved = histories(folder / "epoch_1.pth"), histories(folder / "epoch_2.pth")
        written.append((scalars(folder), log_lines(folder), saved, list(data.items()), best))
    assert written[0] == written[1]
    assert len(written[0][0]) >= 4
    assert len(written[0][1]) >= 4
    assert len(dict(written[0][3])["train/loss"]) == 8


def test_sequential_runs_forget_the_same(tmp_path):
    """The switch deletes values, some of which have not arrived."""
    written = []
    for name, hook in (("theirs", dict(type="RuntimeInfoHook")), ("ours", LAZY)):
        cfg = sequential_run(tmp_path / name, default_hooks=hooks(hook, interval=3))
        Runner.from_cfg(cfg).train()
        written.append((scalars(tmp_path / name), histories(tmp_path / name / "epoch_3.pth")))
    assert written[0] == written[1]


def test_a_run_that_is_resumed_has_one_history(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder, stop, resume in (
        (whole, False, False),
        (halves, True, False),
        (halves, False, True),
    ):
        stops = [dict(type="StopAfter", epoch=1)] * stop
        cfg = run_config(
            digits_student(), folder, default_hooks=hooks(LAZY, 50), custom_hooks=stops
        )
        cfg.resume = resume
        Runner.from_cfg(cfg).train()
    assert histories(whole / "epoch_2.pth") == histories(halves / "epoch_2.pth")


class Waits(TorchDispatchMode):
    """Counts what would wait for a device."""

    names = ("tolist", "cpu", "numpy", "item", "__bool__", "__float__", "__int__", "__array__")

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        for name in self.names:
            monkeypatch.setattr(torch.Tensor, name, self._counting(getattr(torch.Tensor, name)))

    def _counting(self, method):
        def counted(*args, **kwargs):
            self.count += 1
            return method(*args, **kwargs)

        return counted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select"):
            self.count += 1
        return func(*args, **(kwargs or {}))


@HOOKS.register_module(force=True)
class CountWaits(Hook):
    """Counts from the moment that a batch is there to the end of the iteration's hooks."""

    priority = "LOWEST"
    waits = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.before = self.waits.count

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.each.append(self.waits.count - self.before)

    def before_train(self, runner):
        type(self).each = []


LOSSES = [
    dict(type="mmkd_logit.LogitMSELoss"),
    dict(type="mmkd_logit.ScaledKLDivLoss", tau=4),
    dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"),
    dict(type="mmkd_logit.DKDLoss"),
    dict(type="mmkd_logit.DISTLoss"),
    dict(type="mmkd_logit.LogitStandardization", loss=dict(type="mmkd_logit.LogitMSELoss")),
]


@pytest.mark.parametrize("loss_kd", LOSSES, ids=lambda loss: loss["type"])
@pytest.mark.parametrize("theirs", [False, True])
def test_iterations_between_two_log_lines_do_not_wait(tmp_path, monkeypatch, loss_kd, theirs):
    hook = dict(type="RuntimeInfoHook") if theirs else LAZY
    model = digits_distiller(alpha=0.5, loss_kd=loss_kd)
    more = [dict(type="CountWaits"), dict(type="mmkd_logit.ProgressBarHook", always=True)]
    more += [dict(type="mmkd_logit.LabelNoiseHook"), dict(type="mmkd_logit.TrainAccuracyHook")]
    more += [dict(type="mmkd_logit.ClassifierSumHook")]
    cfg = run_config(model, tmp_path, epochs=1, default_hooks=hooks(hook, 3), custom_hooks=more)
    cfg.optim_wrapper = dict(type="mmkd_logit.AutocastOptimWrapper", **cfg.optim_wrapper)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = dict(type="CheckpointHook")
    runner = Runner.from_cfg(cfg)
    with Waits(monkeypatch) as CountWaits.waits:
        runner.train()
    first, second, third, last = CountWaits.each
    if theirs:
        assert min(first, second, third, last) >= 5
    else:
        assert first == second == 0
        assert 0 < third < 3 * 5  # one a value, not one a value and iteration
        assert last == 0


def test_times_are_not_appended_one_by_one(tmp_path, monkeypatch):
    """MMEngine's IterTimerHook appends two in an iteration, each to a copy of its history."""
    copied, append = [], np.append
    monkeypatch.setattr(np, "append", lambda *args: copied.append(args) or append(*args))
    folder = tmp_path / "run"
    cfg = run_config(digits_student(), folder, epochs=6, default_hooks=hooks(LAZY, 100))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = None
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert len(copied) < 2 * 24  # MMEngine: four an iteration, and as many for logged values
    for key in ("train/time", "train/data_time"):
        buffer = runner.message_hub.log_scalars[key]
        assert type(buffer) is LazyBuffer
        values, counts = buffer.data
        assert len(values) == 24
        assert values.min() > 0
        assert counts.tolist() == [1] * 24


def test_values_arrive_in_their_order_and_keep_their_kind():
    buffer, other = LazyBuffer(HistoryBuffer()), LazyBuffer(HistoryBuffer())
    mmengine, values = HistoryBuffer(), [1, torch.tensor(2.5), 3.25, torch.tensor(4)]
    values += [torch.tensor([[0.1]]), torch.tensor(0.1, dtype=torch.float64), float("nan")]
    for value in values:
        other.update(7)
        buffer.append(value)
        if not torch.is_tensor(value):
            np.testing.assert_equal(buffer.current(), value)
    expected = [v.item() if torch.is_tensor(v) else v for v in values]
    for value in expected:
        mmengine.update(value)
    assert buffer.statistics("mean", 3) is not None
    buffer.update(5.0)
    mmengine.update(5.0)
    for ours, theirs in zip(buffer.data, mmengine.data, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert other.data[0].dtype == np.int64
    assert other.data[0].tolist() == [7] * 7
    other.append(8)
    for copied in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert type(copied) is HistoryBuffer
        assert copied.current() == 8
        assert len(copied.data[1]) == 8


def test_a_value_that_is_overwritten_later_is_kept_as_it_was():
    buffer, value = LazyBuffer(HistoryBuffer()), torch.tensor(1.0)
    buffer.append(value)
    value.fill_(2.0)
    assert buffer.current() == 1


def test_the_longest_history_is_cut_and_memory_is_bounded(monkeypatch):
    buffer = LazyBuffer(HistoryBuffer([1.0, 2.0], [1, 1], max_length=3), limit=2)
    with Waits(monkeypatch) as waits:
        counts = []
        for value in (3.0, 4.0, 5.0):
            buffer.append(torch.tensor(value))
            counts.append(waits.count > 0)
    assert counts == [False, True, True]
    assert buffer.data[0].tolist() == [3.0, 4.0, 5.0]
    assert len(buffer.data[1]) == 3


def test_what_is_no_scalar_is_refused_as_by_mmengine():
    hook, hub = LazyRuntimeInfoHook(), MessageHub("refused")
    with pytest.raises(AssertionError):
        hook._note(hub, "train/logits", torch.ones(2))
    hook._note(hub, "train/array", np.array([2.0]))
    assert hub.get_scalar("train/array").current() == 2
