"""lib.photometry.forced: limits, sources of several tables, errors of blends."""

from types import SimpleNamespace

import numpy as np
import pytest
import sep
from starfields import DEC, RA

from lib.photometry.flags import FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.forced import _pixel_flags, filter_order, magnitudes, unite_sources
from lib.photometry.neighbours import deblended_errors, deblended_fluxes
from lib.photometry.psf import StarAperture, Wings, moffat_alpha, moffat_fraction


def test_magnitudes_and_limits():
    flux, error = np.array([100.0, 2.0, -5.0, np.nan]), np.array([1.0, 1.0, 1.0, np.nan])
    magnitude, magnitude_error, limit = magnitudes(flux, error, 25.0)
    assert magnitude[0] == pytest.approx(20.0) and magnitude_error[0] == pytest.approx(0.010857)
    assert np.isnan(magnitude[1:]).all() and np.isnan(limit[0])
    assert limit[1:3] == pytest.approx(25 - 2.5 * np.log10([5.0, 3.0]))
    assert np.isnan(limit[3])


def test_sources_are_united_at_the_position_of_the_best():
    first = np.array([[RA, DEC], [RA + 0.01, DEC]])
    second = np.array([[RA + 0.2 / 3600, DEC], [RA, DEC + 0.01]])
    sky, found = unite_sources([first, second], [np.array([5.0, 9]), np.array([50.0, 7])], 0.5)
    assert len(sky) == 3
    row = np.flatnonzero(found.all(axis=1))
    assert sky[row[0]] == pytest.approx(second[0])
    assert len(unite_sources([], [], 0.5)[0]) == 0


def test_two_sources_of_one_table_within_the_radius_are_one():
    """As where a blend is found as one source in one filter, and as two in another."""
    blend = np.array([[RA, DEC]])
    two = np.array([[RA, DEC + 0.3 / 3600], [RA, DEC - 0.15 / 3600], [RA, DEC + 0.01]])
    sky, found = unite_sources([blend, two], [np.array([9.0]), np.array([20.0, 5, 7])], 0.5)
    assert len(sky) == 2 and sky[np.argmin(sky[:, 1])] == pytest.approx(two[0])
    assert found[np.argmin(sky[:, 1])].all()


@pytest.mark.parametrize("apart", [0.8, 1.0, 1.5, 2.5])
def test_errors_of_blends_are_the_scatter_of_their_solution(apart):
    """Three stars in white noise, `apart` FWHM from each other."""
    fwhm, noise, rng = 4.0, 3.0, np.random.default_rng(6)
    radius, alpha = 1.5 * fwhm, moffat_alpha(fwhm, 3.0)
    fraction = float(moffat_fraction(radius, alpha, 3.0))
    aperture = StarAperture(radius, fraction, Wings(alpha, 3.0, 1.0))
    x = 40 + apart * fwhm * np.array([0, 1, 0.5])
    y = 40 + apart * fwhm * np.array([0, 0, 0.9])
    image = rng.normal(0, noise, (600, 90, 90)).astype(np.float32)
    sums = np.array([sep.sum_circle(one, x, y, radius, subpix=5)[0] for one in image])
    solved = np.array([deblended_fluxes(one, x, y, aperture) for one in sums])
    error = deblended_errors(x, y, sums.std(axis=0), aperture)
    # The standard deviation of 600 is good to 3 %.
    assert error == pytest.approx(fraction * solved.std(axis=0), rel=0.1)
    assert (error[0] > 2 * sums[:, 0].std()) == (apart <= 1)


def test_filters_from_blue_to_red():
    assert filter_order(["H", "clear", "SDSS-I", "r", "Z"]) == ["r", "SDSS-I", "Z", "H", "clear"]


def test_core_without_weight_is_saturated_where_it_is_bright():
    """A plateau divided by the flat lies below the level of saturation; a bad pixel is faint."""
    image, variance = np.zeros((60, 60), np.float32), np.ones((60, 60), np.float32)
    image[18:23, 18:23], variance[18:23, 18:23] = 5.2e4, 0
    variance[40, 40] = 0
    coadd = SimpleNamespace(
        image=image, variance=variance, header={"SATURATE": 6e4}, aperture=SimpleNamespace(radius=4)
    )
    flags = _pixel_flags(coadd, np.array([20.0, 40.0, 50.0]), np.array([20.0, 40.0, 10.0]))
    assert [flag & FLAG_SATURATED > 0 for flag in flags] == [True, False, False]
    assert [flag & FLAG_WEIGHT > 0 for flag in flags] == [True, True, False]
