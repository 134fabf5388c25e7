"""Lists of stars of known position, and which stars of a frame they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.mapping import brightest_per_cell, nearest_pairs
from lib.astrometry.pixelmaps import PixelMap
from lib.core.bands import BLUE_TO_RED
from lib.core.sphere import deproject, project, unit_vectors

MAX_REFERENCE_STARS = 400
"""Reference stars, spread over the field, that are used in a joint solution: enough for 1 mas."""


@dataclass
class Reference:
    """Stars with known positions.

    Parameters
    ----------
    ra, dec : ndarray
        Degrees, at the epoch of the observation.
    error : ndarray
        Per axis [arcsec].
    magnitude : ndarray
        Magnitudes in the band closest to that observed; NaN where unknown.
    seen : ndarray of int, optional
        Number of frames a star was measured on, for a reference made of frames.
    """

    ra: np.ndarray
    dec: np.ndarray
    error: np.ndarray
    magnitude: np.ndarray
    seen: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ra)

    def __getitem__(self, index: Any) -> "Reference":
        seen = None if self.seen is None else self.seen[index]
        return Reference(
            self.ra[index], self.dec[index], self.error[index], self.magnitude[index], seen
        )

    @property
    def repeated(self) -> "Reference":
        """Stars that were measured on several frames."""
        return self if self.seen is None else self[self.seen > 1]


def reference_from_table(table: Table, band: str) -> Reference:
    """Take positions, errors and magnitudes from a reference table.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ra, dec [deg], ra_err, dec_err [mas] and bands; the positions are taken as they
        are, rule refcat has moved them to the epoch of the observation.
    band : str
        Band observed, or empty.

    Returns
    -------
    Reference
    """

    def column(name: str) -> np.ndarray:
        if name not in table.colnames:
            return np.full(len(table), np.nan)
        return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)

    at = BLUE_TO_RED.index(band if band in BLUE_TO_RED else "r")
    magnitude = np.full(len(table), np.nan)
    for name in sorted(BLUE_TO_RED, key=lambda b: abs(BLUE_TO_RED.index(b) - at)):
        values = column(name)
        known = np.isfinite(values) & np.isfinite(magnitude)
        missing = ~np.isfinite(magnitude)
        # Bands differ by a colour: stand-ins are put on the level of those that have both.
        shift = np.median((magnitude - values)[known]) if known.any() else 0.0
        magnitude[missing] = values[missing] + shift
    error = np.sqrt((column("ra_err") ** 2 + column("dec_err") ** 2) / 2) / 1000.0
    ra, dec = column("ra"), column("dec")
    good = np.isfinite(ra) & np.isfinite(dec)
    error = np.where(np.isfinite(error) & (error > 0), np.maximum(error, 5e-4), 0.1)
    return Reference(ra, dec, error, magnitude)[good]


def reference_extent(reference: Reference) -> tuple[float, float, float] | None:
    """Return middle (ra, dec) and radius of a reference, degrees; None where it is empty."""
    if not len(reference):
        return None
    vectors = unit_vectors(reference.ra, reference.dec)
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle)
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])) % 360, np.degrees(np.arcsin(middle[2]))
    radius = np.degrees(np.arccos(np.clip(vectors @ middle, -1, 1).min()))
    return float(ra), float(dec), float(radius)


def thin_reference(frames: Sequence[AstrometryFrame], reference: Reference) -> Reference:
    """Thin a reference to `MAX_REFERENCE_STARS`, the brightest of each part of the field."""
    if len(reference) <= MAX_REFERENCE_STARS:
        return reference
    points = project(reference.ra, reference.dec, *frames[0].centre())
    # Some 25 cells, those at the rim half empty.
    cell = float(np.ptp(points, axis=0).max()) / 5
    return reference[
        brightest_per_cell(points, reference.magnitude, cell, MAX_REFERENCE_STARS // 25)
    ]


def merged_stars(frames: Sequence[AstrometryFrame], merge: float = 0.7) -> Reference:
    """Merge the stars of frames into a reference.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames with maps to a common system.
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    Reference
        Mean positions weighted by their errors, magnitudes of the instrument.
    """
    from scipy.spatial import cKDTree

    centre = frames[0].centre()
    total = np.zeros((0, 2))
    weight, bright, seen = np.zeros(0), np.zeros(0), np.zeros(0, int)
    for frame in frames:
        points = project(*frame.pixel_to_world(frame.x, frame.y), *centre)
        scale = frame.scale
        w = 1 / ((frame.error * scale) ** 2 + (0.01 * scale) ** 2)
        new = np.ones(len(points), bool)
        if len(total):
            i, j, _ = nearest_pairs(cKDTree(total / weight[:, None]), points, merge * scale)
            total[j] += points[i] * w[i, None]
            weight[j] += w[i]
            seen[j] += 1
            new[i] = False
        total = np.vstack([total, points[new] * w[new, None]])
        weight = np.r_[weight, w[new]]
        bright = np.r_[bright, frame.magnitude[new]]
        seen = np.r_[seen, np.ones(new.sum(), int)]
    ra, dec = deproject(total / weight[:, None], *centre)
    return Reference(ra, dec, 1 / np.sqrt(weight), bright, seen)


def project_together(
    frame: AstrometryFrame, reference: Reference, pixel_to_world: PixelMap | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Project stars and reference on the tangent plane about the middle of the frame.

    Returns
    -------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds.
    centre : tuple of float
        Tangent point, ra and dec [deg].
    """
    pixel_to_world = pixel_to_world or frame.pixel_to_world
    centre = frame.centre(pixel_to_world)
    stars = project(*pixel_to_world(frame.x, frame.y), *centre)
    return stars, project(reference.ra, reference.dec, *centre), centre


def match_on_plane(
    stars: np.ndarray, known: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identify stars by position alone.

    Parameters
    ----------
    stars, known : ndarray, shapes (n, 2), (m, 2)
        Arcseconds; rows of `known` may be NaN.
    tolerance : float
        Arcseconds.

    Returns
    -------
    i, j : ndarray of int
        Stars and reference stars.
    residual : ndarray, shape (n, 2)
        Frame minus reference [arcsec], to the east and north.
    """
    from scipy.spatial import cKDTree

    near = np.flatnonzero(np.all(np.isfinite(known), axis=1))
    i, j, _ = nearest_pairs(cKDTree(known[near]), stars, tolerance)
    j = near[j]
    return i, j, stars[i] - known[j]


def match_by_position(
    frame: AstrometryFrame,
    reference: Reference,
    tolerance: float,
    pixel_to_world: PixelMap | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identify the stars of a frame whose map is good already; see `match_on_plane`."""
    stars, known, _ = project_together(frame, reference, pixel_to_world)
    return match_on_plane(stars, known, tolerance)
