"""Files that no instrument file claims, beside frames of a camera that is known."""

import numpy as np
import pytest
from astropy.io import fits

from lib.night import nightlog
from lib.night.siblings import Likeness, adopt, are_siblings, tell_detectors


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
    assert [note for note in notes if not any(words in note for words in usual)] == [
        "2 cameras in one folder, by their headers: another-camera, apogee-usb-net"
    ]


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


def made_by(instrume, detector="", camera=""):
    return Likeness(1, (512, 512), instrume, ("", "", detector, "", "", camera, ""))


def test_two_cameras_in_one_folder_are_told_apart():
    night = {
        "1": made_by("zwo asi1600"), "2": made_by("zwo asi1600", "mono"), "3": made_by("qhy163m"),
        "4": made_by(""), "5": made_by("qhy163m"),
    }  # fmt: skip
    assert tell_detectors(night) == {
        "1": "zwo-asi1600", "2": "zwo-asi1600", "3": "qhy163m", "4": "", "5": "qhy163m",
    }  # fmt: skip


@pytest.mark.parametrize(
    "night",
    [
        [made_by("odd cam"), made_by(""), made_by("odd cam 2x2"), made_by("odd cam", "e2v")],
        [made_by(""), made_by("")],
        [],
    ],
)
def test_one_camera_stays_one(night):
    assert tell_detectors({str(k): one for k, one in enumerate(night)}) == {}


def test_cameras_told_by_another_word_than_instrume():
    night = {"1": made_by("ccd", "e2v"), "2": made_by("ccd", "tek"), "3": made_by("ccd")}
    assert tell_detectors(night) == {"1": "e2v", "2": "tek", "3": ""}


def test_words_alike_in_file_names_get_a_number():
    night = {"1": made_by("/" * 40), "2": made_by("<'>")}
    assert set(tell_detectors(night).values()) == {"camera", "camera-2"}
    assert set(tell_detectors({"1": made_by("a b"), "2": made_by("a-b")}).values()) == {
        "a-b", "a-b-2",
    }  # fmt: skip


@pytest.mark.parametrize("instrument", ["auto", "generic"])
def test_calibrations_of_another_camera_are_not_used(tmp_path, instrument):
    """Two cameras of one size: each has its bias and flat, and a stack of its own."""
    common = {"GAIN": 1.5, "RDNOISE": 5.0, "XPIXSZ": 3.8, "FOCALLEN": 800.0}
    for n, camera in enumerate(("ZWO ASI1600", "QHY163M")):
        for k in range(2):
            second = 20 * n + 3 * k
            keys = {"INSTRUME": camera, "second": second, **common}
            put(tmp_path / f"b{n}{k}.fits", "Bias", **keys)
            put(tmp_path / f"f{n}{k}.fits", "Flat", **(keys | {"second": second + 1}))
            put(tmp_path / f"o{n}{k}.fits", "Light", **(keys | {"second": second + 2}))
    put(tmp_path / "f9.fits", "Flat", blanks=("INSTRUME",), second=59, **common)
    log = nightlog.scan(tmp_path, instrument)
    assert sorted(log.biases) == ["bias-C0-qhy163m", "bias-C0-zwo-asi1600"]
    assert len(log.stacks) == 2 and all(len(names) == 2 for names in log.stacks.values())
    for frame in log.science:
        facts, found = log.frames[frame], log.match(frame)
        for master in (found.bias, found.flat):
            assert master is not None and master.endswith(facts.detector)
    assert "2 cameras in one folder, by their headers: qhy163m, zwo-asi1600" in log.notes
