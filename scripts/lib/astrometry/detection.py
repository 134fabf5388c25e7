"""Stars of a frame, measured by source-extractor."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lib.astrometry.frames import AstrometryFrame
from lib.core.files import scratch_folder
from lib.core.programs import ProgramFailed, find_program, run_program
from lib.core.settings import AstrometrySettings
from lib.frame.file import FrameRejected, read_frame
from lib.frame.fitsbytes import read_table
from lib.photometry.sources import detection_arrays

log = logging.getLogger("autoproc")

CATALOGUE_COLUMNS = (
    "XWIN_IMAGE",
    "YWIN_IMAGE",
    "ERRAWIN_IMAGE",
    "ERRBWIN_IMAGE",
    "ERRTHETAWIN_IMAGE",
    "FLUX_AUTO",
    "FLUXERR_AUTO",
    "FLUX_RADIUS",
    "FWHM_IMAGE",
    "ELONGATION",
    "FLAGS",
    "FLAGS_WIN",
    "IMAFLAGS_ISO",
    "NIMAFLAGS_ISO",
)

MAX_UNUSABLE = 0.02
"""Fraction of a frame that may be unusable without a weight map, which takes 25 % more time."""


def run_again_if_killed(argv: Sequence[Any], **how: Any) -> Any:
    """Run a program as `run_program` does, and once more where it was killed.

    A signal from outside, or a machine short of memory, says nothing of the stars.
    """
    try:
        return run_program(argv, **how)
    except ProgramFailed as why:
        if "SIGKILL" not in why.why and "SIGTERM" not in why.why:
            raise
        log.warning("%s: once more", why)
        return run_program(argv, **how)


def run_extractor(
    image: np.ndarray, flag: np.ndarray, header: fits.Header, settings: AstrometrySettings
) -> np.ndarray:
    """Run source-extractor on the arrays of `detection_arrays`.

    Returns
    -------
    ndarray
        Structured, with `CATALOGUE_COLUMNS`.

    Raises
    ------
    ProgramFailed
    """
    parameters = {
        "CATALOG_NAME": "stars.ldac",
        "CATALOG_TYPE": "FITS_LDAC",
        "PARAMETERS_NAME": "columns.param",
        "FILTER_NAME": "gauss.conv",
        "DETECT_THRESH": settings.detect_threshold,
        "ANALYSIS_THRESH": settings.detect_threshold,
        "DETECT_MINAREA": settings.detect_minarea,
        "DEBLEND_MINCONT": 0.005,
        "WEIGHT_TYPE": "NONE",
        "FLAG_IMAGE": "flag.fits",
        "FLAG_TYPE": "OR",
        "GAIN": header.get("GAIN", 1.0),
        "GAIN_KEY": "NONE",
        "SATUR_LEVEL": min(float(header.get("SATURATE", 1e20)), 1e20),
        "SATUR_KEY": "NONE",
        "PIXEL_SCALE": header.get("PIXSCALE", 1.0),
        "BACK_SIZE": 64,
        "BACKPHOTO_TYPE": "LOCAL",
        # It is cleared before use: a large one takes longer than the search.
        "MEMORY_PIXSTACK": max(300_000, int(0.3 * image.size)),
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
    }
    files = {"image": image, "flag": flag}
    usable = flag == 0
    if usable.mean() < 1 - MAX_UNUSABLE:
        parameters |= {"WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits"}
        files["weight"] = usable.view(np.uint8)
    argv = [find_program("source-extractor"), "image.fits", "-c", "empty.sex"]
    for key, value in parameters.items():
        argv += [f"-{key}", value]
    with scratch_folder("detect") as folder:
        (folder / "empty.sex").write_text("# all settings are on the command line\n")
        (folder / "columns.param").write_text("\n".join(CATALOGUE_COLUMNS) + "\n")
        (folder / "gauss.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
        for stem, data in files.items():
            fits.writeto(folder / f"{stem}.fits", data)
        run_again_if_killed(argv, timeout=settings.timeout, cwd=folder)
        try:
            return read_table(folder / "stars.ldac", "LDAC_OBJECTS")
        except (OSError, ValueError, KeyError) as why:
            raise ProgramFailed("source-extractor", f"{type(why).__name__} {why}") from why


def select_stars(table: np.ndarray, min_snr: float) -> np.ndarray:
    """Keep sources whose position can be trusted, bright first.

    Saturated, truncated and corrupted sources go, and those with an unusable pixel in more than
    a tenth of their area. Blends stay: SCAMP's clipping and the weights deal with them.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = table["FLUX_AUTO"] / table["FLUXERR_AUTO"]
    area = np.pi * np.maximum(table["FWHM_IMAGE"], 1.0) ** 2
    good = (
        (table["FLUX_AUTO"] > 0)
        & (snr >= min_snr)
        & (table["FLAGS"] & 0b11111100 == 0)
        & (table["NIMAFLAGS_ISO"] <= 0.1 * area)
        & (table["FWHM_IMAGE"] > 0.8)
        & np.isfinite(table["XWIN_IMAGE"])
        & np.isfinite(table["ERRAWIN_IMAGE"])
        & (table["ERRAWIN_IMAGE"] > 0)
        & (table["ERRAWIN_IMAGE"] < 1.0)
    )
    table = table[good].copy()
    # A neighbour in the window shifts the centroid: twice the error fits what is seen.
    for name in ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"):
        table[name] *= np.where(table["FLAGS"] > 0, 2.0, 1.0)
    return table[np.argsort(-table["FLUX_AUTO"], kind="stable")]


def detect(path: str | Path, settings: AstrometrySettings) -> AstrometryFrame:
    """Detect the stars of a frame.

    Parameters
    ----------
    path : path-like
        Frame file.
    settings : AstrometrySettings
        detect_threshold, detect_minarea, min_snr, timeout.

    Returns
    -------
    AstrometryFrame

    Raises
    ------
    FrameRejected
        Rejected before, no usable pixel, or no star.
    """
    frame = read_frame(path, mapped=True)
    name = frame_name(path, frame.header)
    if frame.rejected or frame.image is None:
        code, _, numbers = (frame.reason or "REJECTED").partition(": ")
        raise FrameRejected(code, numbers)
    image, flag = detection_arrays(frame.image, frame.mask)
    if flag.all():
        raise FrameRejected("TOO_FEW_STARS", "0 < 1, no usable pixel")
    try:
        table = run_extractor(image, flag, frame.header, settings)
    except ProgramFailed as why:
        raise FrameRejected("DETECTION_FAILED", str(why)) from why
    stars = select_stars(table, settings.min_snr)
    log.info("%s: %d sources, %d of use", name, len(table), len(stars))
    if not len(stars):
        raise FrameRejected("TOO_FEW_STARS", "0 < 1")
    return AstrometryFrame(name, frame.header, image.shape, stars)


def frame_name(path: str | Path, header: fits.Header) -> str:
    """Return the name of a frame: FRAME of its header, else its file name from the first 2 on."""
    name = header.get("FRAME")
    stem = Path(path).name.removesuffix(".fits")
    return str(name) if name else stem[max(stem.find("2"), 0) :]
