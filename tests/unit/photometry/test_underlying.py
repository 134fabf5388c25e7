"""Stars before a galaxy, whose light is under them, with their true fluxes."""

import numpy as np
import pytest
from astropy.wcs import WCS
from moffatstars import jittered_grid, moffat_image
from scipy.spatial import cKDTree

from lib.core.settings import StackSettings
from lib.photometry.underlying import UnderlyingLight
from lib.stack.coaddition import measure_all
from lib.stack.depth import measure_coadd

FWHM, BETA, SKY, SIZE = 3.4, 3.0, 300.0, 600
SETTINGS = StackSettings()


def coadd_of(rng, light):
    image = rng.poisson(light + SKY).astype(np.float32) - np.float32(SKY)
    weight = np.full(image.shape, 1 / SKY, np.float32)
    return measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=1.0, gain=1.0, saturate=1e9, settings=SETTINGS
    )


@pytest.fixture(scope="module")
def stars():
    rng = np.random.default_rng(21)
    x, y = jittered_grid(rng, 30, SIZE - 30, 45.0)
    x, y = (place + rng.uniform(-8, 8, place.size) for place in (x, y))
    flux = 10 ** rng.uniform(3.6, 5.3, x.size)
    return x, y, flux, moffat_image(x, y, flux, FWHM, BETA, (SIZE, SIZE), half=40)


@pytest.fixture(scope="module")
def before_a_galaxy(stars):
    *_, light = stars
    row, column = np.indices((SIZE, SIZE))
    galaxy = 1.2 * SKY * np.exp(-np.hypot(column - 300, (row - 310) / 0.7) / 60)
    coadd = coadd_of(np.random.default_rng(22), light + galaxy)
    return measure_all(coadd, SETTINGS)[:2]


def pulls_of(fluxes, coadd, stars, inner, outer):
    """Return the pulls of stars in a ring about the galaxy's centre, and their number."""
    x, y, flux, _ = stars
    at = np.column_stack([coadd.field.sources["x"], coadd.field.sources["y"]])
    apart, row = cKDTree(at).query(np.column_stack([x, y]))
    away = np.hypot(x - 300, (y - 310) / 0.7)
    use = (apart < 1) & (away > inner) & (away < outer)
    return (fluxes.flux[row[use]] - flux[use]) / fluxes.error[row[use]], use.sum()


@pytest.mark.parametrize("kind", ["point", "psf"])
def test_light_of_a_galaxy_is_none_of_the_stars_before_it(before_a_galaxy, stars, kind):
    coadd, measured = before_a_galaxy
    # Where the galaxy has 0.02 to 0.6 of the sky: up to thirty times the error of a star.
    pulls, number = pulls_of(getattr(measured, kind), coadd, stars, 40, 250)
    assert number > 40
    # About zero: what is left of the galaxy is in the errors.
    assert 0.7 < 1.4826 * np.median(np.abs(pulls)) < 1.3
    assert np.abs(pulls).max() < 5


def test_without_large_sources_nothing_is_taken_away(stars):
    *_, light = stars
    coadd = coadd_of(np.random.default_rng(23), light)
    assert not UnderlyingLight.of(coadd.field).level.any()


def test_a_galaxy_is_not_under_itself(before_a_galaxy):
    coadd, _ = before_a_galaxy
    sources = coadd.field.sources
    apart = np.hypot(sources["x"] - 300, sources["y"] - 310)
    assert apart.min() < 3
    assert UnderlyingLight.of(coadd.field).level[np.argmin(apart)] == 0
