"""Forced photometry: point sources at given positions, seen or not."""

from dataclasses import dataclass

import numpy as np
import sep
from astropy.io import fits
from scipy.spatial import cKDTree

from lib.core.bands import BAND_ORDER
from lib.core.crossmatch import common_stars
from lib.core.sphere import mean_position, project
from lib.core.wcs import celestial_wcs
from lib.photometry.field import FLAG_NEIGHBOUR, FLAG_SATURATED, FLAG_WEIGHT
from lib.photometry.psf import Wings
from lib.photometry.skystructure import local_excess
from lib.photometry.sources import blended_errors
from lib.photometry.starmodels import model_stars

FLAG_REPAIRED = 32
"""A pixel of the aperture was repaired."""

FLAG_OUTSIDE = 2048
"""Half of the aperture or more has no data."""

LIMIT_SIGMA = 3.0
"""What has a lower signal-to-noise ratio is not seen: a limit is given."""


@dataclass(frozen=True)
class Coadd:
    """A coadd to measure in.

    Parameters
    ----------
    filter : str
    image, variance : ndarray of float32, shape (ny, nx)
        Background-subtracted; variance 0 where there is no data.
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources and those without data.
    header : astropy.io.fits.Header
    wings : lib.photometry.psf.Wings
    radius : float
        Aperture [pixel].
    fraction : float
        Of a star's light in it.
    """

    filter: str
    image: np.ndarray
    variance: np.ndarray
    occupied: np.ndarray
    header: fits.Header
    wings: Wings
    radius: float
    fraction: float


def unite_sources(positions, snr, radius, least=0.0):
    """Unite the sources of several tables.

    Parameters
    ----------
    positions : list of ndarray, shape (n_i, 2)
        ra, dec [deg].
    snr : list of ndarray, shape (n_i,)
        Signal-to-noise ratios: the position of the best is taken.
    radius : float
        Nearer ones are the same source [arcsec], also those of one table.
    least : float
        Signal-to-noise ratio that a source must have in one table: the noise peaks of many tables
        would outnumber the sources.

    Returns
    -------
    ndarray, shape (n, 2)
        ra, dec [deg].
    found : ndarray of bool, shape (n, number of tables)
    """
    everything = np.concatenate(positions) if positions else np.empty((0, 2))
    if len(everything) == 0:
        return np.empty((0, 2)), np.empty((0, len(positions)), bool)
    centre = mean_position(*everything.T)
    numbers, count = common_stars([project(*sky.T, *centre) for sky in positions], radius)
    united = np.empty((count, 2))
    best = np.full(count, -np.inf)
    found = np.zeros((count, len(positions)), bool)
    for k, (sky, quality, number) in enumerate(zip(positions, snr, numbers, strict=True)):
        quality = np.nan_to_num(quality, nan=0.0)
        better = quality > best[number]
        united[number[better]], best[number[better]] = sky[better], quality[better]
        found[number, k] = True
    # Two sources of one table may both lie near to one of another.
    better = np.argsort(-best, kind="stable")
    same = cKDTree(project(*united.T, *centre)).query_pairs(radius, output_type="ndarray")
    rank = np.argsort(better)
    alone = np.ones(count, bool)
    for first, second in sorted(sorted(pair, key=rank.__getitem__) for pair in same.tolist()):
        if alone[first]:
            alone[second] = False
            found[first] |= found[second]
    good = alone & (best >= least)
    return united[good], found[good]


def force(coadd, sky, extra=None):
    """Measure a coadd at given positions.

    Parameters
    ----------
    coadd : Coadd
    sky : ndarray, shape (n, 2)
        ra, dec [deg]: stars that share light are solved for together.
    extra : ndarray, shape (m, 2), optional
        More positions, each measured with what lies within half of the aperture's radius.

    Returns
    -------
    flux, error : ndarray, shape (n + m,)
        Total fluxes of point sources; NaN where there is no data.
    flags : ndarray of int32, shape (n + m,)
    """
    header, radius = coadd.header, coadd.radius
    extra = np.empty((0, 2)) if extra is None else extra
    n = len(sky)
    places = np.concatenate([sky, extra])
    x, y = celestial_wcs(header).all_world2pix(*places.T, 0)
    ny, nx = coadd.image.shape
    on = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    flux, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    flags = np.where(on, 0, FLAG_OUTSIDE).astype(np.int32)
    index = np.flatnonzero(on)
    if index.size == 0:
        return flux, error, flags
    empty = (coadd.variance <= 0).astype(np.float32)
    lost, _, _ = sep.sum_circle(empty, x[index], y[index], radius, subpix=1)
    area = np.pi * radius**2
    flags[index] |= np.where(lost > 0, FLAG_WEIGHT, 0)
    flags[index[lost > 0.5 * area]] |= FLAG_OUTSIDE
    sums, _, _ = sep.sum_circle(coadd.image, x[index], y[index], radius, subpix=5)
    variance, _, _ = sep.sum_circle(coadd.variance, x[index], y[index], radius, subpix=5)
    ratio = header["APNOISE"]
    variance *= ratio**2 * local_excess(
        coadd.image, coadd.variance, coadd.occupied, x[index], y[index], radius, ratio
    ) ** 2  # fmt: skip
    gain = header["GAIN"]
    own = index < n
    error_sums = np.sqrt(variance + np.maximum(sums, 0) / gain)
    noise = float(np.sqrt(np.median(coadd.variance[coadd.variance > 0])))
    models = model_stars(
        coadd.image, noise, x[index[own]], y[index[own]], sums[own], error_sums[own], radius,
        coadd.fraction, coadd.wings,
    )  # fmt: skip
    alone = sums.copy()
    alone[own] = models.apertures(radius)
    for k in np.flatnonzero(~own):
        near = np.hypot(models.x - x[index[k]], models.y - y[index[k]]) < 0.5 * radius
        image = models.residual + models.image(near)
        alone[k] = sep.sum_circle(image, x[index[k : k + 1]], y[index[k : k + 1]], radius)[0][0]
    flux[index] = alone / coadd.fraction
    errors = np.sqrt(variance + np.maximum(alone, 0) / gain)
    errors[own] = blended_errors(
        x[index[own]], y[index[own]], errors[own], radius, coadd.fraction, coadd.wings
    )
    error[index] = errors / coadd.fraction
    # What is taken away is known to its photon noise and a fiftieth.
    taken = np.abs(sums - alone)
    error[index] = np.hypot(error[index], np.hypot(0.02 * taken, np.sqrt(taken / gain)))
    flags[index] |= np.where(
        taken > np.maximum(0.1 * np.abs(alone), error[index] * coadd.fraction), FLAG_NEIGHBOUR, 0
    )
    peak = sep.sum_circle(
        (coadd.image >= header.get("SATURATE", np.inf)).astype(np.float32), x[index], y[index],
        radius, subpix=1,
    )[0]  # fmt: skip
    flags[index] |= np.where(peak > 0, FLAG_SATURATED, 0)
    gone = (flags & FLAG_OUTSIDE) > 0
    flux[gone], error[gone] = np.nan, np.nan
    return flux, error, flags


def magnitudes(flux, error, zeropoint, sigma=LIMIT_SIGMA):
    """Return magnitudes of what is seen and limits of what is not.

    Parameters
    ----------
    flux, error : ndarray, shape (n,)
    zeropoint : float
        NaN where unknown.
    sigma : float
        Less is not seen.

    Returns
    -------
    magnitude, magnitude_error : ndarray, shape (n,)
        NaN where not seen.
    limit : ndarray, shape (n,)
        Magnitude of (flux, at least 0) + `sigma` errors where not seen, else NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = flux >= sigma * error
        magnitude = np.where(seen, zeropoint - 2.5 * np.log10(np.where(seen, flux, 1)), np.nan)
        magnitude_error = np.where(seen, 1.0857 * error / np.where(seen, flux, 1), np.nan)
        magnitude_error = np.where(np.isfinite(zeropoint), magnitude_error, np.nan)
        bound = np.maximum(flux, 0) + sigma * error
        limit = np.where(seen, np.nan, zeropoint - 2.5 * np.log10(bound))
    return magnitude, magnitude_error, limit


def filter_order(names):
    """Return filters from blue to red, unknown ones last; ``SDSS-R`` counts as r."""

    def place(name):
        for band in (name, name.split("-")[-1].lower()):
            if band in BAND_ORDER:
                return BAND_ORDER.index(band), name
        return len(BAND_ORDER), name

    return sorted(names, key=place)
