"""The point-spread function: Moffat profiles, their fit, and the wings of stars."""

from dataclasses import dataclass

import numpy as np


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
        unit = self.alpha**2 * np.sqrt(1 - self.e1**2 - self.e2**2)
        r2 = ((1 - self.e1) / unit) * dx**2 + ((1 + self.e1) / unit) * dy**2
        if self.e2:
            r2 -= (2 * self.e2 / unit) * dx * dy
        r2 += 1
        r2 **= -self.beta
        r2 *= self.norm * (self.beta - 1) / (np.pi * self.alpha**2)
        return r2

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
