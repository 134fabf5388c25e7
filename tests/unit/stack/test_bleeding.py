"""lib.stack.bleeding: saturated stars with trails along the columns or rows of a detector."""

import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation
from stackruns import run
from starfields import DEC, RA, ZP, make_stars, write_night, write_reference

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs
from lib.frame.file import SATURATED, read_frame, write_frame
from lib.photometry.flags import FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.sourcetable import significant, source_table
from lib.photometry.zeropoint import Zeropoint
from lib.stack.depth import measure_coadd
from lib.stack.lostpixels import find_lost_pixels

SIZE, FWHM, NOISE, WELL = 360, 3.6, 5.0, 6e4
X, Y = 181.3, 174.8
BRIGHT = 2e8


def faint_stars():
    """Return x, y and flux of stars on a grid, away from the glare of the bright one."""
    rng = np.random.default_rng(8)
    grid = np.meshgrid(*[np.arange(30, 330, 42)] * 2)
    x, y = (axis.ravel() + rng.uniform(-4, 4, axis.size) for axis in grid)
    flux = 10 ** rng.uniform(3.6, 5.5, x.size)
    clear = (np.abs(x - X) > 20) & (np.abs(y - Y) > 20) & (np.hypot(x - X, y - Y) > 80)
    clear &= np.abs((x - X) * np.cos(0.4) - (y - Y) * np.sin(0.4)) > 20
    return x[clear], y[clear], flux[clear]


def make_coadd(x, y, flux, trail, uneven=0.3):
    """Return image and weight of stars with what `trail` marks as saturated, too.

    `trail` takes rows, columns and the mask of saturated pixels.
    """
    rng = np.random.default_rng(3)
    shape = (SIZE, SIZE)
    light = simulate.render_sources(shape, x, y, flux, simulate.PSF(FWHM, 3.0), NOISE)
    image = light + rng.normal(0, 1, shape) * np.sqrt(NOISE**2 + light)
    rows, columns = np.indices(shape)
    saturated = trail(rows, columns, image >= WELL)
    # The flat field makes a plateau uneven.
    away = ((rows - SIZE / 2) ** 2 + (columns - SIZE / 2) ** 2) / (SIZE**2 / 2)
    image = np.where(saturated, WELL * (1 + uneven * away), image).astype(np.float32)
    weight = np.full(shape, 1 / NOISE**2, np.float32)
    weight[binary_dilation(saturated, np.ones((3, 3)), iterations=4)] = 0
    return image, weight


def measure(image, weight):
    return measure_coadd(
        image, weight, wcs=WCS(naxis=2), scale=0.4, gain=1.0, saturate=0.9 * WELL,
        settings=StackSettings(),
    )  # fmt: skip


def both_ways(rows, columns, core):
    """A wide trail over half of the image, a narrow one over all of it."""
    wide = (np.abs(columns - X) < 6.5) & (np.abs(rows - Y) < 100)
    return core | wide | (np.abs(columns - X) < 2.5)


def one_way(rows, columns, core):
    return core | ((np.abs(columns - X) < 5) & (rows > Y) & (rows < Y + 70))


def short(rows, columns, core):
    return core | ((np.abs(columns - X) < 4.5) & (rows > Y) & (rows < Y + 18))


def along_rows(rows, columns, core):
    return core | ((np.abs(rows - Y) < 5.5) & (columns < X + 60))


def as_wide_as_the_core(rows, columns, core):
    width = np.abs(columns[core] - X).max()
    return core | ((np.abs(columns - X) <= width) & (rows > Y - 120) & (rows < Y + 40))


def slanted(rows, columns, core):
    across = (columns - X) * np.cos(0.4) - (rows - Y) * np.sin(0.4)
    return core | (np.abs(across) < 4)


def physical(rows, columns, core):
    """Charge above the well goes up and down the columns."""
    light = simulate.render_sources(
        core.shape, [X], [Y], [BRIGHT], simulate.PSF(FWHM, 3.0), NOISE
    ).astype(np.float32)  # fmt: skip
    full = simulate.bleed(light / 4, np.full(core.shape, WELL / 4, np.float32)) >= WELL / 4 - 1
    return core | full


TRAILS = [both_ways, one_way, short, along_rows, as_wide_as_the_core, slanted, physical]


@pytest.mark.parametrize("trail", TRAILS)
def test_bleeding_star_is_one_source_at_its_place(trail):
    x, y, flux = faint_stars()
    image, weight = make_coadd(np.append(x, X), np.append(y, Y), np.append(flux, BRIGHT), trail)
    field = measure(image, weight).field
    rows = np.flatnonzero((field.flags & FLAG_SATURATED) > 0)
    assert rows.size == 1
    row = rows[0]
    assert np.hypot(field.sources["x"][row] - X, field.sources["y"][row] - Y) < 0.5
    error = field.lost_error[row]
    assert 0 < error < 0.15 and abs(field.total[row] / BRIGHT - 1) < 3 * error
    # Nothing else but the other stars, and all of these.
    apart = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    assert (apart.min(axis=0) < 1).all()
    false = (apart.min(axis=1) > 3) & (field.snr > 5)
    false[row] = False
    assert not false.any()


@pytest.mark.parametrize(
    ("dx", "dy", "ratio"),
    [(0, 60, 1.0), (0, 110, 0.05), (24, 5, 0.8), (-30, 40, 0.3), (14, 14, 0.6)],
)
def test_two_bleeding_stars_stay_two(dx, dy, ratio):
    x, y, flux = np.array([X, X + dx]), np.array([Y, Y + dy]), BRIGHT * np.array([1, ratio])

    def trails(rows, columns, core):
        for one, width in zip(x, (5.5, 4.5), strict=True):
            core = core | (np.abs(columns - one) < width)
        return core

    more = faint_stars()
    everything = (np.append(one, other) for one, other in zip((x, y, flux), more, strict=True))
    image, weight = make_coadd(*everything, trails)
    field = measure(image, weight).field
    rows = np.flatnonzero((field.flags & FLAG_SATURATED) > 0)
    assert rows.size == 2
    apart = np.hypot(field.sources["x"][rows, None] - x, field.sources["y"][rows, None] - y)
    assert (apart.min(axis=0) < 1).all()
    for star, row in enumerate(rows[apart.argmin(axis=0)]):
        told = field.lost_error[row]
        assert abs(field.total[row] / flux[star] - 1) < 3 * told


def test_faint_stars_beside_a_trail_are_kept_and_flagged():
    x = X + np.array([12.0, 17.0, 30.0, -13.0, -18.0, -40.0])
    y = Y + np.array([70.0, -75.0, 90.0, -110.0, 110.0, 60.0])
    flux = np.full(6, 2e4)

    def trail(rows, columns, core):
        return core | (np.abs(columns - X) < 6.5)

    image, weight = make_coadd(np.append(x, X), np.append(y, Y), np.append(flux, BRIGHT), trail)
    field = measure(image, weight).field
    apart = np.hypot(field.sources["x"][:, None] - x, field.sources["y"][:, None] - y)
    row = apart.argmin(axis=0)
    assert (apart.min(axis=0) < 1).all()
    assert (field.snr > 5).sum() == 7
    assert not (field.flags[row] & FLAG_SATURATED).any()
    near = np.abs(x - X) < 14
    assert (field.flags[row][near] & FLAG_WEIGHT).all()
    np.testing.assert_allclose(field.total[row][~near], flux[~near], rtol=0.05)


def test_trail_whose_star_is_elsewhere_is_no_source():
    x, y, flux = faint_stars()
    image, weight = make_coadd(x, y, flux, lambda rows, columns, core: np.abs(columns - X) < 5)
    field = measure(image, weight).field
    assert not (field.flags & FLAG_SATURATED).any()
    assert (field.snr > 5).sum() == len(x)


def test_light_under_a_trail_is_that_beside_it():
    image, weight = make_coadd(np.array([X]), np.array([Y]), np.array([BRIGHT]), both_ways)
    lost = find_lost_pixels(image, weight, 0.9 * WELL)
    (one,) = lost.bleeding
    truth = simulate.render_sources(
        image.shape, [X], [Y], [BRIGHT], simulate.PSF(FWHM, 3.0), NOISE
    )[one.box]  # fmt: skip
    assert (one.shown & ~one.cores).any()
    beyond = one.shown & ~one.cores & (truth < 0.02 * WELL)
    np.testing.assert_allclose(one.light[beyond], truth[beyond], rtol=0.15, atol=2 * NOISE)
    assert not (lost.plateaus[one.box] & one.lost).any()


@pytest.mark.parametrize(("apart", "ratio"), [(13, 1.0), (16, 1.0), (16, 0.3), (20, 0.6)])
def test_cores_side_by_side_are_two_stars(apart, ratio):
    x, y = np.array([X, X + 0.8 * apart]), np.array([Y, Y + 0.6 * apart])
    flux = BRIGHT * np.array([1, ratio])
    more = faint_stars()
    everything = (np.append(one, other) for one, other in zip((x, y, flux), more, strict=True))
    field = measure(*make_coadd(*everything, lambda rows, columns, core: core)).field
    rows = np.flatnonzero((field.flags & FLAG_SATURATED) > 0)
    assert rows.size == 2
    places = field.sources["x"][rows, None], field.sources["y"][rows, None]
    distance = np.hypot(places[0] - x, places[1] - y)
    assert (distance.min(axis=0) < 1.6).all()
    order = rows[distance.argmin(axis=0)]
    assert (np.abs(field.total[order] / flux - 1) < 4 * field.lost_error[order]).all()


def test_core_that_tells_no_flux_has_none():
    """Two cores in one, whose light falls off as that of no star."""
    x, y = np.array([X, X + 10.4]), np.array([Y, Y + 7.8])
    more = faint_stars()
    everything = (
        np.append(one, other)
        for one, other in zip((x, y, BRIGHT * np.array([1, 0.8])), more, strict=True)
    )
    coadd = measure(*make_coadd(*everything, lambda rows, columns, core: core))
    hdu = significant(source_table(coadd, Zeropoint(reason="NONE"), (1.0,)), 5.0)
    row = hdu.data[(hdu.data["FLAGS"] & FLAG_SATURATED) > 0]
    assert len(row) == 1 and np.isnan(row["FLUX_POINT"][0]) and np.isnan(row["FLUXERR_POINT"][0])
    assert np.isfinite(hdu.data["FLUX_POINT"]).sum() == len(hdu.data) - 1


def test_two_stars_in_one_core_have_the_flux_of_both():
    x, y, flux = np.array([X, X + 10.4]), np.array([Y, Y + 7.8]), BRIGHT * np.array([1, 0.3])
    more = faint_stars()
    everything = (np.append(one, other) for one, other in zip((x, y, flux), more, strict=True))
    field = measure(*make_coadd(*everything, lambda rows, columns, core: core)).field
    (row,) = np.flatnonzero(field.flags & FLAG_SATURATED)
    assert 0 < field.lost_error[row] < 0.2
    assert abs(field.total[row] / flux.sum() - 1) < 3 * field.lost_error[row]


@pytest.mark.parametrize("turned", [False, True])
def test_stack_of_dithered_frames_has_a_bleeding_star_once(tmp_path, turned):
    """In frames turned against each other most of the trail is seen in some; else in none."""
    rng = np.random.default_rng(6)
    stars = make_stars(rng)
    bright = 2e8
    ra, dec = RA + 0.003, DEC + 0.002
    away = np.hypot((stars["ra"] - ra) * np.cos(np.radians(dec)), stars["dec"] - dec) * 9000
    stars = {key: values[away > 70] for key, values in stars.items()}
    paths = write_night(tmp_path, rng, stars)
    for k, path in enumerate(paths):
        frame = read_frame(path)
        header, well = frame.header, float(frame.header["SATURATE"])
        x, y = (float(v) for v in celestial_wcs(header).all_world2pix(ra, dec, 0))
        shape = frame.image.shape
        light = simulate.render_sources(shape, [x], [y], [bright], simulate.PSF(3.5, 3.0), 20.0)
        image = frame.image + rng.poisson(light)
        rows, columns = np.indices(shape)
        along, across = (rows - y, columns - x) if not turned or k % 2 else (columns - x, rows - y)
        full = (image >= well) | ((np.abs(across) < 5.5) & (np.abs(along) < 130))
        full |= np.abs(across) < 2
        frame.image = np.where(full, well, image).astype(np.float32)
        frame.mask[binary_dilation(full, np.ones((3, 3)))] |= SATURATED
        write_frame(path, frame)
    reference = write_reference(tmp_path / "reference.ecsv", rng, stars)
    out, _ = run(tmp_path, paths, refcat=reference)
    header, table = fits.getheader(out["coadd"]), fits.getdata(out["cat"], "SOURCES")
    x, y = celestial_wcs(header).all_world2pix(ra, dec, 1)
    rows = table[(table["FLAGS"] & FLAG_SATURATED) > 0]
    assert len(rows) == 1
    assert np.hypot(rows["X"] - x, rows["Y"] - y)[0] < 0.5
    truth = ZP - 2.5 * np.log10(bright / 60)
    assert abs(rows["MAG_POINT"][0] - truth) < 2 * rows["MAGERR_POINT"][0] < 0.5
    # No other row but those of the stars.
    sx, sy = celestial_wcs(header).all_world2pix(stars["ra"], stars["dec"], 1)
    others = table[((table["FLAGS"] & FLAG_SATURATED) == 0) & (table["SNR"] > 7)]
    apart = np.hypot(others["X"][:, None] - sx, others["Y"][:, None] - sy)
    assert (apart.min(axis=1) < 3).all()
