import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.calibration.bias import make_bias
from lib.calibration.dark import make_dark
from lib.calibration.detector import assemble
from lib.calibration.flat import make_flat
from lib.calibration.overscan import overscan_level
from lib.calibration.prepare import prepare_frame
from lib.frame.file import BAD, NODATA, NONLINEAR, SATURATED, FrameRejected

GAIN, NOISE, PEDESTAL = 1.8, 6.0, 400.0
SHAPE = (120, 150)


def facts_of(frame, exptime=10.0, shape=SHAPE, **changes):
    amplifier = {"hdu": 0, "data": [0, shape[0], 0, shape[1]], "overscan": None, "origin": [0, 0]}
    return made_facts(
        **{
            "frame": frame,
            "shape": list(shape),
            "amplifiers": [amplifier],
            "gain": GAIN,
            "rdnoise": NOISE,
            "saturate": 60000,
            "linear": None,
            "exptime": exptime,
            "instrument": "test",
            "camera": "C0",
            "object": "M 1",
            "target": "M_1",
            "filter": "r",
            "band": "r",
            "calibrations": {},
        }
        | changes
    )


class Camera:
    """A made-up CCD that knows its own truth."""

    def __init__(self, folder, seed=1):
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.bias = PEDESTAL + 5 * np.sin(np.arange(SHAPE[1]) / 9)[None, :] * np.ones(SHAPE)
        self.dark = self.rng.gamma(2, 0.05, SHAPE)
        self.dark[30, 40] = 300.0
        self.flat = self.rng.normal(1, 0.01, SHAPE) * np.linspace(0.9, 1.1, SHAPE[1])
        self.flat[:5] = 0.1
        self.flat /= np.median(self.flat)

    def expose(self, name, exptime, light=0.0, dark=True, level=0.0):
        """Write a raw frame of `light` electrons per second and pixel, and return its path."""
        mean = light * self.flat * exptime + (self.dark * exptime if dark else 0)
        electrons = self.rng.poisson(mean) + self.rng.normal(0, NOISE, SHAPE)
        raw = np.clip(electrons / GAIN + self.bias + level, 0, 65535)
        path = self.folder / f"{name}.fits"
        fits.PrimaryHDU(raw.round().astype(np.uint16)).writeto(path)
        return path


@pytest.fixture
def camera(tmp_path):
    return Camera(tmp_path)


def make_masters(camera, n=5):
    biases = [camera.expose(f"b{i}", 0.0, dark=False) for i in range(n)]
    darks = [camera.expose(f"d{i}", 60.0) for i in range(n)]
    flats = [camera.expose(f"f{i}", 5.0, 8000.0, dark=False) for i in range(n)]
    bias = make_bias(biases, [facts_of(f"b{i}", 0.0) for i in range(n)])
    dark = make_dark(darks, [facts_of(f"d{i}", 60.0) for i in range(n)], bias)
    flat = make_flat(flats, [facts_of(f"f{i}", 5.0) for i in range(n)], bias)
    return bias, dark, flat


def test_masters_are_the_truth_within_their_noise(camera):
    bias, dark, flat = make_masters(camera)
    read = np.hypot(NOISE / GAIN, 0.29)
    error = bias.image - camera.bias
    assert abs(error.mean()) < 0.5  # rounding to whole DN
    assert error.std() == pytest.approx(read / np.sqrt(5), rel=0.1)
    # From 4 differences of 18,000 pixels: known to 0.5 %.
    assert bias.header["RDNOISE1"] == pytest.approx(read, rel=0.02)
    assert bias.header["NCOMBINE"] == 5

    good = dark.mask == 0
    error = (dark.image - camera.dark / GAIN)[good]
    noise = np.sqrt(read**2 * 2 / 5 + 0.1 * 60 / GAIN**2 / 5) / 60
    assert abs(error.mean()) < 3 * noise
    assert error.std() < 1.2 * noise
    assert dark.mask[30, 40] & BAD and (dark.mask & BAD).astype(bool).sum() < 20

    bright = flat.mask == 0
    assert bright[7:].mean() > 0.999
    assert np.median(flat.image[bright]) == pytest.approx(1, abs=1e-3)
    truth = camera.flat / np.median(camera.flat[5:])
    photons = 1 / np.sqrt(8000 * 5 * 5)
    assert (flat.image / truth - 1)[bright].std() < 1.3 * photons
    # Two rows more than are dark, because the edge moves.
    assert (flat.mask[:7] & NODATA).all() and not (flat.mask[7:] & NODATA).any()
    assert flat.header["ILLUM"] == "[7:120,0:150]"


def test_prepared_frame_is_the_light_that_fell(camera):
    bias, dark, _ = make_masters(camera)
    path = camera.expose("o", 30.0, light=50.0)
    frame = prepare_frame(path, facts_of("o", 30.0), bias, dark)
    light = 50.0 * camera.flat * 30
    pull = (frame.image - light) / np.sqrt(light + camera.dark * 30 + NOISE**2)
    good = frame.mask == 0
    assert abs(pull[good].mean()) < 0.1
    # The masters of five frames add a fifth of the read noise and dark noise, squared.
    assert pull[good].std() == pytest.approx(1, abs=0.05)
    assert frame.header["BUNIT"] == "electron" and frame.header["GAIN"] == 1
    expected = (60000 - PEDESTAL) * GAIN
    assert frame.header["SATURATE"] == pytest.approx(expected, rel=0.01)


def test_read_noise_is_that_of_the_biases(camera):
    """What the header says counts where there are no biases in whose differences to see it."""
    camera.bias = camera.bias + np.random.default_rng(3).normal(0, 5, camera.bias.shape)
    bias, dark, _ = make_masters(camera)
    path = camera.expose("o", 30.0, light=50.0)
    facts = facts_of("o", 30.0, rdnoise=3 * NOISE)
    read = np.hypot(NOISE, 0.29 * GAIN)
    frame = prepare_frame(path, facts, bias, dark)
    assert frame.header["RDNOISE"] == pytest.approx(read, rel=0.02)
    assert prepare_frame(path, facts, None, dark).header["RDNOISE"] == 3 * NOISE
    one = camera.expose("one", 0.0, dark=False)
    lone = make_bias([one], [facts_of("one", 0.0)])
    assert prepare_frame(path, facts, lone, dark).header["RDNOISE"] == 3 * NOISE


def test_dark_without_bias_serves_its_own_exposure(camera):
    darks = [camera.expose(f"d{i}", 30.0) for i in range(5)]
    dark = make_dark(darks, [facts_of(f"d{i}", 30.0) for i in range(5)])
    assert dark.header["BUNIT"] == "adu"
    path = camera.expose("o", 30.0, light=50.0)
    frame = prepare_frame(path, facts_of("o", 30.0), None, dark)
    good = frame.mask == 0
    light = 50.0 * camera.flat * 30
    assert abs((frame.image - light)[good].mean()) < 1.0


def test_a_bias_apart_from_its_siblings_is_left_out(camera):
    paths = [camera.expose(f"b{i}", 0.0, dark=False) for i in range(4)]
    paths.append(camera.expose("b4", 0.0, dark=False, level=200))
    bias = make_bias(paths, [facts_of(f"b{i}", 0.0) for i in range(5)])
    assert bias.header["NCOMBINE"] == 4
    assert bias.header["LEFT1"].startswith("b4 LEVEL")


def test_flats_that_are_too_faint_saturated_or_tilted_are_left_out(camera):
    bias, _, _ = make_masters(camera)
    paths = [camera.expose(f"g{i}", 5.0, 8000.0, dark=False) for i in range(3)]
    paths.append(camera.expose("faint", 5.0, 100.0, dark=False))
    paths.append(camera.expose("bright", 5.0, 30000.0, dark=False))
    camera.flat = camera.flat * np.linspace(0.7, 1.3, SHAPE[0])[:, None]
    paths.append(camera.expose("tilted", 5.0, 8000.0, dark=False))
    flat = make_flat(paths, [facts_of(path.stem, 5.0) for path in paths], bias)
    left = [flat.header[f"LEFT{n}"] for n in range(1, flat.header["NLEFTOUT"] + 1)]
    assert [line.split(":")[0] for line in left] == [
        "faint LEVEL",
        "bright SATURATED",
        "tilted GRADIENT",
    ]


def test_a_tilted_flat_is_left_out_where_pixels_of_all_are_saturated(camera):
    bias, _, _ = make_masters(camera)
    level = camera.flat
    paths = [camera.expose(f"g{i}", 5.0, 8000.0, dark=False) for i in range(3)]
    camera.flat = level * np.linspace(0.7, 1.3, SHAPE[0])[:, None]
    paths.append(camera.expose("tilted", 5.0, 8000.0, dark=False))
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[::30, ::30] = 65535
    flat = make_flat(paths, [facts_of(path.stem, 5.0) for path in paths], bias)
    assert flat.header["LEFT1"].startswith("tilted GRADIENT")


def test_an_all_saturated_flat_set_is_a_rejected_master(camera):
    paths = [camera.expose(f"s{i}", 5.0, 1e5, dark=False) for i in range(3)]
    flat = make_flat(paths, [facts_of(path.stem, 5.0) for path in paths])
    assert flat.rejected and flat.reason.startswith("NO_GOOD_INPUT: 0 < 1 of 3")
    assert flat.header["LEFT2"].startswith("s1 SATURATED")


def test_master_of_another_shape_rejects_the_frame(camera):
    bias, _, _ = make_masters(camera)
    bias.image = bias.image[:-1]
    with pytest.raises(FrameRejected, match="BIAS_SHAPE"):
        prepare_frame(camera.expose("o", 3.0, 10), facts_of("o", 3.0), bias)


def test_read_noise_of_the_biases_is_told_where_the_header_has_another(camera):
    paths = [camera.expose(f"n{i}", 0.0, dark=False) for i in range(3)]
    told = make_bias(paths, [facts_of(path.stem, 0.0, rdnoise=15.0) for path in paths])
    assert told.header["NOTE1"].startswith("read noise: 6") and "15" in told.header["NOTE1"]
    same = make_bias(paths, [facts_of(path.stem, 0.0, rdnoise=NOISE) for path in paths])
    assert "NOTE1" not in same.header


def test_biases_cut_off_at_zero_are_told_and_tell_no_read_noise(camera):
    paths = [camera.expose(f"z{i}", 0.0, dark=False, level=1 - PEDESTAL) for i in range(3)]
    bias = make_bias(paths, [facts_of(path.stem, 0.0) for path in paths])
    assert "RDNOISE1" not in bias.header and "offset" in bias.header["NOTE1"]


def test_bias_that_has_been_subtracted_before_is_not_subtracted_again(camera):
    bias, _, _ = make_masters(camera)
    path = camera.expose("o", 30.0, 2.0, level=-PEDESTAL)
    frame = prepare_frame(path, facts_of("o", 30.0), bias)
    expected = np.median(camera.flat * 2.0 * 30.0)
    assert np.median(frame.image) == pytest.approx(expected, abs=8)  # the shape of the bias stays
    assert "bias not subtracted" in frame.header["NOTE1"]
    frame = prepare_frame(camera.expose("u", 30.0, 2.0), facts_of("u", 30.0), bias)
    assert "NOTE1" not in frame.header


def test_saturation_is_grown_by_a_pixel_and_nonlinear_is_marked(tmp_path):
    raw = np.full((9, 9), 100, np.uint16)
    raw[4, 4] = 60000
    raw[0, 0] = 50000
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    ccd = assemble(tmp_path / "r.fits", facts_of("r", shape=(9, 9), linear=45000)).ccd
    saturated = np.zeros((9, 9), bool)
    saturated[3:6, 3:6] = True
    np.testing.assert_array_equal(ccd.flags & SATURATED > 0, saturated)
    assert ccd.flags[0, 0] == NONLINEAR


def test_a_column_at_the_top_in_the_bias_too_is_a_defect_and_no_star(tmp_path):
    raw = np.full((30, 40), 100, np.uint16)
    raw[:, 20] = 65535
    raw[10:14, 18:23] = 62000
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    facts = facts_of("r", shape=raw.shape)
    flags = assemble(tmp_path / "r.fits", facts).ccd.flags
    assert np.all(flags[:, 19:22] & SATURATED)
    defects = np.zeros(raw.shape, bool)
    defects[:, 20] = True
    flags = assemble(tmp_path / "r.fits", facts, defects).ccd.flags
    saturated = np.zeros(raw.shape, bool)
    saturated[9:15, 17:24] = True
    np.testing.assert_array_equal(flags & SATURATED > 0, saturated)
    # With what runs over into the columns beside it.
    assert np.all(flags[:, 19:22] & BAD) and not np.any(flags[:, :19] & BAD)


def test_pixels_that_are_no_numbers_become_bad(tmp_path):
    raw = np.full((9, 9), 100, np.float32)
    raw[2, 3], raw[5, 5] = np.nan, np.inf
    fits.PrimaryHDU(raw).writeto(tmp_path / "r.fits")
    ccd = assemble(tmp_path / "r.fits", facts_of("r", shape=(9, 9))).ccd
    assert np.isfinite(ccd.data).all()
    assert ccd.flags[2, 3] & BAD and ccd.flags[5, 5] & BAD and (ccd.flags > 0).sum() >= 2


@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_constant_and_unreadable_frames_are_rejected(tmp_path):
    fits.PrimaryHDU(np.full((9, 9), 7, np.int16)).writeto(tmp_path / "c.fits")
    with pytest.raises(FrameRejected, match="CONSTANT"):
        prepare_frame(tmp_path / "c.fits", facts_of("c", shape=(9, 9)))
    (tmp_path / "x.fits").write_bytes(b"SIMPLE  =                    T" + b" " * 3000)
    with pytest.raises(FrameRejected, match="BAD_HEADER"):
        prepare_frame(tmp_path / "x.fits", facts_of("x", shape=(9, 9)))


def test_overscan_follows_a_drift_and_ignores_a_cosmic_ray():
    rng = np.random.default_rng(5)
    drift = 300 + 20 * np.sin(np.arange(400) / 80)
    raw = drift[:, None] + rng.normal(0, 4, (400, 60))
    raw[100, 2:6] += 3000
    level = overscan_level(raw, [0, 400, 0, 12], [0, 400, 12, 60])
    assert level.shape == (400, 1)
    # Row medians of 12 pixels, smoothed over some 50 rows, know the level to 0.2 DN.
    assert np.abs(level[:, 0] - drift).max() < 1.0


@pytest.mark.parametrize("rows", [(20, 400), (0, 380), (20, 380)])
@pytest.mark.parametrize("turned", [False, True])
def test_overscan_that_does_not_span_the_frame_is_followed(rows, turned):
    rng = np.random.default_rng(2)
    bias = 1000 + 20 * np.sin(np.arange(400) / 60)[:, None]
    raw = np.hstack([np.full((400, 50), 3000.0) + bias - 1000, bias + rng.normal(0, 4, (400, 32))])
    overscan, data = [*rows, 50, 82], [0, 400, 0, 50]
    if turned:
        raw, overscan, data = raw.T, overscan[2:] + overscan[:2], data[2:] + data[:2]
    level = overscan_level(raw, overscan, data)
    assert level.shape == ((1, 400) if turned else (400, 1))
    wrong = level.ravel() - bias[:, 0]
    # Noise of a row 4 * 1.25 / sqrt(32) = 0.9 DN; the sine bends by 2 DN within 20 rows.
    assert np.std(wrong[rows[0] : rows[1]]) < 0.5
    assert np.abs(wrong).max() < 4


def test_overscan_in_a_corner_tells_one_level():
    raw = np.full((100, 80), 500.0)
    raw[90:, 60:] = 300.0
    level = overscan_level(raw, [90, 100, 60, 80], [0, 90, 0, 60])
    assert (level == 300.0).all()


def test_amplifiers_are_joined_with_their_own_gain(tmp_path):
    rng = np.random.default_rng(6)
    light = 1000 * np.ones((40, 50))
    gains, levels = (1.5, 2.5), (200, 900)
    hdus = [fits.PrimaryHDU()]
    for gain, level in zip(gains, levels, strict=True):
        pixels = light[:, :25] / gain + level
        overscan = level + rng.normal(0, 1, (40, 6))
        hdus.append(fits.ImageHDU(np.hstack([pixels, overscan]).astype(np.float32)))
    hdus[2].data = hdus[2].data[:, ::-1]
    fits.HDUList(hdus).writeto(tmp_path / "m.fits")
    amplifiers = [
        {"hdu": 1, "data": [0, 40, 0, 25], "overscan": [0, 40, 25, 31], "origin": [0, 0]},
        {
            "hdu": 2,
            "data": [0, 40, 6, 31],
            "overscan": [0, 40, 0, 6],
            "origin": [0, 25],
            "flip": [False, True],
        },
    ]
    for amplifier, gain in zip(amplifiers, gains, strict=True):
        amplifier["gain"] = gain
    facts = facts_of("m", shape=(40, 50), amplifiers=amplifiers)
    rng_light = np.ones((40, 50))
    rng_light[3, 3] = 0
    frame = prepare_frame(tmp_path / "m.fits", facts)
    np.testing.assert_allclose(frame.image, 1000, atol=3 * 2.5 * 1.25 / np.sqrt(6))
