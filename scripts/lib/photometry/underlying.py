"""Light of a larger source under point sources: a galaxy or a nebula under the stars before it."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.apertures import squares_about
from lib.photometry.pointflux import ApertureSums
from lib.photometry.sources import large_sources
from lib.photometry.starfield import StarField
from lib.photometry.windowed import gradient_shift

RING = (2.5, 3.25, 4.0)
"""[FWHM] Radii of the two rings about a source in which the light is measured."""

TO_MIDDLE = 2.2
"""Change from the rings to the middle over that between the rings, for light that is curved."""

LEAST_PIXELS = 10
"""Minimum number of free pixels in each ring."""

SECTORS = 8
"""Number of sectors of the rings."""

STEEPER = 0.3
"""Part of the gradient across the rings that is missing in the middle, where the light falls by
four in the radius of the rings (exponential)."""

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
    gradient : ndarray, shape (n, 2)
        Its change along x and y, a pixel.
    gradient_error : ndarray, shape (n,)
    """

    level: np.ndarray
    error: np.ndarray
    gradient: np.ndarray
    gradient_error: np.ndarray

    @classmethod
    def none(cls, number: int) -> "UnderlyingLight":
        """Return that of sources under which there is none."""
        level, error, gradient_error = np.zeros((3, number))
        return cls(level, error, np.zeros((number, 2)), gradient_error)

    @classmethod
    def of(cls, field: StarField) -> "UnderlyingLight":
        """Measure the light in rings about the sources of a field, where it has large ones."""
        x, y = field.sources["x"].astype(float), field.sources["y"].astype(float)
        found, fwhm, segments = cls.none(x.size), field.fwhm, field.segments
        large = large_sources(segments, x.size, fwhm)
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
            noise = np.hypot(1.25 * scatter / np.sqrt(values.size), own[k])
            if not abs(level) > LEAST_LEVEL * noise:
                continue
            dy, dx = np.nonzero(both)
            middle = _middle_of(
                values, side[dx] + column[k] - x[k], side[dy] + row[k] - y[k], level
            )
            # How it changes over the rings tells how well they stand for what is inside.
            chance = 1.5 * scatter**2 * sum(1 / np.count_nonzero(ring) for ring in rings)
            change = max(0.0, (inner - outer) ** 2 - chance)
            unlike = np.hypot(TO_MIDDLE * np.sqrt(change), middle.curved)
            error = np.sqrt(scatter**2 * 1.5 / values.size + unlike**2 + own[k] ** 2)
            # A galaxy is not under itself: without its disc its core is no star.
            own_share = np.mean(label[both] == k + 1)
            others = np.mean(large[label[both]]) - own_share * large[k + 1]
            alone = own_share < LEAST_SHARE or others > LEAST_SHARE
            # Between clouds the background mesh takes away too much.
            if middle.level < 0 or alone or _is_star(field, k, middle.level):
                found.level[k], found.error[k] = middle.level, error
                found.gradient[k], found.gradient_error[k] = middle[2:]
        return found

    def recentred(self, field: StarField, image: np.ndarray) -> StarField:
        """Return a field whose sources are where they are without the gradient of the light.

        Parameters
        ----------
        field : StarField
        image : ndarray, shape (ny, nx)
            Its image, background-subtracted.
        """
        # Saturated stars have their place from the light around their cores.
        rows = np.flatnonzero(self.gradient.any(axis=1) & ~np.isfinite(field.place_error))
        if not rows.size:
            return field
        sources, size = field.sources.copy(), field.profile.half_light
        x, y = sources["x"][rows].astype(float), sources["y"][rows].astype(float)
        shift = self.gradient[rows] * gradient_shift(image, x, y, size)[:, None]
        # A faint source would be moved out of its window: its place is not known.
        shift[np.hypot(*shift.T) > size] = 0
        sources["x"][rows], sources["y"][rows] = np.array([x, y]) - shift.T
        return replace(field, sources=sources)

    def taken_from(self, sums: ApertureSums, radius: float) -> ApertureSums:
        """Return the sums of sources in apertures of a radius [pixel] without it."""
        area = np.pi * radius**2
        error = np.hypot(sums.error, area * self.error)
        return replace(sums, sums=sums.sums - area * self.level, error=error)


class _Middle(NamedTuple):
    """Light in the middle of rings, and how it changes across them, in units of the image.

    Parameters
    ----------
    level : float
    curved : float
        How far directions differ in it.
    gradient : ndarray, shape (2,)
        Along x and y, a pixel.
    gradient_error : float
    """

    level: float
    curved: float
    gradient: np.ndarray
    gradient_error: float


def _middle_of(values: np.ndarray, dx: np.ndarray, dy: np.ndarray, level: float) -> _Middle:
    """Return the light in the middle of rings, from medians in sectors.

    Means of opposite sectors are free of a gradient. They differ where the light is curved, as
    beside the nucleus of a galaxy, which is in one sector only.

    Parameters
    ----------
    values, dx, dy : ndarray, shape (n,)
        Pixels of the rings, and their distances from the middle [pixel].
    level : float
        Returned where too few sectors are free.
    """
    turn = np.arctan2(dy, dx) / (2 * np.pi) + 0.5
    sector = np.minimum((SECTORS * turn).astype(int), SECTORS - 1)
    number = np.bincount(sector, minlength=SECTORS)
    half = SECTORS // 2
    free = np.minimum(number[:half], number[half:]) >= LEAST_PIXELS
    if np.count_nonzero(free) < half // 2:
        return _Middle(level, 0.0, np.zeros(2), 0.0)
    used = np.flatnonzero(np.tile(free, 2))
    medians = np.array([np.median(values[sector == one]) for one in used])
    pairs = medians.reshape(2, -1).mean(axis=0)
    x, y = (np.bincount(sector, one, SECTORS)[used] / number[used] for one in (dx, dy))
    plane = np.column_stack([np.ones(used.size), x, y])
    fitted = np.linalg.lstsq(plane, medians, rcond=None)[0]
    rest = np.sqrt(np.mean((medians - plane @ fitted) ** 2))
    uneven = np.sqrt(2) * rest / np.hypot(x, y).mean()
    gradient_error = float(np.hypot(uneven, STEEPER * np.hypot(*fitted[1:])))
    return _Middle(float(pairs.mean()), float(pairs.std()), fitted[1:], gradient_error)


def _is_star(field: StarField, k: int, level: float) -> bool:
    """Return whether a source is as sharp as a star where the light under it is taken away."""
    totals = [
        (flux[k] - np.pi * radius**2 * level) / float(field.growth.fraction(radius))
        for flux, radius in ((field.flux, field.aperture), (field.core_flux, field.core.radius))
    ]
    return min(totals) > 0 and abs(np.log(totals[0] / totals[1])) < LIKE_A_STAR
