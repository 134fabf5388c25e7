"""The mean of frames without outliers: that of ccdproc, and of each pixel by itself."""

import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std

from lib.core.combination import clipped_mean, combine, small_sample


def planes(count, outliers, seed=4):
    """Return frames of noise 10, some pixels of which are far off."""
    rng = np.random.default_rng(seed)
    stack = rng.normal(1000, 10, (count, 40, 50)).astype(np.float32)
    flat = stack.reshape(count, -1)
    # One outlier a pixel at most: what clipping makes of several depends on the rule.
    places = rng.choice(flat.shape[1], outliers, replace=False)
    flat[rng.integers(0, count, outliers), places] += rng.choice([-5e4, 5e4], outliers)
    return stack


@pytest.mark.parametrize("count, outliers", [(9, 0), (9, 300), (25, 300)])
def test_same_mean_as_ccdproc(count, outliers):
    stack = planes(count, outliers)
    # Nothing of the noise lies beyond 100 deviations, and every outlier does.
    mean, number, *_ = combine(stack, stack.shape[1:], clip=100.0, memory=50e3)
    theirs = ccdproc.combine(
        [CCDData(plane, unit="adu") for plane in stack],
        method="average",
        sigma_clip=True,
        sigma_clip_low_thresh=100,
        sigma_clip_high_thresh=100,
        sigma_clip_func=np.ma.median,
        sigma_clip_dev_func=mad_std,
    )
    assert (count - number).sum() == outliers
    np.testing.assert_allclose(mean, theirs.data, rtol=1e-6)


def test_same_mean_however_it_is_cut_into_slabs():
    stack = planes(7, 50)
    whole, *_ = combine(stack, stack.shape[1:], clip=100.0)
    cut, *_ = combine(stack, stack.shape[1:], clip=100.0, memory=10e3)
    np.testing.assert_array_equal(whole, cut)


def mean_of_a_column(values, clip, usual):
    """Return mean and number of what `clipped_mean` keeps of some values, by its definition."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return np.nan, 0
    median = np.median(known)
    spread = 1.482602218505602 * np.median(np.abs(known - median))
    limit = clip * usual * np.sqrt(0.5) if known.size == 2 else clip * max(spread, usual)
    if known.size == 1:
        return known[0], 1
    if np.abs(known - median).max() <= limit:
        return known.mean(dtype=float), known.size
    kept = np.abs(known - median) <= limit
    if known.size == 2:
        kept |= known < median
    return known[kept].mean(dtype=float), kept.sum()


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 16, 24, 25, 100, 101, 130])
@pytest.mark.parametrize("gaps", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("whole", [False, True])
def test_mean_of_each_column_is_that_of_its_values_near_the_median(count, gaps, whole):
    rng = np.random.default_rng(count)
    # Whole numbers: many are equal.
    stack = rng.integers(0, 9, (count, 3000)) if whole else rng.normal(4, 2, (count, 3000))
    stack = stack.astype(np.float32)
    stack[rng.random(stack.shape) < gaps] = np.nan
    clip = 1.2
    mean, number, extent = clipped_mean(stack, clip)
    columns = [np.sort(column[np.isfinite(column)]) for column in stack.T]
    deviations = [np.median(np.abs(c - np.median(c))) for c in columns if c.size > 1]
    usual = 1.482602218505602 * np.median(deviations) * small_sample(count)
    expected = [mean_of_a_column(column, clip, usual) for column in columns]
    np.testing.assert_array_equal(number, [n for _, n in expected])
    np.testing.assert_allclose(mean, [m for m, _ in expected], rtol=2e-6, atol=1e-6)
    ranked = [c[-2] - c[1] if c.size > 3 else np.nan for c in columns]
    np.testing.assert_array_equal(extent, np.array(ranked, np.float32))
    assert (number < [c.size for c in columns]).any()


@pytest.mark.parametrize("gaps", [0.02, 0.2, 0.7])
def test_clipped_mean_of_columns_with_gaps_is_that_of_each_alone(gaps):
    rng = np.random.default_rng(7)
    stack = rng.normal(100, 5, (6, 3000)).astype(np.float32)
    stack[rng.random(stack.shape) < gaps] = np.nan
    # So wide that nothing is clipped.
    mean, number, extent = clipped_mean(stack, clip=1e4)
    for column, *found in zip(stack.T, mean, number, extent, strict=True):
        values = np.sort(column[np.isfinite(column)])
        assert found[1] == values.size
        if values.size:
            assert found[0] == pytest.approx(values.mean(), rel=1e-6)
        expected = values[-2] - values[1] if values.size > 3 else np.nan
        assert found[2] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("count", [3, 5, 12])
def test_clipped_mean_rejects_a_cosmic_ray_and_keeps_the_noise_low(count):
    rng = np.random.default_rng(count)
    stack = rng.normal(100, 5, (count, 200, 200)).astype(np.float32)
    stack[0, :20] += 500
    mean, number, _ = clipped_mean(stack.copy())
    assert abs(mean[:20].mean() - 100) < 5 / np.sqrt(count * 20 * 200) * 5
    assert (number[:20] <= count - 1).all()
    # Clipping at 4 sigma costs less than a tenth of the noise of the plain mean.
    assert mean[20:].std() < 1.1 * 5 / np.sqrt(count)


def test_clipped_mean_of_gaps():
    stack = np.array([[1, np.nan, np.nan], [3, 5, np.nan]], np.float32)
    mean, number, _ = clipped_mean(stack)
    np.testing.assert_array_equal(mean, [2, 5, np.nan])
    np.testing.assert_array_equal(number, [2, 1, 0])


def test_of_two_values_that_disagree_the_lower_is_taken():
    rng = np.random.default_rng(4)
    stack = rng.normal(100, 5, (4, 100, 100)).astype(np.float32)
    stack[:2, :10] = np.nan
    stack[3, :10, :50] += 300
    mean, number, _ = clipped_mean(stack)
    assert (number[:10, :50] == 1).all()
    assert abs(mean[:10, :50].mean() - 100) < 5 / np.sqrt(500) * 5
    assert (number[:10, 50:] == 2).mean() > 0.98


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9, 30])
def test_small_samples_look_too_calm(count):
    values = np.random.default_rng(count).normal(0, 1, (count, 40_000)).astype(np.float32)
    deviations = np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    spread = 1.4826 * np.median(deviations)
    assert spread * small_sample(count) == pytest.approx(1, abs=0.04)


def test_extent_ignores_one_outlier_and_gaps():
    stack = np.array([[1, 5], [2, np.nan], [4, 6], [7, 9], [900, 20]], np.float32)
    *_, extent = clipped_mean(stack)
    np.testing.assert_array_equal(extent, [5, 3])
    assert np.isnan(clipped_mean(stack[:3].copy())[2]).all()


def test_clipped_mean_of_equal_values():
    mean, number, _ = clipped_mean(np.full((4, 3), 7, np.float32))
    np.testing.assert_array_equal(mean, 7)
    np.testing.assert_array_equal(number, 4)


def test_combine_gives_the_plain_mean_of_good_values_whatever_the_slab():
    rng = np.random.default_rng(3)
    planes = rng.normal(1000, 10, (9, 64, 40)).astype(np.float32)
    planes[4, 10, 10] = 60000
    kept = planes.astype(float)
    kept[4, 10, 10] = np.nan
    whole, *_ = combine(planes, (64, 40), clip=6)
    parts, *_ = combine(planes, (64, 40), clip=6, memory=9 * 40 * 4 * 4 * 5)
    np.testing.assert_allclose(whole, np.nanmean(kept, axis=0), rtol=1e-5)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
