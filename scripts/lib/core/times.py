"""Times of observations at the barycentre of the solar system, without any network."""

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

JD_OF_MJD = 2400000.5
"""Julian date of MJD 0."""

MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
"""The moment of MJD 0."""


@cache
def _steady_earth() -> Any:
    """Return a table by which UT1 is UTC and the poles stand still: it need not be fetched."""
    from astropy import units
    from astropy.utils import iers

    still = [0.0, 0.0]
    return iers.IERS({
        "MJD": [0.0, 1e5] * units.day, "UT1_UTC": still * units.second,
        "PM_x": still * units.arcsec, "PM_y": still * units.arcsec,
    })  # fmt: skip


def barycentric_dates(
    mjd: ArrayLike, ra: ArrayLike, dec: ArrayLike, site: Sequence[float] | None = None
) -> np.ndarray:
    """Return barycentric Julian dates in TDB of times in UTC.

    By `astropy.time` and its built-in ephemeris of the Earth (erfa's epv00, good to 0.1 ms of
    light travel time). The rotation of the Earth is taken as UT1 = UTC, which changes the light
    travel time by less than 2 microseconds: no table of it is fetched.

    Parameters
    ----------
    mjd : array_like, shape (n,)
        UTC [d]; NaN where unknown.
    ra, dec : array_like, shape (n,) or ()
        ICRS [deg].
    site : sequence of float, optional
        Latitude, longitude (east positive) [deg] and elevation [m]; the centre of the Earth where
        it is not known, which is wrong by up to 21 ms.

    Returns
    -------
    ndarray, shape (n,)
        BJD_TDB [d], NaN where a time or a position is.
    """
    from astropy import units
    from astropy.coordinates import EarthLocation, SkyCoord
    from astropy.time import Time
    from astropy.utils import iers

    mjd = np.atleast_1d(np.asarray(mjd, float))
    ra, dec = (np.broadcast_to(np.asarray(angle, float), mjd.shape) for angle in (ra, dec))
    found = np.full(mjd.shape, np.nan)
    known = np.isfinite(mjd) & np.isfinite(ra) & np.isfinite(dec)
    if not known.any():
        return found
    with (
        warnings.catch_warnings(),
        iers.conf.set_temp("auto_download", False),
        iers.earth_orientation_table.set(_steady_earth()),
    ):
        # Years for which leap seconds are not known yet.
        warnings.filterwarnings("ignore", ".*dubious year")
        if site is None:
            location = EarthLocation.from_geocentric(0, 0, 0, unit=units.m)
        else:
            latitude, longitude, elevation = site
            location = EarthLocation.from_geodetic(longitude, latitude, elevation)
        time = Time(mjd[known], format="mjd", scale="utc", location=location)
        towards = SkyCoord(ra[known], dec[known], unit="deg")
        delay = time.light_travel_time(towards, "barycentric", ephemeris="builtin")
        found[known] = (time.tdb + delay).jd
    return found
