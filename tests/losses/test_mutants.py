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
from losses import test_dist_loss as dist
from losses import test_dkd_loss as dkd
from losses import test_logit_losses as common
from losses import test_logit_mse_loss as mse
from losses import test_logit_standardization as std
from losses import test_scaled_kl as kl
from losses import test_scaled_kl_div_loss as module

import mmkd_logit.losses

FOLDER = Path(mmkd_logit.losses.__file__).parent
REGISTRATION = "@MODELS.register_module()\n"  # a name can be registered once

TESTS = {
    "base.py": [
        partial(test, name)
        for test in (
            common.test_teacher_receives_no_gradient,
            common.test_a_student_under_autocast_and_stored_logits,
        )
        for name in ("LogitMSELoss", "ScaledKLDivLoss", "DKDLoss", "DISTLoss")
    ],
    "mse.py": [
        partial(mse.test_reductions, (6, 11), -1, np.float32),
        mse.test_defaults_are_the_recipe,
    ],
    "kl.py": [
        partial(kl.test_equals_scipy, 3, np.float64),
        partial(kl.test_infinite_tau_is_half_the_variance, np.float64),
        partial(kl.test_zero_tau_is_the_perceptron, np.float64),
        partial(kl.test_ties_at_zero_tau_share, np.float64),
        partial(kl.test_small_tau_scale_and_no_scale, np.float64),
        partial(kl.test_shift_of_a_sample_changes_nothing, "inf", "tau^2", np.float64),
        partial(kl.test_close_to_fifty_digits, 0.05, 100),
        partial(kl.test_close_to_fifty_digits, 1e6, 1),
        partial(kl.test_never_nan_and_never_negative, 1e4, "none"),
        partial(module.test_reductions_of_dense_logits, 4, "tau^2"),
        module.test_gradient_is_multiplied_by_what_follows,
        module.test_the_gradient_can_be_differentiated_again,
    ],
    "dkd.py": [
        partial(dkd.test_equals_the_definition, 4, 1, 8),
        partial(dkd.test_equals_the_definition, 1, 2, 0),
        dkd.test_sure_networks_keep_their_digits,
        dkd.test_gradient_is_the_formulas,
        dkd.test_reductions,
        partial(common.test_zero_where_equal, "DKDLoss"),
    ],
    "dist.py": [
        partial(dist.test_equals_scipys_correlation, 2, 3, 4),
        partial(dist.test_eps_is_added_to_the_product_of_the_norms, 0.1),
        dist.test_close_networks_keep_their_digits,
        dist.test_tiny_probabilities_stay_finite,
        partial(dist.test_constant_vectors_have_distance_one, 7, 0),
        partial(common.test_teacher_receives_no_gradient, "DISTLoss"),
    ],
    "standardization.py": [
        partial(std.test_equals_scipy, 2),
        std.test_eps_is_added_to_the_deviation,
        partial(std.test_positive_affine_maps_of_a_sample_change_nothing, 0),
        std.test_gradient_passes_through_mean_and_deviation,
        std.test_labels_reach_the_base_loss,
        partial(std.test_equal_logits_are_only_centred, 3.0),
        std.test_class_dim_is_the_base_losss,
    ],
}

KL, DKD, DIST, STD = "kl.py", "dkd.py", "dist.py", "standardization.py"
MUTANTS = {
    "tau^2 dropped": (KL, '"tau^2": 2,', '"tau^2": 0,'),
    "tau^2 dropped from the gradient": (
        KL,
        "tau**power, tau ** (power - 1)",
        "tau**power, 1 / tau",
    ),
    "small tau like tau^2": (KL, "2 if tau >= 1 else 1", "2"),
    "arguments swapped": (KL, "_by_blocks(core, u, v,", "_by_blocks(core, v, u,"),
    "swapped at tau = 0": (KL, "(q * z[0])", "(p * z[1])"),
    "mean over classes": (KL, "e.mul_(twice_phi).sum(-1)", "e.mul_(twice_phi).mean(-1)"),
    "mean over classes by weight": (KL, "u.shape[-1] / u.numel()", "1.0 / u.numel()"),
    "sum over classes at tau = inf": (KL, "d.square().mean(-1)", "d.square().sum(-1)"),
    "sum over the batch": (KL, "weight = u.shape[-1] / u.numel()", "weight = 1.0"),
    "batchmean like sum": (KL, "weight = 1.0 / u.shape[0]", "weight = 1.0"),
    "batchmean like mean": (KL, "1.0 / u.shape[0]", "u.shape[-1] / u.numel()"),
    "centring dropped": (KL, "d -= d.mean(-1, keepdim=True)", "d = d"),
    "half dropped at tau = inf": (KL, "d.square().mean(-1) / 2.0", "d.square().mean(-1)"),
    "half dropped": (KL, "total.squeeze(-1).mul_(2.0)", "total.squeeze(-1)"),
    "ties not shared": (KL, "largest /= largest.sum(-1, keepdim=True)", "pass"),
    "gradient's sign": (KL, "p.sub_(q)", "q.sub_(p)"),
    "series too early": (KL, "_SERIES_BELOW = 1e-8", "_SERIES_BELOW = 1e-1"),
    "no series": (KL, "_SERIES_BELOW = 1e-8", "_SERIES_BELOW = -1.0"),
    "float32 inside": (KL, "to(torch.float64, copy=True)", "to(torch.float32, copy=True)"),
    "no floor": (KL, "_EXPONENT_FLOOR = -650.0", "_EXPONENT_FLOOR = -1e300"),
    "1 / tau overflows": (KL, "min(1.0 / tau, sys.float_info.max)", "1.0 / tau"),
    "double backward silent": (KL, "torch.is_grad_enabled() and", "False and"),
    "grad_output ignored": (KL, "(gradient * grad_output)", "gradient"),
    "class_dim ignored": (KL, "if dim != u.ndim - 1:", "if False:"),
    "Hessian of another temperature": (KL, "(u / tau).softmax(-1)", "u.softmax(-1)"),
    "teacher not detached": ("base.py", "teacher.detach()", "teacher"),
    "teacher rounded to the student's type": (
        "base.py",
        "torch.promote_types(student.dtype, teacher.dtype)",
        "student.dtype",
    ),
    "MSE: batchmean like sum": ("mse.py", " / len(student)", ""),
    "MSE: mean like sum": ("mse.py", "reduction=self.reduction)", 'reduction="sum")'),
    "MSE: absolute": ("mse.py", "F.mse_loss(student", "F.l1_loss(student"),
    "DKD: tau^2 dropped from TCKD": (
        DKD,
        "self.alpha * self.tau**2 * target",
        "self.alpha * target",
    ),
    "DKD: tau^2 dropped from NCKD": (DKD, 'self.tau, "tau^2"', 'self.tau, "none"'),
    "DKD: weights swapped": (DKD, "self.beta * others", "self.alpha * others"),
    "DKD: mean is the sum": (DKD, '"none", self.reduction)', '"none", "sum")'),
    "DKD: label stays among the others": (DKD, "others + (others >= labels)", "others"),
    "DKD: binary logits without tau": (DKD, "(rest / self.tau).logsumexp", "rest.logsumexp"),
    "DKD: 1 - p by subtraction": (
        DKD,
        "torch.cat((target, (rest / self.tau).logsumexp(1, keepdim=True)), 1)",
        "torch.cat(((p := (logits / self.tau).softmax(1).gather(1, labels)), 1 - p), 1).log()",
    ),
    "DKD: arguments swapped": (DKD, "scaled_kl(u_rest, v_rest,", "scaled_kl(v_rest, u_rest,"),
    "DKD: binary arguments swapped": (DKD, "scaled_kl(u, v,", "scaled_kl(v, u,"),
    "DKD: float32 inside": (DKD, "logits = logits.double()", "logits = logits.float()"),
    "DIST: tau^2 dropped": (DIST, "self.tau**2 * (self.beta", "(self.beta"),
    "DIST: relations swapped": (
        DIST,
        "self._distance(p, q, 1).mean()",
        "self._distance(p, q, 0).mean()",
    ),
    "DIST: not centred": (DIST, "centred = p - p.mean(dim, keepdim=True)", "centred = p"),
    "DIST: eps ignored": (DIST, "(self.eps + product", "(0 + product"),
    "DIST: eps not in the sum": (DIST, "/ (product + self.eps)", "/ product"),
    "DIST: half dropped": (DIST, ".square().sum(dim) / 2", ".square().sum(dim)"),
    "DIST: logits, not probabilities": (DIST, "/ self.tau).softmax(1)", "/ self.tau)"),
    "DIST: cancelling": (DIST, "(a - b).square().sum(dim) / 2", "(1 - (a * b).sum(dim))"),
    "DIST: squares of tiny numbers": (
        DIST,
        "centred.detach().abs().amax(dim, keepdim=True)",
        "(centred.detach().abs().amax(dim, keepdim=True) > 0).double()",
    ),
    "DIST: constant is near": (DIST, "distance.masked_fill(b_norm == 0, 1.0)", "distance"),
    "DIST: no gradient where constant": (DIST, "(p * b).sum(dim)", "0 * (p * b).sum(dim)"),
    "standardization: equal logits are divided": (STD, ".masked_fill(equal, 1.0)", ""),
    "DIST: rounding is variation": (DIST, "4 * torch.finfo(p.dtype).eps", "0"),
    "standardization: none": (STD, "self._standardise(u, dim)", "u"),
    "standardization: not the teacher": (STD, "self._standardise(v, dim)", "v"),
    "standardization: deviation detached": (
        STD,
        "logits.std(dim, keepdim=True)",
        "logits.std(dim, keepdim=True).detach()",
    ),
    "standardization: K": (
        STD,
        "logits.std(dim, keepdim=True)",
        "logits.std(dim, False, keepdim=True)",
    ),
    "standardization: variance": (STD, "logits.std(", "logits.var("),
    "standardization: not centred": (STD, "logits - logits.mean(dim, keepdim=True)", "logits"),
    "standardization: eps": (STD, " + self.eps)", ")"),
    "standardization: last dimension": (STD, "logits.std(dim,", "logits.std(-1,"),
    "standardization: no labels": (STD, "teacher, *labels, **kwargs", "teacher, **kwargs"),
}


def survives(losses, monkeypatch, file):
    """Say whether a file's tests pass with the classes of the module ``losses``."""
    monkeypatch.setattr(common, "ours", losses)
    for tests in (common, mse, kl, module, dkd, dist, std):
        for name in losses.__all__:
            if hasattr(tests, name):
                monkeypatch.setattr(tests, name, getattr(losses, name))
    for test in TESTS[file]:
        try:
            test()
        except (AssertionError, pytest.fail.Exception, ValueError, RuntimeError):
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


@pytest.mark.parametrize("file", TESTS)
def test_the_copy_survives(file, import_copy, monkeypatch):
    copy = import_copy()
    assert copy.ScaledKLDivLoss is not mmkd_logit.losses.ScaledKLDivLoss
    assert survives(copy, monkeypatch, file)


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_survives(name, import_copy, monkeypatch):
    assert not survives(import_copy(*MUTANTS[name]), monkeypatch, MUTANTS[name][0])
