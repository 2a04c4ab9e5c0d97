import json
import os

import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, samples_of
from mmengine.registry import EVALUATOR
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from mmkd_logit.metrics import CleanLabelAccuracy, NoisyLabelAccuracy, PerClassAccuracy


@pytest.mark.parametrize("seed", range(3))
def test_classes_equal_scikit_learns(seed):
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
def test_noisy_and_clean_equal_scikit_learns(seed):
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


def predicted_samples(count=200, classes=10, seed=0):
    """Predictions with a noisy and a clean label, as a model returns them."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, classes, generator=generator)
    noisy, clean = torch.randint(classes, (2, count), generator=generator)
    made = []
    for score, label, true in zip(scores, noisy, clean, strict=True):
        sample = DataSample().set_gt_label(int(label)).set_pred_score(score)
        sample.set_field(int(true), "clean_label", field_type="metainfo")
        made.append(sample)
    return made, scores, noisy, clean


def evaluated(made, *metrics):
    evaluator = EVALUATOR.build(dict(type="Evaluator", metrics=list(metrics)))
    for begin in range(0, len(made), 64):
        evaluator.process(made[begin : begin + 64])
    return evaluator.evaluate(len(made))


def in_top(scores, labels, k):
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    return 100 * (ranks < k).float().mean().item()


def test_beside_accuracy():
    made, scores, noisy, clean = predicted_samples()
    settings = dict(topk=(1, 5))
    result = evaluated(
        made,
        dict(type="mmpretrain.Accuracy", **settings),
        dict(type="mmkd_logit.CleanLabelAccuracy", **settings),
    )
    assert result == pytest.approx(
        {
            "accuracy/top1": in_top(scores, noisy, 1),
            "accuracy/top5": in_top(scores, noisy, 5),
            "accuracy/clean_top1": in_top(scores, clean, 1),
            "accuracy/clean_top5": in_top(scores, clean, 5),
        }
    )
    assert result["accuracy/top5"] != result["accuracy/clean_top5"]


def test_predictions_without_a_clean_label_count_with_theirs():
    made, *_ = predicted_samples()
    for sample in made:
        del sample.clean_label
    result = evaluated(made, CleanLabelAccuracy(topk=(1, 5)), Accuracy(topk=(1, 5)))
    assert result["accuracy/clean_top1"] == result["accuracy/top1"]
    assert result["accuracy/clean_top5"] == result["accuracy/top5"]


def test_predicted_labels_alone():
    made = [DataSample().set_gt_label(0).set_pred_label(label) for label in (0, 1, 2, 1)]
    for sample in made:
        sample.set_field(1, "clean_label", field_type="metainfo")
    assert evaluated(made, CleanLabelAccuracy()) == {"accuracy/clean_top1": 50.0}


def test_samples_keep_their_noisy_label():
    made, _, noisy, _ = predicted_samples(8)
    evaluated(made, CleanLabelAccuracy())
    assert [int(sample.gt_label) for sample in made] == noisy.tolist()
