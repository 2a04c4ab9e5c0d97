import itertools

import numpy as np
import pytest
import torch
from logit_samples import evaluate, logit_case, softmax
from logit_samples import samples_of as logit_samples
from mmengine.registry import METRICS
from mmpretrain.structures import DataSample
from runs import digits_distiller, train
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import multiclass_calibration_error

from mmkd_logit.metrics import ExpectedCalibrationError


def samples_of(scores, labels):
    return [
        DataSample().set_pred_score(torch.as_tensor(s)).set_gt_label(int(y)).to_dict()
        for s, y in zip(scores, labels, strict=True)
    ]


def ece(scores, labels, batch_size=None, **kwargs):
    metric = METRICS.build(dict(type="mmkd_logit.ExpectedCalibrationError", **kwargs))
    samples = samples_of(scores, labels)
    size = batch_size or len(samples)
    for start in range(0, len(samples), size):
        metric.process({}, samples[start : start + size])
    (value,) = metric.evaluate(len(samples)).values()
    return value


def brute_force(scores, labels, num_bins=15):
    """The definition, sample by sample and bin by bin."""
    confidence, predicted = scores.astype(np.float64).max(1), scores.argmax(1)
    total = 0.0
    for b in range(num_bins):
        inside = [
            i
            for i, c in enumerate(confidence)
            if b / num_bins < c <= (b + 1) / num_bins or (b == 0 and c == 0)
        ]
        if inside:
            accuracy = np.mean([predicted[i] == labels[i] for i in inside])
            mean = np.mean([confidence[i] for i in inside])
            total += len(inside) / len(labels) * abs(accuracy - mean)
    return 100 * total


def random_case(seed, n=500, num_classes=10, scale=3.0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, num_classes)) * scale
    labels = np.where(
        generator.random(n) < 0.5, logits.argmax(1), generator.integers(num_classes, size=n)
    )
    exp = np.exp(logits - logits.max(1, keepdims=True))
    return (exp / exp.sum(1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("num_bins", [1, 2, 10, 15, 100])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition(seed, num_bins):
    scores, labels = random_case(seed)
    expected = brute_force(scores, labels, num_bins)
    assert 1 < expected < 60
    assert ece(scores, labels, num_bins=num_bins) == pytest.approx(expected, rel=1e-9)


def two(confidence):
    return np.array([confidence, 1 - confidence])


@pytest.mark.parametrize("num_bins", [2, 3, 7, 15, 49, 100])
def test_an_edge_belongs_to_the_bin_below_it(num_bins):
    """At each edge, one there is right, and one half a bin above it is wrong."""
    for edge in np.arange(1, num_bins) / num_bins:
        above = edge + 0.5 / num_bins
        found = ece(np.array([[edge, 0.0], [above, 0.0]]), [0, 1], num_bins=num_bins)
        assert found == pytest.approx(50 * (1 - edge + above))


def test_the_ends_are_in_the_first_and_the_last_bin():
    assert ece(torch.tensor([[0.0, 0.0]]), [0]) == 100
    assert ece(torch.tensor([[1.0 + 1e-6, 0.0]]), [0]) == 0


def test_half_precision_scores():
    scores, labels = random_case(2)
    half = torch.from_numpy(scores).half()
    assert ece(half, labels) == pytest.approx(brute_force(half.numpy(), labels), rel=1e-9)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (dict(gt_label=torch.tensor([0])), "needs pred_score"),
        (dict(pred_score=torch.ones(2), gt_label=torch.tensor([0, 1])), "one label a sample"),
        (dict(pred_score=torch.ones(2, 2), gt_label=torch.tensor([0])), "one vector of pred_score"),
        (dict(pred_score=torch.tensor([3.0, -3.0]), gt_label=torch.tensor([0])), "probabilities"),
        (dict(pred_score=torch.tensor([-3.0]), gt_label=torch.tensor([0])), "probabilities"),
        (dict(pred_score=torch.tensor([float("nan")]), gt_label=torch.tensor([0])), "finite"),
    ],
)
def test_wrong_samples(sample, words):
    with pytest.raises(ValueError, match=words):
        ExpectedCalibrationError().process({}, [sample])


def test_in_a_run_beside_the_accuracy(tmp_path):
    evaluator = [dict(type="Accuracy"), dict(type="mmkd_logit.ExpectedCalibrationError")]
    settings = dict(val_evaluator=evaluator, test_evaluator=evaluator)
    runner = train(digits_distiller(), tmp_path, epochs=1, images=50, **settings)
    metrics = runner.test()
    scores, labels = [], []
    runner.model.eval()
    with torch.no_grad():
        for batch in runner.test_dataloader:
            for sample in runner.model.test_step(batch):
                scores.append(sample.pred_score.numpy())
                labels.append(int(sample.gt_label))
    assert len(labels) == 50
    expected = brute_force(np.stack(scores), np.array(labels))
    assert metrics["calibration/ece"] == pytest.approx(expected, rel=1e-6)
    assert "accuracy/top1" in metrics


def adaptive(confidence, right, num_bins):
    """Equal numbers in each bin, by counting; for confidences that all differ."""
    order = np.argsort(confidence)
    n = len(order)
    # The first bin ends where at least n / B samples are in it, and so on.
    ends = [-(-n * b // num_bins) for b in range(num_bins + 1)]
    parts = [order[a:b] for a, b in itertools.pairwise(ends) if b > a]
    return 100 / n * sum(abs(right[part].sum() - confidence[part].sum()) for part in parts)


def judged(scores, labels):
    return scores.astype(np.float64).max(1), (scores.argmax(1) == labels).astype(float)


@pytest.mark.parametrize(("n", "num_bins"), [(500, 15), (37, 10), (10, 10), (7, 15), (20, 1)])
def test_equal_mass(n, num_bins):
    scores, labels = random_case(0, n=n)
    confidence, right = judged(scores, labels)
    assert len(set(confidence)) == n
    found = ece(scores, labels, 16, num_bins=num_bins, binning="mass")
    assert found == pytest.approx(adaptive(confidence, right, num_bins), rel=1e-9)
    if num_bins == 1 or n <= num_bins:
        expected = np.abs((right - confidence).mean() if num_bins == 1 else right - confidence)
        assert found == pytest.approx(100 * np.mean(expected), rel=1e-9)
    else:
        assert found != pytest.approx(ece(scores, labels, num_bins=num_bins))


@pytest.mark.parametrize("seed", range(3))
def test_equal_mass_as_of_scikit_learn(seed):
    """Its quantiles are samples where B divides n - 1 (B = 2^4, so that the place of each is
    exact); the first bin has one more."""
    num_bins, each = 16, 20
    scores, labels = random_case(seed, n=num_bins * each + 1)
    confidence, right = judged(scores, labels)
    share, mean = calibration_curve(right, confidence, n_bins=num_bins, strategy="quantile")
    size = np.array([each + 1] + [each] * (num_bins - 1))
    expected = 100 * (size * np.abs(share - mean)).sum() / size.sum()
    found = ece(scores, labels, num_bins=num_bins, binning="mass")
    assert found == pytest.approx(expected, rel=1e-9)


def test_equal_confidences_are_in_one_bin_in_any_order():
    """Five of 0.6 and one of 0.9, in two bins: the five would be parted after the third."""
    scores, labels = np.stack([two(0.6)] * 5 + [two(0.9)]), np.array([0, 0, 0, 1, 1, 0])
    # All five: 3 of 5 are right, as they should be. Parted they would be 3 of 3 and 0 of 2.
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 5, 4, 1, 2]):
        found = ece(scores[order], labels[order], num_bins=2, binning="mass")
        assert found == pytest.approx(100 / 6 * 0.1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_bins", [10, 15])
@pytest.mark.parametrize("of", ["student", "teacher"])
def test_equals_torchmetrics(of, num_bins, seed):
    case = logit_case(seed, n=300)
    logits = case.logits if of == "student" else case.teacher_logits
    expected = multiclass_calibration_error(
        torch.from_numpy(softmax(logits)),
        torch.from_numpy(case.gt_label),
        num_classes=10,
        n_bins=num_bins,
        norm="l1",
    )
    metric = ExpectedCalibrationError(num_bins, of=of)
    (found,) = evaluate(metric, logit_samples(case)).values()
    assert found == pytest.approx(100 * expected.item(), rel=1e-6)
    assert found > 1


def test_names_of_all_four():
    case = logit_case(1, n=300)
    # Right where the teacher is least and most certain: one sign of error would give one sum.
    confidence = softmax(case.teacher_logits).max(1)
    right = (confidence < 0.7) | (confidence > 0.95)
    best = case.teacher_logits.argmax(1)
    case.gt_label = np.where(right, best, (best + 1) % 10)
    found = {}
    for of in ("student", "teacher"):
        for binning in ("width", "mass"):
            metric = ExpectedCalibrationError(of=of, binning=binning)
            found.update(evaluate(metric, logit_samples(case)))
    student = judged(softmax(case.logits), case.gt_label)
    teacher = judged(softmax(case.teacher_logits), case.gt_label)
    assert found == pytest.approx(
        {
            "calibration/ece": brute_force(softmax(case.logits), case.gt_label),
            "calibration/ece_adaptive": adaptive(*student, 15),
            "calibration/teacher_ece": brute_force(softmax(case.teacher_logits), case.gt_label),
            "calibration/teacher_ece_adaptive": adaptive(*teacher, 15),
        },
        rel=1e-9,
    )
    for key in ("calibration/ece", "calibration/teacher_ece_adaptive"):
        assert found["calibration/teacher_ece"] != pytest.approx(found[key])
