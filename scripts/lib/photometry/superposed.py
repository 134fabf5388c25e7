"""Point sources superposed on a galaxy or a nebula, which the detection does not separate from it.

The deblending of `sep.extract` splits off what has a given fraction of the flux of the whole: for a
star before a galaxy, or a supernova in it, that is a fraction of the galaxy's.
"""

import numpy as np
import sep

from lib.photometry.apertures import discs_about
from lib.photometry.backgroundmesh import fine_mesh
from lib.photometry.growth import GrowthCurve
from lib.photometry.image import MeasurementImage
from lib.photometry.sources import Detections, detect_sources

NOISE_MESH = 2.5
"""Side of the squares in which the scatter of the filtered image is measured, over that of those
which give the light of the large source."""

THRESHOLD = 5.0
"""Detection threshold [local scatter of the filtered image]."""

KNOWN_REACH = 1.5
"""[FWHM] Distance from known sources within which the image is not searched: there the models of
stars leave residuals, and galaxies have their cores."""

RADII = (0.6, 1.2)
"""[FWHM] Radii of the apertures that tell a point source from a knot."""

WIDER = 1.25
"""Maximum ratio of the fluxes in these apertures, in units of that of a star."""


def superposed_sources(
    residual: np.ndarray, image: MeasurementImage, inside: np.ndarray, known: np.ndarray,
    fwhm: float, growth: GrowthCurve,
) -> Detections:  # fmt: skip
    """Detect point sources on the light of large sources with a matched filter.

    A mesh of a few FWHM gives the light of the large source. The image without it is smoothed with
    a Gaussian of the seeing and divided by its local scatter, in which the photons and the
    structure of the large source count.

    Parameters
    ----------
    residual : ndarray of float32, shape (ny, nx)
        Image with its stars subtracted.
    image : MeasurementImage
        Image with the stars.
    inside : ndarray of bool, shape (ny, nx)
        Pixels of large sources (`lib.photometry.starfield.StarField.extended`).
    known : structured ndarray, shape (n,)
        The known sources.
    fwhm : float
        [pixel].
    growth : GrowthCurve
        Growth curve of the stars.

    Returns
    -------
    Detections
        The sources, numbered from 1.
    """
    from scipy.ndimage import find_objects, gaussian_filter

    nothing = Detections(known[:0], np.zeros(inside.shape, np.int32))
    if not inside.any():
        return nothing
    (part,) = find_objects(inside.astype(np.int8))
    near = discs_about(known["x"], known["y"], KNOWN_REACH * fwhm, inside.shape)
    closed = ~inside[part] | near[part]
    noise = image.noise[part] if isinstance(image.noise, np.ndarray) else image.noise
    closed |= ~np.isfinite(residual[part] / noise)
    if image.bad is not None:
        closed |= image.bad[part]
    if closed.all():
        return nothing
    light = np.where(closed, 0, residual[part])
    under = fine_mesh(light, closed, fwhm).back()
    detail = np.where(closed, 0, light - under)
    photons = np.maximum(under, 0) / image.gain if image.gain else 0.0
    pull = (detail / np.sqrt(noise**2 + photons)).astype(np.float32)
    width = fwhm / 2.3548
    filtered = gaussian_filter(pull, width, truncate=3.0)
    # At least that of independent pixels: the mesh follows some of the noise.
    scatter = np.maximum(
        fine_mesh(filtered, closed, NOISE_MESH * fwhm).rms(), 0.5 / width / np.pi**0.5
    )
    significance = np.where(closed, 0, filtered / scatter).astype(np.float32)
    sources, theirs = detect_sources(significance, 1.0, None, THRESHOLD, 1, smooth=False)
    x, y = sources["xpeak"].astype(float), sources["ypeak"].astype(float)
    inner, outer = (sep.sum_circle(detail, x, y, radius * fwhm)[0] for radius in RADII)
    of_star = growth.fraction(np.array(RADII) * fwhm)
    sharp = (inner > 0) & (outer < WIDER * of_star[1] / of_star[0] * inner)
    sources = sources[sharp]
    sources["flux"] = inner[sharp] / of_star[0]
    for axis, ends in (("x", part[1]), ("y", part[0])):
        for key in (axis, f"{axis}peak", f"{axis}min", f"{axis}max"):
            sources[key] += ends.start
    sources["peak"] = image.data[sources["ypeak"], sources["xpeak"]]
    sources["a"] = sources["b"] = width
    labels = np.zeros(inside.shape, np.int32)
    labels[part] = np.append(0, np.where(sharp, np.cumsum(sharp), 0))[theirs]
    return Detections(sources, labels)
