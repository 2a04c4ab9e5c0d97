import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS
from mmpretrain.structures import DataSample
from runs import digits_distiller, train

from mmkd_logit.metrics import ExpectedCalibrationError

HERE = Path(__file__).resolve().parent


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


@pytest.mark.parametrize("batch_size", [1, 7, 64, 500, 1000])
def test_batches_do_not_matter(batch_size):
    scores, labels = random_case(5)
    assert ece(scores, labels, batch_size) == pytest.approx(brute_force(scores, labels), rel=1e-9)


def two(confidence):
    return np.array([confidence, 1 - confidence])


def test_one_bin_is_the_difference_of_the_means():
    """A closed form without any bins."""
    scores, labels = random_case(1)
    gap = np.abs((scores.argmax(1) == labels).mean() - scores.max(1).astype(np.float64).mean())
    assert ece(scores, labels, num_bins=1) == pytest.approx(100 * gap, rel=1e-9)


def test_perfect_calibration_is_0():
    scores = [two(0.75)] * 4 + [two(0.9)] * 10 + [two(0.5)] * 2
    labels = [0, 0, 0, 1] + [0] * 9 + [1] + [0, 1]
    assert ece(scores, labels) == pytest.approx(0, abs=1e-9)


def test_certain_and_wrong_is_100_and_certain_and_right_is_0():
    assert ece([two(1.0)] * 3, [1] * 3) == 100
    assert ece([two(1.0)] * 3, [0] * 3) == 0


def test_errors_of_bins_do_not_cancel():
    """Half is under- and half is over-confident; one bin would see nothing."""
    scores, labels = [two(0.6)] * 10 + [two(1.0)] * 10, [0] * 10 + [0] * 6 + [1] * 4
    assert ece(scores, labels) == pytest.approx(40)
    assert ece(scores, labels, num_bins=1) == pytest.approx(0, abs=1e-9)


def test_an_edge_belongs_to_the_bin_below_it():
    """Of 2 bins (0, .5] and (.5, 1]: 0.5 and right is with 0.4 and wrong, not with 0.9."""
    scores = [[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0]]
    labels = [0, 1, 0]
    assert ece(np.array(scores), labels, num_bins=2) == pytest.approx(100 / 3 * (0.1 + 0.1))
    above = [[0.5 + 1e-9, 0.3, 0.2], *scores[1:]]
    assert ece(np.array(above), labels, num_bins=2) == pytest.approx(100 / 3 * (0.4 + 0.6))


@pytest.mark.parametrize("num_bins", [1, 3, 7, 15, 49, 100])
def test_every_edge(num_bins):
    """Each alone in its bin and right, from the first, which holds 0, to 1."""
    edges = np.arange(num_bins + 1) / num_bins
    metric = ExpectedCalibrationError(num_bins)
    metric.process(
        {}, [dict(pred_score=torch.tensor([c]), gt_label=torch.tensor([0])) for c in edges]
    )
    metric._add_last()
    assert metric._sums[0].tolist() == [2.0] + [1.0] * (num_bins - 1)


def test_rounding_above_1_is_1():
    assert ece(torch.tensor([[1.0 + 1e-6, 0.0]]), [0]) == 0


def test_half_precision_scores():
    scores, labels = random_case(2)
    half = torch.from_numpy(scores).half()
    assert ece(half, labels) == pytest.approx(brute_force(half.numpy(), labels), rel=1e-9)


def test_memory_does_not_grow_with_the_samples():
    metric = ExpectedCalibrationError()
    for seed in range(20):
        metric.process({}, samples_of(*random_case(seed, n=50)))
    assert metric.results == []
    held = [v for v in vars(metric).values() if isinstance(v, torch.Tensor)] + list(metric._last)
    assert sum(v.numel() for v in held) <= 4 * 15 + 2


def test_each_evaluation_begins_anew():
    scores, labels = random_case(3)
    metric = ExpectedCalibrationError()
    values = []
    for _ in range(2):
        metric.process({}, samples_of(scores, labels))
        values.append(metric.evaluate(len(labels))["calibration/ece"])
    assert values == [pytest.approx(brute_force(scores, labels))] * 2


@pytest.mark.parametrize("num_bins", [0, -1, 1.5, "15", None, True])
def test_wrong_bins(num_bins):
    with pytest.raises(ValueError, match="num_bins must be an integer from 1 on, got"):
        ExpectedCalibrationError(num_bins)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (dict(gt_label=torch.tensor([0])), "needs pred_score"),
        (dict(pred_score=torch.ones(2), gt_label=torch.tensor([0, 1])), "one label a sample"),
        (dict(pred_score=torch.ones(2, 2), gt_label=torch.tensor([0])), "one score a class"),
        (dict(pred_score=torch.tensor([3.0, -3.0]), gt_label=torch.tensor([0])), "probabilities"),
        (dict(pred_score=torch.tensor([-3.0]), gt_label=torch.tensor([0])), "probabilities"),
        (dict(pred_score=torch.tensor([float("nan")]), gt_label=torch.tensor([0])), "of nan"),
    ],
)
def test_wrong_samples(sample, words):
    with pytest.raises(ValueError, match=words):
        ExpectedCalibrationError().process({}, [sample])


def test_no_samples():
    metric = ExpectedCalibrationError()
    metric.process({}, [])
    with pytest.raises(ValueError, match="got no samples"):
        metric.evaluate(0)


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


@pytest.mark.parametrize("size", [37, 38, 1])
def test_two_processes_equal_one(tmp_path, size):
    """The odd sizes are padded by a sample; counting it twice gives another value."""
    path = os.pathsep.join(map(str, (HERE.parent, HERE.parents[1])))
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command += [str(HERE / "worker.py"), str(tmp_path), str(size)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)]
    assert ranks[0]["value"] == ranks[1]["value"]
    scores, labels = random_case(7, n=size)
    assert ranks[0]["value"] == pytest.approx(brute_force(scores, labels), rel=1e-9)
    seen = [index for rank in ranks for index in rank["indices"]]
    assert len(seen) == size + size % 2
    if size % 2 and size > 1:
        assert brute_force(scores[seen], labels[seen]) != pytest.approx(ranks[0]["value"])
