"""The template: an earlier coadd, a file with celestial coordinates, on the grid of the coadd."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sep
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.wcs import frame_outline
from lib.difference.planes import Plane
from lib.frame.file import FrameRejected
from lib.photometry.backgroundmesh import (
    background,
    background_without,
    grow,
    spread_mesh,
)
from lib.photometry.emptyapertures import aperture_noise, empty_apertures, summed_area
from lib.photometry.psf import Wings, moffat_alpha
from lib.photometry.sources import detect_sources
from lib.stack.resample import resample

log = logging.getLogger("autoproc")

MARGIN = 64
"""[pixel] By which the part of a template that is read reaches beyond the coadd."""

SATURATION_KEYS = ("SATURATE", "SATLEVEL", "CELL.SATURATION")
GAIN_KEYS = ("GAIN", "EGAIN", "CELL.GAIN")
ZEROPOINT_KEYS = ("ABSZPT", "MAGZERO", "MAGZPT", "MAGZP")
WEIGHT_NAMES = ("WEIGHT", "WHT", "IVAR")
"""Names of extensions that hold the inverse variance."""

CORE_LEVEL = 0.5
"""[saturation] What is brighter, and has no weight, is the core of a saturated star."""

BOX = 128
"""[pixel] Mesh of the background."""

LEAST_BETA = 2.0
"""Exponent of the profile of stars, at least: less steep wings are no star's."""

LEAST_COVER = 0.02
"""Part of the coadd that a template must cover."""


@dataclass(frozen=True)
class TemplateFile:
    """The pixels of a template as its file has them.

    Parameters
    ----------
    image, weight : ndarray of float32, shape (ny, nx)
        The weight is the inverse variance of a pixel; 0 where there is no data.
    wcs : astropy.wcs.WCS
        WCS, with the size of the image.
    header : astropy.io.fits.Header
    saturate, gain : float
        NaN and 0 where not known.
    measured_noise : bool
        Whether the weight was measured here, for want of a map.
    """

    image: np.ndarray
    weight: np.ndarray
    wcs: WCS
    header: fits.Header
    saturate: float = np.nan
    gain: float = 0.0
    measured_noise: bool = False


@dataclass(frozen=True)
class Template:
    """A template on the grid of a coadd.

    Parameters
    ----------
    plane : Plane
        Image in the units of its file.
    segments : ndarray of bool, shape (ny, nx)
        Pixels of its sources.
    name : str
        Name of the file.
    header : astropy.io.fits.Header
    remarks : list of str
        Remarks for the user.
    """

    plane: Plane
    segments: np.ndarray
    name: str
    header: fits.Header
    remarks: list[str] = field(default_factory=list)

    @property
    def zeropoint(self) -> float:
        """Magnitude of one unit, by its header; NaN where that tells none."""
        return first_number(self.header, ZEROPOINT_KEYS)

    @property
    def date(self) -> str:
        """When it was taken, as its header has it; empty where it does not."""
        return str(self.header.get("DATE-OBS") or self.header.get("DATE-END") or "")

    @property
    def end(self) -> float:
        """End of its last exposure, MJD; NaN where not known."""
        return first_number(self.header, ("MJD-END", "MJD-AVG", "MJD-OBS"))

    @property
    def title(self) -> str:
        """Name of the survey and its filter, else that of the file."""
        survey = str(self.header.get("SURVEY", "") or "")
        return f"{survey} {self.header.get('FILTER', '')}".strip() if survey else self.name


def first_number(header: fits.Header, keys: Sequence[str]) -> float:
    """Return the first of some cards that holds a number; NaN where none does."""
    for key in keys:
        value = header.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            return float(value)
    return np.nan


def read_template(path: str | Path, grid: WCS) -> TemplateFile:
    """Read the part of a template that a coadd covers.

    Parameters
    ----------
    path : path-like
        FITS, with the image in the first HDU that has one with celestial coordinates. Its weight
        is in an extension WEIGHT, WHT or IVAR, or in ``<stem>.weight.fits`` beside it; what
        extension MASK marks is not used.
    grid : astropy.wcs.WCS
        WCS of the coadd, with its size.

    Returns
    -------
    TemplateFile

    Raises
    ------
    FrameRejected
        NO_TEMPLATE: it cannot be read. TEMPLATE_ELSEWHERE: it does not cover the coadd.
    """
    path = Path(path)
    try:
        with fits.open(path) as hdus, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hdu = next((one for one in hdus if _is_image(one)), None)
            if hdu is None and hdus[0].header.get("QCREASON"):
                raise FrameRejected("NO_TEMPLATE", str(hdus[0].header["QCREASON"]))
            if hdu is None:
                raise FrameRejected(
                    "NO_TEMPLATE", f"{path.name} has no image with celestial coordinates"
                )
            header = hdu.header.copy()
            whole = hdus[0].header
            wcs = WCS(header, hdus, naxis=2)
            wcs.pixel_shape = hdu.shape[::-1]
            part = part_covered(wcs, grid, path.name)
            image = np.asarray(hdu.data[part], np.float32)
            weight, bad = _maps(hdus, path, hdu.shape, part)
    except (OSError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())[:80]
        raise FrameRejected("NO_TEMPLATE", f"{path.name} cannot be read: {words}") from error
    for key in whole:
        if key not in header and key not in ("", "COMMENT", "HISTORY"):
            header[key] = whole[key]
    wcs = wcs.slice(part)
    wcs.pixel_shape = image.shape[::-1]
    bad |= ~np.isfinite(image)
    saturate = first_number(header, SATURATION_KEYS)
    measured = weight is None
    if weight is None:
        bad |= blank_areas(image)
        weight = measured_weight(image, bad)
    # Astropy reads them with the bytes as FITS has them.
    weight = np.where(bad, 0, weight).astype(np.float32)
    if np.isfinite(saturate):
        weight[image >= saturate] = 0
    gain = first_number(header, GAIN_KEYS)
    return TemplateFile(image, weight, wcs, header, saturate, gain if gain > 0 else 0.0, measured)


def _is_image(hdu: Any) -> bool:
    return getattr(hdu, "is_image", False) and len(hdu.shape) == 2 and "CTYPE1" in hdu.header


def part_covered(wcs: WCS, grid: WCS, name: str) -> tuple[slice, slice]:
    """Return the rows and columns of a template that a coadd needs.

    Raises
    ------
    FrameRejected
        TEMPLATE_ELSEWHERE, where it covers nothing of it.
    """
    outline = frame_outline(grid)
    middle = wcs.all_pix2world([[(wcs.pixel_shape[0] - 1) / 2, (wcs.pixel_shape[1] - 1) / 2]], 0)
    apart = np.hypot((outline[:, 0] - middle[0, 0] + 180) % 360 - 180, outline[:, 1] - middle[0, 1])
    wide = np.hypot(*wcs.pixel_shape) * float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))
    # Further away projections fold back onto the image.
    x, y = (
        wcs.all_world2pix(outline, 0, quiet=True).T
        if apart.min() < 90 and apart.min() < 10 * max(wide, 1.0)
        else np.full((2, 1), np.nan)
    )
    part = []
    for values, size in ((y, wcs.pixel_shape[1]), (x, wcs.pixel_shape[0])):
        low, high = np.nanmin(values), np.nanmax(values)
        first, last = max(0, int(low) - MARGIN), min(size, int(high) + MARGIN + 1)
        if not np.isfinite(low + high) or last - first < 8:
            raise FrameRejected("TEMPLATE_ELSEWHERE", f"{name} does not cover the coadd")
        part.append(slice(first, last))
    return part[0], part[1]


def _maps(
    hdus: fits.HDUList, path: Path, shape: tuple[int, ...], part: tuple[slice, slice]
) -> tuple[np.ndarray | None, np.ndarray]:
    """Return weight and mask of a template as far as there are such."""
    weight = None
    for name in WEIGHT_NAMES:
        if name in hdus and hdus[name].shape == shape:
            weight = np.asarray(hdus[name].data[part], np.float32)
    beside = path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.fits')}.weight.fits")
    if weight is None and beside.exists():
        with fits.open(beside) as other:
            if other[0].shape != shape:
                raise ValueError(f"{beside.name} has another shape")
            weight = np.asarray(other[0].data[part], np.float32)
    bad = np.zeros((part[0].stop - part[0].start, part[1].stop - part[1].start), bool)
    if "MASK" in hdus and hdus["MASK"].shape == shape:
        bad |= np.asarray(hdus["MASK"].data[part]) != 0
    if weight is not None:
        weight = np.where(np.isfinite(weight) & (weight > 0), weight, 0).astype(np.float32)
    return weight, bad


def blank_areas(image: np.ndarray) -> np.ndarray:
    """Return the areas of an image that are exactly 0: nothing was measured there.

    Single zeros are values like others, of images in whole numbers.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    from scipy.ndimage import binary_opening

    return binary_opening(image == 0, structure=np.ones((3, 3), bool))


def measured_weight(image: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Return the inverse variance of an image, measured in meshes of 64 pixels.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    bad : ndarray of bool, same shape
    """
    if bad.all():
        return np.zeros_like(image)
    clean = np.ascontiguousarray(np.where(bad, 0, image), np.float32)
    noise = sep.Background(clean, mask=bad).rms()
    # Meshes without a pixel have none.
    noise = np.where(noise > 0, noise, np.median(noise[noise > 0]) if (noise > 0).any() else 1)
    return (1 / noise**2).astype(np.float32)


def place_on_grid(
    source: TemplateFile, grid: WCS, fwhm: float, name: str, shift: np.ndarray | None = None
) -> Template:
    """Resample a template onto the grid of a coadd, and take its background away.

    Parameters
    ----------
    source : TemplateFile
    grid : astropy.wcs.WCS
        WCS of the grid, with its size.
    fwhm : float
        Approximate FWHM of its stars on the grid [pixel].
    name : str
    shift : ndarray, shape (2,), optional
        Offset of its stars from those of the coadd [pixel of the grid], which is removed.

    Returns
    -------
    Template

    Raises
    ------
    FrameRejected
        TEMPLATE_ELSEWHERE: it does not cover the coadd.
    """
    if shift is not None:
        grid = grid.deepcopy()
        grid.wcs.crpix = grid.wcs.crpix - shift
    shape = grid.pixel_shape[::-1]
    image, weight = np.zeros((2, *shape), np.float32)
    try:
        part, part_weight, corner = resample(source.image, source.weight, source.wcs, grid)
    except ValueError as error:
        raise FrameRejected("TEMPLATE_ELSEWHERE", f"{name}: {error}") from error
    place = tuple(slice(c, c + n) for c, n in zip(corner, part.shape, strict=True))
    image[place], weight[place] = part, part_weight
    if (weight > 0).mean() < LEAST_COVER:
        raise FrameRejected(
            "TEMPLATE_ELSEWHERE", f"{name} covers {(weight > 0).mean():.1%} of the coadd"
        )
    saturated = np.zeros(shape, bool)
    if np.isfinite(source.saturate):
        area = float(abs(np.linalg.det(grid.pixel_scale_matrix) /
                         np.linalg.det(source.wcs.pixel_scale_matrix)))  # fmt: skip
        saturated = (weight <= 0) & (image >= CORE_LEVEL * source.saturate * area)
    return _without_background(image, weight, saturated, fwhm, source, name)


def _without_background(
    image: np.ndarray, weight: np.ndarray, saturated: np.ndarray, fwhm: float,
    source: TemplateFile, name: str,
) -> Template:  # fmt: skip
    bad = weight <= 0
    level, _ = background(image, bad, BOX)
    clean = np.where(bad & ~saturated, 0, image - level).astype(np.float32)
    _, pixel = background(clean * np.sqrt(weight), bad, BOX)
    variance = np.zeros_like(weight)
    variance[~bad] = 1 / weight[~bad]
    noise = np.sqrt(np.where(bad, variance.max(), variance)).astype(np.float32)
    segments = detect_sources(clean, noise * np.float32(pixel or 1), None, 1.5)[1]
    mesh = background_without(image, bad, segments, BOX)
    clean = np.where(bad & ~saturated, 0, image - spread_mesh(mesh, image.shape))
    clean = clean.astype(np.float32)
    occupied = grow(segments > 0, int(np.ceil(0.75 * fwhm))) | bad
    x, y = empty_apertures(summed_area(occupied), fwhm)
    if x.size >= 30:
        variance *= np.float32(aperture_noise(clean, variance, x, y, fwhm, subpix=1)[1] ** 2)
    plane = Plane(clean, variance, saturated, fwhm, source.gain)
    remarks = ["template without a weight map: noise measured"] if source.measured_noise else []
    return Template(plane, segments > 0, name, source.header, remarks)


def with_seeing(template: Template, fwhm: float, beta: float) -> Template:
    """Return a template whose stars are found to have a Moffat profile."""
    beta = max(beta, LEAST_BETA)
    wings = Wings(float(moffat_alpha(fwhm, beta)), beta, 1.0)
    return replace(template, plane=replace(template.plane, fwhm=fwhm, wings=wings))
