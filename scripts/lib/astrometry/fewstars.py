"""Frames of few stars: what is known of their pointing, and the fluxes, make up for the stars.

Three stars prove little by themselves. But sister frames tell how far the header's pointing is off
and how the camera is turned, and a star has its flux: within that, one or two are enough.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.mapping import Mapping
from lib.astrometry.matching import Match, PlaneStars, log_poisson_tail
from lib.core.sphere import project

SAME_FILTER_RANGE = 0.5
"""Magnitudes, relative to each other, by which stars of one filter may differ."""

OTHER_FILTER_RANGE = 1.2
"""The same where the filters are not known to be alike."""

PREDICTED_CHANCE = -2.0
"""[log10] A match where sister frames predict it is not believed if chance makes it more often."""

POINTED_CHANCE = -4.0
"""[log10] The same of three stars or more where the header points."""

LEAST_RADIUS = 5.0
"""[pixel] Sister frames predict a place no better than this."""

LONE_RADIUS = 15.0
"""[pixel] One sister alone no better than this."""

CHUNK = 10_000
"""Pairs whose neighbourhoods are asked for at once."""


@dataclass(frozen=True)
class PointingCorrection:
    """How a frame that is solved differs from what its header says.

    Parameters
    ----------
    mjd : float
    offset : ndarray, shape (2,)
        Offset of the centre of the frame, true minus header, to the east and north [arcsec].
    turn : ndarray, shape (2, 2)
        Matrix by which the header's is to be multiplied from the left.
    """

    mjd: float
    offset: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(
        cls, frame: AstrometryFrame, centre: tuple[float, float], matrix: np.ndarray
    ) -> "PointingCorrection":
        """Return that of a solved frame, from middle [deg] and matrix of its header."""
        ra, dec = frame.centre()
        offset = project(np.array([ra]), np.array([dec]), *centre)[0]
        return cls(frame.mjd, offset, frame.local_matrix() @ np.linalg.inv(matrix))


def predicted(
    corrections: Sequence[PointingCorrection], mjd: float, scale: float
) -> tuple[PointingCorrection, float]:
    """Return the pointing of a frame predicted from sister frames.

    Parameters
    ----------
    corrections : sequence of PointingCorrection
        One at least.
    mjd : float
        Epoch of the frame.
    scale : float
        [arcsec per pixel].

    Returns
    -------
    correction : PointingCorrection
        The correction of the frame nearest in time.
    radius : float
        Within which it holds [arcsec]: four times the typical difference of frames that follow
        each other.
    """
    ordered = sorted(corrections, key=lambda one: one.mjd)
    nearest = min(ordered, key=lambda one: abs(one.mjd - mjd))
    if len(ordered) == 1:
        return nearest, LONE_RADIUS * scale
    steps = np.diff([one.offset for one in ordered], axis=0)
    typical = float(np.median(np.hypot(*steps.T)))
    return nearest, max(LEAST_RADIUS * scale, 4.0 * typical)


def match_few(
    stars: PlaneStars, reference: PlaneStars, *, area: float, radius: float, tolerance: float,
    spread: float,
) -> Match | None:  # fmt: skip
    """Find the shift by which most of a few stars meet reference stars of fitting magnitudes.

    Every pair of a star and a reference star within `radius` is tried. By chance n stars make
    n rho pi radius^2 pairs, rho being the density of reference stars, and each further star meets
    another within `tolerance` with the chance rho pi tolerance^2, times the part of the reference
    stars whose magnitudes fit.

    Parameters
    ----------
    stars, reference : PlaneStars
    area : float
        Area of the reference stars [arcsec^2].
    radius : float
        Maximum shift [arcsec].
    tolerance : float
        Distance at which a star is identified [arcsec].
    spread : float
        Range of the magnitudes relative to each other.

    Returns
    -------
    Match or None
        The one of most stars; None where no pair is near enough.
    """
    shift = reference.points[None] - stars.points[:, None]
    zero = reference.magnitude[None] - stars.magnitude[:, None]
    zero = np.where(np.isfinite(zero), zero, 0.0)
    n, density = len(stars), len(reference) / area
    best = None
    for at, near in _neighbourhoods(shift, radius, tolerance):
        if best is not None and len(near) < -best[0][0]:
            continue
        level = zero[np.unravel_index(at, zero.shape)]
        at_first = shift.reshape(-1, 2)[at]
        pairs = _meetings(near, shift, zero, at_first, level, tolerance, spread)
        # Again about their mean: two or more tell the shift better than the first.
        mean = np.mean([shift[p] for p in pairs], axis=0)
        level = np.median([zero[p] for p in pairs])
        pairs = _meetings(near, shift, zero, mean, level, tolerance, spread)
        if not pairs:
            continue
        residual = np.array([shift[p] for p in pairs]) - mean
        key = (-len(pairs), float(np.sum(residual**2)))
        if best is None or key < best[0]:
            best = key, pairs, mean
    if best is None:
        return None
    (_, squares), pairs, mean = best
    k = len(pairs)
    fitting = float(np.mean(np.abs(zero - np.median([zero[p] for p in pairs])) < spread))
    trials = n * density * np.pi * radius**2
    expected = (n - 1) * density * np.pi * tolerance**2 * fitting
    if k == 1:
        # One alone has any magnitude.
        log_chance = np.log10(-np.expm1(-trials))
    else:
        log_chance = log_poisson_tail(k - 1, expected) + np.log10(max(trials, 1e-3))
    shift_only = Mapping(np.eye(2), mean)
    return Match(
        shift_only, np.array([i for i, _ in pairs]), np.array([j for _, j in pairs]), tested=n,
        expected=expected, log_chance=float(log_chance),
        rms=float(np.sqrt(squares / max(2 * (k - 1), 1))), rung="few stars",
    )  # fmt: skip


def _neighbourhoods(
    shift: np.ndarray, radius: float, tolerance: float
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each pair whose shift is small enough, and the pairs whose shifts are near it.

    About the mean of those within `tolerance` of a shift there are none but those within twice
    as much of the shift itself.

    Parameters
    ----------
    shift : ndarray, shape (n, m, 2)
    radius, tolerance : float
        Of the shift of the pair; half of how near the others are.

    Yields
    ------
    pair : int
        Number of the pair in rows of `shift`.
    near : ndarray of int
        Such numbers, ascending, its own among them.
    """
    flat = shift.reshape(-1, 2)
    size = np.hypot(flat[:, 0], flat[:, 1])
    possible = np.flatnonzero(size < radius + 2.001 * tolerance)
    tree = cKDTree(flat[possible])
    first = possible[size[possible] < radius]
    for start in range(0, len(first), CHUNK):
        part = first[start : start + CHUNK]
        found = tree.query_ball_point(flat[part], 2.001 * tolerance, return_sorted=True)
        for at, near in zip(part.tolist(), found, strict=True):
            yield at, possible[near]


def _meetings(
    near: np.ndarray, shift: np.ndarray, zero: np.ndarray, at: np.ndarray, level: float,
    tolerance: float, spread: float,
) -> list[tuple[int, int]]:  # fmt: skip
    """Return the pairs among those near, one reference star to one star, that a shift joins."""
    away = shift.reshape(-1, 2)[near] - at
    distance = np.hypot(away[:, 0], away[:, 1])
    close = (distance < tolerance) & ~(np.abs(zero.ravel()[near] - level) > spread)
    near, distance = near[close], distance[close]
    pairs: list[tuple[int, int]] = []
    for k in np.argsort(distance, kind="stable"):
        i, j = divmod(int(near[k]), zero.shape[1])
        if all(i != one and j != other for one, other in pairs):
            pairs.append((i, j))
    return pairs
