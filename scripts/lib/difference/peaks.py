"""Peaks of a significance image, and what their form tells of them."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

SEPARATE = 1.5
"""[FWHM] Peaks nearer to a higher one are part of it."""

OPPOSITE = 3.0
"""[sigma] Peaks of the other sign are noise below this."""

WINDOW = 1.0
"""[FWHM] FWHM of the Gaussian window of second moments."""

MODEL_ERROR = 0.05
"""Part of a source's light by which the point-spread function may be wrong in a pixel."""


@dataclass(frozen=True)
class Peaks:
    """Peaks of a difference image, the most significant first.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Positions, 0-based [pixel].
    significance : ndarray, shape (n,)
        Negative for what has faded.
    dipole : ndarray, shape (n,)
        Highest peak of the other sign within two FWHM, beyond the noise, over this one.
    """

    x: np.ndarray
    y: np.ndarray
    significance: np.ndarray
    dipole: np.ndarray


def find_peaks(significance: np.ndarray, fwhm: float, threshold: float) -> Peaks:
    """Return the peaks of both signs.

    Parameters
    ----------
    significance : ndarray of float32, shape (ny, nx)
        0 where there is no data.
    fwhm : float
        FWHM of a point source [pixel].
    threshold : float
        Minimum absolute significance.
    """
    size = np.abs(significance)
    highest = maximum_filter(size, size=3)
    rows, columns = np.nonzero((size == highest) & (size > min(threshold, OPPOSITE)))
    ny, nx = significance.shape
    inside = (rows > 0) & (columns > 0) & (rows < ny - 1) & (columns < nx - 1)
    rows, columns = rows[inside], columns[inside]
    values = significance[rows, columns].astype(float)
    order = np.argsort(-np.abs(values), kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    keep = np.zeros(values.size, bool)
    dipole = np.zeros(values.size)
    if not values.size:
        none = np.empty(0)
        return Peaks(none, none, none, none)
    tree = cKDTree(np.column_stack([columns, rows]))
    free = np.ones(values.size, bool)
    for k in np.flatnonzero(np.abs(values) >= threshold):
        if not free[k]:
            continue
        keep[k] = True
        at = columns[k], rows[k]
        other = [i for i in tree.query_ball_point(at, 2 * fwhm) if values[i] * values[k] < 0]
        beyond = max((abs(values[i]) - OPPOSITE for i in other), default=0.0)
        dipole[k] = max(0.0, beyond) / abs(values[k])
        free[tree.query_ball_point(at, SEPARATE * fwhm)] = False
        # The other half of a dipole is no second candidate.
        free[[i for i in other if abs(values[i]) < abs(values[k])]] = False
    x, y = _between_pixels(significance, columns[keep], rows[keep])
    return Peaks(x, y, values[keep], dipole[keep])


def _between_pixels(
    image: np.ndarray, column: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return where parabolas through three pixels along each axis have their extremes."""
    here = image[row, column].astype(float)
    found = []
    for at, step in ((column, (0, 1)), (row, (1, 0))):
        before, after = (image[row + s * step[0], column + s * step[1]] for s in (-1, 1))
        bend = before + after - 2 * here
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.nan_to_num((before - after) / (2 * bend))
        found.append(at + np.clip(away, -0.5, 0.5))
    return found[0], found[1]


@dataclass(frozen=True)
class Forms:
    """Shape measures of candidates.

    Parameters
    ----------
    width : ndarray, shape (n,)
        Width from windowed second moments, relative to a point source; NaN where not positive.
    ellipticity : ndarray, shape (n,)
        Ellipticity from the same moments, minus that of a point source.
    misfit : ndarray, shape (n,)
        Reduced chi square of the fit of a point source.
    masked : ndarray, shape (n,)
        Part of the pixels within a FWHM that have no value.
    """

    width: np.ndarray
    ellipticity: np.ndarray
    misfit: np.ndarray
    masked: np.ndarray


def measure_forms(
    image: np.ndarray, variance: np.ndarray, stamps: np.ndarray, x: np.ndarray, y: np.ndarray,
    flux: np.ndarray, fwhm: float,
) -> Forms:  # fmt: skip
    """Measure the form of candidates.

    Parameters
    ----------
    image, variance : ndarray of float32, shape (ny, nx)
        Difference; variance 0 where there is none.
    stamps : ndarray, shape (n, s, s)
        Image of a point source at each.
    x, y, flux : ndarray, shape (n,)
    fwhm : float

    Returns
    -------
    Forms
    """
    from scipy.ndimage import shift

    half = stamps.shape[1] // 2
    reach = min(half, int(np.ceil(2 * fwhm)))
    offset = np.arange(-reach, reach + 1.0)
    padded = np.pad(image, reach), np.pad(variance, reach)
    found = []
    for k in range(len(x)):
        column, row = round(x[k]), round(y[k])
        part, noise = (
            one[row : row + 2 * reach + 1, column : column + 2 * reach + 1] for one in padded
        )
        dx, dy = x[k] - column, y[k] - row
        inner = stamps[k][half - reach : half + reach + 1, half - reach : half + reach + 1]
        model = shift(inner, (dy, dx), order=3)
        u, v = offset - dx, (offset - dy)[:, None]
        near = np.hypot(u, v) <= fwhm
        good = near & (noise > 0)
        spread = noise + (MODEL_ERROR * flux[k] * model) ** 2
        pull = (part - flux[k] * model)[good] ** 2 / spread[good]
        misfit = float(pull.mean()) if good.sum() > 3 else np.nan
        ours = _moments(np.where(noise > 0, part / flux[k], model), u, v, fwhm)
        theirs = _moments(model, u, v, fwhm)
        size, point = ours[0] + ours[1], theirs[0] + theirs[1]
        width = np.sqrt(size / point) if size > 0 and point > 0 else np.nan
        shape = [((m[0] - m[1]) / max(m[0] + m[1], 1e-3), 2 * m[2] / max(m[0] + m[1], 1e-3))
                 for m in (ours, theirs)]  # fmt: skip
        beyond = float(np.hypot(shape[0][0] - shape[1][0], shape[0][1] - shape[1][1]))
        found.append((width, min(beyond, 2.0), misfit, 1 - good.sum() / near.sum()))
    columns = np.array(found, float).reshape(-1, 4).T
    return Forms(*columns)


def _moments(
    light: np.ndarray, u: np.ndarray, v: np.ndarray, fwhm: float
) -> tuple[float, float, float]:
    """Return xx, yy and xy of light in a Gaussian window."""
    sigma = WINDOW * fwhm / 2.355
    weight = light * np.exp(-(u**2 + v**2) / (2 * sigma**2))
    total = weight.sum()
    if not total > 0:
        return np.nan, np.nan, np.nan
    return (
        float((weight * u**2).sum() / total),
        float((weight * v**2).sum() / total),
        float((weight * u * v).sum() / total),
    )
