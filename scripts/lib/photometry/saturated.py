"""Fluxes of saturated stars, from the light around their saturated cores."""

import numpy as np

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.growth import GrowthCurve
from lib.photometry.image import MeasurementImage
from lib.photometry.psf import moffat_fraction

RING = 1.5
"""[FWHM] Width of the ring around a core in which the flux is measured."""

MIN_PIXELS = 30
"""Minimum number of pixels for a measurement."""

PROFILE_ERROR = 0.03
"""Relative error of the light in the wings: the scatter of profiles between stars, beyond the error
of their mean."""

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


def wing_flux(
    image: MeasurementImage, x: float, y: float, growth: GrowthCurve, fwhm: float,
    others: np.ndarray | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Measure the total flux of a star from the light around its saturated core.

    The flux is the median of the estimates of single pixels in a ring, so that neighbours matter
    little; the error includes the difference between the inner and outer halves of the ring, and
    that between the growth curve and its smooth wings there.

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
    others : ndarray, shape (3, n), optional
        x, y and total fluxes of other saturated stars, whose light is taken away.

    Returns
    -------
    flux, error : float
        Total flux and its error; NaN where it cannot be measured, or the error exceeds half of it.
    """
    assert image.cores is not None
    size = image.data.shape
    column, row = round(x), round(y)
    inner = _core_radius(image.cores, column, row)
    outer = inner + RING * fwhm
    half = int(np.ceil(outer)) + 1
    rows = np.arange(max(0, row - half), min(size[0], row + half + 1))
    columns = np.arange(max(0, column - half), min(size[1], column + half + 1))
    there = np.ix_(rows, columns)
    radius = np.hypot(*np.broadcast_arrays(rows[:, None] - y, columns[None, :] - x))
    ring = (radius < outer) & ~image.cores[there] & (image.data[there] < image.saturate)
    if image.bad is not None:
        ring &= ~image.bad[there]
    if ring.sum() < MIN_PIXELS:
        return np.nan, np.nan
    radius, light = radius[ring], image.data[there][ring].astype(float)
    profile = profile_density(growth, radius)
    if others is not None:
        at = rows[np.nonzero(ring)[0]], columns[np.nonzero(ring)[1]]
        for other_x, other_y, theirs in others.T:
            apart = np.hypot(at[0] - other_y, at[1] - other_x)
            light -= theirs * profile_density(growth, apart)
    flux = _weighted_median(light / profile, profile)
    scatter = MAD_TO_SIGMA * _weighted_median(np.abs(light / profile - flux), profile)
    error = 1.2533 * scatter * np.sqrt(np.sum(profile**2)) / np.sum(profile)
    near = radius < np.median(radius)
    halves = [_weighted_median((light / profile)[half], profile[half]) for half in (near, ~near)]
    # Where the rings of the growth curve are noise, they differ from the smooth profile.
    smooth = growth.wings().density(radius, 0.0)
    wings = float(np.average(np.abs(np.log(profile / smooth)), weights=profile))
    total = np.sqrt(
        error**2 + ((halves[0] - halves[1]) / 2) ** 2
        + (PROFILE_ERROR**2 + growth.error**2 + wings**2) * flux**2
    )  # fmt: skip
    if not 0 < total < MAX_ERROR * flux:
        return np.nan, np.nan
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


def saturated_fluxes(
    image: MeasurementImage, x: np.ndarray, y: np.ndarray, rows: np.ndarray,
    growth: GrowthCurve, fwhm: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the total fluxes of saturated stars and their errors; see `wing_flux`.

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

    Returns
    -------
    flux, error : ndarray, shape (n,)
        NaN for the other sources, and where the wings do not give a flux.
    """
    flux, error = np.full((2, len(x)), np.nan)
    for row in rows:
        flux[row], error[row] = wing_flux(image, float(x[row]), float(y[row]), growth, fwhm)
    apart = np.hypot(x[rows, None] - x[rows], y[rows, None] - y[rows])
    beside = (apart < REACH * fwhm) & ~np.eye(rows.size, dtype=bool)
    for _ in range(ROUNDS):
        for k in np.flatnonzero(beside.any(axis=1)):
            row, near = rows[k], rows[beside[k]]
            near = near[np.isfinite(flux[near])]
            if near.size:
                others = np.array([x[near], y[near], flux[near]], float)
                flux[row], error[row] = wing_flux(
                    image, float(x[row]), float(y[row]), growth, fwhm, others
                )
    return flux, error
