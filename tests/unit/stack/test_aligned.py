"""lib.stack.aligned: resampled frames in bands, their outliers, combinations as SWarp has them."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from exposures import NOISE, SHAPE, exposures

from lib.core.medians import lower_median, weighted_median
from lib.core.programs import find_program, run_program
from lib.stack.aligned import (
    AlignedFrame,
    combine_aligned,
    combine_mean,
    mask_outliers,
    median_reference,
)

CORNERS = [(0, 0), (40, 40), (-20, -30), (60, 70), (20, 10)]


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
        image, weight, number = combine_aligned(frames, SHAPE, combine, memory, *clip)
        known = their_weight > 0
        inside = np.zeros(SHAPE, int)
        for frame, (top, left) in zip(frames, corners, strict=True):
            weighty = planes(frame)[1] > 0
            inside[top : top + weighty.shape[0], left : left + weighty.shape[1]] += weighty[
                : SHAPE[0] - top, : SHAPE[1] - left
            ]
        np.testing.assert_array_equal(number, inside)
        np.testing.assert_array_equal(weight > 0, known)
        np.testing.assert_allclose(weight[known], their_weight[known], rtol=1e-5)
        np.testing.assert_allclose(image[known], theirs[known], rtol=1e-5, atol=1e-4 * NOISE)
