"""Distilling features inside MMEngine's Runner and our command lines."""

import pytest
import torch
from commands import folder_of
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from runs import (
    StopAfter,
    assert_same,
    digits_distiller,
    digits_student,
    run_config,
    train,
    weights,
)

from mmkd_logit.engine import train as train_tool

FINAL = dict(type="mmkd_logit.FinalCheckpointHook")
METHOD = "configs/methods/wrn16-2_wrn10-1-thin_{}_digits.py"


def adapter(name, **settings):
    return dict(type="mmkd_logit.TorchdistillAdapter", name=name, **settings)


def loss(name):
    return dict(type="mmkd_logit.TorchdistillLoss", name=name)


def model(student=None, **kwargs):
    """A hint with a regressor and a factor with translator and paraphraser."""
    hint = dict(
        student="backbone.groups.1",
        teacher="backbone.groups.1",
        loss=loss("MSELoss"),
        student_adapter=adapter(
            "ConvReg",
            num_input_channels=8,
            num_output_channels=16,
            kernel_size=1,
            stride=1,
            padding=0,
        ),
    )
    factor = dict(
        student="backbone",
        teacher="backbone",
        loss=loss("FTLoss"),
        weight=10.0,
        student_adapter=adapter(
            "Translator4FactorTransfer", num_input_channels=16, num_output_channels=16
        ),
        teacher_adapter=adapter("Paraphraser4FactorTransfer", k=0.5, num_input_channels=32),
    )
    settings = dict(alpha=0.5, feature_kd=[hint, factor]) | kwargs
    return digits_distiller(student, **settings)


def load(path):
    return torch.load(path, weights_only=False)["state_dict"]


def plain_names(work_dir):
    return list(Runner.from_cfg(run_config(digits_student(), work_dir)).model.state_dict())


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path):
    whole = train(model(), tmp_path / "whole", epochs=3)
    stop = dict(custom_hooks=[dict(type=StopAfter.__name__, epoch=1)])
    train(model(), tmp_path / "parts", epochs=3, **stop)
    resumed = train(model(), tmp_path / "parts", epochs=3, resume=True)
    assert any(key.startswith("feature_adapters.") for key in weights(whole))
    assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize("ema", [False, True])
def test_final_pth_is_the_plain_students_and_epoch_n_holds_the_adapters(tmp_path, ema):
    hooks = [FINAL, *[dict(type="EMAHook", momentum=0.3)] * ema]
    runner = train(model(), tmp_path / "kd", epochs=2, custom_hooks=hooks)
    names = plain_names(tmp_path / "names")
    checkpoint = torch.load(tmp_path / "kd" / "final.pth", weights_only=False)
    final = checkpoint["state_dict"]
    assert list(final) == names
    assert not any("feature_adapters" in key for key in checkpoint.get("ema_state_dict", {}))
    epoch = load(tmp_path / "kd" / "epoch_2.pth")
    assert sum(key.startswith("feature_adapters.") for key in epoch) > 10
    assert_same(final, {key: epoch[key] for key in names})
    if ema:
        hook = next(h for h in runner.hooks if isinstance(h, EMAHook))
        averaged = hook.ema_model.module.state_dict()
        assert_same(final, {key: averaged[key] for key in names})

    # Both serve a plain mmpretrain config, by load_from and by init_cfg, as the distiller's own.
    scores = []
    for file in ("final.pth", "epoch_2.pth"):
        path = str(tmp_path / "kd" / file)
        pretrained = dict(init_cfg=dict(type="Pretrained", checkpoint=path))
        for cfg, kwargs in (
            (digits_student(), dict(load_from=path)),
            (digits_student(**pretrained), {}),
            (model(), dict(load_from=path)),
            (model(digits_student(**pretrained)), {}),
        ):
            other = Runner.from_cfg(run_config(cfg, tmp_path / "other", **kwargs))
            other.model.init_weights()
            scores.append(other.test())
            assert_same({key: weights(other)[key] for key in names}, final)
    assert all(score == scores[0] for score in scores)


def test_final_pth_teaches_the_next_student(tmp_path):
    train(model(), tmp_path / "first", epochs=1, custom_hooks=[FINAL])
    for file in ("final.pth", "epoch_1.pth"):
        teacher = dict(config=model(), checkpoint=str(tmp_path / "first" / file))
        runner = train(digits_distiller(teacher=teacher), tmp_path / file, epochs=1)
        assert_same(
            load(tmp_path / "first" / "final.pth"),
            dict(runner.model.teachers[0].model.state_dict()),
        )


def test_only_summed_terms_are_called_loss(tmp_path):
    runner = train(model(), tmp_path, epochs=1)
    scalars = runner.message_hub.log_scalars
    terms = [key for key in scalars if "loss" in key and key != "train/loss"]
    assert {key.removeprefix("train/") for key in terms} == {
        "loss_ce",
        "loss_kd",
        "loss_feature_0",
        "loss_feature_1",
        "loss_feature_1_reconstruction",
    }
    assert scalars["train/loss"].current() == pytest.approx(
        sum(scalars[key].current() for key in terms), rel=1e-5
    )


@pytest.mark.filterwarnings("ignore")  # dynamo warns of its own doings, each version of others
def test_compiled_training_equals_eager(tmp_path):
    eager = train(model(), tmp_path / "eager", epochs=1)
    compiled = train(model(), tmp_path / "compiled", epochs=1, compile=dict(backend="eager"))
    for key, value in weights(eager).items():
        torch.testing.assert_close(weights(compiled)[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_without_torchdistill_a_command_says_so_in_one_line(workplace, monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="torchdistill")

    monkeypatch.setattr("mmkd_logit.losses.feature.import_module", missing)
    config = METHOD.format("at")
    teacher = folder_of("wrn16-2_digits") / "final.pth"
    teacher.parent.mkdir(parents=True)
    torch.save({}, teacher)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train_tool.main([config, "--cfg-options", "experiment_name=no_torchdistill"])
    assert 'pip install -e ".[methods]"' in capsys.readouterr().err
