"""Small star fields of known truth: frames as the stack takes them, and their reference."""

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from lib.frame.file import Frame, write_frame
from lib.photometry.psf import moffat_alpha

RA, DEC = 150.0, 20.0
SCALE = 0.4  # arcsec per pixel
SIZE = 420
ZP = 25.0  # magnitude of one electron per second
BETA = 3.0


def make_stars(rng, number=90, faint=20.5, bright=15.8, half=0.021):
    """Return a star table: ra, dec, mag and colour."""
    return {
        "ra": RA + rng.uniform(-half, half, number) / np.cos(np.radians(DEC)),
        "dec": DEC + rng.uniform(-half, half, number),
        "mag": faint - (faint - bright) * rng.power(0.7, number) ** 1.5,
        "colour": rng.normal(0.7, 0.3, number),
    }


def make_header(angle=3.0, shift=(0.0, 0.0), exptime=60.0, scale=SCALE, size=SIZE, read_noise=8.0):
    header = fits.Header()
    t = np.radians(angle)
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = RA, DEC
    header["CRPIX1"], header["CRPIX2"] = size / 2 + shift[0], size / 2 + shift[1]
    step = scale / 3600
    header["CD1_1"], header["CD1_2"] = -step * np.cos(t), step * np.sin(t)
    header["CD2_1"], header["CD2_2"] = step * np.sin(t), step * np.cos(t)
    header["EXPTIME"] = exptime
    header["GAIN"], header["RDNOISE"], header["SATURATE"] = 1.0, read_noise, 60000.0
    header["INSTRUME"], header["FILTER"], header["BAND"] = "test", "r", "r"
    header["OBJECT"] = "truth"
    header["ASTRCAT"] = "truth"
    header["BUNIT"] = "electron"
    return header


def make_image(
    rng, header, stars, *, fwhm=3.5, transparency=1.0, sky=400.0, ellipticity=0.0, colour_term=0.0,
    size=SIZE,
):  # fmt: skip
    """Return a sky-subtracted image with photon and read noise."""
    truth = np.zeros((size, size))
    x, y = WCS(header).all_world2pix(stars["ra"], stars["dec"], 0)
    mag = stars["mag"] + colour_term * (stars["colour"] - 0.7)
    flux = 10 ** (-0.4 * (mag - ZP)) * header["EXPTIME"] * transparency
    alpha = moffat_alpha(fwhm, BETA)
    sub = (np.arange(3) - 1) / 3  # 3 x 3 points per pixel stand for its area
    stretch = 1.0 / (1.0 - ellipticity)
    for xs, ys, f in zip(x, y, flux, strict=True):
        half = 45
        x0, x1 = max(0, int(xs) - half), min(size, int(xs) + half + 1)
        y0, y1 = max(0, int(ys) - half), min(size, int(ys) + half + 1)
        if x0 >= x1 or y0 >= y1:
            continue
        xx = np.arange(x0, x1)[:, None] + sub
        yy = np.arange(y0, y1)[:, None] + sub
        r2 = ((xx - xs) / stretch)[None, None] ** 2 + (yy - ys)[:, :, None, None] ** 2
        profile = (BETA - 1) / (np.pi * alpha**2 * stretch) * (1 + r2 / alpha**2) ** -BETA
        truth[y0:y1, x0:x1] += f * profile.mean(axis=(1, 3))
    image = rng.poisson(truth + sky) - sky + rng.normal(0, header["RDNOISE"], truth.shape)
    return image.astype(np.float32)


def write_night(folder, rng, stars, number=5, *, scale=SCALE, read_noise=8.0, **variation):
    """Write frames; `variation` gives lists of one value per frame."""
    paths = []
    for i in range(number):
        value = {key: values[i] for key, values in variation.items()}
        exptime = value.pop("exptime", 60.0)
        sky = value.setdefault("sky", 400.0 * exptime / 60)
        shift = rng.uniform(-12, 12, 2)
        header = make_header(
            angle=rng.uniform(-4, 4), shift=shift, exptime=exptime, scale=scale,
            read_noise=read_noise,
        )  # fmt: skip
        image = make_image(rng, header, stars, **value)
        header["SKYSUB"] = sky
        header["SATURATE"] -= sky
        header["FRAME"] = f"2022010{i}T000000C0o"
        header["RAWFILE"] = f"2022010{i}T000000C0o.fits"
        header["DATE-OBS"] = f"2022-01-0{i + 1}T00:00:00.000"
        header["MJD-OBS"] = 59580.0 + i
        header["AIRMASS"] = 1.1 + 0.1 * i
        bits = np.zeros(image.shape, np.uint8)
        path = folder / f"azsfp{header['FRAME']}.fits"
        write_frame(path, Frame(image, bits, header))
        paths.append(path)
    return paths


def write_reference(path, rng, stars, error=0.01, rows=None, source="truth"):
    rows = slice(None) if rows is None else rows
    mag = stars["mag"][rows]
    table = Table()
    table["ra"], table["dec"] = stars["ra"][rows], stars["dec"][rows]
    table["r"] = mag + rng.normal(0, error, mag.size)
    table["r_err"] = np.full(mag.size, error)
    table["g"] = table["r"] + stars["colour"][rows] + rng.normal(0, error, mag.size)
    table["g_err"] = np.full(mag.size, error)
    table.meta["source"] = source
    table.write(path, format="ascii.ecsv")
    return path
