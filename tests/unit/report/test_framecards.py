"""What the page shows of single frames."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts
from smallnight import SHAPE, put

from lib.calibration.detector import assemble
from lib.report import framecards, outcomes, page, pictures


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("overscan", [None, [0, 90, 150, 170], [90, 100, 10, 150]])
def test_quick_look_at_a_raw_frame_is_what_assembling_gives(tmp_path, overscan, flip):
    rng = np.random.default_rng(6)
    raw = rng.normal(1000, 10, (100, 170)) + 3 * np.arange(100)[:, None] + np.arange(170)
    fits.PrimaryHDU(raw.astype(np.uint16)).writeto(tmp_path / "2.fits")
    amplifier = {
        "hdu": 0, "data": [4, 88, 10, 150], "overscan": overscan, "flip": flip, "origin": [0, 0],
    }  # fmt: skip
    facts = made_facts(shape=[84, 140], amplifiers=[amplifier])
    small = framecards.quick_look(tmp_path / "2.fits", facts, 20)
    image = assemble(tmp_path / "2.fits", facts).ccd.data
    if flip == (False, False):
        expected = pictures.block_mean(image, 7)
    else:
        # The blocks begin at the first pixel read, whatever side it is on.
        turned = image[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
        expected = pictures.block_mean(turned, 7)[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
    assert small.shape == (12, 20)
    # Of a stored image the zero point is not told; sums of 49 numbers of 30,000 in float32.
    np.testing.assert_allclose(small - small.mean(), expected - expected.mean(), atol=0.1)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
@pytest.mark.parametrize("size", [3000, 20000])
def test_quick_look_leaves_broken_files_to_others(tmp_path, size):
    fits.PrimaryHDU(np.zeros((100, 170), np.uint16)).writeto(tmp_path / "2.fits")
    words = (tmp_path / "2.fits").read_bytes()
    (tmp_path / "2.fits").write_bytes(words[:size])
    amplifier = {"hdu": 0, "data": [0, 100, 0, 170], "overscan": None, "origin": [0, 0]}
    facts = made_facts(shape=[100, 170], amplifiers=[amplifier])
    assert framecards.quick_look(tmp_path / "2.fits", facts, 20) is None
    assert "TRUNCATED" in framecards.raw_picture(tmp_path / "2.fits", facts, 20)["why"]


def test_pointing_offset_is_the_distance_on_the_sky():
    cards = {
        "ASTRCAT": "GaiaDR3", "CRVAL1": 150.0 + 30 / 3600 / np.cos(np.radians(60)), "CRVAL2": 60.0,
        "CRPIX1": 40.5, "CRPIX2": 32.5, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4,
    }  # fmt: skip
    facts = made_facts(ra=150.0, dec=60.0, shape=SHAPE)
    assert framecards.pointing_offset(cards, facts) == pytest.approx(30, abs=0.01)
    assert framecards.pointing_offset(cards | {"ASTRCAT": "NONE"}, facts) is None
    assert framecards.pointing_offset(cards, replace(facts, ra=None)) is None


def test_sky_brightness_from_counts_and_zero_point():
    outcome = outcomes.Outcome("f", cards={"SKYCTS": 900.0, "PIXSCALE": 0.5})
    outcome.quality = {"zeropoint": 25.0, "zeropoint_absolute": True, "noise": 30.0, "fwhm": 4.0}
    found = framecards.frame_numbers(outcome, made_facts(exptime=90.0, airmass=29.0, shape=SHAPE))
    assert found.sky == pytest.approx(10.0)
    # 10 electrons a second in 0.25 square arcsec are 40 in one.
    assert found.skymag == pytest.approx(25 - 2.5 * np.log10(40))
    assert found.airmass is None, "an impossible airmass is shown"
    outcome.quality["zeropoint_absolute"] = False
    assert framecards.frame_numbers(outcome, made_facts(exptime=90.0)).skymag is None


def test_pictures_are_made_again_only_for_frames_that_changed(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    config = {"datadir": "none"}
    page.make_page(night, config, imdir)
    made = []
    original = framecards.make_card
    monkeypatch.setattr(
        framecards, "make_card", lambda job: made.append(job.frame) or original(job)
    )
    page.make_page(night, config, imdir)
    assert made == []
    put(imdir, f"azsfp{good[1]}.fits", good[1], seed=9, NOTE="new")
    page.make_page(night, config, imdir)
    assert made == [good[1]]
