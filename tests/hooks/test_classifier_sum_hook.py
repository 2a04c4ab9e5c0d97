"""Figure 9 of the analysis: what weight decay alone does, and what a loss adds to it."""

import json

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from runs import assert_same, digits_distiller, digits_student, run_config, weights

from mmkd_logit.hooks.classifier_sum import DecayedSum

HOOK = dict(type="mmkd_logit.ClassifierSumHook")
LAZY = dict(type="mmkd_logit.LazyRuntimeInfoHook")
SUM, PREDICTED, DEVIATION, BIAS = (
    f"classifier/{name}" for name in ("sum_norm", "sum_predicted", "sum_deviation", "bias_sum")
)
MSE = dict(type="mmkd_logit.LogitMSELoss")
KL = dict(type="mmkd_logit.ScaledKLDivLoss", tau=4)
SGD = dict(type="SGD", lr=0.2, momentum=0.9, weight_decay=0.05)  # decays fast enough to be seen


def rows(work_dir):
    lines = []
    for file in sorted(work_dir.glob("*/vis_data/scalars.json")):
        lines += [json.loads(line) for line in file.read_text().splitlines()]
    return [row for row in lines if "lr" in row or any("lr" in key for key in row)]


def run(work_dir, model, interval=1, optimizer=SGD, wrapper=None, hooks=(), **kwargs):
    kwargs.setdefault(
        "default_hooks",
        dict(
            logger=dict(type="LoggerHook", interval=interval),
            checkpoint=dict(type="CheckpointHook", interval=1),
            runtime_info=LAZY,
        ),
    )
    cfg = run_config(model, work_dir, custom_hooks=[HOOK, *hooks], **kwargs)
    cfg.optim_wrapper = {"type": "OptimWrapper", "optimizer": dict(optimizer), **(wrapper or {})}
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@HOOKS.register_module(force=True)
class NoteWeights(Hook):
    """Knows the true sums after every iteration, and the initial one."""

    def before_train(self, runner):
        self.first = self._sum(runner)
        self.each = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.each.append(
            (self._sum(runner), float(runner.model.head.fc.bias.detach().double().sum()))
        )

    def _sum(self, runner):
        return runner.model.head.fc.weight.detach().double().sum(0)


OPTIMIZERS = {
    "momentum": SGD,
    "nesterov": dict(SGD, nesterov=True),
    "plain": dict(SGD, momentum=0.0),
    "dampening": dict(SGD, dampening=0.3),
    "no decay": dict(SGD, weight_decay=0.0),
}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, digits_distiller(alpha=0.5, loss_kd=KL)) for name in OPTIMIZERS),
        ("momentum", digits_student()),
        ("momentum", digits_distiller(loss_kd=KL)),
    ],
    ids=[*OPTIMIZERS, "of cross-entropy", "of KL"],
)
def test_shift_invariant_losses_move_the_sum_by_weight_decay_alone(tmp_path, name, model):
    runner = run(tmp_path, model, optimizer=OPTIMIZERS[name], hooks=[dict(type="NoteWeights")])
    lines = rows(tmp_path)
    assert len(lines) == 8
    assert max(row[DEVIATION] for row in lines) < 3e-6
    moved = lines[-1][SUM] / lines[0][SUM]
    assert moved == pytest.approx(1) if name == "no decay" else moved < 0.97
    (note,) = (hook for hook in runner.hooks if type(hook).__name__ == "NoteWeights")
    for row, (total, bias) in zip(lines, note.each, strict=True):
        assert row[SUM] == pytest.approx(float(total.norm()), rel=1e-12)
        assert row[PREDICTED] == pytest.approx(row[SUM], rel=3e-6)
        assert row[BIAS] == pytest.approx(bias, abs=1e-12)
    off = (note.each[-1][0] * lines[-1][PREDICTED] / lines[-1][SUM] - note.each[-1][0]).norm()
    assert float(off) < 1e-5


def test_mse_follows_the_teacher(tmp_path):
    run(tmp_path, digits_distiller(loss_kd=MSE))
    deviations = [row[DEVIATION] for row in rows(tmp_path)]
    assert deviations[0] > 1e-3
    assert deviations[-1] > 0.05


def test_a_wrong_prediction_is_noticed(tmp_path, monkeypatch):
    """Without weight decay, or as if momentum were Nesterov's, it is not what happens."""
    step = DecayedSum._step
    for number, change in enumerate(
        [dict(weight_decay=0.0), dict(nesterov=True), dict(momentum=0)]
    ):

        def wrong(self, *args, change=change):
            group = self._group
            self._group = {**group, **change}
            step(self, *args)
            self._group = group

        monkeypatch.setattr(DecayedSum, "_step", wrong)
        run(tmp_path / str(number), digits_distiller(loss_kd=KL))
        assert rows(tmp_path / str(number))[-1][DEVIATION] > 1e-3, change


def test_learning_rates_of_iterations_count(tmp_path):
    schedule = [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=3, end=8),
    ]
    run(tmp_path, digits_student(), param_scheduler=schedule)
    assert max(row[DEVIATION] for row in rows(tmp_path)) < 3e-6


def test_only_steps_count_where_gradients_are_accumulated(tmp_path):
    run(tmp_path, digits_student(), wrapper=dict(accumulative_counts=3))
    lines = rows(tmp_path)
    assert max(row[DEVIATION] for row in lines) < 3e-6
    norms = [row[SUM] for row in lines]
    assert norms[0] == norms[1] != norms[2] == norms[3] == norms[4] != norms[5]


def test_with_autocast(tmp_path):
    wrapper = dict(type="mmkd_logit.AutocastOptimWrapper", dtype="bfloat16")
    run(tmp_path, digits_student(), wrapper=wrapper)
    # Gradients in bfloat16 sum to 0 but for their rounding.
    assert rows(tmp_path)[-1][DEVIATION] < 0.02


def test_of_each_weight_its_own_decay(tmp_path):
    """Where ``paramwise_cfg`` makes groups, the weight's own one counts."""
    paramwise = dict(custom_keys={"head.fc.weight": dict(decay_mult=0.2, lr_mult=2.0)})
    run(tmp_path, digits_student(), wrapper=dict(paramwise_cfg=paramwise))
    lines = rows(tmp_path)
    assert max(row[DEVIATION] for row in lines) < 3e-6
    assert lines[-1][SUM] / lines[0][SUM] > 0.9


def test_other_optimizers_have_no_prediction(tmp_path):
    run(tmp_path, digits_student(), optimizer=dict(type="AdamW", lr=1e-3), epochs=1)
    row = rows(tmp_path)[-1]
    assert {key for key in row if key.startswith("classifier/")} == {SUM, BIAS}


def test_without_a_bias_and_with_weights_of_zero(tmp_path):
    class Empty(Hook):
        priority = "HIGHEST"

        def before_run(self, runner):
            runner.model.init_weights()
            torch.nn.init.zeros_(runner.model.head.fc.weight)
            runner.model.head.fc.register_parameter("bias", None)
            runner.model._is_init = True

    cfg = run_config(digits_student(), tmp_path, epochs=1, custom_hooks=[HOOK])
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Empty())
    runner.train()
    row = rows(tmp_path)[-1]
    assert {key for key in row if key.startswith("classifier/")} == {SUM, PREDICTED}
    assert row[PREDICTED] == 0


def test_a_model_without_a_linear_layer_is_left_alone(tmp_path):
    model = digits_student()
    model["head"] = dict(type="mmpretrain.ClsHead")
    model["neck"] = [model["neck"]]
    model["backbone"]["widen_factor"] = 1
    cfg = run_config(model, tmp_path, epochs=1, custom_hooks=[HOOK])
    Runner.from_cfg(cfg).train()
    assert not [key for row in rows(tmp_path) for key in row if "classifier" in key]


@pytest.mark.parametrize("interval", [1, 3, 50])
@pytest.mark.parametrize("runtime_info", [LAZY, dict(type="RuntimeInfoHook")])
def test_a_log_line_has_the_values_of_its_iteration(tmp_path, interval, runtime_info):
    default = dict(
        logger=dict(type="LoggerHook", interval=interval),
        checkpoint=dict(type="CheckpointHook", interval=1),
        runtime_info=runtime_info,
    )
    runner = run(
        tmp_path, digits_student(), default_hooks=default, hooks=[dict(type="NoteWeights")]
    )
    (note,) = (hook for hook in runner.hooks if type(hook).__name__ == "NoteWeights")
    lines = rows(tmp_path)
    assert {row["epoch"] for row in lines} == {1, 2}
    for row in lines:
        total, bias = note.each[row["iter"] - 1]
        assert row[SUM] == pytest.approx(float(total.norm()), rel=1e-12)
        assert row[BIAS] == pytest.approx(bias, abs=1e-12)


@pytest.mark.parametrize("loss", [KL, MSE], ids=["kl", "mse"])
def test_a_run_that_is_resumed_logs_the_same(tmp_path, loss):
    model = digits_distiller(loss_kd=loss)
    run(tmp_path / "whole", model)
    stops = [dict(type="StopAfter", epoch=1)]
    run(tmp_path / "halves", model, hooks=stops)
    run(tmp_path / "halves", model, resume=True)
    whole, halves = (
        [{k: v for k, v in row.items() if "classifier" in k} for row in rows(tmp_path / name)]
        for name in ("whole", "halves")
    )
    assert whole == halves
    assert len(whole) == 8
    assert all(len(row) == 4 for row in whole)


def test_a_checkpoint_without_its_state_gives_no_prediction(tmp_path):
    run(tmp_path, digits_student(), hooks=[dict(type="StopAfter", epoch=1)])
    state = torch.load(tmp_path / "epoch_1.pth", weights_only=False)
    assert state.pop("classifier_sum")[""]["decay"] < 1
    torch.save(state, tmp_path / "epoch_1.pth")
    run(tmp_path, digits_student(), resume=True)
    first, second = (row for row in rows(tmp_path) if row["iter"] in (4, 8))
    assert PREDICTED in first
    assert {key for key in second if key.startswith("classifier/")} == {SUM, BIAS}


def test_weights_are_the_same_bits_without_it(tmp_path):
    watched = run(tmp_path / "a", digits_distiller())
    cfg = run_config(digits_distiller(), tmp_path / "b", default_hooks=dict())
    cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=SGD)
    plain = Runner.from_cfg(cfg)
    plain.train()
    assert_same(weights(watched), weights(plain))


def test_final_weights_hold_no_state(tmp_path):
    run(tmp_path, digits_student(), epochs=1, hooks=[dict(type="mmkd_logit.FinalCheckpointHook")])
    assert "classifier_sum" not in torch.load(tmp_path / "final.pth", weights_only=False)


def test_students_of_a_group_have_their_own(tmp_path):
    students = dict(ce=digits_student(), mse=digits_distiller(loss_kd=MSE))
    for cfg in students.values():
        cfg["data_preprocessor"] = dict(num_classes=10, mean=[78.0], std=[96.0])
    optimizers = {
        name: dict(optimizer=dict(SGD, weight_decay=decay))
        for name, decay in (("ce", 0.05), ("mse", 0.0))
    }
    cfg = run_config(
        dict(type="mmkd_logit.StudentGroup", students=students, seeds=3),
        tmp_path,
        custom_hooks=[HOOK],
        optim_wrapper=dict(
            constructor="mmkd_logit.StudentGroupOptimConstructor", students=optimizers
        ),
        param_scheduler=dict(ce=[], mse=[]),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    last = rows(tmp_path)[-1]
    assert last[f"ce/{DEVIATION}"] < 3e-6
    assert last[f"mse/{DEVIATION}"] > 0.05
    assert last[f"mse/{PREDICTED}"] == rows(tmp_path)[0][f"mse/{PREDICTED}"]
    saved = torch.load(tmp_path / "epoch_2.pth", weights_only=False)["classifier_sum"]
    assert saved["ce/"]["decay"] < saved["mse/"]["decay"] == 1
