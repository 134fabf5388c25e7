"""Orientation of solved frames, told as lines of the instrument file."""

import re

import pytest
import yaml
from framefacts import made_facts

from lib.night.wcscards import camera_matrix, wcs_cards
from lib.report.orientation import orientation_of, orientation_remarks

SHAPE = [100, 120]


def frame(flip=(False, False), binning="1x1"):
    amplifier = {"hdu": 0, "data": [0, 100, 0, 120], "flip": list(flip)}
    return made_facts(amplifiers=[amplifier], binning=binning, ra=10.0, dec=20.0, shape=SHAPE)


def cards_of(wcs, facts):
    """The first WCS that an instrument file gives to a frame."""
    matrix = camera_matrix(wcs, {}, "a.fits", facts.binning)
    return wcs_cards(wcs, matrix, [{}], facts, SHAPE)[0]


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("binning", ["1x1", "2x2", "1x2"])
@pytest.mark.parametrize(
    "wcs",
    [
        {"pixscale": 0.37, "rotation": 0.0, "parity": "normal"},
        {"pixscale": 0.37, "rotation": 177.8, "parity": "mirrored"},
        {"pixscale": [0.30, 0.31], "rotation": -88.1, "parity": "normal"},
        {"pixscale": 1.2, "rotation": 33.0, "parity": "mirrored"},
    ],
)
def test_what_is_written_gives_the_orientation_that_was_found(wcs, flip, binning):
    facts = frame(flip, binning)
    found = orientation_of(cards_of(wcs, facts), facts)
    again = yaml.safe_load("{" + found.entry() + "}")
    assert again["parity"] == wcs["parity"]
    assert again["pixscale"] == pytest.approx(wcs["pixscale"], rel=1e-3)
    assert (again["rotation"] - wcs["rotation"] + 180) % 360 - 180 == pytest.approx(0, abs=0.01)


def remarks(file, sky, count=3, catalogue="refcat", turn=0.0, **changes):
    """Remarks on frames whose file gives `file` and whose solution is `sky`, turning if asked."""
    frames, cards = {}, {}
    for k in range(count):
        facts = frame(**changes)
        facts.frame = f"2{k}"
        facts.wcs = cards_of(file, facts) if file else None
        own = sky | {"rotation": sky.get("rotation", 0.0) + k * turn}
        solved = cards_of(own, facts) | {"ASTRNST": 20, "ASTRCAT": catalogue}
        frames[facts.frame] = facts
        cards[facts.frame] = solved
    return orientation_remarks(frames, cards.items())


def test_lines_to_put_into_the_file():
    (remark,) = remarks({"pixscale": 0.35}, {"pixscale": 0.37, "rotation": 178.0})
    assert remark.startswith('instrument test, C0: 3 of 3 solved frames have 0.37"/px at 178.0°')
    assert 'the file gives 0.35"/px at 0.0°' in remark
    (text,) = re.findall(r"write cameras: (.*)", remark)
    assert yaml.safe_load(text) == {
        "C0": {"wcs": {"header": False, "pixscale": 0.37, "rotation": 178.0, "parity": "normal"}}
    }
    (remark,) = remarks(None, {"pixscale": 0.2}, binning="2x2")
    assert "the file gives none" in remark and "scale_with_binning: true" in remark
    assert "pixscale: 0.2," in remark


@pytest.mark.parametrize(
    "sky", [{"pixscale": 0.3715}, {"pixscale": 0.37, "rotation": 0.6}, {"pixscale": [0.369, 0.371]}]
)
def test_what_the_file_gives_is_not_told_again(sky):
    assert remarks({"pixscale": 0.37}, sky) == []


def test_frames_without_catalogue_tell_nothing():
    assert remarks({"pixscale": 0.35}, {"pixscale": 0.37}, catalogue="NONE") == []


def test_rotation_of_a_field_that_turns_is_not_for_the_file():
    (remark,) = remarks(None, {"pixscale": 0.6, "rotation": 3.0}, count=4, turn=7.0)
    assert '4 of 4 solved frames have 0.6"/px at different rotations' in remark
    (text,) = re.findall(r"write cameras: (.*)", remark)
    assert set(yaml.safe_load(text)["C0"]["wcs"]) == {"header", "pixscale", "parity"}
    # Most agree: theirs is told.
    (remark,) = remarks({"pixscale": 0.5}, {"pixscale": 0.6, "rotation": 3.0}, turn=0.2)
    assert "rotation: 3." in remark
