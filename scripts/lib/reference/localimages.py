"""Images of a sky survey in a folder: which of them covers a field, and its pixels."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.sphere import deproject, separation
from lib.core.text import card_text, shown
from lib.core.wcs import pixel_scale
from lib.reference.imagesurveys import asinh_to_flux

log = logging.getLogger("autoproc")

SUFFIXES = (".fits", ".fit", ".fts", ".fits.fz", ".fits.gz")

MOST_FILES = 5000
"""Files of a folder that are looked at."""

BESIDE_IMAGES = re.compile(
    r"(^|[._-])(mask|maskbits|wt|wht|weight|weights|invvar|exp|nexp|num|depth|galdepth|psfsize|"
    r"chi2|model|blobmodel|rms|var|variance)([._-]|$)",
    re.IGNORECASE,
)
"""Names of maps that surveys hand out beside an image."""

FILTER_CARDS = ("FILTER", "FPA.FILTER", "FILTER1", "BAND", "FILTNAM")

ZERO_POINT_CARDS = ("MAGZERO", "MAGZPT", "ABSZPT", "ZEROPNT", "MAGZP")

GRID = 15
"""Points across a field at which coverage is counted."""


@dataclass(frozen=True)
class LocalImage:
    """An image of a folder that covers at least part of a field.

    Parameters
    ----------
    path : Path
    extension : int
    covered : float
        Fraction of the field inside the image.
    scale : float
        Pixel [arcsec].
    zero_point : float or None
        AB magnitude of a pixel sum of 1, by its header.
    """

    path: Path
    extension: int
    covered: float
    scale: float
    zero_point: float | None

    def cut(self, ra: float, dec: float, size: float) -> fits.PrimaryHDU:
        """Return the pixels of a square field, as they are but in fluxes, with their WCS.

        Parameters
        ----------
        ra, dec, size : float
            Centre and side [deg].
        """
        with fits.open(self.path) as found:
            hdu = found[self.extension]
            wcs = WCS(hdu.header, naxis=2)
            ny, nx = hdu.shape
            x, y = wcs.all_world2pix(*_grid(ra, dec, size), 0, quiet=True)
            left, low = (max(int(np.floor(np.nanmin(v))), 0) for v in (x, y))
            right = min(int(np.ceil(np.nanmax(x))) + 1, nx)
            top = min(int(np.ceil(np.nanmax(y))) + 1, ny)
            values = np.asarray(hdu.section[low:top, left:right], float)
            if "BSOFTEN" in hdu.header:
                values = asinh_to_flux(
                    values, hdu.header["BSOFTEN"], hdu.header.get("BOFFSET", 0.0)
                )
            header = wcs[low:top, left:right].to_header(relax=True)
            for key in ("EXPTIME", "GAIN", "BUNIT", "DATE-OBS", "MJD-OBS", "DATE-BEG", "DATE-END"):
                if key in hdu.header:
                    header[key] = (hdu.header[key], hdu.header.comments[key])
        header["TPLFILE"] = card_text(self.path.name)
        return fits.PrimaryHDU(values.astype(np.float32), header)


def find_image(
    folder: str | Path, band: str, centre: tuple[float, float], size: float
) -> LocalImage | str:
    """Return the image of a band that covers most of a field; else a sentence why there is none.

    The band is what the header says, else what the name says (``…stk.r.unconv.fits``,
    ``…-image-r.fits.fz``) or the folder (``r/``). Of images that cover as much, the finer wins.

    Parameters
    ----------
    folder : path-like
    band : str
    centre : tuple of float
        [deg]
    size : float
        Side of the field [deg].
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        return f"{shown(folder)} is no folder"
    seen = of_band = 0
    nearest = np.inf
    best: LocalImage | None = None
    for path in _files(folder):
        seen += 1
        for extension, header in _images(path):
            if _band_of(header, path) != band:
                continue
            of_band += 1
            covered, away = _coverage(header, centre, size)
            nearest = min(nearest, away)
            if covered == 0.0:
                continue
            one = LocalImage(path, extension, covered, pixel_scale(WCS(header, naxis=2)),
                             _zero_point(header))  # fmt: skip
            if best is None or (one.covered, -one.scale) > (best.covered, -best.scale):
                best = one
    if best is not None:
        return best
    if not of_band:
        return f"{shown(folder)}: no image of band {band} among {seen} files"
    return (
        f"{shown(folder)}: none of {of_band} images of band {band} covers {centre[0]:.4f} "
        f"{centre[1]:+.4f}; the nearest is {nearest:.2f} deg away"
    )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those below it that may be images."""
    found = (
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(SUFFIXES) and not BESIDE_IMAGES.search(path.name)
    )
    for k, path in enumerate(found):
        if k == MOST_FILES:
            return
        yield path


def _images(path: Path) -> Iterator[tuple[int, fits.Header]]:
    """Yield each plane with a celestial WCS of a file; none where it is unreadable."""
    try:
        with fits.open(path, lazy_load_hdus=True) as found:
            for extension, hdu in enumerate(found):
                if hdu.is_image and len(hdu.shape) == 2 and 0 not in hdu.shape:
                    header = hdu.header.copy()
                    if extension:
                        header.extend(found[0].header, unique=True, strip=True, update=False)
                    if WCS(header, naxis=2).has_celestial:
                        yield extension, header
    except (OSError, ValueError, TypeError, KeyError, IndexError, fits.VerifyError) as why:
        log.info("%s: passed over: %s", shown(path), shown(why))


def _band_of(header: fits.Header, path: Path) -> str | None:
    """Return the band of an image: as its header says, else its name, else its folder."""
    for key in FILTER_CARDS:
        value = str(header.get(key, "")).strip()
        if value:
            # "r.00000" of Pan-STARRS, "r DECam SDSS c0002 6415.0 1480.0" of DECam
            return re.split(r"[\s._-]", value)[0]
    name = path.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    words = [word for word in re.split(r"[._-]", name) if re.fullmatch(r"[ugrizyvY]", word)]
    if words:
        return words[-1]
    return path.parent.name if len(path.parent.name) == 1 else None


def _grid(ra: float, dec: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return positions [deg] evenly over a square field."""
    steps = np.linspace(-0.5, 0.5, GRID) * size * 3600.0
    east, north = (axis.ravel() for axis in np.meshgrid(steps, steps))
    return deproject(np.column_stack([east, north]), ra, dec)


def _coverage(header: fits.Header, centre: tuple[float, float], size: float) -> tuple[float, float]:
    """Return the fraction of a field inside an image, and how far its centre is off [deg]."""
    wcs = WCS(header, naxis=2)
    nx, ny = _shape(header)
    middle = wcs.all_pix2world([[(nx - 1) / 2, (ny - 1) / 2]], 0)[0]
    away = float(separation(*centre, *middle))
    if not away < 90:
        return 0.0, away
    # Without the distortion, which a few pixels beyond an edge may run wild.
    x, y = wcs.wcs_world2pix(*_grid(*centre, size), 0)
    inside = (x > -0.5) & (x < nx - 0.5) & (y > -0.5) & (y < ny - 0.5)
    return float(inside.mean()), away


def _shape(header: fits.Header) -> tuple[int, int]:
    """Return the pixels along x and y of an image, compressed or not."""
    if header.get("ZIMAGE"):
        return header["ZNAXIS1"], header["ZNAXIS2"]
    return header["NAXIS1"], header["NAXIS2"]


def _zero_point(header: fits.Header) -> float | None:
    """Return the AB zero point that a header states, or None."""
    for key in ZERO_POINT_CARDS:
        value: Any = header.get(key)
        if isinstance(value, (int, float)) and np.isfinite(value):
            return float(value)
    exposure = header.get("EXPTIME")
    if "BSOFTEN" in header and isinstance(exposure, (int, float)) and exposure > 0:
        # stacks of Pan-STARRS1
        return 25.0 + 2.5 * float(np.log10(exposure))
    return None
