"""The source table of a coadd."""

import numpy as np
import sep
from astropy.io import fits

from lib.photometry.field import aperture_fluxes
from lib.photometry.psf import squares_about
from lib.photometry.skystructure import local_excess
from lib.photometry.sources import blended_errors

KRON_FACTOR = 2.5
"""Automatic apertures reach so many Kron radii."""

KRON_LEAST = 3.5
"""Least reach of an automatic aperture, in semi-axes of the source."""

KRON_REGION = 6.0
"""Kron radii are measured within so many semi-axes."""

KRON_SLOPE = 0.15
"""d ln(flux) / d ln(radius) at 2.5 Kron radii: of a star (Moffat, beta 3); 0.17 of a disc."""

AXES_SLOPE = 0.1
"""The same at 3.5 semi-axes: 0.09 of a star, 0.15 of a disc."""

AXES_NOISE = 0.45
"""Scatter of ln(semi-axis) of repeats, times the root of S/N: 0.3 of discs to 0.55 of stars."""

WINDOW = 2.0 / 2.3548
"""Standard deviation of the window of positions, in half-light radii of stars."""


def kron_photometry(coadd, gain, excess):
    """Measure the sources of a coadd in automatic apertures.

    The ellipse of a source's second moments, stretched to 2.5 Kron radii and to 3.5 semi-axes at
    least (Kron 1980; Bertin & Arnouts 1996). Without that least reach the noise of faint sources
    decides how large their apertures are. The errors hold the noise of an empty aperture of that
    area, that of the source's photons, and what the flux changes as noise moves the Kron radius
    and the semi-axes.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`, with a field.
    gain : float
        Electrons per unit.
    excess : ndarray, shape (n,)
        Of the noise at each source, as `lib.photometry.skystructure.local_excess` has it.

    Returns
    -------
    flux, error : ndarray, shape (n,)
    reach : ndarray, shape (n,)
        Semi-major axes of the apertures [pixel].
    flags : ndarray of int32, shape (n,)
        16 and 128 of sep.
    """
    field = coadd["field"]
    source = field.sources
    x, y = source["x"].astype(float), source["y"].astype(float)
    a, b = np.maximum(source["a"], 0.5), np.maximum(source["b"], 0.5)
    ellipse = x, y, a, b, np.clip(source["theta"], -np.pi / 2, np.pi / 2)
    own = {"seg_id": np.arange(1, x.size + 1), "segmap": field.segments}
    radius, kron_flag = sep.kron_radius(coadd["image"], *ellipse, KRON_REGION, **own)
    known = np.isfinite(radius) & (radius > 0)
    stretch = np.maximum(np.where(known, KRON_FACTOR * radius, 0), KRON_LEAST)
    flux, _, flag = sep.sum_ellipse(coadd["image"], *ellipse, stretch, subpix=5, **own)
    variance, _, _ = sep.sum_ellipse(coadd["variance"], *ellipse, stretch, subpix=5)
    ratio = excess * np.interp(stretch * np.sqrt(a * b), coadd["radii"], coadd["ratios"])
    free = stretch > KRON_LEAST
    variance *= ratio**2 * np.where(free, kron_excess(stretch), 1.0)
    light = np.maximum(flux, 0)
    error = np.sqrt(np.maximum(variance, 0) + light / gain)
    # The isophote moves the less the brighter the source: (slope scatter flux)^2.
    error = np.sqrt(error**2 + (AXES_SLOPE * AXES_NOISE) ** 2 * light * error)
    return flux, error, stretch * a, ((flag & 16) | (kron_flag & 128)).astype(np.int32)


def kron_excess(stretch):
    """Return the variance of an automatic flux over that of its aperture held fast.

    The Kron radius r1 = sum(r I) / sum(I) feels the noise of each pixel by (r - r1) / sum(I), and
    the flux follows it along the growth curve: a pixel at r counts (r < R) + g (r - r1), with
    R = 2.5 r1 and g = `KRON_SLOPE` / r1, out to `KRON_REGION`.

    Parameters
    ----------
    stretch : ndarray, shape (n,)
        R, in semi-axes.

    Returns
    -------
    ndarray, shape (n,)
    """
    r1 = stretch / KRON_FACTOR
    inner, outer = np.minimum(stretch, KRON_REGION), KRON_REGION
    g = KRON_SLOPE / r1
    # Integrals of r, (r - r1) r and (r - r1)^2 r.
    fixed = stretch**2 / 2
    both = inner**3 / 3 - r1 * inner**2 / 2
    moved = outer**4 / 4 - 2 * r1 * outer**3 / 3 + r1**2 * outer**2 / 2
    return 1 + (2 * g * both + g**2 * moved) / fixed


def position_errors(image, x, y, locus, variance, gain):
    """Return the errors of windowed positions, mean of both axes.

    A position is where the sum of W(x - x0) (x - x0) I vanishes, with a Gaussian W as wide as a
    star. Noise moves it by its own such sum, over the slope of that of the source (compare
    ERRX2WIN in the manual of source-extractor).

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Without background.
    x, y : ndarray, shape (n,)
        [pixel].
    locus : float
        Half-light radius of stars [pixel].
    variance : ndarray, shape (n,)
        Of the sky in a pixel at each source, what pixels share included.
    gain : float
        Electrons per unit.

    Returns
    -------
    ndarray, shape (n,)
        [pixel]; infinite where no light is left that tells the place.
    """
    window = WINDOW * locus
    half = int(np.ceil(4 * window))
    grid = np.arange(-half, half + 1)
    row, column = y.round().astype(int), x.round().astype(int)
    light = np.nan_to_num(image[squares_about(column, row, half, image.shape)])
    dy2, dx2 = ((grid + (whole - one)[:, None]) ** 2 for whole, one in ((row, y), (column, x)))
    r2 = dy2[:, :, None] + dx2[:, None, :]
    weight = np.exp(-r2 / (2 * window**2))
    # Mean of both axes: half of r^2 for x^2.
    slope = np.sum(weight * light * (1 - r2 / (2 * window**2)), axis=(1, 2))
    photons = np.sum(weight**2 * r2 / 2 * np.maximum(light, 0), axis=(1, 2)) / gain
    empty = variance * np.pi * window**4 / 2
    with np.errstate(divide="ignore"):
        return np.sqrt(photons + empty) / np.maximum(slope, 0)


def source_table(coadd, wcs, zeropoint, gain, scale, settings):
    """Return the table of all sources of a coadd.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`.
    wcs : astropy.wcs.WCS
    zeropoint : lib.photometry.zeropoint.Zeropoint
    gain, scale : float
        Electrons per unit; arcsec per pixel.
    settings : dict

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    field = coadd["field"]
    columns = []

    def add(name, values, unit=None, kind="E"):
        columns.append(fits.Column(name=name, format=kind, unit=unit, array=values))

    radii = [factor * (field.fwhm if field else 1.0) for factor in settings["apertures"]]
    if field is None:
        source = np.zeros(0, [(key, "f8") for key in ("x", "y", "a", "b", "theta", "peak", "flag")])
    else:
        source = field.sources
    x, y = source["x"].astype(float), source["y"].astype(float)
    n = x.size
    value = zeropoint.value
    ra, dec = wcs.all_pix2world(x, y, 0) if n else (x, y)
    add("NUMBER", np.arange(1, n + 1), kind="J")
    add("RA", ra, "deg", "D")
    add("DEC", dec, "deg", "D")
    if n:
        ratio = np.interp(2 * field.locus, coadd["radii"], coadd["ratios"])
        pixel = coadd["variance"][y.round().astype(int), x.round().astype(int)]
        place_error = (
            1000
            * scale
            * position_errors(coadd["image"], x, y, field.locus, pixel * ratio**2, gain)
        )
    else:
        place_error = x
    add("POSERR", place_error, "mas")
    add("X", x + 1, "pix", "D")
    add("Y", y + 1, "pix", "D")

    def magnitudes(name, flux, error):
        with np.errstate(divide="ignore", invalid="ignore"):
            mag = np.where(flux > 0, value - 2.5 * np.log10(flux), np.nan)
            mag_error = np.where(flux > 0, 1.0857 * error / flux, np.nan)
        add(f"MAG_{name}", mag, "mag")
        add(f"MAGERR_{name}", mag_error, "mag")

    noise = np.sqrt(coadd["variance"]).astype(np.float32)
    if n:
        ratio = np.interp(field.aperture, coadd["radii"], coadd["ratios"])
        excess = local_excess(
            coadd["image"], coadd["variance"], coadd["occupied"], x, y, field.aperture, ratio
        )

        def aperture_error(flux, radius):
            ratio = excess * np.interp(radius, coadd["radii"], coadd["ratios"])
            empty, _, _ = sep.sum_circle(coadd["variance"], x, y, radius, subpix=5)
            return np.sqrt(np.maximum(empty, 0) * ratio**2 + np.maximum(flux, 0) / gain)

        fraction = float(field.growth.fraction(field.aperture))
        total_error = blended_errors(
            x, y, aperture_error(field.flux, field.aperture), field.aperture, fraction,
            field.growth.wings(),
        )  # fmt: skip
        total, total_error = field.flux / fraction, total_error / fraction
    else:
        total = total_error = x
    add("FLUX_POINT", total)
    add("FLUXERR_POINT", total_error)
    magnitudes("POINT", total, total_error)
    with np.errstate(divide="ignore", invalid="ignore"):
        add("SNR", np.where(total_error > 0, total / total_error, np.nan))
    if n:
        auto, auto_error, reach, kron_flags = kron_photometry(coadd, gain, excess)
        flags = field.flags | kron_flags
        kron_radius = reach * scale
    else:
        auto = auto_error = kron_radius = x
        flags = np.zeros(0, np.int32)
    add("FLUX_AUTO", auto)
    add("FLUXERR_AUTO", auto_error)
    magnitudes("AUTO", auto, auto_error)
    for k, radius in enumerate(radii, start=1):
        if n:
            flux, _, _ = aperture_fluxes(coadd["image"], noise, x, y, [radius])
            flux = flux[:, 0]
            error = aperture_error(flux, radius)
        else:
            flux = error = x
        add(f"FLUX_APER{k}", flux)
        add(f"FLUXERR_APER{k}", error)
        magnitudes(f"APER{k}", flux, error)
    add("KRON_RADIUS", kron_radius, "arcsec")
    add("A_IMAGE", source["a"], "pix")
    add("B_IMAGE", source["b"], "pix")
    add("THETA", np.degrees(source["theta"]), "deg")
    with np.errstate(divide="ignore", invalid="ignore"):
        add("ELLIPTICITY", 1 - source["b"] / source["a"])
    add("HALF_LIGHT", (field.half_light if field else x) * scale, "arcsec")
    size = field.half_light / field.locus if field else x
    add("SIZE_RATIO", size)
    add("STAR", (np.abs(np.log(np.maximum(size, 1e-3))) < 0.3), kind="L")
    add("PEAK", source["peak"])
    add("FLAGS", flags, kind="J")
    used = np.zeros(n, bool)
    add("ZP_STAR", used, kind="L")
    table = fits.BinTableHDU.from_columns(columns, name="SOURCES")
    for k, radius in enumerate(radii, start=1):
        table.header[f"APRAD{k}"] = (radius * scale, f"[arcsec] radius of APER{k}")
    if field is not None:
        table.header["APRADP"] = (field.aperture * scale, "[arcsec] aperture of POINT")
        fraction = float(field.growth.fraction(field.aperture))
        table.header["APCOR"] = (2.5 * np.log10(fraction), "[mag] correction of POINT to total")
        table.header["APCORERR"] = (1.0857 * field.growth.error, "[mag] its error")
    return table


def map_hdus(coadd):
    """Return what else the sources were measured with, for those who measure again.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`.

    Returns
    -------
    list of ImageHDU, CompImageHDU
        ``BACKGROUND``, the meshes of the background; ``OCCUPIED``, shape (ny, nx), 1 for pixels
        that belong to sources, with a rim, and those without weight.
    """
    occupied = coadd["occupied"].astype(np.uint8)
    # A row a tile, as is usual, takes four times as long to write and to read.
    tile = (min(64, occupied.shape[0]), occupied.shape[1])
    return [
        fits.ImageHDU(coadd["mesh"], name="BACKGROUND"),
        fits.CompImageHDU(occupied, name="OCCUPIED", compression_type="RICE_1", tile_shape=tile),
    ]


def significant(table, least):
    """Return a source table without what is likely noise, and numbered anew.

    Parameters
    ----------
    table : astropy.io.fits.BinTableHDU
    least : float
        Least S/N of a source. Where it is not known, the source stays.
    """
    rows = table.data[~(table.data["SNR"] < least)]
    rows["NUMBER"] = np.arange(1, len(rows) + 1)
    return fits.BinTableHDU(rows, table.header, name="SOURCES")
