"""Top-logit difference and calibration bins against scikit-learn, scipy and our own metric."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from mmkd_logit.lab.report.figures.calibration import reliability, top_logit_difference


@pytest.fixture(params=[2, 10])
def drawn(request):
    generator = np.random.default_rng(request.param)
    label = generator.integers(request.param, size=500)
    logits = generator.normal(0, 2, (500, request.param)).astype(np.float32)
    logits[np.arange(500), label] += 1
    return logits, label


def test_top_logit_difference(drawn):
    logits, label = drawn
    before = logits.copy()
    expected = [row[y] - np.delete(row, y).max() for row, y in zip(logits, label, strict=True)]
    found = top_logit_difference(logits, label)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(found > 0, logits.argmax(1) == label)
    np.testing.assert_array_equal(logits, before)


def test_bins_equal_scikit_learns(drawn):
    logits, label = drawn
    found = reliability(logits, label)
    sure = softmax(logits.astype(np.float64), axis=1).max(1)
    right, sure = calibration_curve(logits.argmax(1) == label, sure, n_bins=15)
    some = found.count > 0
    np.testing.assert_allclose(found.accuracy[some], right, rtol=1e-12)
    np.testing.assert_allclose(found.confidence[some], sure, rtol=1e-12)
    assert np.isnan(found.accuracy[~some]).all()
    assert found.count.sum() == len(label)
    gaps = np.abs(right - sure) * found.count[some] / len(label)
    assert found.ece == pytest.approx(100 * gaps.sum())


def test_edges_belong_to_the_bin_below():
    half = reliability(np.zeros((1, 2)), np.array([0]), num_bins=2)  # confidence 1 / 2 exactly
    assert half.count.tolist() == [1, 0]
    sure = reliability(np.array([[800.0, 0.0]]), np.array([0]))
    assert sure.count.tolist() == [0] * 14 + [1]
    assert sure.ece == 0
