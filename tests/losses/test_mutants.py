"""The tests of the losses fail for every one of these wrong losses.

A mutant is a copy of the package's folder with one piece of text replaced; the tests it must not
survive are those of the other files, run with its classes.
"""

import importlib.util
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from losses import test_logit_mse_loss as mse
from losses import test_scaled_kl as kl
from losses import test_scaled_kl_div_loss as module

import mmkd_logit.losses

FOLDER = Path(mmkd_logit.losses.__file__).parent
REGISTRATION = "@MODELS.register_module()\n"  # a name can be registered once

MSE_TESTS = [
    partial(mse.test_reductions, (6, 11), -1, np.float32),
    mse.test_defaults_are_the_recipe,
    mse.test_teacher_receives_no_gradient,
]
KL_TESTS = [
    partial(kl.test_equals_scipy, 3, np.float64),
    partial(kl.test_infinite_tau_is_half_the_variance, np.float64),
    partial(kl.test_zero_tau_is_the_perceptron, np.float64),
    partial(kl.test_ties_at_zero_tau_share, np.float64),
    partial(kl.test_small_tau_scale_and_no_scale, np.float64),
    partial(kl.test_shift_of_a_sample_changes_nothing, "inf", "tau^2", np.float64),
    partial(kl.test_close_to_fifty_digits, 0.05, 100),
    partial(kl.test_close_to_fifty_digits, 1e6, 1),
    partial(kl.test_never_nan_and_never_negative, 1e4, "none"),
]
MODULE_TESTS = [
    partial(module.test_reductions_of_dense_logits, 4, "tau^2"),
    module.test_gradient_is_multiplied_by_what_follows,
    module.test_teacher_receives_no_gradient,
    module.test_double_backward_raises,
]

CORE = "kl.py"
MUTANTS = {
    "tau^2 dropped": (CORE, '"tau^2": 2,', '"tau^2": 0,'),
    "tau^2 dropped from the gradient": (
        CORE,
        "tau**power, tau ** (power - 1)",
        "tau**power, 1 / tau",
    ),
    "small tau like tau^2": (CORE, "2 if tau >= 1 else 1", "2"),
    "arguments swapped": (CORE, "_by_blocks(core, u, v,", "_by_blocks(core, v, u,"),
    "swapped at tau = 0": (CORE, "(q * z[0])", "(p * z[1])"),
    "mean over classes": (CORE, "e.mul_(twice_phi).sum(-1)", "e.mul_(twice_phi).mean(-1)"),
    "mean over classes by weight": (CORE, "u.shape[-1] / u.numel()", "1.0 / u.numel()"),
    "sum over classes at tau = inf": (CORE, "d.square().mean(-1)", "d.square().sum(-1)"),
    "sum over the batch": (CORE, "weight = u.shape[-1] / u.numel()", "weight = 1.0"),
    "batchmean like sum": (CORE, "weight = 1.0 / u.shape[0]", "weight = 1.0"),
    "batchmean like mean": (CORE, "1.0 / u.shape[0]", "u.shape[-1] / u.numel()"),
    "centring dropped": (CORE, "d -= d.mean(-1, keepdim=True)", "d = d"),
    "half dropped at tau = inf": (CORE, "d.square().mean(-1) / 2.0", "d.square().mean(-1)"),
    "half dropped": (CORE, "total.squeeze(-1).mul_(2.0)", "total.squeeze(-1)"),
    "ties not shared": (CORE, "largest /= largest.sum(-1, keepdim=True)", "pass"),
    "gradient's sign": (CORE, "p.sub_(q)", "q.sub_(p)"),
    "series too early": (CORE, "_SERIES_BELOW = 1e-8", "_SERIES_BELOW = 1e-1"),
    "no series": (CORE, "_SERIES_BELOW = 1e-8", "_SERIES_BELOW = -1.0"),
    "float32 inside": (CORE, "to(torch.float64, copy=True)", "to(torch.float32, copy=True)"),
    "no floor": (CORE, "_EXPONENT_FLOOR = -650.0", "_EXPONENT_FLOOR = -1e300"),
    "1 / tau overflows": (CORE, "min(1.0 / tau, sys.float_info.max)", "1.0 / tau"),
    "double backward silent": (CORE, "torch.is_grad_enabled() and", "False and"),
    "grad_output ignored": (CORE, "(gradient * grad_output)", "gradient"),
    "teacher not detached": ("kl.py", "teacher_logits.detach()", "teacher_logits"),
    "class_dim ignored": (
        "kl.py",
        "if dim != student_logits.ndim - 1:",
        "if False:",
    ),
    "MSE: teacher not detached": ("mse.py", "teacher_logits.detach()", "teacher_logits"),
    "MSE: batchmean like sum": ("mse.py", " / len(student)", ""),
    "MSE: mean like sum": ("mse.py", "reduction=self.reduction)", 'reduction="sum")'),
    "MSE: absolute": ("mse.py", "F.mse_loss(student", "F.l1_loss(student"),
}


def survives(losses, monkeypatch):
    """Say whether all tests pass with the classes of the module ``losses``."""
    monkeypatch.setattr(mse, "LogitMSELoss", losses.LogitMSELoss)
    for tests in (mse, kl, module):
        monkeypatch.setattr(tests, "ScaledKLDivLoss", losses.ScaledKLDivLoss)
    for test in MSE_TESTS + KL_TESTS + MODULE_TESTS:
        try:
            test()
        except (AssertionError, pytest.fail.Exception):
            return False
    return True


@pytest.fixture
def import_copy(tmp_path, monkeypatch):
    """A function that imports the package's folder with a piece of text replaced."""

    def import_copy(file="__init__.py", old="", new=""):
        folder = tmp_path / "mutant_losses"
        shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in folder.glob("[!_]*.py"):
            assert path.read_text().count(REGISTRATION) <= 1
            path.write_text(path.read_text().replace(REGISTRATION, ""))
        text = (folder / file).read_text()
        assert not old or old in text, f"{old!r} is not in {file}: the mutant would be no mutant"
        (folder / file).write_text(text.replace(old, new) if old else text)
        spec = importlib.util.spec_from_file_location("mutant_losses", folder / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        for name in [n for n in sys.modules if n.partition(".")[0] == "mutant_losses"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "mutant_losses", module)
        spec.loader.exec_module(module)
        return module

    yield import_copy
    for name in [n for n in sys.modules if n.partition(".")[0] == "mutant_losses"]:
        del sys.modules[name]


def test_the_copy_survives(import_copy, monkeypatch):
    copy = import_copy()
    assert copy.ScaledKLDivLoss is not mmkd_logit.losses.ScaledKLDivLoss
    assert survives(copy, monkeypatch)


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_survives(name, import_copy, monkeypatch):
    assert not survives(import_copy(*MUTANTS[name]), monkeypatch)
