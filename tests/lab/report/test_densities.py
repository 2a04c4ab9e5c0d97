"""Densities on a grid against scipy's, which adds every kernel at every point."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde, norm

from mmkd_logit.lab.report.densities import bandwidth, common_range, smooth_density, summarize


@pytest.fixture
def values():
    generator = np.random.default_rng(5)
    return np.concatenate([generator.normal(2, 1, 700), generator.normal(8, 0.6, 500)])


def scipys(values, points):
    return gaussian_kde(values, bandwidth(values) / np.std(values, ddof=1))(points)


def test_bandwidth(values):
    quartiles = np.subtract(*np.quantile(values, [0.75, 0.25]))
    assert bandwidth(values) == pytest.approx(
        0.9 * min(values.std(), quartiles / 1.349) * 1200**-0.2
    )
    # Heavy tails: the quartiles, which for a normal distribution are 1.349 deviations apart.
    tails = np.random.default_rng(1).standard_t(2, 4000)
    quartiles = np.subtract(*np.quantile(tails, [0.75, 0.25]))
    assert quartiles / 1.349 < 0.5 * tails.std()
    assert bandwidth(tails) == pytest.approx(0.9 * quartiles / 1.349 * 4000**-0.2)
    assert 2 * norm.ppf(0.75) == pytest.approx(1.349, abs=1e-4)
    # Half of them the same: the deviation alone.
    tied = np.array([0.0] * 90 + [1.0] * 10)
    assert bandwidth(tied) == pytest.approx(0.9 * tied.std() * 100**-0.2)


def test_equals_scipys(values):
    points, density = smooth_density(values, -2, 11, 1000)
    np.testing.assert_allclose(points, np.linspace(-2, 11, 1000))
    expected = scipys(values, points)
    np.testing.assert_allclose(density, expected, atol=1e-4 * expected.max())
    assert density.sum() * (points[1] - points[0]) == pytest.approx(1, abs=1e-3)


def test_values_outside_count_in_the_whole(values):
    points, density = smooth_density(values, 5, 11, 800)
    expected = scipys(values, points)
    np.testing.assert_allclose(density, expected, atol=1e-4 * expected.max())


def test_reflection_at_the_floor():
    values = np.abs(np.random.default_rng(2).normal(0, 1, 2000))
    points, density = smooth_density(values, 0, 5, 1000, floor=0)
    kernels = scipys(values, points) + scipys(values, -points)
    np.testing.assert_allclose(density, kernels, atol=2e-4 * kernels.max())
    area = (density.sum() - density[[0, -1]].sum() / 2) * (points[1] - points[0])
    assert area == pytest.approx(1, abs=2e-3)
    without = smooth_density(values, 0, 5, 1000)[1]
    assert without[0] == pytest.approx(density[0] / 2, rel=0.02)


def test_one_value_only():
    points, density = smooth_density(np.full(9, 3.0), 0, 10, 101)
    assert points[density.argmax()] == pytest.approx(3.0)
    assert density.sum() * 0.1 == pytest.approx(1)
    assert common_range([np.full(9, 3.0)])[0] < 3 < common_range([np.full(9, 3.0)])[1]


def test_range_holds_every_group(values):
    low, high = common_range([values, values + 100, np.empty(0)])
    assert low < np.quantile(values, 0.002) < np.quantile(values + 100, 0.998) < high
    assert common_range([values], floor=0)[0] == 0
    assert common_range([np.empty(0)]) == (0, 1)


def test_summary(values):
    found = summarize(np.append(values, [np.nan, np.inf]))
    assert (found["n"], found["not_finite"]) == (1200, 2)
    assert found["mean"] == pytest.approx(values.mean())
    assert found["median"] == pytest.approx(np.median(values))
    assert found["q95"] == pytest.approx(np.quantile(values, 0.95))
    assert summarize(np.array([np.nan])) == dict(n=0, not_finite=1)
