"""Files that no instrument file claims, beside frames of a camera that is known."""

import numpy as np
import pytest
from astropy.io import fits

from lib.night import nightlog
from lib.night.siblings import Likeness, adopt, are_siblings


def put(path, kind, shape=(64, 64), packed=False, second=0, blanks=(), **keys):
    """Write a raw frame of a MaxIm camera; the text of `blanks` is empty."""
    header = fits.Header()
    words = {
        "IMAGETYP": kind, "EXPTIME": 0.0 if kind == "Bias Frame" else 20.0,
        "DATE-OBS": f"2019-05-03T08:43:{second:02d}", "INSTRUME": "Apogee USB/Net",
        "FILTER": "sdss_r", "XBINNING": 1, "YBINNING": 1, "OBJECT": "M13",
    } | keys  # fmt: skip
    for key, value in words.items():
        header[key] = "" if key in blanks else value
    image = np.full(shape, 1000 + second, np.uint16)
    if packed:
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image, header)]).writeto(path)
    else:
        fits.PrimaryHDU(image, header).writeto(path)


def told(raw, cache=None):
    log = nightlog.scan(raw, cache=cache)
    return {row.raw: row.reason or row.get("instrument") for row in log.rows}, log.notes


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def test_calibrations_without_telescope_belong_to_the_camera_of_the_night(raw):
    put(raw / "m13.fits", "Light Frame", OBSERVAT="ARCSAT", TELESCOP="ACP->TCS772")
    put(raw / "bias.fits", "Bias Frame", second=1, blanks=["TELESCOP"])
    put(raw / "flat.fits", "FLAT", second=2)
    put(raw / "packed.fits.fz", "FLAT", second=3, packed=True)
    put(raw / "binned.fits", "FLAT", (32, 32), second=4, XBINNING=2, YBINNING=2)
    found, notes = told(raw)
    assert found == dict.fromkeys(
        ["m13.fits", "bias.fits", "flat.fits", "packed.fits.fz", "binned.fits"], "arcsat"
    )
    assert len(notes) == 1 and "4 files" in notes[0] and "arcsat" in notes[0]


def test_other_cameras_in_the_folder_stay_by_themselves(raw):
    put(raw / "m13.fits", "Light Frame", OBSERVAT="ARCSAT")
    put(raw / "small.fits", "FLAT", (32, 32), second=1, GAIN=1.5)
    put(raw / "other.fits", "FLAT", second=2, INSTRUME="another camera", GAIN=1.5)
    two = fits.HDUList([fits.PrimaryHDU(), *(fits.ImageHDU(np.zeros((64, 64))) for _ in "ab")])
    two[0].header.update({"IMAGETYP": "flat", "EXPTIME": 1.0, "INSTRUME": "Apogee USB/Net"})
    two[0].header.update({"DATE-OBS": "2019-05-03T09:00:00", "FILTER": "r", "GAIN": 2.0})
    two.writeto(raw / "two.fits")
    found, notes = told(raw)
    assert found == {
        "m13.fits": "arcsat", "small.fits": "generic", "other.fits": "generic",
        "two.fits": "generic",
    }  # fmt: skip
    usual = ("more images", "floating point")
    assert [note for note in notes if not any(words in note for words in usual)] == []


def test_what_arrives_later_tells_what_came_before(raw, tmp_path):
    """Calibrations of the afternoon, the first science frame at night; and taken away again."""
    cache = tmp_path / "cache.json"
    put(raw / "bias.fits", "Bias Frame")
    assert told(raw, cache)[0]["bias.fits"] == "generic"
    put(raw / "m13.fits", "Light Frame", second=1, OBSERVAT="ARCSAT")
    first = told(raw, cache)
    assert first[0] == {"bias.fits": "arcsat", "m13.fits": "arcsat"} and len(first[1]) == 1
    assert told(raw, cache) == first
    (raw / "m13.fits").unlink()
    assert told(raw, cache)[0]["bias.fits"] == "generic"


def test_the_name_of_a_camera_may_stand_in_any_extension(raw):
    """In the second image; a blank keyword of an extension does not hide the primary's."""
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(np.zeros((64, 64), np.int16)) for _ in "ab")]
    hdus[0].header.update({"IMAGETYP": "Bias Frame", "EXPTIME": 0.0})
    hdus[0].header.update({"DATE-OBS": "2019-05-03T09:00:00", "OBSERVAT": ""})
    hdus[2].header["OBSERVAT"] = "ARCSAT"
    fits.HDUList(hdus).writeto(raw / "second.fits")
    hdus[0].header["OBSERVAT"] = "ARCSAT"
    hdus[0].header["DATE-OBS"] = "2019-05-03T09:01:00"
    hdus[1].header["OBSERVAT"] = hdus[2].header["OBSERVAT"] = ""
    fits.HDUList(hdus).writeto(raw / "blank.fits")
    assert told(raw)[0]["second.fits"] != "generic"
    assert told(raw)[0]["blank.fits"] != "generic"
    assert not told(raw)[1]


def alike(layout=1, size=(100, 100), instrume="", **others):
    names = ("telescop", "observat", "detector", "detnam", "detid", "camera", "serno")
    return Likeness(layout, size, instrume, tuple(others.get(name, "") for name in names))


def test_two_instruments_of_one_size():
    """The words that both have decide, then the exact size; what stays open is left open."""
    claimed = {("one", alike(instrume="a", telescop="t1")), ("two", alike(instrume="b"))}
    assert adopt({"f": alike(instrume="b")}, claimed) == {"f": "two"}
    assert adopt({"f": alike(instrume="c")}, claimed) == {}
    assert adopt({"f": alike(telescop="t1")}, claimed) == {"f": "one"}
    assert adopt({"f": alike()}, claimed) == {}
    longer = {("one", alike(instrume="cam 2")), ("two", alike(instrume="cam"))}
    assert adopt({"f": alike(instrume="cam")}, longer) == {"f": "two"}
    sizes = {("one", alike(size=(100, 100))), ("two", alike(size=(100, 104)))}
    assert adopt({"f": alike(size=(100, 104))}, sizes) == {"f": "two"}


def test_words_of_siblings():
    assert are_siblings(alike(instrume="a", telescop="x"), alike(instrume="a", telescop="y"))
    assert not are_siblings(alike(instrume="a"), alike(instrume="b"))
    assert are_siblings(alike(instrume="cafos"), alike(instrume="cafos 2.2"))
    assert not are_siblings(alike(detector="e1"), alike(instrume="a", detector="e2"))
    assert not are_siblings(alike(), alike(layout=2))
    assert not are_siblings(alike(size=(0, 0)), alike())
