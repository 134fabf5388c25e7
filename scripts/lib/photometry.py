"""Photometry: sources, point-spread function, growth curve, zero points, empty apertures.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep; magnitudes are -2.5 log10(flux) where no zero point is said to be added.
"""

from dataclasses import dataclass, field

import numpy as np
import sep

from lib.stats import MAD_TO_SIGMA, mad_std, sigma_clipped_median

BANDS = ("u", "g", "r", "i", "z", "y", "B", "V", "R", "I", "J", "H", "K")

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
"""Colours that can carry the colour term of a band, best first."""

AB_MINUS_VEGA = {
    "u": 0.91, "g": -0.08, "r": 0.16, "i": 0.37, "z": 0.54,
    "B": -0.09, "V": 0.02, "R": 0.21, "I": 0.45,
    "J": 0.91, "H": 1.39, "K": 1.85,
}  # fmt: skip
"""AB magnitude less Vega magnitude of a band (Blanton & Roweis 2007, AJ 133, 734, table 1)."""

VEGA_BANDS = ("J", "H", "K")

# Flags beyond those of sep (1 merged, 2 truncated, 4 8 numerical, 16 aperture truncated,
# 32 aperture with masked pixels, 64 all masked, 128 Kron radius not positive).
FLAG_SATURATED = 256
FLAG_NEIGHBOUR = 512
FLAG_WEIGHT = 1024


RING_FLOOR = 0.002
"""Stars of one image differ by so much in a ring: keeps the brightest from deciding alone."""

SKY_ERROR = 0.005
"""Error of a background, in units of the noise of a pixel."""


class CatalogueError(ValueError):
    """A catalogue that cannot be used as it is: one sentence for its owner."""


# --------------------------------------------------------------------------------------------
# Sources
# --------------------------------------------------------------------------------------------


def background(image, bad=None, box=64):
    """Return the smooth background of an image and the noise about it.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape, optional
        Pixels to leave out.
    box : int
        Side of a mesh in pixels.

    Returns
    -------
    level : ndarray of float32, shape (ny, nx)
    rms : float
        Median noise of a pixel over the meshes.
    """
    box = int(min(box, max(16, min(image.shape) // 4)))
    model = sep.Background(image, mask=bad, bw=box, bh=box, fw=3, fh=3)
    return model.back(dtype=np.float32), float(model.globalrms)


def masked_background(image, bad, box=128, sigma=3.0):
    """Return the smooth background of an image whose sources are masked.

    The clipped mean of meshes, median-filtered 3 x 3 and interpolated. Sources being masked, the
    mean is right where the mode (2.5 median - 1.5 mean) is low by the skewness of photon noise,
    and it is less noisy.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape
        Sources and pixels without value.
    box : int
        Side of a mesh in pixels; made smaller for an image of less than four.
    sigma : float
        Clipping.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    from scipy.interpolate import RectBivariateSpline
    from scipy.ndimage import distance_transform_edt, median_filter

    ny, nx = image.shape
    counts = [max(1, round(size / box)) for size in (ny, nx)]
    edges = [
        np.linspace(0, size, n + 1).astype(int) for size, n in zip((ny, nx), counts, strict=True)
    ]
    level = np.full(counts, np.nan)
    for j in range(counts[0]):
        rows = slice(edges[0][j], edges[0][j + 1])
        for i in range(counts[1]):
            columns = slice(edges[1][i], edges[1][i + 1])
            values = image[rows, columns][~bad[rows, columns]]
            if values.size < max(50, 0.1 * bad[rows, columns].size):
                continue
            for _ in range(3):
                middle, spread = np.median(values), mad_std(values)
                kept = np.abs(values - middle) <= sigma * spread
                if kept.all() or not kept.any():
                    break
                values = values[kept]
            level[j, i] = values.mean(dtype=np.float64)
    empty = np.isnan(level)
    if empty.all():
        return np.zeros(image.shape, np.float32)
    if empty.any():
        nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    level = median_filter(level, 3, mode="nearest")
    centres = [0.5 * (edge[:-1] + edge[1:] - 1) for edge in edges]
    if max(counts) == 1:
        return np.full(image.shape, level[0, 0], np.float32)
    # Constant beyond the outer centres: a spline would run away there.
    if min(counts) == 1:
        line = level.ravel()
        axis = int(np.argmax(counts))
        values = np.interp(np.arange(image.shape[axis]), centres[axis], line)
        return np.broadcast_to(values[:, None] if axis == 0 else values, image.shape).astype("f4")
    degree = [min(3, n - 1) for n in counts]
    spline = RectBivariateSpline(*centres, level, kx=degree[0], ky=degree[1])
    where = [
        np.clip(np.arange(size), c[0], c[-1]) for size, c in zip((ny, nx), centres, strict=True)
    ]
    return spline(*where).astype(np.float32)


def detect_sources(image, noise, bad=None, threshold=3.0, min_area=5):
    """Detect and deblend sources in a background-subtracted image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    noise : float or ndarray of float32, shape (ny, nx)
        Standard deviation of a pixel.
    bad : ndarray of bool, shape (ny, nx), optional
        Pixels without value.
    threshold : float
        In units of `noise`, after smoothing with a small kernel.
    min_area : int
        Connected pixels above the threshold.

    Returns
    -------
    sources : structured ndarray
        As `sep.extract` gives: x, y, a, b, theta, peak, flux, flag, npix, ...
    segments : ndarray of int32, shape (ny, nx)
        Number (from 1) of the source that each pixel belongs to, 0 for none.
    """
    # A crowded field overflows sep's default buffer of 300,000 active pixels.
    sep.set_extract_pixstack(int(max(300_000, 0.3 * image.size)))
    sep.set_sub_object_limit(8192)
    err = noise if np.ndim(noise) else None
    level = threshold if np.ndim(noise) else threshold * noise
    sources, segments = sep.extract(
        image, level, err=err, mask=bad, minarea=min_area, segmentation_map=True
    )
    return sources, segments


def aperture_fluxes(image, noise, x, y, radii, gain=0.0, bad=None):
    """Sum circular apertures.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray of float32
        Standard deviation of a pixel without the light of sources.
    x, y : array_like, shape (n,)
    radii : sequence of float, length k
        Pixels.
    gain : float
        Electrons per unit of `image`, for the photon noise of the source; 0 leaves it out.
    bad : ndarray of bool, optional

    Returns
    -------
    flux, error : ndarray, shape (n, k)
    flag : ndarray of int, shape (n, k)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    flux = np.empty((x.size, len(radii)))
    error = np.empty_like(flux)
    flag = np.zeros(flux.shape, np.int32)
    for k, radius in enumerate(radii):
        flux[:, k], error[:, k], flag[:, k] = sep.sum_circle(
            image, x, y, radius, err=noise, mask=bad, gain=gain or None, subpix=5
        )
    return flux, error, flag


def grow_segments(segments, reach):
    """Return a map of sources with each grown by `reach` pixels into the empty sky.

    A sixth of the light of a faint star lies outside its isophote.
    """
    from scipy.ndimage import maximum_filter

    grown = maximum_filter(segments, size=2 * reach + 1)
    return np.where(segments > 0, segments, grown)


def grow(mask, reach):
    """Return a mask grown by `reach` pixels to each side."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(mask, size=2 * reach + 1)


def neighbour_distance(x, y, flux, ratio=0.02):
    """Return the distance of each source to the next one that matters to it.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
    ratio : float
        A neighbour matters when its flux is more than this part of the source's own.

    Returns
    -------
    ndarray, shape (n,)
        Pixels; infinite for a lonely source.
    """
    from scipy.spatial import cKDTree

    n = len(x)
    nearest = np.full(n, np.inf)
    if n < 2:
        return nearest
    k = min(n, 12)
    distance, index = cKDTree(np.column_stack([x, y])).query(np.column_stack([x, y]), k=k)
    matters = (flux[index] > ratio * flux[:, None]) & (index != np.arange(n)[:, None])
    return np.where(matters, distance, np.inf).min(axis=1)


def half_sample_mode(values):
    """Return the mode of a sample by repeated halving (Bickel & Fruehwirth 2006)."""
    values = np.sort(np.asarray(values, float))
    while values.size > 3:
        half = (values.size + 1) // 2
        widths = values[half - 1 :] - values[: values.size - half + 1]
        start = int(np.argmin(widths))
        values = values[start : start + half]
    return float(np.median(values))


def select_stars(radius, snr, flags, peak, saturate, *, min_snr=20.0, width=0.22, min_radius=0.7):
    """Select point sources fit to measure the point-spread function.

    Stars share one half-light radius; galaxies are larger, cosmic rays and hot pixels smaller.

    Parameters
    ----------
    radius : ndarray, shape (n,)
        Half-light radii [pixel].
    snr : ndarray, shape (n,)
        Signal-to-noise ratios.
    flags : ndarray of int, shape (n,)
        Only sources with 0 are taken.
    peak : ndarray, shape (n,)
        Highest pixel.
    saturate : float
        Level above which a pixel is not trusted.
    min_snr : float
    width : float
        Half width of the stellar locus in ln(radius).
    min_radius : float
        Nothing optical is sharper [pixel].

    Returns
    -------
    stars : ndarray of bool, shape (n,)
    locus : float
        Half-light radius of a star, NaN where there is none.
    """
    usable = (
        (flags == 0) & (snr > min_snr) & (peak < saturate)
        & np.isfinite(radius) & (radius > min_radius)
    )  # fmt: skip
    if not usable.any():
        return usable, np.nan
    logs = np.log(np.where(usable, radius, 1.0))
    locus = half_sample_mode(logs[usable]) if usable.sum() > 4 else np.median(logs[usable])
    for _ in range(3):
        stars = usable & (np.abs(logs - locus) < width)
        if not stars.any():
            break
        locus = np.median(logs[stars])
    return stars, float(np.exp(locus))


# --------------------------------------------------------------------------------------------
# Point-spread function and growth curve
# --------------------------------------------------------------------------------------------


def moffat_fraction(radius, alpha, beta):
    """Return the part of a Moffat star's light within `radius`: 1 - (1 + r^2/alpha^2)^(1-beta)."""
    return 1.0 - (1.0 + (np.asarray(radius, float) / alpha) ** 2) ** (1.0 - beta)


def moffat_fwhm(alpha, beta):
    """Return the full width at half maximum of a Moffat profile."""
    return 2.0 * alpha * np.sqrt(2.0 ** (1.0 / beta) - 1.0)


def moffat_alpha(fwhm, beta):
    """Return the scale radius of a Moffat profile of given full width at half maximum."""
    return fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))


def fit_profile(image, x, y, flux, guess, max_stars=60):
    """Fit a circular Moffat profile to the mean radial profile of stars.

    The profile is the median in rings of 0.25 pixel over all stars, each divided by its flux, so
    that a neighbour of one star does not matter.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Background-subtracted.
    x, y, flux : ndarray, shape (n,)
        Stars, and their fluxes for the normalisation.
    guess : float
        First guess of the FWHM [pixel].
    max_stars : int
        The brightest so many are used.

    Returns
    -------
    fwhm, beta : float
        NaN where the fit fails.
    """
    from scipy.optimize import curve_fit

    half = int(np.ceil(2.5 * guess)) + 1
    inside = (
        (x > half + 1) & (y > half + 1)
        & (x < image.shape[1] - half - 2) & (y < image.shape[0] - half - 2) & (flux > 0)
    )  # fmt: skip
    chosen = np.flatnonzero(inside)
    chosen = chosen[np.argsort(-flux[chosen])[:max_stars]]
    if chosen.size == 0:
        return np.nan, np.nan
    offsets = np.arange(-half, half + 1)
    column = np.rint(x[chosen]).astype(int)
    row = np.rint(y[chosen]).astype(int)
    cutouts = image[
        row[:, None, None] + offsets[None, :, None], column[:, None, None] + offsets[None, None, :]
    ]
    radius = np.hypot(
        (row - y[chosen])[:, None, None] + offsets[None, :, None],
        (column - x[chosen])[:, None, None] + offsets[None, None, :],
    ).ravel()
    value = (cutouts / flux[chosen][:, None, None]).ravel()
    ring = (radius / 0.25).astype(int)
    order = np.argsort(ring, kind="stable")
    edges = np.searchsorted(ring[order], np.arange(int(2.5 * guess / 0.25) + 2))
    r, v, n = [], [], []
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        if end - begin >= 3:
            members = order[begin:end]
            r.append(np.median(radius[members]))
            v.append(np.median(value[members]))
            n.append(end - begin)
    if len(r) < 6:
        return np.nan, np.nan
    r, v, n = np.array(r), np.array(v), np.array(n)
    try:
        (_, alpha, beta), _ = curve_fit(
            lambda r, top, alpha, beta: top * (1 + (r / alpha) ** 2) ** -beta,
            r, v, p0=(v.max(), moffat_alpha(guess, 3.0), 3.0), sigma=1 / np.sqrt(n),
            bounds=((0, 0.2, 1.1), (np.inf, 20 * guess, 50.0)),
        )  # fmt: skip
    except RuntimeError:
        return np.nan, np.nan
    return float(moffat_fwhm(alpha, beta)), float(beta)


@dataclass(frozen=True)
class Wings:
    """Light of a star outside its core: `norm` times an elliptical Moffat profile.

    Parameters
    ----------
    alpha : float
        Pixels.
    beta : float
    norm : float
        In units of the star's total flux.
    e1, e2 : float
        Ellipticity along x and along the diagonal, as `mean_shape` returns.
    """

    alpha: float
    beta: float
    norm: float
    e1: float = 0.0
    e2: float = 0.0

    def density(self, dx, dy):
        """Return the surface brightness of a star of total flux 1 [pixel^-2]."""
        r2 = (1 - self.e1) * dx**2 + (1 + self.e1) * dy**2 - 2 * self.e2 * dx * dy
        r2 /= np.sqrt(1 - self.e1**2 - self.e2**2)
        top = self.norm * (self.beta - 1) / (np.pi * self.alpha**2)
        return top * (1 + r2 / self.alpha**2) ** -self.beta

    def reach(self, density):
        """Return the radius beyond which the surface brightness is below `density` [pixel]."""
        top = np.maximum(self.norm * (self.beta - 1) / (np.pi * self.alpha**2 * density), 1.0)
        return self.alpha * np.sqrt(top ** (1 / self.beta) - 1)


@dataclass
class GrowthCurve:
    """Part of a star's total light within a radius.

    Measured in rings up to `radii[-1]`; what lies beyond follows the wings of a Moffat profile
    fitted to the outer rings.

    Parameters
    ----------
    radii : ndarray
        Aperture radii [pixel].
    cumulative : ndarray
        Flux within `radii` in units of that within `reference`.
    reference : float
        Radius the curve is normalised at [pixel].
    alpha, beta, norm : float
        Wings: `norm` times a Moffat profile.
    total : float
        Total flux in units of that within `reference`.
    error : float
        Standard error of ln(`total`), with a fifth of what lies beyond the last ring.
    n_stars : int
        0: no star was fit, the curve is that of a Moffat profile with beta 3.
    """

    radii: np.ndarray
    cumulative: np.ndarray
    reference: float
    alpha: float
    beta: float
    norm: float
    total: float
    error: float
    n_stars: int

    def wings(self, shape=(0.0, 0.0)):
        """Return the wings for a point-spread function of some ellipticity (`mean_shape`)."""
        return Wings(self.alpha, self.beta, self.norm / self.total, *shape)

    def fraction(self, radius):
        """Return the part of the total light within `radius` [pixel]."""
        radius = np.asarray(radius, float)
        inner = np.interp(
            radius**2, np.append(0, self.radii**2), np.append(0, self.cumulative)
        )  # linear in area: exact in a flat core
        wings = moffat_fraction(radius, self.alpha, self.beta)
        wings = wings - moffat_fraction(self.reference, self.alpha, self.beta)
        outer = 1.0 + self.norm * wings
        return np.where(radius < self.reference, inner, outer) / self.total


def growth_curve(
    image, noise, x, y, isolation, fwhm, gain=0.0, segments=None, numbers=None, max_stars=40,
    own=None,
):  # fmt: skip
    """Measure the growth curve of the stars of an image.

    Ring fluxes of each star over its flux within 1.5 FWHM are averaged with inverse-variance
    weights and clipping; a Moffat profile is fitted to the rings outside 0.75 FWHM and gives the
    light beyond the last one.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray
        Standard deviation of a pixel.
    x, y : ndarray, shape (n,)
        Stars.
    isolation : ndarray, shape (n,)
        Distance to the next source that matters [pixel].
    fwhm : float
        Pixels.
    gain : float
        Electrons per unit.
    segments, numbers : ndarray of int, optional
        Map of sources, and the number in it of each star: pixels of other sources are replaced by
        the mean of their ring.
    max_stars : int
        The brightest so many are used.
    own : callable, optional
        ``own(i)``: where and what to add to `image` about star i, whose model, like those of all
        others, has been taken away (`StarModels.own`).

    Returns
    -------
    GrowthCurve
    """
    factors = np.array([0.4, 0.5, 0.6, 0.75, 0.9, 1.05, 1.2, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
    reference_at = int(np.flatnonzero(factors == 1.5)[0])
    radii = factors * fwhm
    ny, nx = image.shape
    edge = np.minimum.reduce([x, y, nx - 1 - x, ny - 1 - y])
    fallback = _assumed_curve(radii, radii[reference_at], fwhm)
    # Stars alone to the last ring; in a crowded field those alone to a nearer one.
    for last in (len(radii), len(radii) - 1, len(radii) - 3, len(radii) - 5):
        far = radii[last - 1]
        lonely = (isolation > far + 1.5 * fwhm) & (edge > far + 1)
        if lonely.sum() >= 5:
            break
    else:
        if lonely.sum() < 2:
            return fallback
    radii = radii[:last]
    index = np.flatnonzero(lonely)
    rings, variance = ring_fluxes(
        image, noise, x[index], y[index], radii, gain, segments,
        None if numbers is None else numbers[index],
        None if own is None else lambda i: own(index[i]),
    )  # fmt: skip
    inside = slice(None, reference_at + 1)
    normal = rings[:, inside].sum(axis=1, keepdims=True)
    good = normal[:, 0] > 20 * np.sqrt(variance[:, inside].sum(axis=1))
    good[np.argsort(-normal[:, 0])[max_stars:]] = False
    if good.sum() < 2:
        return fallback
    rings, variance, normal = rings[good], variance[good], normal[good]
    rings, variance = rings / normal, variance / normal**2
    mean, sigma = clipped_mean(rings, variance, RING_FLOOR)
    cumulative = np.cumsum(mean)
    cumulative /= cumulative[reference_at]

    from scipy.optimize import least_squares

    outer = np.flatnonzero(radii > 0.8 * fwhm)
    inner_edge = np.append(0, radii)[outer]
    outer_edge = radii[outer]
    sigma = np.maximum(sigma[outer], 2e-4)
    beta0 = 3.0
    # What an error of the background of SKY_ERROR of a pixel's noise adds to each ring.
    weight = 1.0 / (variance[:, outer] + RING_FLOOR**2)
    inverse = (weight / normal).sum(axis=0) / weight.sum(axis=0)
    area = np.pi * (outer_edge**2 - inner_edge**2)
    lift = SKY_ERROR * float(np.median(noise)) * area * inverse

    def misfit(p):
        alpha, beta, norm = np.exp(p[:3])
        wing = moffat_fraction(outer_edge, alpha, beta) - moffat_fraction(inner_edge, alpha, beta)
        # A weak prior on beta keeps the wings sane where they are all noise.
        prior = [np.log(beta / beta0) / 0.5, p[3]]
        return np.append((norm * wing + p[3] * lift - mean[outer]) / sigma, prior)

    start = np.append(np.log([moffat_alpha(fwhm, beta0), beta0, 1.05]), 0.0)
    span = np.append(np.log([4.0, 6.0, 1.6]), 5.0)
    fit = least_squares(misfit, start, bounds=(start - span, start + span))
    alpha, beta, norm = np.exp(fit.x[:3])

    def total(p):
        return 1.0 + np.exp(p[2]) * (
            1.0 - moffat_fraction(radii[reference_at], np.exp(p[0]), np.exp(p[1]))
        )

    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * max(
        1.0, 2 * fit.cost / max(1, len(outer) - 2)
    )
    step = 1e-4
    slope = np.array([(total(fit.x + step * e) - total(fit.x - step * e)) for e in np.eye(4)])
    slope /= 2 * step
    whole = total(fit.x)
    beyond = norm * (1.0 - moffat_fraction(radii[-1], alpha, beta)) / whole
    error = np.sqrt(max(0.0, slope @ covariance @ slope) / whole**2 + (0.2 * beyond) ** 2)
    return GrowthCurve(
        radii, cumulative, float(radii[reference_at]), float(alpha), float(beta), float(norm),
        float(whole), float(error), int(good.sum()),
    )  # fmt: skip


def ring_fluxes(image, noise, x, y, radii, gain=0.0, segments=None, numbers=None, own=None):
    """Sum rings about stars, the pixels of other sources replaced by the mean of the ring.

    Parameters
    ----------
    image, noise, x, y, gain
        As for `aperture_fluxes`.
    radii : ndarray, shape (k,)
        Outer radii; the first ring is a disc [pixel].
    segments, numbers : ndarray of int, optional
        Map of sources, and the number in it of each star.
    own : callable, optional
        As for `growth_curve`.

    Returns
    -------
    flux, variance : ndarray, shape (n, k)
    """
    flux = np.empty((len(x), len(radii)))
    variance = np.empty_like(flux)
    half = int(np.ceil(radii[-1])) + 2
    ny, nx = image.shape
    for i in range(len(x)):
        column, row = int(x[i]), int(y[i])
        x0, y0 = max(0, column - half), max(0, row - half)
        part = (slice(y0, min(ny, row + half + 1)), slice(x0, min(nx, column + half + 1)))
        cutout = image[part].copy()
        if own is not None:
            add_stamp(cutout, (y0, x0), *own(i))
        err = np.ascontiguousarray(noise[part]) if np.ndim(noise) else noise
        options = {"err": err, "gain": gain or None, "subpix": 5}
        if segments is not None:
            options["segmap"] = np.ascontiguousarray(segments[part])
        for k, outer in enumerate(radii):
            place = ([x[i] - x0], [y[i] - y0])
            if segments is not None:
                options["seg_id"] = np.array([numbers[i]], np.int32)
            if k == 0:
                total, error, _ = sep.sum_circle(cutout, *place, outer, **options)
            else:
                total, error, _ = sep.sum_circann(cutout, *place, radii[k - 1], outer, **options)
            flux[i, k], variance[i, k] = total[0], error[0] ** 2
    return flux, variance


class StarModels:
    """An image without its stars: each modelled by the wings of the growth curve.

    Outside 0.8 FWHM, where the model is fitted, it is good to the noise; in the core it need not
    be, for the model of a star is added again where that star is measured.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    x, y, flux : ndarray, shape (n,)
        Total fluxes; those of 0 are not modelled.
    wings : Wings
    noise : float
        Of a pixel: models end where they are below a fiftieth of it.
    radius : float
        They reach so far at least [pixel].
    """

    def __init__(self, image, x, y, flux, wings, noise, radius):
        self.size, self.wings = image.shape, wings
        self.x, self.y, self.flux = x, y, flux
        with np.errstate(divide="ignore"):
            reach = wings.reach(0.02 * noise / flux)
        self.half = np.ceil(np.clip(reach, radius + 2, 40 * radius)).astype(int)
        self.residual = image.copy()
        for i in np.flatnonzero(flux > 0):
            corner, stamp = self.own(i)
            if stamp.size:
                add_stamp(self.residual, (0, 0), corner, -stamp)

    def own(self, i):
        """Return the model of star `i`: its first row and column, and its pixels."""
        ny, nx = self.size
        column, row, half = round(self.x[i]), round(self.y[i]), self.half[i]
        x0, y0 = max(0, column - half), max(0, row - half)
        x1, y1 = min(nx, column + half + 1), min(ny, row + half + 1)
        dx, dy = np.arange(x0, x1) - self.x[i], np.arange(y0, y1) - self.y[i]
        light = self.flux[i] * self.wings.density(dx, dy[:, None])
        return (y0, x0), light.astype(np.float32)

    def apertures(self, radius):
        """Return the sum of each star alone in a circle, the others taken away, shape (n,)."""
        sums, _, _ = sep.sum_circle(self.residual, self.x, self.y, radius, subpix=5)
        for i in np.flatnonzero(self.flux > 0):
            (y0, x0), stamp = self.own(i)
            if stamp.size:
                part, _, _ = sep.sum_circle(
                    stamp, [self.x[i] - x0], [self.y[i] - y0], radius, subpix=5
                )
                sums[i] += part[0]
        return sums

    def image(self, chosen):
        """Return the image of the models of some stars."""
        image = np.zeros(self.size, np.float32)
        for i in np.flatnonzero(chosen & (self.flux > 0)):
            corner, stamp = self.own(i)
            if stamp.size:
                add_stamp(image, (0, 0), corner, stamp)
        return image


def model_stars(image, noise, x, y, sums, error, radius, fraction, wings):
    """Return the models of the stars that are seen, from aperture sums that hold their neighbours.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float
        Of a pixel.
    x, y, sums, error : ndarray, shape (n,)
        Those with less than five times their error are not modelled.
    radius, fraction, wings
        As for `share_light`.

    Returns
    -------
    StarModels
    """
    seen = np.flatnonzero(sums > 5 * error)
    flux = np.zeros(len(sums))
    flux[seen] = share_light(sums[seen], x[seen], y[seen], radius, fraction, wings)
    # Between close ones noise may leave nothing for one of them.
    return StarModels(image, x, y, np.clip(flux, 0, None), wings, noise, radius)


def share_light(sums, x, y, radius, fraction, wings):
    """Solve for the total fluxes of stars whose apertures hold light of each other.

    Parameters
    ----------
    sums : ndarray, shape (n,)
        In circular apertures.
    x, y : ndarray, shape (n,)
    radius : float
        Of the apertures [pixel].
    fraction : float
        Of a star's light in its own aperture.
    wings : Wings

    Returns
    -------
    ndarray, shape (n,)
        Total fluxes. Stars nearer than a third of the radius cannot be told apart: each has the
        light of both.
    """
    from scipy.sparse import coo_array, eye_array
    from scipy.sparse.linalg import spsolve
    from scipy.spatial import cKDTree

    n = len(sums)
    pairs = np.empty((0, 2), int)
    if n > 1:
        pairs = cKDTree(np.column_stack([x, y])).query_pairs(4 * radius, output_type="ndarray")
    if len(pairs) == 0:
        return sums / fraction
    apart = np.hypot(*(axis[pairs[:, 0]] - axis[pairs[:, 1]] for axis in (x, y)))
    pairs, apart = pairs[apart > radius / 3], apart[apart > radius / 3]
    # Light of a star in an aperture at a distance, on rings of equal area and 24 angles.
    rho = radius * np.sqrt((np.arange(60) + 0.5) / 60)[:, None]
    phi = 2 * np.pi * (np.arange(24) + 0.5) / 24
    at = np.linspace(0, 4 * radius, 81)[:, None, None]
    density = Wings(wings.alpha, wings.beta, wings.norm).density
    share = density(at + rho * np.cos(phi), rho * np.sin(phi)).mean(axis=(1, 2))
    part = np.interp(apart, at.ravel(), np.pi * radius**2 * share)
    row, column = np.concatenate([pairs, pairs[:, ::-1]]).T
    matrix = fraction * eye_array(n) + coo_array((np.tile(part, 2), (row, column)), shape=(n, n))
    return spsolve(matrix.tocsc(), sums)


def mean_shape(a, b, theta):
    """Return the mean ellipticity of stars: its components along x and along the diagonal.

    (a^2 - b^2) / (a^2 + b^2) times the cosine and sine of twice the angle: unlike that of 1 - b/a
    its mean is not lifted by noise.
    """
    if len(a) == 0:
        return 0.0, 0.0
    size = np.minimum((a**2 - b**2) / (a**2 + b**2), 0.9)
    return float(np.median(size * np.cos(2 * theta))), float(np.median(size * np.sin(2 * theta)))


def hidden_sources(models, noise, gain, point, segments, fwhm, threshold=5.0, min_area=5):
    """Find the neighbours of stars that were taken for a part of them.

    What is left of the image without its stars is searched from 0.8 to 3 FWHM about each.

    Parameters
    ----------
    models : StarModels
    noise : float or ndarray
        Standard deviation of a pixel.
    gain : float
        Electrons per unit.
    point : ndarray of bool, shape (n,)
        Point sources that are not saturated: about the others the model is none.
    segments : ndarray of int32, shape (ny, nx)
    fwhm : float
        Pixels.
    threshold, min_area
        Of `detect_sources`.

    Returns
    -------
    sources : structured ndarray
    segments : ndarray of int32
        Of them, numbered from 1.
    """
    light = models.image(point)
    # A tenth of the model: what stars differ from it.
    error = np.sqrt(noise**2 + light / gain + (0.1 * light) ** 2).astype(np.float32)
    search = np.zeros(models.size, bool)
    core = np.zeros(models.size, bool)
    ny, nx = models.size
    reach = int(np.ceil(3 * fwhm))
    for i in np.flatnonzero(models.flux > 0):
        column, row = round(models.x[i]), round(models.y[i])
        x0, y0 = max(0, column - reach), max(0, row - reach)
        part = (slice(y0, row + reach + 1), slice(x0, column + reach + 1))
        dy = np.arange(y0, min(ny, row + reach + 1))[:, None] - models.y[i]
        r2 = (np.arange(x0, min(nx, column + reach + 1)) - models.x[i]) ** 2 + dy**2
        core[part] |= r2 < (0.8 * fwhm) ** 2
        if point[i]:
            search[part] |= r2 < reach**2
    other = np.append(False, ~point)[segments]
    # The core of a neighbour may lie at the rim: its pixels count, but none of a star's own.
    residual = np.where(search & ~core & ~other, models.residual, 0).astype(np.float32)
    return detect_sources(residual, error, None, threshold, min_area)


def add_stamp(image, origin, corner, stamp):
    """Add a stamp to a part of an image, in place.

    Parameters
    ----------
    image : ndarray, shape (my, mx)
    origin : tuple of int
        Row and column of its first pixel.
    corner : tuple of int
        The same of the stamp.
    stamp : ndarray, shape (ky, kx)
    """
    row, column = corner[0] - origin[0], corner[1] - origin[1]
    y0, x0 = max(0, row), max(0, column)
    y1 = min(image.shape[0], row + stamp.shape[0])
    x1 = min(image.shape[1], column + stamp.shape[1])
    if y1 > y0 and x1 > x0:
        image[y0:y1, x0:x1] += stamp[y0 - row : y1 - row, x0 - column : x1 - column]


def _assumed_curve(radii, reference, fwhm, beta=3.0):
    """Return the growth curve of a Moffat star, good to some 3 % between real ones."""
    alpha = moffat_alpha(fwhm, beta)
    light = moffat_fraction(radii, alpha, beta)
    part = float(moffat_fraction(reference, alpha, beta))
    return GrowthCurve(
        np.asarray(radii), light / part, float(reference), alpha, beta, 1 / part, 1 / part, 0.03, 0
    )


def clipped_mean(values, variance, floor=0.0, sigma=3.0, iterations=4):
    """Return the inverse-variance weighted mean of each column, outliers left out.

    Parameters
    ----------
    values, variance : ndarray, shape (n, k)
    floor : float
        Added to the errors in quadrature for the weights and the clipping.
    sigma : float
        Clipping, in units of the larger of the stated error and the robust scatter.

    Returns
    -------
    mean, error : ndarray, shape (k,)
        The error is the larger of the propagated one and that from the scatter.
    """
    padded = variance + floor**2
    weight = 1.0 / padded
    kept = np.ones(values.shape, bool)
    centre = np.median(values, axis=0)
    for _ in range(iterations):
        scatter = MAD_TO_SIGMA * np.median(np.abs(values - centre), axis=0)
        kept = np.abs(values - centre) <= sigma * np.maximum(np.sqrt(padded), scatter)
        w = np.where(kept, weight, 0.0)
        sum_w = np.maximum(w.sum(axis=0), 1e-300)
        centre = np.where(kept.any(axis=0), (w * values).sum(axis=0) / sum_w, centre)
    n = kept.sum(axis=0)
    spread = (w * (values - centre) ** 2).sum(axis=0) / sum_w
    stated = np.sqrt((w**2 * variance).sum(axis=0)) / sum_w
    error = np.maximum(stated, np.sqrt(spread / np.maximum(n - 1, 1)))
    return centre, error


# --------------------------------------------------------------------------------------------
# Matching
# --------------------------------------------------------------------------------------------


def gnomonic(ra, dec, ra0, dec0):
    """Project sky positions on the plane tangent at (ra0, dec0).

    Parameters
    ----------
    ra, dec : array_like
        Degrees.
    ra0, dec0 : float
        Degrees.

    Returns
    -------
    ndarray, shape (n, 2)
        East and north offsets [arcsec]; NaN on the far hemisphere.
    """
    a = np.radians(np.asarray(ra, float) - ra0)
    d, d0 = np.radians(np.asarray(dec, float)), np.radians(dec0)
    cosine = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    scale = np.degrees(1.0) * 3600.0 / np.where(cosine > 0.01, cosine, np.nan)
    east = np.cos(d) * np.sin(a)
    north = np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)
    return np.column_stack([east * scale, north * scale])


def match(plane, reference, radius):
    """Pair points with the nearest reference points, one to one, ambiguous ones left out.

    Parameters
    ----------
    plane : ndarray, shape (n, 2)
    reference : ndarray, shape (m, 2)
        Rows with NaN are never matched.
    radius : float
        In the units of the points.

    Returns
    -------
    index, partner : ndarray of int
        Rows of `plane` and `reference` that belong together.
    """
    from scipy.spatial import cKDTree

    none = np.empty(0, int)
    valid = np.flatnonzero(np.isfinite(reference).all(axis=1))
    usable = np.flatnonzero(np.isfinite(plane).all(axis=1))
    if valid.size == 0 or usable.size == 0:
        return none, none
    distance, nearest = cKDTree(reference[valid]).query(
        plane[usable], k=min(2, valid.size), distance_upper_bound=radius
    )
    distance, nearest = np.atleast_2d(distance.T).T, np.atleast_2d(nearest.T).T
    found = np.isfinite(distance[:, 0])
    if distance.shape[1] > 1:
        found &= ~np.isfinite(distance[:, 1])  # two candidates: neither is sure
    index = np.flatnonzero(found)
    partner = nearest[index, 0]
    # One to one: of several points at one reference star the nearest is it.
    order = np.argsort(distance[index, 0], kind="stable")
    _, first = np.unique(partner[order], return_index=True)
    keep = np.sort(order[first])
    return usable[index[keep]], valid[partner[keep]]


def common_stars(positions, radius):
    """Give the stars of many frames common numbers.

    Parameters
    ----------
    positions : list of ndarray, shape (n_i, 2)
        Stars of each frame on one plane.
    radius : float
        Stars nearer than this are the same.

    Returns
    -------
    numbers : list of ndarray of int, shape (n_i,)
    count : int
        Number of different stars.
    """
    from scipy.spatial import cKDTree

    order = sorted(range(len(positions)), key=lambda i: -len(positions[i]))
    numbers = [None] * len(positions)
    master = np.empty((0, 2))
    for i in order:
        points = positions[i]
        number = np.full(len(points), -1)
        if len(master) and len(points):
            distance, nearest = cKDTree(master).query(points, distance_upper_bound=radius)
            near = np.flatnonzero(np.isfinite(distance))
            near = near[np.argsort(distance[near], kind="stable")]
            _, first = np.unique(nearest[near], return_index=True)
            near = near[first]
            number[near] = nearest[near]
        new = number < 0
        number[new] = len(master) + np.arange(new.sum())
        master = np.vstack([master, points[new]])
        numbers[i] = number
    return numbers, len(master)


# --------------------------------------------------------------------------------------------
# Zero points
# --------------------------------------------------------------------------------------------


def relative_zeropoints(magnitude, error, floor=0.01, iterations=8):
    """Solve for the zero points of frames from the stars they have in common.

    Minimises sum w_ij (m_ij + z_i - M_j)^2 over the zero points z and star magnitudes M; the M
    are eliminated, so that the equations have the size of the number of frames. Outliers lose
    weight by Tukey's biweight.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n_frames, n_stars)
        Instrumental magnitudes, NaN where a star is not measured.
    floor : float or ndarray, shape (n_frames, 1)
        Added to the errors in quadrature: what flat fields and catalogues leave.
    iterations : int

    Returns
    -------
    zeropoint : ndarray, shape (n_frames,)
        With mean 0 in each group; NaN for a frame without common star.
    scatter : ndarray, shape (n_frames,)
        Robust scatter of its stars about the solution [mag].
    number : ndarray of int, shape (n_frames,)
        Its stars that another frame has too.
    group : ndarray of int, shape (n_frames,)
        Frames of different groups have no star in common, directly or through others: their
        zero points cannot be compared.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_frames = len(magnitude)
    seen = np.isfinite(magnitude) & np.isfinite(error)
    seen &= seen.sum(axis=0) > 1
    number = seen.sum(axis=1)
    frame, star = np.nonzero(seen)
    links = coo_array(
        (np.ones(frame.size), (frame, n_frames + star)),
        shape=(n_frames + magnitude.shape[1],) * 2,
    )
    _, label = connected_components(links, directed=False)
    group = label[:n_frames]
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
    return np.where(number > 0, z, np.nan), scatter, number, group


@dataclass
class Zeropoint:
    """A zero point: reference = instrumental + value + colour_term (colour - colour_at).

    Parameters
    ----------
    value, error : float
        At colour `colour_at`; NaN where `reason` says why there is none.
    scatter, rms : float
        Robust and ordinary scatter of the stars used [mag].
    intrinsic : float
        Part of the scatter that the stated errors of the stars do not explain [mag].
    n_stars : int
        Stars used.
    n_matched : int
        Stars given.
    colour : str
        Name of the colour (``g-r``), or ``''``.
    colour_term, colour_term_error, colour_at : float
        0, 0, NaN where not fitted.
    used : ndarray of bool, shape (n,)
    residual : ndarray, shape (n,)
        Reference less fit, of all stars given [mag].
    reason : str
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
    reason: str = ""

    @property
    def known(self):
        """Whether there is a zero point."""
        return bool(np.isfinite(self.value))


def extra_variance(residual, variance, freedom):
    """Return s^2 >= 0 such that sum r^2 / (variance + s^2) = `freedom`, by bisection."""
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
    instrumental, error, reference, reference_error, colour=None, colour_error=None,
    colour_covariance=None, *, colour_name="", min_stars=3, colour_min_stars=12,
    colour_min_spread=0.1, clip=3.0, min_error=0.002,
):  # fmt: skip
    """Fit a zero point, and a colour term where the stars bear one.

    Weights are the inverse of the sum of the stars' variances and an intrinsic variance, itself
    found from the scatter. Stars further than `clip` standard deviations are left out, one round
    after the other. The colour enters as its distance from its weighted mean, so that the zero
    point there does not depend on the error of the colour term.

    Parameters
    ----------
    instrumental, error : ndarray, shape (n,)
        Instrumental magnitudes and their errors.
    reference, reference_error : ndarray, shape (n,)
        Catalogue magnitudes and their errors; NaN for a star to leave out. An error that is NaN
        or 0 counts as 0.02.
    colour, colour_error : ndarray, shape (n,), optional
        NaN where unknown: used for the fit without colour term only.
    colour_covariance : ndarray, shape (n,), optional
        Covariance of the errors of reference magnitude and colour.
    colour_name : str
    min_stars : int
        Fewer stars give no zero point.
    colour_min_stars : int
        Fewer stars, or colours that spread by less than `colour_min_spread` mag, give no colour
        term.
    clip : float
    min_error : float
        Least error of one star [mag].

    Returns
    -------
    Zeropoint
    """
    n = len(instrumental)
    difference = np.asarray(reference, float) - np.asarray(instrumental, float)
    known = np.isfinite(difference) & np.isfinite(error)
    reference_error = np.asarray(reference_error, float)
    reference_error = np.where(reference_error > 0, reference_error, 0.02)
    variance = np.where(known, np.square(error) + reference_error**2, 1.0) + min_error**2
    result = Zeropoint(n_matched=int(known.sum()), used=np.zeros(n, bool), residual=difference)
    if known.sum() < min_stars:
        result.reason = f"TOO_FEW_REFERENCE_STARS: {int(known.sum())} < {min_stars}"
        return result
    start = np.median(difference[known])
    width = np.sqrt(mad_std(difference[known]) ** 2 + np.median(variance[known]))
    first = known & (np.abs(difference - start) < 5 * width)
    fit = _clipped_line(difference, variance, None, None, known, first, clip, min_stars)
    if colour is not None and fit is not None:
        toned = fit["used"] & np.isfinite(colour)
        enough = toned.sum() >= colour_min_stars
        if enough and np.std(colour[toned]) >= colour_min_spread:
            usable = known & np.isfinite(colour)
            shared = np.zeros((2, n))
            for row, values in zip(shared, (colour_covariance, colour_error), strict=True):
                if values is not None:
                    row[:] = np.nan_to_num(values)
            line = _clipped_line(
                difference, variance, colour, (shared[0], shared[1] ** 2), usable, toned, clip,
                colour_min_stars,
            )  # fmt: skip
            if line is not None and line["used"].sum() >= colour_min_stars:
                fit = line
                result.colour = colour_name
    if fit is None:
        result.reason = f"TOO_FEW_REFERENCE_STARS: fewer than {min_stars} agree"
        return result
    used, residual = fit["used"], fit["residual"]
    # The intrinsic scatter is itself known from few stars only: Student's t has this variance.
    freedom = used.sum() - fit["parameters"]
    small = np.sqrt(freedom / (freedom - 2)) if freedom > 2 else 2.0
    result.value, result.error = fit["value"], fit["error"] * small
    result.scatter = mad_std(residual[used])
    result.rms = float(np.sqrt(np.mean(residual[used] ** 2)))
    result.intrinsic = float(np.sqrt(fit["extra"]))
    result.n_stars = int(used.sum())
    result.used, result.residual = used, residual
    if result.colour:
        result.colour_term, result.colour_at = fit["slope"], fit["centre"]
        result.colour_term_error = fit["slope_error"] * small
    return result


def _clipped_line(difference, variance, colour, shared, known, used, clip, min_stars):
    """Fit a constant, or a line in colour, with intrinsic scatter and clipping.

    `shared` holds the covariance of the errors of difference and colour, and the variance of the
    colour. None where the errors of the colours leave nothing of their spread.
    """
    parameters = 1 if colour is None else 2
    abscissa = np.zeros_like(difference) if colour is None else np.where(known, colour, 0.0)
    if used.sum() < max(min_stars, parameters):
        return None
    extra = max(0.0, mad_std(difference[used]) ** 2 - np.median(variance[used]))
    slope = slope_error = centre = 0.0
    for _ in range(25):
        weight = np.where(used, 1.0 / (variance + extra), 0.0)
        total = weight.sum()
        value = np.sum(weight * np.where(used, difference, 0)) / total
        if parameters == 2:
            centre = np.sum(weight * abscissa) / total
            spread = np.sum(weight * (abscissa - centre) ** 2)
            product = np.sum(weight * (abscissa - centre) * np.where(used, difference, 0))
            true_spread = spread - np.sum(weight * shared[1])
            if true_spread < 0.3 * spread:
                return None
            slope = (product - np.sum(weight * shared[0])) / true_spread
            slope_error = np.sqrt(spread) / true_spread
        residual = difference - value - slope * (abscissa - centre)
        before = extra
        extra = extra_variance(residual[used], variance[used], used.sum() - parameters)
        # Clipping against the robust scatter: outliers swell the other one and hide in it.
        robust = max(0.0, mad_std(residual[used]) ** 2 - np.median(variance[used]))
        bound = clip * np.sqrt(variance + min(extra, max(robust, 0.25 * extra)))
        kept = known & (np.abs(np.where(known, residual, np.inf)) <= bound)
        if kept.sum() < max(min_stars, parameters):
            break
        if np.array_equal(kept, used) and abs(extra - before) < 1e-3 * (extra + 1e-6):
            break
        used = kept
    return {
        "value": float(value), "error": float(1.0 / np.sqrt(total)), "extra": extra,
        "slope": float(slope), "slope_error": float(slope_error), "centre": float(centre),
        "used": used, "residual": residual, "parameters": parameters,
    }  # fmt: skip


def expected_noise(magnitude, error, flux, expected, gain):
    """Return magnitudes without the bias of noise, with errors for the flux that stars should have.

    An error computed from the measured flux is smaller where noise made the star brighter: a mean
    with such weights is too bright by 1.5 (noise / flux)^2 of the flux. And -2.5 log of a noisy
    flux is too faint by half of (noise / flux)^2.

    Parameters
    ----------
    magnitude, error : ndarray, shape (n,)
        As measured.
    flux, expected : ndarray, shape (n,)
        Total fluxes measured, and expected from a catalogue.
    gain : float
        Electrons per unit of flux.

    Returns
    -------
    magnitude, error : ndarray, shape (n,)
    """
    sky = np.maximum((error / 1.0857 * flux) ** 2 - flux / gain, 0.0)
    noise = np.sqrt(sky + expected / gain) / expected
    return magnitude - 0.5 * 1.0857 * noise**2, 1.0857 * noise


def choose_colour(band, table, rows):
    """Return the colour of the reference that most of some stars have.

    Parameters
    ----------
    band : str
    table : mapping of str to ndarray
        Reference columns.
    rows : ndarray of int
        Stars.

    Returns
    -------
    name : str
        As ``g-r``, or ``''`` where the reference has none.
    colour, error, covariance : ndarray, shape (len(rows),), or None
        The last is that of the errors of colour and magnitude in `band`.
    """
    best = ("", None, None, None)
    most = 0
    for blue, red in COLOURS.get(band, ()):
        if blue not in table or red not in table:
            continue
        colour = np.asarray(table[blue], float)[rows] - np.asarray(table[red], float)[rows]
        count = int(np.isfinite(colour).sum())
        if count > 1.2 * most:  # an earlier pair is preferred unless it loses many stars
            errors = [_column(table, f"{name}_err")[rows] for name in (blue, red)]
            sign = (blue == band) - (red == band)
            covariance = sign * _column(table, f"{band}_err")[rows] ** 2 if sign else 0 * colour
            best, most = (f"{blue}-{red}", colour, np.hypot(*errors), covariance), count
    return best


def _column(table, name):
    """Return a column as float, NaN where it is missing."""
    if name in table:
        return np.asarray(table[name], float)
    return np.full(len(table["ra"]), np.nan)


# --------------------------------------------------------------------------------------------
# Empty apertures
# --------------------------------------------------------------------------------------------


def empty_apertures(occupied, radius, number=6000, seed=1):
    """Return centres of circular apertures that touch no occupied pixel.

    Parameters
    ----------
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources, and those without data.
    radius : float
        Pixels.
    number : int
        At most so many.
    seed : int

    Returns
    -------
    x, y : ndarray
        Centres, on whole pixels, some radius apart: apertures that overlap by half still tell
        nearly as much as separate ones.
    """
    ny, nx = occupied.shape
    rng = np.random.default_rng(seed)
    reach = int(np.ceil(radius)) + 1
    if min(nx, ny) <= 2 * reach + 2:
        return np.empty(0), np.empty(0)
    # Number of occupied pixels in a box from the cumulative sum: cheap for any radius.
    total = np.zeros((ny + 1, nx + 1), np.int64)
    total[1:, 1:] = occupied.cumsum(0).cumsum(1)
    size = 2 * reach + 1
    inside = (
        total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    )
    free = np.flatnonzero(inside == 0)
    if free.size == 0:
        return np.empty(0), np.empty(0)
    # Places drawn by chance, of which one in each cell of a grid stays.
    row, column = np.divmod(free[rng.integers(0, free.size, 10 * number)], inside.shape[1])
    step = max(2, int(np.ceil(radius)))
    cell = (row // step) * (nx // step + 1) + column // step
    _, chosen = np.unique(cell, return_index=True)
    if chosen.size > number:
        chosen = rng.choice(chosen, number, replace=False)
    return (column[chosen] + reach).astype(float), (row[chosen] + reach).astype(float)


def aperture_noise(image, variance, x, y, radius, subpix=5):
    """Return the noise of empty apertures and its ratio to what a variance map says.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    variance : ndarray of float32, same shape
        Of a pixel, as if pixels were independent.
    x, y : ndarray, shape (n,)
        Centres of empty apertures.
    radius : float
        Pixels.
    subpix : int
        Sampling of the pixels on the rim. With 1 a pixel is in or out and the sum of the map is
        the variance of independent pixels; with parts of pixels the sum of the map is larger than
        that, by 9 % for a radius of 4.

    Returns
    -------
    sigma : float
        Robust standard deviation of the aperture sums.
    ratio : float
        Robust standard deviation of the sums over their errors by the map; its square is what
        the variances must be multiplied with.
    """
    sums, _, _ = sep.sum_circle(image, x, y, radius, subpix=subpix)
    expected, _, _ = sep.sum_circle(variance, x, y, radius, subpix=subpix)
    good = expected > 0
    return _clipped_std(sums[good]), _clipped_std(sums[good] / np.sqrt(expected[good]))


def _clipped_std(values):
    """Return the standard deviation without values beyond 3.5 sigma: half as noisy as the MAD."""
    return sigma_clipped_median(values, sigma=3.5)[1]


# --------------------------------------------------------------------------------------------
# Custom catalogue
# --------------------------------------------------------------------------------------------


def read_custom_catalogue(path):
    """Read a custom catalogue in the format of the original autoproc.

    One star a line after a first line that is skipped: ra dec [deg], the magnitudes u g r i z y
    B V R I J H K, their 13 errors, and a mode (not used). Magnitudes that are not finite or
    outside -5 to 40 are missing, so are those of 0 with error 0.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to ndarray
        ra, dec, and each band with ``_err``.

    Raises
    ------
    CatalogueError
        One sentence on what is wrong with the file.
    """
    names = ["ra", "dec", *BANDS, *(f"{band}_err" for band in BANDS)]
    rows = []
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            next(lines, None)
            for number, line in enumerate(lines, start=2):
                words = line.split("#")[0].replace(",", " ").split()
                if not words:
                    continue
                if len(words) not in (len(names), len(names) + 1):
                    raise CatalogueError(
                        f"customcat {path}, line {number}: {len(words)} columns where there must "
                        f"be 29: ra dec, {' '.join(BANDS)}, their 13 errors, mode."
                    )
                try:
                    rows.append([float(word) for word in words[: len(names)]])
                except ValueError:
                    hint = (
                        " (positions must be decimal degrees)" if ":" in words[0] + words[1] else ""
                    )
                    raise CatalogueError(
                        f"customcat {path}, line {number}: not all columns are numbers{hint}."
                    ) from None
    except OSError as error:
        raise CatalogueError(f"customcat {path} cannot be read: {error.strerror}.") from None
    if not rows:
        raise CatalogueError(f"customcat {path} has no star after its first line.")
    columns = dict(zip(names, np.array(rows, float).T, strict=True))
    ra, dec = columns["ra"], columns["dec"]
    if np.any((ra < 0) | (ra > 360) | (np.abs(dec) > 90)):
        raise CatalogueError(
            f"customcat {path}: ra must be 0 to 360 and dec -90 to 90 degrees; found ra "
            f"{ra.min():g} to {ra.max():g}, dec {dec.min():g} to {dec.max():g}."
        )
    for band in BANDS:
        value, error = columns[band], columns[f"{band}_err"]
        missing = ~np.isfinite(value) | (value < -5) | (value > 40) | ((value == 0) & (error == 0))
        columns[band] = np.where(missing, np.nan, value)
        columns[f"{band}_err"] = np.where(missing | ~(error > 0) | (error > 5), np.nan, error)
    return columns


def check_hours(columns, ra, dec, radius, name):
    """Raise where a catalogue misses the field only because its ra is in hours.

    Parameters
    ----------
    columns : mapping
        With ra and dec [deg].
    ra, dec, radius : float
        Field [deg].
    name : str
        What to call the catalogue.

    Raises
    ------
    CatalogueError
    """
    near = np.abs(np.asarray(columns["dec"], float) - dec) < radius
    width = radius / max(0.05, np.cos(np.radians(dec)))

    def inside(values):
        return int(np.sum(near & (np.abs((values - ra + 180) % 360 - 180) < width)))

    values = np.asarray(columns["ra"], float)
    if inside(values) == 0 and np.nanmax(values, initial=0) <= 24 and inside(15 * values) > 0:
        raise CatalogueError(f"{name}: its ra values are hours; write degrees (hours times 15).")


# --------------------------------------------------------------------------------------------
# All of it together for one image
# --------------------------------------------------------------------------------------------


@dataclass
class StarField:
    """Sources of an image, which of them are stars, and the point-spread function.

    Parameters
    ----------
    sources : structured ndarray, shape (n,)
        Of `detect_sources`; x and y are windowed positions.
    segments : ndarray of int32, shape (ny, nx)
    stars : ndarray of bool, shape (n,)
        On the stellar locus, unsaturated, undisturbed.
    flags : ndarray of int32, shape (n,)
        Those of sep with FLAG_SATURATED, FLAG_NEIGHBOUR and FLAG_WEIGHT.
    half_light : ndarray, shape (n,)
        Radii [pixel].
    locus : float
        Half-light radius of a star [pixel].
    isolation : ndarray, shape (n,)
        Distance to the next source that matters [pixel].
    fwhm, beta, ellipticity : float
    shape : tuple of float
        As `mean_shape` returns.
    aperture : float
        Radius of the aperture of `flux` [pixel].
    flux, error : ndarray, shape (n,)
        Within `aperture`, that of the other sources taken away.
    growth : GrowthCurve
    residual : ndarray of float32, shape (ny, nx)
        The image without the models of its stars.
    """

    sources: np.ndarray
    segments: np.ndarray
    stars: np.ndarray
    flags: np.ndarray
    half_light: np.ndarray
    locus: float
    isolation: np.ndarray
    fwhm: float
    beta: float
    ellipticity: float
    shape: tuple
    aperture: float
    flux: np.ndarray
    error: np.ndarray
    growth: GrowthCurve
    residual: np.ndarray

    @property
    def total(self):
        """Total fluxes for point sources, shape (n,)."""
        return self.flux / float(self.growth.fraction(self.aperture))

    @property
    def snr(self):
        """Signal-to-noise ratios within the aperture, shape (n,)."""
        return self.flux / self.error


def measure_field(
    image, noise, bad, *, saturate=np.inf, gain=1.0, threshold=3.0, min_area=5, aperture=1.5,
    min_snr=20.0,
):  # fmt: skip
    """Find the sources of an image and measure its point-spread function on the stars.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray of float32
        Standard deviation of a pixel without sources.
    bad : ndarray of bool, shape (ny, nx)
        Pixels that are no measurement: a star with one in its core is no star to measure with.
    saturate : float
        Pixels above are not trusted.
    gain : float
        Electrons per unit.
    threshold, min_area
        Of `detect_sources`.
    aperture : float
        Radius of the photometry in FWHM.
    min_snr : float
        Least signal-to-noise ratio of a star to measure with.

    Returns
    -------
    StarField, or None where nothing is found.
    """
    sources, segments = detect_sources(image, noise, None, threshold, min_area)
    if len(sources) == 0:
        return None
    one_noise = float(np.median(noise)) if np.ndim(noise) else float(noise)
    options = {"saturate": saturate, "gain": gain, "aperture": aperture, "min_snr": min_snr}
    field, models = _measure_sources(image, noise, bad, sources, segments, one_noise, **options)
    point = np.abs(np.log(np.maximum(field.half_light, 1e-3) / field.locus)) < 0.3
    point &= (field.flags & (FLAG_SATURATED | 2)) == 0
    hidden, theirs = hidden_sources(models, noise, gain, point, segments, field.fwhm)
    if len(hidden) == 0:
        return field
    hidden["flag"] |= 1
    sources = np.concatenate([sources, hidden])
    segments = np.where(theirs > 0, theirs + len(point), segments)
    return _measure_sources(image, noise, bad, sources, segments, one_noise, **options)[0]


def _measure_sources(
    image, noise, bad, sources, segments, one_noise, *, saturate, gain, aperture, min_snr
):  # fmt: skip
    """Measure the sources of `measure_field`: a StarField, and the models of its stars."""
    x, y = sources["x"].copy(), sources["y"].copy()
    # Half-light radii in an aperture that holds nearly all of the isophotal size.
    reach = np.clip(6.0 * sources["a"], 4.0, 0.1 * max(image.shape))
    half_light, _ = sep.flux_radius(image, x, y, reach, 0.5, subpix=5)
    rough = np.maximum(sources["flux"], 1e-30)
    snr = rough / np.sqrt(sources["npix"] * one_noise**2 + rough / gain)
    clean = sources["flag"].astype(np.int32)
    marked = bad.astype(np.float32)
    in_core, _, _ = sep.sum_circle(marked, x, y, np.clip(1.5 * half_light, 1.5, 20.0), subpix=1)
    flags = clean | np.where(sources["peak"] >= saturate, FLAG_SATURATED, 0)
    flags |= np.where(in_core > 0, FLAG_WEIGHT, 0)
    stars, locus = select_stars(half_light, snr, flags, sources["peak"], saturate, min_snr=min_snr)
    if not stars.any():  # the best there are, only so that the frame has numbers
        fallback = (flags & (FLAG_SATURATED | FLAG_WEIGHT)) == 0
        locus = float(np.median(half_light[fallback])) if fallback.any() else 2.0
    locus = locus if np.isfinite(locus) and locus > 0.5 else 1.0
    xw, yw, wflag = sep.winpos(image, x, y, np.full(x.size, 2.0 * locus / 2.3548))
    moved = (wflag == 0) & (np.hypot(xw - x, yw - y) < max(1.0, locus))
    x, y = np.where(moved, xw, x), np.where(moved, yw, y)
    sources["x"], sources["y"] = x, y
    isolation = neighbour_distance(x, y, rough)
    fwhm, beta = fit_profile(image, x[stars], y[stars], rough[stars], 2.0 * locus)
    if not np.isfinite(fwhm):
        fwhm, beta = 2.0 * locus, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = 1.0 - sources["b"] / sources["a"]
    ellipticity = float(np.median(shape[stars])) if stars.any() else np.nan
    radius = aperture * fwhm
    flux, error, aflag = aperture_fluxes(image, noise, x, y, [radius], gain)
    flags |= aflag[:, 0]
    flags |= np.where(isolation < radius + fwhm, FLAG_NEIGHBOUR, 0)
    flux, error = flux[:, 0], error[:, 0]
    grown = grow_segments(segments, int(np.ceil(fwhm)))
    index = np.flatnonzero(stars)
    around = (x[index], y[index], isolation[index], fwhm, gain, grown, index + 1)
    growth = growth_curve(image, noise, *around)
    psf = mean_shape(*(sources[key][stars] for key in ("a", "b", "theta")))
    # The light of the others is taken away, first with a curve that holds some of it.
    sums = flux
    for _ in range(2):
        models = model_stars(
            image, one_noise, x, y, sums, error, radius, float(growth.fraction(radius)),
            growth.wings(psf),
        )  # fmt: skip
        flux = models.apertures(radius)
        growth = growth_curve(
            models.residual, noise, *around, own=lambda i, m=models: m.own(index[i])
        )
    measured = StarField(
        sources, segments, stars, flags, half_light, locus, isolation, fwhm, beta, ellipticity,
        psf, radius, flux, error, growth, models.residual,
    )  # fmt: skip
    return measured, models
