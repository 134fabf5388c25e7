"""Measuring the point-spread function on the stars of an image, crowded or not."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from lib.core.stats import mad_std
from lib.photometry.psf import Wings, moffat_alpha
from lib.photometry.psffit import PsfFluxes, psf_photometry
from lib.photometry.psfmodel import (
    PROFILE_ERROR,
    PsfModel,
    Stamps,
    analytic_table,
    field_terms,
    table_grid,
)

LEAST_STARS = 3
"""Minimum number of stars for a model."""

MOST_STARS = 120
"""The brightest so many of all parts of the field are used."""

STARS_OF_DEGREE = (LEAST_STARS, 15, 50)
"""Minimum numbers of stars for a model that is constant, linear, or quadratic over the field."""

FIT_RADIUS = 3.0
"""The table is measured out to here [FWHM]; beyond the stars' wings go on."""

CELLS = 4
"""The field has so many cells along an axis, of each of which the brightest stars are taken."""

LOOSE, LOOSEST = 0.1, 0.5
"""By how much of its value a node may differ from a Moffat profile, for stars that it fits to the
noise, and for any. Well-measured stars outweigh it by far."""

LEAST_LOOSE, VARYING = 0.01, 0.5
"""The least of that as a part of the peak's, and the part of it by which it may vary over the
field."""

MODEL_ERRORS = (0.3, 0.1, 0.05, 0.05)
"""Relative error of a pixel of the model in each round: what deviates by more is no star's."""

ANALYTIC_ROUNDS = 2
"""Number of first iterations in which the model is a Moffat profile."""

BETAS, MOST_ELLIPTICITY = (1.3, 15.0), 0.8
"""Bounds of its exponent, and of its ellipticity."""

JOINT = (1.5, 2.5)
"""[FWHM] Between these it goes over into the wings of the growth curve."""

CORE_ERROR = 0.01
"""Relative error of a pixel of the model in the weights."""

LEAST_ERROR = 0.001
"""Least error of a pixel of a model: so closely splines follow a profile."""

CLIP = 4.0
"""Pixels further off weigh as if they were at that [sigma]."""

WORST_STAR = 3.0
"""Stars whose residuals are so many times those of most are left out: pairs, galaxies."""

FEWEST_PIXELS = 3.0
"""[pixel] FWHM below which stars leave parts of the model between their pixels."""

PHASES, EVEN = 6, 0.001
"""Places of a star within a pixel, along an axis, at which the pixels of the model must have the
same sum, and how closely."""

ITERATIONS = 25
"""Maximum number of iterations of the linear solver."""


@dataclass(frozen=True)
class PsfImage:
    """An image to measure the point-spread function on.

    Parameters
    ----------
    data, variance : ndarray of float32, shape (ny, nx)
        As for `lib.photometry.psffit.psf_photometry`.
    gain : float
        Electrons per unit; 0 where photons are in the variance.
    sky_box : int
        Mesh of the sky between stars [pixel]; 0 where it is known.
    """

    data: np.ndarray
    variance: np.ndarray
    gain: float
    sky_box: int = 0

    def fit(
        self, psf: PsfModel, x: np.ndarray, y: np.ndarray, *, free: bool = True, rounds: int = 4
    ) -> PsfFluxes:
        """Return the fluxes of stars."""
        return psf_photometry(
            self.data, self.variance, psf, x, y, gain=self.gain, free=free,
            sky_box=self.sky_box, rounds=rounds,
        )  # fmt: skip


@dataclass(frozen=True)
class PsfStars:
    """Sources of an image, and those of them that tell the point-spread function.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        All sources [pixel].
    rows : ndarray of int
        Stars to measure with, the best first.
    """

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray


def build_psf(
    image: PsfImage, stars: PsfStars, fwhm: float, wings: Wings, light: float, *,
    rounds: int | None = None, most: int = MOST_STARS,
) -> PsfModel | None:  # fmt: skip
    """Measure the point-spread function of an image.

    Sources are fitted with the model as it is, and taken away; what is left about the stars tells
    how the model must change, and so on: first an elliptical Moffat profile, then what its table
    has beyond that.

    Parameters
    ----------
    image : PsfImage
    stars : PsfStars
    fwhm : float
        [pixel].
    wings : Wings
        Profile of a star of total flux 1 outside of the core.
    light : float
        Part of a star's light within `FIT_RADIUS`.
    rounds : int, optional
        Rounds, all of them if not given; the first two leave a Moffat profile that changes
        linearly over the field.
    most : int
        Maximum number of stars to measure with.

    Returns
    -------
    PsfModel or None
        None with fewer than `LEAST_STARS` stars.
    """
    rows = _over_the_field(stars, image.data.shape, most)
    if rows.size < LEAST_STARS:
        return None
    step, half = table_grid(fwhm)
    ny, nx = image.data.shape
    near = _near(stars, rows, 2 * FIT_RADIUS * fwhm)
    x, y = stars.x[near], stars.y[near]
    own = np.searchsorted(near, rows)
    beta = float(np.clip(wings.beta, *BETAS))
    profile = Wings(moffat_alpha(fwhm, beta), beta, 1.0, wings.e1, wings.e2)
    outside = analytic_table(wings, step, half)
    base = _joined(profile, outside, fwhm, step)
    psf = PsfModel(base[None], step, ((nx - 1) / 2, (ny - 1) / 2), max(nx, ny) / 2, 0, fwhm)
    psf = _normalised(psf, light)
    for number, error in enumerate(MODEL_ERRORS[:rounds]):
        fitted = image.fit(psf, x, y, rounds=2)
        x, y = fitted.x, fitted.y
        sound = np.isfinite(fitted.flux[own]) & (fitted.flux[own] > 0) & (fitted.seen[own] > 0.9)
        own = own[sound]
        if number >= ANALYTIC_ROUNDS:
            own = own[_alike(fitted.chi2[own])]
        if own.size < LEAST_STARS:
            return None
        seen = StarPixels.of(image, psf, fitted, own, error)
        degree = sum(own.size >= least for least in STARS_OF_DEGREE) - 1
        if number < ANALYTIC_ROUNDS:
            degree = degree if number == ANALYTIC_ROUNDS - 1 else 0
            powers = field_terms(seen.x, seen.y, psf.centre, psf.span, degree)
            profile, slopes = _moffat_step(profile, seen, powers)
            base = _joined(profile, outside, fwhm, step)
            tables = np.concatenate([base[None], _varying(profile, slopes, step, half)])
            psf = replace(psf, coefficients=tables, degree=degree)
        else:
            misfit = float(np.sqrt(max(1.0, np.median(fitted.chi2[own]))))
            # What is alike in the field first.
            degree = degree if number == len(MODEL_ERRORS) - 1 else 0
            psf = _improved(psf, seen, degree, base, min(LOOSE * misfit, LOOSEST))
        psf = _normalised(psf, light)
    return replace(psf, n_stars=int(own.size), profile_error=_profile_error(seen, fwhm))


def _profile_error(seen: "StarPixels", fwhm: float) -> float:
    """Return the relative error of a pixel of the core of a model, from what it leaves of stars.

    The mean square of that beyond noise is (error * light)^2; the median of the brighter half of
    the stars, and its error, is not that of the few which are blended.
    """
    core = np.where((seen.dx**2 + seen.dy**2 < fwhm**2) & (seen.weight > 0), seen.light, 0)
    number = seen.flux.size
    total = np.bincount(seen.star, core**4, number)
    square = np.bincount(seen.star, core**2 * (seen.left**2 - seen.noise), number)
    bright = np.argsort(-seen.flux)[: max(LEAST_STARS, number // 2)]
    bright = bright[total[bright] > 0]
    if bright.size < LEAST_STARS:
        return PROFILE_ERROR
    squares = square[bright] / total[bright]
    told = float(np.median(squares)) + mad_std(squares) / np.sqrt(bright.size)
    return float(np.clip(np.sqrt(max(told, 0.0)), LEAST_ERROR, PROFILE_ERROR))


def _joined(profile: Wings, other: np.ndarray, fwhm: float, step: float) -> np.ndarray:
    """Return the table of a profile that goes over into that of the wings between `JOINT`."""
    half = other.shape[0] // 2
    one = analytic_table(profile, step, half)
    node = step * np.arange(-half, half + 1)
    away = np.hypot(node[:, None], node[None, :]) / fwhm
    part = np.clip((away - JOINT[0]) / (JOINT[1] - JOINT[0]), 0, 1)
    edge = (away > JOINT[0]) & (away < JOINT[1])
    # As bright as the profile where they meet.
    level = float(one[edge].sum() / other[edge].sum()) if edge.any() else 1.0
    return (1 - part) * one + part * np.clip(level, 0.3, 3.0) * other


@dataclass(frozen=True)
class StarPixels:
    """The pixels about stars, and what a model leaves there.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
        The stars [pixel].
    star : ndarray of int, shape (m,)
        The star of each pixel.
    dx, dy : ndarray, shape (m,)
        Offset from the star [pixel].
    light : ndarray, shape (m,)
        Light of the star according to the model.
    left : ndarray, shape (m,)
        Residual after subtraction of the stars.
    noise : ndarray, shape (m,)
        Variance of a pixel by sky and photons.
    weight : ndarray, shape (m,)
        Over the noise; 0 where a pixel does not count.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    star: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    light: np.ndarray
    left: np.ndarray
    noise: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls, image: PsfImage, psf: PsfModel, fitted: PsfFluxes, own: np.ndarray, error: float
    ) -> "StarPixels":
        """Return the pixels about some stars of a fit, for a relative error of the model."""
        x, y, flux = fitted.x[own], fitted.y[own], fitted.flux[own]
        radius = np.full(own.size, min(FIT_RADIUS * psf.fwhm, psf.reach))
        stamps = psf.stamps(x, y, radius)
        star, dx, dy, (value, pixel) = _samples(stamps, x, y, radius[0], image.data.shape)
        # A model that has more light where stars lie between pixels than where they lie on one
        # would give them less flux and so stay as it is: the sum of pixels tells the flux.
        mean = psf.terms(x, y) @ psf.sum_within(float(radius[0]))
        held = np.add.reduceat(stamps.light.astype(float), stamps.start[:-1]) / mean
        fitted_light = flux[star] * stamps.light[value]
        flux = flux * held
        light = flux[star] * stamps.light[value]
        sky = image.variance.ravel()[pixel]
        counts = np.isfinite(sky) & (sky > 0)
        photons = np.maximum(light, 0) / image.gain if image.gain else 0.0
        noise = np.where(counts, sky, 1.0) + photons
        sigma = np.sqrt(noise + (CORE_ERROR * light) ** 2)
        left = fitted.residual_at(pixel).astype(float) + fitted_light - light
        strange = np.abs(left) / np.hypot(sigma, error * light)
        weight = np.where(counts, np.minimum(1.0, CLIP / np.maximum(strange, 1e-9)), 0) / sigma
        return cls(x, y, flux, star, dx, dy, light, left, noise, weight)


def _moffat_step(profile: Wings, seen: StarPixels, powers: np.ndarray) -> tuple[Wings, np.ndarray]:
    """Return a Moffat profile improved from its residuals at stars, whose fluxes are free.

    And how ln(alpha), e1 and e2 change with powers of the position, those of the stars being
    `powers`, shape (n, k): shape (k - 1, 3).
    """
    start = np.array([np.log(profile.alpha), np.log(profile.beta), profile.e1, profile.e2])
    inside = (np.arange(3) - 1) / 3
    points = [(one, other) for one in inside for other in inside]

    def light(p: np.ndarray) -> np.ndarray:
        shape = Wings(np.exp(p[0]), np.exp(p[1]), 1.0, p[2], p[3])
        mean = sum(shape.density(seen.dx + one, seen.dy + other) for one, other in points)
        return np.asarray(mean) / len(points) * seen.flux[seen.star] * seen.weight

    small = 0.01
    columns = [
        (light(start + small * unit) - light(start - small * unit)) / (2 * small)
        for unit in np.eye(4)
    ]
    own, left = light(start), seen.left * seen.weight
    number = seen.flux.size
    total = np.maximum(np.bincount(seen.star, own**2, number), 1e-300)
    # Without what a change of the flux does as well.
    free = [
        column - own * (np.bincount(seen.star, own * column, number) / total)[seen.star]
        for column in [*columns, left]
    ]
    change = [power[seen.star] * free[j] for power in powers.T[1:] for j in (0, 2, 3)]
    slopes = np.stack([*free[:4], *change], axis=1)
    ridge = np.diag(1 / np.append([0.3, 0.5, 0.3, 0.3], np.full(len(change), 0.2)) ** 2)
    step = np.linalg.solve(slopes.T @ slopes + ridge, slopes.T @ free[4])
    p = start + np.clip(step[:4], -0.4, 0.4)
    beta = float(np.clip(np.exp(p[1]), *BETAS))
    size = max(1.0, float(np.hypot(p[2], p[3])) / MOST_ELLIPTICITY)
    changed = Wings(float(np.exp(p[0])), beta, 1.0, float(p[2]) / size, float(p[3]) / size)
    return changed, np.clip(step[4:], -0.4, 0.4).reshape(-1, 3)


def _varying(profile: Wings, slopes: np.ndarray, step: float, half: int) -> np.ndarray:
    """Return the tables by which a Moffat profile varies, from the result of `_moffat_step`."""
    if not len(slopes):
        return np.empty((0, 2 * half + 1, 2 * half + 1))
    small = 0.02
    ways = []
    for scale, one, other in ((small, 0.0, 0.0), (0.0, small, 0.0), (0.0, 0.0, small)):
        ends = [
            Wings(profile.alpha * np.exp(s * scale), profile.beta, 1.0,
                  profile.e1 + s * one, profile.e2 + s * other)
            for s in (1, -1)
        ]  # fmt: skip
        first, second = (analytic_table(end, step, half) for end in ends)
        ways.append((first - second) / (2 * small))
    return np.einsum("kj,jyx->kyx", slopes, np.array(ways))


def _over_the_field(stars: PsfStars, shape: tuple[int, ...], most: int) -> np.ndarray:
    """Return the stars to measure with, ascending: the first of each cell of the field."""
    row, column = (
        np.clip((place * CELLS / size).astype(int), 0, CELLS - 1)
        for place, size in zip((stars.y[stars.rows], stars.x[stars.rows]), shape, strict=True)
    )
    cell = row * CELLS + column
    order = np.argsort(cell, kind="stable")
    rank = np.empty(cell.size, int)
    first = np.searchsorted(cell[order], np.arange(CELLS**2))
    rank[order] = np.arange(cell.size) - first[cell[order]]
    chosen = np.argsort(rank, kind="stable")[:most]
    return np.sort(stars.rows[chosen])


def _near(stars: PsfStars, rows: np.ndarray, radius: float) -> np.ndarray:
    """Return the sources that are near some of them, ascending."""
    from scipy.spatial import cKDTree

    at = np.column_stack([stars.x, stars.y])
    distance, _ = cKDTree(at[rows]).query(at, distance_upper_bound=radius)
    return np.flatnonzero(np.isfinite(distance))


def _alike(chi2: np.ndarray) -> np.ndarray:
    """Return which stars are as well fitted as most."""
    limit = WORST_STAR * max(float(np.median(chi2)), 1.0)
    return chi2 <= limit


def _normalised(psf: PsfModel, light: float) -> PsfModel:
    """Return a model that has `light` within `FIT_RADIUS`, and as much in all everywhere."""
    sums = psf.sum_within(psf.reach)
    tables = psf.coefficients * 1.0
    for k in range(1, len(tables)):
        tables[k] -= sums[k] / sums[0] * tables[0]
    one = replace(psf, coefficients=tables[:1], degree=0)
    tables *= light / one.sum_within(FIT_RADIUS * psf.fwhm)[0]
    return replace(psf, coefficients=tables)


def _improved(
    psf: PsfModel, seen: StarPixels, degree: int, base: np.ndarray, loose: float
) -> PsfModel:
    """Return the model improved from the residuals of the image around its stars.

    Nodes stay near the profile `base`, as closely as `loose` says, where the stars do not tell.
    """
    from scipy.sparse.linalg import LinearOperator, lsmr

    splines = _spline_matrix(seen.dx, seen.dy, psf.step, psf.coefficients.shape[1])
    transposed = splines.T.tocsr()
    powers = field_terms(seen.x, seen.y, psf.centre, psf.span, degree)[seen.star]
    powers *= (seen.flux[seen.star] * seen.weight)[:, None]
    n_terms, nodes = powers.shape[1], splines.shape[1]
    degree = max(degree, psf.degree)
    tables = np.zeros(((degree + 1) * (degree + 2) // 2, *base.shape))
    tables[: len(psf.coefficients)] = psf.coefficients
    sums = _phase_sums(psf, tables.shape[1])
    uneven = tables[:n_terms].reshape(n_terms, -1) @ sums.T
    if uneven.size:
        uneven = (uneven.mean(axis=1, keepdims=True) - uneven) / EVEN
    right = np.append(seen.left * seen.weight, uneven)
    free = loose * (np.abs(base).ravel() + LEAST_LOOSE * float(base.max()))
    scale = np.outer(np.where(np.arange(n_terms) > 0, VARYING, 1.0), free)

    def forward(change: np.ndarray) -> np.ndarray:
        table = (scale * change.reshape(n_terms, nodes)).T
        light = np.einsum("sk,sk->s", splines @ table, powers)
        return np.append(light, (sums @ table).T / EVEN)

    def backward(residual: np.ndarray) -> np.ndarray:
        light, even = residual[: seen.left.size], residual[seen.left.size :]
        table = transposed @ (powers * light[:, None])
        table += sums.T @ even.reshape(n_terms, -1).T / EVEN
        return (scale * table.T).ravel()

    operator = LinearOperator(
        (right.size, n_terms * nodes), matvec=forward, rmatvec=backward, dtype=float
    )
    change = lsmr(operator, right, damp=1.0, maxiter=ITERATIONS, atol=1e-4, btol=1e-4)[0]
    tables[:n_terms] += (scale * change.reshape(n_terms, nodes)).reshape(n_terms, *base.shape)
    return replace(psf, coefficients=tables, degree=degree)


def _phase_sums(psf: PsfModel, size: int) -> csr_array:
    """Return the sums of the pixels of a table of stars at places within a pixel, of its nodes.

    Shape (places, size^2), without places for stars that are wide enough.
    """
    if psf.fwhm >= FEWEST_PIXELS:
        return csr_array((0, size**2))
    shift = (np.arange(PHASES) + 0.5) / PHASES - 0.5
    half = int(FIT_RADIUS * psf.fwhm)
    offset = (np.arange(-half, half + 1) - shift[:, None]).ravel()
    dx, dy = np.meshgrid(offset, offset)
    one = _spline_matrix(dx.ravel(), dy.ravel(), psf.step, size)
    place = np.repeat(np.arange(PHASES), 2 * half + 1)
    place = (place[:, None] * PHASES + place).ravel()
    pixel = np.arange(place.size)
    return csr_array((np.ones(place.size), (place, pixel)), shape=(PHASES**2, place.size)) @ one


def _samples(
    stamps: Stamps, x: np.ndarray, y: np.ndarray, radius: float, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return the star of each pixel about stars, its offset from it [pixel], and its places.

    Those in the values of the stamps, and in the image.
    """
    side = 2 * stamps.half + 1
    star = np.repeat(np.arange(x.size), side**2)
    at = np.arange(stamps.start[-1]) - stamps.start[star]
    row = at // side[star] - stamps.half[star] + stamps.row[star]
    column = at % side[star] - stamps.half[star] + stamps.column[star]
    dx, dy = column - x[star], row - y[star]
    inside = (row >= 0) & (column >= 0) & (row < shape[0]) & (column < shape[1])
    inside &= dx**2 + dy**2 <= radius**2
    where = np.flatnonzero(inside)
    image = row[where] * shape[1] + column[where]
    return star[where], dx[where], dy[where], (where, image)


def _spline_matrix(dx: np.ndarray, dy: np.ndarray, step: float, size: int) -> csr_array:
    """Return the values of the B-splines of all nodes at offsets from a star, (n, size^2)."""
    parts = []
    for offset in (dy, dx):
        place = offset / step + size // 2
        first = np.floor(place).astype(int)
        t = place - first
        q = 1 - t
        weight = np.stack([q**3, 4 - 6 * t**2 + 3 * t**3, 4 - 6 * q**2 + 3 * q**3, t**3], axis=1)
        parts.append((first[:, None] + np.arange(-1, 3), weight / 6))
    (rows, by_row), (columns, by_column) = parts
    index = rows[:, :, None] * size + columns[:, None, :]
    value = by_row[:, :, None] * by_column[:, None, :]
    pointer = 16 * np.arange(dx.size + 1)
    return csr_array((value.ravel(), index.ravel(), pointer), shape=(dx.size, size * size))
