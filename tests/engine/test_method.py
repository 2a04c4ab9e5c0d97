import pytest
from commands import PROJECT
from mmengine.config import Config

from mmkd_logit.engine.results import describe_method
from mmkd_logit.losses import LogitMSELoss

WRN = "WideResNetCIFAR depth=16 widen_factor=2"
KD = dict(teacher_config="mmkd_logit::wrn/wrn28-4.py", network=WRN, label_noise=None)
SYM = dict(kind="symmetric", rate=0.4)


def method(name, **more):
    cfg = Config.fromfile(PROJECT / "configs" / f"{name}.py")
    cfg.merge_from_dict(more)
    return describe_method(cfg)


@pytest.mark.parametrize(
    ("tau", "expected"), [(20, 20), ("inf", "inf"), (float("inf"), "inf"), ("0.5", 0.5), (3.0, 3)]
)
def test_temperatures(tau, expected):
    found = method("kd/wrn28-4_wrn16-2_kl-t3", **{"model.loss_kd.tau": tau})
    said = dict(label="KL", shows_tau=True, shift_invariant=True)
    assert found == dict(KD, **said, kind="kl", tau=expected, alpha=1.0, loss="ScaledKLDivLoss")
    assert isinstance(found["tau"], type(expected))


def test_a_loss_that_is_called_as_training_without_one(monkeypatch):
    monkeypatch.setattr(LogitMSELoss, "label", "CE")
    assert method("kd/wrn28-4_wrn16-2_mse")["kind"] == "ce loss"


def test_weights_are_named_and_are_no_alpha_of_a_grid():
    weights = dict(ce=0.1, kd=9)
    assert method("kd/wrn28-4_wrn16-2_mse", **{"model.weights": weights})["weights"] == weights


def test_without_a_teacher():
    none = dict(tau=None, loss=None, label_noise=None, teacher_config=None)
    assert method("wrn/wrn16-2") == dict(none, kind="ce", alpha=None, network=WRN)
    thin = "WideResNetCIFAR depth=10 widen_factor=1 base_channels=4 strides=1x1x2"
    assert method("wrn/wrn10-1-thin_digits")["network"] == thin
    assert method("resnet/resnet18")["network"].startswith("ResNet_CIFAR depth=18")
    off = method("kd/wrn28-4_wrn16-2_mse", **{"model.alpha": 0})
    assert (off["kind"], off["alpha"], off["loss"]) == ("ce", 0.0, "LogitMSELoss")


def test_mse_and_noise():
    mse = dict(kind="mse", tau=None, alpha=1.0, loss="LogitMSELoss")
    mse |= dict(label="MSE", shows_tau=False, shift_invariant=False)
    assert method("kd/wrn28-4_wrn16-2_mse") == {**KD, **mse}
    noisy = method("noisy_label/wrn28-4_wrn16-2_mse_sym40")
    teacher = "mmkd_logit::noisy_label/wrn28-4_sym40.py"
    assert noisy == {**KD, **mse, "label_noise": SYM, "teacher_config": teacher}
    assert method("noisy_label/wrn16-2_human")["label_noise"] == dict(kind="file", rate=None)


@pytest.mark.parametrize(
    ("name", "loss", "tau", "alpha"),
    [
        ("methods/wrn28-4_wrn16-2_at", "ATLoss", None, 0.0),
        ("sequential/wrn28-4_wrn16-2_kl-t3-then-mse", "ScaledKLDivLoss", 3, 1.0),
    ],
)
def test_others(name, loss, tau, alpha):
    expected = dict(KD, kind="other", loss=loss, tau=tau, alpha=alpha)
    assert method(name) == expected


@pytest.mark.parametrize(
    ("name", "label", "tau", "alpha"),
    [("dkd", "DKD", 4, 0.5), ("dist", "DIST", 4, 0.5), ("kl-t4-std", "standardised KL", None, 0.9)],
)
def test_other_losses_say_their_names(name, label, tau, alpha):
    found = method(f"methods/wrn28-4_wrn16-2_{name}")
    assert (found["kind"], found["label"]) == (label.lower(), label)
    assert (found["tau"], found["alpha"], found["shows_tau"]) == (tau, alpha, False)


def test_several_teachers():
    one = dict(config="configs/wrn/wrn28-4.py", checkpoint=None)
    both = [one, dict(one, config="configs/wrn/wrn40-2.py")]
    found = method("kd/wrn28-4_wrn16-2_mse", **{"model.teacher": both})
    assert found["teacher_config"] == "configs/wrn/wrn28-4.py + configs/wrn/wrn40-2.py"
    later = method("sequential/wrn28-4-then-wrn16-4_wrn16-2_kl-t3-then-mse")["teacher_config"]
    assert later == "mmkd_logit::wrn/wrn28-4.py + mmkd_logit::wrn/wrn16-4.py (in turn)"
