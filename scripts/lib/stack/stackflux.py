"""Given positions in the coadds of a target, for light curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.wcs import celestial_wcs
from lib.photometry.flags import FLAG_OUTSIDE
from lib.photometry.forced import forced_fluxes
from lib.photometry.frameforced import near_image
from lib.photometry.lightcurve import MeasuredFrame, StackedFrames
from lib.photometry.lightcurvetable import StackFlux
from lib.stack.jointtable import measurable, read_coadd


def stack_fluxes(
    stack: StackedFrames, products: tuple[str | Path, str | Path, str | Path],
    places: np.ndarray, frames: Sequence[MeasuredFrame],
) -> list[StackFlux]:  # fmt: skip
    """Measure positions in a coadd, on the scale of the frames of its band.

    Parameters
    ----------
    stack : StackedFrames
    products : tuple of path-like
        Coadd, weight map and source table.
    places : ndarray, shape (n, 2)
        ra, dec [deg]; NaN for what moves: a coadd that does not follow it holds a trail.
    frames : list of MeasuredFrame
        Of all stacks, on one scale.

    Returns
    -------
    list of StackFlux
        One for each position; empty where the coadd cannot be measured.
    """
    header = fits.getheader(products[0])
    if not measurable(header) or not len(places):
        return []
    coadd = read_coadd(*products)
    wcs = celestial_wcs(header)
    known = near_image(wcs, coadd.image.shape, places)
    n = len(places)
    flux, error = np.full(n, np.nan), np.full(n, np.nan)
    flags = np.full(n, FLAG_OUTSIDE)
    x, y = np.full(n, np.nan), np.full(n, np.nan)
    if known.any():
        m = len(stack.positions)
        found = forced_fluxes(coadd, stack.positions, places[known])
        flux[known], error[known], flags[known] = (values[m:] for values in found)
        x[known], y[known] = wcs.all_world2pix(*places[known].T, 0, quiet=True)
    error = np.hypot(error, float(header.get("FLATERR", 0.0)) * flux)
    used = {name for name, quality in stack.frames.items() if quality.used}
    zeropoint, excess = _scale(stack, used, frames)
    error = np.hypot(error, excess * np.abs(flux))
    return [
        StackFlux(
            name=stack.name, filter=stack.filter, members=tuple(sorted(used)),
            rate=float(flux[i] / stack.exptime), error=float(error[i] / stack.exptime),
            flags=int(flags[i]), zeropoint=zeropoint, radius=float(header["APRAD"]),
            x=float(x[i]), y=float(y[i]),
        )
        for i in range(n)
    ]  # fmt: skip


def _scale(
    stack: StackedFrames, used: set[str], frames: Sequence[MeasuredFrame]
) -> tuple[float, float]:
    """Return the zero point of a coadd on the scale of its frames, and what scatter it has.

    A frame enters a coadd by the transparency that the stack found for it.
    """
    members = [
        one for one in frames
        if one.name in used and one.filter == stack.filter and np.isfinite(one.zeropoint)
    ]  # fmt: skip
    if not members:
        return np.nan, 0.0
    told = np.array([stack.frames[one.name].transparency for one in members])
    value = np.array([one.zeropoint for one in members]) - 2.5 * np.log10(told)
    excess = np.median([one.excess for one in members]) / 1.0857 / np.sqrt(len(members))
    return float(np.median(value)), float(excess)
