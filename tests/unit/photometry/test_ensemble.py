"""lib.photometry.ensemble: frames of many nights on one scale, truth known."""

import numpy as np
import pytest

from lib.photometry.ensemble import (
    ErrorParts,
    comparison_stars,
    solve_ensemble,
    tie_groups,
    varying_shares,
)


def campaign(rng, nights=6, frames=8, stars=30, excess=0.0, photons=(0.003, 0.05)):
    """Return instrumental magnitudes, errors, true zero points and night of each frame."""
    night = np.repeat(np.arange(nights), frames)
    zeropoint = 25 - 0.3 * rng.random(nights)[night] - 0.02 * rng.random(night.size)
    true = rng.uniform(14, 18, stars)
    sigma = np.geomspace(*photons, stars)[np.argsort(np.argsort(true))]
    noise = np.hypot(sigma, excess) * rng.normal(size=(night.size, stars))
    magnitude = true - zeropoint[:, None] + noise
    error = np.broadcast_to(sigma, magnitude.shape).copy()
    return magnitude, error, zeropoint, night, true


@pytest.mark.parametrize("photons", [(0.003, 0.05), (0.0007, 0.03)])
@pytest.mark.parametrize("excess", [0.0, 0.002])
def test_zero_points_are_true_within_their_errors(photons, excess):
    """Also where stars are known better than the least error in the solution, 3 mmag."""
    rng = np.random.default_rng(3)
    pulls = []
    for _ in range(20):
        magnitude, error, zeropoint, _, _ = campaign(rng, 3, excess=excess, photons=photons)
        found = solve_ensemble(magnitude, error)
        difference = found.zeropoint - zeropoint
        pulls.append((difference - difference.mean()) / found.error)
    pulls = np.concatenate(pulls)
    # 480 pulls: their standard deviation is known to 0.033; robust weights cost a little.
    assert abs(pulls.std() - 1) < 3 * 0.033
    assert np.max(np.abs(pulls)) < 4.5


def test_constant_stars_have_chi2_of_one_over_all_nights_and_per_night():
    """With the scatter of the comparison stars beyond their errors found and added."""
    rng = np.random.default_rng(5)
    reduced, nightly, excess = [], [], []
    for _ in range(12):
        magnitude, error, zeropoint, night, _ = campaign(rng, excess=0.008)
        # The first five stars are the targets, the others are compared with.
        found = solve_ensemble(magnitude[:, 5:], error[:, 5:])
        value = magnitude[:, :5] + found.zeropoint[:, None]
        sigma = np.sqrt(error[:, :5] ** 2 + found.excess**2 + found.error[:, None] ** 2)
        mean = np.average(value, axis=0, weights=sigma**-2)
        reduced.append(np.sum(((value - mean) / sigma) ** 2) / (5 * (len(night) - 1)))
        for one in range(6):
            part = night == one
            inner = np.average(value[part], axis=0, weights=sigma[part] ** -2)
            chi2 = np.sum(((value[part] - inner) / sigma[part]) ** 2)
            nightly.append(chi2 / (5 * (part.sum() - 1)))
        excess.append(found.excess)
    assert 0.9 < np.mean(reduced) < 1.1
    assert 0.9 < np.mean(nightly) < 1.1
    assert np.mean(excess) == pytest.approx(0.008, rel=0.15)


def test_blends_that_scatter_with_the_seeing_do_not_enlarge_the_errors_of_others():
    """A third of the stars have 5 mmag of their own, all have 2 mmag."""
    rng = np.random.default_rng(4)
    excess, chi2, pulls, told = [], [], [], []
    for _ in range(8):
        magnitude, error, zeropoint, _, _ = campaign(rng, stars=45, excess=0.002,
                                                     photons=(0.001, 0.03))  # fmt: skip
        blends = np.arange(45) % 3 == 0
        magnitude[:, blends] += 0.005 * rng.normal(size=(len(zeropoint), 15))
        found = solve_ensemble(magnitude, error)
        excess.append(found.excess)
        told.append(np.mean(((found.own > 0) | ~found.used)[blends & (error[0] < 0.0025)]))
        value = (magnitude + found.zeropoint[:, None])[:, ~blends]
        sigma = np.hypot(error[:, ~blends], found.excess)
        mean = np.average(value, axis=0, weights=sigma**-2)
        chi2.append(np.sum(((value - mean) / sigma) ** 2) / (30 * 47))
        difference = found.zeropoint - zeropoint
        pulls.append((difference - difference.mean()) / found.error)
    assert np.mean(excess) == pytest.approx(0.002, abs=0.001) and np.mean(told) > 0.95
    # Faint blends are not told by their scatter, and are left in that of all.
    assert 0.8 < np.mean(chi2) < 1.05
    assert abs(np.concatenate(pulls).std() - 1) < 3 / np.sqrt(2 * 8 * 48)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_what_an_empty_aperture_holds_of_faint_stars_is_told_from_noise(share):
    """Stated is the scatter from place to place; from frame to frame a share of its variance."""
    rng = np.random.default_rng(6)
    shares, chi2 = [], []
    for _ in range(10):
        shape, faint = (60, 40), np.geomspace(0.02, 1, 40)
        photons = np.broadcast_to(0.02 * np.sqrt(faint), shape)
        sky = np.broadcast_to(0.03 * faint, shape)
        truth = ErrorParts(photons, np.sqrt(share) * sky, np.zeros(shape))
        magnitude = 17 + rng.normal(size=shape) * np.hypot(truth.total(), 0.002)
        parts = ErrorParts(photons, sky, np.broadcast_to(1e-4, shape))
        found = varying_shares(magnitude, parts, solve_ensemble(magnitude, parts.total()))
        shares.append(found[0])
        solved = solve_ensemble(magnitude, parts.total(*found))
        value = magnitude + solved.zeropoint[:, None]
        error = np.sqrt(parts.total(*found) ** 2 + solved.excess**2)
        mean = np.average(value, axis=0, weights=error**-2)
        # Stars are their own comparison here: a frame's zero point takes one of their number.
        chi2.append(np.sum(((value - mean) / error) ** 2) / (59 * 39))
    # 2400 squares in each, of which the sky makes some part.
    assert np.mean(shares) == pytest.approx(share, abs=0.05)
    assert np.mean(chi2) == pytest.approx(1, abs=0.04)


def test_few_stars_do_not_tell_which_errors_vary():
    rng = np.random.default_rng(8)
    magnitude, error, *_ = campaign(rng, nights=1, stars=8)
    parts = ErrorParts(0.1 * error, 2 * error, 0 * error)
    assert varying_shares(magnitude, parts, solve_ensemble(magnitude, error)) == (1.0, 1.0)


def test_a_variable_comparison_star_is_left_out():
    rng = np.random.default_rng(7)
    magnitude, error, zeropoint, night, _ = campaign(rng, stars=8)
    magnitude[:, 2] += 0.2 * np.sin(2 * np.pi * np.arange(night.size) / 13)
    found = solve_ensemble(magnitude, error)
    assert not found.used[2] and found.used.sum() == 7
    difference = found.zeropoint - zeropoint
    assert np.std(difference) < 0.012


def test_the_error_of_a_nights_zero_point_makes_no_step():
    """Stacks of the nights are off by up to 0.1 mag: the light curve shows none of it."""
    rng = np.random.default_rng(9)
    magnitude, error, zeropoint, night, true = campaign(rng)
    found = solve_ensemble(magnitude, error)
    wrong = rng.normal(0, 0.05, 6)
    sigma = np.full(night.size, 0.05)
    absolute = zeropoint + wrong[night]
    absolute[night == 4] = np.nan  # a night whose stack has no zero point
    offset, offset_error = tie_groups(found, absolute, sigma, [str(one) for one in night])
    value = magnitude + (found.zeropoint + offset)[:, None]
    nightly = [np.median((value - true)[night == one]) for one in range(6)]
    assert np.ptp(nightly) < 0.008
    known = np.delete(wrong, 4)
    assert np.mean(nightly) == pytest.approx(known.mean(), abs=0.005)
    assert abs(np.mean(nightly)) < 3.5 * offset_error[0]


def test_nights_without_a_common_star_are_tied_by_their_own_zero_points():
    rng = np.random.default_rng(11)
    magnitude, error, zeropoint, night, true = campaign(rng, nights=2, stars=20)
    magnitude[night == 0, :10] = np.nan
    magnitude[night == 1, 10:] = np.nan
    found = solve_ensemble(magnitude, error)
    assert len(np.unique(found.group)) == 2
    offset, _ = tie_groups(found, zeropoint, np.full(night.size, 0.01), list(map(str, night)))
    assert (found.zeropoint + offset) == pytest.approx(zeropoint, abs=0.01)


def test_frames_without_a_star_have_no_zero_point():
    rng = np.random.default_rng(13)
    magnitude, error, *_ = campaign(rng, nights=1)
    magnitude[3] = np.nan
    found = solve_ensemble(magnitude, error)
    assert np.isnan(found.zeropoint[3]) and np.isfinite(np.delete(found.zeropoint, 3)).all()
    none = solve_ensemble(np.empty((4, 0)), np.empty((4, 0)))
    assert np.isnan(none.zeropoint).all()


def test_comparison_stars_are_seen_by_all_stacks_first_and_are_not_the_target():
    sky = np.column_stack([150 + np.arange(6) * 0.01, np.full(6, 20.0)])
    both, snr = sky[:4], np.array([100.0, 400, 300, 200])
    tables = [(both, snr), (sky, np.append(snr, [900.0, 50.0]))]
    found = comparison_stars(tables, sky[1:2] + 1e-5, 1.5, 4)
    assert found[:, 0] == pytest.approx([150.02, 150.03, 150.0, 150.04])
    assert len(comparison_stars(tables, np.empty((0, 2)), 1.5, 0)) == 0


def test_a_periodic_variable_keeps_its_amplitude_over_six_nights():
    """0.10 mag in 0.31 d: amplitude within three sigma, and a period search finds it."""
    rng = np.random.default_rng(15)
    magnitude, error, _, night, _ = campaign(rng)
    time = night + 0.04 * (np.arange(night.size) % 8)
    magnitude[:, 12] += 0.10 * np.sin(2 * np.pi * time / 0.31)
    others = np.arange(30) != 12
    found = solve_ensemble(magnitude[:, others], error[:, others])
    value = magnitude[:, 12] + found.zeropoint
    sigma = np.sqrt(error[:, 12] ** 2 + found.error**2 + found.excess**2)

    def fitted(period):
        phase = 2 * np.pi * time / period
        design = np.column_stack([np.ones(time.size), np.sin(phase), np.cos(phase)])
        scaled = design / sigma[:, None]
        terms, *_ = np.linalg.lstsq(scaled, value / sigma, rcond=None)
        covariance = np.linalg.inv(scaled.T @ scaled)
        return np.sum((scaled @ terms - value / sigma) ** 2), terms, covariance

    _, terms, covariance = fitted(0.31)
    assert abs(np.hypot(*terms[1:]) - 0.10) < 3 * np.sqrt(covariance[1, 1])
    periods = np.arange(0.25, 0.45, 0.0005)
    best = periods[np.argmin([fitted(one)[0] for one in periods])]
    assert best == pytest.approx(0.31, abs=0.002)


def test_zeropoint_without_a_star_is_that_of_the_others():
    """As if it had not been in the list; a bright one would else be compared with itself."""
    rng = np.random.default_rng(3)
    error = np.full((40, 8), 0.01)
    error[:, 0] = 0.002
    magnitude = 15 + np.arange(8) + error * rng.normal(size=error.shape)
    whole, rest = solve_ensemble(magnitude, error), solve_ensemble(magnitude[:, 1:], error[:, 1:])
    found = np.array([whole.without_star(k, magnitude[k], error[k]) for k in range(40)])
    zeropoint = whole.zeropoint + found[:, 0, 0]
    before = np.std(whole.zeropoint - rest.zeropoint)
    assert before > 0.002 and np.std(zeropoint - rest.zeropoint) < 0.2 * before
    assert found[:, 1, 0] == pytest.approx(0.01 / np.sqrt(7), rel=0.1)
