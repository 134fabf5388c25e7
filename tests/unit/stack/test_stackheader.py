"""lib.stack.header: cards of coadds."""

import numpy as np
import pytest
from astropy.io import fits
from starfields import (
    SCALE,
    make_header,
)

from lib.core.settings import StackSettings
from lib.photometry.zeropoint import Zeropoint
from lib.stack.header import (
    airmass_cards,
    dither_of,
    flag_stack,
    time_cards,
    zeropoint_cards,
)


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


@pytest.mark.parametrize(
    ("step", "sky", "told"), [(0.5, "sky-r.fits", True), (5, "sky-r.fits", False), (0.5, "", False)]
)
def test_frames_without_dither_are_told_where_their_stars_are_in_the_sky(step, sky, told):
    headers = []
    for k in range(3):
        header = make_header(shift=(0, k * step / SCALE))
        header["NAXIS1"] = header["NAXIS2"] = 420
        if sky:
            header["SKYFILE"] = sky
        headers.append(header)
    assert dither_of(headers) == pytest.approx(step if sky else np.inf, rel=1e-3)
    coadd = fits.Header()
    coadd["NSTACK"], coadd["ASTRCAT"], coadd["SEEING"] = 3, "x", 1.5
    flags = flag_stack(coadd, headers, Zeropoint(value=25.0, error=0.01), StackSettings())
    assert ("UNDITHERED" in flags) == told == ("UNDITHERED" in coadd.get("QCFLAG", ""))


@pytest.mark.parametrize(
    ("zeros", "told"),
    [
        ([("profile", 0.0004), ("profile", 0.0006)], ", zero to 0.0006"),
        ([("faint places", None)] * 2, ""),
        ([("profile", 0.0004), ("unknown", None)], ", zero unknown"),
        ([], ""),
    ],
)
def test_what_is_known_of_the_zero_level_of_extended_light_is_told(zeros, told):
    headers = []
    for kind, error in zeros or [(None, None)]:
        header = make_header()
        header["SKYMODE"], header["EXTLIGHT"] = "separated", 0.19
        if kind:
            header["EXTZERO"] = kind
        if error:
            header["EXTZERR"] = error
        headers.append(header)
    coadd = fits.Header()
    coadd["NSTACK"], coadd["ASTRCAT"], coadd["SEEING"] = 3, "x", 1.5
    flag_stack(coadd, headers, Zeropoint(value=25.0, error=0.01), StackSettings())
    told = f"EXTENDED_LIGHT: to 0.19 of the sky in {len(headers)} frames{told}"
    assert told in coadd["QCREASON"]
    # The reason is cut where a stack has many.
    kinds, errors = [kind for kind, _ in zeros], [error for _, error in zeros if error]
    worst = "unknown" if "unknown" in kinds else kinds[0] if kinds else None
    assert coadd.get("EXTZERO") == worst
    assert coadd.get("EXTZERR") == max(errors, default=None)
    assert coadd["EXTLIGHT"] == 0.19
