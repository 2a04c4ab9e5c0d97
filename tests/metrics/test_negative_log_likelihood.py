import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of, softmax
from sklearn.metrics import log_loss

from mmkd_logit.metrics import NegativeLogLikelihood


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("of", "field", "key"),
    [("student", "logits", "nll"), ("teacher", "teacher_logits", "teacher_nll")],
)
def test_equals_scikit_learn(of, field, key, seed):
    case = logit_case(seed)
    expected = log_loss(case.gt_label, softmax(getattr(case, field)), labels=range(10))
    found = evaluate(NegativeLogLikelihood(of=of), samples_of(case))
    assert found == {f"calibration/{key}": pytest.approx(expected, rel=1e-9)}


def nll(logits, label):
    sample = dict(logits=torch.tensor(logits), gt_label=torch.tensor([label]))
    (value,) = evaluate(NegativeLogLikelihood(), [sample]).values()
    return value


def test_closed_forms():
    assert nll([0.0] * 8, 5) == pytest.approx(np.log(8), rel=1e-14)
    assert nll([2.0, 0.0], 0) == pytest.approx(np.log1p(np.exp(-2)), rel=1e-14)


def test_finite_where_the_probability_is_0():
    assert nll([1000.0, 0.0], 1) == 1000
    assert nll([1000.0, 0.0], 0) == 0


def test_wrong_of():
    with pytest.raises(ValueError, match="of must be one of 'student', 'teacher', got 'both'"):
        NegativeLogLikelihood(of="both")
