import numpy as np
import pytest

from lib.core.stats import (
    SAMPLE,
    excess_scatter,
    half_sample_mode,
    mad_std,
    merge_exchanges,
    regular_sample,
    sigma_clipped_median,
)


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


def test_mode_is_found_among_many_outliers():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(3.0, 0.05, 60), rng.uniform(1, 9, 100)])
    assert half_sample_mode(values) == pytest.approx(3, abs=0.1)
    assert np.isnan(half_sample_mode([]))


def test_mode_is_not_moved_by_galaxies():
    rng = np.random.default_rng(1)
    sizes = np.concatenate([rng.normal(1.0, 0.03, 40), rng.uniform(1.2, 4.0, 60)])
    assert half_sample_mode(sizes) == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("own", [0.0, 0.01, 0.05])
def test_scatter_beyond_the_noise(own):
    rng = np.random.default_rng(12)
    found = []
    for _ in range(30):
        variance = rng.uniform(0.005, 0.03, 80) ** 2
        values = 3 + rng.normal(0, np.sqrt(variance + own**2))
        values[:4] += 1  # others
        found.append(excess_scatter(values, variance))
    assert np.median(found) == pytest.approx(own, abs=0.004)


def test_scatter_of_nothing_and_of_equal_values_is_none():
    assert excess_scatter(np.empty(0), np.empty(0)) == 0
    assert excess_scatter(np.ones(9), np.ones(9)) == 0
