"""What the figure's own test does not see: two classes, and confidences on an edge."""

import numpy as np

from mmkd_logit.lab.report.figures.calibration import reliability, top_logit_difference


def test_the_sign_of_the_difference_says_what_is_right():
    generator = np.random.default_rng(0)
    label, logits = generator.integers(2, size=50), generator.normal(size=(50, 2))
    before = logits.copy()
    found = top_logit_difference(logits, label)
    np.testing.assert_array_equal(found > 0, logits.argmax(1) == label)
    np.testing.assert_array_equal(logits, before)


def test_edges_belong_to_the_bin_below():
    half = reliability(np.zeros((1, 2)), np.array([0]), num_bins=2)  # confidence 1 / 2 exactly
    assert half.count.tolist() == [1, 0]
    sure = reliability(np.array([[800.0, 0.0]]), np.array([0]))
    assert sure.count.tolist() == [0] * 14 + [1]
    assert sure.ece == 0
