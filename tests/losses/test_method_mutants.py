"""The tests of the newer losses fail for every one of these wrong losses; see test_mutants."""

from functools import partial

import pytest
from losses import test_dist_loss as dist
from losses import test_dkd_loss as dkd
from losses import test_logit_standardization as std
from losses.test_mutants import import_copy  # noqa: F401 (a fixture)

TESTS = [
    partial(dkd.test_equals_the_definition, 4, 1, 8),
    partial(dkd.test_equals_the_definition, 1, 2, 0),
    dkd.test_sure_networks_keep_their_digits,
    dkd.test_gradient_is_the_formulas,
    dkd.test_reductions,
    dkd.test_teacher_receives_no_gradient,
    dkd.test_zero_where_equal,
    partial(dist.test_equals_scipys_correlation, 2, 3, 4),
    partial(dist.test_eps_is_added_to_the_product_of_the_norms, 0.1),
    dist.test_close_networks_keep_their_digits,
    dist.test_tiny_probabilities_stay_finite,
    partial(dist.test_constant_vectors_have_distance_one, 7, 0),
    dist.test_teacher_receives_no_gradient,
    partial(std.test_equals_scipy, 2),
    std.test_eps_is_added_to_the_deviation,
    partial(std.test_positive_affine_maps_of_a_sample_change_nothing, 0),
    std.test_gradient_passes_through_mean_and_deviation,
    std.test_labels_reach_the_base_loss,
    partial(std.test_equal_logits_are_only_centred, 3.0),
    std.test_class_dim_is_the_base_losss,
    std.test_teacher_receives_no_gradient,
]

DKD, DIST, STD = "dkd.py", "dist.py", "standardization.py"
MUTANTS = {
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
    "DKD: teacher not detached": (DKD, "teacher_logits.detach()", "teacher_logits"),
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
    "DIST: logits, not probabilities": (DIST, ".softmax(1)\n        q", "\n        q"),
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
    "DIST: teacher not detached": (DIST, "teacher_logits.detach()", "teacher_logits"),
    "standardization: none": (STD, "self._standardise(student_logits, dim)", "student_logits"),
    "standardization: not the teacher": (
        STD,
        "self._standardise(teacher_logits.detach(), dim)",
        "teacher_logits.detach()",
    ),
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
    "standardization: teacher not detached": (STD, "teacher_logits.detach()", "teacher_logits"),
}


def survives(losses, monkeypatch):
    for tests in (dkd, dist, std):
        for name in ("DKDLoss", "DISTLoss", "LogitStandardization", "LogitMSELoss"):
            if hasattr(tests, name):
                monkeypatch.setattr(tests, name, getattr(losses, name))
    for test in TESTS:
        try:
            test()
        except (AssertionError, pytest.fail.Exception, ValueError, RuntimeError):
            return False
    return True


def test_the_copy_survives(import_copy, monkeypatch):  # noqa: F811
    copy = import_copy()
    assert copy.DKDLoss is not dkd.DKDLoss
    assert survives(copy, monkeypatch)


@pytest.mark.parametrize("name", MUTANTS)
def test_no_mutant_survives(name, import_copy, monkeypatch):  # noqa: F811
    assert not survives(import_copy(*MUTANTS[name]), monkeypatch)
