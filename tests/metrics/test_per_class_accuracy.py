import json
import os

import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of
from sklearn.metrics import balanced_accuracy_score, recall_score

from mmkd_logit.metrics import PerClassAccuracy


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed):
    case = logit_case(seed)
    predicted = case.logits.argmax(1)
    recall = 100 * recall_score(case.gt_label, predicted, average=None, labels=range(10))
    found = evaluate(PerClassAccuracy(), samples_of(case))
    assert found == pytest.approx(
        {
            "class_accuracy/mean": 100 * balanced_accuracy_score(case.gt_label, predicted),
            "class_accuracy/std": np.sqrt(((recall - recall.mean()) ** 2).mean()),
            "class_accuracy/min": recall.min(),
        },
        rel=1e-12,
    )
    macro = 100 * recall_score(case.gt_label, predicted, average="macro")
    assert found["class_accuracy/mean"] == pytest.approx(macro, rel=1e-12)
    accuracy = 100 * (predicted == case.gt_label).mean()
    assert found["class_accuracy/mean"] != pytest.approx(accuracy)


def predictions(pairs, num_classes=4):
    return [
        dict(
            logits=torch.nn.functional.one_hot(torch.tensor(predicted), num_classes).float(),
            gt_label=torch.tensor([label]),
        )
        for predicted, label in pairs
    ]


BY_HAND = [(0, 0), (1, 0), (1, 0), (3, 0), (1, 1), (3, 3), (2, 3)]  # no sample of class 2


def test_classes_without_samples_do_not_count(tmp_path):
    file = tmp_path / "deep" / "classes.json"
    found = evaluate(PerClassAccuracy(file), predictions(BY_HAND))
    assert found == pytest.approx(
        {
            "class_accuracy/mean": 175 / 3,
            "class_accuracy/std": np.std([25, 100, 50]),
            "class_accuracy/min": 25,
        }
    )
    assert json.loads(file.read_text()) == dict(accuracy=[25, 100, None, 50], samples=[4, 1, 0, 2])
    assert os.listdir(file.parent) == ["classes.json"]


def test_names_of_classes_are_written_and_the_file_is_renewed(tmp_path):
    file = tmp_path / "classes.json"
    metric = PerClassAccuracy(str(file))
    metric.dataset_meta = dict(classes=("ape", "bee", "cat", "dog"))
    evaluate(metric, predictions(BY_HAND))
    evaluate(metric, predictions([(1, 2)]))
    assert json.loads(file.read_text()) == dict(
        accuracy=[None, None, 0, None],
        samples=[0, 0, 1, 0],
        classes=["ape", "bee", "cat", "dog"],
    )


def test_of_equal_logits_the_first_is_predicted():
    samples = [dict(logits=torch.zeros(3), gt_label=torch.tensor([y])) for y in (0, 1)]
    found = evaluate(PerClassAccuracy(), samples)
    assert found["class_accuracy/mean"] == 50


def test_wrong_file():
    with pytest.raises(ValueError, match=r"out_file must end with .json, got 'classes.txt'"):
        PerClassAccuracy("classes.txt")
