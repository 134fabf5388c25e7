"""Answers that recur from header to header."""

import pytest

from lib.night import recurring
from lib.night.headervalues import evaluate
from lib.night.interpret import interpret, merged_header
from lib.night.rawheaders import RawHDU, parse_header
from lib.night.recurring import Recurring


def header(*cards):
    return parse_header("".join(f"{card:<80}" for card in (*cards, "END")).encode())


def asked(recurring, cards, filename="a.fits", *more):
    """The number of times that a new answer is worked out for headers, one after the other."""
    count = []
    for one in cards:
        recurring.answer(header(*one), filename, lambda: count.append(1), *more)
    return len(count)


def test_answer_is_kept_by_the_cards_it_depends_on():
    spec = ["FILTER", {"wheels": ["FILT1", "HIERARCH ESO FILT2"]}]
    red, blue = ["FILTER  = 'R'"], ["FILTER  = 'B'"]
    other = [*red, "DATE-OBS= '2026-01-01'"]
    assert asked(Recurring([spec]), [red, other, red, blue, [], blue]) == 3
    assert asked(Recurring([spec]), [red, [*red, "HIERARCH ESO FILT2 = 'ND'"]]) == 2
    assert asked(Recurring([spec], ["DATE-OBS"]), [red, other, other]) == 2


@pytest.mark.parametrize(
    "cards",
    [
        ["GAIN    =                    2", "GAIN    =                  2.0"],
        ["GAIN    =                    1", "GAIN    =                    T"],
        ["GAIN    =                  2.0 / [e-/ADU]", "GAIN    =                  2.0 / [ADU/e-]"],
        ["GAIN    = '2 &'", "GAIN    = '2 &'".ljust(80) + "CONTINUE  'e-/ADU'"],
    ],
)
def test_cards_that_differ_in_type_unit_or_continuation_are_told_apart(cards):
    assert asked(Recurring(["GAIN"]), [[card] for card in cards]) == 2


def test_what_the_file_name_tells_and_what_is_asked_beside_counts():
    kind = Recurring([[{"file_name": r"C\d([bo])", "map": {"b": "bias"}}, "X"]])
    count = []
    for name, more in (("1C0b", 1), ("2C0b", 1), ("3C0o", 1), ("4C0o", 2), ("5", 2)):
        kind.answer(header(), name, lambda: count.append(1), more)
    assert len(count) == 4


def test_errors_are_raised_each_time_and_what_is_kept_is_bounded(monkeypatch):
    def fail():
        raise KeyError("none")

    monkeypatch.setattr(recurring, "MOST", 3)
    one = Recurring(["A"])
    for _ in range(2):
        with pytest.raises(KeyError):
            one.answer(header(), "", fail)
    values = [header(f"A       = {k % 5}") for k in range(20)]
    assert [one.answer(card, "", lambda: evaluate("A", card)) for card in values] == [  # noqa: B023
        k % 5 for k in range(20)
    ]
    assert len(one._answers) <= 3


BASE = [
    "SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", "NAXIS1  = 64", "NAXIS2  = 64",
    "EXPTIME = 10.0", "DATE-OBS= '2026-01-01T01:02:03'", "FILTER  = 'V'", "RDNOISE = 5.0",
]  # fmt: skip

INSTRUMENT = {
    "name": "mine",
    "type": {"key": "IMAGETYP", "map": {"(?i)flat": "flat", "(?i)light": "object"}},
    "object": "OBJECT", "filter": "FILTER", "exptime": "EXPTIME", "date": "DATE-OBS",
    "cameras": {
        "C0": {
            "gain": ["GAIN", "EGAIN"], "rdnoise": "RDNOISE", "saturate": ["SATURATE", 65535],
            "calibrations": {}, "wcs": {"pixscale": "SCALE"},
        }
    },
}  # fmt: skip


def test_frames_of_one_camera_do_not_take_each_others_values():
    """What one frame has is not seen in the next; each is read as it would be alone."""
    nights = [
        ["IMAGETYP= 'Light'", "GAIN    =                  2.0", "OBJECT  = 'M13'"],
        ["IMAGETYP= 'Light'", "GAIN    =                  0.5 / [ADU/e-]", "OBJECT  = 'M13'"],
        ["IMAGETYP= 'Light'", "GAIN    =                  100", "EGAIN   = 1.5", "SCALE   = 0.5"],
        ["IMAGETYP= 'Flat'", "OBJECT  = 'dome'", "GAIN    = 1.5", "SATURATE=              4095"],
        ["IMAGETYP= 'Flat'", "OBJECT  = 'sky'", "GAIN    = 1.5", "SATURATE=                -1"],
    ]
    read = []
    for _ in range(2):
        for cards in nights:
            one = header(*BASE, *cards)
            (facts,) = interpret(one, [RawHDU(0, one, [64, 64])], "a.fits", INSTRUMENT)
            alone = INSTRUMENT | {"cameras": {"C0": dict(INSTRUMENT["cameras"]["C0"])}}
            assert interpret(one, [RawHDU(0, one, [64, 64])], "a.fits", alone) == [facts]
            read.append(facts)
    assert read[:5] == read[5:]
    assert [one.gain for one in read[:5]] == [2.0, 2.0, 1.5, 1.5, 1.5]
    assert [one.pixscale for one in read[:3]] == [None, None, 0.5]
    assert [one.saturate for one in read[:5]] == [65535, 65535, 65535, 4095, 65535]
    assert [one.source for one in read[3:5]] == ["dome", "sky"]
    assert read[4].notes == ["SATURATE -1 cannot be: saturation 65535 is used"]


def test_merged_headers_keep_the_cards_that_count():
    primary = header("GAIN    = 1.0 / [e-/ADU]", "A       = 1")
    extension = header("GAIN    = '' / nothing", "A       = 2 / two", "B       = 3")
    merged = merged_header(primary, extension)
    assert merged == {"GAIN": 1.0, "A": 2, "B": 3}
    assert {key: card.rstrip() for key, card in merged.card_of.items()} == {
        "GAIN": "GAIN    = 1.0 / [e-/ADU]", "A": "A       = 2 / two", "B": "B       = 3",
    }  # fmt: skip
