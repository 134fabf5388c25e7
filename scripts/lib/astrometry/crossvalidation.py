"""Cross-validation: the degree of distortion that best predicts stars left out of the fit."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.pixelmaps import PixelMap
from lib.astrometry.residuals import residuals, weighted_rms
from lib.astrometry.starlists import Reference

Fit = Callable[[Sequence[AstrometryFrame], Reference, int], Sequence[PixelMap]]
"""Takes frames, a reference and a degree; returns the map of each frame."""


def degrees_allowed(number: int, choice: int | str) -> list[int]:
    """Return the degrees of distortion that a number of reference stars can carry.

    Parameters
    ----------
    number : int
        Different reference stars identified in the stack.
    choice : int or 'auto'

    Returns
    -------
    list of int
        A degree has (d + 1)(d + 2) / 2 coefficients per axis: three times as many stars at least.
    """
    top = 7 if choice == "auto" else int(choice)
    return [1] + [d for d in (3, 5, 7) if d <= top and number >= 1.5 * (d + 1) * (d + 2)]


def cross_validate(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    degree: int,
    fit: Fit,
    folds: int = 4,
) -> float:
    """Return the residual of reference stars that were left out of the fit.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
    reference : Reference
    degree : int
    fit : callable
        See `Fit`.
    folds : int

    Returns
    -------
    float
        Weighted rms per axis [arcsec].
    """
    used = np.unique(residuals(frames, reference).reference)
    left_out = []
    for fold in range(folds):
        out = np.zeros(len(reference), bool)
        out[used[fold::folds]] = True
        maps = fit(frames, reference[~out], degree)
        left_out.append(residuals(frames, reference, maps, keep=out))
    dx, dy, error = (
        np.concatenate([getattr(r, a) for r in left_out]) for a in ("dx", "dy", "error")
    )
    return float(np.hypot(weighted_rms(dx, error), weighted_rms(dy, error)) / np.sqrt(2))


def validate_degrees(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    number: int,
    degrees: Iterable[int],
    fit: Fit,
) -> dict[int, float]:
    """Cross-validate each degree, as long as a higher one gains 2 %.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
    reference : Reference
    number : int
        Different reference stars identified.
    degrees : iterable of int
        Ascending.
    fit : callable
        See `Fit`.

    Returns
    -------
    dict
        Degree to residual [mas].
    """
    validated: dict[int, float] = {}
    for degree in degrees:
        folds = 4 if number < 400 else 2
        value = 1000 * cross_validate(frames, reference, degree, fit, folds)
        gains = not validated or value < 0.98 * min(validated.values())
        validated[degree] = value
        if not gains:
            break
    return validated


def best_solution(validated: Mapping[str, Mapping[int, float]]) -> tuple[str, int]:
    """Choose the method and the degree that predict stars best.

    Parameters
    ----------
    validated : dict
        Method to degree to residual.

    Returns
    -------
    method : {'own', 'scamp'}
    degree : int
    """
    # Every frame's residual counts; SCAMP's solution is taken where it is as good.
    ranked = [
        (value * (1.0 if method == "scamp" else 1.02), degree, method)
        for method, values in validated.items()
        for degree, value in values.items()
        if np.isfinite(value)
    ]
    if not ranked:
        return ("scamp" if "scamp" in validated else "own"), 1
    least, _, method = min(ranked)
    return method, min(d for v, d, m in ranked if m == method and v <= 1.02 * least)
