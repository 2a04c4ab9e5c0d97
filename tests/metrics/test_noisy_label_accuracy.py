import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of
from sklearn.metrics import accuracy_score

from mmkd_logit.metrics import NoisyLabelAccuracy


def of(*triples, num_classes=4):
    """Metrics of (predicted, label, clean label)."""
    samples = [
        dict(
            logits=torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float(),
            gt_label=torch.tensor([label]),
            **({} if clean is None else dict(clean_label=clean)),
        )
        for predicted, label, clean in triples
    ]
    found = evaluate(NoisyLabelAccuracy(), samples, batch_size=2)
    return {key.removeprefix("noisy/"): value for key, value in found.items()}


@pytest.mark.parametrize("seed", range(2))
def test_equals_scikit_learn(seed):
    case = logit_case(seed, n=400)
    predicted, noisy, clean = case.logits.argmax(1), case.gt_label, case.clean_label
    wrong = noisy != clean
    assert 50 < wrong.sum() < 200
    expected = {
        "noisy/top1": accuracy_score(noisy, predicted),
        "noisy/clean_top1": accuracy_score(clean, predicted),
        "noisy/wrong_memorized": accuracy_score(noisy[wrong], predicted[wrong]),
        "noisy/wrong_recovered": accuracy_score(clean[wrong], predicted[wrong]),
    }
    assert len(set(expected.values())) == 4
    found = evaluate(NoisyLabelAccuracy(), samples_of(case))
    assert found == pytest.approx({key: 100 * x for key, x in expected.items()}, rel=1e-12)


def test_by_hand():
    right = [(0, 0, 0), (1, 1, 1), (2, 1, 1)]
    wrong = [(1, 1, 0), (0, 1, 0), (0, 2, 0), (3, 3, 2), (3, 1, 2)]
    assert of(*right, *wrong) == {
        "top1": 50,  # two of the right, two of the wrong
        "clean_top1": 50,
        "wrong_memorized": 40,
        "wrong_recovered": 40,
    }


def test_clean_data_have_no_such_accuracy():
    assert of((0, 0, None), (1, 0, None), (1, 1, None)) == {}


def test_where_no_label_is_wrong_there_is_none_to_learn():
    assert of((0, 0, 0), (1, 0, 0)) == {"top1": 50, "clean_top1": 50}


@pytest.mark.parametrize("order", [1, -1])
def test_samples_without_a_clean_label_count_as_right(order):
    """In one batch with others and in one of their own, first or last."""
    samples = [(0, 0, None), (1, 0, None), (1, 2, None), (3, 3, 2), (2, 2, 2)][::order]
    assert of(*samples) == pytest.approx(
        {
            "top1": 60,
            "clean_top1": 40,
            "wrong_memorized": 100,
            "wrong_recovered": 0,
        }
    )
