"""lib.stack.framemeasurement: seeing, shape and stars of single frames."""

import numpy as np
import pytest
from astropy.io import fits
from starfields import (
    SCALE,
)

from lib.core.settings import StackSettings
from lib.frame.file import BAD
from lib.stack.framemeasurement import measure_frame


def test_seeing_and_shape_of_frames(night):
    _, _, paths, _ = night
    with fits.open(paths[0]) as hdus:
        found = measure_frame(
            np.ascontiguousarray(hdus[0].data, "f4"), hdus["MASK"].data, hdus[0].header,
            StackSettings(),
        )  # fmt: skip
    # 3.5 pixels widened by the pixel itself.
    assert found.fwhm == pytest.approx(3.56, abs=0.12)
    assert found.seeing == pytest.approx(found.fwhm * SCALE)
    assert found.ellipticity < 0.1 and found.nstars > 30
    assert found.noise == pytest.approx(np.sqrt(464), rel=0.05)


def test_hot_pixels_do_not_change_what_a_frame_tells(night):
    """They are masked, as many as a near-infrared array has, and brighter than most stars."""
    _, _, paths, _ = night
    with fits.open(paths[0]) as hdus:
        image, mask, header = hdus[0].data.astype("f4"), hdus["MASK"].data.copy(), hdus[0].header
    plain = measure_frame(image, mask, header, StackSettings())
    hot = np.random.default_rng(8).random(image.shape) < 0.003
    found = measure_frame(
        np.where(hot, np.float32(5000), image), np.where(hot, mask | BAD, mask), header,
        StackSettings(),
    )  # fmt: skip
    # One in the core of a star, where its 30 pixels lie, takes that star away.
    assert found.nstars > (1 - 0.003) ** 30 * plain.nstars - 3 * np.sqrt(plain.nstars / 10)
    assert found.fwhm == pytest.approx(plain.fwhm, rel=0.01)
    ours, theirs = (np.column_stack([one.stars.ra, one.stars.dec]) for one in (found, plain))
    distance = np.hypot(*(ours[:, None] - theirs).T).T * 3600
    near = distance.argmin(axis=1)
    same = distance.min(axis=1) < 0.3
    assert same.sum() > 0.8 * len(theirs)
    change = found.stars.magnitude[same] - plain.stars.magnitude[near[same]]
    pull = change / found.stars.error[same]
    # What one pixel in the wings is worth, once it has the mean of its neighbours.
    assert np.abs(pull).max() < 1 and np.abs(np.median(change)) < 0.002
