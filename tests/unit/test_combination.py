"""Combining frames gives what ccdproc gives."""

import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std

from lib.stats import combine


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
