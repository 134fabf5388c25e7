"""lib.stack.header: cards of coadds."""

import pytest
from starfields import (
    make_header,
)

from lib.photometry.zeropoint import Zeropoint
from lib.stack.header import airmass_cards, time_cards, zeropoint_cards


def test_false_airmass_and_time_do_not_count():
    headers = [make_header() for _ in range(3)]
    for header, airmass in zip(headers, [1.2, 13.37, "bad"], strict=True):
        header["AIRMASS"] = airmass
    assert airmass_cards(headers)["AIRMASS"][0] == 1.2
    assert airmass_cards([make_header()]) == {}
    assert "DATE1" not in time_cards([make_header()])


def test_vega_bands_and_both_systems():
    zeropoint = Zeropoint(value=24.0, error=0.01, n_stars=20)
    cards = zeropoint_cards(zeropoint, "J", "2MASS")
    assert cards["ZPSYS"][0] == "Vega" and cards["ABSZPVEG"][0] == 24.0
    assert cards["ABSZPAB"][0] == pytest.approx(24.91)
    cards = zeropoint_cards(zeropoint, "r", "x")
    assert cards["ZPSYS"][0] == "AB" and cards["ABSZPVEG"][0] == pytest.approx(23.84)
