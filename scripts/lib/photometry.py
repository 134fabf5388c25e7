"""Photometry of an image: its sources, the stars among them, fluxes and point-spread function.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep; magnitudes are -2.5 log10(flux) where no zero point is said to be added.
"""

from dataclasses import dataclass

import numpy as np
import sep

from lib.growth import GrowthCurve, growth_curve
from lib.psf import fit_profile, mean_shape
from lib.sources import detect_sources, grow_segments, neighbour_distance, select_stars
from lib.starmodels import hidden_sources, model_stars

# Flags beyond those of sep (1 merged, 2 truncated, 4 8 numerical, 16 aperture truncated,
# 32 aperture with masked pixels, 64 all masked, 128 Kron radius not positive).
FLAG_SATURATED = 256
FLAG_NEIGHBOUR = 512
FLAG_WEIGHT = 1024


def aperture_fluxes(image, noise, x, y, radii, gain=0.0, bad=None):
    """Sum circular apertures.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray of float32
        Standard deviation of a pixel without the light of sources.
    x, y : array_like, shape (n,)
    radii : sequence of float, length k
        Pixels.
    gain : float
        Electrons per unit of `image`, for the photon noise of the source; 0 leaves it out.
    bad : ndarray of bool, optional

    Returns
    -------
    flux, error : ndarray, shape (n, k)
    flag : ndarray of int, shape (n, k)
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    flux = np.empty((x.size, len(radii)))
    error = np.empty_like(flux)
    flag = np.zeros(flux.shape, np.int32)
    for k, radius in enumerate(radii):
        flux[:, k], error[:, k], flag[:, k] = sep.sum_circle(
            image, x, y, radius, err=noise, mask=bad, gain=gain or None, subpix=5
        )
    return flux, error, flag


@dataclass
class StarField:
    """Sources of an image, which of them are stars, and the point-spread function.

    Parameters
    ----------
    sources : structured ndarray, shape (n,)
        Of `detect_sources`; x and y are windowed positions.
    segments : ndarray of int32, shape (ny, nx)
    stars : ndarray of bool, shape (n,)
        On the stellar locus, unsaturated, undisturbed.
    flags : ndarray of int32, shape (n,)
        Those of sep with FLAG_SATURATED, FLAG_NEIGHBOUR and FLAG_WEIGHT.
    half_light : ndarray, shape (n,)
        Radii [pixel].
    locus : float
        Half-light radius of a star [pixel].
    isolation : ndarray, shape (n,)
        Distance to the next source that matters [pixel].
    fwhm, beta, ellipticity : float
    shape : tuple of float
        As `mean_shape` returns.
    aperture : float
        Radius of the aperture of `flux` [pixel].
    flux, error : ndarray, shape (n,)
        Within `aperture`, that of the other sources taken away.
    growth : GrowthCurve
    residual : ndarray of float32, shape (ny, nx)
        The image without the models of its stars.
    """

    sources: np.ndarray
    segments: np.ndarray
    stars: np.ndarray
    flags: np.ndarray
    half_light: np.ndarray
    locus: float
    isolation: np.ndarray
    fwhm: float
    beta: float
    ellipticity: float
    shape: tuple
    aperture: float
    flux: np.ndarray
    error: np.ndarray
    growth: GrowthCurve
    residual: np.ndarray

    @property
    def total(self):
        """Total fluxes for point sources, shape (n,)."""
        return self.flux / float(self.growth.fraction(self.aperture))

    @property
    def snr(self):
        """Signal-to-noise ratios within the aperture, shape (n,)."""
        return self.flux / self.error


def measure_field(
    image, noise, bad, *, saturate=np.inf, gain=1.0, threshold=3.0, min_area=5, aperture=1.5,
    min_snr=20.0, hidden=True,
):  # fmt: skip
    """Find the sources of an image and measure its point-spread function on the stars.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Background-subtracted.
    noise : float or ndarray of float32
        Standard deviation of a pixel without sources.
    bad : ndarray of bool, shape (ny, nx)
        Pixels that are no measurement: a star with one in its core is no star to measure with.
    saturate : float
        Pixels above are not trusted.
    gain : float
        Electrons per unit.
    threshold, min_area
        Of `detect_sources`.
    aperture : float
        Radius of the photometry in FWHM.
    min_snr : float
        Least signal-to-noise ratio of a star to measure with.
    hidden : bool
        Whether to look for the neighbours that were taken for a part of a star, which costs more
        time than all else. They lift the growth curve by a few thousandths.

    Returns
    -------
    StarField, or None where nothing is found.
    """
    sources, segments = detect_sources(image, noise, None, threshold, min_area)
    if len(sources) == 0:
        return None
    one_noise = float(np.median(noise)) if np.ndim(noise) else float(noise)
    options = {"saturate": saturate, "gain": gain, "aperture": aperture, "min_snr": min_snr}
    rounds = 2 if hidden else 1
    field, models = _measure_sources(
        image, noise, bad, sources, segments, one_noise, rounds, **options
    )
    if not hidden:
        return field
    point = np.abs(np.log(np.maximum(field.half_light, 1e-3) / field.locus)) < 0.3
    point &= (field.flags & (FLAG_SATURATED | 2)) == 0
    more, theirs = hidden_sources(models, noise, gain, point, segments, field.fwhm)
    if len(more) == 0:
        return field
    more["flag"] |= 1
    sources = np.concatenate([sources, more])
    segments = np.where(theirs > 0, theirs + len(point), segments)
    return _measure_sources(image, noise, bad, sources, segments, one_noise, rounds, **options)[0]


def _measure_sources(
    image, noise, bad, sources, segments, one_noise, rounds, *, saturate, gain, aperture, min_snr
):  # fmt: skip
    """Measure the sources of `measure_field`: a StarField, and the models of its stars."""
    x, y = sources["x"].copy(), sources["y"].copy()
    # Half-light radii in an aperture that holds nearly all of the isophotal size.
    reach = np.clip(6.0 * sources["a"], 4.0, 0.1 * max(image.shape))
    half_light, _ = sep.flux_radius(image, x, y, reach, 0.5, subpix=5)
    rough = np.maximum(sources["flux"], 1e-30)
    snr = rough / np.sqrt(sources["npix"] * one_noise**2 + rough / gain)
    clean = sources["flag"].astype(np.int32)
    marked = bad.astype(np.float32)
    in_core, _, _ = sep.sum_circle(marked, x, y, np.clip(1.5 * half_light, 1.5, 20.0), subpix=1)
    flags = clean | np.where(sources["peak"] >= saturate, FLAG_SATURATED, 0)
    flags |= np.where(in_core > 0, FLAG_WEIGHT, 0)
    stars, locus = select_stars(half_light, snr, flags, sources["peak"], saturate, min_snr=min_snr)
    if not stars.any():  # the best there are, only so that the frame has numbers
        fallback = (flags & (FLAG_SATURATED | FLAG_WEIGHT)) == 0
        locus = float(np.median(half_light[fallback])) if fallback.any() else 2.0
    locus = locus if np.isfinite(locus) and locus > 0.5 else 1.0
    # The weight of a pixel on the rim is e^-8: it need not be divided.
    xw, yw, wflag = sep.winpos(image, x, y, np.full(x.size, 2.0 * locus / 2.3548), subpix=1)
    moved = (wflag == 0) & (np.hypot(xw - x, yw - y) < max(1.0, locus))
    x, y = np.where(moved, xw, x), np.where(moved, yw, y)
    sources["x"], sources["y"] = x, y
    isolation = neighbour_distance(x, y, rough)
    fwhm, beta = fit_profile(image, x[stars], y[stars], rough[stars], 2.0 * locus)
    if not np.isfinite(fwhm):
        fwhm, beta = 2.0 * locus, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = 1.0 - sources["b"] / sources["a"]
    ellipticity = float(np.median(shape[stars])) if stars.any() else np.nan
    radius = aperture * fwhm
    flux, error, aflag = aperture_fluxes(image, noise, x, y, [radius], gain)
    flags |= aflag[:, 0]
    flags |= np.where(isolation < radius + fwhm, FLAG_NEIGHBOUR, 0)
    flux, error = flux[:, 0], error[:, 0]
    grown = grow_segments(segments, int(np.ceil(fwhm)))
    index = np.flatnonzero(stars)
    around = (x[index], y[index], rough[index], isolation[index], fwhm, gain, grown, index + 1)
    growth = growth_curve(image, noise, *around)
    psf = mean_shape(*(sources[key][stars] for key in ("a", "b", "theta")))
    # The light of the others is taken away, first with a curve that holds some of it.
    sums = flux
    for _ in range(rounds):
        models = model_stars(
            image, one_noise, x, y, sums, error, radius, float(growth.fraction(radius)),
            growth.wings(psf),
        )  # fmt: skip
        flux = models.apertures(radius)
        growth = growth_curve(models.residual, noise, *around, models=models)
    measured = StarField(
        sources, segments, stars, flags, half_light, locus, isolation, fwhm, beta, ellipticity,
        psf, radius, flux, error, growth, models.residual,
    )  # fmt: skip
    return measured, models
