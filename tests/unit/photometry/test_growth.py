"""lib.photometry.growth: the total flux of injected stars, within its stated error."""

import numpy as np
import pytest
import sep
from moffatstars import jittered_grid, moffat_image

from lib.photometry.growth import (
    EXTRAPOLATION_ERROR,
    LEAST_BETA,
    OtherSources,
    StarSample,
    clipped_mean,
    growth_curve,
    ring_fluxes,
)
from lib.photometry.image import MeasurementImage
from lib.photometry.psf import moffat_alpha, moffat_fraction
from lib.photometry.starfield import measure_field

SHAPE = (420, 420)


def aperture_light(fwhm, beta, radius, x=60.3, y=59.8):
    """Return the part of the light of a star, integrated over pixels, within `radius`."""
    image = moffat_image([x], [y], [1.0], fwhm, beta, (120, 120), points=9)
    return sep.sum_circle(image.astype(np.float32), [x], [y], radius, subpix=0)[0][0]


def measure_stars(rng, x, y, flux, image, noise, fwhm):
    """Return the growth curve of stars of known positions, all of them alone."""
    image = (image + rng.normal(0, noise, image.shape)).astype(np.float32)
    sample = StarSample(x, y, flux, np.full(x.size, np.inf))
    return growth_curve(MeasurementImage(image, noise, gain=0.0), sample, fwhm)


def offset(curve, fwhm, beta):
    """Return the error of ln(total flux) of stars measured in 1.5 FWHM."""
    radius = 1.5 * fwhm
    return np.log(aperture_light(fwhm, beta, radius) / curve.fraction(radius))


# Injected stars ---------------------------------------------------------------------------


@pytest.mark.parametrize("fwhm, beta", [(3.0, 2.5), (4.0, 3.0), (4.0, 4.5)])
@pytest.mark.parametrize("bright", [2e5, 5e3])
def test_total_flux_is_true_within_its_error(fwhm, beta, bright):
    rng = np.random.default_rng(71)
    trials, noise = 40, 5.0
    pulls = []
    for _ in range(trials):
        x, y = jittered_grid(rng, 40, 400, 64)
        flux = bright * 10 ** rng.uniform(-0.3, 0.3, x.size)
        image = moffat_image(x, y, flux, fwhm, beta, SHAPE, half=31, points=3)
        curve = measure_stars(rng, x, y, flux, image, noise, fwhm)
        assert curve.n_stars >= 20
        pulls.append(offset(curve, fwhm, beta) / curve.error)
    # A third of what lies beyond the last ring is in the error, and common to all trials: it may
    # move them together by one sigma; their scatter is at most that of the error.
    assert abs(np.mean(pulls)) < 1 + 3 / np.sqrt(trials)
    assert np.std(pulls) < 1 + 3 / np.sqrt(2 * trials)


def test_error_of_faint_stars_is_the_scatter_of_their_totals():
    """With beta as the prior has it, noise is all there is: the error is no overestimate, too."""
    rng = np.random.default_rng(72)
    trials, noise, fwhm, beta = 60, 5.0, 4.0, 3.0
    offsets, errors = [], []
    for _ in range(trials):
        x, y = jittered_grid(rng, 40, 400, 64)
        flux = np.full(x.size, 4e3)
        image = moffat_image(x, y, flux, fwhm, beta, SHAPE, half=31, points=3)
        curve = measure_stars(rng, x, y, flux, image, noise, fwhm)
        offsets.append(offset(curve, fwhm, beta))
        errors.append(curve.error)
    assert abs(np.mean(offsets)) < 3 * np.mean(errors) / np.sqrt(trials)
    scatter = np.std(offsets)
    assert scatter < np.mean(errors) * (1 + 3 / np.sqrt(2 * trials))


def test_light_beyond_the_rings_is_all_that_is_not_known_of_a_halo():
    """A tenth of the light in a halo of beta 2, twice as wide: no Moffat star."""
    rng = np.random.default_rng(73)
    fwhm, noise, shape = 4.0, 5.0, (460, 460)
    x, y = jittered_grid(rng, 60, 400, 75)
    flux = np.full(x.size, 1e5)
    core = moffat_image(x, y, 0.9 * flux, fwhm, 4.0, shape, half=150, points=3)
    halo = moffat_image(x, y, 0.1 * flux, 2 * fwhm, 2.0, shape, half=460, points=1)
    curve = measure_stars(rng, x, y, flux, core + halo, noise, fwhm)

    def truth(radius):
        halo_alpha = moffat_alpha(2 * fwhm, 2.0)
        core_light = aperture_light(fwhm, 4.0, radius)
        return 0.9 * core_light + 0.1 * moffat_fraction(radius, halo_alpha, 2.0)

    radius, last = 1.5 * fwhm, curve.radii[-1]
    beyond = 1 - truth(last)
    assert abs(np.log(truth(radius) / curve.fraction(radius))) < beyond + 3 * curve.error
    # Within the rings it is measured, and does not depend on what lies beyond.
    inside = curve.fraction(radius) / curve.fraction(last)
    assert inside == pytest.approx(truth(radius) / truth(last), rel=3 * curve.error)


@pytest.mark.parametrize("pixel_noises", [-0.005, 0.0, 0.005])
def test_background_that_is_off_by_its_error_is_in_the_error(pixel_noises):
    rng = np.random.default_rng(74)
    fwhm, beta, noise = 4.0, 3.0, 20.0
    x, y = jittered_grid(rng, 40, 400, 64)
    flux = np.full(x.size, 3e4)
    image = moffat_image(x, y, flux, fwhm, beta, SHAPE, half=31, points=3)
    curve = measure_stars(rng, x, y, flux, image + pixel_noises * noise, noise, fwhm)
    assert abs(offset(curve, fwhm, beta)) < 3 * curve.error


def crowded_offsets(number, trials=6, fwhm=3.5, beta=3.5, noise=10.0):
    """Return errors of ln(total flux) of the stars of crowded fields, and what they are said."""
    offsets, errors = [], []
    for seed in range(trials):
        rng = np.random.default_rng(75 + seed)
        x, y = rng.uniform(-20, SHAPE[0] + 20, (2, number))
        flux = 10 ** rng.uniform(3, 5.3, number)
        image = moffat_image(x, y, flux, fwhm, beta, SHAPE, half=40, points=3)
        image = (image + rng.normal(0, noise, SHAPE)).astype(np.float32)
        field = measure_field(MeasurementImage(image, noise, gain=1e9))
        assert field.growth.n_stars > 0
        truth = aperture_light(fwhm, beta, field.aperture)
        offsets.append(np.log(truth / field.growth.fraction(field.aperture)))
        errors.append(field.growth.error)
    return np.array(offsets), np.array(errors)


@pytest.mark.parametrize("number", [60, 200, 400])
def test_neighbours_change_the_total_by_less_than_its_error(number):
    """Of 200 stars the next is 16 pixels away on average, 4.6 FWHM; of 400 3.3."""
    offsets, errors = crowded_offsets(number)
    pulls = offsets / errors
    assert abs(np.mean(pulls)) < 1 + 3 / np.sqrt(pulls.size)
    assert np.std(pulls) < 1 + 3 / np.sqrt(2 * pulls.size)
    assert np.abs(offsets).max() < 0.005


def test_light_of_wings_has_an_end():
    """Of a sky left 0.2 noises too high the rings are flat: no Moffat profile with beta of 1."""
    rng = np.random.default_rng(79)
    fwhm, beta, noise = 4.0, 3.0, 20.0
    x, y = jittered_grid(rng, 40, 400, 64)
    flux = np.full(x.size, 1e4)
    image = moffat_image(x, y, flux, fwhm, beta, SHAPE, half=31, points=3)
    curve = measure_stars(rng, x, y, flux, image + 0.2 * noise, noise, fwhm)
    assert curve.beta >= LEAST_BETA
    beyond = 1 - moffat_fraction(curve.radii[-1], curve.alpha, curve.beta)
    assert beyond < 0.2
    assert curve.error > EXTRAPOLATION_ERROR * beyond * curve.norm / curve.total / 2


# Rings ------------------------------------------------------------------------------------


def test_light_of_neighbours_in_the_map_is_replaced_by_that_of_the_ring():
    """Noiseless, of half the star's flux: its isophote holds all but a part of its light."""
    fwhm, beta = 4.0, 4.0
    x, y, flux = np.array([60.2, 76.0]), np.array([60.4, 60.0]), np.array([1e5, 5e4])
    alone = moffat_image(x[:1], y[:1], flux[:1], fwhm, beta, (120, 130), points=3)
    second = moffat_image(x[1:], y[1:], flux[1:], fwhm, beta, alone.shape, points=3)
    segments = np.where(second > 5.0, 2, 0).astype(np.int32)
    segments[alone > second] = 1
    radii = np.array([4.0, 8.0, 12.0, 20.0])
    both = MeasurementImage((alone + second).astype(np.float32), 1.0, gain=0.0)
    star = StarSample(x[:1], y[:1], flux[:1], np.full(1, np.inf), np.array([1]))
    found, _ = ring_fluxes(both, star, radii, OtherSources(segments))
    truth, _ = ring_fluxes(MeasurementImage(alone.astype(np.float32), 1.0), star, radii)
    # Outside its isophote a Moffat star has the rest of its light; so have the mean of a ring
    # that is not the same everywhere and the star's own light below the isophote.
    outside = second[segments != 2].sum()
    hidden = alone[segments == 2].sum()
    assert np.abs(found - truth).sum() < outside + hidden
    kept, _ = ring_fluxes(both, star, radii)
    assert np.abs(kept - truth).sum() > 5 * (outside + hidden)


def test_rings_about_stars_are_those_of_sep():
    rng = np.random.default_rng(35)
    image = rng.normal(10, 1, (150, 160)).astype(np.float32)
    x, y = np.array([40.3, 100.7]), np.array([60.2, 80.9])
    radii = np.array([2.0, 4.0, 9.0])
    segments = np.zeros(image.shape, np.int32)
    segments[58:63, 38:43], segments[66:70, 40:45] = 1, 7
    stars = StarSample(x, y, np.ones(2), np.full(2, np.inf), np.array([1, 2]))
    measured = MeasurementImage(image, 2.0, gain=3.0)
    flux, variance = ring_fluxes(measured, stars, radii, OtherSources(segments))
    for k, (inner, outer) in enumerate(((0, 2), (2, 4), (4, 9))):
        total, error, _ = sep.sum_circann(
            image, x, y, inner, outer, err=2.0, gain=3.0, segmap=segments, seg_id=[1, 2]
        )
        assert flux[:, k] == pytest.approx(total, rel=1e-5)
        assert variance[:, k] == pytest.approx(error**2, rel=1e-4)


def test_other_sources_are_grown_where_rings_are_measured():
    from scipy.ndimage import maximum_filter

    rng = np.random.default_rng(43)
    image = rng.normal(10, 1, (150, 160)).astype(np.float32)
    x, y = np.array([40.3, 17.8, 100.7]), np.array([60.2, 128.4, 80.9])
    radii = np.array([2.0, 4.0, 9.0])
    segments = np.zeros(image.shape, np.int32)
    segments[58:63, 38:43], segments[66:70, 46:51], segments[146:, 10:14] = 1, 7, 8
    grown = np.where(segments > 0, segments, maximum_filter(segments, 2 * 3 + 1))
    stars = StarSample(x, y, np.ones(3), np.full(3, np.inf), np.array([1, 2, 3]))
    measured = MeasurementImage(image, 2.0, gain=3.0)
    found = ring_fluxes(measured, stars, radii, OtherSources(segments, 3))
    expected = ring_fluxes(measured, stars, radii, OtherSources(grown))
    for here, there in zip(found, expected, strict=True):
        np.testing.assert_array_equal(here, there)
    plain, _ = ring_fluxes(measured, stars, radii, OtherSources(segments))
    assert (plain[0] != found[0][0]).any()


# Means ------------------------------------------------------------------------------------


def test_clipped_mean_is_true_within_its_error():
    rng = np.random.default_rng(76)
    pulls = []
    for _ in range(200):
        sigma = rng.uniform(0.01, 0.03, (30, 3))
        values = np.array([1.0, 2.0, -1.0]) + rng.normal(0, sigma)
        values[:2] += 1.0  # outliers
        mean, error = clipped_mean(values, sigma**2)
        pulls.append((mean - (1, 2, -1)) / error)
    # The error is the larger of two estimates: a little more than the scatter.
    assert (np.abs(np.mean(pulls, axis=0)) < 4 / np.sqrt(200)).all()
    assert (np.std(pulls, axis=0) < 1 + 4 / np.sqrt(400)).all()
    assert (np.std(pulls, axis=0) > 0.75).all()


# No stars ---------------------------------------------------------------------------------


def test_growth_curve_without_stars_is_assumed_and_says_so():
    image = np.zeros((100, 100), np.float32)
    none = np.empty(0)
    curve = growth_curve(MeasurementImage(image, 1.0), StarSample(*[none] * 4), 3.0)
    assert curve.n_stars == 0 and curve.error == pytest.approx(0.03)
    radii = np.array([0.5, 2.0, 4.5, 9.0, 15.0, 500.0])
    fraction = curve.fraction(radii)
    truth = moffat_fraction(radii, moffat_alpha(3.0, 3.0), 3.0)
    assert np.all(np.diff(fraction) > 0)
    assert np.abs(fraction - truth)[1:].max() < 0.01


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.5])
def test_assumed_curve_is_within_two_errors_of_real_stars(beta):
    none = np.empty(0)
    curve = growth_curve(
        MeasurementImage(np.zeros((9, 9), np.float32), 1.0), StarSample(*[none] * 4), 4.0
    )
    assert abs(offset(curve, 4.0, beta)) < 2 * curve.error
