"""Fluxes at given positions in the coadds of a target, for light curves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.sphere import project
from lib.core.stats import mad_std
from lib.core.wcs import celestial_wcs
from lib.night.positions import Position
from lib.photometry.flags import FLAG_OUTSIDE
from lib.photometry.forced import Coadd, forced_fluxes
from lib.photometry.forcedpsf import forced_psf_fluxes
from lib.photometry.frameforced import CENTROID_SNR, near_image
from lib.photometry.lightcurve import MeasuredFrame, StackedFrames
from lib.photometry.lightcurvetable import StackFlux
from lib.photometry.neighbours import MODEL_ERROR
from lib.photometry.trailing import CENTROID_FACTOR, trailed_sigma
from lib.stack.jointtable import measurable, read_coadd

LEAST_EMPTY = 100
"""Minimum number of pixels for the noise around a moving object."""


@dataclass(frozen=True)
class Seen:
    """A moving object as detected in the coadd that follows it.

    Parameters
    ----------
    east, north : float
        Offset from its ephemeris [arcsec].
    snr : float
        Signal-to-noise ratio in the image smoothed by the seeing.
    rate : float
        Approximate count rate [electron/s].
    """

    east: float
    north: float
    snr: float
    rate: float


def stack_fluxes(
    stack: StackedFrames, products: tuple[str | Path, str | Path, str | Path],
    places: np.ndarray, frames: Sequence[MeasuredFrame],
) -> list[StackFlux]:  # fmt: skip
    """Measure positions in a coadd, on the flux scale of the frames of its band.

    Parameters
    ----------
    stack : StackedFrames
        The stack.
    products : tuple of path-like
        Coadd, weight map and source table.
    places : ndarray, shape (n, 2)
        ra, dec [deg]; NaN for moving objects, which are trailed in a coadd that does not follow
        them.
    frames : list of MeasuredFrame
        Measured frames of all stacks, on a common scale.

    Returns
    -------
    list of StackFlux
        One per position; empty where the coadd cannot be measured.
    """
    header = fits.getheader(products[0])
    if not measurable(header) or not len(places):
        return []
    coadd = read_coadd(*products)
    wcs = celestial_wcs(header)
    known = near_image(wcs, coadd.image.shape, places)
    n = len(places)
    flux, error = np.full(n, np.nan), np.full(n, np.nan)
    psf_flux, psf_error = np.full((2, n), np.nan)
    flags = np.full(n, FLAG_OUTSIDE)
    x, y = np.full(n, np.nan), np.full(n, np.nan)
    if known.any():
        m = len(stack.positions)
        found = forced_fluxes(coadd, stack.positions, places[known])
        flux[known], error[known], flags[known] = (values[m:] for values in found)
        x[known], y[known] = wcs.all_world2pix(*places[known].T, 0, quiet=True)
        by_fit = forced_psf_fluxes(coadd, stack.positions, places[known])
        psf_flux[known], psf_error[known] = (values[m:] for values in by_fit)
    flat = float(header.get("FLATERR", 0.0))
    error, psf_error = np.hypot(error, flat * flux), np.hypot(psf_error, flat * psf_flux)
    used = {name for name, quality in stack.frames.items() if quality.used}
    zeropoint, excess = _scale(stack, used, frames)
    error = np.hypot(error, excess * np.abs(flux))
    psf_error = np.hypot(psf_error, excess * np.abs(psf_flux))
    return [
        StackFlux(
            name=stack.name, filter=stack.filter, members=tuple(sorted(used)),
            rate=float(flux[i] / stack.exptime), error=float(error[i] / stack.exptime),
            flags=int(flags[i]), zeropoint=zeropoint, radius=float(header["APRAD"]),
            x=float(x[i]), y=float(y[i]), psf_rate=float(psf_flux[i] / stack.exptime),
            psf_error=float(psf_error[i] / stack.exptime),
        )
        for i in range(n)
    ]  # fmt: skip


def followed_flux(
    stack: StackedFrames, products: tuple[str | Path, str | Path, str | Path],
    frames: Sequence[MeasuredFrame], position: Position,
) -> StackFlux | None:  # fmt: skip
    """Measure a moving object at its position in the coadd that follows it.

    Parameters
    ----------
    stack : StackedFrames
        The stack that follows the object.
    products : tuple of path-like
        Coadd, weight map and source table.
    frames : list of MeasuredFrame
        Measured frames of all ordinary stacks, on a common scale.
    position : Position
        Ephemeris, corrected by its offset.

    Returns
    -------
    StackFlux or None
        None where the coadd cannot be measured.
    """
    header = stack.header
    if not measurable(header):
        return None
    coadd = read_coadd(*products)
    ra, dec = position.at(header["MOVMJD"])
    trail = np.array([header["MOVEAST"], header["MOVNORTH"]]) * header["EXPTIME"] / 3600
    flux, error, flags = (
        values[0]
        for values in forced_fluxes(
            coadd, np.empty((0, 2)), np.column_stack([ra, dec]), trail
        )
    )  # fmt: skip
    wcs = celestial_wcs(header)
    x, y = (float(value[0]) for value in wcs.all_world2pix(ra, dec, 0, quiet=True))
    used = {name for name, quality in stack.frames.items() if quality.used}
    zeropoint, excess = _scale(stack, used, frames)
    error = np.hypot(error, np.hypot(float(header.get("FLATERR", 0.0)), excess) * abs(flux))
    error = np.hypot(error, MODEL_ERROR * float(header.get("MOVLIGHT", 0.0)))
    found = StackFlux(
        name=stack.name, filter=stack.filter, members=tuple(sorted(used)),
        rate=float(flux / stack.exptime), error=float(error / stack.exptime), flags=int(flags),
        zeropoint=zeropoint, radius=float(header["APRAD"]), x=x, y=y, mjd=float(header["MOVMJD"]),
    )  # fmt: skip
    seen = None
    length = float(np.hypot(*trail))
    if flux > CENTROID_SNR * error:
        seen = _centroid(coadd, (x, y), _window(header, length))
    if seen is None:
        return found
    offset = _offset(wcs, seen, position.shifted(0, 0), header)
    tie = np.hypot(header.get("ASTRMS1", 0.0), header.get("ASTRMS2", 0.0)) / np.sqrt(2) / 1000
    tie /= np.sqrt(max(header.get("ASTRNST", 1), 1))
    own = CENTROID_FACTOR * _window(header, length) * header["PIXSCALE"] * error / flux
    return replace(found, offset=offset, offset_error=float(np.hypot(own, tie)))


def measured_offset(
    stack: StackedFrames, products: tuple[str | Path, str | Path, str | Path],
    position: Position, tolerance: float,
) -> Seen | None:  # fmt: skip
    """Return the offset of a moving object from its ephemeris in the coadd that follows it.

    Parameters
    ----------
    stack : StackedFrames
        The stack that follows the object.
    products : tuple of path-like
        Coadd, weight map and source table.
    position : Position
        Ephemeris of the object.
    tolerance : float
        Search radius [arcsec].

    Returns
    -------
    Seen or None
        None where no source of S/N > 5 is within `tolerance`.
    """
    from scipy.ndimage import gaussian_filter

    header = stack.header
    if not measurable(header):
        return None
    coadd = read_coadd(*products)
    wcs = celestial_wcs(header)
    ra, dec = position.at(header["MOVMJD"])
    x, y = (float(value[0]) for value in wcs.all_world2pix(ra, dec, 0, quiet=True))
    sigma = _window(header, header["MOVRATE"] * header["EXPTIME"] / 3600)
    scale = float(header["PIXSCALE"])
    reach = max(tolerance / scale, 1.0)
    half = int(np.ceil(reach + 12 * sigma))
    rows, columns = (
        slice(max(0, round(v) - half), max(0, round(v) + half + 1)) for v in (y, x)
    )  # fmt: skip
    image = coadd.image[rows, columns]
    if not image.size:
        return None
    smooth = gaussian_filter(image, sigma)
    v, u = np.indices(image.shape)
    away = np.hypot(u + columns.start - x, v + rows.start - y)
    empty = ~coadd.occupied[rows, columns]
    noise = mad_std(smooth[empty]) if empty.sum() > LEAST_EMPTY else np.inf
    inside = np.where(away <= reach, smooth, -np.inf)
    best = np.unravel_index(int(np.argmax(inside)), image.shape)
    snr = float(smooth[best] / noise) if noise > 0 else 0.0
    if snr < CENTROID_SNR:
        return None
    start = float(best[1] + columns.start), float(best[0] + rows.start)
    seen = _centroid(coadd, start, sigma)
    if seen is None:
        return None
    east, north = _offset(wcs, seen, position, header)
    if np.hypot(east, north) > tolerance + 0.5 * scale:
        return None
    # A Gaussian convolved with itself has a peak of flux / (4 pi sigma^2).
    rate = float(smooth[best]) * 4 * np.pi * sigma**2 / stack.exptime
    return Seen(east, north, snr, rate)


def _window(header: fits.Header, length: float) -> float:
    """Return the rms width [pixel] of a source trailed by `length` [arcsec] in an exposure."""
    return float(trailed_sigma(header["SEEPIX"] / 2.355, length / header["PIXSCALE"]))


def _centroid(coadd: Coadd, start: tuple[float, float], sigma: float) -> tuple[float, float] | None:
    """Return the windowed centroid of a source near a pixel; None where it drifts off."""
    x, y, flags = sep.winpos(coadd.image, [start[0]], [start[1]], sigma)
    good = np.hypot(x[0] - start[0], y[0] - start[1]) < 2.355 * sigma
    return (float(x[0]), float(y[0])) if good and not flags[0] & ~sep.APER_TRUNC else None


def _offset(
    wcs: WCS, pixel: tuple[float, float], position: Position, header: fits.Header
) -> tuple[float, float]:
    """Return the offset of a pixel of a coadd from the position of an ephemeris [arcsec]."""
    seen_ra, seen_dec = wcs.all_pix2world(*pixel, 0)
    ra, dec = position.at(header["MOVMJD"])
    east, north = project(seen_ra, seen_dec, float(ra[0]), float(dec[0]))[0]
    return float(east), float(north)


def difference_fluxes(
    stack: StackedFrames, path: str | Path, places: np.ndarray, frames: Sequence[MeasuredFrame]
) -> list[StackFlux]:
    """Return the flux of a point source at positions of a difference image.

    Parameters
    ----------
    stack : StackedFrames
        Of the coadd that the template was subtracted from.
    path : path-like
        Difference image of the coadd, or of one of its frames, with extensions SIGNIFICANCE and
        FLUXERR.
    places : ndarray, shape (n, 2)
        ra, dec [deg]; NaN for what moves.
    frames : list of MeasuredFrame
        Of all stacks, on one scale.

    Returns
    -------
    list of StackFlux
        One for each position; empty where there is no difference image.
    """
    from scipy.ndimage import map_coordinates

    with fits.open(path) as hdus:
        header = hdus[0].header
        if header.get("QCSTAT") != "OK" or not len(places):
            return []
        errors = np.asarray(hdus["FLUXERR"].data, np.float32)
        fluxes = hdus["SIGNIFICANCE"].data * errors
    single = str(header["FRAME"]) if "DIFSTACK" in header else ""
    used = {single} if single else {name for name, one in stack.frames.items() if one.used}
    zeropoint, excess = _scale(stack, used, frames)
    wcs = celestial_wcs(header)
    known = near_image(wcs, errors.shape, places)
    found = []
    for inside, place in zip(known, places, strict=True):
        x = y = flux = error = np.nan
        if inside:
            x, y = (float(value) for value in wcs.all_world2pix(*place, 0, quiet=True))
            column, row = round(x), round(y)
            whole = 3 <= column < errors.shape[1] - 3 and 3 <= row < errors.shape[0] - 3
            if whole and errors[row, column] > 0:
                part = fluxes[row - 3 : row + 4, column - 3 : column + 4]
                flux = float(map_coordinates(part, [[y - row + 3], [x - column + 3]], order=3)[0])
                error = float(np.hypot(errors[row, column], excess * abs(flux)))
        found.append(StackFlux(
            name=single or stack.name, filter=stack.filter, members=tuple(sorted(used)),
            rate=flux / stack.exptime, error=error / stack.exptime,
            flags=0 if np.isfinite(flux) else FLAG_OUTSIDE, zeropoint=zeropoint,
            radius=float("nan"), x=x, y=y, kind="difference",
        ))  # fmt: skip
    return found


def _scale(
    stack: StackedFrames, used: set[str], frames: Sequence[MeasuredFrame]
) -> tuple[float, float]:
    """Return the zero point of a coadd on the scale of its frames, and its scatter.

    A frame enters a coadd with the transparency determined by the stack.
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
