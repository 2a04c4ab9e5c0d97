import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of
from torchmetrics.functional.classification import multiclass_accuracy

from mmkd_logit.metrics import TeacherAccuracy, TeacherAgreement


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
def test_equals_the_sets(seed, integers):
    case = logit_case(seed, num_classes=7, integers=integers)
    ties = np.mean([len(set(u)) < 7 for u in case.logits])
    assert (ties > 0.9) == integers
    found = evaluate(TeacherAgreement(topk=(1, 2, 5, 6, 7)), samples_of(case))
    expected = {f"agreement/top{k}": by_sets(case, k) for k in (1, 2, 5, 6, 7)}
    assert found == pytest.approx(expected, rel=1e-12)
    assert found["agreement/top7"] == 100
    assert 40 < found["agreement/top1"] < 90


def test_top1_is_the_accuracy_against_the_teachers_prediction():
    case = logit_case(3)
    student, teacher = torch.from_numpy(case.logits), torch.from_numpy(case.teacher_logits)
    expected = multiclass_accuracy(student, teacher.argmax(1), num_classes=10, average="micro")
    found = evaluate(TeacherAgreement(topk=1), samples_of(case))
    assert found == {"agreement/top1": pytest.approx(100 * expected.item(), rel=1e-6)}


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
