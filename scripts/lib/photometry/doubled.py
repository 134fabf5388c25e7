"""Double images of stars: the telescope jumped in the exposure, or the optics double each star."""

import numpy as np

SHORTEST, LONGEST = 1.2, 12.0
"""[FWHM] Separations at which second images are looked for; closer ones make stars elongated."""

MOST_SOURCES = 150
"""Number of the brightest sources compared; second images are expected of the brighter half."""

LEAST_RATIO, GREATEST_RATIO = 0.1, 1.25
"""Flux ratio of a second image to the first."""

RATIO_SCATTER = 0.25
"""[mag] Maximum deviation of the flux ratio of a pair from the median."""

LEAST_SHARE, LEAST_PAIRS = 0.35, 6
"""Minimum fraction, and number, of bright sources with a second image."""


def second_images(
    x: np.ndarray, y: np.ndarray, flux: np.ndarray, fwhm: float, *, shortest: float = SHORTEST,
    least_ratio: float = LEAST_RATIO,
) -> float:  # fmt: skip
    """Return the separation between the first and second images of stars.

    Images are double where many sources have another at the same offset with the same flux ratio.

    Parameters
    ----------
    x, y, flux : ndarray, shape (n,)
        Positions [pixel] and fluxes of the sources of an image.
    fwhm : float
        FWHM of stars [pixel].
    shortest : float
        Smallest separation searched [FWHM].
    least_ratio : float
        Smallest flux ratio of a second image to the first.

    Returns
    -------
    float
        Separation [pixel]; 0 where images are single.
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
