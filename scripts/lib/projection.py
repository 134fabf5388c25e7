"""The tangent plane of the sky."""

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
