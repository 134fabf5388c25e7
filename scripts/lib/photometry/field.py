"""Photometry of an image: its sources, the stars among them, fluxes and point-spread function.

Arrays in, arrays out. Pixel coordinates are 0-based (x, y) with the centre of the first pixel at
(0, 0), as in sep; magnitudes are -2.5 log10(flux) where no zero point is said to be added.
"""

from dataclasses import dataclass, replace

import numpy as np
import sep

from lib.core.stats import regular_sample
from lib.photometry.growth import GrowthCurve, growth_curve
from lib.photometry.psf import Wings, fit_profile, mean_shape, moffat_alpha, moffat_fraction
from lib.photometry.sources import detect_sources, neighbour_distance, select_stars
from lib.photometry.starmodels import hidden_sources, model_stars

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
    min_snr=20.0, hidden=True, detected=None,
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
        Whether to look for the neighbours that were taken for a part of a star. They lift the
        growth curve by a few thousandths. Without, the sources that are no stars to measure with
        keep the positions of the detection, and have no half-light radius.
    detected : tuple, optional
        What `detect_sources` has found, where that is known.

    Returns
    -------
    StarField, or None where nothing is found.
    """
    sources, segments = detected or detect_sources(image, noise, None, threshold, min_area)
    if len(sources) == 0:
        return None
    one_noise = float(np.median(regular_sample(noise)) if np.ndim(noise) else noise)
    described = describe_sources(
        image, noise, bad, sources, one_noise, saturate=saturate, gain=gain, min_snr=min_snr,
        aperture=aperture, faint=hidden,
    )  # fmt: skip
    field, models = separate_stars(image, noise, one_noise, gain, segments, described)
    if not hidden:
        return field
    # Again, with a growth curve that holds less of the neighbours' light.
    field, models = separate_stars(image, noise, one_noise, gain, segments, described, field.growth)
    point = np.abs(np.log(np.maximum(field.half_light, 1e-3) / field.locus)) < 0.3
    point &= (field.flags & (FLAG_SATURATED | 2)) == 0
    more, theirs = hidden_sources(models, noise, gain, point, segments, field.fwhm)
    if len(more) == 0:
        return field
    more["flag"] |= 1
    segments = np.where(theirs > 0, theirs + len(point), segments)
    described = described.joined(describe_sources(
        image, noise, bad, more, one_noise, saturate=saturate, gain=gain, min_snr=min_snr,
        like=described,
    ))  # fmt: skip
    for _ in range(2):
        field, _ = separate_stars(image, noise, one_noise, gain, segments, described, field.growth)
    return field


@dataclass
class DescribedSources:
    """Sources of an image, each measured by itself; see `StarField` for what is what.

    Parameters
    ----------
    rough : ndarray, shape (n,)
        Isophotal fluxes.
    """

    sources: np.ndarray
    stars: np.ndarray
    flags: np.ndarray
    half_light: np.ndarray
    rough: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    locus: float
    fwhm: float
    beta: float
    ellipticity: float
    shape: tuple
    aperture: float

    def joined(self, more):
        """Return these sources followed by others."""
        both = {
            name: np.concatenate([getattr(self, name), getattr(more, name)])
            for name in ("sources", "stars", "flags", "half_light", "rough", "flux", "error")
        }
        return replace(self, **both)


def describe_sources(
    image, noise, bad, sources, one_noise, *, saturate, gain, min_snr, aperture=1.5, faint=True,
    like=None,
):  # fmt: skip
    """Measure sources one by one, and the profile of the stars among them.

    Parameters
    ----------
    image, noise, bad, saturate, gain, min_snr, aperture
        As for `measure_field`.
    sources : structured ndarray, shape (n,)
        Of `detect_sources`; given windowed positions, in place.
    one_noise : float
        Typical noise of a pixel.
    faint : bool
        Whether also those fainter than `min_snr` get half-light radii and windowed positions.
    like : DescribedSources, optional
        Others of the same image, the profile of which is known: none of these is a star.

    Returns
    -------
    DescribedSources
    """
    x, y = sources["x"].copy(), sources["y"].copy()
    rough = np.maximum(sources["flux"], 1e-30)
    snr = rough / np.sqrt(sources["npix"] * one_noise**2 + rough / gain)
    bright = np.flatnonzero(snr > min_snr)
    some = np.arange(x.size) if faint else bright
    # Half-light radii in an aperture that holds nearly all of the isophotal size.
    reach = np.clip(6.0 * sources["a"], 4.0, 0.1 * max(image.shape))
    half_light = np.full(x.size, np.nan)
    saturated = np.where(sources["peak"] >= saturate, FLAG_SATURATED, 0)
    flags = sources["flag"].astype(np.int32) | saturated.astype(np.int32)
    marked = bad.astype(np.float32)

    def measure_sizes(which, subpix):
        half_light[which], _ = sep.flux_radius(
            image, x[which], y[which], reach[which], 0.5, subpix=subpix
        )
        core = np.clip(1.5 * np.nan_to_num(half_light), 1.5, 20.0)
        in_core, _, _ = sep.sum_circle(marked, x, y, core, subpix=1)
        return np.where(in_core > 0, FLAG_WEIGHT, 0)

    if like is None:
        # To tell stars from galaxies a per cent is good enough.
        in_core = measure_sizes(bright, 2)
        _, locus = select_stars(
            half_light, snr, flags | in_core, sources["peak"], saturate, min_snr=min_snr
        )
        if not np.isfinite(locus):  # the best there are, only so that the frame has numbers
            fallback = np.isfinite(half_light)
            fallback &= ((flags | in_core) & (FLAG_SATURATED | FLAG_WEIGHT)) == 0
            locus = float(np.median(half_light[fallback])) if fallback.any() else 2.0
        locus = locus if locus > 0.5 else 1.0
    else:
        locus = like.locus
    # The weight of a pixel on the rim is e^-8: it need not be divided.
    sigma = np.full(some.size, 2.0 * locus / 2.3548)
    xw, yw, wflag = sep.winpos(image, x[some], y[some], sigma, subpix=1)
    moved = (wflag == 0) & (np.hypot(xw - x[some], yw - y[some]) < max(1.0, locus))
    x[some[moved]], y[some[moved]] = xw[moved], yw[moved]
    sources["x"], sources["y"] = x, y
    flags |= measure_sizes(some, 5) if faint else in_core
    if like is not None:
        stars = np.zeros(x.size, bool)
        profile = {
            name: getattr(like, name)
            for name in ("locus", "fwhm", "beta", "ellipticity", "shape", "aperture")
        }
    else:
        stars, again = select_stars(
            half_light, snr, flags, sources["peak"], saturate, min_snr=min_snr
        )
        locus = again if again > 0.5 else locus
        fwhm, beta = fit_profile(image, x[stars], y[stars], rough[stars], 2.0 * locus)
        if not np.isfinite(fwhm):
            fwhm, beta = 2.0 * locus, np.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            shape = 1.0 - sources["b"] / sources["a"]
        profile = {
            "locus": locus, "fwhm": fwhm, "beta": beta, "aperture": aperture * fwhm,
            "ellipticity": float(np.median(shape[stars])) if stars.any() else np.nan,
            "shape": mean_shape(*(sources[key][stars] for key in ("a", "b", "theta"))),
        }  # fmt: skip
    flux, error, aflag = aperture_fluxes(image, noise, x, y, [profile["aperture"]], gain)
    flags |= aflag[:, 0]
    return DescribedSources(
        sources, stars, flags, half_light, rough, flux[:, 0], error[:, 0], **profile
    )


def separate_stars(image, noise, one_noise, gain, segments, described, growth=None):
    """Take the light of the other sources away from each, and measure the growth curve of the rest.

    Parameters
    ----------
    image, noise, gain
        As for `measure_field`.
    one_noise : float
        Typical noise of a pixel.
    segments : ndarray of int32, shape (ny, nx)
    described : DescribedSources
    growth : GrowthCurve, optional
        To model the sources with; without it the profile of the stars has to do.

    Returns
    -------
    StarField
    lib.photometry.starmodels.StarModels
    """
    d = described
    x, y = d.sources["x"], d.sources["y"]
    isolation = neighbour_distance(x, y, d.rough)
    near = np.where(isolation < d.aperture + d.fwhm, FLAG_NEIGHBOUR, 0)
    if growth is not None:
        fraction, wings = float(growth.fraction(d.aperture)), growth.wings(d.shape)
    else:
        beta = d.beta if np.isfinite(d.beta) else 3.0
        alpha = moffat_alpha(d.fwhm, beta)
        fraction = float(moffat_fraction(d.aperture, alpha, beta))
        wings = Wings(alpha, beta, 1.0, *d.shape)
    models = model_stars(
        image, one_noise, x, y, d.flux, d.error, d.aperture, fraction, wings
    )  # fmt: skip
    flux = models.apertures(d.aperture)
    index = np.flatnonzero(d.stars)
    growth = growth_curve(
        models.residual, noise, x[index], y[index], d.rough[index], isolation[index], d.fwhm, gain,
        segments, index + 1, int(np.ceil(d.fwhm)), models=models, one_noise=one_noise,
    )  # fmt: skip
    field = StarField(
        d.sources, segments, d.stars, d.flags | near, d.half_light, d.locus, isolation, d.fwhm,
        d.beta, d.ellipticity, d.shape, d.aperture, flux, d.error, growth, models.residual,
    )  # fmt: skip
    return field, models
