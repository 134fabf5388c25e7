"""Numbers of the residuals."""

import numpy as np
import pytest
from simulatedframes import EMPTY, cards, reference_of, simulated_frame, simulated_sky

from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.residuals import residuals, weighted_rms


def test_rms_is_weighted_and_without_outliers():
    rng = np.random.default_rng(1)
    error = np.r_[np.full(2000, 0.1), np.full(2000, 1.0)]
    values = error * rng.normal(size=4000)
    expected = np.sqrt(2 / (1 / 0.1**2 + 1 / 1.0**2))
    # Clipped at 4 sigma, and known to 1 in sqrt(2 n).
    assert weighted_rms(values, error) == pytest.approx(expected, rel=0.05)
    values[:100] += 50.0
    assert weighted_rms(values, error) == pytest.approx(expected, rel=0.05)
    assert np.isnan(weighted_rms(values[:0], error[:0]))


def test_residuals_are_those_of_each_frame():
    rng = np.random.default_rng(2)
    sky = simulated_sky(rng, 300)
    frames = [simulated_frame(f"2f{k}", cards(), cards(), sky, rng, noise=1e-4) for k in range(2)]
    shift = 0.1  # arcsec to the north
    for frame, dec in zip(frames, (20.0, 20.0 + shift / 3600), strict=True):
        frame.pixel_to_world = map_from_cards(cards(150.0, dec))
    reference = reference_of(sky, rng, error=1e-6)
    found = residuals(frames, reference)
    assert found.of_frame(0).median() == pytest.approx((0.0, 0.0), abs=1e-3)
    assert found.of_frame(1).median() == pytest.approx((0.0, shift), abs=1e-3)
    assert found.of_frame(1).rms()[1] == pytest.approx(shift, rel=0.01)
    assert len(found.of_frame(0)) + len(found.of_frame(1)) == len(found)
    kept = residuals(frames, reference, keep=np.arange(len(reference)) % 2 == 0)
    assert len(kept) and not (kept.reference % 2).any()


def test_no_frame_has_no_residual():
    found = residuals([], EMPTY)
    assert len(found) == 0
    assert np.isnan([*found.rms(), *found.median()]).all()
