"""What of an instrument file comes to nothing with the frames of a night is said."""

import numpy as np
import pytest
from astropy.io import fits

from lib.night import nightlog


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for k, name in enumerate(["R", "R", "Halpha"]):
        header = fits.Header()
        header.update({"IMAGETYP": "light", "OBJECT": "a", "FILTER": name, "EXPTIME": 9.0})
        header.update({"DATE-OBS": f"2024-03-01T01:0{k}:00", "GAIN": 1.5, "PIXSCALE": "0.4 asec"})
        header["BIASSEC"] = "[41:50,1:30]"
        image = np.full((30, 40), k, np.int16)
        fits.PrimaryHDU(image, header).writeto(folder / f"{k}.fits")
    return folder


def notes(tmp_path, raw, text):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: generic\n" + text)
    cache = tmp_path / "cache.json"
    first = nightlog.scan(raw, path, cache=cache).notes
    assert nightlog.scan(raw, path, cache=cache).notes == first  # from the cache
    return [note.replace(f"{path}:", "mine.yaml:") for note in first]


def test_filters_sections_and_scales_that_come_to_nothing(tmp_path, raw):
    assert notes(tmp_path, raw, "") == [
        "instrument mine: cameras.C0.overscan: BIASSEC = [41:50,1:30] is no section of the 30x40 "
        "frame, not used (3 frames)",
        "instrument mine: cameras.C0.wcs.pixscale: '0.4 asec' is no number, not used (3 frames)",
        "instrument mine: filter 'Halpha' has no band (1 frame): no zero point; where it has one, "
        "write it under bands",
    ]


def test_sections_in_numbers(tmp_path, raw):
    own = "bands: {Halpha: R}\ncameras:\n  C0:\n    wcs: {pixscale: 0.4}\n"
    sections = "    trim: [0, 31, 0, 30]\n    overscan: [0, 30, 32, 40]\n"
    assert notes(tmp_path, raw, own + sections) == [
        "instrument mine: cameras.C0.overscan: [0, 30, 32, 40] is outside the 30x40 frame or over "
        "the image, not used (3 frames)",
        "instrument mine: cameras.C0.trim: [0, 31, 0, 30] is outside the 30x40 frame or over the "
        "image, not used (3 frames)",
    ]
    sections = "    trim: [0, 30, 0, 30]\n    overscan: [0, 30, 32, 40]\n"
    assert notes(tmp_path, raw, own + sections) == []
    other = "    shape: [60, 80]\n    trim: [0, 30, 0, 30]\n    overscan: null\n"
    assert notes(tmp_path, raw, own + other) == [
        "instrument mine: cameras.C0.trim: [0, 30, 0, 30] is for 60x80 pixels, not used in frames "
        "of 30x40 (3 frames)"
    ]
    binned = "    trim: {2x2: [0, 30, 0, 30]}\n    overscan: null\n"
    assert notes(tmp_path, raw, own + binned) == [
        "instrument mine: cameras.C0.trim: there is none for 1x1 binning, frames of 30x40 are "
        "taken as they are (3 frames)"
    ]


def test_keywords_that_no_frame_has(tmp_path, raw):
    """Only those of the own file: the alternatives of a shipped one are for other cameras."""
    own = "filter: [FLITER, FILTER]\nbands: {Halpha: R}\nairmass: {key: AM, omit: x}\ncameras:\n"
    own += "  C0:\n    overscan: null\n    gain: {value: 3, divided_by: GIAN}\n"
    own += "    wcs: {pixscale: [SCALE, 0.4]}\n"
    found = notes(tmp_path, raw, own)
    assert [note.partition(" (")[0] for note in found] == [
        "mine.yaml:2: filter: no frame has the keyword FLITER, did you mean FILTER?",
        "mine.yaml:4: airmass: no frame has the keyword AM",
        "mine.yaml:8: cameras.C0.gain: no frame has the keyword GIAN, did you mean GAIN?",
        "mine.yaml:9: cameras.C0.wcs.pixscale: no frame has the keyword SCALE, did you mean "
        "PIXSCALE?",
    ]
