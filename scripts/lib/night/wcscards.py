"""The initial WCS of a frame: from its header, or from pointing, scale and rotation."""

import math
from collections.abc import Sequence
from typing import Any

from lib.night.amplifiers import to_frame, to_raw
from lib.night.facts import Amplifier, FrameFacts
from lib.night.headervalues import Header, evaluate, get, number, text
from lib.night.skysystems import north_turn, system_of, to_icrs

Matrix = Sequence[Sequence[float]]
"""CD matrix [deg/pixel]: ((11, 12), (21, 22))."""


def camera_matrix(
    wcs: dict[str, Any], header: Header, filename: str, binning: str
) -> Matrix | None:
    """Return the CD matrix [deg/pixel] given by the instrument file, or None.

    With scales s1, s2 [arcsec/pixel] and rotation t: CD1_1 = -s1 cos t, CD2_1 = s1 sin t, CD1_2 =
    s2 sin t, CD2_2 = s2 cos t, over 3600; `parity: mirrored` changes the sign of s1.
    """
    bin_x, bin_y = (int(part) for part in binning.split("x"))
    if not wcs.get("scale_with_binning", True):
        bin_x = bin_y = 1
    if "cd" in wcs:
        (a, b), (c, d) = wcs["cd"]
        return (a * bin_x / 3600, b * bin_y / 3600), (c * bin_x / 3600, d * bin_y / 3600)
    scales = wcs.get("pixscale")
    if (
        isinstance(scales, list)
        and len(scales) == 2
        and all(isinstance(scale, (int, float)) for scale in scales)
    ):
        s1, s2 = scales
    else:
        s1 = s2 = number(evaluate(scales, header, filename))
        if s1 is None or not 1e-4 < abs(s1) < 1e4:
            return None
    rotation = number(evaluate(wcs.get("rotation", 0), header, filename))
    if rotation is None:
        rotation = 0.0
    if wcs.get("parity") == "mirrored":
        s1 = -s1
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    s1, s2 = s1 * bin_x / 3600, s2 * bin_y / 3600
    return (-s1 * cos, s2 * sin), (s1 * sin, s2 * cos)


def cd_scale(cd: Matrix) -> float:
    """Return the pixel scale [arcsec/pixel] of a CD matrix [deg/pixel]."""
    (a, b), (c, d) = cd
    return 3600 * math.sqrt(abs(a * d - b * c))


def _pair(header: Header, key: str) -> list[float] | None:
    """Return the values of a keyword for both axes; None where one is missing."""
    values = [number(get(header, f"{key}{axis}")) for axis in (1, 2)]
    known = [value for value in values if value is not None]
    return known if len(known) == 2 else None


def _header_matrix(header: Header) -> Matrix | None:
    """Return the CD matrix of a header: from CD, else from CDELT with PC or CROTA2."""
    cd = [[number(get(header, f"CD{i}_{j}")) for j in (1, 2)] for i in (1, 2)]
    if cd != [[None, None], [None, None]]:
        return [[value or 0.0 for value in row] for row in cd]
    delta = _pair(header, "CDELT")
    if delta is None:
        return None
    pc = [[number(get(header, f"PC{i}_{j}")) for j in (1, 2)] for i in (1, 2)]
    if any(value is not None for row in pc for value in row):
        unit = [[1.0, 0.0], [0.0, 1.0]]
        return [
            [delta[i] * (unit[i][j] if (value := pc[i][j]) is None else value) for j in (0, 1)]
            for i in (0, 1)
        ]
    turn = math.radians(number(get(header, "CROTA2")) or 0.0)
    cos, sin = math.cos(turn), math.sin(turn)
    return [[delta[0] * cos, -delta[1] * sin], [delta[0] * sin, delta[1] * cos]]


_TYPES = {
    axis: tuple(axis + projection for projection in ("TAN", "TPV", "TAN-SIP"))
    for axis in ("RA---", "DEC--")
}

HeaderWCS = tuple[list[float], list[float], Matrix, dict[str, float]]
"""CRVAL [deg], CRPIX [pixel], CD matrix [deg/pixel] and PV cards."""


def header_wcs(
    header: Header,
) -> HeaderWCS | None:
    """Return the linear celestial WCS of a header: (crval, crpix, cd, pv cards) or None.

    Distortion other than TPV is dropped: the WCS is only the initial guess of the astrometry.
    """
    types = [text(get(header, f"CTYPE{axis}")) for axis in (1, 2)]
    if types[0] not in _TYPES["RA---"] or types[1] not in _TYPES["DEC--"]:
        return None
    crval, crpix = _pair(header, "CRVAL"), _pair(header, "CRPIX")
    if crval is None or crpix is None or abs(crval[1]) > 90 or not -360 <= crval[0] <= 360:
        return None
    if max(abs(value) for value in crpix) > 1e6:
        return None
    cd = _header_matrix(header)
    if cd is None or max(abs(value) for row in cd for value in row) > 10:
        return None
    if not 1e-3 < cd_scale(cd) < 1e3:
        return None
    cards: dict[str, float] = {}
    if types[0].endswith("TPV"):
        for axis in (1, 2):
            for term in range(40):
                value = number(get(header, f"PV{axis}_{term}"))
                if value is not None:
                    cards[f"PV{axis}_{term}"] = value
    return crval, crpix, cd, cards


def _in_icrs(wcs: HeaderWCS, header: Header, mjd: float) -> HeaderWCS:
    """Return the WCS of a header in ICRS: shifted, and rotated to its north."""
    crval, crpix, cd, pv = wcs
    system = system_of(header, wcs=True)
    if system.is_icrs:
        return wcs
    turn = north_turn(crval[0], crval[1], system, mjd)
    cos, sin = math.cos(turn), math.sin(turn)
    (a, b), (c, d) = cd
    cd = (a * cos + c * sin, b * cos + d * sin), (c * cos - a * sin, d * cos - b * sin)
    return list(to_icrs(crval[0], crval[1], system, mjd)), crpix, cd, pv


def _reference_amplifier(
    amplifiers: Sequence[Amplifier], used: int, crpix: Sequence[float]
) -> Amplifier:
    """Return the amplifier to whose pixels a reference pixel refers.

    It is the image's own amplifier or, for several in one image, the one closest to the pixel.

    Parameters
    ----------
    amplifiers : list of Amplifier
    used : int
        Index among several images.
    crpix : sequence of float
        x, y in the raw image [pixel].
    """
    if len({one.hdu for one in amplifiers}) > 1:
        return amplifiers[min(used, len(amplifiers) - 1)]

    def distance(one: Amplifier) -> float:
        y0, y1, x0, x1 = one.data
        x, y = crpix[0] - 0.5, crpix[1] - 0.5
        return max(x0 - x, x - x1, 0) + max(y0 - y, y - y1, 0)

    return min(amplifiers, key=distance)


def wcs_cards(
    wcs: dict[str, Any],
    cd: Matrix | None,
    headers: list[Header],
    facts: FrameFacts,
    raw_shape: list[int],
) -> tuple[dict[str, Any] | None, Matrix | None]:
    """Return the cards of the initial WCS of a frame, or None, and its CD matrix.

    Parameters
    ----------
    wcs : dict
        Section `wcs` of the camera.
    cd : matrix or None
        As returned by `camera_matrix`.
    headers : list of mapping
        Header of the frame, followed by those of its images.
    facts : FrameFacts
        With amplifiers and shape: CRPIX is in the trimmed or joined frame.
    raw_shape : list of int
        Shape of the first image.
    """
    found = _first_wcs(headers, cd, facts.mjd) if wcs.get("header", False) else None
    if found is not None:
        used, (crval, crpix, cd, pv) = found
    elif cd is None or facts.ra is None or facts.dec is None:
        return None, cd
    else:
        used, crval, pv = 0, [facts.ra, facts.dec], {}
        crpix = list(_pointing_pixel(wcs, facts, raw_shape))
    amplifier = _reference_amplifier(facts.amplifiers, used, crpix)
    x, y, sign_x, sign_y = to_frame(amplifier, *crpix)
    (a, b), (c, d) = cd
    cd = (a * sign_x, b * sign_y), (c * sign_x, d * sign_y)
    distortion = wcs.get("distortion")
    if distortion and not pv:
        for axis in (1, 2):
            for term, value in distortion.items():
                pv[f"PV{axis}_{term}"] = float(value)
    kind = "TPV" if pv else "TAN"
    cards = {
        "CTYPE1": f"RA---{kind}",
        "CTYPE2": f"DEC--{kind}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": round(crval[0] % 360, 9) % 360,
        "CRVAL2": round(crval[1], 9),
        "CRPIX1": round(x, 4),
        "CRPIX2": round(y, 4),
        "CD1_1": cd[0][0],
        "CD1_2": cd[0][1],
        "CD2_1": cd[1][0],
        "CD2_2": cd[1][1],
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
    }
    cards.update(pv)
    return cards, cd


def _first_wcs(
    headers: list[Header], cd: Matrix | None, mjd: float
) -> tuple[int, HeaderWCS] | None:
    """Return the first WCS in some headers, in ICRS, and the index of its image; or None.

    A WCS with a scale that the camera (`cd`, if known) cannot have belongs to something else.
    """
    for index, header in enumerate(headers):
        if index and header is headers[0]:
            continue
        found = header_wcs(header)
        if found is None:
            continue
        if cd is not None and abs(math.log(cd_scale(found[2]) / cd_scale(cd))) > math.log(1.2):
            continue
        return max(index - 1, 0), _in_icrs(found, header, mjd)
    return None


def _pointing_pixel(
    wcs: dict[str, Any], facts: FrameFacts, raw_shape: list[int]
) -> Sequence[float]:
    """Return the pixel (x, y) of the raw image to which the pointing in the header refers."""
    crpix = wcs.get("refpix")
    full = wcs.get("shape")
    if crpix is None:
        if len(facts.amplifiers) > 1:
            # the centre of the joined frame, in pixels of its first amplifier
            first = facts.amplifiers[0]
            return to_raw(first, (facts.shape[1] + 1) / 2, (facts.shape[0] + 1) / 2)
        return [(raw_shape[1] + 1) / 2, (raw_shape[0] + 1) / 2]
    if full:
        return [crpix[0] * raw_shape[1] / full[1], crpix[1] * raw_shape[0] / full[0]]
    return crpix
