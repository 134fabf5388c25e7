"""Which distortion the stars can carry: the one that predicts stars best it did not know."""

import numpy as np

from lib.astrometry.residuals import residuals, weighted_rms


def degrees_allowed(number, choice):
    """Degrees of distortion that a number of reference stars can carry.

    Parameters
    ----------
    number : int
        Different reference stars identified in the group.
    choice : int or 'auto'

    Returns
    -------
    list of int
        A degree has (d + 1)(d + 2) / 2 coefficients per axis: three times as many stars at least.
    """
    top = 7 if choice == "auto" else int(choice)
    return [1] + [d for d in (3, 5, 7) if d <= top and number >= 1.5 * (d + 1) * (d + 2)]


def cross_validate(exposures, reference, degree, fit, folds=4):
    """Residual of reference stars that the solution did not know.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    degree : int
    fit : callable
        Takes exposures, reference and degree, returns maps.
    folds : int

    Returns
    -------
    float
        Weighted rms per axis [arcsec].
    """
    used = np.unique(residuals(exposures, reference)["ref"])
    left_out = []
    for fold in range(folds):
        out = np.zeros(len(reference), bool)
        out[used[fold::folds]] = True
        maps = fit(exposures, reference[~out], degree)
        left_out.append(residuals(exposures, reference, sky=maps, keep=out))
    dx, dy, error = (np.concatenate([r[a] for r in left_out]) for a in ("dx", "dy", "error"))
    return float(np.hypot(weighted_rms(dx, error), weighted_rms(dy, error)) / np.sqrt(2))


def validate_degrees(exposures, reference, number, degrees, fit):
    """Cross-validated residual of each degree, as long as a higher one gains 2 %.

    Returns
    -------
    dict
        Degree to residual [mas].
    """
    validated = {}
    for degree in degrees:
        folds = 4 if number < 400 else 2
        value = 1000 * cross_validate(exposures, reference, degree, fit, folds)
        gains = not validated or value < 0.98 * min(validated.values())
        validated[degree] = value
        if not gains:
            break
    return validated


def best_solution(validated):
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
