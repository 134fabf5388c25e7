"""Stars before a galaxy, whose light is under them, with their true fluxes."""

import numpy as np
import pytest
from astropy.wcs import WCS
from moffatstars import jittered_grid, moffat_image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from lib.core.settings import StackSettings
from lib.photometry.backgroundmesh import spread_mesh
from lib.photometry.underlying import UnderlyingLight
from lib.stack.coaddition import measure_all
from lib.stack.depth import limiting_flux, measure_coadd

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


def signal_to_noise(stars):
    """Return the S/N of stars in apertures of 0.75 FWHM, and their distances from the galaxy."""
    x, y, flux, _ = stars
    away = np.hypot(x - 300, (y - 310) / 0.7)
    level = SKY * (1 + 1.2 * np.exp(-away / 60))
    inside = 0.6 * flux
    return inside / np.sqrt(inside + np.pi * (0.75 * FWHM) ** 2 * level), away


def test_stars_before_a_galaxy_are_found_without_false_ones(before_a_galaxy, stars):
    coadd, measured = before_a_galaxy
    x, y, *_ = stars
    sources = coadd.field.sources
    at, true = np.column_stack([sources["x"], sources["y"]]), np.column_stack([x, y])
    snr, away = signal_to_noise(stars)
    apart, _ = cKDTree(at).query(true)
    # Twice the threshold. The centre is the galaxy's own.
    clear = (snr > 10) & (away > 15) & (away < 250)
    assert np.count_nonzero(clear) > 60
    assert np.mean(apart[clear] < 0.3 * FWHM) > 0.95
    nearest, _ = cKDTree(true).query(at)
    seen = measured.point.flux > 5 * measured.point.error
    centre = np.hypot(sources["x"] - 300, sources["y"] - 310) < FWHM
    assert not np.any(seen & ~centre & (nearest > FWHM))


def test_a_star_beside_the_nucleus_of_a_galaxy():
    rng = np.random.default_rng(24)
    centres = np.array([(a, b) for a in (90, 260, 430) for b in (90, 260, 430)], float)
    angle = rng.uniform(0, 2 * np.pi, 9)
    # From 2.6 to 4.7 FWHM: in the ring about the star.
    away = np.linspace(9, 16, 9)
    near = centres + np.column_stack([away * np.cos(angle), away * np.sin(angle)])
    grid = np.array([(a, b) for a in (175, 345) for b in range(40, 500, 45)], float)
    x, y = np.concatenate([near, grid]).T
    flux = np.append(np.full(9, 4e4), 10 ** rng.uniform(4.5, 5.3, len(grid)))
    light = moffat_image(x, y, flux, FWHM, BETA, (520, 520), half=40)
    row, column = np.indices(light.shape)
    for cx, cy in centres:
        r = np.hypot(column - cx, row - cy)
        light += SKY * (np.exp(-r / 20) + 6 * np.exp(-r / 5))
    coadd, measured, *_ = measure_all(coadd_of(rng, light), SETTINGS)
    at = np.column_stack([coadd.field.sources["x"], coadd.field.sources["y"]])
    apart, index = cKDTree(at).query(near)
    assert np.count_nonzero(apart < 0.3 * FWHM) >= 8
    seen_star = apart < 0.3 * FWHM
    seen = index[seen_star]
    for found in (measured.point, measured.psf):
        pulls = (found.flux[seen] - 4e4) / found.error[seen]
        assert np.abs(pulls).max() < 4
        # Told within a fifth, not by an error that says nothing.
        assert np.median(found.error[seen]) < 0.2 * 4e4
    # The nucleus draws windowed positions towards it, by 0.2 to 0.6 pixel.
    assert np.all(apart[seen_star] / np.sqrt(2) < 4 * measured.position_error[seen])
    assert np.median(apart[seen_star]) < 0.2


@pytest.fixture(scope="module")
def in_a_nebula(stars):
    *_, light = stars
    rng = np.random.default_rng(6)
    clouds = sum(
        width * gaussian_filter(rng.normal(size=(SIZE, SIZE)), width, mode="wrap")
        for width in (20, 40, 80)
    )
    nebula = SKY * np.clip(0.5 + 0.5 * clouds, 0, None)
    coadd = coadd_of(rng, light + nebula)
    return nebula, *measure_all(coadd, SETTINGS)[:2]


def test_noise_in_a_nebula_is_that_of_stars_measured_without_it(in_a_nebula, stars):
    nebula, coadd, measured = in_a_nebula
    x, y, flux, _ = stars
    sources = coadd.field.sources
    at = np.column_stack([sources["x"], sources["y"]])
    apart, row = cKDTree(at).query(np.column_stack([x, y]))
    level = SKY + nebula[np.rint(y).astype(int), np.rint(x).astype(int)]
    snr = 0.6 * flux / np.sqrt(0.6 * flux + np.pi * (0.75 * FWHM) ** 2 * level)
    assert np.mean(apart[snr > 15] < 0.3 * FWHM) > 0.9
    faint = (snr > 10) & (snr < 60) & (apart < 0.3 * FWHM)
    pulls = (measured.point.flux[row] - flux)[faint] / measured.point.error[row][faint]
    # They hold, and are not three times too large: of clouds as small as the mesh, some is left.
    assert 1 / 3 < 1.4826 * np.median(np.abs(pulls)) < 1.4
    # Five times the noise of the sky in the aperture of the limit, not of the clouds: at most
    # twice, as photons of clouds count.
    fraction = 1 - (1 + 0.75**2 * 4 * (2 ** (1 / BETA) - 1)) ** (1 - BETA)
    plain = 5 * np.sqrt(np.pi * SKY * (1 + np.median(nebula) / SKY)) * 0.75 * FWHM / fraction
    assert 0.8 * plain < limiting_flux(coadd).flux < 2 * plain


def test_light_that_the_background_mesh_leaves_has_either_sign(in_a_nebula):
    nebula, coadd, _ = in_a_nebula
    left = nebula - spread_mesh(coadd.background, nebula.shape)
    sources = coadd.field.sources
    x, y = (np.rint(sources[axis]).astype(int) for axis in "xy")
    bright = coadd.field.flux > 30 * coadd.field.error
    true = left[y, x][bright]
    under = UnderlyingLight.of(coadd.field)
    missed = under.level[bright] - true
    for sign in (-1, 1):
        some = (sign * true > 0.04 * SKY) & (under.error[bright] > 0)
        assert np.count_nonzero(some) > 10
        # A third of it is left at most, and told.
        assert np.median(np.abs(missed[some])) < 0.3 * np.median(np.abs(true[some]))
        pulls = missed[some] / under.error[bright][some]
        # To three times the error of such a scatter of Gaussian pulls.
        assert 1.4826 * np.median(np.abs(pulls)) < 1 + 3 * 1.17 / np.sqrt(pulls.size)


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
