"""Outliers of aligned exposures with satellites and cosmic rays of known place."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import simulate
from astropy.io import fits
from scipy.ndimage import label, maximum_filter, minimum_filter, uniform_filter

from lib.core.medians import lower_median, weighted_median
from lib.core.programs import find_program, run_program
from lib.stack.aligned import (
    AlignedFrame,
    combine_aligned,
    combine_mean,
    mask_outliers,
    median_reference,
)
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

SHAPE = (300, 340)
NOISE = 20.0


def exposures(count=5, seed=1, fwhms=None, stars=80, shift=0.15):
    """Return aligned exposures of stars in changing seeing, and the noiseless scenes."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], stars), rng.uniform(0, SHAPE[0], stars)
    flux = 10 ** rng.uniform(2.8, 5.5, stars)
    fwhms = fwhms or rng.uniform(3.2, 5.0, count)
    scenes = np.array(
        [
            simulate.render_sources(
                SHAPE,
                x + rng.normal(0, shift),
                y + rng.normal(0, shift),
                flux,
                simulate.PSF(fwhm),
                NOISE,
            )
            for fwhm in fwhms
        ]
    )
    images = rng.poisson(scenes + NOISE**2) - NOISE**2
    return images.astype(np.float32), scenes, list(fwhms), rng


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


def noises(scenes):
    return [np.sqrt(scene + NOISE**2).astype(np.float32) for scene in scenes]


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


def test_reference_is_the_lower_median():
    nan = np.nan
    images = np.array([[1, 1, nan, nan], [9, 5, 7, nan], [nan, 3, 2, 4], [nan, 8, 6, nan]])
    weights = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    reference, number = lower_median(images, weights)
    np.testing.assert_array_equal(reference, [1, 3, 6, nan])
    np.testing.assert_array_equal(number, [2, 4, 2, 1])


@pytest.mark.parametrize("count", [1, 2, 9, 120])
def test_medians_are_those_of_numpy(count):
    rng = np.random.default_rng(count)
    values = rng.normal(100, 20, (count, 40, 37)).astype(np.float32)
    weights = rng.uniform(0.5, 2, values.shape).astype(np.float32)
    weights[rng.uniform(size=values.shape) < 0.3] = 0
    values[rng.uniform(size=values.shape) < 0.1] = np.nan
    known = (weights > 0) & np.isfinite(values)
    number = known.sum(axis=0)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(np.where(known, values, np.nan), axis=0)
        everything = np.nan_to_num(np.nanmedian(values, axis=0))
        lower = np.nanquantile(np.where(known, values, np.nan), 0.5, axis=0, method="lower")
    median, weight = weighted_median(values, weights)
    np.testing.assert_array_equal(weight > 0, number > 0)
    np.testing.assert_allclose(median, np.where(number > 0, middle, everything), rtol=1e-6)
    median, counted = lower_median(values, weights)
    np.testing.assert_array_equal(counted, number)
    np.testing.assert_array_equal(median, np.where(number > 1, lower, np.nan))


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


def write_aligned(folder, images, noise, corners):
    """Keep parts of images, each from its corner on, every other on disk; return them as frames."""
    frames = []
    for n, (image, (row, column)) in enumerate(zip(images, corners, strict=True)):
        part = np.full((260, 300), np.nan, np.float32)
        rows = slice(max(0, row), min(SHAPE[0], row + 260))
        columns = slice(max(0, column), min(SHAPE[1], column + 300))
        inside = (
            slice(rows.start - row, rows.stop - row),
            slice(columns.start - column, columns.stop - column),
        )
        part[inside] = image[rows, columns]
        weight = np.where(np.isfinite(part), 1 / noise**2, 0).astype(np.float32)
        path = folder / f"f{n}" if n % 2 else None
        described = {"path": path, "gain": 1.0, "fwhm": 4.0, "noise": NOISE}
        frames.append(AlignedFrame.store(np.nan_to_num(part), weight, (row, column), **described))
    return frames


def planes(frame):
    """Return image and weight map of a frame."""
    if isinstance(frame.planes, tuple):
        return np.array(frame.planes)
    return np.fromfile(frame.planes, np.float32).reshape(2, *frame.shape)


CORNERS = [(0, 0), (40, 40), (-20, -30), (60, 70), (20, 10)]


def test_reference_of_files_in_bands_is_that_of_the_whole(tmp_path):
    images, _, _, _ = exposures(5, seed=30, fwhms=[4.0] * 5)
    frames = write_aligned(tmp_path, images, NOISE, CORNERS)
    whole = np.full(images.shape, np.nan, np.float32)
    for plane, image, (row, column) in zip(whole, images, CORNERS, strict=True):
        part = (slice(max(0, row), row + 260), slice(max(0, column), column + 300))
        plane[part] = image[part]
    expected, number = lower_median(whole, np.isfinite(whole))
    for memory in (1e9, 5e5):  # at once, and in bands of 18 rows
        found, count = median_reference(frames, SHAPE, memory)
        np.testing.assert_array_equal(count, number)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    for frame, (row, column) in zip(frames[1:3], CORNERS[1:], strict=False):
        where, rows, weight = frame.pixels(35, 45)
        first = max(0, row - 35)
        assert where == (slice(first, 10), slice(column, column + 300))
        np.testing.assert_array_equal(rows, planes(frame)[0][35 + first - row : 45 - row])
        assert np.median(weight) == pytest.approx(1 / NOISE**2)


def test_pixels_that_the_others_contradict_lose_their_weight(tmp_path):
    images, _, _, _ = exposures(5, seed=31, fwhms=[4.0] * 5, shift=0)
    images[1, 150:153, 160:163] += 2000
    images[2, 20:60:3, 15:40:4] += 1000
    images[3, 100:103, 120:123] += 2000
    images[4, 100:103, 120:123] += 2000  # the same place again: no ray
    frames = write_aligned(tmp_path, images, NOISE, CORNERS)
    before = [planes(frame)[1] for frame in frames]
    counts = mask_outliers(frames, SHAPE, 1e8)
    after = [planes(frame)[1] for frame in frames]
    gone = [(then > 0) & (now == 0) for then, now in zip(before, after, strict=True)]
    assert [int(mask.sum()) for mask in gone] == [count.pixels for count in counts]
    assert gone[1][110:113, 120:123].all() and gone[1].sum() <= 30
    assert gone[2][41:80:3, 46:70:4].all()
    assert not (gone[0].any() or gone[3].any() or gone[4].any())


# Combination ------------------------------------------------------------------------------


def test_median_and_mean_of_known_values():
    nan = np.nan
    values = np.array([[1, 1, 5, nan, 7, nan], [3, 9, 4, 2, 9, nan], [8, 2, nan, 0, 20, nan]], "f4")
    weights = np.array([[1, 1, 4, 0, 0, 0], [1, 4, 1, 0.25, 0, 0], [1, 0, 0, 0, 0, 0]], "f4")
    median, weight = weighted_median(values, weights)
    # Without weight the median of what there is, but for the 0 of pixels beyond the frame.
    np.testing.assert_allclose(median, [3, 5, 4.5, 2, 9, 0])
    # Of two, the variance of their mean; of three, SWarp's formula.
    three = 2 * 3**2 * (3 + np.pi / 2 - 1) / (np.pi * 3**2)
    np.testing.assert_allclose(weight, [three, 4 / 1.25, 4 / 1.25, 0.25, 0, 0], rtol=1e-6)
    mean, weight = combine_mean(values, weights)
    np.testing.assert_allclose(mean, [4, 37 / 5, 24 / 5, 2, 9, 0], rtol=1e-6)
    np.testing.assert_allclose(weight, [3, 5, 5, 0.25, 0, 0])


def combine_by_swarp(folder, frames, combine, clip):
    """Combine aligned frames with SWarp; return image and weight."""
    for n, frame in enumerate(frames):
        image, weight = planes(frame)
        row, column = frame.corner
        # The cards by which SWarp knows where a frame lies, and that the grid has been its.
        cards = fits.Header({
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
            "CRVAL1": 150.0, "CRVAL2": 20.0, "CRPIX1": 170.5 - column, "CRPIX2": 150.5 - row,
            "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4, "COMIN1": column + 1,
            "COMIN2": row + 1, "GAIN": frame.gain,
        })  # fmt: skip
        fits.writeto(folder / f"{n}.resamp.fits", image, cards)
        fits.writeto(folder / f"{n}.resamp.weight.fits", weight, cards)
    options = {
        "c": "empty", "COMBINE_TYPE": combine.upper(), "RESAMPLE": "N", "SUBTRACT_BACK": "N",
        "WEIGHT_TYPE": "MAP_WEIGHT", "RESCALE_WEIGHTS": "N", "CENTER_TYPE": "MANUAL",
        "CENTER": "150,20", "PIXELSCALE_TYPE": "MANUAL", "PIXEL_SCALE": "0.36",
        "IMAGE_SIZE": f"{SHAPE[1]},{SHAPE[0]}", "PROJECTION_TYPE": "TAN", "WRITE_XML": "N",
        "BLANK_BADPIXELS": "N", "CLIP_SIGMA": str(clip[0]), "CLIP_AMPFRAC": str(clip[1]),
        "NTHREADS": "1",
    }  # fmt: skip
    (folder / "empty").write_text("")
    names = [f"{n}.resamp.fits" for n in range(len(frames))]
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    run_program([find_program("swarp"), *names, *words], timeout=60, cwd=folder)
    return fits.getdata(folder / "coadd.fits"), fits.getdata(folder / "coadd.weight.fits")


@pytest.mark.parametrize("combine", ["median", "weighted", "clipped"])
@pytest.mark.parametrize("count", [2, 5, 6])
def test_combination_is_that_of_swarp(tmp_path, combine, count):
    images, _, _, rng = exposures(count, seed=41, fwhms=[4.0] * count)
    images[rng.uniform(size=images.shape) < 0.02] += 20 * NOISE
    corners = [(0, 0), (40, 40), (10, 30), (35, 5), (20, 10), (5, 25)][:count]
    frames = write_aligned(tmp_path, images, NOISE, corners)
    for n, frame in enumerate(frames):
        # Weights that differ, and none in places.
        image, weight = planes(frame)
        weight *= rng.uniform(0.5, 2)
        weight[rng.uniform(size=weight.shape) < 0.2] = 0
        frames[n] = replace(frame, planes=(image, weight))
    clip = (3.0, 0.2)
    theirs, their_weight = combine_by_swarp(tmp_path, frames, combine, clip)
    for memory in (1e9, 1e6):  # at once, and in bands
        image, weight = combine_aligned(frames, SHAPE, combine, memory, *clip)
        known = their_weight > 0
        np.testing.assert_array_equal(weight > 0, known)
        np.testing.assert_allclose(weight[known], their_weight[known], rtol=1e-5)
        np.testing.assert_allclose(image[known], theirs[known], rtol=1e-5, atol=1e-4 * NOISE)
