"""Resampled frames against known places, fluxes and noise, and against SWarp."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lib.astrometry.pixelmaps import fit_cards
from lib.core import compiled as module
from lib.core.compiled import compiled
from lib.core.programs import find_program, run_program
from lib.core.sphere import deproject
from lib.core.wcs import celestial_wcs, frame_outline, wcs_cards
from lib.stack.grid import common_grid
from lib.stack.resample import (
    KERNEL,
    POSITION_TOLERANCE,
    _fill_weights,
    area_ratio,
    frame_positions,
    lanczos_weights,
    resample,
    rows_of_outline,
)

SIZE = (400, 360)
NOISE = 10.0


def turned(angle, scale=0.3, shape=SIZE, shift=(0.0, 0.0), bend=0.0):
    """Return the header of a frame, turned by degrees and bent by pixels at its corners."""
    ny, nx = shape
    turn = np.radians(angle)
    middle = np.array([(nx + 1) / 2, (ny + 1) / 2]) + shift

    def sky(x, y):
        u, v = np.asarray(x, float) - middle[0], np.asarray(y, float) - middle[1]
        r = np.hypot(u, v) / np.hypot(*middle)
        u, v = (w * (1 + bend * r**2 / np.hypot(*middle)) * scale for w in (u, v))
        east, north = np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v
        return deproject(np.stack([-east, north], axis=1), 150.0, 20.0)

    cards, error = fit_cards(sky, shape)
    assert error < 1e-2
    header = fits.Header(cards)
    header["NAXIS1"], header["NAXIS2"] = nx, ny
    return header


def aligned(header, image, weight=None, grid=None, scale=1.0):
    """Resample a frame; return the grid's WCS, and image and weight on the whole grid."""
    wcs = celestial_wcs(header)
    grid = (grid or common_grid([wcs])).wcs
    if weight is None:
        weight = np.full(image.shape, NOISE**-2, np.float32)
    part, known, (row, column) = resample(image, weight, wcs, grid, scale)
    whole = np.zeros((2, *grid.pixel_shape[::-1]), np.float32)
    ny, nx = part.shape
    whole[:, row : row + ny, column : column + nx] = part, known
    return grid, *whole


def stars(shape, places, sigma=1.6, flux=1e5):
    """Return an image of Gaussian stars, by integrals over pixels."""
    from scipy.special import erf

    image = np.zeros(shape)
    for x, y in places:
        edges = [np.arange(n + 1) - 0.5 for n in shape]
        rows, columns = (
            np.diff(erf((edge - at) / sigma / np.sqrt(2))) / 2
            for edge, at in zip(edges, (y, x), strict=True)
        )
        image += flux * rows[:, None] * columns
    return image.astype(np.float32)


def test_kernel_is_the_windowed_sinc():
    place = np.linspace(0, 1, 1025)
    weights = np.empty((6, place.size), np.float32)
    _fill_weights((2 * place - 1).astype(np.float32), KERNEL, weights, place.size)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(weights[:, [0, -1]], np.eye(6)[:, [2, 3]], atol=1e-7)
    half = np.array([0.5, 1.5, 2.5])
    expected = np.sinc(half) * np.sinc(half / 3)
    np.testing.assert_allclose(weights[3:, 512], expected / (2 * expected.sum()), rtol=1e-5)
    np.testing.assert_allclose(weights.T, lanczos_weights(place), atol=4e-7)


@pytest.mark.parametrize("angle", [0.0, 1.0, 45.0, 90.0, 200.0])
@pytest.mark.parametrize("bend", [0.0, 20.0])
def test_places_are_exact_in_every_pixel(angle, bend):
    header = turned(angle, bend=bend)
    wcs = celestial_wcs(header)
    grid = common_grid([wcs]).wcs
    shape = grid.pixel_shape[::-1]
    outline = np.column_stack(grid.all_world2pix(*frame_outline(wcs).T, 0))
    first, ends = rows_of_outline(outline, shape)
    rows = np.arange(first, first + len(ends))
    axes, places = frame_positions(wcs, grid, rows, ends)
    y, x = np.mgrid[: shape[0], : shape[1]]
    exact = np.array(wcs.all_world2pix(*grid.all_pix2world(x.ravel(), y.ravel(), 0), 0))
    exact = exact.reshape(2, *shape)
    t = (x[rows] - axes[:, :1]) / axes[:, 1:]
    found = sum(places[:, :, power, None] * t**power for power in range(places.shape[2]))
    within = np.zeros(shape, bool)
    within[rows] = (x[rows] >= ends[:, :1]) & (x[rows] <= ends[:, 1:])
    inside = (np.abs(exact[0] - (SIZE[1] - 1) / 2) <= SIZE[1] / 2) & (
        np.abs(exact[1] - (SIZE[0] - 1) / 2) <= SIZE[0] / 2
    )
    # No pixel of the frame is passed over, and all are where they belong.
    assert inside.sum() > 0.9 * SIZE[0] * SIZE[1]
    assert within[inside].all()
    seen = inside[rows]
    assert np.abs(found - exact[:, rows])[:, seen].max() < 2 * POSITION_TOLERANCE


def test_flat_image_stays_flat_and_zero_beyond_the_edge():
    header = turned(30.0)
    grid, image, weight = aligned(header, np.full(SIZE, 7.0, np.float32))
    area = area_ratio(celestial_wcs(header), grid, SIZE)
    assert area == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(image[weight > 0], 7 * area, rtol=1e-5)
    np.testing.assert_allclose(weight[weight > 0], (NOISE * area) ** -2, rtol=1e-5)
    assert not image[weight == 0].any()
    # What the kernel cannot reach is a rim of two to three pixels.
    assert (weight > 0).sum() == pytest.approx((SIZE[0] - 5) * (SIZE[1] - 5) / area, rel=2e-3)


@pytest.mark.parametrize("angle, bend", [(0.0, 0.0), (17.0, 0.0), (135.0, 10.0)])
def test_stars_keep_place_and_flux(angle, bend):
    header = turned(angle, bend=bend, shift=(0.31, -0.47))
    rng = np.random.default_rng(5)
    places = np.array([(x, y) for x in range(40, 340, 40) for y in range(40, 380, 40)], float)
    places += rng.uniform(-0.5, 0.5, places.shape)
    wcs = celestial_wcs(header)
    grid, image, _ = aligned(header, stars(SIZE, places), scale=2.0)
    x, y = grid.all_world2pix(*wcs.all_pix2world(*places.T, 0), 0)
    area = area_ratio(wcs, grid, SIZE)
    rows, columns = np.mgrid[-12:13, -12:13]
    # A thousandth of a pixel, 0.3 mas, and what curvature and change of area of the map make of
    # an image of that width: sigma^2 times their second derivatives.
    precise = 1e-3 + 1.6**2 * 12 * bend / (np.hypot(*SIZE) / 2) ** 2
    for px, py in zip(x, y, strict=True):
        near = (rows + int(round(py)), columns + int(round(px)))
        cut = image[near].astype(float)
        assert (cut * near[1]).sum() / cut.sum() == pytest.approx(px, abs=precise)
        assert (cut * near[0]).sum() / cut.sum() == pytest.approx(py, abs=precise)
        # A bent frame has pixels of other sizes elsewhere, as the flat has it.
        step = np.array([[0.5, -0.5, 0, 0], [0, 0, 0.5, -0.5]])
        at = np.array(wcs.all_world2pix(*grid.all_pix2world(px + step[0], py + step[1], 0), 0))
        there = abs(np.linalg.det(at[:, ::2] - at[:, 1::2]))
        assert cut.sum() == pytest.approx(2e5 * area / there, rel=3e-4)


def test_pixels_without_value_bar_all_that_the_kernel_reaches():
    header = turned(0.0, shift=(0.5, 0.5))
    rng = np.random.default_rng(6)
    image = rng.normal(0, NOISE, SIZE).astype(np.float32)
    weight = rng.uniform(0.5, 1, SIZE).astype(np.float32)
    grid, _, whole = aligned(header, image, weight)
    image[100, 150], weight[250, 200] = np.nan, 0
    grid, found, barred = aligned(header, image, weight)
    assert np.isfinite(found).all()
    gone = (whole > 0) & (barred == 0)
    wcs = celestial_wcs(header)
    expected = np.zeros_like(gone)
    y, x = np.mgrid[: gone.shape[0], : gone.shape[1]]
    u, v = wcs.all_world2pix(*grid.all_pix2world(x.ravel(), y.ravel(), 0), 0)
    u, v = (np.floor(w).astype(int).reshape(gone.shape) for w in (u, v))
    for row, column in ((100, 150), (250, 200)):
        expected |= (abs(u + 0.5 - column) < 3) & (abs(v + 0.5 - row) < 3)
    np.testing.assert_array_equal(gone, expected & (whole > 0))
    assert gone.sum() == 72
    np.testing.assert_array_equal(barred[~gone], whole[~gone])


@pytest.mark.parametrize("parts", [2, 3])
def test_finer_frames_keep_flux_and_noise(parts):
    shape = (SIZE[0] * parts, SIZE[1] * parts)
    fine = turned(12.0, 0.3 / parts, shape)
    coarse = turned(12.0)
    grid = common_grid([celestial_wcs(coarse)])
    rng = np.random.default_rng(7)
    noise = rng.normal(0, NOISE, shape).astype(np.float32)
    _, image, weight = aligned(fine, noise, grid=grid, scale=1.5)
    seen = weight > 0
    assert seen.sum() > 0.95 * SIZE[0] * SIZE[1]
    # Sums of parts^2 independent pixels; apertures have the noise that the weights tell.
    np.testing.assert_allclose(weight[seen], (1.5 * parts * NOISE) ** -2, rtol=1e-3)
    boxes = [
        image[y : y + 12, x : x + 12].sum()
        for y in range(0, image.shape[0] - 12, 12)
        for x in range(0, image.shape[1] - 12, 12)
        if seen[y : y + 12, x : x + 12].all()
    ]
    expected = 12 * 1.5 * parts * NOISE
    assert np.std(boxes) == pytest.approx(expected, rel=4 / np.sqrt(2 * len(boxes)))
    light = stars(shape, [(shape[1] / 2, shape[0] / 2)], sigma=1.6 * parts)
    assert aligned(fine, light, grid=grid)[1].sum() == pytest.approx(1e5, rel=3e-4)


def test_compiled_code_that_cannot_be_kept_is_compiled_anew(monkeypatch):
    plain, kept = module.njit, []

    def nowhere(signature, *, cache=False, **options):
        kept.append(cache)
        if cache:
            raise RuntimeError("no locator available")
        return plain(signature, **options)

    monkeypatch.setattr(module, "njit", nowhere)
    double = compiled("f8(f8)")(lambda x: 2 * x)
    assert double(4.0) == 8.0
    assert kept == [True, False]


def test_frame_beside_the_grid_is_an_error():
    header, far = turned(0.0), turned(0.0)
    far["CRVAL2"] += 1.0
    with pytest.raises(ValueError, match="beside the grid"):
        aligned(header, np.zeros(SIZE, np.float32), grid=common_grid([celestial_wcs(far)]))


@pytest.mark.parametrize("angle, bend", [(0.2, 0.0), (30.0, 20.0), (90.0, 8.0)])
def test_values_are_those_of_the_kernel_at_exact_places(angle, bend):
    header = turned(angle, bend=bend, shift=(0.2, 0.4))
    rng = np.random.default_rng(9)
    image = rng.normal(0, NOISE, SIZE).astype(np.float32)
    wcs = celestial_wcs(header)
    grid, found, weight = aligned(header, image)
    y, x = np.nonzero(weight)
    some = rng.choice(y.size, 3000, replace=False)
    x, y = x[some], y[some]
    taps = np.arange(-2, 4)
    places = wcs.all_world2pix(*grid.all_pix2world(x, y, 0), 0)
    weights = []
    for place in places:
        distance = (place - np.floor(place))[:, None] - taps
        kernel = np.sinc(distance) * np.sinc(distance / 3) * (abs(distance) < 3)
        weights.append(kernel / kernel.sum(axis=1, keepdims=True))
    u, v = (np.floor(place).astype(int)[:, None] + taps for place in places)
    expected = np.einsum("ni,nj,nji->n", *weights, image[v[:, :, None], u[:, None, :]])
    expected *= area_ratio(wcs, grid, SIZE)
    # The slope of noise of 4 sigma at the highest frequency is 4 pi sigma a pixel.
    assert np.abs(found[y, x] - expected).max() < 4 * np.pi * NOISE * POSITION_TOLERANCE


@pytest.mark.parametrize("angle", [0.2, 30.0, 90.0])
def test_resampled_frame_is_that_of_swarp(tmp_path, angle):
    header = turned(angle, shift=(0.2, 0.4))
    rng = np.random.default_rng(8)
    image = rng.normal(0, NOISE, SIZE).astype(np.float32)
    image += stars(SIZE, rng.uniform(20, 340, (30, 2)), flux=3e4)
    weight = rng.uniform(0.5, 2, SIZE).astype(np.float32)
    weight[rng.uniform(size=SIZE) < 2e-3] = 0
    grid, ours, known = aligned(header, image, weight)
    cards = wcs_cards(header)
    fits.writeto(tmp_path / "a.fits", image, cards)
    fits.writeto(tmp_path / "a.weight.fits", weight)
    (tmp_path / "empty").write_text("")
    options = {
        "c": "empty", "COMBINE": "N", "SUBTRACT_BACK": "N", "WEIGHT_TYPE": "MAP_WEIGHT",
        "RESCALE_WEIGHTS": "N", "RESAMPLING_TYPE": "LANCZOS3", "CENTER_TYPE": "MANUAL",
        "CENTER": ",".join(f"{v:.7f}" for v in grid.wcs.crval), "PIXELSCALE_TYPE": "MANUAL",
        "PIXEL_SCALE": f"{3600 * grid.wcs.cd[1, 1]:.4f}", "PROJECTION_TYPE": "TAN",
        "PROJECTION_ERR": "0", "IMAGE_SIZE": ",".join(map(str, grid.pixel_shape)), "WRITE_XML": "N",
        "NTHREADS": "1",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in (f"-{key}", value)]
    run_program([find_program("swarp"), "a.fits", *words], timeout=60, cwd=tmp_path)
    theirs, their_weight = np.zeros((2, *ours.shape))
    with fits.open(tmp_path / "a.resamp.fits") as hdus:
        corner = (np.array(grid.wcs.crpix) - WCS(hdus[0].header).wcs.crpix).round().astype(int)
        # Its rim, where it has no value, may reach beyond the grid.
        rows, columns = np.indices(hdus[0].data.shape) + corner[::-1, None, None]
        on = (rows >= 0) & (columns >= 0) & (rows < ours.shape[0]) & (columns < ours.shape[1])
        theirs[rows[on], columns[on]] = hdus[0].data[on]
        there = fits.getdata(tmp_path / "a.resamp.weight.fits")
        their_weight[rows[on], columns[on]] = there[on]
    both = (known > 0) & (their_weight > 0)
    # Where a place is a whole number, either side may be taken for the kernel's.
    assert both.sum() > 0.999 * max((known > 0).sum(), (their_weight > 0).sum())
    slope = np.hypot(*np.gradient(ours)) + 4 * np.pi * NOISE
    assert np.abs((ours - theirs) / slope)[both].max() < POSITION_TOLERANCE
    # Ours is that of the nearest pixel, SWarp's the least in reach.
    assert (known[both] >= 0.999 * their_weight[both]).all()
