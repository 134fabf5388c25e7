"""Which degree of distortion the stars can carry."""

import pytest

from lib.astrometry.crossvalidation import degrees_allowed


@pytest.mark.parametrize(
    ("number", "choice", "degrees"),
    [(5, "auto", [1]), (40, "auto", [1, 3]), (200, "auto", [1, 3, 5, 7]), (200, 3, [1, 3])],
)
def test_degrees_allowed(number, choice, degrees):
    assert degrees_allowed(number, choice) == degrees
