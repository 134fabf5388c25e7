"""Templates from sky surveys: an image of a field, by hips2fits of the CDS or from a folder."""

import io
import json
import logging
import math
import re
import warnings
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.files import atomic_path
from lib.core.settings import ReferenceSettings
from lib.core.sphere import project
from lib.core.text import card_text, shown
from lib.reference.imagesurveys import IMAGE_SURVEYS, ImageSurvey, asinh_to_flux
from lib.reference.localimages import LocalImage, find_image
from lib.reference.vizier import ReferenceUnavailable
from lib.reference.votable import AnswerError

log = logging.getLogger("autoproc")

SERVICE = "hips-image-services/hips2fits"
"""Path of the service on its servers."""

MAX_PIXELS = 16_000_000
"""Most pixels of one answer: 64 MB."""

LARGEST = 1.0
"""[deg] Largest side of a template."""

COARSEST_ASINH = 1.0
"""[arcsec] Asinh magnitudes that were averaged over larger pixels are no fluxes any more."""

MARGIN = 0.01
"""[deg] By which a cutout is wider than asked, so that it serves other pointings too."""


class CutoutError(ValueError):
    """A template that no server can give: another band, outside of the survey, too large."""


@dataclass(frozen=True)
class Box:
    """A square on the sky, north up.

    Parameters
    ----------
    ra, dec : float
        Centre [deg].
    size : float
        Side [deg].
    scale : float
        Pixel [arcsec].
    """

    ra: float
    dec: float
    size: float
    scale: float

    @property
    def pixels(self) -> int:
        """Pixels of a side."""
        return math.ceil(self.size * 3600.0 / self.scale - 1e-6)

    def wcs(self, finer: int = 1) -> WCS:
        """Return the gnomonic WCS of the square with pixels `finer` times as small."""
        wcs = WCS(naxis=2)
        side = self.pixels * finer
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = [self.ra, self.dec]
        wcs.wcs.crpix = [(side + 1) / 2, (side + 1) / 2]
        wcs.wcs.cdelt = [-self.scale / finer / 3600.0, self.scale / finer / 3600.0]
        wcs.wcs.radesys = "ICRS"
        wcs.pixel_shape = (side, side)
        return wcs

    def holds(self, other: "Box") -> bool:
        """Return whether another square lies within this one, at the same scale."""
        ((east, north),) = np.abs(project(other.ra, other.dec, self.ra, self.dec)) / 3600.0
        away = np.fmax(east, north)
        same = abs(self.scale - other.scale) < 1e-3 * other.scale
        return bool(same and away + other.size / 2 <= self.size / 2 + 3e-5)


def survey_cutout(
    survey: str,
    band: str,
    centre: tuple[float, float],
    size: float,
    scale: float,
    cache: str | Path,
    *,
    folder: str | Path | None = None,
    settings: ReferenceSettings | None = None,
) -> Path:
    """Return a template image of a field from a sky survey.

    Its header has SURVEY, FILTER (the survey's), HIPSID or TPLFILE, DATE-BEG and DATE-END of the
    survey's exposures, COVERAGE, and MAGZERO (AB) where it is known; where not, ZPREASON says why.

    Parameters
    ----------
    survey : str
        A key of `IMAGE_SURVEYS`.
    band : str
        One of `lib.core.bands.BANDS`; R and I get the survey's r and i.
    centre : tuple of float
        Right ascension and declination [deg, ICRS].
    size : float
        Side of the square [deg].
    scale : float
        Pixel [arcsec] of what is asked of servers; an image of a folder keeps its own.
    cache : path-like
        Folder of the templates; what is there already is not asked for again.
    folder : path-like, optional
        Images of the survey, looked in first.
    settings : ReferenceSettings, optional
        Servers (`cutout_servers`; none: nothing is asked for) and the time for one answer.

    Returns
    -------
    Path
        A FITS file in `cache`; fluxes in the primary image, NaN where the survey has none.

    Raises
    ------
    CutoutError
        The cutout is not available; one sentence says why.
    lib.reference.vizier.ReferenceUnavailable
        No server answers, and neither folder nor cache has the field; perhaps later.
    """
    settings = settings or ReferenceSettings()
    images, name = _survey_band(survey, band)
    box = _checked(images, centre, size, scale)
    said = []
    if folder is not None:
        found = find_image(folder, name, centre, size)
        if isinstance(found, LocalImage):
            return _from_folder(images, survey, name, box, found, Path(cache))
        said.append(found)
    path = find_cutout(cache, survey, name, box)
    if path is not None:
        return path
    wide = Box(
        round(box.ra, 2) % 360.0,
        round(box.dec, 2),
        math.ceil((box.size + 2 * MARGIN) * 50 - 1e-6) / 50,
        scale,
    )
    if not settings.cutout_servers:
        said.append(
            f"{images.title} {name}: no image of {box.ra:.4f} {box.dec:+.4f} in {shown(cache)}, "
            "and no server may be asked"
        )
    for server in settings.cutout_servers:
        try:
            content = query_cutout(images, name, wide, server, settings.timeout)
            hdu = make_template(images, name, wide, content, server)
        except AnswerError as why:
            log.warning("%s", why)
            said.append(str(why))
            continue
        path = Path(cache) / cutout_name(survey, name, wide)
        write_template(path, hdu)
        log.info("%s %s from %s: %s", images.title, name, server, path.name)
        return path
    raise ReferenceUnavailable("; ".join(said))


def cutout_settings(refcat: str, settings: ReferenceSettings) -> ReferenceSettings:
    """Return the settings of cutouts: where ``refcat: offline`` says so, nothing is asked for."""
    return replace(settings, cutout_servers=()) if refcat == "offline" else settings


def _survey_band(survey: str, band: str) -> tuple[ImageSurvey, str]:
    if survey not in IMAGE_SURVEYS:
        raise CutoutError(f"no survey '{shown(survey)}': write one of {', '.join(IMAGE_SURVEYS)}")
    images = IMAGE_SURVEYS[survey]
    name = images.band(band)
    if name is None:
        raise CutoutError(
            f"{images.title} has no image near band '{shown(band)}': it has "
            f"{', '.join(images.hips)}"
        )
    return images, name


def _checked(images: ImageSurvey, centre: tuple[float, float], size: float, scale: float) -> Box:
    ra, dec = centre
    if not (math.isfinite(ra) and -90 <= dec <= 90):
        raise CutoutError(f"no position on the sky: {ra} {dec}")
    if not (size > 0 and scale > 0):
        raise CutoutError(f"no size of a template: {size} deg with pixels of {scale} arcsec")
    if size > LARGEST:
        raise CutoutError(f"a template of {size:.2f} deg is larger than {LARGEST:g} deg")
    south, north = images.declinations
    if not south <= dec <= north:
        raise CutoutError(
            f"{images.title} reaches from declination {south:+g} to {north:+g}, not {dec:+.2f}"
        )
    box = Box(ra % 360.0, dec, size, scale)
    if box.pixels**2 > MAX_PIXELS:
        raise CutoutError(f"a template of {box.pixels} x {box.pixels} pixels is too large")
    return box


# --- what servers give -------------------------------------------------------------------------


def oversampling(images: ImageSurvey, band: str, box: Box) -> int:
    """Return how much finer than the template's the pixels are that a server is asked for.

    As fine as the survey's own where that is not too much: hips2fits takes the value of the HiPS
    at the centre of each pixel, so coarser ones would lose most of the light.

    Raises
    ------
    CutoutError
        Too coarse for a survey of asinh magnitudes.
    """
    most = max(1, int(math.sqrt(MAX_PIXELS) / box.pixels))
    finer = min(max(1, round(box.scale / images.pixel)), most)
    if band in images.asinh and box.scale / finer > COARSEST_ASINH:
        raise CutoutError(
            f"{images.title} {band} holds magnitudes: over {box.size:.2f} deg they cannot be had "
            f"in pixels of {COARSEST_ASINH:g} arcsec or less; take a smaller field"
        )
    return finer


def query_cutout(images: ImageSurvey, band: str, box: Box, server: str, timeout: float) -> bytes:
    """Ask one server for an image.

    Parameters
    ----------
    images : ImageSurvey
    band : str
    box : Box
    server : str
        Host name, or an address with ``http://`` for a local mirror.
    timeout : float
        Seconds for the whole answer.

    Returns
    -------
    bytes
        A FITS file, as it came.

    Raises
    ------
    AnswerError
        No connection, a time-out, an HTTP error, or something that is not a FITS file.
    """
    import requests
    from astroquery.hips2fits import hips2fitsClass

    from lib.reference.session import (
        BoundedSession,
        OtherHost,
        TimeLimitReached,
        TooLong,
        last_cause,
        time_limit,
    )

    what = f"{server}: {images.hips[band]}"
    wcs = box.wcs(oversampling(images, band, box))
    client = hips2fitsClass()
    client.server = f"{server if '://' in server else 'https://' + server}/{SERVICE}"
    client.timeout = timeout
    session = BoundedSession(8 * wcs.pixel_shape[0] ** 2 + (1 << 20))
    session.headers["User-Agent"] = client._session.headers["User-Agent"]
    client._session = session
    fixed = {
        "format": "fits",
        "min_cut": 0.5,
        "max_cut": 99.5,
        "stretch": "linear",
        "cmap": "Greys_r",
    }
    try:
        with time_limit(timeout):
            response = client.query_with_wcs_async(hips=images.hips[band], wcs=wcs, **fixed)
    except (TimeLimitReached, requests.Timeout) as why:
        raise AnswerError(f"{what}: timed out ({why})", lasting=True) from why
    except (OtherHost, TooLong) as why:
        raise AnswerError(f"{what}: {why}", lasting=True) from why
    except requests.RequestException as why:
        raise AnswerError(f"{what}: no answer ({last_cause(why)})", lasting=True) from why
    return check_image_answer(response, what)


def check_image_answer(response: Any, what: str) -> bytes:
    """Return the content of an HTTP response; raise `AnswerError` unless a FITS file begins."""
    content = response.content
    if response.status_code != 200:
        raise AnswerError(f"{what}: HTTP {response.status_code} {response.reason}{_told(content)}")
    if not content.strip():
        raise AnswerError(f"{what}: an answer without content")
    if not content.startswith(b"SIMPLE  ="):
        raise AnswerError(f"{what}: not a FITS file but {content[:60]!r}{_told(content)}")
    return content


def _told(content: bytes) -> str:
    """Return the service's description of an error: JSON of a title and a description."""
    try:
        told = json.loads(content[:10_000])
        words = [str(told[key]) for key in ("title", "description") if told.get(key)]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return ""
    return f" ({': '.join(words)})" if words else ""


def make_template(
    images: ImageSurvey, band: str, box: Box, content: bytes, server: str
) -> fits.PrimaryHDU:
    """Return the template that an answer holds, in fluxes per pixel.

    Parameters
    ----------
    images : ImageSurvey
    band : str
    box : Box
        The requested region.
    content : bytes
        The FITS file.
    server : str
        For messages and the header.

    Raises
    ------
    AnswerError
        Broken, of another shape or place, or without a pixel of the survey.
    """
    what = f"{server}: {images.hips[band]}"
    finer = oversampling(images, band, box)
    values = _pixels(content, box.wcs(finer), what)
    if band in images.asinh:
        values = asinh_to_flux(values)
    side = box.pixels
    known = np.isfinite(values)
    blocks = np.where(known, values, 0.0).reshape(side, finer, side, finer)
    count = known.reshape(side, finer, side, finer).sum(axis=(1, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(2 * count > finer**2, blocks.sum(axis=(1, 3)) / count, np.nan)
    # The values are fluxes in a pixel of the survey, the template's are in its own.
    image = (mean * (box.scale / images.pixel) ** 2).astype(np.float32)
    covered = float(np.isfinite(image).mean())
    if covered == 0.0:
        raise AnswerError(f"{what}: no image of {box.ra:.4f} {box.dec:+.4f}")
    header = box.wcs().to_header()
    header["HIPSID"] = (images.hips[band], "HiPS that the image is from")
    header["ORIGIN"] = (card_text(server), "server of hips2fits")
    header["OVERSAMP"] = (finer, "pixels asked for in one of these, each way")
    _describe(header, images, band, covered)
    if images.zero_point is None:
        header["ZPREASON"] = (images.reason, "no zero point")
    else:
        header["MAGZERO"] = (images.zero_point, "[mag] AB, of a sum of pixels of 1")
        header["BUNIT"] = images.unit
    return fits.PrimaryHDU(image, header)


def _pixels(content: bytes, wcs: WCS, what: str) -> np.ndarray:
    """Return the image of an answer in float64, NaN where blank, once it is what was asked for."""
    try:
        with warnings.catch_warnings(action="ignore"), fits.open(io.BytesIO(content)) as found:
            header, shape = found[0].header, wcs.pixel_shape[::-1]
            size = tuple(header.get(f"NAXIS{k}") for k in range(header["NAXIS"], 0, -1))
            if size != shape:
                raise AnswerError(f"{what}: an image of {size} pixels, not {shape}")
            if len(content) < found[0].fileinfo()["datLoc"] + found[0].size:
                raise AnswerError(f"{what}: the answer breaks off after {len(content)} bytes")
            values = np.asarray(found[0].data, float)
            got = WCS(header)
    except AnswerError:
        raise
    except Exception as why:  # astropy raises about anything on what is no FITS file
        raise AnswerError(f"{what}: unreadable FITS file ({type(why).__name__}: {why})") from why
    corners = np.array([[0, 0], [shape[1] - 1, 0], [0, shape[0] - 1]], float)
    try:
        off = np.abs(wcs.wcs_world2pix(got.wcs_pix2world(corners, 0), 0) - corners).max()
    except Exception as why:
        raise AnswerError(f"{what}: no WCS ({type(why).__name__})") from why
    if not off < 1.0:
        raise AnswerError(f"{what}: an image of another part of the sky ({off:.1f} pixels off)")
    return values


def _describe(header: fits.Header, images: ImageSurvey, band: str, covered: float) -> None:
    """Set the cards that all templates of a survey have."""
    header["SURVEY"] = images.title
    header["FILTER"] = (band, "band of the survey")
    header["DATE-BEG"] = (images.dates[0], "first exposures of the survey")
    header["DATE-END"] = (images.dates[1], "last exposures of the survey")
    header["MAGSYS"] = "AB"
    header["COVERAGE"] = (round(covered, 4), "fraction of pixels with data")
    header["DATE"] = (f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}", "UTC, this file was written")


# --- the cache --------------------------------------------------------------------------------


def cutout_name(survey: str, band: str, box: Box) -> str:
    """Return the name of the file of a cutout."""
    return f"{survey}.{band}_{box.ra:08.4f}{box.dec:+08.4f}_s{box.size:.3f}_p{box.scale:.4f}.fits"


def find_cutout(cache: str | Path, survey: str, band: str, box: Box) -> Path | None:
    """Return the smallest whole file of the cache that holds a square, or None."""
    form = re.compile(
        re.escape(f"{survey}.{band}_")
        + r"(\d{3}\.\d{4})([+-]\d{2}\.\d{4})_s(\d\.\d{3})_p(\d+\.\d{4})\.fits"
    )
    fit = []
    for path in Path(cache).glob(f"{survey}.{band}_*.fits"):
        found = form.fullmatch(path.name)
        if found:
            there = Box(*map(float, found.groups()))
            if there.holds(box):
                fit.append((there.size, path))
    for _, path in sorted(fit):
        if _is_whole(path):
            return path
        log.warning("%s: damaged, asked for again", path)
    return None


def _is_whole(path: Path) -> bool:
    """Return whether a template is as it was written, by its checksums."""
    try:
        # warnings of a file too short, of a checksum that is another
        with warnings.catch_warnings(action="ignore"):
            with fits.open(io.BytesIO(path.read_bytes())) as found:
                primary = found[0]
                return bool(primary.verify_checksum() == 1 and primary.verify_datasum() == 1)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def write_template(path: Path, hdu: fits.PrimaryHDU) -> None:
    """Write a template with its checksums, whole or not at all."""
    with atomic_path(path) as beside:
        hdu.writeto(beside, overwrite=True, checksum=True)


# --- what a folder gives -----------------------------------------------------------------------


def _from_folder(
    images: ImageSurvey, survey: str, band: str, box: Box, found: LocalImage, cache: Path
) -> Path:
    """Write the part of a folder's image that a square covers, with the cards of its survey."""
    hdu = found.cut(box.ra, box.dec, box.size)
    covered = float(np.isfinite(hdu.data).mean())
    if covered == 0.0:
        raise CutoutError(f"{found.path}: no pixel with data at {box.ra:.4f} {box.dec:+.4f}")
    own = {key: hdu.header[key] for key in ("DATE-BEG", "DATE-END") if key in hdu.header}
    _describe(hdu.header, images, band, covered)
    hdu.header.update(own)
    zero_point = found.zero_point if found.zero_point is not None else images.zero_point
    if zero_point is None:
        hdu.header["ZPREASON"] = ("not in the header of the image", "no zero point")
    else:
        hdu.header["MAGZERO"] = (zero_point, "[mag] AB, of a sum of pixels of 1")
    path = cache / f"{survey}.{band}_{box.ra:08.4f}{box.dec:+08.4f}_s{box.size:.3f}_folder.fits"
    write_template(path, hdu)
    log.info("%s %s from %s (covers %.0f %%)", images.title, band, found.path, 100 * covered)
    return path
