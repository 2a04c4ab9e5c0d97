"""A run whose teacher, loss or weight changes on the way, in MMEngine's Runner."""

import gc
import re
import weakref
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from networks import build
from runs import assert_same, digits_distiller, digits_student, run_config, train, weights
from torch import nn

from mmkd_logit.hooks import SequentialTeacherHook
from mmkd_logit.models import teacher as frozen_teacher

MSE = dict(type="mmkd_logit.LogitMSELoss")
BINARY = dict(type="mmkd_logit.ScaledBinaryKLDivLoss", tau=1)
ITERATIONS = 4  # of an epoch
SAVED = dict(  # at every epoch
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=1, max_keep_ckpts=-1))
)


@HOOKS.register_module()
class StopsAt(Hook):
    """Ends a run early, as a kill after a checkpoint would."""

    priority = "VERY_LOW"

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise KeyboardInterrupt


@HOOKS.register_module()
class Notes(Hook):
    """What the distiller is in each iteration, and whether its first teacher still exists."""

    priority = "VERY_LOW"

    def __init__(self):
        self.log = []
        self.first = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model
        if self.first is None:
            network = model.teachers[0].model
            network.__dict__["itself"] = network  # as some networks have; only gc frees a circle
            self.first = weakref.ref(network)
        names = [teacher.name for teacher in model.teachers]
        self.log.append((runner.iter, names, type(model.loss_kd).__name__, model.alpha))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.log[-1] += (self.first() is not None,)


def notes_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, Notes)).log


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Two teachers of other weights, with logits that differ; their names end in their letter."""
    folder = tmp_path_factory.mktemp("teachers")
    specs = []
    for seed, (name, width) in enumerate(dict(a=2, b=1).items()):
        model = build(digits_student(widen_factor=width), seed=seed)
        model.head.fc.weight.data.mul_(30)
        torch.save(model.state_dict(), folder / f"{name}.pth")
        config = folder / f"net_{name}.py"
        config.write_text(f"model = {digits_student(widen_factor=width)!r}\n")
        specs.append(dict(config=str(config), checkpoint=str(folder / f"{name}.pth")))
    return specs


def hook(*stages, **kwargs):
    return dict(type="mmkd_logit.SequentialTeacherHook", stages=list(stages), **kwargs)


def momenta(runner):
    states = runner.optim_wrapper.optimizer.state.values()
    return [state["momentum_buffer"] for state in states]


def assert_same_runs(first, second):
    """Weights, momenta and learning rate, bit for bit."""
    assert first.iter == second.iter
    assert_same(weights(first), weights(second))
    for a, b in zip(momenta(first), momenta(second), strict=True):
        assert torch.equal(a, b)
    assert first.optim_wrapper.get_lr() == second.optim_wrapper.get_lr()


def interrupted(model, work_dir, iteration, **kwargs):
    """Train, but be killed after so many iterations."""
    hooks = [*kwargs.pop("custom_hooks"), dict(type="StopsAt", iteration=iteration)]
    with pytest.raises(KeyboardInterrupt):
        train(model, work_dir, custom_hooks=hooks, **kwargs)


CHANGES = {  # the alpha at the beginning, and what changes
    "loss": (1.0, lambda a, b: dict(loss_kd=MSE)),
    "teacher": (1.0, lambda a, b: dict(teacher=b)),
    "ensemble": (1.0, lambda a, b: dict(teacher=[a, b], ensemble="probs")),
    "all": (1.0, lambda a, b: dict(teacher=b, loss_kd=MSE, alpha=0.5)),
    "to cross-entropy": (1.0, lambda a, b: dict(alpha=0.0)),
    "from cross-entropy": (0.0, lambda a, b: dict(alpha=1.0)),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, teachers):
    """Runs without the hook by the alpha that they begin with, with a checkpoint of each epoch."""

    @cache
    def run(alpha):
        model = digits_distiller(teacher=teachers[0], alpha=alpha)
        return train(model, tmp_path_factory.mktemp("plain"), epochs=4, **SAVED)

    return run


@pytest.mark.parametrize("name", CHANGES)
def test_from_its_epoch_on_it_is_the_run_of_the_other_config(tmp_path, teachers, plain, name):
    """Before the switch the run without the hook, after it the other config's, bit for bit."""
    alpha, change = CHANGES[name]
    first, change = digits_distiller(teacher=teachers[0], alpha=alpha), change(*teachers)
    ours = train(first, tmp_path / "a", epochs=4, custom_hooks=[hook(dict(begin=2, **change))])
    begin = dict(resume=True, load_from=f"{plain(alpha).work_dir}/epoch_2.pth")
    second = train({**first, **change}, tmp_path / "b", epochs=4, **begin)
    assert_same_runs(ours, second)
    # The control: without the switch other weights come out.
    other = weights(plain(alpha))["head.fc.weight"]
    assert not torch.equal(other, weights(ours)["head.fc.weight"])


@OPTIM_WRAPPERS.register_module()
class HalfOnCPU(OptimWrapper):
    """What AmpOptimWrapper does, which needs a GPU."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield


def test_in_mixed_precision(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0])
    change = dict(teacher=teachers[1], loss_kd=MSE, alpha=0.5)
    optimizer = dict(type="SGD", lr=0.05, momentum=0.9)
    half = dict(optim_wrapper=dict(type="HalfOnCPU", optimizer=optimizer))
    hooks = dict(custom_hooks=[hook(dict(begin=2, **change))])
    ours = train(model, tmp_path / "a", epochs=3, **hooks, **half)
    train(model, tmp_path / "b", epochs=2, **half)
    second = train({**model, **change}, tmp_path / "b", epochs=3, resume=True, **half)
    assert_same_runs(ours, second)
    # The control: single precision gives other weights.
    single = train(
        *(model, tmp_path / "c"), epochs=3, optim_wrapper=dict(optimizer=optimizer), **hooks
    )
    assert not torch.equal(weights(single)["head.fc.weight"], weights(ours)["head.fc.weight"])


def stages_of(teachers, epochs=5):
    """A distiller and as many of the stages as begin in a run of so many epochs."""
    model = digits_distiller(teacher=teachers[0])
    stages = (
        dict(begin=1, loss_kd=MSE),
        dict(begin=2, teacher=teachers[1], alpha=0.25),
        dict(begin=3, alpha=0.0),
        dict(begin=4, alpha=1.0),
    )
    return model, hook(*(stage for stage in stages if stage["begin"] < epochs))


EMA = dict(type="EMAHook", momentum=0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, teachers):
    """A run through all stages, with a checkpoint of every epoch."""
    model, stages = stages_of(teachers)
    hooks = [EMA, stages, dict(type="Notes")]
    return train(model, tmp_path_factory.mktemp("whole"), epochs=5, custom_hooks=hooks, **SAVED)


def resumed(whole, teachers, work_dir, epoch, **kwargs):
    """Go on from one of its checkpoints."""
    model, stages = stages_of(teachers)
    begin = f"{whole.work_dir}/epoch_{epoch}.pth"
    settings = dict(epochs=5, custom_hooks=[EMA, stages], **SAVED)
    return train(model, work_dir, resume=True, load_from=begin, **{**settings, **kwargs})


def test_what_a_stage_does_not_name_stays(whole):
    expected = [
        (["net_a"], "ScaledKLDivLoss", 1.0),
        (["net_a"], "LogitMSELoss", 1.0),
        (["net_b"], "LogitMSELoss", 0.25),
        (["net_b"], "LogitMSELoss", 0.0),
        (["net_b"], "LogitMSELoss", 1.0),
    ]
    log = notes_of(whole)
    assert [entry[0] for entry in log] == list(range(20))
    assert [entry[1:4] for entry in log] == [e for e in expected for _ in range(ITERATIONS)]


@pytest.mark.parametrize("ema", [False, True])
def test_earlier_teachers_are_let_go(tmp_path, teachers, ema):
    model, stages = stages_of(teachers, epochs=3)
    hooks = [stages, dict(type="Notes"), dict(type="mmkd_logit.LogitOutputsHook")]
    hooks += [dict(type="EMAHook")] * ema
    runner = train(model, tmp_path, epochs=3, custom_hooks=hooks)
    alive = [entry[4] for entry in notes_of(runner)]
    assert alive == [True] * 2 * ITERATIONS + [False] * ITERATIONS
    # The hook itself keeps none either: with the model's own gone nothing is left.
    second = weakref.ref(runner.model.teachers[0].model)
    runner.model.switch(teacher=nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    for each in runner.hooks:
        if isinstance(each, EMAHook):
            assert each.ema_model.module.alpha == 0.25
            assert each.ema_model.module.teachers[0].model is second()
            each.ema_model.module.switch(teacher=runner.model.teachers)
    gc.collect()
    assert second() is None


@pytest.mark.parametrize("epoch", [1, 2, 3, 4])
def test_resumed_equals_uninterrupted(tmp_path, whole, teachers, epoch):
    """At each boundary; the stages then in force are the second to the last."""
    again = resumed(whole, teachers, tmp_path, epoch)
    assert_same_runs(whole, again)
    averages = [
        next(h for h in run.hooks if isinstance(h, EMAHook)).ema_model for run in (whole, again)
    ]
    assert_same(averages[0].state_dict(), averages[1].state_dict())


def test_resuming_without_the_stages_is_another_run(tmp_path, whole, teachers):
    """The control of the test above."""
    again = resumed(whole, teachers, tmp_path, 4, custom_hooks=[EMA])
    assert again.iter == whole.iter
    assert not torch.equal(weights(whole)["head.fc.weight"], weights(again)["head.fc.weight"])


def test_killed_within_an_epoch(tmp_path, teachers):
    """MMEngine begins the epoch anew; the stage is the epoch's."""
    model, stages = stages_of(teachers, epochs=3)
    hooks = [stages, dict(type="Notes")]
    every = dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=1))
    settings = dict(epochs=3, custom_hooks=hooks, default_hooks=every)
    interrupted(model, tmp_path, 2 * ITERATIONS + 2, **settings)
    resumed = train(model, tmp_path, resume=True, **settings)
    log = notes_of(resumed)
    assert [entry[0] for entry in log] == list(range(2 * ITERATIONS + 2, 3 * ITERATIONS + 2))
    assert [entry[1:4] for entry in log] == [(["net_b"], "LogitMSELoss", 0.25)] * len(log)


def by_iteration(**kwargs):
    """Settings of an iteration-based run with a checkpoint at every iteration."""
    loader = run_config(digits_student(), "unused").train_dataloader
    loader.sampler = dict(type="InfiniteSampler", shuffle=True)
    checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=1, max_keep_ckpts=-1)
    return dict(
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=10, val_interval=5),
        param_scheduler=dict(type="MultiStepLR", by_epoch=False, milestones=[4], gamma=0.5),
        log_processor=dict(by_epoch=False),
        default_hooks=dict(checkpoint=checkpoint, logger=dict(type="LoggerHook", interval=1)),
        **kwargs,
    )


def test_iterations(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0])
    stages = hook(dict(begin=3, loss_kd=MSE), dict(begin=7, teacher=teachers[1]), by_epoch=False)
    settings = by_iteration(custom_hooks=[stages, dict(type="Notes")])
    whole = train(model, tmp_path / "whole", **settings)
    expected = [("net_a", "ScaledKLDivLoss")] * 3 + [("net_a", "LogitMSELoss")] * 4
    expected += [("net_b", "LogitMSELoss")] * 3
    assert [(entry[1][0], entry[2]) for entry in notes_of(whole)] == expected
    for stop in (3, 5, 8):
        begin = dict(resume=True, load_from=str(tmp_path / f"whole/iter_{stop}.pth"))
        again = train(model, tmp_path / str(stop), **settings, **begin)
        assert notes_of(again)[0][0] == stop
        assert [(entry[1][0], entry[2]) for entry in notes_of(again)] == expected[stop:]
        assert_same_runs(whole, again)


def test_iterations_in_a_run_of_epochs(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0])
    stages = hook(dict(begin=6, loss_kd=MSE), by_epoch=False)
    runner = train(model, tmp_path, epochs=2, custom_hooks=[stages, dict(type="Notes")])
    kinds = [entry[2] for entry in notes_of(runner)]
    assert kinds == ["ScaledKLDivLoss"] * 6 + ["LogitMSELoss"] * 2


@pytest.mark.filterwarnings("ignore")  # dynamo warns of its own doings, each version of others
@pytest.mark.parametrize("compiled", [None, dict(backend="eager")])
def test_what_was_compiled_for_an_earlier_teacher_goes(tmp_path, teachers, monkeypatch, compiled):
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(1))
    model = digits_distiller(teacher=dict(teachers[0], compile=compiled))
    change = dict(begin=1, teacher=teachers[1])
    train(model, tmp_path, epochs=2, custom_hooks=[hook(change)])
    assert len(resets) == (compiled is not None)


@pytest.mark.filterwarnings("ignore")  # dynamo warns of its own doings, each version of others
def test_compiled_training_switches_too(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0])
    change = dict(begin=1, loss_kd=MSE, teacher=teachers[1], alpha=0.5)
    settings = dict(epochs=2, custom_hooks=[hook(change), dict(type="Notes")])
    eager = train(model, tmp_path / "eager", **settings)
    compiled = train(model, tmp_path / "compiled", compile=dict(backend="eager"), **settings)
    for key, value in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[key], value, rtol=1e-4, atol=1e-6, msg=key)
    assert [entry[4] for entry in notes_of(compiled)] == [True] * 4 + [False] * 4


def lines_of(work_dir):
    logs = sorted(Path(work_dir).glob("*/*.log"))
    text = "".join(log.read_text() for log in logs)
    return [line.partition("INFO - ")[2] for line in text.splitlines()]


def test_each_switch_is_one_line(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0])
    stages = hook(
        dict(begin=1, teacher=teachers, loss_kd=MSE), dict(begin=2, alpha=0.5, teacher=teachers[1])
    )
    settings = dict(epochs=4, custom_hooks=[stages], log_level="INFO", **SAVED)
    interrupted(model, tmp_path, 3 * ITERATIONS, **settings)
    loss = "loss_kd LogitMSELoss(reduction='mean', class_dim=-1)"
    second = f"teacher net_b, {loss}, alpha 0.5"
    assert [line for line in lines_of(tmp_path) if line.startswith("Stage")] == [
        f"Stage 1 of 2 (begin=1, epoch 2 of 4): teacher net_a + net_b (logits), {loss}, alpha 1",
        f"Stage 2 of 2 (begin=2, epoch 3 of 4): {second}",
    ]
    train(model, tmp_path, resume=True, **settings)
    assert f"Stage 2 of 2 (begin=2, resumed in epoch 4 of 4): {second}" in lines_of(tmp_path)


def test_log_lines_do_not_average_over_a_switch_nor_repeat_what_is_gone(tmp_path, teachers):
    model = digits_distiller(teacher=teachers[0], alpha=0.5)
    stages = hook(dict(begin=1, alpha=0.0))
    runner = train(model, tmp_path, epochs=2, custom_hooks=[stages])
    scalars = runner.message_hub.log_scalars
    assert not {"train/kd", "train/loss_kd", "train/teacher_agreement"} & set(scalars)
    assert scalars["train/loss"].data[0].shape == (ITERATIONS,)  # of the second epoch alone
    assert scalars["train/lr"].data[0].shape == (2 * ITERATIONS,)
    plain = train(model, tmp_path / "plain", epochs=2)
    assert plain.message_hub.log_scalars["train/loss"].data[0].shape == (2 * ITERATIONS,)


def test_teachers_that_are_over_are_not_built_on_resume(tmp_path, teachers, monkeypatch):
    model = digits_distiller(teacher=teachers[0])
    third = dict(config=digits_student(widen_factor=3), checkpoint=None)
    stages = hook(dict(begin=1, teacher=third), dict(begin=2, teacher=teachers[1]))
    train(model, tmp_path, epochs=3, custom_hooks=[stages], **SAVED)
    built = []
    original = frozen_teacher.build_network
    monkeypatch.setattr(
        frozen_teacher,
        "build_network",
        lambda spec: built.append(spec.checkpoint) or original(spec),
    )
    train(model, tmp_path, epochs=4, custom_hooks=[stages], resume=True, **SAVED)
    assert built == [teachers[0]["checkpoint"], teachers[1]["checkpoint"]]


def test_building_later_teachers_leaves_the_random_numbers_alone(tmp_path, teachers):
    student = digits_student(drop_rate=0.3)
    model = digits_distiller(student, teacher=teachers[0])
    later = dict(config=digits_student(widen_factor=3), checkpoint=None)
    stages = hook(dict(begin=1, teacher=later), dict(begin=2, teacher=teachers[0]))
    train(model, tmp_path / "a", epochs=3, custom_hooks=[stages], **SAVED)
    train(model, tmp_path / "b", epochs=3, **SAVED)

    def after(epoch, run):
        return torch.load(tmp_path / run / f"epoch_{epoch}.pth", weights_only=False)["state_dict"]

    assert_same(after(1, "a"), after(1, "b"))
    assert not torch.equal(after(2, "a")["head.fc.weight"], after(2, "b")["head.fc.weight"])


def test_training_twice_with_one_runner(whole):
    """The second time there is nothing left to train; the stages are replayed all the same."""
    before = weights(whole)
    whole.train()
    assert_same(before, weights(whole))
    assert (whole.model.teachers[0].name, whole.model.alpha) == ("net_b", 1.0)


GOOD = dict(begin=1, alpha=0.5)


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (GOOD, "stages must be a list"),
        ([3], r"stages\[0\] must be a dict with begin and what changes, got 3"),
        ([dict(alpha=1)], r"stages\[0\]\.begin must be an integer from 0 on, got None"),
        ([GOOD, dict(begin=-1, alpha=1)], r"stages\[1\]\.begin must be .* got -1"),
        ([dict(begin=1.5, alpha=1)], "begin must be an integer"),
        ([dict(begin="1", alpha=1)], "begin must be an integer from 0 on, got '1'"),
        ([dict(begin=1, loss=MSE)], r"stages\[0\] has no setting 'loss'; did you mean loss_kd\?"),
        ([dict(begin=1, lr=0.1)], "it takes begin, teacher, loss_kd, alpha, ensemble"),
        ([dict(begin=1)], r"stages\[0\] changes nothing; name one of teacher, loss_kd, alpha"),
        ([dict(begin=2, alpha=1), GOOD], r"got \[2, 1\]"),
        ([dict(begin=1, alpha=1.5)], r"stages\[0\]\.alpha: alpha must be a number in \[0, 1\]"),
        (
            [dict(begin=1, ensemble="sum")],
            r"stages\[0\]\.ensemble: ensemble must be one of 'logits'",
        ),
        ([dict(begin=1, teacher=[])], r"stages\[0\]\.teacher: teacher is an empty list"),
        ([dict(begin=1, teacher=5)], r"stages\[0\]\.teacher: .* needs a model .* got 5"),
        ([dict(begin=1, loss_kd=nn.Linear(2, 2))], r"loss_kd: .* parameters or buffers"),
        ([dict(begin=1, loss_kd=dict(type="mmkd_logit.NoLoss"))], "NoLoss"),
        ([dict(begin=1, loss_kd=dict(tau=3))], r"stages\[0\]\.loss_kd: .*type"),
    ],
)
def test_wrong_stages(stages, words):
    with pytest.raises(ValueError, match=words) as error:
        SequentialTeacherHook(stages)
    assert "\n" not in str(error.value)


def test_config_of_a_teacher_that_is_missing():
    with pytest.raises(FileNotFoundError, match=r"config nope\.py does not exist"):
        SequentialTeacherHook([dict(begin=1, teacher=dict(config="nope.py", checkpoint="x"))])


def test_stages_of_a_config_file():
    stages = [ConfigDict(GOOD), ConfigDict(begin=2, loss_kd=MSE)]
    assert [stage.begin for stage in SequentialTeacherHook(stages).stages] == [1, 2]


class Never(Hook):
    """Fails once an iteration begins."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise AssertionError("training has begun")


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (digits_student(), {}, "model of type mmkd_logit.LogitDistiller, got ImageClassifier"),
        (
            digits_distiller(),
            dict(epochs=1),
            r"stages\[0\] begins after 1 epochs, and training ends after 1; lower its begin, drop "
            r"it, or raise train_cfg.max_epochs",
        ),
        (digits_distiller(), by_iteration(), "the train loop has none; set by_epoch=False"),
        (
            digits_distiller(),
            dict(custom_hooks=[hook(GOOD, dict(begin=2, loss_kd=BINARY))]),
            r"stages\[1\]: ScaledBinaryKLDivLoss compares sigmoid probabilities",
        ),
    ],
)
def test_runs_that_do_not_fit(tmp_path, model, settings, words):
    cfg = run_config(model, tmp_path, **{"custom_hooks": [hook(GOOD)], "epochs": 3, **settings})
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Never())
    with pytest.raises(ValueError, match=words):
        runner.train()


@pytest.mark.parametrize("begin", [2 * ITERATIONS, 10])
def test_iterations_past_the_end(tmp_path, begin):
    stages = hook(dict(begin=begin, alpha=0.5), by_epoch=False)
    with pytest.raises(ValueError, match=f"begins after {begin} iterations, and training ends"):
        train(digits_distiller(), tmp_path, epochs=2, custom_hooks=[stages])


def test_later_teachers_are_checked_before_training_and_before_the_folder_is_cleared(
    tmp_path, teachers
):
    (tmp_path / "final.pth").write_text("of an earlier run")
    wrong = digits_student()
    wrong["head"]["num_classes"] = 9
    absent = dict(teachers[1], checkpoint=str(tmp_path / "gone.pth"))
    other = dict(teachers[1], checkpoint=teachers[0]["checkpoint"])
    for teacher, error, words in (
        (dict(config=wrong, checkpoint=None), ValueError, "has 9 classes and the student 10"),
        (absent, FileNotFoundError, r"gone\.pth of teacher net_b does not exist"),
        (other, ValueError, r"a\.pth does not fit teacher net_b"),
    ):
        stages = hook(dict(begin=1, teacher=teacher))
        final = dict(type="mmkd_logit.FinalCheckpointHook")
        runner = Runner.from_cfg(
            run_config(digits_distiller(), tmp_path, custom_hooks=[final, stages])
        )
        runner.register_hook(Never())
        with pytest.raises(error, match=re.compile(words)):
            runner.train()
        assert (tmp_path / "final.pth").read_text() == "of an earlier run"
