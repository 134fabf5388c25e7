"""What belongs together: calibrations of one setting, light of flats, dark flats."""

import numpy as np
import pytest
from astropy.io import fits
from framefacts import made_facts

from lib.night import nightlog
from lib.night.frameignored import FrameIgnored
from lib.night.grouping import group_calibrations
from lib.night.instrumentfile import load_instrument
from lib.night.interpret import interpret
from lib.night.rawheaders import RawHDU

HEADER = {
    "IMAGETYP": "Light", "EXPTIME": 60.0, "DATE-OBS": "2024-03-01T03:00:00", "FILTER": "V",
    "GAIN": 1.5, "RDNOISE": 5.0, "OBJECT": "M 1",
}  # fmt: skip


def read(**changes):
    """Return the facts that the generic instrument reads from a header."""
    header = HEADER | changes
    (facts,) = interpret(
        header, [RawHDU(0, header, [20, 30])], "a.fits", load_instrument("generic")
    )
    return facts


@pytest.fixture
def night(tmp_path):
    """Return the function that gives the night log of some headers, each of its own second."""

    def scan(*headers):
        for old in tmp_path.iterdir():
            old.unlink()
        for k, changes in enumerate(headers):
            cards = HEADER | {"DATE-OBS": f"2024-03-01T03:00:{k:02d}"} | changes
            header = fits.Header(
                [(key, value) for key, value in cards.items() if value is not None]
            )
            pixels = np.full((20, 30), k, np.int16)
            fits.PrimaryHDU(pixels, header).writeto(tmp_path / f"{k}.fits", overwrite=True)
        return nightlog.scan(tmp_path, "generic")

    return scan


@pytest.mark.parametrize(
    "word",
    [
        "DARKFLAT",
        "Dark Flat",
        "FLATDARK",
        "Flat Dark Frame",
        "flat-dark",
        "Dark Flats",
        "Dark (flat)",
    ],
)
def test_dark_flats_are_darks(word):
    assert read(IMAGETYP=word).type == "dark"
    assert read(IMAGETYP="FLAT", OBJECT=word).type == "dark"


@pytest.mark.parametrize(
    ("cards", "source"),
    [
        ({"IMAGETYP": "SKYFLAT"}, "sky"), ({"IMAGETYP": "twilight"}, "sky"),
        ({"IMAGETYP": "DOMEFLAT"}, "dome"), ({"IMAGETYP": "FLAT", "OBJECT": "Dome V"}, "dome"),
        ({"IMAGETYP": "FLAT", "OBJECT": "Twilight"}, "sky"), ({"IMAGETYP": "Flat Frame"}, ""),
    ],
)  # fmt: skip
def test_light_of_flats(cards, source):
    facts = read(**cards)
    assert (facts.type, facts.source) == ("flat", source)


@pytest.mark.parametrize("word", ["flat lamp off", "DOME LAMP OFF", "Flat Off", "off lamp"])
def test_a_flat_without_light_is_none(word):
    with pytest.raises(FrameIgnored, match="lamp off"):
        read(IMAGETYP="Flat", OBJECT=word)


def test_biases_of_another_setting_are_not_used(night):
    log = night(
        {"IMAGETYP": "Bias", "EXPTIME": 0.0, "GAIN": 2.0, "OFFSET": 20},
        {"IMAGETYP": "Bias", "EXPTIME": 0.0, "GAIN": 0.5, "OFFSET": 20},
        {"GAIN": 0.5, "OFFSET": 50},
        {"GAIN": 2.0, "OFFSET": 20},
        {"GAIN": 0.5},
    )
    assert list(log.biases) == ["bias-C0-gain0p5", "bias-C0-gain2"]
    other, same, unknown = (log.match(frame) for frame in log.science)
    assert other.bias is None
    assert other.notes["bias"] == (
        "none of 2 fits; bias-C0-gain0p5: offset 20, not 50; "
        "bias-C0-gain2: gain setting 2, not 0.5, offset 20, not 50"
    )
    assert same.bias == "bias-C0-gain2"
    assert unknown.bias == "bias-C0-gain0p5"


def test_a_frame_without_the_keyword_takes_what_there_is(night):
    log = night(
        {"IMAGETYP": "Bias", "EXPTIME": 0.0, "GAIN": None, "EGAIN": None, "CCDSENS": 1.5}, {}
    )
    assert log.match(log.science[0]).bias == "bias-C0"


def test_flats_serve_frames_of_another_setting(night):
    """The response of the pixels is the same; flats of the same setting come first."""
    flat = {"IMAGETYP": "Flat", "EXPTIME": 3.0}
    log = night(flat | {"GAIN": 2.0}, flat | {"GAIN": 0.5, "CCD-TEMP": 10.0}, {"GAIN": 0.5},
                {"GAIN": 1.0, "CCD-TEMP": -10.0})  # fmt: skip
    assert list(log.flats) == ["flat_V-gain0p5", "flat_V-gain2"]
    assert log.match(log.science[0]).flat == "flat_V-gain0p5"
    assert log.match(log.science[1]).flat is not None


def test_sky_flats_are_preferred(night):
    log = night({"IMAGETYP": "DOMEFLAT"}, {"IMAGETYP": "Flat"}, {"IMAGETYP": "SKYFLAT"}, {})
    assert list(log.flats) == ["flat_V", "flat_V-dome", "flat_V-sky"]
    assert log.match(log.science[0]).flat == "flat_V-sky"
    log = night({"IMAGETYP": "DOMEFLAT"}, {})
    assert log.match(log.science[0]).flat == "flat_V"


def test_groups_by_setting():
    frames = [
        made_facts(type="dark", frame=f"2{k}", shape=[2, 2], gain_setting=gain, exptime=exptime)
        for k, (gain, exptime) in enumerate([("1", 60), ("100", 60), ("1", 3), ("1", 60)])
    ]
    groups = group_calibrations("dark", frames)
    assert {name: one.frames for name, one in groups.items()} == {
        "dark-C0-3s": ["22"], "dark-C0-60s-gain1": ["20", "23"], "dark-C0-60s-gain100": ["21"],
    }  # fmt: skip


def test_r_and_R_never_share_a_stack_or_a_file(night, tmp_path, monkeypatch):
    frames = [{"FILTER": "R"}, {"FILTER": "r"}, {"IMAGETYP": "Flat", "FILTER": "r"}]
    log = night(*frames)
    assert list(log.stacks) == ["M_1.R", "M_1.r"] and list(log.flats) == ["flat_r"]
    monkeypatch.setattr(nightlog, "folds_case", lambda _: True)
    log = nightlog.scan(tmp_path, "generic", cache=tmp_path / "cache.json")
    assert list(log.stacks) == ["M_1.R", "M_1.r_2"] and list(log.flats) == ["flat_r_2"]
    assert [log.frames[frame].band for frame in log.science] == ["R", "r"]
    assert any("filter r is called r_2" in note for note in log.notes)


def test_temperature_matters_where_the_camera_is_cooled(night):
    bias, dark = {"IMAGETYP": "Bias", "EXPTIME": 0.0}, {"IMAGETYP": "Dark"}
    flat = {"IMAGETYP": "Flat", "EXPTIME": 3.0}
    log = night(bias | {"CCD-TEMP": 21.0}, dark | {"CCD-TEMP": 21.0}, flat | {"CCD-TEMP": 21.0},
                {"CCD-TEMP": 9.0})  # fmt: skip
    found = log.match(log.science[0])
    assert (found.bias, found.dark, found.flat) == ("bias-C0", None, "flat_V")
    log = night(bias | {"CCD-TEMP": -10.0}, flat | {"CCD-TEMP": -10.0}, {"CCD-TEMP": -20.0})
    found = log.match(log.science[0])
    assert (found.bias, found.flat) == (None, "flat_V")
