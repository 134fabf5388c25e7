"""How far the large scales of a flat are trusted."""

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.calibration.flatlight import compare_light, note_pedestal, pedestal_bound
from lib.frame.file import Frame, FrameRejected, reject

SHAPE = (128, 128)
GAIN, RDNOISE = 1.6, 6.0


def vignetting(depth):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    shape = 1 - depth * ((x - 64) ** 2 + (y - 64) ** 2) / (2 * 64**2)
    return shape / np.median(shape)


def raw_flats(folder, pedestal, light, depth=0.5):
    """Write two raw flats, return their paths and facts."""
    rng = np.random.default_rng(3)
    paths = []
    for k in range(2):
        electrons = rng.poisson(light * GAIN * vignetting(depth)) + rng.normal(0, RDNOISE, SHAPE)
        path = folder / f"{k}.fits"
        fits.writeto(path, np.rint(electrons / GAIN + pedestal).astype(np.uint16))
        paths.append(path)
    amplifier = {"hdu": 0, "data": [0, 128, 0, 128], "gain": GAIN, "rdnoise": RDNOISE}
    facts = made_facts(type="flat", shape=list(SHAPE), gain=GAIN, rdnoise=RDNOISE,
                       amplifiers=[amplifier])  # fmt: skip
    return paths, [facts, facts]


@pytest.mark.parametrize(("pedestal", "light"), [(3000, 20000), (1000, 6000), (0, 20000)])
def test_photons_tell_how_much_is_pedestal(tmp_path, pedestal, light):
    bound, level = pedestal_bound(*raw_flats(tmp_path, pedestal, light))
    assert level == pytest.approx(light + pedestal, rel=0.02)
    # The noise of 16,384 pixels is known to 0.8 %, their light so to 1.6 %; the gain to 5 %.
    assert pedestal - 0.02 * light < bound < pedestal + 0.1 * light


def test_the_error_of_a_flat_covers_its_pedestal(tmp_path):
    paths, facts = raw_flats(tmp_path, 3000, 20000)
    truth = vignetting(0.5)
    made = (20000 * truth + 3000) / 23000
    flat = Frame(made.astype(np.float32), np.zeros(SHAPE, np.uint8))
    note_pedestal(flat, paths, facts)
    ratio = made / truth
    wrong = np.std(ratio / np.median(ratio))
    assert wrong > 0.01
    assert 0.9 * wrong < flat.header["FLATERR"] < 2 * wrong
    assert "may be pedestal" in flat.header["NOTE1"]


def test_overscan_takes_the_pedestal_away(tmp_path):
    paths, facts = raw_flats(tmp_path, 0, 20000)
    facts[0].amplifiers[0].overscan = [0, 128, 100, 128]
    flat = Frame(np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.uint8))
    note_pedestal(flat, paths, facts)
    assert "FLATERR" not in flat.header and "NOTE1" not in flat.header


def frame_of(image):
    return Frame(image.astype(np.float32), np.zeros(SHAPE, np.uint8))


def test_flats_of_other_light_are_compared():
    rng = np.random.default_rng(1)
    sky = vignetting(0.3) * rng.normal(1, 0.005, SHAPE)
    gradient = 1 + 0.05 * np.linspace(-1, 1, 128)[None, :]
    same = compare_light(frame_of(sky), frame_of(sky * rng.normal(1, 0.005, SHAPE)), "sky", "dome")
    assert "NOTE1" not in same.header and same.header["FLATDIFF"] < 0.002
    other = compare_light(frame_of(sky), frame_of(sky * gradient), "sky", "dome")
    assert other.header["FLATDIFF"] == pytest.approx(0.029, abs=0.003)
    assert "off the dome flats by 2." in other.header["NOTE1"]
    np.testing.assert_array_equal(other.image, sky.astype(np.float32))


def test_dome_flats_take_the_place_of_bad_sky_flats():
    lost = reject(fits.Header(), "flat", FrameRejected("NO_GOOD_INPUT", "0 < 1 of 4"))
    dome = frame_of(np.ones(SHAPE))
    used = compare_light(lost, dome, "sky", "dome")
    assert used.image is dome.image and "NO_GOOD_INPUT" in used.header["NOTE1"]
    assert compare_light(dome, lost, "sky", "dome") is dome
