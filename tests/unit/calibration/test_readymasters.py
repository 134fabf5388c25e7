"""Masters of others: with or without their bias, of any level."""

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.calibration.corrections import subtract_bias_and_dark
from lib.calibration.readymasters import read_dark, read_flat, read_masters
from lib.frame.file import Frame, FrameRejected

SHAPE = (60, 80)


@pytest.fixture
def bias():
    rng = np.random.default_rng(4)
    image = 1000 + rng.normal(0, 2, 80)[None, :] + rng.normal(0, 0.5, SHAPE)
    return Frame(image.astype(np.float32), np.zeros(SHAPE, np.uint8))


def put(path, pixels, **cards):
    fits.writeto(path, pixels.astype(np.float32), fits.Header(cards), overwrite=True)
    return path


@pytest.mark.parametrize("rate", [0.02, 5.0, 40.0])  # the last: as high as the bias in 60 s
@pytest.mark.parametrize("subtracted", [True, False])
def test_a_dark_is_told_by_its_pixels(tmp_path, bias, rate, subtracted):
    rng = np.random.default_rng(5)
    pixels = 60 * rate + rng.normal(0, 1, SHAPE) + (0 if subtracted else bias.image)
    path = put(tmp_path / "dark-C0.fits", pixels, EXPTIME=60.0)
    dark = read_dark(path, bias)
    assert dark.header["BUNIT"] == ("adu/s" if subtracted else "adu")
    assert "measured" in dark.header["NOTE1"]
    frame = Frame(bias.image + np.float32(30 * rate), np.zeros(SHAPE, np.uint8)).to_ccddata()
    frame.unit = "adu"
    left = subtract_bias_and_dark(frame, 30.0, bias, dark)
    assert np.median(left.data) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    "cards",
    [{"CALSTAT": "BM"}, {"ZEROCOR": "Mar 1"}, {"BIASSUB": True}, {"BUNIT": "DN/s"}],
)
def test_a_dark_is_told_by_its_header(tmp_path, bias, cards):
    pixels = np.full(SHAPE, 3.0)
    dark = read_dark(put(tmp_path / "d.fits", pixels, EXPTIME=60.0, **cards), bias)
    assert dark.header["BUNIT"] == "adu/s"
    assert np.median(dark.image) == pytest.approx(3.0 if "BUNIT" in cards else 0.05)


@pytest.mark.parametrize(
    ("unit", "of_frames"),
    [("electron", ""), ("e-/s", ""), ("adu", "electron"), ("", "electron"), ("K", ""), ("mJy", "")],
)
def test_a_dark_in_other_units_is_refused(tmp_path, unit, of_frames):
    path = put(tmp_path / "d.fits", np.ones(SHAPE), EXPTIME=60.0, BUNIT=unit)
    with pytest.raises(FrameRejected, match="DARK_UNIT"):
        read_dark(path, unit=of_frames)


@pytest.mark.parametrize("unit", ["electron/s", "ELECTRONS/SEC", "e- s-1"])
def test_a_dark_in_electrons_serves_frames_in_electrons(tmp_path, unit):
    path = put(tmp_path / "d.fits", np.full(SHAPE, 0.5), BUNIT=unit)
    dark = read_dark(path, unit="electron")
    assert dark.header["BUNIT"] == "adu/s" and np.median(dark.image) == 0.5


def facts_with(overscan, shape=SHAPE):
    amplifier = {"hdu": 0, "data": [0, shape[0], 0, shape[1]], "overscan": overscan}
    return made_facts(amplifiers=[amplifier], shape=list(shape))


STRUCTURE = np.random.default_rng(4).normal(0, 2, 80)[None, :] * np.ones(SHAPE)


@pytest.mark.parametrize(
    ("level", "overscan", "used", "told"),
    [
        (1000.0, None, 1000.0, ""),
        (0.2, [0, 60, 80, 90], 0.2, ""),
        (1000.0, [0, 60, 80, 90], 0.0, "it holds its level of 1000 DN"),
        (0.2, None, None, "frames without overscan keep theirs"),
    ],
)
def test_a_ready_bias_with_and_without_its_level(tmp_path, level, overscan, used, told):
    noise = np.random.default_rng(5).normal(0, 0.5, SHAPE)
    path = put(tmp_path / "bias-C0.fits", level + STRUCTURE + noise)
    masters, notes = read_masters({"bias": path}, facts_with(overscan))
    assert [told in note for note in notes] == ([True] if told else [])
    if used is None:
        assert masters["bias"] is None
        return
    image = masters["bias"].image
    assert np.median(image) == pytest.approx(used, abs=0.3)
    # Its columns stay, whatever its level.
    assert np.std(image - STRUCTURE) == pytest.approx(0.5, rel=0.1)


def test_each_amplifier_of_a_ready_bias_loses_its_own_level(tmp_path):
    image = np.full(SHAPE, 500.0)
    image[:, 40:] = 900.0
    path = put(tmp_path / "bias-C0.fits", image + np.random.default_rng(5).normal(0, 1, SHAPE))
    amplifiers = [
        {"hdu": 0, "data": [0, 60, 0, 40], "overscan": [0, 60, 80, 90]},
        {"hdu": 0, "data": [0, 60, 40, 80], "overscan": [0, 60, 90, 99], "origin": [0, 40]},
    ]
    facts = made_facts(amplifiers=amplifiers, shape=list(SHAPE))
    masters, notes = read_masters({"bias": path}, facts)
    halves = masters["bias"].image[:, :40], masters["bias"].image[:, 40:]
    assert [abs(np.median(half)) < 0.2 for half in halves] == [True, True] and len(notes) == 1


@pytest.mark.parametrize("overscan", [None, [0, 60, 80, 90]])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_ready_dark_that_holds_its_bias_is_subtracted_once(tmp_path, overscan, with_bias):
    """Frames with overscan have lost the level of 1000 DN before; 60 s of 2 DN/s are subtracted."""
    rng = np.random.default_rng(6)
    paths = {"dark": put(
        tmp_path / "d.fits", 1120 + STRUCTURE + rng.normal(0, 1, SHAPE), EXPTIME=60.0
    )}  # fmt: skip
    if with_bias:
        paths["bias"] = put(tmp_path / "b.fits", 1000 + STRUCTURE + rng.normal(0, 1, SHAPE))
    facts = facts_with(overscan)
    masters, notes = read_masters(paths, facts)
    light = (0 if overscan else 1000) + STRUCTURE + 120 + 300
    frame = Frame(light.astype(np.float32), np.zeros(SHAPE, np.uint8)).to_ccddata()
    frame.unit = "adu"
    left = subtract_bias_and_dark(frame, 60.0, masters["bias"], masters["dark"])
    # Without a bias the level of the dark current cannot be told from that of the bias.
    light = 420 if overscan and not with_bias else 300
    assert np.median(left.data) == pytest.approx(light, abs=0.5)
    assert np.std(left.data) < 2
    assert bool(notes) == (overscan is not None)


def test_a_flat_in_counts_that_may_hold_its_bias(tmp_path):
    """A flat of 20000 counts with 1000 DN of bias in it: its error is that of the missing 5 %."""
    true = 1 + 0.2 * np.linspace(-1, 1, 80)[None, :] * np.ones(SHAPE)
    pixels = 19000 * true + 1000
    plain, notes = read_flat(put(tmp_path / "flat_V.fits", pixels), pedestal=1000.0)
    wrong = plain.image / true
    block_error = np.std(wrong / np.median(wrong))
    assert plain.header["FLATERR"] == pytest.approx(block_error, rel=0.15)
    assert "does not say that its bias is subtracted" in notes[0]
    told, notes = read_flat(put(tmp_path / "flat_V.fits", pixels, CALSTAT="BD"), pedestal=1000.0)
    assert "FLATERR" not in told.header and notes == []
    unknown, notes = read_flat(put(tmp_path / "flat_V.fits", pixels))
    assert "FLATERR" not in unknown.header and len(notes) == 1
    unity, notes = read_flat(put(tmp_path / "flat_V.fits", true), pedestal=1000.0)
    assert "FLATERR" not in unity.header and notes == []


def test_a_flat_in_counts_is_brought_to_one(tmp_path):
    response = 1 + 0.1 * np.linspace(-1, 1, 80)[None, :] * np.ones(SHAPE)
    flat, _ = read_flat(put(tmp_path / "flat_V.fits", 30000 * response))
    np.testing.assert_allclose(flat.image, response / np.median(response), rtol=1e-5)
    with pytest.raises(FrameRejected, match="BAD_FLAT"):
        read_flat(put(tmp_path / "flat_V.fits", np.zeros(SHAPE)))
