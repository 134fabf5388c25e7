"""lib.stack.lostpixels: saturated stars and defects of coadds."""

import numpy as np
import pytest
import simulate
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation

from lib.core.settings import StackSettings
from lib.photometry.flags import FLAG_SATURATED
from lib.photometry.sourcetable import measure_sources
from lib.stack.depth import measure_coadd
from lib.stack.lostpixels import find_lost_pixels, lift_cores
from lib.stack.pixelgroups import group_depth, mask_groups
from lib.stack.reference import CENTRING_ERROR

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


def make_dithered(seed):
    """Return image, weight and truth of frames of different seeing and lost pixels."""
    rng = np.random.default_rng(seed)
    x, y = (np.arange(25) // k % 5 * 68 + 44 + rng.uniform(-5, 5, 25) for k in (1, 5))
    flux = 10 ** np.where(np.arange(25) % 2, rng.uniform(4, 5.4, 25), rng.uniform(6.3, 8, 25))
    total, number, plateau = np.zeros((3, *SHAPE))
    for seeing in (0.9, 1.0, 1.1, 1.2):
        light = simulate.render_sources(SHAPE, x, y, flux, simulate.PSF(seeing * FWHM, 3.0), NOISE)
        image = light + rng.normal(0, 1, SHAPE) * np.sqrt(4 * NOISE**2 + light)
        saturated = image >= SATURATE
        # Pixels of the frame cover two of the grid, in one direction or the other.
        saturated |= np.roll(saturated, rng.integers(-1, 2, 2), (0, 1))
        bad = binary_dilation(saturated, np.ones((3, 3)), iterations=3)
        total += np.where(bad, 0, image)
        number += ~bad
        plateau += np.where(saturated, SATURATE, image) / 4
    image = np.where(number > 0, total / np.maximum(number, 1), plateau)
    return image.astype(np.float32), (number / (4 * NOISE**2)).astype(np.float32), (x, y, flux)


def make_cut(seed):
    """Return image, weight and truth of stars of which some are cut by the edge of the image."""
    image, weight, (x, y, flux) = make_coadd(seed=seed)
    return image[:, 43:].copy(), weight[:, 43:].copy(), (x - 43, y, flux)


@pytest.mark.parametrize("make", [make_dithered, make_cut])
def test_place_of_a_saturated_star_is_true_to_its_error(make):
    pulls = []
    for seed in range(3):
        image, weight, (x, y, flux) = make(seed)
        coadd = measure(image, weight)
        source, lost = coadd.field.sources, np.flatnonzero(np.isfinite(coadd.field.place_error))
        error = np.hypot(measure_sources(coadd, coadd.field, [FWHM]).position_error, CENTRING_ERROR)
        for row in lost:
            apart = np.array([source["x"][row] - x, source["y"][row] - y])
            star = np.hypot(*apart).argmin()
            assert flux[star] > 1.2e6 and error[row] < 0.1 * FWHM
            pulls.append(apart[:, star] / error[row])
    pulls = np.abs(pulls).ravel()
    # The scatter by the median has an error of 1.17 over the square root of the number.
    assert 1.4826 * np.median(pulls) < 1 + 3 * 1.17 / np.sqrt(pulls.size)
    assert pulls.size >= 60 and pulls.max() < 5


def test_wings_beside_the_cores_of_stars_do_not_move_those_that_are_saturated():
    """With coma, the places of stars with cores and without are the same point of the profile."""
    rng = np.random.default_rng(2)
    psf = simulate.PSF(FWHM, 3.0, spots=((-0.3, 0, 0.8, 1), (1.2, 0, 0.2, 1.2)))
    x, y = (np.arange(25) // k % 5 * 68 + 44 + rng.uniform(-5, 5, 25) for k in (1, 5))
    flux = 10 ** np.where(np.arange(25) % 2, rng.uniform(4.8, 5.6, 25), rng.uniform(6.3, 7, 25))
    light = simulate.render_sources(SHAPE, x, y, flux, psf, NOISE)
    image = light + rng.normal(0, 1, SHAPE) * np.sqrt(NOISE**2 + light)
    saturated = image >= SATURATE
    weight = np.full(SHAPE, 1 / NOISE**2, np.float32)
    weight[binary_dilation(saturated, np.ones((3, 3)), iterations=3)] = 0
    coadd = measure(np.where(saturated, SATURATE, image).astype(np.float32), weight)
    field = coadd.field
    error = measure_sources(coadd, field, [FWHM]).position_error
    lost = np.isfinite(field.place_error)
    nearest = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y).argmin(1)
    shift = field.sources["x"] - x[nearest], field.sources["y"] - y[nearest]
    core = [np.median(one[field.stars]) for one in shift]
    pulls = [(one[lost] - zero) / error[lost] for one, zero in zip(shift, core, strict=True)]
    assert lost.sum() == 13 and np.abs(pulls).max() < 5


@pytest.mark.parametrize("halo", [0.0, 0.05])
def test_flux_of_a_core_larger_than_the_growth_curve_is_true_to_its_error(halo):
    """The stars of the growth curve do not show how the wings go on, with a halo or without."""
    rng = np.random.default_rng(5)
    psf = simulate.PSF(FWHM, 3.0, spots=((0, 0, 1 - halo, 1), (0, 0, halo, 3.5)))
    x, y = (np.append(180.3, 20 + (np.arange(64) // k % 8) * 46.0) for k in (1, 8))
    flux = np.append(1e11, 10 ** rng.uniform(4, 5.4, 64))
    light = simulate.render_sources(SHAPE, x, y, flux, psf, NOISE)
    image = light + rng.normal(0, 1, SHAPE) * np.sqrt(NOISE**2 + light)
    saturated = image >= SATURATE
    weight = np.full(SHAPE, 1 / NOISE**2, np.float32)
    weight[binary_dilation(saturated, np.ones((3, 3)), iterations=3)] = 0
    field = measure(np.where(saturated, SATURATE, image).astype(np.float32), weight).field
    (row,) = np.flatnonzero(np.isfinite(field.place_error))
    told, error = field.total[row], field.lost_error[row] * field.total[row]
    assert error > 0 and abs(told - flux[0]) < 3 * error


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
