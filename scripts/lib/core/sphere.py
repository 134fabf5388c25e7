"""The sphere of the sky and the plane tangent to it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

ARCSEC = 3600.0 * 180.0 / np.pi
"""Arcseconds in a radian."""


def project(ra: ArrayLike, dec: ArrayLike, ra0: float, dec0: float) -> np.ndarray:
    """Gnomonic projection about a point.

    Source: Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3.

    Parameters
    ----------
    ra, dec : array_like
        Positions [deg].
    ra0, dec0 : float
        Tangent point, degrees.

    Returns
    -------
    ndarray, shape (n, 2)
        Standard coordinates to the east and north in arcseconds; NaN for the far hemisphere.
    """
    a, d, a0, d0 = (np.radians(np.asarray(v, dtype=float)) for v in (ra, dec, ra0, dec0))
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a - a0)
    depth = np.where(depth > 1e-3, depth, np.nan)
    xi = np.cos(d) * np.sin(a - a0) / depth
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a - a0)) / depth
    return np.column_stack([xi, eta]) * ARCSEC


def deproject(points: ArrayLike, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Invert `project`: return ra, dec in degrees, ra from 0 to 360."""
    xi, eta = np.asarray(points, dtype=float).T / ARCSEC
    ra0, dec0 = np.radians(ra0), np.radians(dec0)
    depth = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0 + np.arctan2(xi, depth)
    dec = np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, depth))
    return np.degrees(ra) % 360.0, np.degrees(dec)


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Return unit vectors, shape (n, 3), of positions in degrees."""
    ra, dec = np.radians(np.atleast_1d(ra)), np.radians(np.atleast_1d(dec))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def separation(ra1: ArrayLike, dec1: ArrayLike, ra2: ArrayLike, dec2: ArrayLike) -> Any:
    """Return the angle [deg] between positions [deg], by `astropy.coordinates`."""
    from astropy.coordinates import angular_separation

    one, two, three, four = (np.radians(np.asarray(x, float)) for x in (ra1, dec1, ra2, dec2))
    return np.degrees(angular_separation(one, two, three, four))


def mean_position(ra: ArrayLike, dec: ArrayLike) -> tuple[float, float]:
    """Return the mean of sky positions [deg], right also across ra 0."""
    x, y, z = unit_vectors(ra, dec).mean(axis=0)
    east = np.degrees(np.arctan2(y, x)) % 360.0
    return float(east), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
