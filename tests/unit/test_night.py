"""What became of every frame, the page that shows it, and the progress of a run."""

import base64
import io
import json
import logging
import re
import shutil
import time
from types import SimpleNamespace

import night as page
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image
from snakemake_interface_logger_plugins.common import LogEvent

from lib.calibration.detector import assemble
from lib.engine import progress
from lib.frame.file import COSMIC, SATURATED, Frame, FrameRejected, reject, write_frame
from lib.night.nightlog import COLUMNS
from lib.report import outcomes, pictures

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=alert(1)>"
SHAPE = (64, 80)


class Night:
    """A night log of a few science frames, as far as this module asks it."""

    def __init__(self, stacks, calibrations=(), ignored=(), notes=None):
        self.frames, self.rows, self.science, self.stacks = {}, [], [], stacks
        self.notes = []
        self.missing = notes or {}
        for stack, frames in stacks.items():
            target, filter_name = stack.split(".")
            for frame in frames:
                self.add(frame, "object", target=target, filter=filter_name, object=HOSTILE)
                self.science.append(frame)
        for frame in calibrations:
            self.add(frame, "bias")
        for raw in ignored:
            row = {"frame": "", "raw": raw, "status": "IGNORED", "reason": "SPECTRUM: a grism"}
            self.rows.append(row)

    def add(self, frame, kind, **more):
        facts = {
            "frame": frame, "raw": f"{frame}.fits", "type": kind, "instrument": "generic",
            "camera": "C0", "target": "", "object": "", "filter": "", "band": "",
            "exptime": 10.0, "date_obs": f"2022-01-28T05:{len(self.rows):02d}:00.000",
            "mjd": 59607.2, "airmass": 1.2, "ra": 150.0, "dec": 2.0, "shape": list(SHAPE),
            "pixscale": 0.3, "amplifiers": [], "wcs": None, "calibrations": {},
        } | more  # fmt: skip
        self.frames[frame] = facts
        self.rows.append({"status": "OK", "reason": "", **facts})

    def match(self, frame):
        found = {"bias": "bias-C0", "dark": None, "flat": None, "notes": {}}
        if frame in self.missing:
            found["notes"] = {"flat": self.missing[frame]}
        return found

    def table_text(self):
        return json.dumps([row["frame"] or row["raw"] for row in self.rows])


def names(count, first=0):
    return [f"20220128T05{number:04d}C0o" for number in range(first, first + count)]


def header(frame, **cards):
    made = fits.Header()
    made["QCSTAT"] = "OK"
    made["FRAME"] = frame
    made["OBJECT"] = "object"
    for key, value in cards.items():
        made[key.replace("_", "-")] = value
    return made


def put(imdir, name, frame, seed=1, **cards):
    """Write a frame file of noise with one star."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 5, SHAPE).astype(np.float32)
    image[30:33, 40:43] += 400
    mask = np.zeros(SHAPE, np.uint8)
    mask[10, 10:13] = COSMIC
    write_frame(imdir / name, Frame(image, mask, header(frame, **cards)))


@pytest.fixture
def reduced(tmp_path):
    """A reduction of two stacks: 3 frames used, one without stars, one clouded, one unfinished."""
    good = names(4)
    lost = names(2, first=10)
    night = Night(
        {"T1.r": good, "T2.g": lost},
        calibrations=["20220128T040000C0b", "20220128T040100C0b"],
        ignored=["grism.fits"],
        notes={lost[0]: "none of 2 fits; flat_V: filter V, not g; flat_g-C1: camera C1, not C0"},
    )
    imdir = tmp_path / "imredux"
    for k, frame in enumerate(good):
        put(imdir, f"fp{frame}.fits", frame, seed=k)
        put(imdir, f"azsfp{frame}.fits", frame, seed=k, SKYCTS=300.0, NCOSMIC=3, PIXSCALE=0.3,
            ASTRMS1=12.0, ASTRMS2=9.0, ASTRNST=20, ASTRCAT="GaiaDR3")  # fmt: skip
    why = FrameRejected("NO_FLAT", "none of 2 fits")
    write_frame(imdir / f"azsfp{lost[0]}.fits", reject(header(lost[0]), "flatten", why))
    put(imdir, f"fp{lost[1]}.fits", lost[1])
    for step, frame in (("flatten", lost[1]), ("skysub", lost[1]), ("prepare", good[0])):
        path = imdir / "logs" / step / f"{frame}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"12:00 INFO {HOSTILE}\n", encoding="utf-8")

    coadd = header("", NSTACK=3, SEEPIX=4.0, ABSZPT=27.0, ABSZPERR=0.01, LIMMAG=21.5, TOTALEXP=30.0,
                   CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=40.5,
                   CRPIX2=32.5, CD1_1=-1e-4, CD2_2=1e-4)  # fmt: skip
    image = np.random.default_rng(3).normal(0, 1, SHAPE).astype(np.float32)
    coadd.rename_keyword("CD1-1", "CD1_1")
    coadd.rename_keyword("CD2-2", "CD2_2")
    fits.writeto(imdir / "coaddT1.r.fits", image, coadd)
    fits.writeto(imdir / "coaddT1.r.weight.fits", np.ones(SHAPE, np.float32))
    measured = {
        "used": True, "reason": "", "seeing": 1.2, "fwhm": 4.0, "ellipticity": 0.05, "nstars": 30,
        "noise": 5.0, "zeropoint": 24.0, "zeropoint_absolute": True, "transparency": 0.9,
    }  # fmt: skip
    frames = {frame: dict(measured) for frame in good}
    frames[good[3]] |= {"used": False, "reason": "CLOUDY: 0.02 < 0.1", "step": "stack"}
    (imdir / "qa" / "stack").mkdir(parents=True)
    (imdir / "qa" / "stack" / "T1.r.json").write_text(json.dumps({"frames": frames, "flags": []}))

    bias = header("")
    bias["INPUT1"] = "20220128T040000C0b"
    bias["LEFT1"] = "20220128T040100C0b LEVEL: 900.0 DN apart"
    write_frame(imdir / "bias-C0.fits", Frame(image, np.zeros(SHAPE, np.uint8), bias))
    return night, imdir, good, lost


# ------------------------------------------------------------------ outcomes


def test_every_frame_has_its_outcome(reduced):
    night, imdir, good, lost = reduced
    result = outcomes.collect(night, imdir)
    told = {one.frame: (one.status, one.step, one.reason, one.used) for one in result.rows}
    assert told == {
        good[0]: ("OK", "stack", "", "coaddT1.r"),
        good[1]: ("OK", "stack", "", "coaddT1.r"),
        good[2]: ("OK", "stack", "", "coaddT1.r"),
        good[3]: ("REJECTED", "stack", "CLOUDY: 0.02 < 0.1", ""),
        lost[0]: ("REJECTED", "flatten", "NO_FLAT: none of 2 fits", ""),
        lost[1]: ("UNFINISHED", "skysub", "NO_OUTPUT: skysub failed or was stopped", ""),
        "20220128T040000C0b": ("OK", "bias", "", "bias-C0"),
        "20220128T040100C0b": ("REJECTED", "bias", "LEVEL: 900.0 DN apart", ""),
        "grism.fits": ("IGNORED", "nightlog", "SPECTRUM: a grism", ""),
    }
    assert [one.frame for one in result.left_out] == [
        "20220128T040100C0b", lost[0], lost[1], good[3],
    ]  # fmt: skip


def test_a_frame_rejected_by_the_solution_is_told_so_before_its_file_is_there():
    outcome = outcomes.Outcome("f", step="crclean")
    outcomes.judge_in_stack(
        outcome, "T.r", {"status": "REJECTED", "code": "NO_MATCH", "numbers": "3 < 6"}, {}, False
    )
    assert (outcome.status, outcome.step, outcome.reason) == (
        "REJECTED", "astrometry", "NO_MATCH: 3 < 6",
    )  # fmt: skip


def test_headers_are_read_again_only_when_a_file_changed(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    outcomes.collect(night, imdir)
    read = []
    original = outcomes.cards_of
    monkeypatch.setattr(
        outcomes, "cards_of", lambda path, *more: read.append(path.name) or original(path, *more)
    )
    outcomes.collect(night, imdir)
    assert read == []
    put(imdir, f"azsfp{good[1]}.fits", good[1], SKYCTS=999.0, NOTE="longer than it was")
    result = outcomes.collect(night, imdir)
    assert read == [f"azsfp{good[1]}.fits"]
    assert result.frames[good[1]].facts["SKYCTS"] == 999.0


def test_frames_table_holds_every_row_and_is_written_only_when_it_changes(reduced):
    night, imdir, good, lost = reduced
    path = imdir / "frames.ecsv"
    assert outcomes.begin_frames_table(night, path)
    assert set(Table.read(path)["status"]) == {"OK", "IGNORED"}
    assert not outcomes.begin_frames_table(night, path)

    result = outcomes.collect(night, imdir)
    assert outcomes.write_frames_table(night, result.rows, path)
    assert not outcomes.write_frames_table(night, result.rows, path)
    assert not outcomes.begin_frames_table(night, path), "outcomes are lost at the next start"

    table = Table.read(path)
    assert set(COLUMNS) <= set(table.colnames)
    assert list(table["raw"]) == [row["raw"] for row in night.rows]
    row = table[list(table["frame"]).index(good[0])]
    assert row["used"] == "coaddT1.r" and row["fwhm"] == 1.2 and row["nstars"] == 30
    assert row["object"] == HOSTILE
    assert table[list(table["frame"]).index(lost[0])]["reason"] == "NO_FLAT: none of 2 fits"
    assert table["fwhm"].dtype.kind == "f" and table["ncosmic"].dtype.kind == "i"

    night.add("20220128T060000C0b", "bias")
    assert outcomes.begin_frames_table(night, path)
    assert len(Table.read(path)) == len(night.rows)


@pytest.mark.parametrize("text", ['a "quoted", text', "tab\tand\nnewline", "#no comment", "é ☃"])
def test_texts_survive_the_table(tmp_path, text):
    rows = [{"frame": "f1", "object": text, "x": 1.5}, {"frame": "f2", "object": "", "x": None}]
    kinds = {"frame": "string", "object": "string", "x": "float64"}
    (tmp_path / "t.ecsv").write_text(outcomes.ecsv_text(rows, kinds, {}), encoding="utf-8")
    table = Table.read(tmp_path / "t.ecsv")
    assert table["object"][0] == " ".join(text.split())
    assert table["x"][0] == 1.5 and np.ma.is_masked(table["x"][1])


def test_summary_names_stacks_and_frames_left_out(reduced):
    night, imdir, good, lost = reduced
    text = outcomes.summary(outcomes.collect(night, imdir), imdir)
    assert "1 of 2 stacks" in text
    assert re.search(r'T1\.r +3 of 4 +30 s +1\.4" +27\.000 ± 0\.010 +21\.5', text)
    assert re.search(rf"{good[3]} +stack +CLOUDY: 0.02 < 0.1", text)
    assert "Not for this job: 1 file." in text


def test_summary_of_many_frames_stays_short():
    rows = [
        outcomes.Outcome(f"f{k}", "REJECTED", "solve", f"NO_MATCH: {k} < 6") for k in range(5000)
    ]
    result = outcomes.NightOutcome(rows, {one.frame: one for one in rows}, {}, {})
    text = outcomes.summary(result, "imredux")
    assert len(text.splitlines()) < 12
    assert "5000 frames" in text and "NO_MATCH" in text


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("NO_FLAT: none of 2 fits", "no flat fits: none of 2 fits"),
        ("FEW_FRAMES: 2 < 3; NO_ZEROPOINT: NO_REFERENCE", "few frames: 2 < 3; no zero point: "
         "no reference"),
        ("SOMETHING_NEW", "something new"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)  # fmt: skip
def test_reasons_in_words(reason, words):
    assert outcomes.reason_in_words(reason) == words


def test_end_of_a_run_knows_whether_the_page_is_current(reduced):
    night, imdir, good, _ = reduced
    _, current = outcomes.finish_run(night, imdir)
    assert not current
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    result, current = outcomes.finish_run(night, imdir)
    assert current
    why = FrameRejected("SATURATED", "0.7 > 0.5")
    write_frame(imdir / f"azsfp{good[2]}.fits", reject(header(good[2]), "prepare", why))
    _, current = outcomes.finish_run(night, imdir)
    assert not current


# ------------------------------------------------------------------ pictures


def test_block_means_and_bits():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(13, 17)).astype(np.float32)
    small = pictures.block_mean(image, 4)
    expected = image[:12, :16].reshape(3, 4, 4, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(small, expected, rtol=1e-5, atol=1e-6)
    mask = np.zeros((13, 17), np.uint8)
    mask[5, 9], mask[6, 10] = COSMIC, SATURATED
    bits = pictures.block_bits(mask, 4)
    assert bits[1, 2] == COSMIC | SATURATED and bits.sum() == COSMIC | SATURATED


def test_reduced_picture_has_no_holes_within_the_data():
    image = np.full((64, 64), 3.0, np.float32)
    valid = np.ones(image.shape, bool)
    image[30:38, 30:38], image[28:40, 26:30] = 0, 900  # beside a burnt-out core, light
    valid[30:38, 30:38] = False
    image[5, 5], valid[5, 5] = np.nan, False  # a lone pixel does not spoil its block
    valid[:, 48:] = False
    small, covered = pictures.reduce_covered(image, valid, 4)
    assert small[1, 1] == 3 and small[8, 7] > 100
    assert covered[:, :12].all() and not covered[:, 12:].any()


def test_enclosed_pixels_take_the_value_beside_them():
    image = np.add.outer(np.zeros(20), np.arange(20.0)).astype(np.float32)
    covered = np.ones(image.shape, bool)
    covered[5:12, 5:9] = covered[15, 15] = False  # enclosed
    covered[3:6, 17:] = False  # open to the rim
    image[~covered] = 0
    filled = pictures.fill_enclosed(image, covered)
    assert filled.sum() == 29 and filled[5:12, 5:9].all() and filled[15, 15]
    assert image[15, 15] == 15
    assert image[5:12, 5].max() < image[5:12, 8].min()
    assert 4 <= image[5:12, 5:9].min() and image[5:12, 5:9].max() <= 9
    assert (image[3:6, 17:] == 0).all()


def test_picture_and_thumbnail_show_the_same():
    rng = np.random.default_rng(5)
    image = rng.normal(0, 1, (600, 400)).astype(">f4")
    image[300:320, 100:120] += 1000
    image[0, 0] = np.nan
    valid = np.ones(image.shape, bool)
    uris = pictures.covered_pictures(image, valid, (200, 50), (90, 90))
    large, small = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))
        for uri in uris
    )
    assert (large.shape, small.shape) == ((200, 133), (50, 33))
    # The star stands where it is, rows from the top.
    for picture in (large, small):
        y, x = np.unravel_index(np.argmax(picture), picture.shape)
        assert abs(x / picture.shape[1] - 110 / 400) < 0.05
        assert abs(y / picture.shape[0] - 290 / 600) < 0.05


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("overscan", [None, [0, 90, 150, 170], [90, 100, 10, 150]])
def test_quick_look_at_a_raw_frame_is_what_assembling_gives(tmp_path, overscan, flip):
    rng = np.random.default_rng(6)
    raw = rng.normal(1000, 10, (100, 170)) + 3 * np.arange(100)[:, None] + np.arange(170)
    fits.PrimaryHDU(raw.astype(np.uint16)).writeto(tmp_path / "2.fits")
    amplifier = {
        "hdu": 0, "data": [4, 88, 10, 150], "overscan": overscan, "flip": flip, "origin": [0, 0],
    }  # fmt: skip
    facts = {"shape": [84, 140], "amplifiers": [amplifier], "saturate": 60000, "linear": None}
    small = page.quick_look(tmp_path / "2.fits", facts, 20)
    image, _, _ = assemble(tmp_path / "2.fits", facts)
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
    facts = {"shape": [100, 170], "amplifiers": [amplifier], "saturate": 60000}
    assert page.quick_look(tmp_path / "2.fits", facts, 20) is None
    assert "UNREADABLE" in page.raw_picture(tmp_path / "2.fits", facts, 20)["why"]


@pytest.mark.parametrize("degrees", [0.1, 2.0])
def test_pixels_between_grids_are_those_of_the_coordinates(degrees):
    step = degrees / 500

    def made(ra, dec, angle):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = (
            ["RA---TAN", "DEC--TAN"],
            [ra, dec],
            [250, 250],
        )
        a = np.radians(angle)
        wcs.wcs.cd = step * np.array([[-np.cos(a), np.sin(a)], [np.sin(a), np.cos(a)]])
        return wcs

    one, other = made(10.0, 60.0, 0), made(10.0 + degrees / 3, 60.0 - degrees / 4, 30)
    x, y = np.arange(0, 500, 7.0), np.arange(0, 400, 7.0)
    column, row = page.between_grids(one, other, x, y)
    assert column.shape == row.shape == (len(y), len(x))
    grid = np.meshgrid(x, y)
    expected = other.all_world2pix(*one.all_pix2world(*(v.ravel() for v in grid), 0), 0)
    np.testing.assert_allclose(column.ravel(), expected[0], atol=0.1)
    np.testing.assert_allclose(row.ravel(), expected[1], atol=0.1)


def test_target_is_where_config_or_pointing_say():
    cards = {
        "ASTRCAT": "x", "NAXIS1": 100, "NAXIS2": 200, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0, "CRVAL2": 0.0, "CRPIX1": 50.5, "CRPIX2": 100.5, "CD1_1": -1e-3,
        "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "RA": 150.0, "DEC": 0.0,
    }  # fmt: skip
    assert page.target_place(cards, None) == pytest.approx([0.5, 0.5], abs=1e-3)
    assert page.target_place(cards, (149.98, 0.05)) == pytest.approx([0.7, 0.25], abs=1e-3)
    assert page.target_place(cards, (150.5, 0.5)) is None  # outside of the picture
    assert page.target_place(cards | {"ASTRCAT": "NONE"}, None) is None


def test_stretch_shows_faint_and_bright():
    rng = np.random.default_rng(2)
    image = rng.normal(1000, 10, (200, 200)).astype(np.float32)
    image[50:60, 50:60] += 50  # 5 sigma
    image[140:160, 140:160] += 5000
    grey = pictures.stretch(image)
    sky = np.median(grey)
    assert grey[155, 155] >= 250
    assert sky + 30 < np.median(grey[50:60, 50:60]) < 200
    assert 10 < sky < 120
    image[0, 0] = np.nan
    assert pictures.stretch(image)[0, 0] == 0


def test_pictures_stand_upright():
    picture = np.zeros((10, 20), np.uint8)
    picture[9, 0] = 255  # top left on the sky
    uri = pictures.encode(picture, 0)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("L"))
    assert shown.shape == (10, 20) and shown[0, 0] == 255 and shown[9, 0] == 0


def test_colour_picture_of_equal_images_is_grey_and_of_unequal_ones_coloured():
    rng = np.random.default_rng(4)
    sky = rng.normal(0, 1, (80, 80))
    for y, x in rng.integers(5, 75, (12, 2)):
        sky[y - 1 : y + 2, x - 1 : x + 2] += 300
    same = pictures.composite(sky, 7 * sky, 3 * sky)
    assert np.ptp(same.astype(int), axis=-1).max() <= 1
    red = sky.copy()
    red[40:43, 40:43] += 900
    star = pictures.composite(red, sky, sky)[41, 41].astype(int)
    assert star[0] > star[1] + 20 and star[0] > star[2] + 20


def test_three_images_are_chosen_by_the_sky_they_share():
    whole, left, right = (np.full((10, 10), np.nan) for _ in range(3))
    whole[:] = 1
    left[:, :6] = 1
    right[:, 6:] = 1
    chosen = pictures.choose_three([whole, left, right, left, whole])
    assert 2 not in chosen
    assert pictures.choose_three([left, right, left]) is None
    assert pictures.choose_three([whole, left]) is None


# ------------------------------------------------------------------ page


def test_pointing_offset_is_the_distance_on_the_sky():
    cards = {
        "ASTRCAT": "GaiaDR3", "CRVAL1": 150.0 + 30 / 3600 / np.cos(np.radians(60)), "CRVAL2": 60.0,
        "CRPIX1": 40.5, "CRPIX2": 32.5, "CD1_1": -1e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-4,
    }  # fmt: skip
    facts = {"ra": 150.0, "dec": 60.0, "wcs": None, "shape": SHAPE}
    assert page.pointing_offset(cards, facts) == pytest.approx(30, abs=0.01)
    assert page.pointing_offset(cards | {"ASTRCAT": "NONE"}, facts) is None
    assert page.pointing_offset(cards, facts | {"ra": None}) is None


def test_sky_brightness_from_counts_and_zero_point():
    outcome = outcomes.Outcome("f", facts={"SKYCTS": 900.0, "PIXSCALE": 0.5})
    outcome.quality = {"zeropoint": 25.0, "zeropoint_absolute": True, "noise": 30.0, "fwhm": 4.0}
    found = page.frame_numbers(outcome, {"exptime": 90.0, "airmass": 29.0, "shape": SHAPE})
    assert found["sky"] == pytest.approx(10.0)
    # 10 electrons a second in 0.25 square arcsec are 40 in one.
    assert found["skymag"] == pytest.approx(25 - 2.5 * np.log10(40))
    assert "airmass" not in found, "an impossible airmass is shown"
    outcome.quality["zeropoint_absolute"] = False
    assert "skymag" not in page.frame_numbers(outcome, {"exptime": 90.0})


def test_comparison_with_the_reference_finds_offsets_put_in():
    rng = np.random.default_rng(5)
    count = 40
    ra, dec = 359.99 + rng.uniform(0, 0.02, count), rng.uniform(49.99, 50.01, count)
    reference = Table({"ra": ra % 360, "dec": dec, "r": rng.uniform(14, 18, count)})
    east, north = 0.050, -0.030
    columns = {
        "RA": (ra + east / 3600 / np.cos(np.radians(50))) % 360, "DEC": dec + north / 3600,
        "X": rng.uniform(1, 80, count), "Y": rng.uniform(1, 64, count),
        "FLUX_POINT": rng.uniform(1, 9, count), "FLAGS": np.zeros(count, int),
        "MAG_POINT": np.asarray(reference["r"]) - 0.02, "ZP_STAR": np.arange(count) < 25,
    }  # fmt: skip
    sources = fits.BinTableHDU(Table(columns)).data
    compared = page.compare_reference(sources, reference, {"CRVAL1": 0.0, "CRVAL2": 50.0}, "r")
    assert len(compared["positions"]) == count
    offsets = np.array(compared["positions"])[:, 2:]
    np.testing.assert_allclose(offsets, np.tile([50, -30], (count, 1)), atol=0.3)
    zero = np.array(compared["zeropoint"])
    np.testing.assert_allclose(zero[:, 1], 0.02, atol=1e-3)
    assert zero[:, 2].sum() == 25


def test_calibration_mismatches_list_candidates_and_failing_keys(reduced):
    night, _, _, lost = reduced
    (one,) = page.calibration_mismatches(night)
    assert one["frames"] == [lost[0]] and one["kind"] == "flat"
    assert one["candidates"] == [
        {"name": "flat_V", "why": "filter V, not g"},
        {"name": "flat_g-C1", "why": "camera C1, not C0"},
    ]


@pytest.fixture
def made(reduced):
    night, imdir, *_ = reduced
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    return (imdir / "night.html").read_text(encoding="utf-8")


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))


def test_page_needs_nothing_but_itself(made):
    own = made
    for library in page.libraries().values():
        own = own.replace(library, "")
    assert len(own) < len(made)
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", own)
    assert not re.search(r"@import|url\((?!data:)", own)


def test_hostile_header_text_stays_text(made):
    assert HOSTILE not in made
    assert "window.hurt=1</script>" not in made
    data = data_of(made)
    logs = data["cards"][names(1)[0]]["logs"]
    assert HOSTILE in logs["prepare"]


def test_page_tells_every_row_and_every_stack(made, reduced):
    night, _, good, lost = reduced
    data = data_of(made)
    assert len(data["rows"]) == len(night.rows)
    assert {one["stack"] for one in data["stacks"]} == set(night.stacks)
    assert [one["frame"] for one in data["frames"]] == night.science
    pictures = data["cards"][good[0]]["pictures"]
    assert [one["title"] for one in pictures] == [
        "flat-fielded", "sky-subtracted", "mask (3 px cosmic)",
    ]  # fmt: skip
    assert "NO_FLAT" in made and "camera C1, not C0" in made


def test_details_of_a_large_night_are_kept_beside_the_page(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    monkeypatch.setattr(page, "sizes_for", lambda *_: page.Sizes(embed=0))
    page.make_page(night, {"datadir": "none"}, imdir)
    data = data_of((imdir / "night.html").read_text(encoding="utf-8"))
    assert data["cards"] == {} and data["aside"] == "qa/frames/"
    aside = (imdir / "qa" / "frames" / f"{good[0]}.js").read_text(encoding="utf-8")
    assert aside.startswith(f'autoprocCard("{good[0]}", {{') and "</script" not in aside


def test_pictures_are_made_again_only_for_frames_that_changed(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    config = {"datadir": "none"}
    page.make_page(night, config, imdir)
    made = []
    original = page.make_card
    monkeypatch.setattr(page, "make_card", lambda job: made.append(job["frame"]) or original(job))
    page.make_page(night, config, imdir)
    assert made == []
    put(imdir, f"azsfp{good[1]}.fits", good[1], seed=9, NOTE="new")
    page.make_page(night, config, imdir)
    assert made == [good[1]]


def test_durations_count_a_job_of_many_outputs_once(tmp_path):
    for name, rule, begin, end in (
        ("a", "stack", 100.0, 129.9), ("b", "stack", 100.1, 130.0), ("c", "bias", 90.0, 92.0),
    ):  # fmt: skip
        record = {"rule": rule, "starttime": begin, "endtime": end, "log": [f"im/logs/{rule}.log"]}
        (tmp_path / name).write_text(json.dumps(record))
    (tmp_path / "d").write_text(
        json.dumps({"rule": "x", "starttime": 1.0, "endtime": 2.0, "log": ["other/logs/x.log"]})
    )
    found = page.rule_durations(tmp_path, "im")
    assert [(one["rule"], one["jobs"], one["total"]) for one in found] == [
        ("stack", 1, 30.0), ("bias", 1, 2.0),
    ]  # fmt: skip


# ------------------------------------------------------------------ page in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium that records its console and its requests."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in (
        "headless", "no-sandbox", "disable-gpu", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1300,900",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    yield opened
    opened.quit()


def open_page(browser, path):
    """Open a page and wait until its table is there."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what the browser did before
    browser.get(path.as_uri())
    ready = "return document.body.dataset.table === 'ready'"
    WebDriverWait(browser, 30).until(lambda one: one.execute_script(ready))


def cells(browser, column):
    script = (
        "return [...document.querySelectorAll('#frame-table tbody tr')]"
        ".map(row => row.cells[arguments[0]].textContent)"
    )
    return browser.execute_script(script, column)


def click(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def text_of(browser, selector):
    from selenium.webdriver.support.ui import WebDriverWait

    script = "const one = document.querySelector(arguments[0]); return one && one.textContent"
    return WebDriverWait(browser, 10).until(lambda one: one.execute_script(script, selector))


@pytest.mark.parametrize("embed", [8e6, 0])
def test_page_in_a_browser(browser, reduced, monkeypatch, embed):
    night, imdir, good, lost = reduced
    monkeypatch.setattr(page, "sizes_for", lambda *_: page.Sizes(embed=embed))
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    open_page(browser, imdir / "night.html")

    assert cells(browser, 0) == night.science, "the table does not begin with the science frames"
    click(browser, "#frame-table thead th:first-child .dt-column-order")
    assert cells(browser, 0) == sorted(night.science)
    click(browser, "#frame-table thead th:first-child .dt-column-order")
    assert cells(browser, 0) == sorted(night.science, reverse=True)
    browser.execute_script(
        "const one = document.querySelector('select[data-column=status]');"
        "one.value = 'REJECTED'; one.dispatchEvent(new Event('change'))"
    )
    assert set(cells(browser, 0)) == {good[3], lost[0]}

    click(browser, "#frame-table tbody tr:nth-child(2)")
    assert "cosmic" in text_of(browser, "#frame-dialog[open] .pictures")
    assert text_of(browser, "#frame-dialog[open] h2") == good[3]
    click(browser, "#frame-dialog .close")
    click(browser, f"#left-table button[data-frame='{lost[1]}']")
    assert HOSTILE in text_of(browser, "#frame-dialog[open] details pre")
    click(browser, "#frame-dialog .close")

    click(browser, "[data-stack='T1.r'] .picture")
    assert "27.0000 ± 0.0100" in text_of(browser, "#stack-dialog[open] .facts")
    strip = "return document.querySelectorAll('#stack-dialog .strip button').length"
    assert browser.execute_script(strip) == 4
    click(browser, "#stack-dialog .close")

    browser.execute_script(
        "window.copied = ''; Object.defineProperty(navigator, 'clipboard',"
        "{value: {writeText: async text => { window.copied = text; }}})"
    )
    click(browser, f"input[data-name='{good[3]}']")
    click(browser, "#copy-exclude")
    line = browser.execute_script("return window.copied")
    assert line.split(None, 1) == [good[3], "CLOUDY: 0.02 < 0.1"]

    assert browser.execute_script("return typeof window.hurt") == "undefined"
    assert [one["message"] for one in browser.get_log("browser")] == []
    messages = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    asked = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    ]
    here = imdir.as_uri()
    assert [url for url in asked if not url.startswith((here, "data:", "blob:"))] == []


# ------------------------------------------------------------------ progress


class Terminal(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def record(event=None, message="", level=logging.INFO, created=0.0, **facts):
    made = logging.LogRecord("snakemake", level, "x.py", 1, message, (), None)
    made.created = created
    if event:
        made.event = event
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def run(handler, jobs=3):
    """Let a handler see a run of a rule and of one that fails."""
    stats = {"all": 1, "prepare": jobs, "stack": 1, "total": jobs + 2}
    handler.emit(record(LogEvent.RUN_INFO, stats=stats))
    handler.begin()
    for k in range(jobs):
        handler.emit(record(LogEvent.JOB_INFO, created=float(k), jobid=k, rule_name="prepare"))
        handler.emit(record(LogEvent.JOB_FINISHED, created=k + 0.5, job_id=k))
    handler.emit(record(LogEvent.JOB_INFO, created=9.0, jobid=99, rule_name="stack"))
    handler.emit(
        record(LogEvent.JOB_ERROR, "Error", logging.ERROR, 9.5, jobid=99, rule_name="stack",
               output=["im/coaddT.r.fits"], log=["im/logs/stack/T.r.log"])
    )  # fmt: skip


def test_progress_counts_steps_and_names_what_failed():
    stream = Terminal(False)
    run(progress.Progress(SimpleNamespace(), stream=stream))
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"  prepare +3 done +2\.5 s +\(3 of 4.*\)", lines[0])
    assert lines[-1] == "stack failed on coaddT.r.fits; its log: im/logs/stack/T.r.log"
    assert "\r" not in stream.getvalue() and "\033" not in stream.getvalue()


def test_progress_on_a_terminal_writes_over_its_line(monkeypatch):
    monkeypatch.setattr(progress, "REDRAW_INTERVAL", 0.01)
    stream = Terminal(True)
    handler = progress.Progress(SimpleNamespace(), stream=stream)
    handler.emit(record(LogEvent.RUN_INFO, stats={"prepare": 3, "total": 3}))
    handler.begin()
    handler.emit(record(LogEvent.JOB_INFO, jobid=1, rule_name="prepare", created=time.time()))
    deadline = time.monotonic() + 5
    while "prepare 0/3" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    handler.end()
    assert "\r\033[K  0 of 3: prepare 0/3" in stream.getvalue()
    assert stream.getvalue().endswith("\r\033[K")
    written = len(stream.getvalue())
    time.sleep(0.05)
    assert len(stream.getvalue()) == written, "it writes on after the end"


def test_quiet_says_only_what_failed():
    stream = Terminal(True)
    run(progress.Progress(SimpleNamespace(), stream=stream, quiet=True))
    assert stream.getvalue().splitlines() == [
        "stack failed on coaddT.r.fits; its log: im/logs/stack/T.r.log"
    ]


def test_nothing_is_hidden_before_a_run_begins():
    handler = progress.Progress(SimpleNamespace(), stream=Terminal(False))
    assert not handler.takes(record(None, "Nothing to be done"))
    assert not handler.takes(record(LogEvent.ERROR, "wrong config", logging.ERROR))
    assert handler.takes(record(None, "Building DAG of jobs..."))
    handler.begin()
    assert handler.takes(record(None, "anything"))


def test_time_left_follows_the_steps():
    estimate = progress.Estimate({"prepare": 10, "stack": 2})
    assert estimate.left(5.0) is None
    for _ in range(10):
        estimate.finish("prepare", 1.0)
    estimate.finish("stack", 30.0)
    # 40 s of work took 20 s: two at a time, and one stack of 30 s is left.
    assert estimate.left(20.0) == pytest.approx(15.0)
    # After 10 s more on it, 20 s are left to one job: work so far went at 50 s in 30 s.
    assert estimate.left(30.0, running=10.0) == pytest.approx(20 * 30 / 50)
    estimate.finish("stack", 30.0)
    assert estimate.left(35.0) == 0


def test_stack_without_frames_has_a_header_and_no_picture(tmp_path):
    for name in ("coaddx.r.fits", "coaddx.r.weight.fits", "coaddx.r.cat.fits"):
        fits.PrimaryHDU(header=fits.Header({"QCSTAT": "REJECTED"})).writeto(tmp_path / name)
    assert page.read_coadd(tmp_path, "x.r") == (None, None, None)
    assert page.read_coadd(tmp_path, "y.r") == (None, None, None)
