import numpy as np
import pytest

from lib.stats import (
    SAMPLE,
    clipped_mean,
    combine,
    deviation_of_ranked,
    half_sample_mode,
    mad_std,
    median_of_ranked,
    merge_exchanges,
    ranked_planes,
    regular_sample,
    sigma_clipped_median,
    small_sample,
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16, 25, 100, 130])
def test_network_sorts_any_number_of_planes(count):
    stack = np.random.default_rng(count).normal(size=(count, 3, 50)).astype(np.float32)
    expected = np.sort(stack, axis=0)
    ranked = ranked_planes(stack.reshape(count, -1))
    np.testing.assert_array_equal(np.reshape(ranked, stack.shape), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9, 24, 25])
def test_deviation_of_sorted_planes_is_the_median_deviation(count):
    rng = np.random.default_rng(count)
    # Whole numbers: many are equal.
    stack = np.sort(rng.integers(0, 9, (count, 2000)).astype(np.float32), axis=0)
    median = median_of_ranked(list(stack))
    np.testing.assert_array_equal(median, np.median(stack, axis=0))
    expected = np.median(np.abs(stack - np.median(stack, axis=0)), axis=0)
    np.testing.assert_array_equal(deviation_of_ranked(list(stack), median), expected)


@pytest.mark.parametrize("shape", [(50, 60), (2048, 2048), (1023, 1000), (600, 4200)])
def test_sample_comes_from_all_columns_alike(shape):
    columns = np.broadcast_to(np.arange(shape[1]), shape)
    sample = regular_sample(columns)
    assert min(columns.size, SAMPLE) / 2 < sample.size <= max(2 * SAMPLE, shape[1])
    number = np.bincount(sample, minlength=shape[1])
    assert np.ptp(number) <= 1


def test_network_exchanges_are_few():
    # Batcher's network needs about n (log2 n)^2 / 4 exchanges.
    assert len(merge_exchanges(25)) <= 25 * np.log2(25) ** 2 / 4 * 1.1


def test_mad_std_of_gaussian():
    values = np.random.default_rng(1).normal(5, 2, 100_000)
    values[:100] = np.nan
    assert mad_std(values) == pytest.approx(2, rel=0.02)
    assert np.isnan(mad_std([np.nan]))


def test_clipped_median_ignores_outliers_and_gaps():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(100, 3, 20_000), np.full(2000, 1e5), [np.nan, np.inf]])
    median, std, number = sigma_clipped_median(values)
    # Errors of median and clipped standard deviation of 20,000 values: 0.03 and 0.02.
    assert median == pytest.approx(100, abs=0.1)
    assert std == pytest.approx(3, rel=0.03)
    assert 19_800 <= number <= 20_000
    assert sigma_clipped_median([])[2] == 0


@pytest.mark.parametrize("size", [1, 2, 9, 10_000, 10_001])
@pytest.mark.parametrize("whole", [False, True])
def test_clipped_median_is_that_of_the_values_kept(size, whole):
    rng = np.random.default_rng(size)
    values = np.concatenate([rng.normal(50, 9, size), rng.uniform(0, 1000, size // 5)])
    values = np.round(values) if whole else values.astype(np.float32)
    kept = values
    spread = 1.482602218505602 * np.median(np.abs(kept - np.median(kept)))
    for _ in range(5):
        near = np.abs(kept - np.median(kept)) <= 3 * spread if spread > 0 else kept == kept
        if near.all():
            break
        kept = kept[near]
        spread = kept.std(dtype=float)
    median, std, number = sigma_clipped_median(values)
    assert median == np.median(kept) and number == kept.size
    assert std == pytest.approx(kept.std(dtype=float), rel=1e-9, abs=1e-12)


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


def test_mode_is_found_among_many_outliers():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(3.0, 0.05, 60), rng.uniform(1, 9, 100)])
    assert half_sample_mode(values) == pytest.approx(3, abs=0.1)
    assert np.isnan(half_sample_mode([]))


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
