"""lib.stack.outliers: satellites and cosmic rays of known place in aligned exposures."""

import numpy as np
import pytest
import simulate
from exposures import NOISE, SHAPE, exposures, noises
from scipy.ndimage import label, maximum_filter, minimum_filter, uniform_filter

from lib.core.medians import lower_median
from lib.stack.aligned import AlignedFrame, mask_outliers
from lib.stack.outliers import (
    PROFILE_MISMATCH,
    ReferenceImage,
    box_sums,
    connected_components,
    extremes,
    find_outliers,
    find_trails,
    fit_line,
)


def find(images, noises, fwhms):
    """Return the outliers and trails of all exposures."""
    weights = np.isfinite(images) / np.array(noises) ** 2
    described = *lower_median(images, weights), NOISE, float(np.median(fwhms))
    reference = ReferenceImage.from_median(*described)
    # The noise is that of the sources too: no electron more.
    found = [
        find_outliers(image, weight, np.inf, fwhm, reference)
        for image, weight, fwhm in zip(images, weights, fwhms, strict=True)
    ]
    return tuple(np.array(masks) for masks in zip(*found, strict=True))


@pytest.mark.parametrize("count", [3, 5, 8])
def test_stars_in_changing_seeing_are_no_outliers(count):
    images, scenes, fwhms, _ = exposures(count)
    outliers, trails = find(images, noises(scenes), fwhms)
    assert not trails.any()
    # Two sides of a Gaussian beyond 5 sigma: none expected in a million pixels.
    assert outliers.mean() < 2e-5
    stars = scenes > 20 * NOISE
    assert not (outliers & stars).any()


@pytest.mark.parametrize("count", [3, 4, 6])
def test_satellite_is_found_from_edge_to_edge(count):
    images, scenes, fwhms, rng = exposures(count, seed=2)
    # Peak of five times the noise, and one that no single pixel shows.
    for n, (intercept, angle, peak) in enumerate(((60, 22, 5.0), (250, -15, 1.5))):
        sigma = fwhms[n] / 2.3548
        trail = simulate.satellite_trail(
            SHAPE, intercept, angle, peak * NOISE * sigma * np.sqrt(2 * np.pi), fwhms[n]
        )
        images[n] += trail
        found = np.logical_or(*find(images, noises(scenes), fwhms))[n]
        bright = trail > 0.5 * peak * NOISE
        assert found[bright].mean() > 0.98
        far = trail < 1e-5 * NOISE  # two widths away and more
        assert found[far].mean() < 0.002
        images[n] -= trail


def test_cosmic_ray_that_a_single_frame_cannot_tell_from_a_star():
    images, scenes, fwhms, _ = exposures(4, seed=3)
    blob = simulate.render_sources(SHAPE, [150.3], [120.8], [6000.0], simulate.PSF(3.5), NOISE)
    images[2] += blob
    outliers, _ = find(images, noises(scenes), fwhms)
    core = blob > 6 * NOISE
    assert core.sum() > 5 and outliers[2][core].all()
    assert not outliers[[0, 1, 3]][:, core].any()


def test_two_exposures_cannot_tell():
    images, scenes, fwhms, _ = exposures(2)
    images[0, 100] += 1000
    assert not np.any(find(images, noises(scenes), fwhms))


def test_pixels_that_two_exposures_see_are_left_alone():
    images, scenes, fwhms, _ = exposures(3, seed=4)
    images[0, :, :100] = np.nan
    images[1, 50:52, 50:52] += 5000
    images[1, 50:52, 200:202] += 5000
    outliers, _ = find(images, noises(scenes), fwhms)
    assert not outliers[:, :, :99].any()
    assert outliers[1, 50:52, 200:202].all()


@pytest.mark.parametrize("density", [0.0, 0.01, 0.2, 0.45, 1.0])
def test_pixels_hang_together_as_scipy_has_it(density):
    for shape in ((60, 50), (40, 1), (1, 40), (30, 2)):
        mask = np.random.default_rng(7).uniform(size=shape) < density
        labels, _ = label(mask, np.ones((3, 3)))
        places = np.flatnonzero(mask)
        np.testing.assert_array_equal(
            connected_components(places, shape[1]), labels.ravel()[places] - 1
        )


@pytest.mark.parametrize("shape", [(5, 7), (64, 30), (131, 41), (2, 1)])
def test_filters_are_those_of_scipy(shape):
    image = np.random.default_rng(40).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(extremes(image, np.maximum), maximum_filter(image, 3))
    np.testing.assert_array_equal(extremes(image, np.minimum), minimum_filter(image, 3))
    mask = image > 1
    np.testing.assert_array_equal(extremes(mask, np.maximum), maximum_filter(mask, 3))
    np.testing.assert_allclose(box_sums(image), 25 * uniform_filter(image, 5), atol=1e-4)


def test_tolerance_covers_a_star_in_other_seeing():
    for here, usual in ((3.0, 4.5), (4.5, 3.0), (4.0, 4.0)):
        star = simulate.render_sources((41, 41), [20.2], [19.9], [1e5], simulate.PSF(here), 1.0)
        other = simulate.render_sources((41, 41), [20.5], [20.1], [1e5], simulate.PSF(usual), 1.0)
        known = ReferenceImage.from_median(other.astype("f4"), np.full(other.shape, 5), 20.0, usual)
        tolerance = known.profile_tolerance(here) * known.highest + known.spread / 2
        assert (np.abs(star - other) <= tolerance + 60).all()
        assert known.profile_tolerance(usual) == pytest.approx(PROFILE_MISMATCH)


def test_line_through_pixels():
    t = np.arange(100)
    centre, direction, length, thickness = fit_line(t, t // 2)
    np.testing.assert_allclose(centre, [49.5, 24.5])
    assert length == pytest.approx(np.hypot(99, 49.5), rel=0.02) and thickness < 2
    assert abs(direction[0] / direction[1]) == pytest.approx(2, rel=0.02)


def test_row_of_stars_that_vary_is_no_trail():
    rng = np.random.default_rng(6)
    excess = rng.normal(0, 1, SHAPE).astype(np.float32)
    for x in range(20, 340, 60):
        excess[98:104, x : x + 6] += 4
    assert not find_trails(excess, 4.0).any()


def test_faint_trails_are_found_and_none_that_are_not_there():
    hits = 0
    for seed in range(6):
        images, scenes, fwhms, rng = exposures(5, seed=20 + seed)
        assert not find(images, noises(scenes), fwhms)[1].any()
        sigma = fwhms[1] / 2.3548
        trail = simulate.satellite_trail(
            SHAPE,
            rng.uniform(80, 220),
            rng.uniform(-30, 30),
            1.5 * NOISE * sigma * np.sqrt(2 * np.pi),
            fwhms[1],
        )
        images[1] += trail
        trails = find(images, noises(scenes), fwhms)[1]
        assert not trails[[0, 2, 3, 4]].any()
        hits += trails[1][trail > 0.75 * NOISE].mean() > 0.95
    assert hits >= 5


def test_trails_that_cross_are_told_apart():
    """Also where the trails of two frames cross: neither frame is right there."""
    images, scenes, fwhms, _ = exposures(6, seed=5)
    lines = [[(60, 22), (300, -40), (200, 5), (20, 50), (380, -50)], [(330, -15), (100, 50)]]
    trails = np.zeros_like(images)
    for n, (own, fwhm) in enumerate(zip(lines, fwhms, strict=False)):
        for intercept, angle in own:
            flux = 50 * NOISE * fwhm / 2.3548 * np.sqrt(2 * np.pi)
            trails[n] += simulate.satellite_trail(SHAPE, intercept, angle, flux, fwhm)
    images += trails
    found = find(images, noises(scenes), fwhms)[1]
    for n in (0, 1):
        assert found[n][trails[n] > 3 * NOISE].mean() > 0.98
        # Bands of 1.5 FWHM and a pixel on either side.
        assert not (found[n] & (trails[n] < 1e-9 * NOISE)).any()
    assert not found[2:].any()


@pytest.mark.parametrize("period", [18, 30, 60])
def test_fringes_are_no_trails_and_hide_none(period):
    """What is left of fringes moves with the dither: waves of a noise and a half."""
    rng = np.random.default_rng(period)
    y, x = np.mgrid[:520, :520]
    bend = 1.5 * np.sin(x / 170) + 1.2 * np.cos(y / 210)
    fringes = np.sin(2 * np.pi * (0.9 * x + 0.4 * y) / period + bend)
    for strength, brightness in ((1.5, 0.0), (0.3, 1.5)):
        images = []
        for _ in range(5):
            top, left = rng.integers(0, 100, 2)
            part = fringes[top : top + 420, left : left + 420]
            images.append(rng.normal(0, NOISE, part.shape) + strength * NOISE * part)
        if brightness:
            images[1] += simulate.satellite_trail((420, 420), 150, 20, 4 * brightness * NOISE, 4.0)
        weight = np.full((420, 420), 1 / NOISE**2, np.float32)
        frames = [
            AlignedFrame.store(
                image.astype(np.float32), weight.copy(), (0, 0), gain=1.0, fwhm=4.0, noise=NOISE
            )
            for image in images
        ]
        pixels = [count.trail for count in mask_outliers(frames, (420, 420), 1e9)]
        if brightness:
            assert pixels[1] > 3000 and sum(pixels) == pixels[1]
        else:
            assert sum(pixels) == 0
