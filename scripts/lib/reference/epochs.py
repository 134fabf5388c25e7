"""Positions of stars at another epoch, and stars of two catalogues that are the same.

Both are astropy's: `SkyCoord.apply_space_motion` and `SkyCoord.match_to_catalog_sky`. It is
imported where it is used, for a reference without stars needs neither.
"""

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

TYPICAL_PM = 5.0
"""Proper motion [mas/yr] by which the position of a star without measured one may have moved:
the dispersion of faint field stars."""


def move_positions(
    ra: ArrayLike, dec: ArrayLike, pmra: ArrayLike, pmdec: ArrayLike, years: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions [deg] moved along great circles by proper motion.

    Parameters
    ----------
    ra, dec : array_like
        [deg]
    pmra, pmdec : array_like
        [mas/yr], pmra times cos(dec); NaN moves nothing.
    years : array_like
        Time to move over [yr].
    """
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time

    rate = u.mas / u.yr
    stars = SkyCoord(
        np.asarray(ra, float) * u.deg,
        np.asarray(dec, float) * u.deg,
        pm_ra_cosdec=np.nan_to_num(np.asarray(pmra, float)) * rate,
        pm_dec=np.nan_to_num(np.asarray(pmdec, float)) * rate,
        # Any distance at which no star is as fast as light.
        distance=10 * u.pc,
        # Any date will do; in TDB no leap seconds are asked for.
        obstime=Time(2000.0, format="jyear", scale="tdb"),
    )
    moved = stars.apply_space_motion(dt=np.asarray(years, float) * u.yr)
    return moved.ra.deg, moved.dec.deg


def move_to_epoch(table: Table, epoch: float) -> Table:
    """Return a copy of a reference table with its positions at `epoch`, and errors as of then.

    Stars whose proper motion is not measured stay where they are and their errors grow by
    `TYPICAL_PM`; rows without an epoch are left alone. Errors of the proper motions
    (``pmra_err``, ``pmdec_err`` [mas/yr]) enter where the table has them.

    Parameters
    ----------
    table : astropy.table.Table
    epoch : float
        Decimal year of observation.
    """
    moved = table.copy()
    if len(moved) == 0:
        return moved
    years = np.where(np.isfinite(table["epoch"]), epoch - np.asarray(table["epoch"]), 0.0)
    moved["ra"], moved["dec"] = move_positions(
        table["ra"], table["dec"], table["pmra"], table["pmdec"], years
    )
    for axis in ("ra", "dec"):
        known = np.isfinite(table[f"pm{axis}"])
        if f"pm{axis}_err" in table.colnames:
            rate = np.nan_to_num(np.asarray(table[f"pm{axis}_err"]))
        else:
            rate = np.zeros(len(table))
        rate = np.where(known, rate, TYPICAL_PM)
        moved[f"{axis}_err"] = np.hypot(table[f"{axis}_err"], rate * years)
    moved["epoch"] = np.where(np.isfinite(table["epoch"]), epoch, np.nan)
    return moved


def median_epoch(table: Table) -> float:
    """Return the median epoch of a table [yr]; NaN where none is known."""
    epochs = np.asarray(table["epoch"])
    epochs = epochs[np.isfinite(epochs)]
    return float(np.median(epochs)) if len(epochs) else np.nan


def match_positions(
    ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pair the stars of two lists that are each other's nearest.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : array_like
        [deg]
    radius : float
        [arcsec]

    Returns
    -------
    first, second : ndarray of int
        Rows of the pairs in the two lists.
    """
    from astropy.coordinates import SkyCoord

    if np.size(ra1) == 0 or np.size(ra2) == 0:
        return np.zeros(0, int), np.zeros(0, int)
    one = SkyCoord(np.asarray(ra1), np.asarray(dec1), unit="deg")
    two = SkyCoord(np.asarray(ra2), np.asarray(dec2), unit="deg")
    to_two, distance, _ = one.match_to_catalog_sky(two)
    to_one, _, _ = two.match_to_catalog_sky(one)
    first = np.flatnonzero(distance.arcsec < radius)
    first = first[to_one[to_two[first]] == first]
    return first, to_two[first]


def match_at_epoch(table: Table, other: Table, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair the stars of a reference table with another catalogue's, at the epoch of that one.

    So are fast stars found, too. See `match_positions`.
    """
    years = np.nan_to_num(median_epoch(other) - np.asarray(table["epoch"]))
    ra, dec = move_positions(table["ra"], table["dec"], table["pmra"], table["pmdec"], years)
    return match_positions(ra, dec, other["ra"], other["dec"], radius)
