"""Lists of stars: those measured on an exposure and those of known position, and which is which."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.io import fits

from lib.astrometry.matching import brightest_per_cell, nearest_pairs
from lib.core.sphere import deproject, project, unit_vectors

BANDS = ("u", "B", "g", "V", "r", "R", "i", "I", "z", "y", "J", "H", "K")
"""In the order of wavelength: the nearest one stands in for a missing one."""

MOST_KNOWN = 400
"""Reference stars, spread over the field, that are used in a joint solution: enough for 1 mas."""


@dataclass
class Exposure:
    """One frame: its stars and what is known of its place on the sky.

    Parameters
    ----------
    name : str
    header : astropy.io.fits.Header
    shape : tuple of int
        (ny, nx).
    stars : ndarray
        Structured, with the columns of `lib.astrometry.detection`, bright first.
    sky : callable
        Header's map from pixels to the sky, later the solution's.
    radius : float
        Uncertainty of the pointing [arcsec].
    match : Match, optional
        How it was identified.
    degree : int
        Of the fitted distortion.
    by_neighbours : bool
        Whether it was identified by the stars of other frames.
    alone : bool
        Whether it keeps a solution of its own, better than the joint one.
    """

    name: str
    header: fits.Header
    shape: tuple
    stars: np.ndarray
    sky: object = None
    radius: float = 0.0
    match: object = None
    degree: int = 1
    by_neighbours: bool = False
    alone: bool = False

    def __post_init__(self):
        self._matrices = {}

    def _column(self, values):
        """A column that cannot change, so that maps know it again."""
        values = np.ascontiguousarray(values)
        values.flags.writeable = False
        return values

    @cached_property
    def x(self):
        return self._column(self.stars["XWIN_IMAGE"])

    @cached_property
    def y(self):
        return self._column(self.stars["YWIN_IMAGE"])

    @cached_property
    def magnitude(self):
        return self._column(-2.5 * np.log10(self.stars["FLUX_AUTO"]))

    @cached_property
    def error(self):
        """Position error per axis [pixel]."""
        a, b = self.stars["ERRAWIN_IMAGE"], self.stars["ERRBWIN_IMAGE"]
        return self._column(np.sqrt((a**2 + b**2) / 2))

    @property
    def middle(self):
        """Pixel coordinates of the middle."""
        return np.array([(self.shape[1] + 1) / 2, (self.shape[0] + 1) / 2])

    @cached_property
    def _cross(self):
        """Pixels by which a map is told: the middle, and an eighth of the frame to each side."""
        cx, cy = self.middle
        h = min(self.shape) / 8
        x = self._column([cx, cx + h, cx - h, cx, cx])
        return x, self._column([cy, cy, cy, cy + h, cy - h]), h

    def centre(self, sky=None):
        """Position of the middle, ra and dec [deg]."""
        x, y, _ = self._cross
        ra, dec = (sky or self.sky)(x, y)
        return float(ra[0]), float(dec[0])

    def local_matrix(self, sky=None):
        """Derivative of the tangent plane [arcsec] by pixel at the middle, shape (2, 2)."""
        sky = sky or self.sky
        if sky not in self._matrices:
            x, y, h = self._cross
            ra, dec = sky(x, y)
            p = project(ra, dec, ra[0], dec[0])
            matrix = np.stack([p[1] - p[2], p[3] - p[4]], axis=1) / (2 * h)
            matrix.flags.writeable = False
            # Those of maps that are given up are not kept for ever.
            if len(self._matrices) > 7:
                self._matrices.clear()
            self._matrices[sky] = matrix
        return self._matrices[sky]

    @property
    def scale(self):
        """Pixel scale [arcsec]."""
        return float(np.sqrt(abs(np.linalg.det(self.local_matrix()))))

    @property
    def mjd(self):
        """MJD of the start of the exposure; that of J2000 where the header has none."""
        value = self.header.get("MJD-OBS")
        return float(value) if isinstance(value, (int, float)) else 51544.5


def epoch_of(exposures):
    """Median epoch of the observations, Julian year."""
    return float(2000.0 + (np.median([e.mjd for e in exposures]) - 51544.5) / 365.25)


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
        Of the band nearest to that observed; NaN where none is known.
    seen : ndarray of int, optional
        Number of frames a star was measured on, for a reference made of frames.
    """

    ra: np.ndarray
    dec: np.ndarray
    error: np.ndarray
    magnitude: np.ndarray
    seen: np.ndarray | None = None

    def __len__(self):
        return len(self.ra)

    def __getitem__(self, index):
        seen = None if self.seen is None else self.seen[index]
        return Reference(
            self.ra[index], self.dec[index], self.error[index], self.magnitude[index], seen
        )


def reference_from_table(table, band):
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

    def column(name, missing=np.nan):
        if name not in table.colnames:
            return np.full(len(table), missing)
        return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)

    at = BANDS.index(band) if band in BANDS else BANDS.index("r")
    magnitude = np.full(len(table), np.nan)
    for name in sorted(BANDS, key=lambda b: abs(BANDS.index(b) - at)):
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


def reference_extent(reference):
    """Middle (ra, dec) and radius of a reference, degrees; None where it is empty."""
    if not len(reference):
        return None
    vectors = unit_vectors(reference.ra, reference.dec)
    middle = vectors.mean(axis=0)
    middle /= np.linalg.norm(middle)
    ra, dec = np.degrees(np.arctan2(middle[1], middle[0])) % 360, np.degrees(np.arcsin(middle[2]))
    radius = np.degrees(np.arccos(np.clip(vectors @ middle, -1, 1).min()))
    return float(ra), float(dec), float(radius)


def spread_out(exposures, reference):
    """Thin a reference to `MOST_KNOWN` stars, the brightest of each part of the field."""
    if len(reference) <= MOST_KNOWN:
        return reference
    points = project(reference.ra, reference.dec, *exposures[0].centre())
    # Some 25 cells, those at the rim half empty.
    cell = float(np.ptp(points, axis=0).max()) / 5
    return reference[brightest_per_cell(points, reference.magnitude, cell, MOST_KNOWN // 25)]


def merged_stars(exposures, merge=0.7):
    """Merge the stars of frames into a reference.

    Parameters
    ----------
    exposures : list of Exposure
        With `sky` on a common system.
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    Reference
        Mean positions weighted by their errors, magnitudes of the instrument.
    """
    from scipy.spatial import cKDTree

    centre = exposures[0].centre()
    total = np.zeros((0, 2))
    weight, bright, seen = np.zeros(0), np.zeros(0), np.zeros(0, int)
    for exposure in exposures:
        points = project(*exposure.sky(exposure.x, exposure.y), *centre)
        scale = exposure.scale
        w = 1 / ((exposure.error * scale) ** 2 + (0.01 * scale) ** 2)
        new = np.ones(len(points), bool)
        if len(total):
            i, j, _ = nearest_pairs(cKDTree(total / weight[:, None]), points, merge * scale)
            total[j] += points[i] * w[i, None]
            weight[j] += w[i]
            seen[j] += 1
            new[i] = False
        total = np.vstack([total, points[new] * w[new, None]])
        weight = np.r_[weight, w[new]]
        bright = np.r_[bright, exposure.magnitude[new]]
        seen = np.r_[seen, np.ones(new.sum(), int)]
    ra, dec = deproject(total / weight[:, None], *centre)
    return Reference(ra, dec, 1 / np.sqrt(weight), bright, seen)


def on_one_plane(exposure, reference, sky=None):
    """Project stars and reference on the tangent plane about the middle of the frame.

    Returns
    -------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds.
    centre : tuple of float
        Tangent point, ra and dec [deg].
    """
    sky = sky or exposure.sky
    centre = exposure.centre(sky)
    stars = project(*sky(exposure.x, exposure.y), *centre)
    return stars, project(reference.ra, reference.dec, *centre), centre


def pair_on_plane(stars, known, tolerance):
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


def pair_up(exposure, reference, tolerance, sky=None):
    """Identify the stars of a frame whose map is good already; see `pair_on_plane`."""
    stars, known, _ = on_one_plane(exposure, reference, sky)
    return pair_on_plane(stars, known, tolerance)
