"""A frame in the astrometric solution: its stars, and its map from pixels to the sky."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from astropy.io import fits
from numpy.typing import ArrayLike

from lib.astrometry.matching import Match
from lib.astrometry.pixelmaps import PixelMap
from lib.core.sphere import project

MJD_J2000 = 51544.5


@dataclass
class AstrometryFrame:
    """One frame: its stars and what is known of its place on the sky, filled step by step.

    Parameters
    ----------
    name : str
    header : astropy.io.fits.Header
    shape : tuple of int
        (ny, nx).
    stars : ndarray
        Structured, with the columns of `lib.astrometry.detection`, bright first.
    pixel_to_world : callable
        Map from pixels to the sky: the header's, later the solution's.
    radius : float
        Uncertainty of the pointing [arcsec].
    match : Match, optional
        How it was identified.
    degree : int
        Degree of the fitted distortion.
    by_neighbours : bool
        Whether it was identified by the stars of other frames.
    by_few : bool
        Whether it was identified by few stars, where other frames or its header said they are.
    own_solution : bool
        Whether it keeps a solution of its own, better than the joint one.
    """

    name: str
    header: fits.Header
    shape: tuple[int, int]
    stars: np.ndarray
    pixel_to_world: PixelMap = field(default=None, repr=False)  # type: ignore[assignment]
    radius: float = 0.0
    match: Match | None = None
    degree: int = 1
    by_neighbours: bool = False
    by_few: bool = False
    own_solution: bool = False

    def __post_init__(self) -> None:
        self._matrices: dict[PixelMap, np.ndarray] = {}

    def _column(self, values: ArrayLike) -> np.ndarray:
        """Return a read-only column, which maps recognise (`lib.astrometry.pixelmaps`)."""
        column = np.ascontiguousarray(values)
        column.flags.writeable = False
        return column

    @cached_property
    def x(self) -> np.ndarray:
        """Pixel coordinates of the stars."""
        return self._column(self.stars["XWIN_IMAGE"])

    @cached_property
    def y(self) -> np.ndarray:
        return self._column(self.stars["YWIN_IMAGE"])

    @cached_property
    def magnitude(self) -> np.ndarray:
        """Instrumental magnitudes."""
        return self._column(-2.5 * np.log10(self.stars["FLUX_AUTO"]))

    @cached_property
    def error(self) -> np.ndarray:
        """Position errors per axis [pixel]."""
        a, b = self.stars["ERRAWIN_IMAGE"], self.stars["ERRBWIN_IMAGE"]
        return self._column(np.sqrt((a**2 + b**2) / 2))

    @property
    def snr(self) -> np.ndarray:
        """Signal-to-noise ratios of the fluxes."""
        return self.stars["FLUX_AUTO"] / self.stars["FLUXERR_AUTO"]

    @cached_property
    def tolerance(self) -> float:
        """Distance at which its stars count as identified [pixel]: two, or half the seeing."""
        widths = self.stars["FWHM_IMAGE"]
        return max(2.0, 0.5 * float(np.median(widths))) if len(widths) else 2.0

    @property
    def middle(self) -> np.ndarray:
        """Pixel coordinates of the middle."""
        return np.array([(self.shape[1] + 1) / 2, (self.shape[0] + 1) / 2])

    @cached_property
    def _cross(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Pixels at which a map is sampled: the middle, and an eighth of the frame to each side."""
        cx, cy = self.middle
        h = min(self.shape) / 8
        x = self._column([cx, cx + h, cx - h, cx, cx])
        return x, self._column([cy, cy, cy, cy + h, cy - h]), h

    def centre(self, pixel_to_world: PixelMap | None = None) -> tuple[float, float]:
        """Return the position of the middle, ra and dec [deg]."""
        x, y, _ = self._cross
        ra, dec = (pixel_to_world or self.pixel_to_world)(x, y)
        return float(ra[0]), float(dec[0])

    def local_matrix(self, pixel_to_world: PixelMap | None = None) -> np.ndarray:
        """Return the derivative of tangent plane [arcsec] by pixel at the middle, shape (2, 2)."""
        pixel_to_world = pixel_to_world or self.pixel_to_world
        if pixel_to_world not in self._matrices:
            x, y, h = self._cross
            ra, dec = pixel_to_world(x, y)
            p = project(ra, dec, ra[0], dec[0])
            matrix = np.stack([p[1] - p[2], p[3] - p[4]], axis=1) / (2 * h)
            matrix.flags.writeable = False
            # Those of maps that are given up are not kept for ever.
            if len(self._matrices) > 7:
                self._matrices.clear()
            self._matrices[pixel_to_world] = matrix
        return self._matrices[pixel_to_world]

    @property
    def scale(self) -> float:
        """Pixel scale [arcsec]."""
        return self.scale_by(self.pixel_to_world)

    def scale_by(self, pixel_to_world: PixelMap) -> float:
        """Return the pixel scale [arcsec] in the middle of the frame by another map of it."""
        return float(np.sqrt(abs(np.linalg.det(self.local_matrix(pixel_to_world)))))

    @property
    def mjd(self) -> float:
        """MJD of the start of the exposure; that of J2000 where the header has none."""
        value = self.header.get("MJD-OBS")
        return float(value) if isinstance(value, (int, float)) else MJD_J2000


def epoch_of(frames: Iterable[AstrometryFrame]) -> float:
    """Return the median epoch of the observations, Julian year."""
    return float(2000.0 + (np.median([one.mjd for one in frames]) - MJD_J2000) / 365.25)
