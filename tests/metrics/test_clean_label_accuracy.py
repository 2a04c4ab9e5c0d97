import pytest
import torch
from mmengine.registry import EVALUATOR
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample

from mmkd_logit.metrics import CleanLabelAccuracy


def samples(count=200, classes=10, seed=0):
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


def evaluate(made, *metrics):
    evaluator = EVALUATOR.build(dict(type="Evaluator", metrics=list(metrics)))
    for begin in range(0, len(made), 64):
        evaluator.process(made[begin : begin + 64])
    return evaluator.evaluate(len(made))


def in_top(scores, labels, k):
    ranks = (scores > scores.gather(1, labels[:, None])).sum(1)
    return 100 * (ranks < k).float().mean().item()


def test_beside_accuracy():
    made, scores, noisy, clean = samples()
    settings = dict(topk=(1, 5))
    result = evaluate(
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


def test_samples_without_a_clean_label_count_with_theirs():
    made, *_ = samples()
    for sample in made:
        del sample.clean_label
    result = evaluate(made, CleanLabelAccuracy(topk=(1, 5)), Accuracy(topk=(1, 5)))
    assert result["accuracy/clean_top1"] == result["accuracy/top1"]
    assert result["accuracy/clean_top5"] == result["accuracy/top5"]


def test_predicted_labels_alone():
    made = [DataSample().set_gt_label(0).set_pred_label(label) for label in (0, 1, 2, 1)]
    for sample in made:
        sample.set_field(1, "clean_label", field_type="metainfo")
    assert evaluate(made, CleanLabelAccuracy()) == {"accuracy/clean_top1": 50.0}


def test_the_samples_are_left_as_they_were():
    made, _, noisy, _ = samples(8)
    evaluate(made, CleanLabelAccuracy())
    assert [int(sample.gt_label) for sample in made] == noisy.tolist()
