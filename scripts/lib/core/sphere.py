"""The sphere of the sky and the plane tangent to it."""

import numpy as np

ARCSEC = 3600.0 * 180.0 / np.pi
"""Arcseconds in a radian."""


def project(ra, dec, ra0, dec0):
    """Gnomonic projection about a point.

    Source: Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3.

    Parameters
    ----------
    ra, dec : array_like
        Degrees.
    ra0, dec0 : float
        Tangent point, degrees.

    Returns
    -------
    ndarray, shape (n, 2)
        Standard coordinates to the east and north in arcseconds; NaN for the far hemisphere.
    """
    ra, dec, ra0, dec0 = (np.radians(np.asarray(v, dtype=float)) for v in (ra, dec, ra0, dec0))
    depth = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    depth = np.where(depth > 1e-3, depth, np.nan)
    xi = np.cos(dec) * np.sin(ra - ra0) / depth
    eta = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / depth
    return np.column_stack([xi, eta]) * ARCSEC


def deproject(points, ra0, dec0):
    """Inverse of `project`: return ra, dec in degrees, ra from 0 to 360."""
    xi, eta = np.asarray(points, dtype=float).T / ARCSEC
    ra0, dec0 = np.radians(ra0), np.radians(dec0)
    depth = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0 + np.arctan2(xi, depth)
    dec = np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, depth))
    return np.degrees(ra) % 360.0, np.degrees(dec)


def unit_vectors(ra, dec):
    """Return unit vectors, shape (n, 3), of positions in degrees."""
    ra, dec = np.radians(np.atleast_1d(ra)), np.radians(np.atleast_1d(dec))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def separation(ra1, dec1, ra2, dec2):
    """Return the angle [deg] between positions [deg], by the haversine (exact when small)."""
    ra1, dec1, ra2, dec2 = (np.radians(np.asarray(x, float)) for x in (ra1, dec1, ra2, dec2))
    h = np.sin((dec2 - dec1) / 2) ** 2
    h = h + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1))))


def match_positions(ra1, dec1, ra2, dec2, radius):
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
    from scipy.spatial import cKDTree

    none = np.zeros(0, int)
    if np.size(ra1) == 0 or np.size(ra2) == 0:
        return none, none
    one, two = unit_vectors(ra1, dec1), unit_vectors(ra2, dec2)
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    distance, to_two = cKDTree(two).query(one, distance_upper_bound=chord)
    _, to_one = cKDTree(one).query(two)
    first = np.flatnonzero(np.isfinite(distance))
    first = first[to_one[to_two[first]] == first]
    return first, to_two[first]


def mean_position(ra, dec):
    """Return the mean of sky positions [deg], right also across ra 0."""
    x, y, z = unit_vectors(ra, dec).mean(axis=0)
    east = np.degrees(np.arctan2(y, x)) % 360.0
    return float(east), float(np.degrees(np.arctan2(z, np.hypot(x, y))))
