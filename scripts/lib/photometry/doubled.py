"""Stars that appear twice: the telescope jumped during the exposure, or its image is double."""

import numpy as np

SHORTEST, LONGEST = 1.2, 12.0
"""[FWHM] Distances at which second images are looked for; nearer ones make stars elongated."""

MOST_SOURCES = 150
"""The brightest so many sources are compared; the brighter half are to have second images."""

LEAST_RATIO, GREATEST_RATIO = 0.1, 1.25
"""Flux of a second image over that of the first."""

RATIO_SCATTER = 0.25
"""[mag] By which the ratios of pairs may differ from their median."""

LEAST_SHARE, LEAST_PAIRS = 0.35, 6
"""Part of the bright sources that have a second image where images are double, and number."""


def second_images(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, *, shortest: float = SHORTEST,
    least_ratio: float = LEAST_RATIO,
) -> float:  # fmt: skip
    """Return how far the second images of stars are from the first.

    Many sources have another one at the same offset, with the same ratio of fluxes: stars by
    themselves do not.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
        Of the sources of an image [pixel].
    fwhm : float
        [pixel].
    shortest : float
        [FWHM].
    least_ratio : float

    Returns
    -------
    float
        [pixel]; 0 where images are single.
    """
    from scipy.spatial import cKDTree

    order = np.argsort(-flux, kind="stable")[:MOST_SOURCES]
    bright = order[: (order.size + 1) // 2]
    bright = bright[flux[bright] > 0]
    if bright.size < LEAST_PAIRS:
        return 0.0
    at = np.column_stack([x, y]).astype(float)
    near = cKDTree(at).query_ball_point(at[bright], LONGEST * fwhm)
    first = np.repeat(bright, [len(found) for found in near])
    second = np.concatenate(near).astype(int)
    offset, ratio = at[second] - at[first], flux[second] / flux[first]
    pair = np.hypot(*offset.T) > shortest * fwhm
    pair &= (ratio > least_ratio) & (ratio < GREATEST_RATIO)
    first, offset, ratio = first[pair], offset[pair], ratio[pair]
    if first.size < LEAST_PAIRS:
        return 0.0
    alike = cKDTree(offset).query_ball_point(offset, max(0.3 * fwhm, 0.7))
    group = np.asarray(max(alike, key=len))
    magnitude = 2.5 * np.log10(ratio[group])
    group = group[np.abs(magnitude - np.median(magnitude)) < RATIO_SCATTER]
    number = np.unique(first[group]).size
    if number < max(LEAST_PAIRS, LEAST_SHARE * bright.size):
        return 0.0
    return float(np.median(np.hypot(*offset[group].T)))
