"""The plane of three templates, and how tight classes are on it, against other forms."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from mmkd_logit.lab.report.figures.templates import elongation, spread, template_plane


@pytest.fixture
def generator():
    return np.random.default_rng(3)


def turned(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_projection_equals_that_by_singular_vectors(generator):
    templates, points = generator.normal(size=(3, 12)), generator.normal(size=(40, 12))
    plane = template_plane(templates)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-14)
    found = plane.project(points)
    vectors = np.linalg.svd(templates - templates.mean(0), full_matrices=False)[2][:2]
    foot = templates.mean(0) + (points - templates.mean(0)) @ vectors.T @ vectors
    np.testing.assert_allclose(plane.origin + found @ plane.axes, foot, atol=1e-12)
    # The templates lie on it, each side as long as before.
    corners = plane.project(templates)
    np.testing.assert_allclose(plane.origin + corners @ plane.axes, templates, atol=1e-13)
    assert corners[0, 1] == pytest.approx(corners[1, 1])  # the first side is level
    assert corners[1, 0] > corners[0, 0]
    assert corners[2, 1] > corners[0, 1]


def test_turning_space_and_templates_together_changes_nothing(generator):
    templates, points = generator.normal(size=(3, 9)), generator.normal(size=(30, 9))
    turn, shift = ortho_group.rvs(9, random_state=1), generator.normal(size=9)
    before = template_plane(templates).project(points)
    after = template_plane(templates @ turn + shift).project(points @ turn + shift)
    np.testing.assert_allclose(after, before, atol=1e-12)
    larger = template_plane(3 * templates).project(3 * points)
    np.testing.assert_allclose(larger, 3 * before, atol=1e-12)
    alone = template_plane(templates).project(points @ turn)
    assert not np.allclose(alone, before)


def test_templates_on_a_line(generator):
    first, step = generator.normal(size=(2, 6)).astype(np.float32)
    for places in ([0, 1, 2], [0, 0, 1], [0, 1, 1], [0, 1, 0], [0, 0, 0]):
        with pytest.raises(ValueError, match="lie on a line"):
            template_plane(np.stack([first + place * step for place in places]))


def crosses(a, b, side, angle):
    """Three clouds whose covariance is diag(a^2, b^2) / 2, on a triangle of equal sides."""
    cloud = np.array([[a, 0], [-a, 0], [0, b], [0, -b]])
    corners = side * np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)]])
    points = np.concatenate([cloud + corner for corner in corners])
    return points @ turned(angle).T, np.repeat([4, 7, 9], 4)


@pytest.mark.parametrize("angle", [0.0, 0.4, 2.0])
@pytest.mark.parametrize(("a", "b", "side"), [(2.0, 1.0, 5.0), (1.0, 1.0, 1.0), (1.0, 3.0, 2.0)])
def test_known_clouds(a, b, side, angle):
    points, groups = crosses(a, b, side, angle)
    assert spread(points, groups) == pytest.approx((a**2 + b**2) / 2 / side**2, rel=1e-12)
    assert elongation(points, groups) == pytest.approx(max(a, b) / min(a, b), rel=1e-12)
    moved = 7 * points + [100, -3]
    assert spread(moved, groups) == pytest.approx(spread(points, groups), rel=1e-9)
    assert elongation(moved, groups) == pytest.approx(elongation(points, groups), rel=1e-9)


def test_normal_clouds_against_eigenvalues(generator):
    covariances = [np.diag([9.0, 1.0]), turned(1.0) @ np.diag([4.0, 1.0]) @ turned(1.0).T]
    means = np.array([[0, 0], [10, 0]])
    parts = [
        generator.multivariate_normal(mean, covariance, 20000)
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    points, groups = np.concatenate(parts), np.repeat([0, 1], 20000)
    values = [np.linalg.eigvalsh(np.cov(part.T, bias=True)) for part in parts]
    ratios = [np.sqrt(high / low) for low, high in values]
    assert elongation(points, groups) == pytest.approx(np.mean(ratios), rel=1e-9)
    assert elongation(points, groups) == pytest.approx((3 + 2) / 2, rel=0.02)
    apart = np.sum((parts[0].mean(0) - parts[1].mean(0)) ** 2)
    assert spread(points, groups) == pytest.approx(np.sum(values) / 2 / apart, rel=1e-9)
    assert spread(points, groups) == pytest.approx((10 + 5) / 2 / 100, rel=0.03)


def test_where_there_is_no_number():
    points, groups = crosses(2.0, 1.0, 5.0, 0.0)
    assert np.isnan(elongation(points[:2], groups[:2]))  # two points
    level = points * [1, 0]
    assert np.isnan(elongation(level, groups))
    same = np.concatenate([points[:4], points[:4]])
    assert np.isnan(spread(same, np.repeat([0, 1], 4)))
