"""Places and fluxes of saturated stars, from the light around their saturated cores."""

from dataclasses import dataclass

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.growth import GrowthCurve
from lib.photometry.image import MeasurementImage
from lib.photometry.psf import Wings, moffat_fraction

RING = 1.5
"""[FWHM] Width of the ring around a core in which the flux is measured."""

MIN_PIXELS = 30
"""Minimum number of pixels for a measurement."""

PROFILE_ERROR = 0.03
"""Relative error of the light in the wings: the scatter of profiles between stars, beyond the error
of their mean."""

FIT_STEPS = 12
"""How often a place is fitted, at most."""

STILL = 0.003
"""[pixel] Shift below which a place is known; relative change below which a flux is."""

CLIP = 3.0
"""[scatter] Pixels of a ring that depart further are those of other sources."""

SECTORS = 8
"""Pairs of opposite sectors whose absence in turn tells the error of a place."""

ASIDE_STARS, MIN_ASIDE_STARS = 12, 5
"""Most and fewest stars that tell whether their wings are beside their cores."""

SIGNIFICANT = 3.0
"""[error] Least offset of the wings that is taken for one."""

ALL_FRAMES = 1.05
"""[least noise of the ring] Pixels with more noise are lost in some of the frames."""

AUREOLE = 1.0
"""Exponent, as that of a Moffat profile, of light far from stars (King 1971, PASP 83, 199)."""

ROUNDS = 5
"""How often fluxes are measured with the light of the other saturated stars taken away."""

REACH = 20.0
"""[FWHM] Distance from which on that light does not matter."""

MAX_ERROR = 0.5
"""Fluxes with a larger relative error are discarded."""


def profile_density(growth: GrowthCurve, radius: np.ndarray) -> np.ndarray:
    """Return the surface brightness of a star of total flux 1 from its growth curve.

    Parameters
    ----------
    growth : GrowthCurve
    radius : ndarray
        Distance from the centre [pixel].

    Returns
    -------
    ndarray
        Surface brightness [pixel^-2]: the profile of the wings, scaled to the flux in the rings of
        the growth curve.
    """
    edges = np.append(0.0, growth.radii)
    measured = np.diff(np.append(0.0, growth.cumulative))
    modelled = growth.norm * np.diff(moffat_fraction(edges, growth.alpha, growth.beta))
    middle = np.sqrt((edges[1:] ** 2 + edges[:-1] ** 2) / 2)
    part = np.where(measured > 0, measured / np.maximum(modelled, 1e-12), 1.0)
    part = np.clip(np.append(part, 1.0), 0.1, 10.0)
    middle = np.append(middle, 1.2 * edges[-1])
    return growth.wings().density(radius, 0.0) * np.interp(radius, middle, part)


@dataclass(frozen=True)
class SaturatedStars:
    """Places and fluxes of the saturated ones of n sources.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions of all sources [pixel].
    place_error : ndarray, shape (n,)
        Errors of these, averaged over both axes; NaN for sources that are not saturated.
    flux, error : ndarray, shape (n,)
        Total fluxes and their errors; NaN for these, and where the wings do not give a flux.
    """

    x: np.ndarray
    y: np.ndarray
    place_error: np.ndarray
    flux: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class _Ring:
    """Pixels around a saturated core.

    Parameters
    ----------
    inner : float
        Radius of the core [pixel].
    rows, columns : ndarray, shape (n,)
        [pixel].
    light : ndarray, shape (n,)
        Without that of the other saturated stars.
    disturbed : ndarray, shape (n,)
        Error of the light of these stars.
    noise : ndarray, shape (n,)
        Of each pixel, without photons.
    """

    inner: float
    rows: np.ndarray
    columns: np.ndarray
    light: np.ndarray
    disturbed: np.ndarray
    noise: np.ndarray

    @classmethod
    def about(
        cls, image: MeasurementImage, x: float, y: float, growth: GrowthCurve, fwhm: float,
        others: np.ndarray | None = None, inner: float | None = None,
    ) -> "_Ring | None":  # fmt: skip
        """Return the ring around a star, see `wing_flux`; None where it has too few pixels.

        With `inner`, of one that is not saturated, from this radius [pixel] on.
        """
        assert image.cores is not None
        size = image.data.shape
        column, row = round(x), round(y)
        least = 0.0 if inner is None else inner
        inner = _core_radius(image.cores, column, row) if inner is None else inner
        outer = inner + RING * fwhm
        half = int(np.ceil(outer)) + 1
        rows = np.arange(max(0, row - half), min(size[0], row + half + 1))
        columns = np.arange(max(0, column - half), min(size[1], column + half + 1))
        there = np.ix_(rows, columns)
        radius = np.hypot(*np.broadcast_arrays(rows[:, None] - y, columns[None, :] - x))
        ring = (
            (radius >= least)
            & (radius < outer)
            & ~image.cores[there]
            & (image.data[there] < image.saturate)
        )
        if image.bad is not None:
            ring &= ~image.bad[there]
        if ring.sum() < MIN_PIXELS:
            return None
        light = image.data[there][ring].astype(float)
        at = rows[np.nonzero(ring)[0]], columns[np.nonzero(ring)[1]]
        disturbed = np.zeros(light.size)
        if others is not None:
            for other_x, other_y, flux, error in others.T:
                theirs = profile_density(growth, np.hypot(at[0] - other_y, at[1] - other_x))
                light -= flux * theirs
                disturbed = disturbed + error * theirs
        noise = np.broadcast_to(image.noise, size)[there][ring].astype(float)
        return cls(inner, *at, light, disturbed, noise)

    def whole(self) -> "_Ring":
        """Return the pixels in which all frames have weight, if they are enough.

        At the rim of a core frames of good seeing and bad are lost on different sides.
        """
        full = self.noise < ALL_FRAMES * np.percentile(self.noise, 10)
        if full.sum() < MIN_PIXELS:
            return self
        return _Ring(
            self.inner, self.rows[full], self.columns[full], self.light[full],
            self.disturbed[full], self.noise[full],
        )  # fmt: skip

    def distance(self, x: float, y: float) -> np.ndarray:
        """Return the distance of the pixels from a star [pixel]."""
        return np.hypot(self.rows - y, self.columns - x)


def wing_place(
    image: MeasurementImage, x: float, y: float, growth: GrowthCurve, fwhm: float,
    others: np.ndarray | None = None, with_error: bool = True,
) -> tuple[float, float, float]:  # fmt: skip
    """Measure the place of a star from the light around its saturated core.

    The light over the profile of a star is the same in all directions about its place. The centre
    of a core, whose rim is known to a pixel, changes with what each frame has lost of it.

    Parameters
    ----------
    image, x, y, growth, fwhm, others
        As for `wing_flux`.
    with_error : bool
        Whether to measure the error, too.

    Returns
    -------
    x, y, error : float
        Position and error, averaged over both axes [pixel]. The error is that by leaving out one
        pair of opposite sectors of the ring after another, by the difference between its halves, by
        light that is not of one star, and by that of the others. Where the ring tells no place, the
        star is anywhere in the core.
    """
    ring = _Ring.about(image, x, y, growth, fwhm, others)
    if ring is None:
        assert image.cores is not None
        return x, y, 0.5 * _core_radius(image.cores, round(x), round(y))
    worst = 0.5 * ring.inner
    found = _fit_place(ring.whole(), x, y, growth.wings(), image.gain, worst if with_error else 0.0)
    return found if found is not None else (x, y, worst)


def _fit_place(
    ring: _Ring, x: float, y: float, wings: Wings, gain: float, worst: float
) -> tuple[float, float, float] | None:
    """Return position and error of a star, see `wing_place`; None where nothing fits.

    `worst` is the largest error of a place that is told [pixel]; if 0, errors are left out.
    """
    here = np.array([x, y])
    used = np.ones(ring.light.size, bool)
    for _ in range(FIT_STEPS):
        dx, dy = ring.columns - here[0], ring.rows - here[1]
        # Smooth, since the rings of the growth curve have noise.
        profile = wings.density(dx, dy)
        steepness = 2 * wings.beta / (wings.alpha**2 + dx**2 + dy**2)
        ratio = ring.light / profile
        model = max(_weighted_median(ratio, profile), 0.0) * profile
        photons = model / gain if gain else 0.0
        weight = profile / np.sqrt(ring.noise**2 + photons + (PROFILE_ERROR * model) ** 2)
        outwards = -np.log(profile / profile.max())
        outwards -= outwards.mean()
        # Light, its fall with distance, and its change as the star moves along both axes.
        design = weight[:, None] * np.column_stack(
            [np.ones(dx.size), outwards, outwards**2, steepness * dx, steepness * dy]
        )
        value = weight * ratio
        solved, *_ = np.linalg.lstsq(design[used], value[used], rcond=None)
        left = value - design @ solved
        level = float(solved[0])
        if not level > 0:
            return None
        shift = solved[-2:] / level
        limit = max(1.0, 0.5 * ring.inner)
        length = float(np.hypot(*shift))
        here = here + shift * min(1.0, limit / max(length, 1e-9))
        # The edge of the image may hide most of the core.
        if np.hypot(*(here - (x, y))) > 2 * ring.inner:
            return None
        spread = MAD_TO_SIGMA * float(np.median(np.abs(left[used])))
        again = np.abs(left) < CLIP * spread
        if again.sum() < MIN_PIXELS:
            return None
        if length < STILL and (again == used).all():
            break
        used = again
    if not worst:
        return float(here[0]), float(here[1]), np.nan
    part, part_value = design[used], value[used]
    angle = np.arctan2(dy, dx)[used]
    near = (profile > np.median(profile[used]))[used]
    disturbed = np.linalg.lstsq(part, (weight * ring.disturbed / profile)[used], rcond=None)[0]
    noise = (np.sqrt(ring.noise**2 + photons) * weight / profile)[used]
    strange = _strangeness(part, part_value, angle, weight[used], noise)
    error = np.sqrt(
        _jackknife(part, part_value, angle) ** 2
        + _halves(part, part_value, near, spread) ** 2
        + np.sum(disturbed[-2:] ** 2) / 2
        + (strange / float(np.median((steepness * np.hypot(dx, dy))[used]))) ** 2
    ) / level  # fmt: skip
    if not error < worst:
        return None
    return float(here[0]), float(here[1]), float(error)


def _jackknife(design: np.ndarray, value: np.ndarray, angle: np.ndarray) -> float:
    """Return the error of the last two parameters of a fit, their mean, by leaving out sectors.

    What a neighbour, a defect, or frames of different seeing add to the light is common to many
    pixels, but not to all directions.
    """
    sector = np.floor((angle / np.pi + 1) * SECTORS).astype(int) % SECTORS
    parts = [design[sector == k] for k in range(SECTORS)]
    normal = np.array([part.T @ part for part in parts])
    right = np.array([part.T @ value[sector == k] for k, part in enumerate(parts)])
    there = np.array([part.size > 0 for part in parts])
    rest = normal.sum(axis=0) - normal[there], right.sum(axis=0) - right[there]
    try:
        solved = np.linalg.solve(rest[0], rest[1][:, :, None])[:, -2:, 0]
    except np.linalg.LinAlgError:
        return np.inf
    number = int(there.sum())
    variance = (number - 1) / number * np.sum((solved - solved.mean(axis=0)) ** 2, axis=0)
    return float(np.sqrt(variance.mean()))


def _strangeness(
    design: np.ndarray, value: np.ndarray, angle: np.ndarray, weight: np.ndarray, noise: np.ndarray
) -> float:  # fmt: skip
    """Return the scatter, beyond noise, of the light over the profile about that of one star.

    The star may be oval. The light that is not of one star may be on one side as well.
    """
    turns = angle[:, None] * np.array([2, 4])
    oval = np.hstack([np.cos(turns), np.sin(turns)])
    oval = np.hstack([oval, oval * (design[:, 1] / weight)[:, None]])
    design = np.hstack([design, weight[:, None] * oval])
    solved, *_ = np.linalg.lstsq(design, value, rcond=None)
    spread = MAD_TO_SIGMA * float(np.median(np.abs(value - design @ solved)))
    beyond = max(spread**2 - float(np.median(noise**2)), 0.0)
    return float(np.sqrt(beyond) / np.median(weight))


def _halves(design: np.ndarray, value: np.ndarray, near: np.ndarray, spread: float) -> float:
    """Return half of what the halves of a ring differ by in the last two parameters, beyond noise.

    Where the light is not that of one round star, its centre changes with distance.
    """
    apart, variance = np.zeros(2), 0.0
    for sign, half in ((1, near), (-1, ~near)):
        solved, *_ = np.linalg.lstsq(design[half], value[half], rcond=None)
        apart += sign * solved[-2:]
        covariance = np.linalg.pinv(design[half].T @ design[half])
        variance += spread**2 * float(np.trace(covariance[-2:, -2:]))
    return float(np.sqrt(max(np.sum(apart**2) - variance, 0.0) / 8))


def wing_flux(
    image: MeasurementImage, x: float, y: float, growth: GrowthCurve, fwhm: float,
    others: np.ndarray | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Measure the total flux of a star from the light around its saturated core.

    The flux is the median of the estimates of single pixels in a ring, so that neighbours matter
    little; the error includes the difference between the inner and outer halves of the ring, that
    between the growth curve and its smooth wings there, and, beyond the growth curve, half of what
    an aureole would be of the light.

    Parameters
    ----------
    image : MeasurementImage
        Image with `cores`.
    x, y : float
        Position of the star [pixel].
    growth : GrowthCurve
        Growth curve of the image.
    fwhm : float
        FWHM of stars [pixel].
    others : ndarray, shape (4, n), optional
        x, y, total fluxes and their errors of other saturated stars, whose light is taken away.

    Returns
    -------
    flux, error : float
        Total flux and its error; NaN where it cannot be measured.
    """
    ring = _Ring.about(image, x, y, growth, fwhm, others)
    if ring is None:
        return np.nan, np.nan
    radius, light = ring.distance(x, y), ring.light
    profile = profile_density(growth, radius)
    flux = _weighted_median(light / profile, profile)
    scatter = MAD_TO_SIGMA * _weighted_median(np.abs(light / profile - flux), profile)
    error = 1.2533 * scatter * np.sqrt(np.sum(profile**2)) / np.sum(profile)
    near = radius < np.median(radius)
    halves = [_weighted_median((light / profile)[half], profile[half]) for half in (near, ~near)]
    # Beyond the growth curve the wings fall as it does there, or as an aureole.
    reach = float(np.average(radius, weights=profile)) / growth.radii[-1]
    aureole = 0.5 * (1 - min(1.0, reach ** (2 * (AUREOLE - growth.beta))))
    # Where the rings of the growth curve are noise, they differ from the smooth profile.
    smooth = growth.wings().density(radius, 0.0)
    wings = float(np.average(np.abs(np.log(profile / smooth)), weights=profile))
    total = np.sqrt(
        error**2 + ((halves[0] - halves[1]) / 2) ** 2
        + (PROFILE_ERROR**2 + growth.error**2 + wings**2 + aureole**2) * flux**2
    )  # fmt: skip
    return float(flux), float(total)


def _core_radius(cores: np.ndarray, column: int, row: int) -> float:
    """Return the radius of a saturated core [pixel], its bleed trail ignored."""
    reach = 1
    ny, nx = cores.shape
    while reach < max(ny, nx):
        part = cores[
            max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1
        ]
        # A disc fills three quarters of its square, a trail less and less of it.
        if part.mean() < 0.6:
            break
        reach += 1
    return float(reach)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted median."""
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(passed, 0.5 * passed[-1])]])


def wings_aside(
    image: MeasurementImage, x: np.ndarray, y: np.ndarray, growth: GrowthCurve, fwhm: float
) -> tuple[np.ndarray, float]:
    """Return by how much the wings of stars are beside their cores, as coma has it.

    Parameters
    ----------
    image : MeasurementImage
    x, y : ndarray, shape (n,)
        Positions of stars that are not saturated [pixel], the brightest first.
    growth : GrowthCurve
    fwhm : float
        [pixel].

    Returns
    -------
    offset : ndarray, shape (2,)
        Along x and y, by the median of the stars [pixel]; 0 where it is not significant.
    error : float
        Its error a axis: further out the wings may be elsewhere by as much again.
    """
    found = []
    for at in zip(x[:ASIDE_STARS].astype(float), y[:ASIDE_STARS].astype(float), strict=True):
        ring = _Ring.about(image, *at, growth, fwhm, inner=fwhm)
        place = None if ring is None else _fit_place(ring, *at, growth.wings(), image.gain, 0)
        if place is not None:
            found.append([place[0] - at[0], place[1] - at[1]])
    if len(found) < MIN_ASIDE_STARS:
        return np.zeros(2), 0.0
    offset = np.median(found, axis=0)
    scatter = MAD_TO_SIGMA * np.median(np.abs(found - offset), axis=0)
    error = 1.2533 * float(np.sqrt(np.mean(scatter**2))) / np.sqrt(len(found))
    if np.hypot(*offset) < SIGNIFICANT * error:
        return np.zeros(2), 0.0
    return offset, float(np.sqrt(error**2 + np.sum(offset**2) / 2))


def saturated_stars(
    image: MeasurementImage, x: np.ndarray, y: np.ndarray, rows: np.ndarray,
    growth: GrowthCurve, fwhm: float, stars: np.ndarray | None = None,
) -> SaturatedStars:  # fmt: skip
    """Return places and total fluxes of saturated stars; see `wing_place` and `wing_flux`.

    Parameters
    ----------
    image : MeasurementImage
    x, y : ndarray, shape (n,)
        Positions of the sources [pixel].
    rows : ndarray of int, shape (m,)
        Rows of the saturated ones.
    growth : GrowthCurve
        Growth curve of the image.
    fwhm : float
        FWHM of stars [pixel].
    stars : ndarray of int, optional
        Rows of stars that are not saturated, the brightest first; see `wings_aside`.
    """
    x, y = x.astype(float), y.astype(float)
    flux, error, place_error = np.full((3, len(x)), np.nan)

    def measure(row: int, others: np.ndarray | None = None, with_error: bool = True) -> None:
        at = float(x[row]), float(y[row])
        x[row], y[row], place_error[row] = wing_place(image, *at, growth, fwhm, others, with_error)
        flux[row], error[row] = wing_flux(image, float(x[row]), float(y[row]), growth, fwhm, others)

    apart = np.hypot(x[rows, None] - x[rows], y[rows, None] - y[rows])
    beside = (apart < REACH * fwhm) & ~np.eye(rows.size, dtype=bool)
    paired = beside.any(axis=1)
    for k in range(rows.size):
        measure(int(rows[k]), with_error=not paired[k])
    # Again where a star or one beside it has changed.
    again = paired
    for step in range(1, ROUNDS + 1):
        # Errors are those of the last round.
        last = step == ROUNDS or not again.any()
        before = np.array([x[rows], y[rows], flux[rows]])
        for k in np.flatnonzero(paired if last else again).tolist():
            near = rows[beside[k]]
            near = near[flux[near] > 0]
            others = np.array([x[near], y[near], flux[near], error[near]], float)
            measure(int(rows[k]), others, with_error=last)
        if last:
            break
        change = np.abs(np.array([x[rows], y[rows], flux[rows]]) - before)
        change[2] /= np.maximum(before[2], 1e-9)
        moved = (change > STILL).any(axis=0)
        again = paired & (moved | (beside & moved).any(axis=1))
    if stars is not None and rows.size:
        offset, more = wings_aside(image, x[stars], y[stars], growth, fwhm)
        x[rows], y[rows] = x[rows] - offset[0], y[rows] - offset[1]
        place_error[rows] = np.hypot(place_error[rows], more)
    untold = ~(error < MAX_ERROR * flux)
    flux[untold] = error[untold] = np.nan
    return SaturatedStars(x, y, place_error, flux, error)
