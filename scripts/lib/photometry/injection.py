"""Artificial stars in a coadd: completeness, and the errors of crowded fields.

Neither completeness nor confusion follows from the noise of empty sky. Stars of known flux at
random positions, detected and measured like all others, give both.
"""

import logging
from dataclasses import replace

import numpy as np
import sep

from lib.core.stats import MAD_TO_SIGMA
from lib.photometry.backgroundmesh import background, grow
from lib.photometry.coaddpsf import resolve_crowd
from lib.photometry.confusion import Confusion
from lib.photometry.image import MeasurementImage
from lib.photometry.locallight import LocalLight
from lib.photometry.measuredcoadd import OCCUPIED_MARGIN, MeasuredCoadd
from lib.photometry.neighbours import faint_sources
from lib.photometry.psf import Wings
from lib.photometry.psffit import draw_stars
from lib.photometry.sources import Detections, detect_sources
from lib.photometry.sourcetable import SourceMeasurements, measure_sources
from lib.photometry.starfield import FieldSettings, StarField, measure_field
from lib.photometry.superposed import superposed_sources

log = logging.getLogger("autoproc")

REGION = 700
"""[pixel] Side of the part of a coadd that artificial stars are added to."""

MATCH_DISTANCE = 0.75
"""[FWHM] A source closer than this to an artificial star is that star."""

CROWDED = 0.03
"""Sources per area of one FWHM radius above which confusion is measured."""

LEAST_CROWD = 60
"""Minimum number of sources of a crowded field: fewer are wide images, as of a telescope out of
focus."""

DENSER = 2.0
"""[mean light] Where there is more light half of the stars are added: it is that crowded."""

INJECTED = 300
"""Number of stars added to a crowded field, in rounds."""

SHARE = 0.08
"""Artificial stars of a round as a fraction of the sources of the field, whose crowding they hardly
change."""

FAINT_REACH = 4.0
"""[scale radii of the profile] Half side of the cutouts in which stars near the limit are drawn."""

COMPLETE_STARS = 150
"""Number of stars added to a crowded field for its completeness, in rounds."""

CROWD_RANGE = (-5.0, 1.0)
"""[mag] Brightest and faintest of them, relative to the limit by noise."""

BLENDED = 0.05
"""Part of the stars of a crowd that have no entry of their own however bright, or one by chance."""

BINS = 8
"""Most flux bins in which the bias by confusion is measured."""

POINT_ROW, PSF_ROW = 5, 9
"""Rows of the `POINT` and `PSF` fluxes in the result of `_matched`."""

MIN_STARS, BIN_STARS = 15, 60
"""Number of recovered stars in a bin for its median, at least and if there are enough."""

SLOPE, SLOPE_ERROR = 0.7, 0.3
"""Expected slope of errors by confusion, -d ln(error / flux) / d ln(flux), where few stars tell it:
between that of an error in proportion to the flux, 0, and that of one common to all stars, 1."""

FEWEST = 5
"""Minimum number of them with a measurement of some kind."""

POWERS, POWER_ERROR = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0), 0.5
"""Powers of the light about a star that are tried, and how much they are expected to differ from
1."""

GAUSSIAN_MEDIAN = 0.6745
"""Half of the values of a Gaussian are within this [sigma]."""

FIRST_LOOK = 140
"""Stars added at once, at first: where errors hold in a field so much more crowded, they hold."""

AS_STATED = 1.2
"""Maximum ratio of scatter to stated error, of the brighter and of the fainter half, for errors to
be correct: the scatter of 60 stars is known to 0.13 of it."""

DENSE = 3 * CROWDED
"""Sources per area of one FWHM radius above which errors are never taken for correct so soon: those
of most stars are, but not those of the blended."""


def star_wings(field: StarField) -> Wings:
    """Return a profile of the whole star, core included."""
    return field.profile.star_aperture(field.aperture).wings


def inject_stars(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, flux: np.ndarray, wings: Wings, gain: float,
    rng: np.random.Generator, reach: float = 8.0,
) -> np.ndarray:  # fmt: skip
    """Return an image with artificial stars, and their photon noise, added.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    x, y, flux : ndarray, shape (n,)
        Positions [pixel] and total fluxes of the stars.
    wings : Wings
        Profile of a star.
    gain : float
        Electrons per unit.
    rng : numpy.random.Generator
        Source of the photon noise.
    reach : float
        Half side of the cutouts in which stars are drawn [scale radii of the profile].
    """
    image = image.copy()
    half = int(np.ceil(max(1.25 * reach, reach * wings.alpha)))
    # Pixels are sampled at 3 x 3 points.
    points = np.arange(-1, 3 * (2 * half + 1) - 1) / 3 - half
    for xs, ys, light in zip(x, y, flux, strict=True):
        column, row = round(xs), round(ys)
        y0, x0 = max(0, row - half), max(0, column - half)
        part = image[y0 : row + half + 1, x0 : column + half + 1]
        star = wings.density(points + (column - xs), (points + (row - ys))[:, None])
        star = star.reshape(2 * half + 1, 3, -1, 3).mean(axis=(1, 3))
        star = star[y0 - row + half :, x0 - column + half :][: part.shape[0], : part.shape[1]]
        part += rng.poisson(star * light * gain) / gain
    return image


def injection_region(coadd: MeasuredCoadd) -> MeasuredCoadd:
    """Return the part of a coadd that artificial stars are added to, of at most 700 pixels a side.

    It is the middle of the covered area, which most frames share.
    """
    part = _middle_of(coadd.covered)
    psf = coadd.psf and coadd.psf.shifted(part[1].start, part[0].start)
    return replace(
        coadd, psf=psf, image=np.ascontiguousarray(coadd.image[part]),
        variance=np.ascontiguousarray(coadd.variance[part]),
        covered=np.ascontiguousarray(coadd.covered[part]),
        occupied=np.ascontiguousarray(coadd.occupied[part]),
    )  # fmt: skip


def _middle_of(covered: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns in the middle of the covered area."""
    row, column = (int(np.median(np.flatnonzero(covered.any(axis=axis)))) for axis in (1, 0))
    half = REGION // 2
    return (
        slice(max(0, row - half), row + half), slice(max(0, column - half), column + half)
    )  # fmt: skip


def measurement_image(coadd: MeasuredCoadd, image: np.ndarray) -> MeasurementImage:
    """Return an image of the size of a coadd, with the coadd's noise of single pixels."""
    noise = np.sqrt(coadd.variance / coadd.noise.correlation)
    noise[~coadd.covered] = noise.max()
    return MeasurementImage(image, noise.astype(np.float32), ~coadd.covered, coadd.gain)


def detect_above_background(image: MeasurementImage, how: FieldSettings, box: int) -> Detections:
    """Detect the sources of a coadd above its background in meshes of `box` pixels."""
    level, _ = background(image.data, image.bad, box)
    clean = (image.data - level) * ~np.asarray(image.bad, bool)
    return detect_sources(clean, image.noise, None, how.threshold, how.min_area)


def spaced_places(
    covered: np.ndarray,
    spacing: float,
    number: int,
    rng: np.random.Generator,
    light: LocalLight | None = None,
    margin: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `number` random positions at least half of `spacing` apart [pixel].

    They are in covered pixels, `margin` from the edge at least. Half of them, with `light`, where
    that says that it is crowded.
    """
    cells = [max(1, int((size - 2 * margin) // spacing)) for size in covered.shape]
    row, column = (axis.ravel() for axis in np.indices(cells))
    place = [(one + 0.5) * spacing + margin for one in (column, row)]
    cell = rng.permutation(row.size)[:number]
    if light is not None:
        dense = np.maximum(light.at(*place) - DENSER, 0)
        chance = 1 + dense / max(dense.mean(), 1e-30)
        cell = rng.choice(row.size, cell.size, replace=False, p=chance / chance.sum())
    jitter = rng.uniform(-0.25, 0.25, (2, cell.size))
    x, y = (one[cell] + j * spacing for one, j in zip(place, jitter, strict=True))
    inside = covered[y.round().astype(int), x.round().astype(int)]
    return x[inside], y[inside]


def complete_flux(
    coadd: MeasuredCoadd, limit: float, how: FieldSettings, box: int, least: float, seed: int = 3
) -> float:
    """Return the flux at which half of the artificial stars in a coadd are detected.

    In a crowded one the whole measurement is repeated: most faint stars are found by fits alone.

    Parameters
    ----------
    coadd : MeasuredCoadd
        With sources.
    limit : float
        Flux of a star at 5 sigma.
    how : FieldSettings
        Settings of the detection.
    box : int
        Side of a background mesh [pixel].
    least : float
        Minimum signal-to-noise ratio of the source table.
    seed : int
        Seed of positions and noise.

    Returns
    -------
    float
        Flux of 50 % completeness, in units of the coadd; NaN where the coadd has no room for stars.
    """
    from scipy.optimize import minimize
    from scipy.special import ndtr

    assert coadd.field is not None
    if not np.isfinite(limit):
        return np.nan
    crowded = crowding(coadd) >= CROWDED
    rng = np.random.default_rng(seed)
    search = _found_in_crowd if crowded else _found_alone
    flux, found = search(coadd, limit, how, box, least, rng)
    if flux.size < MIN_STARS or found.mean() < 0.1:
        return np.nan
    magnitude = -2.5 * np.log10(flux / limit)
    rare = BLENDED if crowded else 1e-6

    def cost(p: np.ndarray) -> float:
        chance = ndtr((p[0] - magnitude) / np.exp(p[1])).clip(rare, 1 - rare)
        return -float(np.sum(np.where(found, np.log(chance), np.log(1 - chance))))

    starts = [(middle, np.log(0.3)) for middle in ((-3.0, -2.0, -1.0, 0.0) if crowded else (0.0,))]
    start = min(starts, key=lambda p: cost(np.array(p)))
    middle = float(minimize(cost, start, method="Nelder-Mead").x[0])
    inside = magnitude.min() < middle < magnitude.max()
    return limit * 10 ** (-0.4 * middle) if inside else np.nan


def _found_alone(
    coadd: MeasuredCoadd, limit: float, how: FieldSettings, box: int, least: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the fluxes of artificial stars, and which of them are detected as sources."""
    from scipy.spatial import cKDTree

    field = coadd.field
    assert field is not None
    region = injection_region(coadd)
    x, y = spaced_places(region.covered, 6 * field.fwhm, 300, rng, margin=6 * field.fwhm)
    flux = limit * 10 ** (-0.4 * rng.uniform(-1.5, 1.5, x.size))
    # Further out, faint stars are far below the noise.
    with_stars = inject_stars(
        region.image, x, y, flux, star_wings(field), coadd.gain, rng, FAINT_REACH
    )
    image = measurement_image(region, with_stars)
    sources, segments = detect_above_background(image, how, box)
    faint, _ = faint_sources(image.data, image, segments, field.fwhm)
    extended = field.extended[_middle_of(coadd.covered)]
    before, _ = superposed_sources(image.data, image, extended, sources, field.fwhm, field.growth)
    found = np.concatenate([sources, faint, before])
    at = np.column_stack([found["x"], found["y"]])
    if not len(at) or not x.size:
        return flux, np.zeros(x.size, bool)
    apart, _ = cKDTree(at).query(np.column_stack([x, y]))
    core = field.core
    inner, _, _ = sep.sum_circle(with_stars, x, y, core.radius, subpix=5)
    before, _, _ = sep.sum_circle(region.image, x, y, core.radius, subpix=5)
    # Sources that were there before are not counted; the S/N is that of the star alone.
    own = inner / core.fraction > least / 5 * limit
    return flux, (apart < MATCH_DISTANCE * field.fwhm) & own & (before / core.fraction < flux)


def _found_in_crowd(
    coadd: MeasuredCoadd, limit: float, how: FieldSettings, box: int, least: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the fluxes of artificial stars, and which of them fits of all stars resolve.

    Such a star has an entry of its flux, to a factor of two: others are entries of a neighbour.
    """
    from scipy.spatial import cKDTree

    field = coadd.field
    assert field is not None
    region = injection_region(coadd)
    number = _number_of_round(coadd, region)
    all_fluxes, all_found = [], []
    for _ in range(int(np.clip(round(COMPLETE_STARS / number), 1, 4))):
        x, y = spaced_places(region.covered, 5 * field.fwhm, number, rng)
        flux = limit * 10 ** (-0.4 * rng.uniform(*CROWD_RANGE, x.size))
        again = _measured_again(region, x, y, flux, how, box, [field.fwhm], rng)
        if again is None or not x.size:
            continue
        sources, measured = again
        point = measured.point
        rows = np.flatnonzero(~(point.flux < least * point.error))
        at = np.column_stack([sources.sources["x"], sources.sources["y"]])[rows]
        entries = measured.psf.flux if region.psf is not None else point.flux
        apart, index = cKDTree(at).query(np.column_stack([x, y]))
        ratio = entries[rows[index]] / flux
        all_fluxes.append(flux)
        all_found.append((apart < MATCH_DISTANCE * field.fwhm) & (ratio > 0.5) & (ratio < 2))
    if not all_fluxes:
        return np.empty(0), np.empty(0, bool)
    return np.concatenate(all_fluxes), np.concatenate(all_found)


def _number_of_round(coadd: MeasuredCoadd, region: MeasuredCoadd) -> int:
    """Return the number of artificial stars that hardly change the crowding of a region."""
    assert coadd.field is not None
    part = np.count_nonzero(region.covered) / np.count_nonzero(coadd.covered)
    return max(20, int(SHARE * part * len(coadd.field.sources)))


def _measured_again(
    region: MeasuredCoadd, x: np.ndarray, y: np.ndarray, flux: np.ndarray, how: FieldSettings,
    box: int, radii: list[float], rng: np.random.Generator,
) -> tuple[StarField, SourceMeasurements] | None:  # fmt: skip
    """Return the sources of a crowded region with artificial stars, and their measurements.

    None where its stars are not recognised any more.
    """
    field = region.field
    assert field is not None
    image = _with_stars(region, field, x, y, flux, rng)
    new = measurement_image(region, image)
    again = measure_field(new, how, detected=detect_above_background(new, how, box))
    if again is None or not 0.7 < again.fwhm / field.fwhm < 1.4:
        return None
    # The stars are no sky, whose structure counts in the errors of all that is near.
    margin = int(np.ceil(OCCUPIED_MARGIN * field.fwhm))
    occupied = ~region.covered | grow(again.segments > 0, margin)
    changed = replace(region, image=image, field=again, occupied=occupied)
    again = resolve_crowd(changed, again)
    changed = replace(changed, field=again)
    return again, measure_sources(changed, again, radii, crowded=True)


def crowding(coadd: MeasuredCoadd) -> float:
    """Return the number of sources of S/N > 5 per area of one FWHM radius; 0 where they are few."""
    field = coadd.field
    if field is None:
        return 0.0
    seen = np.count_nonzero(field.core_flux > 5 * np.sqrt(
        np.pi * field.core.radius**2 * np.median(coadd.variance[coadd.covered])
    ))  # fmt: skip
    if seen < LEAST_CROWD:
        return 0.0
    return seen * np.pi * field.fwhm**2 / np.count_nonzero(coadd.covered)


def confusion(
    coadd: MeasuredCoadd, how: FieldSettings, box: int, radii: list[float], seed: int = 4
) -> Confusion | None:
    """Measure the errors that crowding adds to the sources of a coadd.

    Stars as bright as those detected are added at random positions, and the coadd is searched and
    measured as before. Confusion is the scatter of their fluxes beyond the stated errors.

    Parameters
    ----------
    coadd : MeasuredCoadd
        The coadd and its sources.
    how : FieldSettings
        Settings of the detection.
    box : int
        Side of a background mesh [pixel].
    radii : list of float
        Radii of the circular apertures [pixel].
    seed : int
        Seed of positions and noise.

    Returns
    -------
    Confusion or None
        None where the coadd is not crowded, no source gives the brightness of its stars, or the
        first stars scatter as their errors predict.
    """
    field = coadd.field
    if field is None or crowding(coadd) < CROWDED:
        return None
    region, rng = injection_region(coadd), np.random.default_rng(seed)
    number = _number_of_round(coadd, region)
    seen = field.total[field.flux > 5 * field.error]
    if not seen.size:
        log.warning("crowded, but no source is above 5 sigma: its confusion is not measured")
        return None
    low, high = np.percentile(seen, (5, 97))
    light = LocalLight.of(coadd.image, coadd.covered, field.fwhm)
    there = LocalLight.of(region.image, region.covered, field.fwhm, light.level)

    def recovered(number: int) -> np.ndarray | None:
        # At the edges, too: fewer frames tell less of the faint stars, nothing of those outside.
        x, y = spaced_places(region.covered, 5 * field.fwhm, number, rng, there)
        flux = np.exp(rng.uniform(np.log(low), np.log(high), x.size))
        again = _measured_again(region, x, y, flux, how, box, radii, rng)
        return None if again is None else _matched(*again, x, y, flux, there.at(x, y))

    if number < FIRST_LOOK and crowding(coadd) < DENSE:
        at_once = recovered(FIRST_LOOK)
        if at_once is not None and at_once.shape[1] > FIRST_LOOK / 2 and _pull(at_once) < AS_STATED:
            return None
    dense = bool((there.cells > DENSER).any())
    most = max(4, round(INJECTED * (1 + 0.6 * dense) / number))
    rounds = [recovered(number) for _ in range(most)]
    found = [one for one in rounds if one is not None]
    return _beyond_errors(np.concatenate(found, axis=1), light) if found else None


def _with_stars(
    region: MeasuredCoadd, field: StarField, x: np.ndarray, y: np.ndarray, flux: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:  # fmt: skip
    """Return a part of a coadd with stars of its own profile, and their photon noise, added."""
    if region.psf is None:
        return inject_stars(region.image, x, y, flux, star_wings(field), region.gain, rng)
    light = draw_stars(region.image.shape, region.psf, x, y, flux)
    photons = rng.poisson(np.maximum(light, 0) * region.gain) / region.gain
    image: np.ndarray = region.image + photons.astype(np.float32)
    return image


def _matched(
    field: StarField, measured: SourceMeasurements, x: np.ndarray, y: np.ndarray,
    flux: np.ndarray, light: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return what is known of the recovered stars, as rows.

    True flux, light about them, offset and its error, fluxes and errors.
    """
    from scipy.spatial import cKDTree

    at = np.column_stack([field.sources["x"], field.sources["y"]])
    apart, index = cKDTree(at).query(np.column_stack([x, y]))
    near = np.flatnonzero(apart < MATCH_DISTANCE * field.fwhm)
    rows = index[near]
    kinds = [measured.point, measured.auto, measured.psf, *measured.apertures]
    shift = [at[rows, 0] - x[near], at[rows, 1] - y[near], measured.position_error[rows]]
    return np.array(
        [flux[near], light[near], *shift]
        + [values[rows] for one in kinds for values in (one.flux, one.error)]
    )  # fmt: skip


def _pull(found: np.ndarray) -> float:
    """Return the scatter of fluxes over their error; see `_matched`.

    The largest of `POINT` and `PSF` and of two halves: by flux over the light about them.
    """
    halves = np.array_split(np.argsort(found[0] / found[1]), 2)
    pulls = []
    for kind in (POINT_ROW, PSF_ROW):
        for rows in halves:
            value, error = (found[kind + k, rows] / found[0, rows] for k in (0, 1))
            known = np.isfinite(value) & np.isfinite(error)
            if known.any():
                value, error = value[known], error[known]
                pulls.append(MAD_TO_SIGMA * np.median(np.abs(value - np.median(value)) / error))
    return float(max(pulls))


def _beyond_errors(found: np.ndarray, light: LocalLight) -> Confusion | None:
    """Return the scatter beyond the stated errors as powers of flux over light; see `_matched`."""
    order = np.argsort(found[0] / found[1])
    number = int(np.clip(order.size // BIN_STARS, min(5, order.size // MIN_STARS), BINS))
    if number < 2:
        return None
    light = light.to_power(_light_power(found, np.array_split(order, number)))
    scaled = found[0] / found[1] ** light.power
    bins = np.array_split(np.argsort(scaled), number)
    flux = np.array([np.median(scaled[rows]) for rows in bins])

    def law(values: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return errors beyond those stated, and medians, at the fluxes of the bins."""
        known = np.isfinite(values) & np.isfinite(error)
        told = [k for k, rows in enumerate(bins) if np.count_nonzero(known[rows]) >= FEWEST]
        if len(told) < 2:
            return np.full(len(bins), np.nan), np.full(len(bins), np.nan)
        middle = np.array([np.median(values[bins[k]][known[bins[k]]]) for k in told])
        middle = np.interp(np.log(flux), np.log(flux[told]), middle)
        # About the median, which differs from 1 where the profile used differs from the stars'.
        off = values - np.interp(np.log(scaled), np.log(flux), middle)
        level, slope, _ = excess_law(scaled[known], off[known], error[known])
        return level * flux**-slope, middle

    relative, bias = [], []
    for k in range(POINT_ROW, len(found), 2):
        errors, middle = law(found[k] / found[0], found[k + 1] / found[0])
        relative.append(errors)
        bias.append(middle - 1)
    point, auto, psf, *apertures = relative
    axes = [law(found[k], found[4])[0] for k in (2, 3)]
    position = np.sqrt(np.mean(np.square(axes), axis=0))
    # Apertures hold what the fits have left of the neighbours: they are confused at least as much.
    point = np.fmax(point, psf)
    excess_light = bias[2] if np.isfinite(psf).all() else bias[0]
    return Confusion(flux, point, auto, psf, apertures, position, excess_light, light)


def _light_power(found: np.ndarray, bins: list[np.ndarray]) -> float:
    """Return the power of the light about stars that counts as so much less flux of theirs."""
    kind = PSF_ROW if np.isfinite(found[PSF_ROW]).any() else POINT_ROW
    value, error = found[kind] / found[0], found[kind + 1] / found[0]
    for rows in bins:
        value[rows] -= np.nanmedian(value[rows])
    known = np.isfinite(value) & np.isfinite(error)

    def cost(power: float) -> float:
        scaled = found[0, known] / found[1, known] ** power
        unlikely = ((power - 1) / POWER_ERROR) ** 2 / 2
        return excess_law(scaled, value[known], error[known])[2] + unlikely

    return min(POWERS, key=cost)


def excess_law(
    flux: np.ndarray, deviation: np.ndarray, error: np.ndarray
) -> tuple[float, float, float]:
    """Return the scatter of values beyond their errors as a power of the flux.

    All stars together tell level and slope: a bin of some tens of them knows its scatter to a sixth
    at best, and nothing of what is beyond an error nearly as large. Half of the deviations shall be
    within 0.67 sigma at all fluxes (median regression of their logarithms): one in six stars is
    blended with a brighter one, and far off.

    Parameters
    ----------
    flux : ndarray, shape (n,)
    deviation, error : ndarray, shape (n,)
        Deviations, and what of them is known.

    Returns
    -------
    level, slope : float
        The scatter beyond the errors is level * flux ** -slope, with a slope between 0 and 1.
    cost : float
        What the fit leaves: the smaller the better the law.
    """
    from scipy.optimize import minimize

    middle = float(np.exp(np.mean(np.log(flux))))
    ratio, known = np.log(flux / middle), np.maximum(error, 1e-12) ** 2

    seen = np.log(np.maximum(np.abs(deviation), 1e-12) / GAUSSIAN_MEDIAN)

    def cost(p: np.ndarray) -> float:
        slope = np.clip(p[1], 0, 1)
        sigma = np.log(known + np.exp(2 * (p[0] - slope * ratio))) / 2
        unlikely = (p[1] - slope) ** 2 + ((p[1] - SLOPE) / SLOPE_ERROR) ** 2 / 2
        return float(np.sum(np.abs(seen - sigma)) + unlikely)

    typical = np.log(np.median(error) + 1e-12)
    starts = [(typical + more, SLOPE) for more in (-3.0, -1.0, 0.0, 1.0, 2.0)]
    found = minimize(cost, min(starts, key=lambda p: cost(np.array(p))), method="Nelder-Mead")
    slope = float(np.clip(found.x[1], 0, 1))
    return float(np.exp(found.x[0])) * middle**slope, slope, float(found.fun)
