"""Surroundings of candidates: stars, host galaxies, catalogues, ephemerides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.core.sphere import project
from lib.night.positions import Position

HOST_REACH = 3.0
"""[automatic aperture] A source without point-like form this near is the host."""

SAME = 0.5
"""[FWHM] A source this near, with no more than twice the light, is the candidate itself."""

KNOWN_REACH = 1.0
"""[FWHM] Within which an entry of a catalogue is the candidate, at least 1 arcsec."""


@dataclass(frozen=True)
class Surroundings:
    """Stars and hosts about candidates.

    Parameters
    ----------
    star_distance, star_magnitude : ndarray, shape (n,)
        Distance [arcsec] and magnitude of the nearest star; NaN without one.
    host : ndarray of int, shape (n,)
        NUMBER of the host in the source table, 0 for none.
    host_distance : ndarray, shape (n,)
        [arcsec].
    host_reach : ndarray, shape (n,)
        The same in units of its automatic aperture, along that direction.
    host_magnitude : ndarray, shape (n,)
    """

    star_distance: np.ndarray
    star_magnitude: np.ndarray
    host: np.ndarray
    host_distance: np.ndarray
    host_reach: np.ndarray
    host_magnitude: np.ndarray


def surroundings(
    table: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, scale: float
) -> Surroundings:
    """Return the nearest star and the host of candidates.

    Parameters
    ----------
    table : ndarray
        Source table of the coadd.
    x, y, flux : ndarray, shape (n,)
        Candidates, from 0 [pixel].
    fwhm : float
        FWHM of stars [pixel].
    scale : float
        Arcsec per pixel.
    """
    n = len(x)
    values = {name: np.full(n, np.nan) for name in ("sd", "sm", "hd", "hr", "hm")}
    host = np.zeros(n, int)
    sx, sy = table["X"].astype(float) - 1, table["Y"].astype(float) - 1
    names = table.dtype.names or ()
    light = np.nan_to_num(table["FLUX_POINT"].astype(float))
    star = np.asarray(table["STAR"], bool) & (table["SNR"] > 5)
    extended = ~np.asarray(table["STAR"], bool) & (table["SNR"] > 5)
    for k in range(n):
        dx, dy = x[k] - sx, y[k] - sy
        away = np.hypot(dx, dy)
        itself = (away < SAME * fwhm) & (light < 2 * max(flux[k], 0))
        rows = np.flatnonzero(star & ~itself)
        if rows.size:
            best = rows[np.argmin(away[rows])]
            values["sd"][k] = away[best] * scale
            values["sm"][k] = table["MAG_POINT"][best] if "MAG_POINT" in names else np.nan
        rows = np.flatnonzero(extended & ~itself & (away < 60 * fwhm))
        if rows.size:
            reach = _reach(table[rows], dx[rows] * scale, dy[rows] * scale)
            # Sources found by fits alone have no automatic aperture: they are no galaxies.
            best = int(np.argmin(np.where(np.isfinite(reach), reach, np.inf)))
            if reach[best] < HOST_REACH:
                row = rows[best]
                host[k] = table["NUMBER"][row]
                values["hd"][k], values["hr"][k] = away[row] * scale, reach[best]
                values["hm"][k] = table["MAG_AUTO"][row] if "MAG_AUTO" in names else np.nan
    return Surroundings(values["sd"], values["sm"], host, values["hd"], values["hr"], values["hm"])


def _reach(table: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return distances [arcsec] from sources in units of their automatic apertures."""
    # In degrees, from x towards y.
    angle = np.radians(table["THETA"].astype(float))
    u = dx * np.cos(angle) + dy * np.sin(angle)
    v = -dx * np.sin(angle) + dy * np.cos(angle)
    ratio = np.clip(1 - table["ELLIPTICITY"].astype(float), 0.1, 1)
    major = np.maximum(table["KRON_RADIUS"].astype(float), 0.1)
    return np.hypot(u, v / ratio) / major


def known_objects(
    positions: np.ndarray, radius: float, mjd: float, reference: np.ndarray,
    table: Sequence[Position],
) -> np.ndarray:  # fmt: skip
    """Return the names of known objects at positions; empty where there is none.

    Parameters
    ----------
    positions : ndarray, shape (n, 2)
        ra, dec [deg].
    radius : float
        [arcsec].
    mjd : float
        When they were seen.
    reference : ndarray, shape (m, 2)
        ra, dec of reference stars [deg].
    table : list of Position
        Objects of the user, moving ones too.

    Returns
    -------
    ndarray of str, shape (n,)
    """
    found = np.full(len(positions), "", dtype=object)
    if not len(positions):
        return found.astype(str)
    middle = positions[0]
    ours = project(*positions.T, *middle)
    reference = reference[np.isfinite(reference).all(axis=1)]
    if len(reference):
        theirs = project(*reference.T, *middle)
        theirs = theirs[np.isfinite(theirs).all(axis=1)]
        if len(theirs):
            apart, _ = cKDTree(theirs).query(ours)
            found[apart < radius] = "reference star"
    for one in table:
        ra, dec = one.at(mjd)
        if not np.isfinite(ra[0]) or not np.isfinite(dec[0]):
            continue
        place = project(ra, dec, *middle)
        found[np.hypot(*(ours - place).T) < radius] = one.name
    return found.astype(str)
