"""Zero points: of frames relative to each other, and of a coadd against a catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lib.core.stats import mad_std

COLOURS = {
    "u": (("u", "g"), ("u", "r")),
    "g": (("g", "r"), ("g", "i")),
    "r": (("g", "r"), ("r", "i")),
    "i": (("r", "i"), ("g", "i"), ("i", "z")),
    "z": (("i", "z"), ("r", "z"), ("z", "y")),
    "y": (("z", "y"), ("i", "y"), ("y", "J")),
    "B": (("B", "V"), ("g", "r")),
    "V": (("B", "V"), ("V", "R"), ("g", "r")),
    "R": (("V", "R"), ("R", "I"), ("g", "r")),
    "I": (("R", "I"), ("V", "I"), ("r", "i")),
    "J": (("J", "H"), ("J", "K")),
    "H": (("J", "H"), ("H", "K")),
    "K": (("H", "K"), ("J", "K")),
}
"""Colours used for the colour term of a band, best first."""

ASSUMED_REFERENCE_ERROR = 0.02
"""Error assumed for a catalogue magnitude that has none [mag]."""

LEAST_TRUE_SPREAD = 0.3
"""Minimum fraction of the variance of the colours not due to their errors, for a colour term."""


def relative_zeropoints(
    magnitude: np.ndarray, error: np.ndarray, floor: float | np.ndarray = 0.01, iterations: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solve for the zero points of frames from the stars they have in common.

    Minimises sum w_ij (m_ij + z_i - M_j)^2 over the zero points z and star magnitudes M; the M are
    eliminated, so that the number of equations is that of the frames. Outliers are down-weighted by
    Tukey's biweight.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n_frames, n_stars)
        Instrumental magnitudes, NaN where a star is not measured.
    floor : float or ndarray, shape (n_frames, 1) or (1, n_stars)
        Added to the errors in quadrature, for errors of flat fields and catalogues [mag].
    iterations : int
        Number of reweightings.

    Returns
    -------
    zeropoint : ndarray, shape (n_frames,)
        Zero points [mag], with mean 0 in each group; NaN for a frame without common stars.
    scatter : ndarray, shape (n_frames,)
        Robust scatter of its stars about the solution [mag].
    number : ndarray of int, shape (n_frames,)
        Number of its stars that other frames have, too.
    group : ndarray of int, shape (n_frames,)
        Group of each frame. Frames of different groups have no stars in common, directly or through
        others: their zero points cannot be compared.
    """
    n_frames = len(magnitude)
    seen = np.isfinite(magnitude) & np.isfinite(error)
    seen &= seen.sum(axis=0) > 1
    number = seen.sum(axis=1)
    m = np.where(seen, magnitude, 0.0)
    base = np.where(seen, 1.0 / (np.where(seen, error, 1.0) ** 2 + np.square(floor)), 0.0)
    weight = base.copy()
    z = np.zeros(n_frames)
    residual = np.zeros_like(m)
    for _ in range(iterations):
        per_star = np.maximum(weight.sum(axis=0), 1e-300)
        normal = np.diag(weight.sum(axis=1)) - (weight / per_star) @ weight.T
        mean = (weight * m).sum(axis=0) / per_star
        right = -(weight * (m - mean)).sum(axis=1)
        z = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
        value = m + z[:, None]
        level = (weight * value).sum(axis=0) / per_star
        residual = np.where(seen, value - level, 0.0)
        pull = residual * np.sqrt(base)
        inflate = max(1.0, mad_std(pull[seen])) if seen.any() else 1.0
        weight = base * np.clip(1 - (pull / (6.0 * inflate)) ** 2, 0, None) ** 2
    scatter = np.array([mad_std(residual[i][seen[i]]) for i in range(n_frames)])
    return np.where(number > 0, z, np.nan), scatter, number, _connected_frames(seen)


def _connected_frames(seen: np.ndarray) -> np.ndarray:
    """Return the group of each frame, given which stars it sees, shape (n_frames, n_stars)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_frames, n_stars = seen.shape
    frame, star = np.nonzero(seen)
    links = coo_array(
        (np.ones(frame.size), (frame, n_frames + star)), shape=(n_frames + n_stars,) * 2
    )
    _, label = connected_components(links, directed=False)
    return label[:n_frames]


SPATIAL_MIN_STARS = 20
"""Minimum number of stars for a spatial term."""

SPATIAL_CHANCE = 0.003
"""Probability of a false detection of a spatial term."""


@dataclass(frozen=True)
class SpatialTerm:
    """A plane in the residuals of a zero point: dx (x - x0) + dy (y - y0).

    Parameters
    ----------
    dx, dy, dx_error, dy_error : float
        Gradients and their errors [mag/pixel].
    x0, y0 : float
        Zero of the plane: the weighted mean position of the stars [pixel].
    chance : float
        False-alarm probability.
    """

    dx: float
    dy: float
    dx_error: float
    dy_error: float
    x0: float
    y0: float
    chance: float


@dataclass
class Zeropoint:
    """A zero point: reference = instrumental + value + colour_term (colour - colour_at).

    Parameters
    ----------
    value, error : float
        Zero point at colour `colour_at`, and its error [mag]; NaN where `reason` says why there is
        none.
    scatter, rms : float
        Robust and ordinary scatter of the stars used [mag].
    intrinsic : float
        Intrinsic scatter: the part not explained by the stated errors of the stars [mag].
    n_stars : int
        Number of stars used.
    n_matched : int
        Number of stars given.
    colour : str
        Name of the colour (``g-r``), or ``''``.
    colour_term, colour_term_error, colour_at : float
        Colour term, its error, and the mean colour of the stars [mag]; 0, 0, NaN where not fitted.
    used : ndarray of bool, shape (n,)
        Which stars were used.
    residual : ndarray, shape (n,)
        Reference minus fit, for all stars given [mag].
    spatial : SpatialTerm, optional
        Spatial term, where significant.
    reason : str
        Why there is no zero point, '' where there is one.
    """

    value: float = np.nan
    error: float = np.nan
    scatter: float = np.nan
    rms: float = np.nan
    intrinsic: float = np.nan
    n_stars: int = 0
    n_matched: int = 0
    colour: str = ""
    colour_term: float = 0.0
    colour_term_error: float = 0.0
    colour_at: float = np.nan
    used: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    residual: np.ndarray = field(default_factory=lambda: np.empty(0))
    spatial: SpatialTerm | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a zero point."""
        return bool(np.isfinite(self.value))


@dataclass(frozen=True)
class ReferenceColour:
    """A colour of stars from the reference.

    Parameters
    ----------
    name : str
        Name of the colour, e.g. ``g-r``.
    value : ndarray, shape (n,)
        Colours [mag]; NaN where unknown: such stars are used only without colour term.
    error : ndarray, shape (n,), optional
        Errors of the colours [mag].
    covariance : ndarray, shape (n,), optional
        Covariance of the errors of the colour and of the magnitude being calibrated [mag^2].
    """

    name: str
    value: np.ndarray
    error: np.ndarray | None = None
    covariance: np.ndarray | None = None


@dataclass(frozen=True)
class ZeropointLimits:
    """Requirements and clipping of the fit of a zero point.

    Parameters
    ----------
    min_stars : int
        Minimum number of stars for a zero point.
    colour_min_stars : int
        Minimum number of stars for a colour term.
    colour_min_spread : float
        Minimum standard deviation of the colours for a colour term [mag].
    clip : float
        Clipping threshold [sigma].
    min_error : float
        Minimum error of a star [mag].
    """

    min_stars: int = 3
    colour_min_stars: int = 12
    colour_min_spread: float = 0.1
    clip: float = 3.0
    min_error: float = 0.002


def intrinsic_variance(residual: np.ndarray, variance: np.ndarray, freedom: float) -> float:
    """Return s^2 >= 0 such that sum r^2 / (variance + s^2) = `freedom`, by bisection.

    The estimator of Paule & Mandel (1982, J. Res. NBS 87, 377).
    """
    if freedom <= 0 or np.sum(residual**2 / variance) <= freedom:
        return 0.0
    low, high = 0.0, float(np.sum(residual**2) / freedom)
    for _ in range(50):
        middle = 0.5 * (low + high)
        if np.sum(residual**2 / (variance + middle)) > freedom:
            low = middle
        else:
            high = middle
    return high


def fit_zeropoint(
    instrumental: np.ndarray, error: np.ndarray, reference: np.ndarray,
    reference_error: np.ndarray, colour: ReferenceColour | None = None,
    limits: ZeropointLimits | None = None,
) -> Zeropoint:  # fmt: skip
    """Fit a zero point, and a colour term where the stars constrain one.

    Weights are the inverse of the sum of a star's variance and an intrinsic variance, which is
    determined from the scatter. Stars further than `clip` standard deviations are rejected
    iteratively. Colours are relative to their weighted mean, so that the zero point there is
    independent of the error of the colour term.

    Parameters
    ----------
    instrumental, error : ndarray, shape (n,)
        Instrumental magnitudes and their errors.
    reference, reference_error : ndarray, shape (n,)
        Catalogue magnitudes and their errors; NaN for stars to leave out. For errors that are NaN
        or 0, 0.02 mag is assumed.
    colour : ReferenceColour, optional
        Colours of the stars in the reference.
    limits : ZeropointLimits, optional
        Requirements of the fit.

    Returns
    -------
    Zeropoint
    """
    limits = limits or ZeropointLimits()
    n = len(instrumental)
    difference = np.asarray(reference, float) - np.asarray(instrumental, float)
    known = np.isfinite(difference) & np.isfinite(error)
    reference_error = np.asarray(reference_error, float)
    reference_error = np.where(reference_error > 0, reference_error, ASSUMED_REFERENCE_ERROR)
    variance = np.square(error) + reference_error**2
    variance = np.where(known, variance, 1.0) + limits.min_error**2
    result = Zeropoint(n_matched=int(known.sum()), used=np.zeros(n, bool), residual=difference)
    if known.sum() < limits.min_stars:
        result.reason = f"TOO_FEW_REFERENCE_STARS: {int(known.sum())} < {limits.min_stars}"
        return result
    start = np.median(difference[known])
    width = np.sqrt(mad_std(difference[known]) ** 2 + np.median(variance[known]))
    first = known & (np.abs(difference - start) < 5 * width)
    fit = _clipped_line(difference, variance, known, first, limits.clip, limits.min_stars)
    if colour is not None and fit is not None:
        line = _colour_line(difference, variance, known, fit.used, colour, limits)
        if line is not None:
            fit, result.colour = line, colour.name
    if fit is None:
        result.reason = f"TOO_FEW_REFERENCE_STARS: fewer than {limits.min_stars} agree"
        return result
    _record_fit(result, fit)
    return result


@dataclass(frozen=True)
class _Line:
    """A constant, or a line in colour, through magnitude differences.

    Parameters
    ----------
    value, error : float
        Constant, or value at colour `centre`, and its error [mag].
    slope, slope_error, centre : float
        Slope, its error, and the weighted mean colour; 0 for a constant.
    intrinsic : float
        Intrinsic variance of the stars [mag^2].
    parameters : int
        Number of parameters, 1 or 2.
    used : ndarray of bool, shape (n,)
        Stars not rejected.
    residual : ndarray, shape (n,)
        Residuals of all stars [mag].
    """

    value: float
    error: float
    slope: float
    slope_error: float
    centre: float
    intrinsic: float
    parameters: int
    used: np.ndarray
    residual: np.ndarray


def _record_fit(result: Zeropoint, fit: _Line) -> None:
    """Copy the results of a fit to a zero point."""
    used, residual = fit.used, fit.residual
    # The intrinsic scatter is estimated from few stars: this is the variance of Student's t.
    freedom = used.sum() - fit.parameters
    small = np.sqrt(freedom / (freedom - 2)) if freedom > 2 else 2.0
    result.value, result.error = fit.value, fit.error * small
    result.scatter = mad_std(residual[used])
    result.rms = float(np.sqrt(np.mean(residual[used] ** 2)))
    result.intrinsic = float(np.sqrt(fit.intrinsic))
    result.n_stars = int(used.sum())
    result.used, result.residual = used, residual
    if result.colour:
        result.colour_term, result.colour_at = fit.slope, fit.centre
        result.colour_term_error = fit.slope_error * small


def _colour_line(
    difference: np.ndarray, variance: np.ndarray, known: np.ndarray, used: np.ndarray,
    colour: ReferenceColour, limits: ZeropointLimits,
) -> _Line | None:  # fmt: skip
    """Fit a line in colour; None where the stars do not constrain one."""
    with_colour = used & np.isfinite(colour.value)
    if with_colour.sum() < limits.colour_min_stars:
        return None
    if np.std(colour.value[with_colour]) < limits.colour_min_spread:
        return None
    line = _clipped_line(
        difference, variance, known & np.isfinite(colour.value), with_colour, limits.clip,
        limits.colour_min_stars, colour,
    )  # fmt: skip
    return line if line is not None and line.used.sum() >= limits.colour_min_stars else None


def _clipped_line(
    difference: np.ndarray, variance: np.ndarray, known: np.ndarray, used: np.ndarray, clip: float,
    min_stars: int, colour: ReferenceColour | None = None,
) -> _Line | None:  # fmt: skip
    """Fit a constant, or a line in colour, with intrinsic scatter and sigma clipping.

    The slope is that of Akritas & Bershady (1996, ApJ 470, 706), for correlated errors in both
    coordinates. None where the errors of the colours explain all of their spread.
    """
    parameters = 1 if colour is None else 2
    abscissa, covariance, colour_variance = np.zeros((3, difference.size))
    if colour is not None:
        abscissa = np.where(known, colour.value, 0.0)
        if colour.covariance is not None:
            covariance = np.nan_to_num(colour.covariance)
        if colour.error is not None:
            colour_variance = np.nan_to_num(colour.error) ** 2
    if used.sum() < max(min_stars, parameters):
        return None
    intrinsic = max(0.0, mad_std(difference[used]) ** 2 - np.median(variance[used]))
    slope = slope_error = centre = 0.0
    for _ in range(25):
        weight = np.where(used, 1.0 / (variance + intrinsic), 0.0)
        total = weight.sum()
        value = np.sum(weight * np.where(used, difference, 0)) / total
        if colour is not None:
            centre = np.sum(weight * abscissa) / total
            spread = np.sum(weight * (abscissa - centre) ** 2)
            product = np.sum(weight * (abscissa - centre) * np.where(used, difference, 0))
            true_spread = spread - np.sum(weight * colour_variance)
            if true_spread < LEAST_TRUE_SPREAD * spread:
                return None
            slope = (product - np.sum(weight * covariance)) / true_spread
            slope_error = np.sqrt(spread) / true_spread
        residual = difference - value - slope * (abscissa - centre)
        before = intrinsic
        intrinsic = intrinsic_variance(residual[used], variance[used], used.sum() - parameters)
        # Clip against the robust scatter: outliers would inflate the ordinary one.
        robust = max(0.0, mad_std(residual[used]) ** 2 - np.median(variance[used]))
        bound = clip * np.sqrt(variance + min(intrinsic, max(robust, 0.25 * intrinsic)))
        kept = known & (np.abs(np.where(known, residual, np.inf)) <= bound)
        if kept.sum() < max(min_stars, parameters):
            break
        if np.array_equal(kept, used) and abs(intrinsic - before) < 1e-3 * (intrinsic + 1e-6):
            break
        used = kept
    return _Line(
        float(value), float(1.0 / np.sqrt(total)), float(slope), float(slope_error),
        float(centre), intrinsic, parameters, used, residual,
    )  # fmt: skip


def fit_spatial_term(
    residual: np.ndarray, variance: np.ndarray, x: np.ndarray, y: np.ndarray
) -> SpatialTerm | None:
    """Fit a plane to the residuals of a zero point, if significant.

    It must be significant by the F test, and predict each star from the others better than no plane
    does (the leave-one-out residual is the residual over one minus the leverage).

    Parameters
    ----------
    residual, variance : ndarray, shape (n,)
        Residuals of the stars from the zero point [mag], and their variances without intrinsic
        scatter.
    x, y : ndarray, shape (n,)
        Positions of the stars [pixel].

    Returns
    -------
    SpatialTerm, or None where the stars do not support it.
    """
    n = residual.size
    if n < SPATIAL_MIN_STARS:
        return None
    extra = 0.0
    for _ in range(5):  # the intrinsic scatter is that about the plane
        weight = 1.0 / (variance + extra)
        x0, y0 = np.average(x, weights=weight), np.average(y, weights=weight)
        design = np.column_stack([np.ones(n), x - x0, y - y0])
        covariance = np.linalg.pinv(design.T @ (weight[:, None] * design), hermitian=True)
        plane = covariance @ (design.T @ (weight * residual))
        left = residual - design @ plane
        extra = intrinsic_variance(left, variance, n - 3)
    flat = residual - np.average(residual, weights=weight)
    before, after = np.sum(weight * flat**2), np.sum(weight * left**2)
    # The F distribution of 2 and n - 3 degrees of freedom, in closed form.
    chance = (after / before) ** ((n - 3) / 2)
    leverage = weight * np.einsum("ij,jk,ik->i", design, covariance, design)
    alone = np.sum(weight * (left / (1 - leverage)) ** 2)
    alone_flat = np.sum(weight * (flat / (1 - weight / weight.sum())) ** 2)
    if chance > SPATIAL_CHANCE or alone >= alone_flat:
        return None
    scale = max(1.0, after / (n - 3))
    error = np.sqrt(scale * np.diag(covariance))
    return SpatialTerm(
        float(plane[1]), float(plane[2]), float(error[1]), float(error[2]), float(x0), float(y0),
        float(chance),
    )  # fmt: skip


def expected_noise(
    magnitude: np.ndarray, error: np.ndarray, flux: np.ndarray, expected: np.ndarray, gain: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return magnitudes corrected for noise bias, with errors for the expected flux of each star.

    An error computed from the measured flux is too small where noise made the star brighter: a mean
    with such weights is too bright by 1.5 (noise / flux)^2 of the flux. And -2.5 log of a noisy
    flux is too faint, by half of (noise / flux)^2.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n,)
        As measured.
    flux, expected : ndarray, shape (n,)
        Measured total fluxes, and those expected from a catalogue.
    gain : float
        Electrons per unit of flux.

    Returns
    -------
    magnitude, error : ndarray, shape (n,)
    """
    sky = np.maximum((error / 1.0857 * flux) ** 2 - flux / gain, 0.0)
    noise = np.sqrt(sky + expected / gain) / expected
    return magnitude - 0.5 * 1.0857 * noise**2, 1.0857 * noise


def choose_colour(
    band: str, table: Mapping[str, np.ndarray], rows: np.ndarray
) -> ReferenceColour | None:
    """Return the colour of the reference available for most stars.

    Parameters
    ----------
    band : str
    table : mapping of str to ndarray
        Reference table.
    rows : ndarray of int
        Rows of the stars.

    Returns
    -------
    ReferenceColour, or None where the reference has none.
    """
    best, most = None, 0
    for blue, red in COLOURS.get(band, ()):
        if blue not in table or red not in table:
            continue
        colour = np.asarray(table[blue], float)[rows] - np.asarray(table[red], float)[rows]
        count = int(np.isfinite(colour).sum())
        if count > 1.2 * most:  # an earlier pair is preferred unless it loses many stars
            blue_error, red_error = (_column(table, f"{name}_err")[rows] for name in (blue, red))
            sign = (blue == band) - (red == band)
            covariance = sign * _column(table, f"{band}_err")[rows] ** 2 if sign else 0 * colour
            error = np.hypot(blue_error, red_error)
            best, most = ReferenceColour(f"{blue}-{red}", colour, error, covariance), count
    return best


def _column(table: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return a column as floats; NaN where it is missing."""
    if name in table:
        return np.asarray(table[name], float)
    return np.full(len(table["ra"]), np.nan)
