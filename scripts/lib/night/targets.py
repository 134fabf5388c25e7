"""Position of the target of a stack."""

import re
from typing import Any

import numpy as np


class TargetError(ValueError):
    """A position that cannot be read; the message is one sentence."""


def parse_position(value: Any) -> tuple[float, float] | None:
    """Return the position given by setting `target_radec`.

    Parameters
    ----------
    value : sequence of two float or str, str, or None
        Degrees, or sexagesimal text (hours and degrees), e.g. ``[150.1, 20.3]``, ``"10:00:24.5
        +20:18:00"`` or ``["10h00m24.5s", "+20d18m00s"]``.

    Returns
    -------
    tuple of float, or None
        ra, dec [deg].

    Raises
    ------
    TargetError
    """
    if value is None or len(value) == 0:
        return None
    words = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    if len(words) == 6:
        words = [" ".join(map(str, words[:3])), " ".join(map(str, words[3:]))]
    if len(words) == 2:
        ra = parse_angle(words[0], 15.0)
        dec = parse_angle(words[1], 1.0)
        if ra is not None and dec is not None and 0 <= ra < 360 and abs(dec) <= 90:
            return ra, dec
    raise TargetError(
        f"target_radec: {value!r} is no position; write two degrees, as [150.1, 20.3], or "
        "'10:00:24.5 +20:18:00'"
    )


def parse_angle(word: Any, factor: float) -> float | None:
    """Return degrees from a number (degrees) or a sexagesimal text (10:00:24.5); None if neither.

    Parameters
    ----------
    word : float or str
    factor : float
        Degrees per unit of the first part: 15 for hours.
    """
    if isinstance(word, bool):
        return None
    if isinstance(word, int | float):
        return float(word)
    parts = [part for part in re.split(r"[:hdms°'\"\s]+", str(word).strip()) if part]
    try:
        numbers = [abs(float(part)) for part in parts]
    except ValueError:
        return None
    if not 1 <= len(numbers) <= 3 or any(number >= 60 for number in numbers[1:]):
        return None
    sign = -1.0 if str(word).strip().startswith("-") else 1.0
    value = sign * sum(number / 60**k for k, number in enumerate(numbers))
    return value if len(numbers) == 1 else value * factor


def target_position(configured: tuple[float, float] | None, headers: Any) -> Any:
    """Return the position of a target.

    Parameters
    ----------
    configured : tuple of float, or None
        Setting `target_radec`, used for targets within a degree of it, because a night may have
        several.
    headers : sequence of astropy.io.fits.Header
        Headers of the target's coadds: RA and DEC are the pointing, CRVAL the centre.

    Returns
    -------
    ra, dec : float
        Position [deg]; NaN where unknown.
    source : {'config', 'header', 'solution', ''}
        Origin of the position; solution: the centre of the solved frames, because the pointing was
        wrong.
    """
    if configured is not None:
        for header in headers:
            if "CRVAL1" in header and _apart(configured, header["CRVAL1"], header["CRVAL2"]) < 1:
                return *configured, "config"
    for header in headers:
        if isinstance(header.get("RA"), float) and isinstance(header.get("DEC"), float):
            source = "solution" if "POINTOFF" in header else "header"
            return header["RA"], header["DEC"], source
    return np.nan, np.nan, ""


def _apart(position, ra, dec):
    """Return the approximate angular distance of two positions [deg]."""
    east = (position[0] - ra + 180) % 360 - 180
    return float(np.hypot(east * np.cos(np.radians(dec)), position[1] - dec))
