"""What is saved is read again: by every scheduler, optimizer and hook, or refused beforehand."""

import enum
import inspect
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from cut_off import Killed, kd, plain, train, train_in_parts
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS
from runs import digits_student, run_config
from same_runs import assert_same_runs, value_differences

from mmkd_logit.checkpoint import load_from_file, make_plain

Pair = namedtuple("Pair", "a b")


class Kind(str, enum.Enum):
    """Text that is more than text."""

    SOFT = "soft"


def read(content, folder):
    torch.save(content, folder / "saved.pth")
    return load_from_file(str(folder / "saved.pth"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ConfigDict(a=dict(b=[ConfigDict(c=1)])), dict(a=dict(b=[dict(c=1)]))),
        (defaultdict(list, a=[1]), dict(a=[1])),
        ({np.str_("name"): np.str_("value")}, {"name": "value"}),
        (Path("folder") / "file", str(Path("folder") / "file")),
        (deque([1, np.str_("a")], maxlen=3), [1, "a"]),
        (Pair(1, Path("b")), (1, "b")),
        (frozenset({1}), {1}),
        (range(3), [0, 1, 2]),
        (Kind.SOFT, "soft"),
        (np.bytes_(b"a"), b"a"),
        (np.array(["cat", "dog"]), ["cat", "dog"]),
        (np.array([None, np.str_("a")], dtype=object), [None, "a"]),
        (np.arange(3.0, dtype=">f4"), np.arange(3.0, dtype="=f4")),
        (np.float32(0.1), np.float32(0.1)),
        (np.zeros(0), np.zeros(0)),
        (b"", b""),
        (Counter(a=2), Counter(a=2)),
    ],
)
def test_values_become_plain_ones(tmp_path, value, expected):
    content = dict(entry=[value])
    make_plain(content)
    assert value_differences(read(content, tmp_path)["entry"][0], expected) == []


def test_tensors_and_the_versions_of_modules_stay():
    state = torch.nn.BatchNorm1d(2).state_dict()
    hub = OrderedDict(a=[np.float32(1), (1, torch.zeros(2))])
    content = dict(state_dict=state, hub=hub, more=Path("a"))
    make_plain(content)
    assert all(content["state_dict"][key] is state[key] for key in state)
    assert content["state_dict"]._metadata == state._metadata
    assert content["hub"]["a"][1][1] is hub["a"][1][1]
    assert type(content["hub"]) is OrderedDict
    assert content["more"] == "a"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (dict(meta=dict(made=[object()])), r"meta\.made\[0\] would be a object"),
        (dict(meta={"a b": print}), r"meta\['a b'\] would be a builtin_function_or_method"),
        (dict(param_schedulers=[dict(past=deque([1]))]), r"param_schedulers\[0\]\.past .*deque"),
        (dict(optimizer=dict(state={3: Pair(1, 2)})), r"optimizer\.state\[3\] .*Pair"),
        (dict(a=np.longdouble(1)), r"a would be a numpy\.longdouble"),
        (dict(a=np.zeros(1, "M8[D]")), r"a would be a numpy\.ndarray"),
    ],
)
def test_what_cannot_become_plain_is_refused_with_its_place(content, place):
    with pytest.raises(ValueError, match=f"^{place}.* in checkpoints, .*; where it is set, make"):
        make_plain(content)


@PARAM_SCHEDULERS.register_module(force=True)
class RandomLR(PARAM_SCHEDULERS.get("ConstantLR")):
    """Has a state of its own that no checkpoint can hold."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator = torch.Generator()


def test_a_scheduler_is_refused_before_training(tmp_path):
    cfg = plain(tmp_path, param_scheduler=[dict(type="RandomLR", factor=0.5)])
    with pytest.raises(ValueError, match=r"^param_schedulers\[0\]\.generator would be a torch"):
        train(cfg)
    assert not list(tmp_path.glob("*.pth"))
    assert not (tmp_path / "run.json").exists()


class Add(Hook):
    """Adds to what is saved, as anybody's hook may, after all others."""

    priority = "LOWEST"

    def __init__(self, value):
        self.value = value

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint["added"] = self.value


def test_what_hooks_add_and_metainfo(tmp_path, capsys):
    def cfg():
        made = run_config(digits_student(), tmp_path, epochs=2, images=16, log_level="WARNING")
        made.default_hooks.checkpoint.interval = 1
        made.train_dataloader.dataset.metainfo = dict(names=dict(short="d"), folder=np.str_("a"))
        return made

    added = Add(dict(path=Path("a"), last=deque([np.str_("b")]), names={np.str_("c"): {Path("d")}}))
    with pytest.raises(Killed):
        train(cfg(), None, added, Stop())
    content = load_from_file(str(tmp_path / "epoch_1.pth"))
    assert content["added"] == dict(path="a", last=["b"], names=dict(c={"d"}))
    assert type(content["meta"]["dataset_meta"]["names"]) is dict
    capsys.readouterr()
    train(cfg(), "auto")
    assert "metainfo" not in "".join(capsys.readouterr())
    with pytest.raises(ValueError, match=r"^added\.made would be a object in checkpoints"):
        train(cfg(), None, Add(dict(made=object())))


MANY = [
    dict(type="EMAHook"),
    dict(type="mmpretrain.EMAHook"),
    dict(type="EarlyStoppingHook", monitor="accuracy/top1"),
    dict(type="SyncBuffersHook"),
    dict(type="EmptyCacheHook"),
    dict(type="ProfilerHook"),
    dict(type="mmpretrain.ClassNumCheckHook"),
    dict(type="mmpretrain.PreciseBNHook", num_samples=16),
    dict(type="mmpretrain.SwitchRecipeHook", schedule=[]),
    dict(type="mmpretrain.VisualizationHook"),
    dict(type="mmpretrain.SimSiamHook", fix_pred_lr=True, lr=0.05),
    dict(
        type="mmpretrain.WarmupParamHook",
        param_name="loss_weight",
        module_name="head.loss_module",
        warmup_epochs=1,
    ),
    dict(type="mmkd_logit.FiniteLossHook"),
    dict(type="mmkd_logit.ChannelsLastHook"),
    dict(type="mmkd_logit.FinalCheckpointHook"),
    dict(type="mmkd_logit.OwnBestCheckpointHook"),
    dict(type="mmkd_logit.LogitOutputsHook"),
    dict(type="mmkd_logit.ClassifierSumHook"),
    dict(type="mmkd_logit.TrainAccuracyHook"),
]
DEFAULTS = {
    *("IterTimerHook", "LoggerHook", "RuntimeInfoHook", "LazyRuntimeInfoHook", "CheckpointHook"),
    *("AtomicCheckpointHook", "DistSamplerSeedHook", "ParamSchedulerHook", "ProgressBarHook"),
    *("LabelNoiseHook", "ResumeStateHook", "PreflightHook", "SyncBuffersBeforeEvalHook"),
    *("SameBuffersHook", "RunCheckHook", "PreemptionHook"),
}
# They need a model, a device or a run of another kind, and write nothing into a checkpoint.
OTHERS = {
    *("DenseCLHook", "SwAVHook", "SetAdaptiveMarginsHook", "PrepareProtoBeforeValLoopHook"),
    *("PrepareTTAHook", "NPUProfilerHook", "RFSearchHook", "NaiveVisualizationHook"),
    "SequentialTeacherHook",
}


def test_every_hook_is_tried_or_writes_nothing_into_checkpoints():
    scopes = [HOOKS, *HOOKS.children.values()]
    kinds = {name: kind for scope in scopes for name, kind in scope.module_dict.items()}
    packages = ("mmengine.", "mmcv.", "mmpretrain.", "mmkd_logit.")
    known = {name for name, kind in kinds.items() if kind.__module__.startswith(packages)}
    tried = {hook["type"].rpartition(".")[2] for hook in MANY}
    assert not known - tried - DEFAULTS - OTHERS
    for name in OTHERS & known:
        assert kinds[name].before_save_checkpoint is Hook.before_save_checkpoint, name


def test_what_many_hooks_leave_is_read_and_resumed(tmp_path):
    def cfg(epochs):
        made = run_config(digits_student(), tmp_path, epochs=epochs, images=16)
        made.default_hooks.checkpoint.update(interval=1, save_best="auto")
        made.default_hooks.runtime_info = dict(type="mmkd_logit.LazyRuntimeInfoHook")
        made.custom_hooks = MANY
        return made

    train(cfg(1))
    for path in tmp_path.glob("*.pth"):
        assert load_from_file(str(path))["state_dict"]
    assert train(cfg(2), "auto", resume_changed=True).iter == 2


class Stop(Hook):
    """Ends a run after its first checkpoint."""

    priority = "LOWEST"

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            raise Killed


def test_one_cycle_resumes_exactly(tmp_path):
    def cfg(name):
        cycle = dict(type="OneCycleLR", eta_max=0.1, total_steps=12, by_epoch=False)
        return kd(tmp_path / name, param_scheduler=cycle)

    train(cfg("whole"))
    train_in_parts(lambda: cfg("parts"), 5, 7)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


SETTINGS = dict(
    Step=dict(step_size=1),
    MultiStep=dict(milestones=[1]),
    Exponential=dict(gamma=0.9),
    CosineAnnealing=dict(T_max=4),
    CosineRestart=dict(periods=[2, 2], restart_weights=[1, 0.5], eta_min=0.0),
    OneCycle=dict(eta_max=0.1, total_steps=9),
    ReduceOnPlateau=dict(monitor="loss"),
)


def advance(scheduler, step):
    scheduler.optimizer.step()
    scheduler.step(*step)


def registered(registry):
    children = [name for child in registry.children.values() for name in child.module_dict]
    return sorted({*registry.module_dict, *children} - {"RandomLR"})


def stepped(optimizer):
    layer = torch.nn.Linear(3, 2)
    kind = OPTIMIZERS.get(optimizer) or OPTIMIZERS.get(f"mmpretrain.{optimizer}")
    parameters = [layer.weight] if optimizer == "Muon" else layer.parameters()
    built = kind(parameters, lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    if optimizer == "SparseAdam":
        for parameter in layer.parameters():
            parameter.grad = parameter.grad.to_sparse()
    built.step(*([lambda: 1.0] if optimizer == "LBFGS" else []))
    return built


@pytest.mark.parametrize("name", registered(PARAM_SCHEDULERS))
def test_every_scheduler_is_read_again(tmp_path, name):
    kind = PARAM_SCHEDULERS.get(name) or PARAM_SCHEDULERS.get(f"mmpretrain.{name}")
    short = name
    for ending in ("ParamScheduler", "WeightDecay", "Momentum", "LR"):
        short = short.removesuffix(ending)
    settings = dict(SETTINGS.get(short, {}))
    if "param_name" in inspect.signature(kind).parameters:
        settings["param_name"] = "lr"

    def build():
        return kind(stepped("SGD" if "Momentum" not in name else "RMSprop"), **settings)

    first, second = build(), build()
    steps = [(dict(loss=1.0),)] * 3 if short == "ReduceOnPlateau" else [()] * 3
    for step in steps:
        advance(first, step)
    content = dict(param_schedulers=[first.state_dict()])
    make_plain(content)
    second.load_state_dict(read(content, tmp_path)["param_schedulers"][0])
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for step in steps:
        advance(first, step)
        advance(second, step)
        assert first.get_last_value() == second.get_last_value()


@pytest.mark.parametrize(
    "name", sorted({*registered(OPTIMIZERS)} - {"Optimizer", "ZeroRedundancyOptimizer"})
)
def test_every_optimizer_is_read_again(tmp_path, name):
    if name == "Adafactor" and OPTIMIZERS.get(name).__module__.startswith("transformers"):
        pytest.skip("takes no learning rate by itself")
    content = dict(optimizer=stepped(name).state_dict())
    make_plain(content)
    found = read(content, tmp_path)["optimizer"]
    assert value_differences(found, content["optimizer"]) == []
    stepped(name).load_state_dict(found)
