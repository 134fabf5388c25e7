"""The template subtracted from a single frame of a coadd, on the grid and scale of the coadd."""

import json
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.core.settings import DifferenceSettings
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.difference.header import difference_header
from lib.difference.products import (
    CoaddPlane,
    DifferenceInputs,
    compare,
    find_template,
    read_plane,
    tell_rejection,
)
from lib.difference.stars import shared_stars
from lib.difference.template import TemplateFile, measured_weight, place_on_grid
from lib.frame.file import UNUSABLE, Frame, FrameRejected, read_frame
from lib.frame.step import record_step
from lib.photometry.lightcurve import FrameQuality
from lib.stack.coaddition import write_fits

log = logging.getLogger("autoproc")

OF_THE_COADD = (
    "NSTACK", "NREJECT", "MJD-BEG", "MJD-END", "MJD-AVG", "TOTALEXP", "MAXEXP", "MINEXP", "DATE1",
    "DATEN", "AIRMIN", "AIRMAX", "DATE-BEG", "DATE-END", "DATE-AVG",
)  # fmt: skip
"""Cards that are true of the coadd, but not of one frame of it."""

OF_THE_FRAME = ("FRAME", "RAWFILE", "DATE-OBS", "MJD-OBS", "EXPTIME", "AIRMASS")
"""Cards that a frame has of its own."""


@dataclass(frozen=True)
class FrameInputs:
    """Files that the difference image of a frame is made of.

    Parameters
    ----------
    frame : path-like
        Solved frame.
    quality : path-like
        What the stack measured of its frames.
    diff : path-like
        Difference image of the coadd, whose method is taken.
    stack : DifferenceInputs
        Files of the coadd and its template.
    """

    frame: str | Path
    quality: str | Path
    diff: str | Path
    stack: DifferenceInputs

    @property
    def name(self) -> str:
        """Name of the stack."""
        return Path(self.stack.coadd).name.removeprefix("coadd").removesuffix(".fits")


def make_frame_difference(
    inputs: FrameInputs, output: str | Path, settings: DifferenceSettings, *, version: int = 1
) -> fits.Header:
    """Subtract the template of a coadd from one of its frames, and write the difference.

    Parameters
    ----------
    inputs : FrameInputs
    output : path-like
        Written whole or not at all: as the difference image of the coadd, with extension WEIGHT for
        the inverse variance, and without TEMPLATE. What cannot be made is a header with the reason.
    settings : DifferenceSettings
        Of the coadd.
    version : int
        Version of the step.

    Returns
    -------
    astropy.io.fits.Header
        Header of the difference image.
    """
    frame = read_frame(inputs.frame)
    header = difference_header(frame.header)
    image: np.ndarray | None = None
    hdus: list = []
    try:
        if frame.rejected:
            raise FrameRejected("NO_FRAME", frame.reason)
        whole = fits.getheader(inputs.diff)
        if whole.get("QCSTAT") != "OK":
            raise FrameRejected("NO_DIFFERENCE", f"of the coadd: {whole.get('QCREASON', '')}")
        settings = replace(settings, method=whole["DIFMETH"], injections=0)
        header, image, inverse, hdus = _subtracted(inputs, frame, settings)
        weight = fits.ImageHDU(inverse, name="WEIGHT")
        weight.header["BUNIT"] = ("electron**-2", "inverse variance")
        hdus = [one for one in hdus if one.name != "TEMPLATE"] + [weight]
    except FrameRejected as why:
        tell_rejection(header, why)
    header["DIFSTACK"] = (inputs.name, "stack whose template was subtracted")
    record_step(header, "framediff", version, vars(settings))
    write_fits(output, [fits.PrimaryHDU(image, header), *hdus])
    return header


def _subtracted(
    inputs: FrameInputs, frame: Frame, settings: DifferenceSettings
) -> tuple[fits.Header, np.ndarray, np.ndarray, list]:
    """Return header, difference, weight and extensions of a frame less the template."""
    quality, scale = frame_quality(inputs.quality, frame)
    stack = inputs.stack
    coadd = read_plane(stack.coadd, stack.weight, stack.cat)
    # The coadd is deeper: it tells better where the stars of the template are.
    template, _ = find_template(stack.template, coadd)
    single = frame_on_grid(frame, quality, scale, coadd)
    fwhm = max(single.plane.fwhm, template.plane.fwhm)
    stars = shared_stars(single.plane, template.plane, coadd.table, max(2.0, fwhm), single.growth)
    return compare(single, template, stars, stack.target_radec, settings)


def frame_quality(path: str | Path, frame: Frame) -> tuple[FrameQuality, float]:
    """Return what a stack measured of a frame, and the factor from its fluxes to the coadd's.

    Parameters
    ----------
    path : path-like
        Quality file of the stack.
    frame : Frame

    Raises
    ------
    FrameRejected
        NOT_STACKED: the stack has no scale for it.
    """
    numbers = json.loads(Path(path).read_text(encoding="utf-8")).get("frames", {})
    entry = numbers.get(str(frame.header.get("FRAME", "")), {})
    quality, scale = FrameQuality.from_json(entry), float(entry.get("scale") or np.nan)
    if quality.aperture is None or not scale > 0 or not quality.seeing > 0:
        raise FrameRejected("NOT_STACKED", quality.reason or "the stack has no scale for it")
    return quality, scale


def frame_on_grid(
    frame: Frame, quality: FrameQuality, scale: float, coadd: CoaddPlane
) -> CoaddPlane:
    """Return a frame as it is compared with a template: on the grid and scale of its coadd.

    Its noise is measured in meshes and made right in empty apertures of the resampled image.

    Parameters
    ----------
    frame : Frame
        Solved, sky-subtracted frame.
    quality : FrameQuality
        With the aperture and seeing of the frame.
    scale : float
        Factor from its fluxes to those of the coadd.
    coadd : CoaddPlane

    Raises
    ------
    FrameRejected
        FRAME_ELSEWHERE: it covers next to nothing of the coadd.
    """
    assert quality.aperture is not None
    header, wcs = frame.header, celestial_wcs(frame.header)
    bad = ((frame.mask & UNUSABLE) > 0) | ~np.isfinite(frame.image)
    saturate = float(header.get("SATURATE", np.nan))
    weight = np.where(bad | (frame.image >= saturate), 0, measured_weight(frame.image, bad))
    gain = float(header.get("GAIN", 0.0))
    source = TemplateFile(frame.image, weight.astype(np.float32), wcs, header, saturate, gain)
    step = float(coadd.header["PIXSCALE"])
    fwhm = quality.seeing / step
    try:
        placed = place_on_grid(source, coadd.grid, fwhm, str(header.get("FRAME", "frame")))
    except FrameRejected as why:
        raise FrameRejected("FRAME_ELSEWHERE", why.numbers) from why
    wings = quality.aperture.wings
    wings = replace(wings, alpha=wings.alpha * pixel_scale(wcs) / step)
    plane = replace(placed.plane.scaled(scale), wings=wings)
    told = frame_header(coadd.header, header)
    told["GAIN"] = (plane.gain, "[electron] per unit, on the scale of the coadd")
    if np.isfinite(saturate):
        told["SATURATE"] = (saturate * scale, "on the scale of the coadd")
    aperture = replace(quality.aperture, wings=wings)
    occupied = coadd.occupied | placed.segments
    return CoaddPlane(plane, occupied, coadd.table, told, coadd.grid, aperture)


def frame_header(coadd: fits.Header, frame: fits.Header) -> fits.Header:
    """Return the header of a frame on the grid and scale of its coadd."""
    header = coadd.copy()
    for key in OF_THE_COADD:
        header.remove(key, ignore_missing=True, remove_all=True)
    for key in [key for key in header if re.fullmatch(r"(STACK|NOTE)\d+", key)]:
        header.remove(key, ignore_missing=True, remove_all=True)
    for key in OF_THE_FRAME:
        header.remove(key, ignore_missing=True, remove_all=True)
        if key in frame:
            header[key] = (frame[key], frame.comments[key])
    return header
