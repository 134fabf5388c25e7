"""lib.photometry.zeropoint: zero points of simulated stars, within their stated errors."""

import numpy as np
import pytest

from lib.photometry.zeropoint import (
    ReferenceColour,
    choose_colour,
    expected_noise,
    fit_spatial_term,
    fit_zeropoint,
    relative_zeropoints,
)


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
        fit = fit_zeropoint(*data, ReferenceColour("g-r", colour))
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
        fit = fit_zeropoint(*data, ReferenceColour("g-r", colour))
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
            ReferenceColour(
                "J-H", sign * (reference - partner), error * 2**0.5, sign * error**2
            ),
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
    assert fit_zeropoint(*data, ReferenceColour("g-r", colour)).colour == ""
    *data, colour = synthetic_field(rng, 50)
    fit = fit_zeropoint(*data, ReferenceColour("g-r", np.full(50, 0.6)))
    assert fit.colour == "" and fit.colour_term == 0.0 and np.isnan(fit.colour_at)


def test_stars_of_unknown_colour_do_not_spoil_the_fit():
    rng = np.random.default_rng(10)
    *data, colour = synthetic_field(rng, 40)
    colour[:10] = np.nan
    fit = fit_zeropoint(*data, ReferenceColour("g-r", colour))
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
    colour = choose_colour("r", table, np.arange(n))
    assert colour.name == "r-i" and np.allclose(colour.value, 0.5)
    assert np.isnan(colour.error).all() and np.allclose(colour.covariance, 1e-4)
    assert choose_colour("J", table, np.arange(n)) is None


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
