"""lib.photometry.sources: detection and the choice of stars; backgroundmesh: the background."""

import numpy as np
import pytest

from lib.photometry.backgroundmesh import background_mesh, spread_mesh
from lib.photometry.sources import detect_sources, select_stars


def test_stars_are_told_from_galaxies_and_cosmic_rays():
    rng = np.random.default_rng(2)
    radius = np.concatenate([rng.normal(1.8, 0.05, 30), rng.uniform(2.6, 6, 20), [0.4, 0.5, 0.9]])
    n = radius.size
    stars, locus = select_stars(
        radius, np.full(n, 100.0), np.zeros(n, int), np.full(n, 10.0), 100.0
    )
    assert locus == pytest.approx(1.8, rel=0.03)
    assert stars[:30].all() and not stars[30:].any()


def test_no_star_above_saturation_or_flagged():
    stars, locus = select_stars(
        np.full(3, 2.0), np.full(3, 99.0), np.array([0, 1, 0]), np.array([200.0, 1, 1]), 100.0
    )
    assert stars.tolist() == [False, False, True] and locus == pytest.approx(2.0)
    none, locus = select_stars(
        np.full(2, 2.0), np.full(2, 5.0), np.zeros(2, int), np.ones(2), 100.0
    )
    assert not none.any() and np.isnan(locus)


def test_background_of_masked_sources_is_the_mean_of_skewed_noise():
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:512, :640]
    truth = 3.0 + 0.004 * x - 0.002 * y
    image = (rng.poisson(20.0, x.shape) - 20.0 + truth).astype(np.float32)
    bad = np.zeros(image.shape, bool)
    bad[100:200, 100:240] = True
    image[bad] += 1000
    level = spread_mesh(background_mesh(image, bad, 128), image.shape)
    inner = (slice(64, -64), slice(64, -64))
    # Noise of 4.5 over the 16,000 pixels of a mesh is 0.04; at the corner of a plane the filter
    # is off by up to the change over one mesh, 0.004 x 128 + 0.002 x 128.
    assert np.abs(level - truth)[inner].max() < 0.75
    assert abs(np.median((level - truth)[inner])) < 0.05


@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (50, 50)])
def test_background_of_small_images(shape):
    image = np.full(shape, 7.0, np.float32)
    level = spread_mesh(background_mesh(image, np.zeros(shape, bool), 64), shape)
    assert level.shape == shape and np.allclose(level, 7.0)


def test_background_without_a_usable_pixel_is_zero():
    mesh = background_mesh(np.ones((64, 64), "f4"), np.ones((64, 64), bool))
    assert not spread_mesh(mesh, (64, 64)).any()


def test_light_that_covers_every_pixel_is_detected():
    """As of a globular cluster: more pixels than sep's buffer holds at first."""
    y, x = np.mgrid[:620, :620]
    cluster = 50 + 1000 / (1 + ((x - 310) ** 2 + (y - 310) ** 2) / 90**2)
    sources, segments = detect_sources(cluster.astype(np.float32), 1.0)
    assert (segments > 0).all()
    assert np.hypot(sources["x"][0] - 310, sources["y"][0] - 310) < 1


def crowd_that_is_one_source():
    """Return 400 stars; between them it is 20 sigma bright."""
    y, x = np.mgrid[:160, :160]
    stars = 20 + 500 * np.exp(-((x % 8 - 4) ** 2 + (y % 8 - 4) ** 2) / 2)
    return stars.astype(np.float32)


def test_crowd_of_more_parts_than_sep_is_prepared_for_is_parted_at_its_threshold(monkeypatch):
    image = crowd_that_is_one_source()
    usual, segments = detect_sources(image, 1.0)
    monkeypatch.setattr("lib.photometry.sources.SUB_OBJECTS", 100)
    sources, same = detect_sources(image, 1.0)
    assert (segments > 0).all() and (same == segments).all()
    np.testing.assert_array_equal(sources, usual)


def test_crowd_of_more_parts_than_sep_allows_is_detected_at_a_higher_threshold(monkeypatch):
    monkeypatch.setattr("lib.photometry.sources.SUB_OBJECTS", 100)
    monkeypatch.setattr("lib.photometry.sources.MOST_SUB_OBJECTS", 100)
    sources, segments = detect_sources(crowd_that_is_one_source(), 1.0)
    assert len(sources) == 400 and not (segments > 0).all()
