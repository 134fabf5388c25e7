"""Ensemble photometry: zero points of all frames of a band from the stars they share.

All frames of a band, of all stacks and nights, and all comparison stars are solved for together
(Honeycutt 1992, PASP 104, 435). The zero point of a night enters only through the mean of all, so
that its error makes no step in a light curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lib.core.sphere import mean_position, project
from lib.photometry.zeropoint import intrinsic_variance, relative_zeropoints

FLOOR = 0.003
"""[mag] Minimum error of a star in a frame in the solution, so that no few stars make it alone."""

ENOUGH_FREEDOM = 10
"""With fewer degrees of freedom the scatter beyond the stated errors is not known, and `FLOOR` is
taken to be its minimum."""

ROUNDS_OF_SCATTER = 20
"""Iterations of the scatter of stars, at most, and one for each of these that is left out."""

VARIABLE_SIGMA = 4.0
"""A comparison star is variable, and left out, if its reduced chi^2 exceeds that of the others by
this multiple of its standard deviation."""

NOISY_CHANCE = 1e-4
"""A comparison star scatters by itself, as a blend does with the seeing, if one like the others has
a chi^2 as large with this probability: it has an excess of its own."""

MIN_COMPARISON = 3
"""At least so many comparison stars are kept."""

ENOUGH_COMPARISON = 50
"""With fewer comparison stars, objects to be measured serve as such, too."""

MIN_MEASURED = 3
"""Minimum number of measurements from which the variability of a star is judged."""

FREEDOM_OF_SHARES = 100
"""With fewer degrees of freedom all errors are taken to vary from frame to frame."""

LEAST_SHARE = 0.2
"""Minimum share of the variance of the sky that varies from frame to frame: photons and read noise
do."""

MOST_PULL = 5.0
"""[sigma] Larger residuals are outliers, which do not count where errors are compared with."""

ROUNDS_OF_SHARES = 3
"""Iterations of the weights: they depend on what is determined with them."""


@dataclass(frozen=True)
class ErrorParts:
    """Errors of stars in frames by their causes [mag].

    Parameters
    ----------
    photons, sky, neighbours : ndarray, shape (n_frames, n_stars)
        By the photons of the star, by what an empty aperture scatters, and by the light of known
        neighbours; NaN where a star is not measured.
    """

    photons: np.ndarray
    sky: np.ndarray
    neighbours: np.ndarray

    def total(self, sky: float = 1.0, neighbours: float = 1.0) -> np.ndarray:
        """Return the errors with these shares of the variances of sky and neighbours."""
        return np.sqrt(self.photons**2 + sky * self.sky**2 + neighbours * self.neighbours**2)


@dataclass(frozen=True)
class Ensemble:
    """The frames of a band on a common magnitude scale.

    Parameters
    ----------
    zeropoint : ndarray, shape (n_frames,)
        Magnitude of one electron per second in each frame, up to a constant for each group; NaN
        where no comparison star was measured.
    error : ndarray, shape (n_frames,)
        Errors of the zero points relative to the ensemble [mag].
    group : ndarray of int, shape (n_frames,)
        Group of each frame: frames of different groups share no star.
    n_stars : ndarray of int, shape (n_frames,)
        Number of comparison stars used in each frame.
    used : ndarray of bool, shape (n_stars,)
        Which comparison stars are not variable.
    magnitude : ndarray, shape (n_stars,)
        Magnitudes of the stars, on the scale of the zero points.
    excess : float
        Scatter of the comparison stars beyond their stated errors, of those that scatter more
        than the others left out [mag].
    scatter : float
        The same as it enters the errors of the zero points: at least `FLOOR` where the stars are
        too few to tell it.
    own : ndarray, shape (n_stars,)
        The same of each star that scatters more than the others; 0 for these [mag].
    """

    zeropoint: np.ndarray
    error: np.ndarray
    group: np.ndarray
    n_stars: np.ndarray
    used: np.ndarray
    magnitude: np.ndarray
    excess: float
    scatter: float
    own: np.ndarray

    def without_star(
        self, frame: int, magnitude: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the change of a frame's zero point with each of its stars left out in turn.

        Parameters
        ----------
        frame : int
        magnitude, error : ndarray, shape (n_stars,)
            Instrumental magnitudes of that frame.

        Returns
        -------
        shift, error : ndarray, shape (n_stars,)
            Offset to add to `zeropoint` [mag], and the error of the zero point then; NaN for stars
            that are not used in it, or where no other star is.
        """
        residual = magnitude + self.zeropoint[frame] - self.magnitude
        counts = np.isfinite(residual) & self.used
        square = np.where(counts, error, 1.0) ** 2
        floor = np.maximum(max(self.excess, FLOOR), self.own)
        weight = np.where(counts, 1 / (square + floor**2), 0.0)
        noise = weight**2 * (square + np.maximum(self.scatter, self.own) ** 2)
        rest = weight.sum() - weight
        good = counts & (rest > 1e-9 * weight.sum())
        rest = np.where(good, rest, 1.0)
        shift = np.where(good, weight * residual / rest, np.nan)
        return shift, np.where(good, np.sqrt(np.maximum(noise.sum() - noise, 0)) / rest, np.nan)


def solve_ensemble(magnitude: np.ndarray, error: np.ndarray) -> Ensemble:
    """Solve for the zero points of frames and the magnitudes of comparison stars.

    Robust least squares over all frames and stars. Variable stars are then left out one after the
    other, and the scatter beyond the stated errors is set such that chi^2 equals its number of
    degrees of freedom. Stars that scatter more than most, as unresolved blends do with the seeing,
    have a scatter of their own and do not add to that of the others.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n_frames, n_stars)
        Instrumental magnitudes for one second and their errors; NaN where a star is not measured.

    Returns
    -------
    Ensemble
        Zero points, and which stars were used.
    """
    n_frames, n_stars = magnitude.shape
    used = np.ones(n_stars, bool)
    own = np.zeros(n_stars)
    excess, alike = 0.0, True
    for step in range(ROUNDS_OF_SCATTER + n_stars):
        floor = np.maximum(max(excess, FLOOR), own)[None, :]
        masked = np.where(used, magnitude, np.nan)
        z, _, number, group = relative_zeropoints(masked, error, floor)
        residual, variance, level = _residuals(masked, error, z, floor)
        worst = None
        if step:  # how much all stars scatter is known
            worst = _variable_star(residual, error**2 + max(excess, FLOOR) ** 2)
        if worst is not None and used.sum() > MIN_COMPARISON:
            used[worst] = False
            continue
        # Which scatter more than the others is known once it is known how much all do.
        noisy = own if alike else _own_scatter(residual, error, excess, number)
        quiet = (noisy == 0) & np.isfinite(residual).any(axis=0)
        if quiet.sum() < MIN_COMPARISON:
            noisy, quiet = np.zeros(n_stars), np.ones(n_stars, bool)
        found = _excess(residual, error, number, quiet)
        settled = np.array_equal(noisy > 0, own > 0) and abs(found - excess) < 1e-4
        excess, own = found, noisy
        if settled and not alike:
            break
        alike = alike and not settled
    seen = np.isfinite(residual)
    freedom = int(seen.sum() - seen.any(axis=0).sum() - (number > 0).sum() + 1)
    scatter = excess if freedom >= ENOUGH_FREEDOM else max(excess, FLOOR)
    # The floor makes the weights; what a weighted mean is uncertain by is the scatter of its stars.
    weight = np.where(seen, 1 / variance, 0.0)
    each = np.maximum(scatter, own)
    noise = (weight**2 * np.where(seen, error**2 + each**2, 0.0)).sum(axis=1)
    total = weight.sum(axis=1)
    z_error = np.where(total > 0, np.sqrt(noise) / np.maximum(total, 1e-300), np.nan)
    # The zero point of a frame with one star is as uncertain as that star.
    return Ensemble(z, z_error, group, number, used, level, excess, scatter, own)


def varying_shares(
    magnitude: np.ndarray, parts: ErrorParts, solved: Ensemble
) -> tuple[float, float]:
    """Return which shares of the variances of sky and neighbours differ from frame to frame.

    In a crowd an empty aperture holds stars too faint to be seen, which are the same in all frames:
    they make a flux uncertain, not variable. Squared residuals are fitted by the variances of their
    causes, non-negative, with a constant.

    Parameters
    ----------
    magnitude : ndarray, shape (n_frames, n_stars)
        Instrumental magnitudes; NaN where a star is not measured.
    parts : ErrorParts
    solved : Ensemble
        Their solution.

    Returns
    -------
    sky, neighbours : float
        Between 0 and 1.
    """
    from scipy.optimize import nnls

    sky = neighbours = 1.0
    excess = solved.excess
    masked = np.where(solved.used & (solved.own == 0), magnitude, np.nan)
    for _ in range(ROUNDS_OF_SHARES):
        error = parts.total(sky, neighbours)
        residual, variance, _ = _residuals(masked, error, solved.zeropoint, excess)
        seen = np.isfinite(residual)
        weight = np.where(seen, 1 / variance, 0.0)
        # What a star has of its own mean, and of the zero point of its frame.
        own = weight / np.maximum(weight.sum(axis=0), 1e-300)
        own += weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
        seen &= (own < 0.5) & (np.abs(residual) < MOST_PULL * np.sqrt(variance))
        if (1 - own[seen]).sum() < FREEDOM_OF_SHARES:
            return 1.0, 1.0
        square = residual[seen] ** 2 / (1 - own[seen]) - parts.photons[seen] ** 2
        columns = [parts.sky[seen] ** 2, parts.neighbours[seen] ** 2, np.ones(seen.sum())]
        # A square has the standard deviation of its mean, times sqrt(2).
        design = np.column_stack(columns) / variance[seen, None]
        found, _ = nnls(design, square / variance[seen])
        sky, neighbours = float(np.clip(found[0], LEAST_SHARE, 1)), float(min(found[1], 1))
        excess = float(np.sqrt(found[2]))
    return sky, neighbours


def _residuals(
    magnitude: np.ndarray, error: np.ndarray, zeropoint: np.ndarray, floor: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return residuals and variances of stars measured in two or more frames, and these stars."""
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
    """Return the most variable star; None where none is significant."""
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


def _excess(
    residual: np.ndarray, error: np.ndarray, number: np.ndarray, stars: np.ndarray
) -> float:
    """Return the scatter [mag] of some stars that their stated errors do not explain."""
    everything = np.isfinite(residual)
    seen = everything & stars
    if not seen.any():
        return 0.0
    # Of the zero points these stars have their part.
    part = seen.sum() / everything.sum()
    freedom = seen.sum() - seen.any(axis=0).sum() - part * max((number > 0).sum() - 1, 0)
    r, variance = residual[seen], error[seen] ** 2 + 1e-8
    # Outliers have no weight in the solution, nor here.
    spread = 1.4826 * np.median(np.abs(r) / np.sqrt(variance))
    good = np.abs(r) < 5 * max(spread, 1.0) * np.sqrt(variance)
    freedom -= int((~good).sum())
    return float(np.sqrt(intrinsic_variance(r[good], variance[good], freedom)))


def _own_scatter(
    residual: np.ndarray, error: np.ndarray, excess: float, number: np.ndarray
) -> np.ndarray:
    """Return the scatter [mag] of each star that scatters more than the others; 0 for these."""
    from scipy.stats import chi2

    seen = np.isfinite(residual)
    count = seen.sum(axis=0)
    freedom = seen.sum() - (count > 0).sum() - (number > 0).sum() + 1
    each = count * max(freedom, 0) / max(seen.sum(), 1)
    own = np.zeros(residual.shape[1])
    for star in np.flatnonzero((count >= MIN_MEASURED) & (each > 0)):
        r, variance = residual[seen[:, star], star], error[seen[:, star], star] ** 2 + 1e-8
        square = np.sum(r**2 / (variance + excess**2))
        if chi2.sf(square, each[star]) < NOISY_CHANCE:
            own[star] = np.sqrt(intrinsic_variance(r, variance, each[star]))
    return own


def tie_groups(
    ensemble: Ensemble, absolute: np.ndarray, error: np.ndarray, stack: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets from ensemble zero points to calibrated magnitudes, and their errors.

    Each stack gives the calibrated zero point of its frames; the weighted mean over all stacks of a
    group applies, also to frames whose stack has none.

    Parameters
    ----------
    ensemble : Ensemble
        The solution.
    absolute : ndarray, shape (n_frames,)
        Calibrated zero points of the frames from their stacks [mag]; NaN where these have none.
    error : ndarray, shape (n_frames,)
        Error of the zero point of each frame's stack [mag].
    stack : sequence of str
        Name of the stack of each frame.

    Returns
    -------
    offset, offset_error : ndarray, shape (n_frames,)
        Offset to add to `ensemble.zeropoint` [mag], and its error; NaN where no stack has a zero
        point.
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
            # Where stacks differ by more than their errors, these are too small.
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
        Of each stack: positions [deg], shape (n, 2), and brightness in units of the limit, shape
        (n,), of suitable stars.
    avoid : ndarray, shape (m, 2)
        ra, dec [deg] of objects that must not serve as their own comparison stars.
    radius : float
        Closer positions count as one star [arcsec].
    most : int
        Maximum number of stars.
    spare : ndarray, shape (s, 2), optional
        ra, dec [deg] of objects used only where other stars are few; variable ones among them are
        found by their scatter.

    Returns
    -------
    ndarray, shape (k, 2)
        ra, dec [deg], brightest first.
    """
    from lib.photometry.forced import unite_sources

    if most <= 0 or not any(len(sky) for sky, _ in tables):
        return np.empty((0, 2))
    positions = [sky for sky, _ in tables]
    sky, found = unite_sources(positions, [snr for _, snr in tables], radius)
    # The largest brightness in any table.
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
    # Stars common to all stacks first: they tie the nights together.
    order = np.lexsort([-bright, -found.sum(axis=1), last])
    order = order[bright[order] > 0]
    others = int((~last[order]).sum())
    return sky[order[: min(most, max(others, ENOUGH_COMPARISON))]]


def _near(
    plane: np.ndarray, positions: np.ndarray, centre: tuple[float, float], radius: float
) -> np.ndarray:
    """Return which points of a tangent plane lie within a radius of positions [deg]."""
    known = positions[np.isfinite(positions).all(axis=1)]
    points = project(known[:, 0], known[:, 1], *centre)
    # Positions in the opposite hemisphere have no projection.
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.zeros(len(plane), bool)
    tree = cKDTree(points)
    return tree.query(plane)[0] < radius
