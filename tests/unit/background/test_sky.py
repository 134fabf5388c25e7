"""The sky of dithered frames whose true sky is known: made, subtracted, and what it reveals."""

from types import SimpleNamespace

import numpy as np
import pytest
import sep
import simulate
from astropy.io import fits
from scipy.ndimage import gaussian_filter, uniform_filter

from lib.background.fringes import (
    fringe_excess,
    fringe_pattern,
    may_have_excess,
    pattern_noise,
)
from lib.background.makesky import sky_from_frames
from lib.background.mastersky import MasterSky, read_sky, write_sky
from lib.background.pointings import pointing_groups
from lib.background.registration import offset, spectrum
from lib.background.secondpass import UNDITHERED, DitheredSum, Persistence, find_deep_sources
from lib.background.sky import (
    NO_GROWTH,
    binned,
    block_sky,
    find_sources,
    fit_surface,
    grown_by_size,
    surface,
    unbinned,
)
from lib.background.skymean import make_sky
from lib.background.smoothing import fill_sky, keep_structure, smooth_sky
from lib.background.subtraction import skysub_frame, subtract_sky
from lib.frame.file import BAD, NODATA, SOURCE, Frame, write_frame
from lib.night.plan import time_windows

SHAPE = (480, 560)
READNOISE = 15.0


class Camera:
    """An infrared array that looks at dithered stars through a sky that changes."""

    def __init__(self, seed=1, level=8000.0, frames=7, stars=60, structure=0.03, dither=60):
        self.rng = np.random.default_rng(seed)
        self.level, self.frames = level, frames
        self.pattern = 1 + simulate.low_order_pattern(SHAPE, structure, self.rng)
        self.excess = np.zeros(SHAPE, np.float32)  # hot pixels [e]
        margin = dither + 40
        self.x = self.rng.uniform(-margin, SHAPE[1] + margin, stars)
        self.y = self.rng.uniform(-margin, SHAPE[0] + margin, stars)
        self.flux = 10 ** self.rng.uniform(3.5, 6.0, stars)
        self.moves = self.rng.uniform(-dither, dither, (frames, 2)).round()
        self.changes = 1 + 0.1 * np.sin(np.arange(frames))
        self.tilts = 0.01 * self.rng.normal(size=(frames, 2))
        y, x = np.linspace(-1, 1, SHAPE[0])[:, None], np.linspace(-1, 1, SHAPE[1])[None, :]
        self.planes = [1 + a * y + b * x for a, b in self.tilts]

    def sky(self, n):
        return self.level * self.changes[n] * self.pattern * self.planes[n]

    def scene(self, n):
        noise = np.sqrt(self.level)
        dy, dx = self.moves[n]
        return simulate.render_sources(
            SHAPE, self.x + dx, self.y + dy, self.flux, simulate.PSF(4.0), noise
        )

    def frame(self, n, extra=0.0):
        """Return the flattened frame n with its sources marked."""
        light = self.scene(n) + self.sky(n) + self.excess + extra
        image = self.rng.poisson(light) + self.rng.normal(0, READNOISE, SHAPE)
        image = image.astype(np.float32)
        header = fits.Header()
        header["QCSTAT"], header["FRAME"], header["TARGET"] = "OK", f"2f{n}", "M_1"
        header["GAIN"], header["RDNOISE"], header["SATURATE"] = 1.0, READNOISE, 5e5
        mask = np.zeros(SHAPE, np.uint8)
        mask[find_sources(image, np.zeros(SHAPE, bool))] |= SOURCE
        header["SKYCTS"] = float(np.median(image[mask == 0]))
        header["SKYNOISE"] = float(image[mask == 0].std())
        return Frame(image, mask, header)

    def write(self, folder):
        paths = [folder / f"fp2f{n}.fits" for n in range(self.frames)]
        for n, path in enumerate(paths):
            write_frame(path, self.frame(n))
        return paths


def left_over(camera, frame, sky, n, order=1):
    """Return what was subtracted less the true sky, in units of the sky's noise."""
    copy = Frame(frame.image, frame.mask, frame.header.copy())
    after = skysub_frame(copy, sky.of(frame.header["FRAME"]), order)
    noise = np.sqrt(camera.sky(n) + READNOISE**2)
    return (frame.image - after.image - camera.sky(n)) / noise, after


@pytest.mark.parametrize(("frames", "passes"), [(4, 2), (7, 2), (7, 1)])
def test_structure_left_over_is_a_tenth_of_the_noise(tmp_path, frames, passes):
    camera = Camera(frames=frames)
    paths = camera.write(tmp_path)
    sky = sky_from_frames(paths, passes=passes, structure=True)
    assert sky.header["NCOMBINE"] == frames
    assert sky.header["NDEEP"] == (frames if passes > 1 else 0)
    for n in (0, frames - 1):
        left, after = left_over(camera, camera.frame(n), sky, n)
        # Scales above 10 pixels.
        assert uniform_filter(left, 10)[8:-8, 8:-8].std() < 0.10
        assert abs(left.mean()) < 0.05
        assert after.header["SKYSUB"] == pytest.approx(np.median(camera.sky(n)), rel=2e-3)
        assert after.header["SATURATE"] == pytest.approx(5e5 - after.header["SKYSUB"])
        # The sky of the squares is normalised to the median of the frames.
        own = camera.planes[n] / np.median(camera.planes, axis=0)
        assert after.header["SKYTILT"] == pytest.approx(np.ptp(own), abs=0.01)


def test_wings_of_bright_stars_keep_their_flux(tmp_path):
    camera = Camera(frames=6, stars=40)
    camera.flux[:12] = 1e6
    sky = sky_from_frames(camera.write(tmp_path), passes=2, structure=True)
    yy, xx = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lost = []
    for n in range(3):
        left, _ = left_over(camera, camera.frame(n), sky, n)
        left *= np.sqrt(camera.sky(n) + READNOISE**2)
        dy, dx = camera.moves[n]
        for x, y in zip(camera.x[:12] + dx, camera.y[:12] + dy, strict=True):
            if 40 < x < SHAPE[1] - 40 and 40 < y < SHAPE[0] - 40:
                r = np.hypot(yy - y, xx - x)
                around = left[(r > 28) & (r < 38)].mean()
                lost.append((left[r < 24] - around).sum() / 1e6)
    assert len(lost) >= 6
    # The noise of the sky within 24 pixels of a star is 0.2 % of this flux.
    assert np.abs(lost).max() < 0.01
    assert abs(np.mean(lost)) < 0.003


@pytest.mark.parametrize(
    ("frames", "dither", "structure"),
    [(5, 60, True), (5, 60, False), (9, 60, True), (3, 60, False), (5, 0, False)],
)
def test_faint_stars_keep_their_flux(tmp_path, frames, dither, structure):
    """Stars that one frame does not show, S/N 3 in it, are not taken for sky."""
    camera = Camera(frames=frames, dither=dither, stars=700, structure=0.01)
    noise = np.sqrt(camera.level + READNOISE**2)
    psf = simulate.PSF(4.0)
    camera.flux[:] = 3 * noise * np.sqrt(np.pi) * 4.0  # 3 sigma in a radius of one FWHM
    camera.flux[:20] = 3e5
    passes = 2 if structure else 1
    sky = sky_from_frames(camera.write(tmp_path), passes=passes, structure=structure)
    assert sky.header["NGROUP"] == (min(frames, 5) if dither else 1)
    lost, light = [], []
    for n in range(frames):
        frame = camera.frame(n)
        left, _ = left_over(camera, frame, sky, n)
        left *= np.sqrt(camera.sky(n) + READNOISE**2)
        left -= np.median(left)
        own = simulate.render_sources(
            SHAPE, camera.x[20:] + camera.moves[n, 1], camera.y[20:] + camera.moves[n, 0],
            camera.flux[20:], psf, noise,
        )  # fmt: skip
        free = frame.mask == 0
        lost.append((left * own)[free].sum())
        light.append((own * own)[free].sum())
    # Least-squares factor of the stars in what was subtracted; the noise of the skies makes it
    # uncertain by 0.5 per cent.
    assert abs(sum(lost) / sum(light)) < 0.02


def test_pointings_are_grouped_by_where_and_when():
    assert pointing_groups([("a", (0, 0)), ("a", (1, 2)), ("a", (0, 9))]) == [0, 0, 0]
    assert pointing_groups([("a", (0, 0)), ("a", (0, 40)), ("b", (0, 0))]) == [0, 1, 2]
    assert pointing_groups([("a", (0, 0)), ("a", (0, 40))] * 3) == [0, 1] * 3
    assert pointing_groups([("a", None), ("a", None)]) == [0, 1]
    drift = pointing_groups([("a", (0, 12 * n)) for n in range(20)])
    assert drift == sorted(drift) and np.bincount(drift).tolist() == [4] * 5


def test_sky_of_a_frame_survives_the_file(tmp_path):
    rng = np.random.default_rng(12)
    images = rng.random((3, 20, 30)).astype(np.float32)
    mask = np.zeros((20, 30), np.uint8)
    sky = MasterSky(images[0], mask, fits.Header(), {"2a": 0, "2b": 1}, dict(enumerate(images[1:])))
    write_sky(tmp_path / "sky.fits", sky)
    for name, image in (("2a", images[1]), ("2b", images[2]), ("2other", images[0])):
        np.testing.assert_array_equal(read_sky(tmp_path / "sky.fits", name).image, image)
        np.testing.assert_array_equal(sky.of(name).image, image)


def test_a_frame_alone_at_a_pixel_does_not_lose_its_star(tmp_path):
    camera = Camera(frames=3, stars=20)
    paths = camera.write(tmp_path)
    # In two of three frames a corner is masked: the third may hold anything there.
    for path in paths[:2]:
        with fits.open(path, mode="update") as hdus:
            hdus["MASK"].data[:60, :60] |= NODATA
    with fits.open(paths[2], mode="update") as hdus:
        hdus[0].data[20:24, 20:24] += 3000
    sky = sky_from_frames(paths, structure=True)
    assert (
        np.abs(sky.image / (camera.pattern / np.median(camera.pattern)) - 1)[10:34, 10:34].max()
        < 0.03
    )


def test_hot_pixels_and_columns_are_found_without_darks(tmp_path):
    camera = Camera(frames=5, level=1500.0)
    y, x = camera.rng.integers(0, SHAPE[0], 60), camera.rng.integers(0, SHAPE[1], 60)
    noise = np.sqrt(1500 + READNOISE**2)
    camera.excess[y, x] = 8 * noise
    camera.excess[100:300, 333] = 3 * noise
    sky = sky_from_frames(camera.write(tmp_path), structure=True)
    bad = sky.mask & BAD > 0
    assert bad[y, x].mean() > 0.9
    assert bad[128:256, 333].all()
    true = camera.excess > 0
    # The column is found in pieces of 64 pixels, one of which reaches beyond its end.
    assert (bad & ~true)[:, 333].sum() <= 64
    true[:, 333] = True
    assert (bad & ~true).sum() <= 2
    assert sky.header["NBAD"] == bad.sum()
    _, after = left_over(camera, camera.frame(0), sky, 0)
    assert (after.mask[y, x] & BAD > 0).mean() > 0.9


def test_stars_of_frames_that_do_not_move_are_no_defects(tmp_path):
    camera = Camera(frames=6, dither=0)
    sky = sky_from_frames(camera.write(tmp_path))
    assert not (sky.mask & BAD).any()


def test_too_few_or_unlike_frames(tmp_path):
    camera = Camera(frames=3)
    paths = camera.write(tmp_path)
    for path in paths[1:]:
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["QCSTAT"], hdus[0].header["QCREASON"] = "REJECTED", "CLOUDY: 0.1"
    sky = sky_from_frames(paths)
    assert sky.rejected and sky.reason == "TOO_FEW_FRAMES: 1 < 2"
    assert sky.header["LEFT2"].endswith("CLOUDY: 0.1")
    frame = camera.frame(0)
    after = skysub_frame(frame, sky.of("2f0"), 1)
    assert after.header["SKYMODE"] == "median"
    assert after.header["SKYNOTE"].startswith("TOO_FEW_FRAMES")


def test_a_frame_full_of_light_is_no_sky(tmp_path):
    """The halo of a star of first magnitude, which no mask covers, stays out of the others' sky."""
    camera = Camera(frames=6, stars=30)
    paths = camera.write(tmp_path)
    y, x = np.indices(SHAPE)
    halo = np.exp(-np.hypot(y - SHAPE[0] / 2, x - SHAPE[1] / 2) / 120)
    with fits.open(paths[2], mode="update") as hdus:
        hdus[0].data += (np.sqrt(camera.level) * halo).astype(np.float32)
    sky = sky_from_frames(paths, passes=2, structure=True)
    assert sky.header["NCOMBINE"] == 5
    assert "SKY_SHAPE" in sky.header["LEFT1"]
    left, _ = left_over(camera, camera.frame(0), sky, 0)
    assert uniform_filter(left, 10)[8:-8, 8:-8].std() < 0.10


def test_without_a_master_sky_the_median_is_subtracted():
    rng = np.random.default_rng(3)
    image = rng.normal(500, 10, SHAPE).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    image[50:80, 50:80] += 1000
    mask[50:80, 50:80] = SOURCE
    image[0], mask[0] = -5, NODATA
    after, level, noise, tilt = subtract_sky(image, mask)
    assert level == pytest.approx(500, abs=0.1) and noise == pytest.approx(10, rel=0.02)
    assert tilt == 0 and (after[0] == 0).all()
    np.testing.assert_allclose(after[1:], image[1:] - np.float32(level), atol=1e-3)


def test_pixel_structure_is_kept_as_far_as_it_is_no_noise():
    rng = np.random.default_rng(4)
    variance = np.full(SHAPE, 1e-4, np.float32)
    smooth, good = np.ones(SHAPE, np.float32), np.ones(SHAPE, bool)
    noise = rng.normal(0, 0.01, SHAPE).astype(np.float32)
    for structure, weight in ((0.0, 0.0), (0.01, 0.5), (0.03, 0.9)):
        true = 1 + rng.normal(0, structure, SHAPE).astype(np.float32)
        sky, kept = keep_structure(true + noise, smooth, good, variance)
        assert kept == pytest.approx(weight, abs=0.05)
        assert (sky - true).std() <= 0.01 * np.sqrt(weight) + 5e-4
    spiky = smooth + noise
    spiky[7, 7] = 1.3
    sky, _ = keep_structure(spiky, smooth, good, variance)
    assert sky[7, 7] == pytest.approx(1.3)


def test_offsets_of_dithered_frames():
    camera = Camera(stars=40)
    first = np.where(camera.scene(0) > 300, 3, 0).astype(np.float32)
    for n in range(1, 4):
        image = np.where(camera.scene(n) > 300, 3, 0).astype(np.float32)
        expected = camera.moves[n] - camera.moves[0]
        found = offset(spectrum(first), image)
        assert np.abs(np.subtract(found, expected)).max() <= 1
    assert offset(spectrum(first), np.zeros(SHAPE, np.float32)) is None


@pytest.mark.parametrize("shape", [(61, 149), (150, 82), (97, 203)])
def test_offsets_of_frames_of_any_size(shape):
    rng = np.random.default_rng(14)
    wide = gaussian_filter((rng.random((260, 300)) > 0.995) * 100.0, 1.2).astype(np.float32)

    def seen_from(y, x):
        return np.ascontiguousarray(wide[y : y + shape[0], x : x + shape[1]])

    reference = spectrum(seen_from(30, 40))
    for dy, dx in ((0, 0), (3, -7), (-14, 10), (1, 0), (0, -1)):
        assert offset(reference, seen_from(30 - dy, 40 - dx)) == (dy, dx)


def test_sum_of_frames_shows_what_one_does_not():
    rng = np.random.default_rng(5)
    camera = Camera(frames=9, stars=30)
    faint_x, faint_y = rng.uniform(150, 400, (2, 12))
    together, usable = DitheredSum(), np.ones(SHAPE, bool)
    for n in range(camera.frames):
        dy, dx = camera.moves[n]
        excess = camera.scene(n) / 90 + rng.normal(0, 1, SHAPE)
        sources = excess > 20
        # Peak 1.5 sigma in one frame.
        flux = np.full(12, 1.5 / simulate.PSF(4.0).density(0, 0))
        excess += simulate.render_sources(
            SHAPE, faint_x + dx, faint_y + dy, flux, simulate.PSF(4.0), 1.0
        )
        excess[10 + n, 500] = 1000
        assert together.add(excess.astype(np.float32), usable, sources) is not None
    masks = together.sources(SHAPE)
    dy, dx = camera.moves[0]
    seen = masks[0][(faint_y + dy).round().astype(int), (faint_x + dx).round().astype(int)]
    assert seen.mean() > 0.9
    assert masks[0].mean() < 0.35


def test_persistence_wants_three_pointings():
    rng = np.random.default_rng(6)
    usable = np.ones((80, 90), bool)
    for shifts, found in (([(0, 0), (0, 2), (1, 1)], 0), ([(0, 0), (0, 30), (30, 0)], 1)):
        persistence = Persistence(usable.shape)
        for shift in shifts:
            excess = rng.normal(0, 1, usable.shape)
            excess[40, 40] = 12
            persistence.add(excess, usable, "M_1", shift)
        assert persistence.defects().sum() == found


def test_what_a_model_lacks_of_a_galaxy_is_no_defect():
    """The core of one larger than the dither is bright in the same columns at all pointings."""
    rng = np.random.default_rng(7)
    shape, level = (256, 256), 900.0
    y, x = np.indices(shape)
    stars = rng.uniform(20, 236, (2, 12))
    facts = fits.Header({"SKYCTS": level, "GAIN": 1.0, "RDNOISE": 5.0, "TARGET": "galaxy"})
    frames, maps = {}, []
    for n, (dy, dx) in enumerate([(0, 0), (-14, 21), (16, 7), (-19, -10), (11, -16)]):
        light = 1.5 * np.exp(-np.hypot(x - 128 - dx, y - 128 - dy) / 40)
        image = rng.poisson(level * (1 + light)) + rng.normal(0, 5, shape)
        mask = np.zeros(shape, np.uint8)
        for sy, sx in stars.T:
            away = np.hypot(y - sy - dy, x - sx - dx)
            image += 3000 * np.exp(-(away**2) / 2 / 1.7**2)
            mask[away < 6] |= SOURCE
        image[30, 15] += 500
        frames[n] = Frame(image.astype(np.float32), mask, facts)
        # A tenth is missing.
        maps.append(0.9 * light.reshape(64, 4, 64, 4).mean(axis=(1, 3)))
    given = SimpleNamespace(
        planes=np.ones((5, *shape), np.float32), tilts=np.zeros((5, 1, 1), np.float32),
        good=[(n, facts, SimpleNamespace(level=level, name=f"2{n}")) for n in frames],
        light=SimpleNamespace(maps=maps), read=frames.get,
    )  # fmt: skip
    defects, _, _ = find_deep_sources(given, np.ones(shape, np.float32), deep=False)
    assert defects[30, 15] and defects.sum() == 1


def test_a_crowd_of_stars_is_no_defect():
    """Where half of the pixels show a star, many do so at each of four pointings."""
    rng = np.random.default_rng(6)
    usable = np.ones((80, 90), bool)
    persistence = Persistence(usable.shape)
    for shift in ((0, 0), (0, 30), (30, 0), (30, 30)):
        excess = np.where(rng.random(usable.shape) < 0.5, 50, 0) + rng.normal(0, 1, usable.shape)
        persistence.add(excess, usable, "M_1", shift)
    assert not persistence.defects().any()


def test_smoothing_ignores_gaps():
    sky = np.full((60, 60), 1.05, np.float32)
    good = np.ones(sky.shape, bool)
    sky[20:30, 20:30], good[20:30, 20:30] = 99, False
    np.testing.assert_allclose(smooth_sky(sky, good, 3.0), 1.05, rtol=1e-5)


@pytest.mark.parametrize("shape", [(200, 240), (201, 243)])
def test_smoothing_on_half_the_pixels_is_that_of_a_gaussian(shape):
    rng = np.random.default_rng(15)
    noise = rng.normal(0, 1, shape).astype(np.float32)
    smooth = smooth_sky(1 + noise, np.ones(shape, bool), 3.0) - 1
    expected = gaussian_filter(noise, 3.0)
    inside = np.s_[12:-12, 12:-12]
    assert (smooth - expected)[inside].std() < 0.02 * expected[inside].std()
    plane = np.add.outer(0.01 * np.arange(shape[0]), 0.02 * np.arange(shape[1]))
    kept = smooth_sky(plane.astype(np.float32), np.ones(shape, bool), 3.0)
    np.testing.assert_allclose(kept[inside], plane[inside], atol=1e-3)


def test_what_no_frame_shows_is_filled_from_around():
    rng = np.random.default_rng(16)
    smooth = (1 + 1e-4 * np.arange(SHAPE[1]) + np.zeros((SHAPE[0], 1))).astype(np.float32)
    good = rng.random(SHAPE) > 0.05
    good[100:130, 200:230] = good[:9] = good[:, -7:] = False
    filled = fill_sky(np.where(good, smooth, np.float32(9)), good)
    np.testing.assert_array_equal(filled[good], smooth[good])
    wrong = np.abs(filled - smooth)
    # Among good pixels, to two pixels' worth of the slope; in the hole, to some of its 30.
    assert wrong[200:, 50:-50].max() < 2e-4 and wrong[100:130, 200:230].max() < 7e-4
    # A slope is not continued: half a Gaussian has its middle 13 pixels, 0.0013, from its edge.
    assert wrong.max() < 2.5e-3


def test_a_kernel_with_a_hole_counts_no_pixel_for_itself():
    sky = np.ones((81, 81), np.float32)
    sky[40, 40] = 2
    smooth = smooth_sky(sky, np.ones(sky.shape, bool), 14.0, 8.0) - 1
    assert abs(smooth[40, 40]) < 1e-6 < smooth[40, 50] < 1e-3
    assert smooth.min() > -1e-6


@pytest.mark.parametrize(
    ("hole", "low", "high"), [(UNDITHERED["hole"], 0.85, 1.15), (0.0, 0.5, 0.8)]
)
def test_empty_apertures_tell_the_noise_of_stars_without_dither(hole, low, high):
    """Noise and structure: the sky below stars is interpolated, elsewhere it must be so too."""
    rng, size, radius = np.random.default_rng(12), 480, 6.0
    structure = gaussian_filter(rng.normal(0, 1, (size, size)), 10)
    structure *= 0.003 / structure.std()
    noise = (structure + rng.normal(0, 0.01, (3, size, size))).astype(np.float32)
    places = np.arange(40, size - 39, 40)
    stars = np.array([(x, y) for x in places for y in places])
    planes = 1 + noise
    yy, xx = np.mgrid[:size, :size]
    for x, y in stars:
        planes[:, np.hypot(xx - x, yy - y) < 9] = np.nan
    sky = make_sky(planes, (size, size), UNDITHERED["sigma"] if hole else 10.0, hole=hole).image
    left = np.ascontiguousarray(1 + noise.mean(axis=0) - sky)
    at_stars, empty = (
        sep.sum_circle(left, *(stars + step).T.astype(float), radius)[0].std() for step in (0, 20)
    )
    # The standard deviation of 100 is good to 7 %.
    assert low < empty / at_stars < high


def test_one_frame_is_its_own_sky():
    sky = make_sky(np.ones((1, 50, 60), np.float32), (50, 60), noise=0.01)
    np.testing.assert_allclose(sky.image, 1)


def test_surface_is_fitted_through_stars():
    rng = np.random.default_rng(7)
    y, x = np.linspace(-1, 1, SHAPE[0])[:, None], np.linspace(-1, 1, SHAPE[1])[None, :]
    true = 100 * (1 + 0.05 * x - 0.03 * y + 0.02 * x * y)
    image = (true + rng.normal(0, 10, SHAPE)).astype(np.float32)
    image[100:200, 200:300] += 500
    free = rng.random(SHAPE) > 0.3
    fitted = surface(fit_surface(block_sky(image, free), 2), SHAPE)
    assert np.abs(fitted - true).max() < 1.0
    # Too few squares for a plane: a constant.
    assert (fit_surface(np.array([[1.0, 2.0]]), 1)[1:] == 0).all()
    assert (fit_surface(np.full((3, 3), np.nan), 1) == 0).all()


def test_a_hot_column_hides_little_sky():
    rng = np.random.default_rng(9)
    image = rng.normal(0, 10, SHAPE).astype(np.float32)
    image[:, 200] += 100
    sources = find_sources(image, np.zeros(SHAPE, bool))
    assert sources[:, 200].mean() > 0.9
    assert sources.any(axis=0).sum() - (sources.mean(axis=0) < 0.1).sum() < 20


def test_long_series_are_parted_evenly():
    mjd = np.arange(40) * 5 / 1440  # 195 minutes
    assert [len(part) for part in time_windows(mjd, 60, 8)] == [14, 13, 13]
    assert [len(part) for part in time_windows(mjd, 60, 20)] == [20, 20]
    assert time_windows(mjd[:10], 60, 8) == [list(range(10))]
    assert time_windows([1.0], 60, 8) == [[0]]


def test_very_long_series_are_parted_however_their_sky_is():
    mjd = np.arange(1000) / 1440
    parts = time_windows(mjd, np.inf, 8, most=300)
    assert [len(part) for part in parts] == [250] * 4
    assert sum(parts, []) == list(range(1000))
    assert len(time_windows(mjd[:300], np.inf, 8, most=300)) == 1


@pytest.mark.parametrize("shape", [(6, 8), (7, 8), (6, 9), (7, 9)])
def test_squares_of_two_pixels(shape):
    rng = np.random.default_rng(11)
    image = rng.normal(0, 1, shape).astype(np.float32)
    unusable = rng.random(shape) < 0.3
    image[unusable] = np.nan
    means, number = binned(image, unusable)
    for (y, x), mean in np.ndenumerate(means):
        part = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        good = image[part][~unusable[part]]
        assert number[y, x] == good.size
        assert mean == pytest.approx(good.mean() if good.size else 0, rel=1e-5)
    squares = number > 2
    pixels = unbinned(squares, shape)
    assert pixels.shape == shape
    np.testing.assert_array_equal(pixels[::2, ::2], squares)
    np.testing.assert_array_equal(pixels[1::2, 1::2], squares[: shape[0] // 2, : shape[1] // 2])


def test_areas_grow_each_by_its_own():
    labels = np.zeros((60, 140), int)
    places = {1: (30, 20), 2: (30, 50), 3: (30, 90), 4: (30, 130)}
    steps = [NO_GROWTH, 0, 3, 15, NO_GROWTH]
    for label, place in places.items():
        labels[place] = label
    grown = grown_by_size(labels, steps)
    y, x = np.indices(labels.shape)
    expected = np.zeros(labels.shape, bool)
    for label in (1, 2, 3):
        distance = np.hypot(y - places[label][0], x - places[label][1])
        # An octagon: as far as the disc along the axes, a tenth further or less between.
        assert grown[distance <= 0.95 * steps[label]].all()
        expected |= distance <= 1.2 * steps[label] + 0.5
    assert not (grown & ~expected).any()


class ChangingSky(Camera):
    """A sky whose pattern becomes another in the course of the series."""

    def __init__(self, **options):
        super().__init__(**options)
        self.other = 1 + simulate.low_order_pattern(SHAPE, 0.03, self.rng)

    def sky(self, n):
        part = n / (self.frames - 1)
        pattern = (1 - part) * self.pattern + part * self.other
        return self.level * self.changes[n] * pattern * self.planes[n]


def test_a_sky_that_changes_is_followed_in_windows(tmp_path):
    camera = ChangingSky(frames=24)
    paths = camera.write(tmp_path)
    whole = sky_from_frames(paths, structure=True)
    windows = time_windows(np.arange(24) * 5 / 1440, 40, 8)
    assert len(windows) == 3
    left = {"whole": [], "window": []}
    for window in windows:
        own = sky_from_frames([paths[n] for n in window], structure=True)
        for n in window[::3]:
            for name, sky in (("whole", whole), ("window", own)):
                rest, _ = left_over(camera, camera.frame(n), sky, n)
                left[name].append(uniform_filter(rest, 10)[8:-8, 8:-8].std())
    assert np.mean(left["window"]) < 0.5 * np.mean(left["whole"])


@pytest.mark.parametrize("scale", [160, "auto"])
@pytest.mark.parametrize("strength", [1.6, 0.7])
def test_fringes_are_scaled_apart_from_the_sky(scale, strength):
    rng = np.random.default_rng(10)
    pattern = simulate.fringe_pattern(SHAPE, 0.03, rng)
    y, x = rng.uniform(0, 480, (2, 40))
    scene = simulate.render_sources(SHAPE, x, y, np.full(40, 3e4), simulate.PSF(4.0), 30.0)
    level = 2000.0
    light = level * (1 + strength * pattern) + scene
    image = (rng.poisson(light) + rng.normal(0, 6, SHAPE)).astype(np.float32)
    mask = np.zeros(SHAPE, np.uint8)
    mask[find_sources(image, np.zeros(SHAPE, bool), threshold=4)] |= SOURCE
    header = fits.Header({"QCSTAT": "OK", "SATURATE": 6e4})
    facts = fits.Header({"NCOMBINE": 20, "SMOOTH": 3.0})
    sky = Frame((1 + pattern).astype(np.float32), np.zeros(SHAPE, np.uint8), facts)
    frame = Frame(image, mask, header)
    noise = np.sqrt(level + 36)
    plain = skysub_frame(Frame(image, mask, header.copy()), sky, 1)
    after = skysub_frame(frame, sky, 1, fringe_scale=scale)
    free = mask == 0
    fringe = fringe_pattern(sky.image, 160)
    before = fringe_excess(plain.image, free, fringe) * fringe.std() / noise
    assert before * np.sign(strength - 1) > 0.25
    assert after.header["FRINGE"] == pytest.approx(strength, rel=0.05)
    left = uniform_filter(np.where(free, after.image, 0), 10) / noise
    assert left[10:-10, 10:-10].std() < 0.15  # a tenth, and the noise of the mean of 100 pixels
    assert abs(fringe_excess(after.image, free, fringe)) * fringe.std() / noise < 0.05


@pytest.mark.parametrize("tilt", [0.0, 0.04])
def test_structure_that_scales_as_the_sky_is_no_fringe(tilt):
    """Frames of one sky, with stars and a gradient: nothing but the sky is taken away."""
    rng = np.random.default_rng(11)
    pattern = simulate.fringe_pattern(SHAPE, 0.02, rng)
    sky = Frame(
        (1 + pattern).astype(np.float32), np.zeros(SHAPE, np.uint8),
        fits.Header({"NCOMBINE": 20, "SMOOTH": 3.0}),
    )  # fmt: skip
    for _ in range(4):
        x, y = rng.uniform(0, SHAPE[0], (2, 150))
        flux = 10 ** rng.uniform(2.5, 5, 150)
        scene = simulate.render_sources(SHAPE, x, y, flux, simulate.PSF(4.0), 30.0)
        plane = 1 + tilt * np.linspace(-1, 1, SHAPE[1])
        image = rng.poisson(2000.0 * (1 + pattern) * plane + scene).astype(np.float32)
        mask = np.zeros(SHAPE, np.uint8)
        mask[find_sources(image, np.zeros(SHAPE, bool), threshold=4)] |= SOURCE
        header = fits.Header({"QCSTAT": "OK", "SATURATE": 6e4})
        plain = skysub_frame(Frame(image, mask, header.copy()), sky, 1)
        after = skysub_frame(Frame(image, mask, header), sky, 1, fringe_scale="auto")
        assert after.header["FRINGE"] == 1
        assert (after.image == plain.image).all()


@pytest.mark.parametrize("amplitude", [0.0, 0.004, 0.02])
@pytest.mark.parametrize("strength", [1.0, 0.8, 0.3])
def test_fringes_are_told_from_the_noise_of_the_others(amplitude, strength):
    """A sky of four other frames: its noise is in the frame, too, and is no lack of fringes."""
    rng = np.random.default_rng(12)
    y, x = np.indices(SHAPE)
    pattern = amplitude * np.sin((x + 0.5 * y + 20 * np.sin(y / 90)) / 5)
    noise = 0.02
    others = gaussian_filter(rng.normal(0, noise / 2, SHAPE), 3)
    sky = (1 + pattern + others).astype(np.float32)
    frame = 1 + strength * pattern + rng.normal(0, noise, SHAPE)
    rest, free = (frame - sky).astype(np.float32), np.ones(SHAPE, bool)
    header = fits.Header({"NCOMBINE": 5, "NGROUP": 5, "SMOOTH": 3.0})
    there = amplitude > 0 and strength < 1
    assert may_have_excess(rest, free, sky, 160, noise, header) == there
    own = pattern_noise(noise, header)
    excess = fringe_excess(rest, free, fringe_pattern(sky, 160), *own, sure=True)
    expected = strength - 1 if amplitude else 0
    # 480 x 480 pixels' noise over the pattern's power.
    error = noise / 480 / (amplitude / np.sqrt(2)) if amplitude else 0
    assert excess == pytest.approx(expected, abs=4 * error)


def test_noise_of_few_frames_is_no_fringe(tmp_path):
    camera = Camera(frames=4, structure=0.0)
    sky = sky_from_frames(camera.write(tmp_path))
    frame = camera.frame(0)
    after = skysub_frame(frame, sky.of(frame.header["FRAME"]), 1, fringe_scale=128)
    assert after.header["FRINGE"] == 1
