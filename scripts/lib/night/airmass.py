"""Altitude and airmass of a pointing."""

import math


def altitude(mjd: float, ra: float, dec: float, latitude: float, longitude: float) -> float:
    """Return the altitude of a position [deg], accurate to about 0.3 deg.

    Parameters
    ----------
    mjd : float
        UTC [d].
    ra, dec : float
        Position [deg]; precession since J2000 is neglected.
    latitude, longitude : float
        Site [deg], east positive.

    Notes
    -----
    Mean sidereal time, Meeus, Astronomical Algorithms (1998), eq. 12.4.
    """
    sidereal = 280.46061837 + 360.98564736629 * (mjd - 51544.5) + longitude
    hour_angle = math.radians(sidereal - ra)
    dec, latitude = math.radians(dec), math.radians(latitude)
    sine = math.sin(latitude) * math.sin(dec)
    sine += math.cos(latitude) * math.cos(dec) * math.cos(hour_angle)
    return math.degrees(math.asin(max(-1.0, min(1.0, sine))))


def airmass_at(altitude_deg: float) -> float | None:
    """Return the airmass at an apparent altitude [deg] (Pickering 2002); None below 2 deg."""
    if altitude_deg < 2:
        return None
    return 1 / math.sin(math.radians(altitude_deg + 244 / (165 + 47 * altitude_deg**1.1)))
