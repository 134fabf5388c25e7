"""Frames that cover a place, and the light of stars in apertures there."""

from dataclasses import replace

import numpy as np
import pytest

from lib.photometry.coverage import BLOCK, FrameCoverage, corrections_at, least_coverage

FWHMS = (3.0, 4.0, 5.0)
BETA = 3.0
SIDE = 12 * BLOCK


def moffat_light(fwhm, radius):
    """Return the part of a Moffat profile within a radius."""
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / BETA) - 1)
    return 1 - (1 + (radius / alpha) ** 2) ** (1 - BETA)


@pytest.fixture
def coverage():
    """Return three frames: one covers all, the second the right half, the third the upper one."""
    there = np.ones((3, 12, 12), bool)
    there[1, :, :6] = False
    there[2, :6] = False
    number = np.kron(there.sum(axis=0), np.ones((BLOCK, BLOCK))).astype(np.uint16)
    light = [lambda radius, fwhm=fwhm: moffat_light(fwhm, radius) for fwhm in FWHMS]
    return FrameCoverage(number, there, np.array([1.0, 2.0, 1.0]), light, np.zeros(3))


def test_light_in_an_aperture_is_that_of_the_frames_there(coverage):
    x, y = np.array([20.0, 70.0, 20.0, 75.0]), np.array([20.0, 20.0, 75.0, 75.0])
    factor, error = coverage.correction(x, y, 6.0, np.array([3]))
    one, two, three = (moffat_light(fwhm, 6.0) for fwhm in FWHMS)
    held = np.array([one, (one + 2 * two) / 3, (one + three) / 2, (one + 2 * two + three) / 4])
    np.testing.assert_allclose(factor, held / held[3], rtol=1e-6)
    np.testing.assert_allclose(error, 0.1 * np.abs(np.log(factor)), atol=1e-9)
    np.testing.assert_allclose(coverage.part(x, y), [0.25, 0.75, 0.5, 1.0])
    assert coverage.partial


def test_error_knows_edges_within_the_aperture_and_scales(coverage):
    x, y = np.array([50.0, 70.0]), np.array([75.0, 75.0])
    _, error = coverage.correction(x, y, 6.0, np.array([1]))
    one, two, three = (moffat_light(fwhm, 6.0) for fwhm in FWHMS)
    change = np.log((one + three) / 2) - np.log((one + 2 * two + three) / 4)
    np.testing.assert_allclose(error, [abs(change) / 2, 0], atol=1e-9)
    coverage.scale_errors[:] = 0.01, 0.02, 0.03
    _, error = coverage.correction(
        np.array([20.0, 70.0]), np.array([20.0, 75.0]), 1e3, np.arange(2)
    )
    # One frame instead of the mean of three with parts of 1/4, 1/2 and 1/4.
    expected = np.sqrt((0.75 * 0.01) ** 2 + (0.5 * 0.02) ** 2 + (0.25 * 0.03) ** 2)
    np.testing.assert_allclose(error, [expected, 0], rtol=1e-3, atol=1e-9)


def test_frames_that_differ_by_less_than_is_known_of_them_are_alike(coverage):
    x, y, stars = np.array([20.0, 75.0]), np.array([20.0, 75.0]), np.array([1])
    whole, _ = coverage.correction(x, y, 6.0, stars)
    few = replace(coverage, light_errors=np.full(3, 0.5), _known={})
    factor, error = few.correction(x, y, 6.0, stars)
    np.testing.assert_allclose(factor, 1.0)
    np.testing.assert_allclose(error, 0.0, atol=1e-12)
    many = replace(coverage, light_errors=np.full(3, 0.01), _known={})
    factor, error = many.correction(x, y, 6.0, stars)
    # Their light within that radius differs by a tenth of it: a hundredth is taken off that.
    assert 0.95 < np.log(factor[0]) / np.log(whole[0]) < 1.0
    # One frame instead of the mean of three, each known to 0.01.
    scale = np.sqrt(0.75**2 + 0.5**2 + 0.25**2) * 0.01
    assert error[0] == pytest.approx(np.hypot(0.1 * np.log(factor[0]), scale), rel=0.1)


def test_maps_hold_the_corrections(coverage):
    x, y = np.array([20.0, 70.0]), np.array([20.0, 75.0])
    maps = coverage.correction_maps(x[1:], y[1:], [6.0, 3.0])
    assert maps.shape == (4, 12, 12)
    wide, inner, error, part = corrections_at(maps, x, y)
    np.testing.assert_allclose(part, [0.25, 1])
    for value, radius in ((wide, 6.0), (inner, 3.0)):
        factor, _ = coverage.correction(x, y, radius, np.array([1]))
        np.testing.assert_allclose(value, np.log(factor), rtol=1e-5, atol=1e-7)
    assert error[0] == pytest.approx(0.1 * np.abs([wide[0], inner[0]]).max(), rel=1e-5)


def test_places_without_frames_count_as_the_mean(coverage):
    coverage.footprints[:, 0, 0] = False
    factor, _ = coverage.correction(
        np.array([3.0, 70.0]), np.array([3.0, 75.0]), 6.0, np.array([1])
    )
    np.testing.assert_allclose(factor, 1, rtol=1e-6)
    assert coverage.part(np.array([3.0]), np.array([3.0]))[0] == 0


def test_equal_coverage_is_not_partial(coverage):
    coverage.footprints[:] = True
    assert not coverage.partial


def test_stars_that_all_frames_cover_serve_where_there_are_enough():
    assert least_coverage(np.array([1.0] * 40 + [0.8] * 20)) == 0.9
    assert least_coverage(np.array([1.0] * 39 + [0.8] * 20)) == 0.7
    assert least_coverage(np.array([1.0] * 6 + [0.5] * 5 + [0.4] * 5)) == 0.4
    assert least_coverage(np.array([1.0, 0.2])) == 0.2
    assert least_coverage(np.empty(0)) == 0
