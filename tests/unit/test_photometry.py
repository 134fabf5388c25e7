"""lib.photometry.field: truth put in is found again, within its stated errors."""

import astropy.units as u
import numpy as np
import pytest
import sep
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.crossmatch import common_stars, match
from lib.core.settings import StackSettings
from lib.core.sphere import project
from lib.core.stats import half_sample_mode
from lib.core.wcs import celestial_wcs
from lib.photometry.coaddzeropoint import coadd_zeropoint
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area
from lib.photometry.field import aperture_fluxes, measure_field
from lib.photometry.growth import growth_curve, ring_fluxes
from lib.photometry.measuredcoadd import CoaddNoise, MeasuredCoadd
from lib.photometry.psf import (
    Wings,
    fit_bounded,
    moffat_alpha,
    moffat_fraction,
    moffat_fwhm,
    moffat_slopes,
)
from lib.photometry.sources import background_mesh, detect_sources, select_stars, spread_mesh
from lib.photometry.sourcetable import kron_photometry
from lib.photometry.starmodels import StarModels, share_light
from lib.photometry.zeropoint import (
    choose_colour,
    expected_noise,
    fit_spatial_term,
    fit_zeropoint,
    relative_zeropoints,
)
from lib.stack.depth import measure_coadd

RA = 150.0


def moffat_image(x, y, flux, fwhm, beta, shape, half=60, points=5):
    """Return the noiseless image of Moffat stars, each normalised to its total flux."""
    image = np.zeros(shape)
    alpha = moffat_alpha(fwhm, beta)
    sub = (np.arange(points) - (points - 1) / 2) / points
    for xs, ys, f in zip(x, y, flux, strict=True):
        x0, x1 = max(0, int(xs) - half), min(shape[1], int(xs) + half + 1)
        y0, y1 = max(0, int(ys) - half), min(shape[0], int(ys) + half + 1)
        xx = np.arange(x0, x1)[:, None] + sub - xs
        yy = np.arange(y0, y1)[:, None] + sub - ys
        r2 = xx[None, None] ** 2 + yy[:, :, None, None] ** 2
        profile = (beta - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -beta
        image[y0:y1, x0:x1] += f * profile.mean(axis=(1, 3))
    return image


# Moffat and modes -------------------------------------------------------------------------


def test_moffat_fwhm_and_alpha_are_inverse():
    for beta in (1.5, 2.5, 3.0, 4.7, 30.0):
        assert moffat_fwhm(moffat_alpha(3.3, beta), beta) == pytest.approx(3.3, rel=1e-12)


def test_moffat_fraction_is_the_integral_of_the_profile():
    alpha, beta, radius = 2.0, 2.7, 5.0
    r = np.linspace(0, radius, 200_001)
    density = (beta - 1) / (np.pi * alpha**2) * (1 + (r / alpha) ** 2) ** -beta
    integral = np.trapezoid(2 * np.pi * r * density, r)
    assert moffat_fraction(radius, alpha, beta) == pytest.approx(integral, rel=1e-6)


def test_slopes_of_the_moffat_fraction():
    radius, alpha, beta, step = np.linspace(0, 12, 9), 3.0, 2.7, 1e-5
    by_alpha, by_beta = (
        (moffat_fraction(radius, *up) - moffat_fraction(radius, *down)) / (2 * step)
        for up, down in (
            ((alpha * np.exp(step), beta), (alpha * np.exp(-step), beta)),
            ((alpha, beta * np.exp(step)), (alpha, beta * np.exp(-step))),
        )
    )
    found = moffat_slopes(radius, alpha, beta)
    np.testing.assert_allclose(found[0], by_alpha, atol=1e-8)
    np.testing.assert_allclose(found[1], by_beta, atol=1e-8)


@pytest.mark.parametrize("high", [(9.0, 9.0), (9.0, 0.3), (1.0, 9.0)])
def test_fit_within_bounds_is_that_of_scipy(high):
    from scipy.optimize import least_squares

    t = np.linspace(0, 4, 30)
    data = 2.0 * np.exp(-0.7 * t) + np.random.default_rng(42).normal(0, 0.01, t.size)

    def misfit(p):
        shape = np.exp(-p[1] * t)
        return p[0] * shape - data, np.stack([shape, -p[0] * t * shape], axis=1)

    start, low = (0.5, 0.1), (0.0, 0.0)
    best, residual, slopes = fit_bounded(misfit, start, low, high)
    expected = least_squares(
        lambda p: misfit(p)[0], start, bounds=(low, high), xtol=1e-12, ftol=1e-12
    )
    np.testing.assert_allclose(best, expected.x, rtol=1e-5)
    np.testing.assert_array_equal(residual, misfit(best)[0])
    assert slopes.shape == (30, 2)


def test_mode_is_not_moved_by_galaxies():
    rng = np.random.default_rng(1)
    sizes = np.concatenate([rng.normal(1.0, 0.03, 40), rng.uniform(1.2, 4.0, 60)])
    assert half_sample_mode(sizes) == pytest.approx(1.0, abs=0.06)


def test_stars_are_told_from_galaxies_and_cosmic_rays():
    rng = np.random.default_rng(2)
    radius = np.concatenate([rng.normal(1.8, 0.05, 30), rng.uniform(2.6, 6, 20), [0.4, 0.5, 0.9]])
    n = radius.size
    stars, locus = select_stars(
        radius, np.full(n, 100.0), np.zeros(n, int), np.full(n, 10.0), 100.0
    )
    assert locus == pytest.approx(1.8, rel=0.03)
    assert stars[:30].all() and not stars[30:].any()


def test_no_star_above_saturation_or_flagged():
    stars, locus = select_stars(
        np.full(3, 2.0), np.full(3, 99.0), np.array([0, 1, 0]), np.array([200.0, 1, 1]), 100.0
    )
    assert stars.tolist() == [False, False, True] and locus == pytest.approx(2.0)
    none, locus = select_stars(
        np.full(2, 2.0), np.full(2, 5.0), np.zeros(2, int), np.ones(2), 100.0
    )
    assert not none.any() and np.isnan(locus)


# Background, profile and growth curve -----------------------------------------------------


def test_background_of_masked_sources_is_the_mean_of_skewed_noise():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:512, :640]
    truth = 3.0 + 0.004 * x - 0.002 * y
    image = (rng.poisson(20.0, x.shape) - 20.0 + truth).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    bad[100:200, 100:240] = True
    image[bad] += 1000
    level = spread_mesh(background_mesh(image, bad, 128), image.shape)
    inner = (slice(64, -64), slice(64, -64))
    # Noise of 4.5 over the 16,000 pixels of a mesh is 0.04; at the corner of a plane the filter
    # is off by up to the change over one mesh, 0.004 x 128 + 0.002 x 128.
    assert np.abs(level - truth)[inner].max() < 0.75
    assert abs(np.median((level - truth)[inner])) < 0.05


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (50, 50)])
def test_background_of_small_images(shape):
    image = np.full(shape, 7.0, np.float32)
    level = spread_mesh(background_mesh(image, np.zeros(shape, bool), 64), shape)
    assert level.shape == shape and np.allclose(level, 7.0)


def test_background_without_a_usable_pixel_is_zero():
    mesh = background_mesh(np.ones((64, 64), "f4"), np.ones((64, 64), bool))
    assert not spread_mesh(mesh, (64, 64)).any()


@pytest.mark.parametrize("beta", [2.5, 3.0, 4.5])
def test_total_flux_of_moffat_stars(beta):
    rng = np.random.default_rng(4)
    fwhm, noise = 4.0, 5.0
    grid = np.arange(45, 760, 72.0)
    x, y = (axis.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for axis in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(4.3, 5.3, x.size)
    image = moffat_image(x, y, flux, fwhm, beta, (800, 800), half=120)
    image = (image + rng.normal(0, noise, image.shape)).astype(np.float32)
    field = measure_field(image, noise, np.zeros(image.shape, bool), gain=1e9)
    # A pixel widens the profile a little: sqrt(4^2 + 0.68) at most.
    assert field.fwhm == pytest.approx(4.05, abs=0.08)
    assert field.stars.sum() >= 90 and field.ellipticity < 0.05
    plane = np.column_stack([x, y])
    ours, theirs = match(np.column_stack([field.sources["x"], field.sources["y"]]), plane, 1.0)
    assert ours.size >= 98
    ratio = field.total[ours] / flux[theirs]
    error = np.median(field.error[ours] / field.flux[ours])
    offset = np.median(ratio) - 1
    assert abs(offset) < 3 * np.hypot(field.growth.error, error / np.sqrt(ours.size))
    assert abs(offset) < 0.01
    assert field.growth.n_stars >= 10


def crowded(rng, number, size=420, fwhm=3.5, beta=3.5, sky=400.0, exposures=5):
    """Return stars (x, y, magnitude, flux) and a coadd of them; 25 is one electron per second."""
    x, y = rng.uniform(-20, size + 20, (2, number))
    magnitude = 20.5 - 4.7 * rng.power(0.7, number) ** 1.5
    flux = 60 * 10 ** (-0.4 * (magnitude - 25))
    light = moffat_image(x, y, flux, fwhm, beta, (size, size), half=40, points=3)
    image = rng.poisson((light + sky) * exposures) / exposures - sky
    image += rng.normal(0, 8 / np.sqrt(exposures), image.shape)
    return x, y, magnitude, flux, image.astype(np.float32)


def test_neighbour_hidden_in_a_star_is_found_and_taken_away():
    rng = np.random.default_rng(31)
    x, y, flux = np.array([60.0, 66.0, 200.0]), np.array([60.0, 62.5, 90.0]), np.full(3, 6e4)
    flux[1] = 6e3
    grid = np.arange(40, 290, 50.0)
    more = np.array([(u, v + 260) for u in grid for v in grid[:3] - 30])
    x, y = np.append(x, more[:, 0]), np.append(y, more[:, 1])
    flux = np.append(flux, np.full(len(more), 5e4))
    image = moffat_image(x, y, flux, 4.0, 3.0, (420, 320), half=80)
    image = (image + rng.normal(0, 5, image.shape)).astype(np.float32)
    field = measure_field(image, 5.0, np.zeros(image.shape, bool), gain=1e9)
    apart = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    assert apart.min(axis=0)[:2].max() < 1.0
    total = field.total[apart.argmin(axis=0)]
    # Untold, the aperture of 1.5 FWHM would hold 4 % too much: half of its neighbour.
    assert total[:2] == pytest.approx(flux[:2], abs=0.015 * 6e4)


def test_stars_that_share_an_aperture_are_solved_for():
    wings = Wings(moffat_alpha(4.0, 3.0), 3.0, 1.0)
    x, y = np.array([0.0, 4.0, 40.0]), np.array([0.0, 3.0, 0.0])
    flux = np.array([1000.0, 300.0, 500.0])
    image = moffat_image(x + 60, y + 60, flux, 4.0, 3.0, (120, 180), half=59)
    sums, _, _ = aperture_fluxes(image.astype("f4"), 1.0, x + 60, y + 60, [6.0])
    part = float(moffat_fraction(6.0, wings.alpha, 3.0))
    found = share_light(sums[:, 0], x, y, 6.0, part, wings)
    # A hundredth of the brighter one: pixels are not points. The sums hold 25 % of the other.
    assert found == pytest.approx(flux, abs=0.01 * flux.max())


@pytest.mark.parametrize("number", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_zeropoint_of_images_is_within_its_error_of_the_truth(number):
    settings = StackSettings(colour_term="off")
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": 0.0, "CRPIX1": 1.0,
        "CRPIX2": 1.0, "CD1_1": -1 / 9000, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1 / 9000,
    }  # fmt: skip
    wcs = celestial_wcs(fits.Header(cards))
    pulls, offsets = [], []
    for seed in range(number):
        rng = np.random.default_rng(1000 + seed)
        x, y, magnitude, _, image = crowded(rng, 80)
        weight = np.full(image.shape, 5 / 464, np.float32)
        coadd = measure_coadd(
            image, weight, wcs=wcs, scale=0.4, gain=5.0, saturate=5e4, settings=settings
        )
        ra, dec = wcs.all_pix2world(x, y, 0)
        reference = {
            "ra": ra, "dec": dec,
            "r": magnitude + rng.normal(0, 0.01, x.size), "r_err": np.full(x.size, 0.01),
        }  # fmt: skip
        found, _ = coadd_zeropoint(coadd, reference, "r", settings)
        offsets.append(found.value - 25 - 2.5 * np.log10(60))
        pulls.append(offsets[-1] / found.error)
        assert found.n_stars >= 20
    # 0.1, 0.8 and 1.2 are asked for, of 200 fields; fewer do not tell as well.
    chance = 0 if number >= 200 else 1 / np.sqrt(number)
    assert abs(np.mean(pulls)) < 0.1 + 2 * chance
    assert 0.8 - 1.5 * chance < np.std(pulls) < 1.2 + 1.5 * chance
    assert np.max(np.abs(offsets)) < 0.010


def test_models_of_many_stars_are_those_of_each():
    rng = np.random.default_rng(34)
    x, y = rng.uniform(-3, 123, (2, 30))
    flux = 10 ** rng.uniform(2, 6, 30)
    flux[3] = 0
    wings = Wings(2.5, 3.0, 0.9, 0.1, -0.05)
    image = rng.normal(0, 1, (120, 110)).astype(np.float32)
    models = StarModels(image, x, y, flux, wings, 1.0, 5.0)
    rows, columns = np.indices(image.shape)
    light = []
    for i in range(30):
        whole = flux[i] * wings.density(columns - x[i], rows - y[i])
        near = np.maximum(abs(columns - np.rint(x[i])), abs(rows - np.rint(y[i])))
        light.append(np.where(near <= models.half[i], whole, 0))
    light = np.array(light)
    assert models.residual == pytest.approx(image - light.sum(axis=0), abs=1e-5 * flux.max())
    chosen = np.arange(30) % 2 == 0
    assert models.image(chosen) == pytest.approx(light[chosen].sum(axis=0), abs=1e-5 * flux.max())
    alone = [
        sep.sum_circle((models.residual + light[i]).astype("f4"), [x[i]], [y[i]], 5.0)[0][0]
        for i in range(30)
    ]
    assert models.apertures(5.0) == pytest.approx(alone, rel=1e-4, abs=0.1)


def test_rings_about_stars_are_those_of_sep():
    rng = np.random.default_rng(35)
    image = rng.normal(10, 1, (150, 160)).astype(np.float32)
    x, y = np.array([40.3, 100.7]), np.array([60.2, 80.9])
    radii = np.array([2.0, 4.0, 9.0])
    segments = np.zeros(image.shape, np.int32)
    segments[58:63, 38:43], segments[66:70, 40:45] = 1, 7
    flux, variance = ring_fluxes(image, 2.0, x, y, radii, 3.0, segments, np.array([1, 2]))
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
    numbers = np.array([1, 2, 3])
    found = ring_fluxes(image, 2.0, x, y, radii, 3.0, segments, numbers, 3)
    for here, there in zip(
        found, ring_fluxes(image, 2.0, x, y, radii, 3.0, grown, numbers), strict=True
    ):
        np.testing.assert_array_equal(here, there)
    plain, _ = ring_fluxes(image, 2.0, x, y, radii, 3.0, segments, numbers)
    assert (plain[0] != found[0][0]).any()


def test_faint_stars_do_not_bias_the_zero_point():
    rng = np.random.default_rng(33)
    offsets, plain = [], []
    for _ in range(200):
        flux = 10 ** rng.uniform(2.0, 2.6, 60)
        noise = np.sqrt(8.0**2 + flux / 5)
        measured = flux + rng.normal(0, noise)
        error = 1.0857 * np.sqrt(8.0**2 + measured / 5) / measured
        reference = 25 - 2.5 * np.log10(flux)
        instrumental = -2.5 * np.log10(measured)
        small = np.full(60, 0.005)
        plain.append(fit_zeropoint(instrumental, error, reference, small).value - 25)
        better = expected_noise(instrumental, error, measured, flux, 5.0)
        offsets.append(fit_zeropoint(*better, reference, small).value - 25)
    # 200 fields of 60 stars of 0.05 mag: known to 0.0005.
    assert abs(np.mean(offsets)) < 0.0015 and np.mean(plain) > 0.0015


def test_growth_curve_without_stars_is_assumed_and_says_so():
    image = np.zeros((100, 100), np.float32)
    none = np.empty(0)
    curve = growth_curve(image, 1.0, none, none, none, none, 3.0)
    assert curve.n_stars == 0 and curve.error == pytest.approx(0.03)
    radii = np.array([0.5, 2.0, 4.5, 9.0, 15.0, 500.0])
    fraction = curve.fraction(radii)
    truth = moffat_fraction(radii, moffat_alpha(3.0, 3.0), 3.0)
    assert np.all(np.diff(fraction) > 0)
    assert np.abs(fraction - truth)[1:].max() < 0.01


def test_nothing_found_in_noise_free_emptiness():
    assert measure_field(np.zeros((64, 64), "f4"), 1.0, np.zeros((64, 64), bool)) is None


# Matching ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ra0, dec0", [(10.0, 20.0), (359.99, -75.0), (0.001, 89.0)])
def test_gnomonic_projection_agrees_with_astropy(ra0, dec0):
    centre = SkyCoord(ra0, dec0, unit="deg")
    angles, radii = np.array([10.0, 130.0, 250.0]), np.array([30.0, 200.0, 600.0])
    sky = centre.directional_offset_by(angles * u.deg, radii * u.arcsec)
    plane = project(sky.ra.deg, sky.dec.deg, ra0, dec0)
    distance = np.degrees(np.tan(np.radians(radii / 3600))) * 3600
    assert np.allclose(np.hypot(*plane.T), distance, atol=1e-5)
    assert np.allclose(np.degrees(np.arctan2(*plane.T)) % 360, angles, atol=1e-4)


def test_match_is_one_to_one_and_leaves_doubles_out():
    reference = np.array([[0, 0], [10, 0], [10.5, 0], [20, 0], [np.nan, 0], [50, 0]], float)
    plane = np.array([[0.3, 0], [-0.1, 0], [10.2, 0], [20.4, 0], [35, 0]], float)
    ours, theirs = match(plane, reference, 1.0)
    assert dict(zip(ours.tolist(), theirs.tolist(), strict=True)) == {1: 0, 3: 3}


def test_match_of_nothing():
    empty = np.empty((0, 2))
    for a, b in ((empty, np.zeros((3, 2))), (np.zeros((3, 2)), empty)):
        assert match(a, b, 1.0)[0].size == 0
    assert match(np.array([[0.0, 0]]), np.array([[0.1, 0]]), 1.0)[0].size == 1


def test_stars_of_frames_get_common_numbers():
    stars = np.array([[0, 0], [10, 0], [20, 0], [30, 5]], float)
    frames = [stars[[0, 1]] + 0.1, stars + 0.0, stars[[3, 2]] - 0.1, np.empty((0, 2))]
    numbers, count = common_stars(frames, 1.0)
    assert count == 4
    assert numbers[0].tolist() == numbers[1][[0, 1]].tolist()
    assert numbers[2].tolist() == numbers[1][[3, 2]].tolist()
    assert numbers[3].size == 0


# Zero points ------------------------------------------------------------------------------


def test_relative_zeropoints_of_frames_with_outliers_and_gaps():
    rng = np.random.default_rng(6)
    n_frames, n_stars = 12, 60
    truth = rng.normal(0, 0.7, n_frames)
    stars = rng.uniform(15, 20, n_stars)
    error = 0.002 * 10 ** (0.25 * (stars - 15)) * np.ones((n_frames, 1))
    magnitude = stars - truth[:, None] + rng.normal(0, 1, (n_frames, n_stars)) * error
    magnitude += np.where(rng.random(magnitude.shape) < 0.05, 1.5, 0.0)
    magnitude[rng.random(magnitude.shape) < 0.4] = np.nan
    z, scatter, number, group = relative_zeropoints(magnitude, error)
    offset = (z - z.mean()) - (truth - truth.mean())
    # Some 35 stars of 0.01 to 0.03 mag each.
    assert np.abs(offset).max() < 0.012
    assert np.unique(group).size == 1 and number.min() > 20 and scatter.max() < 0.05


def test_frames_without_common_star_are_in_other_groups():
    magnitude = np.full((4, 6), np.nan)
    magnitude[0, :3] = magnitude[1, :3] = [15.0, 16, 17]
    magnitude[1, :3] += 0.5
    magnitude[2, 3:5] = [15.0, 16]
    z, _, number, group = relative_zeropoints(magnitude, np.full_like(magnitude, 0.01))
    assert group[0] == group[1] != group[2]
    assert z[0] - z[1] == pytest.approx(0.5, abs=1e-6)
    assert np.isnan(z[2]) and np.isnan(z[3]) and number.tolist() == [3, 3, 0, 0]


def synthetic_field(rng, n, *, intrinsic=0.02, colour_term=0.0, outliers=0.1, zeropoint=25.3):
    """Return a matched catalogue: instrumental, error, reference, error, colour."""
    truth = rng.uniform(15, 19, n)
    colour = rng.normal(0.6, 0.3, n)
    error = 0.003 * 10 ** (0.25 * (truth - 15))
    reference_error = 0.01 * 10 ** (0.15 * (truth - 15))
    instrumental = truth - zeropoint - colour_term * (colour - 0.6)
    instrumental = instrumental + rng.normal(0, 1, n) * np.hypot(error, intrinsic)
    reference = truth + rng.normal(0, 1, n) * reference_error
    wrong = rng.random(n) < outliers
    instrumental[wrong] += rng.choice([-1, 1], wrong.sum()) * rng.uniform(0.2, 1.5, wrong.sum())
    return instrumental, error, reference, reference_error, colour


@pytest.mark.parametrize("n, colour_term", [(20, 0.0), (60, 0.08), (8, 0.0)])
def test_zeropoint_lies_within_its_stated_error(n, colour_term):
    rng = np.random.default_rng(7)
    pulls, offsets = [], []
    for _ in range(400):
        *data, colour = synthetic_field(rng, n, colour_term=colour_term)
        fit = fit_zeropoint(*data, colour, None, colour_name="g-r")
        at = fit.colour_term * (0.6 - fit.colour_at) if fit.colour else 0.0
        offsets.append(fit.value + at - 25.3)
        error = np.hypot(fit.error, fit.colour_term_error * (0.6 - fit.colour_at)
                         if fit.colour else 0.0)  # fmt: skip
        pulls.append(offsets[-1] / error)
    assert abs(np.mean(pulls)) < 0.1
    assert 0.8 < np.std(pulls) < 1.2
    if n >= 20:
        assert np.std(offsets) < 0.01


def test_colour_term_is_found_with_its_error():
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(200):
        *data, colour = synthetic_field(rng, 50, colour_term=-0.12)
        fit = fit_zeropoint(*data, colour, None, colour_name="g-r")
        assert fit.colour == "g-r"
        pulls.append((fit.colour_term + 0.12) / fit.colour_term_error)
    assert abs(np.mean(pulls)) < 0.25 and 0.8 < np.std(pulls) < 1.25


@pytest.mark.parametrize("sign", [1, -1])
def test_colours_that_share_the_error_of_the_magnitude_make_no_colour_term(sign):
    rng = np.random.default_rng(15)
    pulls = []
    for _ in range(200):
        n = 60
        truth, other = rng.uniform(15, 19, n), rng.normal(0.5, 0.15, n)
        error = 0.05 + np.zeros(n)
        reference = truth + rng.normal(0, error)
        partner = truth - sign * other + rng.normal(0, error)
        fit = fit_zeropoint(
            truth - 25 + rng.normal(0, 0.01, n), np.full(n, 0.01), reference, error,
            sign * (reference - partner), error * 2**0.5, sign * error**2, colour_name="J-H",
        )  # fmt: skip
        pulls.append(fit.colour_term / fit.colour_term_error)
    # Not corrected, the term would be 0.05^2 / (0.15^2 + 2 x 0.05^2) = 0.09, three of its errors.
    assert abs(np.mean(pulls)) < 0.5 and 0.8 < np.std(pulls) < 1.25


def test_plane_in_position_is_found_with_its_error_and_none_where_there_is_none():
    rng = np.random.default_rng(16)
    pulls, found, false = [], 0, 0
    for _ in range(400):
        x, y = rng.uniform(0, 1000, (2, 40))
        variance = rng.uniform(0.005, 0.02, 40) ** 2
        residual = rng.normal(0, np.sqrt(variance + 0.01**2))
        false += fit_spatial_term(residual, variance, x, y) is not None
        plane = fit_spatial_term(residual + 6e-5 * x - 4e-5 * y, variance, x, y)
        if plane is not None:
            found += 1
            pulls.append([(plane.dx - 6e-5) / plane.dx_error, (plane.dy + 4e-5) / plane.dy_error])
    # 0.003 x 400 is 1; five or more by chance once in 200 times.
    assert false <= 4
    # A plane of 21 mmag rms, with 16 mmag of noise in 40 stars, is eight times its error.
    assert found > 390
    assert (np.abs(np.mean(pulls, axis=0)) < 0.2).all()
    assert ((np.std(pulls, axis=0) > 0.85) & (np.std(pulls, axis=0) < 1.2)).all()
    assert fit_spatial_term(residual[:19], variance[:19], x[:19], y[:19]) is None


def test_no_colour_term_from_few_stars_or_one_colour():
    rng = np.random.default_rng(9)
    *data, colour = synthetic_field(rng, 8, colour_term=0.1)
    assert fit_zeropoint(*data, colour, None, colour_name="g-r").colour == ""
    *data, colour = synthetic_field(rng, 50)
    fit = fit_zeropoint(*data, np.full(50, 0.6), None, colour_name="g-r")
    assert fit.colour == "" and fit.colour_term == 0.0 and np.isnan(fit.colour_at)


def test_stars_of_unknown_colour_do_not_spoil_the_fit():
    rng = np.random.default_rng(10)
    *data, colour = synthetic_field(rng, 40)
    colour[:10] = np.nan
    fit = fit_zeropoint(*data, colour, None, colour_name="g-r")
    assert fit.value == pytest.approx(25.3, abs=0.02) and not fit.used[:10].any()


def test_too_few_stars_give_no_zeropoint_but_a_reason():
    fit = fit_zeropoint(
        np.array([-8.0, -9.0]), np.full(2, 0.01), np.array([17.0, 16.0]), np.full(2, 0.01)
    )
    assert not fit.known and fit.reason == "TOO_FEW_REFERENCE_STARS: 2 < 3"
    nothing = fit_zeropoint(np.empty(0), np.empty(0), np.empty(0), np.empty(0))
    assert not nothing.known and "0 < 3" in nothing.reason


def test_missing_reference_magnitudes_and_errors():
    rng = np.random.default_rng(11)
    instrumental, error, reference, reference_error, _ = synthetic_field(rng, 30, outliers=0)
    reference[:5] = np.nan
    reference_error[5:10] = np.nan
    fit = fit_zeropoint(instrumental, error, reference, reference_error)
    assert fit.n_matched == 25 and fit.value == pytest.approx(25.3, abs=0.03)


def test_intrinsic_scatter_is_what_the_errors_do_not_explain():
    rng = np.random.default_rng(12)
    data = synthetic_field(rng, 3000, intrinsic=0.05, outliers=0)[:4]
    # The fit adds 0.005 to every star.
    assert fit_zeropoint(*data).intrinsic == pytest.approx(0.05, abs=0.005)


def test_colour_is_the_one_most_stars_have():
    n = 30
    table = {"ra": np.zeros(n), "g": np.full(n, np.nan), "r": np.zeros(n) + 16.0,
             "i": np.zeros(n) + 15.5, "r_err": np.full(n, 0.01)}  # fmt: skip
    table["g"][:5] = 17.0
    name, colour, error, covariance = choose_colour("r", table, np.arange(n))
    assert name == "r-i" and np.allclose(colour, 0.5) and np.isnan(error).all()
    assert np.allclose(covariance, 1e-4)
    assert choose_colour("J", table, np.arange(n))[0] == ""


# Empty apertures --------------------------------------------------------------------------


def test_empty_apertures_touch_nothing_occupied():
    rng = np.random.default_rng(13)
    occupied = rng.random((300, 400)) < 0.0005
    radius = 6.0
    x, y = empty_apertures(summed_area(occupied), radius)
    assert x.size > 300
    rows, columns = np.nonzero(occupied)
    distance = np.hypot(x[:, None] - columns, y[:, None] - rows)
    assert distance.min() > radius
    assert min(x.min(), y.min()) > radius
    assert x.max() < 400 - radius and y.max() < 300 - radius


def test_no_room_for_apertures():
    assert empty_apertures(summed_area(np.ones((50, 50), bool)), 3.0)[0].size == 0
    assert empty_apertures(summed_area(np.zeros((8, 8), bool)), 10.0)[0].size == 0


def test_noise_of_white_noise_is_that_of_the_map():
    rng = np.random.default_rng(14)
    sigma = np.linspace(2, 6, 500)[None, :] * np.ones((500, 1))
    image = rng.normal(0, 1, sigma.shape) * sigma
    x, y = empty_apertures(summed_area(np.zeros(image.shape, bool)), 4.0)
    maps = image.astype("f4"), (sigma**2).astype("f4")
    _, ratio = aperture_noise(*maps, x, y, 4.0, subpix=1)
    assert ratio == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_differs_from_pixel_to_pixel_makes_no_source_without_place_or_width(seed):
    rng = np.random.default_rng(seed)
    noise = np.where(rng.random((400, 400)) < 0.2, 8, 1).astype(np.float32)
    image = (rng.normal(0, 1, noise.shape) * noise).astype(np.float32)
    sources, segments = detect_sources(image, noise, None, 1.0, 5)
    # Moments weighted by negative light: no root of these.
    assert ((sources["x2"] < 0) | (sources["y2"] < 0)).sum() > 20
    assert (sources["a"] > 0).all() and (sources["b"] > 0).all()
    assert np.isfinite(sources["theta"]).all()
    for axis in ("x", "y"):
        low, high = sources[f"{axis}min"], sources[f"{axis}max"]
        assert ((low <= sources[axis]) & (sources[axis] <= high)).all()
    field = measure_field(image, noise, np.zeros(noise.shape, bool), threshold=1.0)
    all_pixels = np.ones(image.shape, bool)
    coadd = MeasuredCoadd(
        image, noise**2, all_pixels, ~all_pixels, np.zeros((1, 1)), field,
        CoaddNoise(np.array([1.0, 9.0]), np.ones(2)), WCS(naxis=2), scale=1.0, gain=1.0,
    )  # fmt: skip
    flux, error, *_ = kron_photometry(coadd, np.ones(len(field.sources)))
    assert np.isfinite(flux).all() and (error > 0).all()


def test_light_that_covers_every_pixel_is_detected():
    """As of a globular cluster: more pixels than sep's buffer holds at first."""
    y, x = np.mgrid[:620, :620]
    cluster = 50 + 1000 / (1 + ((x - 310) ** 2 + (y - 310) ** 2) / 90**2)
    sources, segments = detect_sources(cluster.astype(np.float32), 1.0)
    assert (segments > 0).all()
    assert np.hypot(sources["x"][0] - 310, sources["y"][0] - 310) < 1


def test_crowd_that_is_one_source_is_detected_at_a_higher_threshold(monkeypatch):
    """Of more parts than sep allows; between the stars it is 20 sigma bright."""
    monkeypatch.setattr("lib.photometry.sources.SUB_OBJECTS", 100)
    y, x = np.mgrid[:160, :160]
    stars = 20 + 500 * np.exp(-((x % 8 - 4) ** 2 + (y % 8 - 4) ** 2) / 2)
    sources, _ = detect_sources(stars.astype(np.float32), 1.0)
    assert len(sources) == 400
