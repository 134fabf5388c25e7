"""How likely a candidate is a point source that has changed: by features, each explained."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Feature:
    """A number between 0 and 1 that lowers the score of a candidate.

    Parameters
    ----------
    name : str
        Name of the feature, in column Q_<name>.
    weight : float
        Part of the score that it takes where it is 0.
    means : str
        Meaning of the feature.
    """

    name: str
    weight: float
    means: str


FEATURES = (
    Feature("SHAPE", 0.9, "chi square of the fit of a point source: 1 up to 2, 0 from 6 on"),
    Feature("WIDTH", 0.9, "WIDTH near 1, against its error: 1 within 2 sigma, 0 from 5 on"),
    Feature("ROUND", 0.6, "ELLIPTICITY near 0, against its error: 1 within 2 sigma, 0 from 5 on"),
    Feature("DIPOLE", 0.95, "no peak of the other sign: 1 up to DIPOLE 0.25, 0 from 0.6 on"),
    Feature("MASK", 0.9, "good pixels: 1 where all are, 0 where MASKED is 0.5"),
    Feature("FRAMES", 0.8, "light in all frames: 1 unless one of them has nearly all of it"),
)
"""The score is the product of 1 - weight (1 - feature) over all of these."""

WIDTH_ERRORS = (0.12, 1.2)
ROUND_ERRORS = (0.15, 3.0)
"""Error of WIDTH and of ELLIPTICITY: a constant, and this over the significance."""


def falling(values: np.ndarray, first: float, last: float) -> np.ndarray:
    """Return 1 up to `first`, 0 from `last` on, linear between; 1 for NaN."""
    return np.nan_to_num(np.clip((last - np.asarray(values, float)) / (last - first), 0, 1), nan=1)


def qualities(
    significance: np.ndarray, misfit: np.ndarray, width: np.ndarray, ellipticity: np.ndarray,
    dipole: np.ndarray, masked: np.ndarray, alone: np.ndarray,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return the features of candidates.

    Parameters
    ----------
    significance, misfit, width, ellipticity, dipole, masked : ndarray, shape (n,)
        From `lib.difference.peaks`; a width of NaN counts as none.
    alone : ndarray, shape (n,)
        Part of the light that the brightest frame has beyond its share; NaN where not known.

    Returns
    -------
    dict of str to ndarray
        Features by the names of `FEATURES`.
    """
    snr = np.maximum(np.abs(significance), 1)
    width_error = np.hypot(WIDTH_ERRORS[0], WIDTH_ERRORS[1] / snr)
    round_error = np.hypot(ROUND_ERRORS[0], ROUND_ERRORS[1] / snr)
    away = np.where(np.isfinite(width), np.abs(width - 1) / width_error, np.inf)
    return {
        "SHAPE": falling(misfit, 2, 6), "WIDTH": falling(away, 2, 5),
        "ROUND": falling(ellipticity / round_error, 2, 5), "DIPOLE": falling(dipole, 0.25, 0.6),
        "MASK": falling(masked, 0, 0.5), "FRAMES": falling(alone, 0.5, 0.9),
    }  # fmt: skip


def score(features: dict[str, np.ndarray]) -> np.ndarray:
    """Return the product of 1 - weight (1 - feature), shape (n,)."""
    parts = [1 - one.weight * (1 - features[one.name]) for one in FEATURES]
    return np.prod(parts, axis=0)


def explained() -> dict[str, dict[str, object]]:
    """Return the explanation of the score for the metadata of a table."""
    return {one.name: {"weight": one.weight, "means": one.means} for one in FEATURES}
