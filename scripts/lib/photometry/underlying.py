"""Light of a larger source under point sources: a galaxy or a nebula under the stars before it."""

from dataclasses import dataclass, replace

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.apertures import squares_about
from lib.photometry.pointflux import ApertureSums
from lib.photometry.starfield import StarField

RING = (2.5, 3.25, 4.0)
"""[FWHM] Radii of the two rings about a source in which the light is measured."""

LARGE = 100.0
"""[FWHM^2] Minimum area of a source that lies under others: ten times that of most stars."""

LEAST_PIXELS = 10
"""Minimum number of free pixels in each ring."""

LEAST_LEVEL = 5.0
"""Minimum significance of the light: nothing else is taken away."""

LEAST_SHARE, LIKE_A_STAR = 0.3, 0.15
"""Where a source has itself more of the ring, this is the largest difference [ln] of its total
fluxes by two apertures."""

WINGS_ERROR = 0.2
"""Relative error of the model of a star's own wings there."""


@dataclass(frozen=True)
class UnderlyingLight:
    """Light under n sources.

    Parameters
    ----------
    level, error : ndarray, shape (n,)
        Light in a pixel and its error, in units of the image; 0 where no larger source is.
    """

    level: np.ndarray
    error: np.ndarray

    @classmethod
    def none(cls, number: int) -> "UnderlyingLight":
        """Return that of sources under which there is none."""
        return cls(*np.zeros((2, number)))

    @classmethod
    def of(cls, field: StarField) -> "UnderlyingLight":
        """Measure the light in rings about the sources of a field, where it has large ones."""
        x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
        found, fwhm, segments = cls.none(x.size), field.fwhm, field.segments
        large = np.bincount(segments.ravel(), minlength=x.size + 1) > LARGE * fwhm**2
        large[0] = False
        if not large.any():
            return found
        wings = field.growth.wings(field.profile.shape)
        own = WINGS_ERROR * np.maximum(field.total, 0) * float(wings.density(RING[1] * fwhm, 0.0))
        half = int(np.ceil(RING[-1] * fwhm))
        side = np.arange(-half, half + 1)
        column, row = np.rint(x).astype(int), np.rint(y).astype(int)
        for k in range(x.size):
            square = squares_about(column[k : k + 1], row[k : k + 1], half, segments.shape)
            label, left = segments[square][0], field.residual[square][0]
            away = np.hypot(side + column[k] - x[k], (side + row[k] - y[k])[:, None]) / fwhm
            # Other stars hide it.
            free = large[label] | (label == 0) | (label == k + 1)
            rings = [free & (away >= a) & (away < b) for a, b in zip(RING, RING[1:], strict=False)]
            if min(map(np.count_nonzero, rings)) < LEAST_PIXELS:
                continue
            inner, outer = (float(np.median(left[ring])) for ring in rings)
            both = rings[0] | rings[1]
            values = left[both]
            level = float(np.median(values))
            scatter = MAD_TO_SIGMA * float(np.median(np.abs(values - level)))
            # How it changes over the rings tells how well they stand for what is inside.
            error = np.sqrt(scatter**2 * 1.5 / values.size + (inner - outer) ** 2 + own[k] ** 2)
            noise = np.hypot(1.25 * scatter / np.sqrt(values.size), own[k])
            # A galaxy is not under itself: without its disc its core is no star.
            alone = np.mean(label[both] == k + 1) < LEAST_SHARE
            if level > LEAST_LEVEL * noise and (alone or _is_star(field, k, level)):
                found.level[k], found.error[k] = level, error
        return found

    def taken_from(self, sums: ApertureSums, radius: float) -> ApertureSums:
        """Return the sums of sources in apertures of a radius [pixel] without it."""
        area = np.pi * radius**2
        error = np.hypot(sums.error, area * self.error)
        return replace(sums, sums=sums.sums - area * self.level, error=error)


def _is_star(field: StarField, k: int, level: float) -> bool:
    """Return whether a source is as sharp as a star where the light under it is taken away."""
    totals = [
        (flux[k] - np.pi * radius**2 * level) / float(field.growth.fraction(radius))
        for flux, radius in ((field.flux, field.aperture), (field.core_flux, field.core.radius))
    ]
    return min(totals) > 0 and abs(np.log(totals[0] / totals[1])) < LIKE_A_STAR
