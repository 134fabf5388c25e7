"""Linear maps of the plane, pairs of stars, votes for a shift."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lib.astrometry.hypotheses import offset_hypotheses
from lib.astrometry.mapping import brightest_per_cell, fit_mapping, nearest_pairs


@pytest.mark.parametrize("kind", ["similarity", "mirror", "affine"])
def test_fit_mapping_recovers(kind):
    rng = np.random.default_rng(2)
    matrix = 1.2 * np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    if kind == "mirror":
        matrix = matrix * [-1.0, 1.0]
    if kind == "affine":
        matrix = matrix @ [[1.0, 0.1], [0.0, 1.0]]
    points = rng.uniform(-100, 100, (10, 2))
    mapping = fit_mapping(points, points @ matrix.T + [5, 6], kind)
    np.testing.assert_allclose(mapping.matrix, matrix, atol=1e-12)
    np.testing.assert_allclose(mapping.offset, [5, 6], atol=1e-9)
    assert mapping.parity == (-1 if kind == "mirror" else 1)
    if kind != "affine":
        assert mapping.scale == pytest.approx(1.2)
        assert mapping.aspect == pytest.approx(1.0)
        assert mapping.rotation == pytest.approx(np.degrees(1))


def test_nearest_pairs_uses_each_star_once():
    tree = cKDTree([[0.0, 0.0], [10.0, 0.0]])
    i, j, distance = nearest_pairs(tree, np.array([[0.5, 0], [0.1, 0], [10, 0.2], [5, 5]]), 1.0)
    assert list(i) == [1, 2]
    assert list(j) == [0, 1]
    np.testing.assert_allclose(distance, [0.1, 0.2])


def test_brightest_per_cell():
    points = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [5.0, 5.0]])
    chosen = brightest_per_cell(points, np.array([3.0, 1.0, np.nan, 9.0]), 1.0, 2)
    assert list(chosen) == [1, 0, 3]


def test_offset_without_stars_in_reach():
    found, _ = offset_hypotheses(np.zeros((1, 2)), np.full((1, 2), 1e4), 10.0, 1.0)
    assert found == []
