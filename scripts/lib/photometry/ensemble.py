"""One photometric system for all frames of a band: zero points from the stars they share.

All frames of a band, of all stacks and nights, and all comparison stars are solved for together
(Honeycutt 1992, PASP 104, 435): the zero point of a night enters only through the mean of all, so
that its error makes no step in a light curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.core.sphere import mean_position, project
from lib.photometry.zeropoint import intrinsic_variance, relative_zeropoints

FLOOR = 0.003
"""[mag] Least error of a star in a frame while the frames are solved for."""

VARIABLE_SIGMA = 4.0
"""A comparison star whose reduced chi^2 lies this far above that of the others [its scatter] is
taken for a variable, and left out."""

MIN_COMPARISON = 3
"""Comparison stars are left out as long as so many stay."""

ENOUGH_COMPARISON = 50
"""Positions to be measured are compared with as long as there are fewer comparison stars."""

MIN_MEASURED = 3
"""Measurements of a star that its variability is told from, at least."""


@dataclass(frozen=True)
class Ensemble:
    """Frames of a band on one scale.

    Parameters
    ----------
    zeropoint : ndarray, shape (n_frames,)
        Magnitude of one electron per second in each frame, up to a constant in each group; NaN
        where no comparison star was measured.
    error : ndarray, shape (n_frames,)
        Of the zero point relative to the ensemble [mag].
    group : ndarray of int, shape (n_frames,)
        Frames of different groups share no star.
    n_stars : ndarray of int, shape (n_frames,)
        Comparison stars used in each.
    used : ndarray of bool, shape (n_stars,)
        Comparison stars that do not vary.
    magnitude : ndarray, shape (n_stars,)
        Of the stars, on the scale of the zero points.
    excess : float
        Scatter of the comparison stars beyond their stated errors [mag].
    """

    zeropoint: np.ndarray
    error: np.ndarray
    group: np.ndarray
    n_stars: np.ndarray
    used: np.ndarray
    magnitude: np.ndarray
    excess: float


def solve_ensemble(magnitude: np.ndarray, error: np.ndarray) -> Ensemble:
    """Solve for the zero points of frames and the magnitudes of comparison stars.

    Robust least squares over all frames and stars; then stars that vary are left out, one after
    the other, and the scatter beyond the stated errors is found such that chi^2 is its number of
    degrees of freedom.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n_frames, n_stars)
        Instrumental magnitudes per second; NaN where a star is not measured.

    Returns
    -------
    Ensemble
    """
    n_frames, n_stars = magnitude.shape
    used = np.ones(n_stars, bool)
    excess = 0.0
    for _ in range(max(1, n_stars)):
        floor = max(excess, FLOOR)
        masked = np.where(used, magnitude, np.nan)
        z, _, number, group = relative_zeropoints(masked, error, floor)
        residual, variance, level = _residuals(masked, error, z, floor)
        worst = _variable_star(residual, variance)
        found = _excess(residual, error, number)
        if worst is not None and used.sum() > MIN_COMPARISON:
            used[worst] = False
        elif abs(found - excess) < 1e-4:
            break
        else:
            excess = found
    weight = np.where(np.isfinite(residual), 1 / variance, 0.0).sum(axis=1)
    z_error = np.where(weight > 0, 1 / np.sqrt(np.maximum(weight, 1e-300)), np.nan)
    # What one star of a frame alone tells is as uncertain as it: others do not check it.
    return Ensemble(z, z_error, group, number, used, level, excess)


def _residuals(
    magnitude: np.ndarray, error: np.ndarray, zeropoint: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return residuals of stars measured in two frames or more, their variances, and the stars."""
    value = magnitude + zeropoint[:, None]
    seen = np.isfinite(value) & np.isfinite(error)
    seen &= seen.sum(axis=0) > 1
    variance = np.where(seen, error, 1.0) ** 2 + floor**2
    weight = np.where(seen, 1 / variance, 0.0)
    total = np.maximum(weight.sum(axis=0), 1e-300)
    level = (weight * np.where(seen, value, 0.0)).sum(axis=0) / total
    level = np.where(weight.sum(axis=0) > 0, level, np.nan)
    return np.where(seen, value - level, np.nan), variance, level


def _variable_star(residual: np.ndarray, variance: np.ndarray) -> int | None:
    """Return the star that varies most beyond the others; None where none does."""
    seen = np.isfinite(residual)
    number = seen.sum(axis=0)
    several = number >= MIN_MEASURED
    if several.sum() <= MIN_COMPARISON:
        return None
    square = np.where(seen, residual**2 / variance, 0.0).sum(axis=0)
    reduced = np.where(several, square / np.maximum(number - 1, 1), np.nan)
    typical = max(float(np.nanmedian(reduced)), 1.0)
    # chi^2 of f degrees of freedom scatters by sqrt(2 f).
    pull = (reduced / typical - 1) / np.sqrt(2 / np.maximum(number - 1, 1))
    worst = int(np.nanargmax(pull))
    return worst if pull[worst] > VARIABLE_SIGMA and reduced[worst] > 2 * typical else None


def _excess(residual: np.ndarray, error: np.ndarray, number: np.ndarray) -> float:
    """Return the scatter [mag] that the stated errors of the stars lack."""
    seen = np.isfinite(residual)
    if not seen.any():
        return 0.0
    freedom = int(seen.sum() - seen.any(axis=0).sum() - (number > 0).sum() + 1)
    r, variance = residual[seen], error[seen] ** 2 + 1e-8
    # Outliers, which have lost their weight in the solution, must not count here either.
    spread = 1.4826 * np.median(np.abs(r) / np.sqrt(variance))
    good = np.abs(r) < 5 * max(spread, 1.0) * np.sqrt(variance)
    freedom -= int((~good).sum())
    return float(np.sqrt(intrinsic_variance(r[good], variance[good], freedom)))


def tie_groups(
    ensemble: Ensemble, absolute: np.ndarray, error: np.ndarray, stack: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return what brings the zero points of frames to magnitudes, and its error.

    Each stack says what magnitude one electron per second is in its frames; the weighted mean of
    what all stacks of a group say counts, also for frames whose stack says nothing.

    Parameters
    ----------
    ensemble : Ensemble
    absolute : ndarray, shape (n_frames,)
        Zero points of the frames by their stacks; NaN where these have none.
    error : ndarray, shape (n_frames,)
        Error of the zero point of the stack [mag].
    stack : sequence of str
        Name of the stack of each frame.

    Returns
    -------
    offset, offset_error : ndarray, shape (n_frames,)
        To be added to `ensemble.zeropoint`; NaN where no stack has a zero point.
    """
    names = np.asarray(stack)
    n = len(names)
    offset, offset_error = np.full(n, np.nan), np.full(n, np.nan)
    difference = absolute - ensemble.zeropoint
    for group in np.unique(ensemble.group):
        members = ensemble.group == group
        values, errors = [], []
        for name in dict.fromkeys(names[members]):
            known = members & (names == name) & np.isfinite(difference)
            if known.any():
                values.append(float(np.median(difference[known])))
                errors.append(float(np.median(error[known])))
        if not values:
            continue
        value = np.array(values)
        sigma = np.array(errors)
        good = np.isfinite(sigma) & (sigma > 0)
        sigma = np.where(good, sigma, np.nanmax(sigma[good]) if good.any() else 0.02)
        weight = 1 / np.maximum(sigma, 0.002) ** 2
        mean = np.average(value, weights=weight)
        offset[members] = mean
        formal = 1 / np.sqrt(weight.sum())
        if len(value) > 1:
            # Stacks that differ by more than their errors say that these are too small.
            chi2 = np.sum(weight * (value - mean) ** 2) / (len(value) - 1)
            formal *= np.sqrt(max(1.0, chi2))
        offset_error[members] = formal
    return offset, offset_error


def comparison_stars(
    tables: Sequence[tuple[np.ndarray, np.ndarray]], avoid: np.ndarray, radius: float, most: int,
    spare: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return the positions of comparison stars: the brightest of all source tables.

    Parameters
    ----------
    tables : sequence of tuple
        Positions, shape (n, 2) [deg], and brightness relative to the limit, shape (n,), of stars
        of each stack that are good for it.
    avoid : ndarray, shape (m, 2)
        Positions whose objects must not be compared with themselves [deg].
    radius : float
        Nearer positions are one star [arcsec].
    most : int
        Stars at most.
    spare : ndarray, shape (s, 2), optional
        Positions of objects that are compared with only where there are few others [deg]: those
        of a field of variable stars are told by their variability.

    Returns
    -------
    ndarray, shape (k, 2)
        ra, dec [deg], in the order of brightness.
    """
    from lib.photometry.forced import unite_sources

    if most <= 0 or not any(len(sky) for sky, _ in tables):
        return np.empty((0, 2))
    positions = [sky for sky, _ in tables]
    sky, found = unite_sources(positions, [snr for _, snr in tables], radius)
    # Brightness in the table that has it brightest.
    ra0, dec0 = mean_position(sky[:, 0], sky[:, 1])
    plane = project(sky[:, 0], sky[:, 1], ra0, dec0)
    bright = np.zeros(len(sky))
    for (own, snr), there in zip(tables, found.T, strict=True):
        if not there.any() or not len(own):
            continue
        tree = cKDTree(project(own[:, 0], own[:, 1], ra0, dec0))
        distance, index = tree.query(plane[there])
        value = np.where(distance < radius, snr[np.minimum(index, len(snr) - 1)], 0.0)
        bright[there] = np.maximum(bright[there], value)
    bright[_near(plane, avoid, (ra0, dec0), radius)] = 0.0
    last = np.zeros(len(sky), bool)
    if spare is not None:
        last = _near(plane, spare, (ra0, dec0), radius)
    # Stars that all stacks see first: they tie the nights together.
    order = np.lexsort([-bright, -found.sum(axis=1), last])
    order = order[bright[order] > 0]
    others = int((~last[order]).sum())
    return sky[order[: min(most, max(others, ENOUGH_COMPARISON))]]


def _near(
    plane: np.ndarray, positions: np.ndarray, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """Return which points of a plane about a centre are near to positions [deg]."""
    known = positions[np.isfinite(positions).all(axis=1)]
    points = project(known[:, 0], known[:, 1], *centre)
    # Those of the other half of the sky have none.
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.zeros(len(plane), bool)
    tree = cKDTree(points)
    return tree.query(plane)[0] < radius
