"""The source table of a coadd."""

import numpy as np
import sep
from astropy.io import fits

from lib.photometry import aperture_fluxes


def source_table(coadd, wcs, zeropoint, gain, scale, settings):
    """Return the table of all sources of a coadd.

    Parameters
    ----------
    coadd : dict
        Of `calibrate_weight`.
    wcs : astropy.wcs.WCS
    zeropoint : lib.zeropoint.Zeropoint
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
        point, _, _ = sep.sum_circle(coadd["variance"], x, y, field.aperture, subpix=5)
        photon = np.maximum(field.flux, 0) / gain
        variance = np.maximum(point, 0) * ratio**2 + photon
        fraction = float(field.growth.fraction(field.aperture))
        total, total_error = field.flux / fraction, np.sqrt(variance) / fraction
    else:
        total = total_error = x
    add("FLUX_POINT", total)
    add("FLUXERR_POINT", total_error)
    magnitudes("POINT", total, total_error)
    with np.errstate(divide="ignore", invalid="ignore"):
        add("SNR", np.where(total_error > 0, total / total_error, np.nan))
    # Kron's automatic aperture (Kron 1980, as in Bertin & Arnouts 1996).
    if n:
        a, b = np.maximum(source["a"], 0.5), np.maximum(source["b"], 0.5)
        theta = np.clip(source["theta"], -np.pi / 2, np.pi / 2)
        kron, kron_flag = sep.kron_radius(
            coadd["image"], x, y, a, b, theta, 6.0, seg_id=np.arange(1, n + 1),
            segmap=field.segments,
        )  # fmt: skip
        kron = np.where(np.isfinite(kron) & (kron > 0), kron, 1.4)
        stretch = np.maximum(2.5 * kron, 3.5 / np.sqrt(a * b))
        auto, auto_error, auto_flag = sep.sum_ellipse(
            coadd["image"], x, y, a, b, theta, stretch, err=noise, gain=gain, subpix=5,
            seg_id=np.arange(1, n + 1), segmap=field.segments,
        )  # fmt: skip
        flags = field.flags | (auto_flag & 16).astype(np.int32) | (kron_flag & 128).astype(np.int32)
        kron_radius = stretch * a * scale
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
            empty, _, _ = sep.sum_circle(coadd["variance"], x, y, radius, subpix=5)
            ratio = np.interp(radius, coadd["radii"], coadd["ratios"])
            error = np.sqrt(np.maximum(empty, 0) * ratio**2 + np.maximum(flux, 0) / gain)
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
