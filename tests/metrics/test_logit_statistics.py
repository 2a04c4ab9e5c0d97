import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of, softmax
from scipy.stats import entropy

from mmkd_logit.metrics import LogitStatistics


def margin(logits, labels):
    return np.mean(
        [
            u[y] - max(u[k] for k in range(len(u)) if k != y)
            for u, y in zip(logits, labels, strict=True)
        ]
    )


@pytest.mark.parametrize("label", ["gt_label", "clean_label"])
@pytest.mark.parametrize("integers", [False, True])
def test_equals_the_definitions(label, integers):
    case = logit_case(0, integers=integers)
    u, v = case.logits.astype(np.float64), case.teacher_logits.astype(np.float64)
    y = getattr(case, label)
    expected = {
        "sum_mean": u.sum(1).mean(),
        "sum_std": np.sqrt((u.sum(1) ** 2).mean() - u.sum(1).mean() ** 2),
        "teacher_sum_mean": v.sum(1).mean(),
        "sum_deviation": sum(abs(sum(a) - sum(b)) for a, b in zip(u, v, strict=True)) / len(u),
        "norm": np.mean([np.sqrt(r @ r) for r in case.prelogits.astype(np.float64)]),
        "entropy": entropy(softmax(u), axis=1).mean(),
        "tld": margin(u, y),
        "teacher_entropy": entropy(softmax(v), axis=1).mean(),
        "teacher_tld": margin(v, y),
    }
    found = evaluate(LogitStatistics(label=label), samples_of(case))
    assert found == pytest.approx({f"logits/{k}": x for k, x in expected.items()}, rel=1e-9)
    assert margin(u, case.gt_label) != pytest.approx(margin(u, case.clean_label))


def of_one(logits, label=0, **more):
    sample = dict(logits=torch.tensor(logits), gt_label=torch.tensor([label]), **more)
    return evaluate(LogitStatistics(), [sample])


def test_margin_by_hand():
    """Of the label, to the best other class: not to the best of all, nor of the predicted."""
    assert of_one([5.0, 3.0, -1.0], 0)["logits/tld"] == 2
    assert of_one([5.0, 3.0, -1.0], 1)["logits/tld"] == -2
    assert of_one([5.0, 3.0, -1.0], 2)["logits/tld"] == -6
    assert of_one([5.0, 5.0, -1.0], 1)["logits/tld"] == 0
    assert of_one([-5.0, -7.0], 0)["logits/tld"] == 2


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_entropy_of_the_uniform_guess(classes):
    assert of_one([3.0] * classes)["logits/entropy"] == pytest.approx(np.log(classes), rel=1e-12)


def test_entropy_of_certainty_is_0():
    """The other probabilities are 0 in float64 too; 0 times a large logarithm is 0."""
    assert of_one([2000.0, 0.0, -1000.0])["logits/entropy"] == 0


def test_sums_by_hand():
    teacher = dict(teacher_logits=torch.tensor([1.0, 1.0, 2.0]))
    samples = [
        dict(logits=torch.tensor([a, 0.0, 1.0]), gt_label=torch.tensor([1]), **teacher)
        for a in (1.0, 5.0)
    ]
    found = evaluate(LogitStatistics(), samples)
    # Sums 2 and 6; deviations from 4 that would cancel without absolute values.
    assert found["logits/sum_mean"] == 4
    assert found["logits/sum_std"] == 2
    assert found["logits/teacher_sum_mean"] == 4
    assert found["logits/sum_deviation"] == 2


def test_what_is_not_there_is_left_out():
    case = logit_case(1)
    whole = evaluate(LogitStatistics(), samples_of(case))
    plain = evaluate(LogitStatistics(), samples_of(case, "teacher_logits"))
    assert set(whole) - set(plain) == {
        "logits/teacher_sum_mean",
        "logits/sum_deviation",
        "logits/teacher_entropy",
        "logits/teacher_tld",
    }
    bare = evaluate(LogitStatistics(), samples_of(case, "teacher_logits", "prelogits"))
    assert set(plain) - set(bare) == {"logits/norm"}
    assert {key: whole[key] for key in bare} == bare


def test_without_a_clean_label_the_other_counts():
    case = logit_case(2)
    metric = LogitStatistics(label="clean_label")
    found = evaluate(metric, samples_of(case, "clean_label"))
    assert found == evaluate(LogitStatistics(), samples_of(case))


def test_one_class():
    with pytest.raises(ValueError, match="needs two classes or more, got one logit a sample"):
        of_one([1.0])


def test_wrong_label():
    with pytest.raises(
        ValueError, match="label must be one of 'gt_label', 'clean_label', got 'noisy'"
    ):
        LogitStatistics(label="noisy")
