"""Forced photometry by fits of the point-spread function: stars at given positions, seen or not."""

import numpy as np

from lib.core.wcs import celestial_wcs
from lib.photometry.coaddpsf import EFFECTIVE_RADIUS, full_variance
from lib.photometry.coverage import corrections_at
from lib.photometry.forced import Coadd
from lib.photometry.psfbuild import PsfImage
from lib.photometry.psffit import PsfFluxes, draw_stars
from lib.photometry.psfmodel import PsfModel
from lib.photometry.skystructure import local_excess

NEAR = 8.0
"""[FWHM] Half the side of the part of an image in which a position is measured by itself."""

SAME = 0.5
"""[radius of the aperture] A listed source that is nearer to a position is what is measured there,
as in `lib.photometry.forced`."""

ROUNDS = 3
"""Iterations of a fit with fixed positions: the photon noise of the stars is known after the
first."""


def forced_psf_fluxes(
    coadd: Coadd, positions: np.ndarray, extra: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Measure point sources at given positions of a coadd by fits of its point-spread function.

    Parameters
    ----------
    coadd : Coadd
    positions : ndarray, shape (n, 2)
        ra, dec [deg]: fitted together.
    extra : ndarray, shape (m, 2), optional
        Further ra, dec [deg], each fitted with all listed sources except those at the same
        position.

    Returns
    -------
    flux, error : ndarray, shape (n + m,)
        Total fluxes; NaN where the coadd has no model, or no data.
    """
    extra = np.empty((0, 2)) if extra is None else extra
    n, total = len(positions), len(positions) + len(extra)
    flux, error = np.full((2, total), np.nan)
    psf = coadd.psf
    if psf is None or not total:
        return flux, error
    x, y = celestial_wcs(coadd.header).all_world2pix(*np.concatenate([positions, extra]).T, 0)
    ny, nx = coadd.image.shape
    on = (x > -0.5) & (y > -0.5) & (x < nx - 0.5) & (y < ny - 0.5)
    listed = np.flatnonzero(on[:n])
    ratio = np.float32(coadd.header["APNOISEC"] ** 2)
    box = coadd.sky_box if coadd.crowd is not None else 0
    image = PsfImage(coadd.image, coadd.variance * ratio, coadd.header["GAIN"], box)
    fitted = image.fit(psf, x[listed], y[listed], free=False, rounds=ROUNDS)
    flux[listed], error[listed] = _with_errors(coadd, image, psf, fitted)
    for k in n + np.flatnonzero(on[n:]):
        flux[k], error[k] = _by_itself(coadd, image, psf, fitted, (float(x[k]), float(y[k])))
    return flux, error


def _by_itself(
    coadd: Coadd, image: PsfImage, psf: PsfModel, fitted: PsfFluxes, place: tuple[float, float]
) -> tuple[float, float]:
    """Return flux and error at a place, fitted with its neighbours."""
    half = int(np.ceil(NEAR * psf.fwhm))
    column, row = round(place[0]), round(place[1])
    x0, y0 = max(0, column - half), max(0, row - half)
    part = (slice(y0, row + half + 1), slice(x0, column + half + 1))
    near = (np.abs(fitted.x - place[0]) < half) & (np.abs(fitted.y - place[1]) < half)
    near &= np.isfinite(fitted.flux)
    own = psf.shifted(x0, y0)
    variance = np.ascontiguousarray(image.variance[part])
    x, y = fitted.x[near] - x0, fitted.y[near] - y0
    light = draw_stars(variance.shape, own, x, y, fitted.flux[near])
    apart = np.hypot(fitted.x[near] - place[0], fitted.y[near] - place[1])
    others = apart >= SAME * coadd.aperture.radius
    small = PsfImage(fitted.residual[part] + light, variance, image.gain)
    places = np.append(place[0] - x0, x[others]), np.append(place[1] - y0, y[others])
    again = small.fit(own, *places, free=False, rounds=ROUNDS)
    flux, error = _with_errors(coadd, small, psf, again, (x0, y0), 1)
    return float(flux[0]), float(error[0])


def _with_errors(
    coadd: Coadd, image: PsfImage, psf: PsfModel, fitted: PsfFluxes,
    corner: tuple[int, int] = (0, 0), number: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the first fluxes of a fit, and their errors, as the source table has them."""
    first = slice(number)
    x, y = fitted.x[first] + corner[0], fitted.y[first] + corner[1]
    excess = local_excess(
        coadd.image, coadd.variance, coadd.occupied_total, x, y, EFFECTIVE_RADIUS * psf.fwhm,
        coadd.header["APNOISEC"],
    )  # fmt: skip
    flux = fitted.flux[first].copy()
    variance = full_variance(image, fitted, excess)
    if coadd.partial is not None:
        here = corrections_at(coadd.partial, x, y)
        # Off as an inner aperture (faint stars) or not at all (bright ones): between both.
        factor = np.exp(here[1] / 2)
        flux /= factor
        variance = variance / factor**2 + (np.hypot(here[2], here[1] / 2) * flux) ** 2
    error = np.sqrt(variance)
    if coadd.crowd is not None:
        error = np.hypot(error, coadd.crowd.beyond(coadd.crowd.psf, flux, x, y))
    return flux, error
