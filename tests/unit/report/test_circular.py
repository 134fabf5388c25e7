"""Text of a GCN circular: the same from the page and from the exporter."""

from lib.report.circular import CircularRow, circular_text
from lib.report.targetview import Measurement, circular_row

MID = "2022-01-28T04:58:34"


def row(name, **numbers):
    known = dict.fromkeys(("magnitude", "error", "limit")) | numbers
    return CircularRow(MID, 400.0, name, system="AB", **known)


def test_text_is_plain_and_complete():
    rows = [row("r", limit=22.98), row("i", magnitude=18.659, error=0.004), row("é")]
    text = circular_text(
        "GRB 220128A é", (150.1, -20.3, 0.003), rows, ["SDSS", "", "NONE", "2MASS"]
    )
    lines = text.splitlines()
    assert text.isascii() and max(map(len, lines)) < 80
    assert lines[0].startswith("GRB 220128A")
    assert lines[1] == "RA, Dec (J2000): 10:00:24.000 -20:18:00.00 = 150.100000 -20.300000 deg"
    # A hundredth is the least error that is stated.
    assert lines[2] == "Error of the position: 0.01 arcsec per axis."
    words = [line.split() for line in lines]
    assert f"{MID} 400 s r > 22.98 (3 sigma) AB".split() in words
    assert f"{MID} 400 s i 18.66 +/- 0.01 AB".split() in words
    assert lines[-2:] == [
        "Calibrated against 2MASS, SDSS.", "Not corrected for Galactic extinction."
    ]  # fmt: skip
    head, first = (next(one for one in lines if word in one) for word in ("T_mid", "22.98"))
    for word, value in (("filter", "r "), ("magnitude", "> 22.98"), ("system", "AB")):
        assert head.index(word) == first.index(value)


def test_nothing_is_said_of_what_has_no_number():
    assert circular_text("T", (1.0, 2.0, None), [row("é")], ["SDSS"]) == ""
    assert row("r").line == ""


def test_what_moves_has_no_position():
    assert "RA, Dec" not in circular_text("433", None, [row("r", limit=20.0)], [])


def test_the_page_says_what_the_exporter_says():
    one = Measurement(
        "T.i", "i", MID, 5, 400.0, magnitude=18.659, error=0.004, limit=None, system="AB",
        snr=30.0, words="",
    )  # fmt: skip
    assert circular_row(one) == row("i", magnitude=18.659, error=0.004)
