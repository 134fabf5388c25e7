"""lib.photometry.psf: Moffat profiles against numerical integrals, fits against injected truth."""

import numpy as np
import pytest
from moffatstars import jittered_grid, moffat_image
from scipy.integrate import quad
from scipy.optimize import least_squares

from lib.photometry.psf import (
    Wings,
    ellipticity_on_sky,
    fit_bounded,
    fit_profile,
    mean_shape,
    moffat_alpha,
    moffat_fraction,
    moffat_fwhm,
    moffat_slopes,
    squares_about,
)

# The Moffat profile -----------------------------------------------------------------------


def moffat_density(r, alpha, beta):
    return (beta - 1) / (np.pi * alpha**2) * (1 + (r / alpha) ** 2) ** -beta


@pytest.mark.parametrize("beta", [1.5, 2.5, 3.0, 4.7, 30.0])
def test_moffat_fwhm_and_alpha_are_inverse(beta):
    alpha = moffat_alpha(3.3, beta)
    assert moffat_fwhm(alpha, beta) == pytest.approx(3.3, rel=1e-12)
    half_maximum = moffat_density(3.3 / 2, alpha, beta) / moffat_density(0, alpha, beta)
    assert half_maximum == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.7, 2.0, 9.0])
@pytest.mark.parametrize("beta", [1.3, 2.7, 8.0])
def test_moffat_fraction_is_the_integral_of_the_profile(alpha, beta):
    for radius in (0.1, 1.0, 5.0, 80.0):
        integral, _ = quad(
            lambda r: 2 * np.pi * r * moffat_density(r, alpha, beta), 0, radius,
            points=[min(alpha, radius / 2)], epsabs=1e-12,
        )  # fmt: skip
        assert moffat_fraction(radius, alpha, beta) == pytest.approx(integral, rel=1e-9)
    assert moffat_fraction(np.inf, alpha, beta) == 1.0


@pytest.mark.parametrize("beta", [1.3, 2.7, 8.0])
def test_slopes_of_the_moffat_fraction(beta):
    radius, alpha, step = np.linspace(0, 12, 9), 3.0, 1e-5
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


# Wings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("e1, e2", [(0.0, 0.0), (0.3, 0.0), (-0.1, 0.4)])
def test_light_of_elliptical_wings_is_their_norm(e1, e2):
    """The integral by radius in closed form, at each angle; then over the angles."""
    wings = Wings(2.5, 3.2, 0.9, e1, e2)
    angle = np.linspace(0, 2 * np.pi, 721)[:-1]
    radius = np.geomspace(1e-3, 1e4, 4001)
    density = wings.density(radius * np.cos(angle)[:, None], radius * np.sin(angle)[:, None])
    light = np.trapezoid(density * 2 * np.pi * radius**2, np.log(radius), axis=1).mean()
    # The trapezoids' error is (d ln r)^2 / 12 of a light that is spread over some e-folds.
    assert light == pytest.approx(0.9, rel=1e-4)


def test_ellipticity_of_the_wings_is_that_of_mean_shape():
    """Isophotes of semi-axes a and b at an angle."""
    a, b, theta = 3.0, 2.0, 0.6
    shape = mean_shape(np.array([a]), np.array([b]), np.array([theta]))
    wings = Wings(2.5, 3.2, 1.0, *shape)
    along = wings.density(a * np.cos(theta), a * np.sin(theta))
    across = wings.density(-b * np.sin(theta), b * np.cos(theta))
    assert along == pytest.approx(across, rel=1e-12)


def test_share_of_an_aperture_beside_the_star():
    wings, radius = Wings(2.5, 3.0, 0.95), 6.0
    distance, part = wings.aperture_share(radius)
    # The midpoint rule in r^2 by steps of h = 36 / 60: h^2 / 24 of the slope at the centre.
    midpoint = 0.6**2 / 24 * (3 - 1) * 3 / 2.5**4
    exact = 0.95 * moffat_fraction(radius, 2.5, 3.0)
    assert part[0] == pytest.approx(exact, abs=1.1 * midpoint)
    for at in (3.0, 7.0, 9.0, 20.0):
        # Circles about the star, and which part of them lies within the aperture.
        def ring(r, at=at):
            cosine = (r**2 + at**2 - radius**2) / (2 * r * at)
            return 2 * r * np.arccos(np.clip(cosine, -1, 1)) * wings.density(r, 0.0)

        exact = quad(ring, 1e-9, at + radius, points=[abs(at - radius)])[0]
        # 60 x 24 points of equal area are 0.27 pixel apart, a tenth of alpha: its square.
        assert np.interp(at, distance, part) == pytest.approx(exact, rel=0.01)


def test_brightness_at_the_reach_of_the_wings():
    wings = Wings(2.5, 3.0, 0.95)
    density = np.array([1e-6, 1e-4, 1e-2])
    assert wings.density(wings.reach(density), 0.0) == pytest.approx(density)
    assert wings.reach(np.array([1.0])) == 0.0


# Shapes -----------------------------------------------------------------------------------


def test_noise_of_the_axes_does_not_make_round_stars_elliptical():
    rng = np.random.default_rng(61)
    n = 4000
    # Second moments with noise: the larger axis is named a, at any angle.
    xx, yy = 4 + rng.normal(0, 0.2, (2, n))
    xy = rng.normal(0, 0.14, n)
    root = np.hypot((xx - yy) / 2, xy)
    a, b = np.sqrt((xx + yy) / 2 + root), np.sqrt((xx + yy) / 2 - root)
    theta = 0.5 * np.arctan2(2 * xy, xx - yy)
    shape = mean_shape(a, b, theta)
    # Components of 0.035 rms each; a median of n of them is known to 1.25 / sqrt(n) of that.
    assert np.hypot(*shape) < 4 * 0.035 * 1.25 / np.sqrt(n)
    assert np.median(1 - b / a) > 0.03


def test_shape_without_stars_is_round():
    assert mean_shape(np.empty(0), np.empty(0), np.empty(0)) == (0.0, 0.0)


# Fits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("high", [(9.0, 9.0), (9.0, 0.3), (1.0, 9.0)])
def test_fit_within_bounds_is_that_of_scipy(high):
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
    outside, *_ = fit_bounded(misfit, (0.5, -1.0), low, high)
    np.testing.assert_allclose(outside, best, rtol=1e-5)


def information(fwhm, beta, n_stars, noise, half):
    """Return the smallest errors of ln(FWHM) and ln(beta) that pixels of such noise allow.

    Cramer and Rao's bound for peak, alpha and beta of `n_stars` stars of flux 1 in white noise.
    """
    grid = np.arange(-half, half + 1.0)
    r = np.hypot(grid[:, None], grid).ravel()
    r = r[r < half]

    def profile(p):
        alpha = moffat_alpha(np.exp(p[1]), np.exp(p[2]))
        return np.exp(p[0]) * (1 + (r / alpha) ** 2) ** -np.exp(p[2])

    peak = moffat_density(0, moffat_alpha(fwhm, beta), beta)
    at, step = np.log([peak, fwhm, beta]), 1e-5
    slopes = np.stack([(profile(at + e) - profile(at - e)) / (2 * step) for e in step * np.eye(3)])
    covariance = np.linalg.inv(n_stars / noise**2 * slopes @ slopes.T)
    return np.sqrt(np.diag(covariance))[1:]


@pytest.mark.parametrize("fwhm, beta", [(3.0, 2.5), (4.5, 3.5)])
def test_profile_of_noisy_stars_is_as_good_as_their_pixels_allow(fwhm, beta):
    """Profiles sampled at the centres of pixels, and so faint that noise fills the rings.

    In a ring where the profile falls by more than the noise, the median is that of few pixels.
    """
    rng = np.random.default_rng(62)
    flux, noise, trials = 2e3, 10.0, 60
    n = 144
    found = []
    for _ in range(trials):
        x, y = jittered_grid(rng, 30, 510, 40)
        image = moffat_image(x, y, np.full(n, flux), fwhm, beta, (520, 520), 19, points=1)
        image = image + rng.normal(0, noise, image.shape)
        found.append(fit_profile(image, x, y, np.full(n, flux), fwhm, max_stars=n))
    pull = np.log(np.array(found) / (fwhm, beta))
    pull /= information(fwhm, beta, n, noise / flux, 2.5 * fwhm)
    # A median has pi/2 of the variance of the mean, at most; standard deviations of 60 are known
    # to 9 %, means to 1 / sqrt(60) of that.
    worst = np.sqrt(np.pi / 2)
    assert (np.abs(pull.mean(axis=0)) < 4 * worst / np.sqrt(trials)).all()
    assert (pull.std(axis=0) < worst * (1 + 3 * 0.09)).all()
    assert (pull.std(axis=0) > 1 - 3 * 0.09).all()


def test_neighbour_of_one_star_does_not_change_the_profile():
    rng = np.random.default_rng(63)
    x, y = jittered_grid(rng, 30, 290, 50)
    flux = np.full(x.size, 2e4)
    noise = rng.normal(0, 10, (300, 300))
    alone = moffat_image(x, y, flux, 4.0, 3.0, noise.shape, points=1) + noise
    beside = alone + moffat_image(x[:1] + 6, y[:1], flux[:1], 4.0, 3.0, noise.shape, points=1)
    expected = information(4.0, 3.0, x.size, 10 / 2e4, 10.0)
    change = np.log(np.divide(*(fit_profile(one, x, y, flux, 4.0) for one in (beside, alone))))
    # One of 25 moves the median by 1/25 of sqrt(pi/2) sigma of one star, as much as
    # sqrt(25) / 25 of the error of 25.
    assert (np.abs(change) < np.sqrt(np.pi / 2) * expected).all()


def test_no_profile_without_stars_or_light():
    image = np.zeros((80, 80))
    none = np.empty(0)
    assert np.isnan(fit_profile(image, none, none, none, 4.0)).all()
    corner = np.array([2.0]), np.array([2.0]), np.array([100.0])
    assert np.isnan(fit_profile(image, *corner, 4.0)).all()
    centre = np.array([40.0]), np.array([40.0]), np.array([100.0])
    assert np.isnan(fit_profile(np.full_like(image, np.nan), *centre, 4.0)).all()
    assert fit_profile(np.full_like(image, -1.0), *centre, 4.0)  # a start below the bound


# Squares ----------------------------------------------------------------------------------


def test_squares_repeat_the_edge_of_the_image():
    image = np.arange(30).reshape(5, 6)
    tiles = image[squares_about(np.array([2, 0]), np.array([2, 4]), 1, image.shape)]
    np.testing.assert_array_equal(tiles[0], image[1:4, 1:4])
    np.testing.assert_array_equal(tiles[1], [[18, 18, 19], [24, 24, 25], [24, 24, 25]])


def test_ellipticity_on_the_sky_of_pixels_that_are_not_square():
    """Pixels of 0.6" x 1.2": a round star is half as long along y; on the sky it is round."""
    turn = np.radians(30.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.diag([-0.6, 1.2])
    a, b = np.array([2.0, 2.0, 3.0]), np.array([1.0, 2.0, 1.0])
    theta = np.array([0.0, 0.7, np.pi / 2])
    # On the sky: 1.2" x 1.2"; a circle of pixels, 1 : 2; 3.6" along y and 0.6" along x.
    expected = [0.0, 0.5, 1 - 0.6 / 3.6]
    np.testing.assert_allclose(ellipticity_on_sky(a, b, theta, matrix), expected, atol=1e-12)
