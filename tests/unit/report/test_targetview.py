"""What the page says of a target."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lib.photometry.flags import FLAG_OUTSIDE
from lib.report import targetview
from lib.report.outcomes import StackOutcome
from lib.report.stackviews import StackView
from lib.report.summary import stack_numbers


def stack_view(name, zpreason="", **cards):
    numbers = stack_numbers(name, StackOutcome(cards, [], {}, {}), {})
    return StackView(numbers, [], [80, 64], [], 0, zpreason, "", None, None)


def joint_table(path, match=3, **columns):
    table = Table({
        "NUMBER": np.arange(1, 5), "RA": [150.0, 150.1, 150.00002, 150.2], "DEC": 2.0 * np.ones(4),
        "TARGET": [True, False, False, False], "MATCH": [match, 0, 0, 0],
    })  # fmt: skip
    for name, value in columns.items():
        table[name] = [value] * 4
    table.meta = {"target_source": "config", "left_out": {"i": "TOO_FEW_FRAMES: 1 < 3"}}
    table.write(path, format="ascii.ecsv")
    return path


def test_position_is_that_of_the_source_with_its_error(tmp_path):
    rows = targetview.read_target_rows(joint_table(tmp_path / "T.ecsv"))
    sources = Table({"RA": [150.3, 150.00002], "DEC": [2.0, 2.0], "POSERR": [1.0, 30.0]})
    table = fits.table_to_hdu(sources)
    table.name = "SOURCES"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "coaddT.r.cat.fits")
    view = stack_view("T.r", ASTRCAT="GaiaDR3", ASTRMS1=300.0, ASTRMS2=400.0, ASTRNST=100)
    place = targetview.locate(rows, [view], tmp_path)
    # 30 mas of the source, 400 mas / 10 of the tie to the catalogue.
    assert place.error == pytest.approx(0.050)
    assert (place.ra, place.stack) == (150.00002, "T.r")
    assert place.sexagesimal == ("10:00:00.005", "+02:00:00.00")
    alone = targetview.locate(rows, [stack_view("T.r", ASTRCAT="NONE")], tmp_path)
    assert alone.error is None and "not tied" in alone.words


def test_damaged_tables_and_those_of_another_version_are_not_shown(tmp_path):
    path = joint_table(tmp_path / "T.ecsv")
    text = path.read_text()
    damages = (
        text[: len(text) // 2],
        text.replace("MATCH", "OTHER"),
        text.replace(" 150.1", ""),
        text.replace("datatype: int64", "datatype: {"),
        "",
        "# %ECSV 1.0\n",
    )
    for spoilt in damages:
        path.write_text(spoilt)
        rows = targetview.read_target_rows(path)
        assert rows is None or rows.target["RA"] == 150.0
    path.write_bytes(b"\xff\xfe" + text.encode())
    assert targetview.read_target_rows(path) is None
    assert targetview.read_curve(path) is None
    assert targetview.read_target_rows(tmp_path / "none.ecsv") is None


def test_position_without_a_source_is_the_one_asked_for(tmp_path):
    rows = targetview.read_target_rows(joint_table(tmp_path / "T.ecsv", match=0))
    place = targetview.locate(rows, [], tmp_path)
    assert (place.ra, place.error, place.stack) == (150.0, None, "")
    assert "no source" in place.words


@pytest.mark.parametrize(
    ("columns", "cards", "told"),
    [
        ({"MAG_r": 18.4, "MAGERR_r": 0.03, "FLUX_r": 90.0, "FLUXERR_r": 3.0}, {},
         (18.4, 0.05, None, "AB", "")),
        ({"LIMIT_r": 22.3, "FLUX_r": 1.0, "FLUXERR_r": 3.0}, {}, (None, None, 22.3, "AB", "")),
        ({"FLUX_r": np.nan, "FLAGS_r": FLAG_OUTSIDE}, {},
         (None, None, None, "AB", "outside of the field, or no usable pixel there")),
        ({"FLUX_r": 90.0, "FLUXERR_r": 3.0}, {"ABSZPT": None},
         (None, None, None, "", "seen at S/N 30.0; no zero point: no reference")),
        ({}, {}, (None, None, None, "AB", "not measured")),
    ],
)  # fmt: skip
def test_magnitude_limit_or_why_there_is_none(tmp_path, columns, cards, told):
    columns = {"MAG_r": np.nan, "LIMIT_r": np.nan, "FLAGS_r": 0} | columns if columns else {}
    rows = targetview.read_target_rows(joint_table(tmp_path / "T.ecsv", **columns))
    usual = {"ABSZPT": 27.0, "ABSZPERR": 0.04, "ZPSYS": "AB", "NSTACK": 3, "TOTALEXP": 30.0,
             "DATE-OBS": "2022-01-28T05:00:00.000"}  # fmt: skip
    kept = {key: value for key, value in (usual | cards).items() if value is not None}
    view = stack_view("T.r", "no reference", **kept)
    values = targetview.measured_values(view, None, rows)
    one = targetview.measure(view, StackOutcome(kept, [], {}, {}), values)
    error = None if told[1] is None else pytest.approx(told[1])
    assert (one.magnitude, error, one.limit, one.system, one.words) == (
        told[0], one.error, *told[2:]
    )  # fmt: skip
    assert bool(one.gcn) == (one.magnitude is not None or one.limit is not None)


def test_filter_left_out_has_its_reason(tmp_path):
    rows = targetview.read_target_rows(joint_table(tmp_path / "T.ecsv"))
    cards = {"ABSZPT": 27.0}
    view = stack_view("T.i", **cards)
    assert targetview.measured_values(view, None, rows) is None
    one = targetview.measure(view, StackOutcome(cards, [], {}, {}), None, rows.left_out["i"])
    assert one.words == "too few frames: 1 < 3"
    none = targetview.measure(stack_view("T.i"), StackOutcome({}, [], {}, {}), None)
    assert none.words == "no stack"


def test_nearest_star_is_told_with_distance_angle_and_magnitudes():
    reference = Table(
        {"ra": [359.999, 0.5], "dec": [60.0, 60.0], "r": [17.26, 12.0], "J": [np.nan] * 2}
    )
    place = targetview.Position(0.001, 60.0, 0.1, "", "T.r")
    star = targetview.nearest_star(reference, place, 1.0)
    assert star.distance == pytest.approx(0.002 * 3600 * 0.5, abs=1e-3)
    assert star.angle == pytest.approx(270, abs=0.01)
    assert star.magnitudes == "r 17.3 AB" and not star.same
    assert targetview.nearest_star(reference, place, 10.0).same
    assert targetview.nearest_star(None, place, 1.0) is None


def curve():
    """Two frames, one of them without data, their bin, and their stack."""
    table = Table({
        "KIND": ["frame", "frame", "frame", "bin", "stack"], "FRAME": ["a", "b", "c", "a", "T.r"],
        "FILTER": ["r"] * 5, "MJD": [40588.0, 40588.5, np.nan, 40588.25, 40588.25],
        "MAG": [18.0, np.nan, 18.0, 18.1, 18.2], "MAGERR": [0.1, np.nan, 0.1, 0.05, 0.03],
        "LIMIT": [np.nan] * 5, "FLUX": [5.0, np.nan, 5.0, 5.0, 6.0], "FLUXERR": [0.5] * 5,
        "ZPERR": [0.0, 0.0, 0.0, 0.0, 0.04], "FLAGS": [0, FLAG_OUTSIDE, 0, 0, 0],
        "USED": [True] * 5, "REASON": [""] * 5, "NFRAMES": [1, 1, 1, 2, 2],
    })  # fmt: skip
    table.meta = {"scale": {"r": {"common_error": 0.12}}}
    return table


def test_light_curve_keeps_frames_that_were_not_measured():
    assert targetview.curve_points(curve()) == [
        ["a", "r", 86400000, 18.0, 0.1, None, 5.0, 0.5, 1, "", 1],
        ["b", "r", 129600000, None, None, None, None, 0.5, 1, "no usable pixel at the target", 1],
        ["a", "r", 108000000, 18.1, 0.05, None, 5.0, 0.5, 1, "", 2],
    ]


def test_magnitude_of_a_stack_is_that_of_the_light_curve():
    """It is on the scale of the frames; its error has those of that scale."""
    cards = {"ABSZPT": 27.0, "ABSZPERR": 0.5, "ZPSYS": "AB", "NSTACK": 2}
    view = stack_view("T.r", **cards)
    values = targetview.measured_values(view, curve(), None)
    one = targetview.measure(view, StackOutcome(cards, [], {}, {}), values)
    assert (one.magnitude, one.error) == (18.2, pytest.approx(0.13))
    assert (one.mid, one.snr) == ("1970-01-02T06:00:00", 12)
    assert targetview.measured_values(stack_view("T.i"), curve(), None) is None
    part = stack_view("T.r.n20220128", **cards)
    assert targetview.measured_values(part, curve(), None) is None, "another stack of the filter"
