import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of, softmax
from scipy.stats import entropy
from scipy.stats.mstats import mquantiles
from sklearn.metrics.pairwise import paired_euclidean_distances
from torchmetrics.functional.classification import multiclass_accuracy

from mmkd_logit.metrics import (
    LogitDistance,
    LogitStatistics,
    TeacherAccuracy,
    TeacherAgreement,
)


def preferred(logits, k):
    """The classes of the k largest; Python's sort is stable."""
    return set(sorted(range(len(logits)), key=lambda c: -logits[c])[:k])


def by_sets(case, k):
    shares = [
        len(preferred(u, k) & preferred(v, k)) / k
        for u, v in zip(case.logits, case.teacher_logits, strict=True)
    ]
    return 100 * np.mean(shares)


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_agreement_equals_that_of_the_sets(seed, integers):
    case = logit_case(seed, num_classes=7, integers=integers)
    ties = np.mean([len(set(u)) < 7 for u in case.logits])
    assert (ties > 0.9) == integers
    found = evaluate(TeacherAgreement(topk=(1, 2, 5, 6, 7)), samples_of(case))
    expected = {f"agreement/top{k}": by_sets(case, k) for k in (1, 2, 5, 6, 7)}
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["agreement/top7"] == 100
    assert 40 < found["agreement/top1"] < 90


def test_accuracy_of_the_teacher():
    case = logit_case(3)
    teacher, label = torch.from_numpy(case.teacher_logits), torch.from_numpy(case.gt_label)
    expected = multiclass_accuracy(teacher, label, num_classes=10, average="micro")
    found = evaluate(TeacherAccuracy(), samples_of(case))
    assert found == {"accuracy/teacher_top1": pytest.approx(100 * expected.item(), rel=1e-6)}
    assert evaluate(TeacherAccuracy(), samples_of(case, "teacher_logits")) == {}


@pytest.mark.parametrize("num_classes", [3, 100, 1000])
def test_of_equal_logits_the_first_count(num_classes):
    level = torch.zeros(num_classes)
    first = torch.arange(num_classes, 0, -1.0)
    found = evaluate(TeacherAgreement((1, 2)), [dict(logits=level, teacher_logits=first)])
    assert found == {"agreement/top1": 100, "agreement/top2": 100}
    last = dict(logits=level, teacher_logits=-first)
    assert evaluate(TeacherAgreement(1), [last]) == {"agreement/top1": 0}
    # The second place is shared by all but one.
    one = level.clone()
    one[num_classes - 1] = 1
    found = evaluate(TeacherAgreement((1, 2)), [dict(logits=one, teacher_logits=-first)])
    assert found == {"agreement/top1": 100, "agreement/top2": 50 if num_classes > 2 else 100}


def test_more_than_there_are_classes():
    sample = dict(logits=torch.zeros(4), teacher_logits=torch.zeros(4))
    with pytest.raises(ValueError, match=r"has topk=5 and the network 4 classes; leave out"):
        TeacherAgreement((1, 5)).process(None, [sample])


@pytest.mark.parametrize(
    ("num_classes", "counts"), [(2, [1]), (5, [1]), (6, [1, 5]), (100, [1, 5])]
)
def test_the_default_fits_the_classes(num_classes, counts):
    sample = dict(logits=torch.zeros(num_classes), teacher_logits=torch.zeros(num_classes))
    found = evaluate(TeacherAgreement(), [sample])
    assert found == {f"agreement/top{k}": 100 for k in counts}


@pytest.mark.parametrize("topk", [0, (), (1, 1), (1, -5), (2.0,), "15", True, (True,)])
def test_wrong_topk(topk):
    with pytest.raises(ValueError, match="topk must be different integers from 1 on, got"):
        TeacherAgreement(topk)


@pytest.mark.parametrize(("seed", "n"), [(0, 200), (1, 101), (2, 2), (3, 1)])
def test_distances_equal_scikit_learns_and_scipys(seed, n):
    case = logit_case(seed, n=n)
    distances = paired_euclidean_distances(
        case.logits.astype(np.float64), case.teacher_logits.astype(np.float64)
    )
    places = (0.05, 0.25, 0.5, 0.75, 0.95)
    expected = dict(
        zip(
            ["distance/mean", *(f"distance/q{q}" for q in ("05", "25", "50", "75", "95"))],
            [distances.mean(), *mquantiles(distances, places, alphap=1, betap=1)],
            strict=True,
        )
    )
    assert evaluate(LogitDistance(), samples_of(case)) == pytest.approx(expected, rel=1e-10)


def test_distances_by_hand():
    """Distances 5, 2, 13, 0."""
    pairs = [
        ([3, 4, 0], [0, 0, 0]),
        ([1, 1, 1], [1, 3, 1]),
        ([5, 0, 0], [0, 0, 12]),
        ([7] * 3,) * 2,
    ]
    samples = [
        dict(logits=torch.tensor(u).float(), teacher_logits=torch.tensor(v).float())
        for u, v in pairs
    ]
    found = evaluate(LogitDistance((0, 0.5, 1)), samples)
    assert found == {
        "distance/mean": 5,
        "distance/q00": 0,
        "distance/q50": 3.5,
        "distance/q100": 13,
    }


def test_close_logits_keep_their_digits():
    """Their difference of 2^-10 is exact; a difference of squares in float32 would be 0."""
    u = torch.full((4,), 2.0**12)
    v = u + 2.0**-10
    found = evaluate(LogitDistance(()), [dict(logits=u, teacher_logits=v)])
    assert found == {"distance/mean": 2 * 2.0**-10}


def test_names_of_quantiles():
    metric = LogitDistance((0.005, 0.07, 0.975))
    assert list(metric.quantiles) == ["q0.5", "q07", "q97.5"]


@pytest.mark.parametrize(
    "quantiles", [(0.5, 0.5), (-0.1,), (1.1,), ("0.5",), (float("nan"),), (True,), (0.5, None)]
)
def test_wrong_quantiles(quantiles):
    with pytest.raises(ValueError, match=r"quantiles must be different numbers in \[0, 1\], got"):
        LogitDistance(quantiles)


def margin(logits, labels):
    return np.mean(
        [
            u[y] - max(u[k] for k in range(len(u)) if k != y)
            for u, y in zip(logits, labels, strict=True)
        ]
    )


@pytest.mark.parametrize("label", ["gt_label", "clean_label"])
@pytest.mark.parametrize("integers", [False, True])
def test_statistics_equal_the_definitions(label, integers):
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


def test_entropy_of_certainty_is_0():
    """The other probabilities are 0 in float64 too; 0 times a large logarithm is 0."""
    assert of_one([2000.0, 0.0, -1000.0])["logits/entropy"] == 0


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
