"""The point-spread function: Moffat profiles, their fit, and the wings of stars."""

from dataclasses import dataclass

import numpy as np


def squares_about(column, row, half, shape):
    """Return the indices of squares about pixels, those beyond the edge of the image repeated.

    Parameters
    ----------
    column, row : ndarray of int, shape (n,)
    half : int
        The squares have 2 half + 1 pixels to a side.
    shape : tuple of int
        Of the image.
    """
    offset = np.arange(-half, half + 1)
    rows = np.clip(row[:, None] + offset, 0, shape[0] - 1)[:, :, None]
    columns = np.clip(column[:, None] + offset, 0, shape[1] - 1)[:, None, :]
    return rows, columns


def moffat_fraction(radius, alpha, beta):
    """Return the part of a Moffat star's light within `radius`: 1 - (1 + r^2/alpha^2)^(1-beta)."""
    return 1.0 - (1.0 + (np.asarray(radius, float) / alpha) ** 2) ** (1.0 - beta)


def moffat_fwhm(alpha, beta):
    """Return the full width at half maximum of a Moffat profile."""
    return 2.0 * alpha * np.sqrt(2.0 ** (1.0 / beta) - 1.0)


def moffat_alpha(fwhm, beta):
    """Return the scale radius of a Moffat profile of given full width at half maximum."""
    return fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))


def moffat_slopes(radius, alpha, beta):
    """Return the derivatives of `moffat_fraction` by ln(alpha) and ln(beta)."""
    square = (np.asarray(radius, float) / alpha) ** 2
    log = np.log1p(square)
    wings = np.exp((1.0 - beta) * log)
    return 2.0 * (1.0 - beta) * square * wings / (1.0 + square), beta * log * wings


def fit_bounded(model, start, low, high, *, tolerance=1e-12, iterations=100):
    """Minimise a sum of squares of a few parameters within bounds.

    Levenberg and Marquardt's method; a parameter at a bound that would leave it rests. For the
    handful of points of a profile it takes a tenth of the time of a general library.

    Parameters
    ----------
    model : callable
        Gives the residuals, shape (m,), and their derivatives, shape (m, k), of parameters.
    start, low, high : array_like, shape (k,)
    tolerance : float
        Relative change of the sum of squares at which it ends.
    iterations : int

    Returns
    -------
    parameters : ndarray, shape (k,)
    residual : ndarray, shape (m,)
    slopes : ndarray, shape (m, k)

    Raises
    ------
    RuntimeError
        The iterations were not enough.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    point = np.clip(np.asarray(start, float), low, high)
    residual, slopes = model(point)
    damping = 1e-3
    for _ in range(iterations):
        gradient = slopes.T @ residual
        free = ~(((point <= low) & (gradient > 0)) | ((point >= high) & (gradient < 0)))
        if not free.any():
            return point, residual, slopes
        normal = slopes[:, free].T @ slopes[:, free]
        scale = np.maximum(np.diag(normal), 1e-30)
        cost = residual @ residual
        while True:
            step = np.zeros(point.size)
            step[free] = np.linalg.solve(normal + damping * np.diag(scale), -gradient[free])
            trial = np.clip(point + step, low, high)
            residual_there, slopes_there = model(trial)
            there = residual_there @ residual_there
            if there <= cost:
                break
            damping *= 10.0
            if damping > 1e12:  # no way down: this is the minimum
                return point, residual, slopes
        point, residual, slopes = trial, residual_there, slopes_there
        damping = max(damping / 10.0, 1e-12)
        if cost - there <= tolerance * cost:
            return point, residual, slopes
    raise RuntimeError(f"no minimum within {iterations} iterations")


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
    cutouts = image[squares_about(column, row, half, image.shape)]
    radius = np.hypot(
        (row - y[chosen])[:, None, None] + offsets[None, :, None],
        (column - x[chosen])[:, None, None] + offsets[None, None, :],
    )
    rings = int(2.5 * guess / 0.25) + 1
    near = radius < 0.25 * rings
    value = (cutouts / flux[chosen][:, None, None])[near]
    radius = radius[near]
    # Sorted within each ring; small integers are sorted fast.
    ring = (radius / 0.25).astype(np.uint8 if rings < 256 else np.int64)
    order = np.argsort(value)
    value = value[order[np.argsort(ring[order], kind="stable")]]
    radius.sort()
    count = np.bincount(ring, minlength=rings)
    begin = np.cumsum(count) - count
    several = count >= 3
    if several.sum() < 6:
        return np.nan, np.nan
    middle = [(begin + (count - odd) // 2)[several] for odd in (1, 0)]
    r, v = (0.5 * (sorted_[middle[0]] + sorted_[middle[1]]) for sorted_ in (radius, value))
    weight = np.sqrt(count[several])

    def misfit(p):
        top, alpha, beta = p
        square = (r / alpha) ** 2
        shape = (1 + square) ** -beta
        slopes = np.stack(
            [shape, 2 * beta * top * shape * square / (1 + square) / alpha,
             -top * shape * np.log1p(square)], axis=1,
        )  # fmt: skip
        return weight * (top * shape - v), weight[:, None] * slopes

    try:
        (_, alpha, beta), _, _ = fit_bounded(
            misfit, (v.max(), moffat_alpha(guess, 3.0), 3.0),
            (0, 0.2, 1.1), (np.inf, 20 * guess, 50.0),
        )  # fmt: skip
    except (RuntimeError, np.linalg.LinAlgError):
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
        unit = self.alpha**2 * np.sqrt(1 - self.e1**2 - self.e2**2)
        r2 = ((1 - self.e1) / unit) * dx**2 + ((1 + self.e1) / unit) * dy**2
        if self.e2:
            r2 -= (2 * self.e2 / unit) * dx * dy
        r2 += 1
        r2 **= -self.beta
        r2 *= self.norm * (self.beta - 1) / (np.pi * self.alpha**2)
        return r2

    def aperture_share(self, radius):
        """Return the part of a star's light in circular apertures at some distances from it.

        On rings of equal area and 24 angles; without the ellipticity.

        Returns
        -------
        distance, part : ndarray, shape (81,)
            Up to four radii; to be interpolated.
        """
        rho = radius * np.sqrt((np.arange(60) + 0.5) / 60)[:, None]
        phi = 2 * np.pi * (np.arange(24) + 0.5) / 24
        at = np.linspace(0, 4 * radius, 81)
        density = Wings(self.alpha, self.beta, self.norm).density
        mean = density(at[:, None, None] + rho * np.cos(phi), rho * np.sin(phi)).mean(axis=(1, 2))
        return at, np.pi * radius**2 * mean

    def reach(self, density):
        """Return the radius beyond which the surface brightness is below `density` [pixel]."""
        top = np.maximum(self.norm * (self.beta - 1) / (np.pi * self.alpha**2 * density), 1.0)
        return self.alpha * np.sqrt(top ** (1 / self.beta) - 1)


def mean_shape(a, b, theta):
    """Return the mean ellipticity of stars: its components along x and along the diagonal.

    (a^2 - b^2) / (a^2 + b^2) times the cosine and sine of twice the angle: unlike that of 1 - b/a
    its mean is not lifted by noise.
    """
    if len(a) == 0:
        return 0.0, 0.0
    size = np.minimum((a**2 - b**2) / (a**2 + b**2), 0.9)
    return float(np.median(size * np.cos(2 * theta))), float(np.median(size * np.sin(2 * theta)))
