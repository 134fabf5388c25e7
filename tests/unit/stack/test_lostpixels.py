"""lib.stack.lostpixels: saturated stars and defects of coadds."""

import numpy as np
import pytest
import simulate
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation

from lib.core.settings import StackSettings
from lib.photometry.flags import FLAG_SATURATED
from lib.stack.depth import measure_coadd
from lib.stack.lostpixels import find_lost_pixels, lift_cores
from lib.stack.pixelgroups import group_depth, mask_groups

SHAPE, FWHM, NOISE, SATURATE = (360, 360), 3.6, 5.0, 6e4


def make_coadd(faintest=3e3, seed=4, uneven=0.05):
    """Return image, weight and true x, y, flux: the brighter half of the stars are saturated."""
    rng = np.random.default_rng(seed)
    x, y = (
        (np.arange(25) % 5 * 68 + 44 + rng.uniform(-5, 5, 25)),
        (np.arange(25) // 5 * 68 + 44 + rng.uniform(-5, 5, 25)),
    )
    flux = faintest * 10 ** rng.uniform(0.8, 2.0, 25)
    flux[::2] = 10 ** rng.uniform(6.2, 7.5, 13)
    light = simulate.render_sources(SHAPE, x, y, flux, simulate.PSF(FWHM, 3.0), NOISE)
    image = light + rng.normal(0, 1, SHAPE) * np.sqrt(NOISE**2 + light)
    # Flat fields make a plateau uneven.
    top = SATURATE * (1 + uneven * rng.uniform(0, 1, SHAPE))
    saturated = image >= SATURATE
    image = np.where(saturated, top, image).astype(np.float32)
    weight = np.full(SHAPE, 1 / NOISE**2, np.float32)
    weight[binary_dilation(saturated, np.ones((3, 3)), iterations=3)] = 0
    return image, weight, (x, y, flux)


def measure(image, weight):
    return measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=0.4, gain=1.0, saturate=0.9 * SATURATE,
        settings=StackSettings(),
    )  # fmt: skip


def test_saturated_star_is_one_source_with_the_flux_of_its_wings():
    image, weight, (x, y, flux) = make_coadd()
    field = measure(image, weight).field
    distance = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    for star in np.flatnonzero(flux > 1.2e6):
        rows = np.flatnonzero(distance[:, star] < 30)
        assert rows.size == 1 and distance[rows[0], star] < 0.3
        assert field.flags[rows[0]] & FLAG_SATURATED
        error = field.lost_error[rows[0]]
        assert 0 < error < 0.15
        assert abs(field.total[rows[0]] / flux[star] - 1) < 3 * error
    assert (field.snr > 5).sum() == len(x)
    assert (field.lost_error[(field.flags & FLAG_SATURATED) == 0] == 0).all()


def test_flux_of_unsaturated_stars_does_not_change():
    image, weight, (x, y, flux) = make_coadd()
    field = measure(image, weight).field
    distance = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    for star in np.flatnonzero(flux < 1e6):
        row = np.argmin(distance[:, star])
        assert field.total[row] == pytest.approx(flux[star], rel=0.02, abs=5 * field.error[row])


@pytest.mark.parametrize("width", [1, 3])
def test_bad_column_makes_no_source(width):
    image, weight, (x, _, _) = make_coadd()
    column = 78
    weight[:, column - 3 : column + width + 3] = 0
    field = measure(image, weight).field
    assert (field.snr > 5).sum() == len(x)


def test_what_lies_beyond_the_frames_is_not_lost():
    image, weight, _ = make_coadd()
    weight[:, :30], image[:, :26] = 0, 0
    image[100, 200] = weight[100, 200] = 0
    lost = find_lost_pixels(image, weight, SATURATE)
    assert not lost.shown[:, :30].any()
    assert lost.plateaus.any() and not (lost.cores & lost.others).any()
    unknown = find_lost_pixels(image, weight, np.inf)
    assert not unknown.cores.any()
    assert lift_cores(image, unknown, np.inf) is image


def test_depth_of_each_group_is_its_distance_from_what_is_not_masked():
    from scipy.ndimage import distance_transform_edt

    rows, columns = np.indices((90, 120))
    mask = np.zeros(rows.shape, bool)
    # At the edge, at a corner, and two with one pixel between them.
    for y, x, radius in ((45, 2, 9.0), (1, 118, 7.3), (50, 60, 8.0), (50, 77, 8.0)):
        mask |= np.hypot(rows - y, columns - x) < radius
    depth = np.zeros(mask.shape)
    groups = list(mask_groups(mask))
    assert len(groups) == 4
    for box, group in groups:
        depth[box] += group_depth(box, group, mask.shape)
    np.testing.assert_array_equal(depth, distance_transform_edt(mask))
