"""What is left between the stars of frames and a reference: numbers and picture."""

import numpy as np

from lib.astrometry.starlists import pair_up
from lib.core.figures import new_figure, save_figure
from lib.core.stats import mad_std


def residuals(exposures, reference, sky=None, keep=None, tolerance=None):
    """Positions against the reference, of all frames.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    sky : list of callable, optional
        Maps of the frames instead of their own.
    keep : ndarray of bool, optional
        Reference stars that count.
    tolerance : float, optional
        Distance within which stars are identified [arcsec].

    Returns
    -------
    dict of ndarray
        frame (index), star, ref (index), dx, dy [arcsec, to the east and north], x, y [pixel],
        error (expected, per axis) [arcsec].
    """
    parts = []
    for k, exposure in enumerate(exposures):
        scale = exposure.scale
        i, j, residual = pair_up(
            exposure, reference, tolerance or 2.0 * scale, sky[k] if sky else None
        )
        if keep is not None:
            i, j, residual = i[keep[j]], j[keep[j]], residual[keep[j]]
        error = np.hypot(np.hypot(exposure.error[i], 0.01) * scale, reference.error[j])
        frame = np.full(len(i), k)
        parts.append(np.column_stack([frame, i, j, residual, exposure.x[i], exposure.y[i], error]))
    table = np.concatenate(parts) if parts else np.zeros((0, 8))
    names = ("frame", "star", "ref", "dx", "dy", "x", "y", "error")
    result = dict(zip(names, table.T, strict=True))
    for name in names[:3]:
        result[name] = result[name].astype(int)
    return result


def weighted_rms(residual, error, clip=4.0):
    """Rms weighted by 1/error**2, without outliers; in the unit of `residual`."""
    if len(residual) == 0:
        return float("nan")
    pull = residual / error
    good = np.abs(pull - np.median(pull)) < clip * max(mad_std(pull), 1e-9)
    weight = 1 / error[good] ** 2
    return float(np.sqrt(np.sum(weight * residual[good] ** 2) / np.sum(weight)))


def plot_residuals(path, reference, found, title):
    """Draw residual vectors over the frame, and residuals against magnitude and position.

    Parameters
    ----------
    path : path-like
        PNG.
    reference : Reference
    found : dict
        From `residuals`.
    title : str
    """
    margins = (0.085, 0.07, 0.98, 0.92)
    figure, axes = new_figure((9, 8), margins, 2, 2, wspace=0.25, hspace=0.2)
    figure.suptitle(title)
    dx, dy = found["dx"] * 1000, found["dy"] * 1000
    vectors = axes[0, 0]
    if len(dx):
        typical = max(float(np.median(np.hypot(dx, dy))), 0.1)
        q = vectors.quiver(
            found["x"],
            found["y"],
            dx,
            dy,
            found["frame"],
            cmap="turbo",
            angles="xy",
            scale=typical * 25,
            width=0.002,
        )
        vectors.quiverkey(q, 0.75, 1.02, typical, f"{typical:.1f} mas", labelpos="E")
    vectors.set(xlabel="x [pixel]", ylabel="y [pixel]", aspect="equal")
    limit = 5 * max(mad_std(np.r_[dx, dy]), 0.1) if len(dx) else 1.0
    panels = (
        (axes[0, 1], reference.magnitude[found["ref"]], "reference magnitude"),
        (axes[1, 0], found["x"], "x [pixel]"),
        (axes[1, 1], found["y"], "y [pixel]"),
    )
    for axis, along, label in panels:
        axis.plot(along, dx, ".", ms=3, alpha=0.5, label="east")
        axis.plot(along, dy, ".", ms=3, alpha=0.5, label="north")
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set(xlabel=label, ylabel="frame - reference [mas]", ylim=(-limit, limit))
    axes[0, 1].legend(loc="upper left")
    save_figure(figure, path, ticks=4)
