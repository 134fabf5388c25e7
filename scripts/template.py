"""template: an image from a sky survey to be subtracted from a coadd."""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lib.core.files import atomic_path
from lib.core.settings import ReferenceSettings
from lib.core.text import card_text, shown
from lib.core.wcs import celestial_wcs, frame_outline
from lib.frame.step import run_rule
from lib.reference.cutouts import CutoutError, cutout_settings, survey_cutout
from lib.reference.vizier import ReferenceUnavailable

log = logging.getLogger("autoproc")

PAUSE = 1.0
"""[s] Before servers that failed are asked again."""

ATTEMPTS = 2

MARGIN = 1.05
"""Side of the square that is asked for, over that of the coadd."""


def square_of(header: fits.Header) -> tuple[tuple[float, float], float]:
    """Return centre [deg] and side [deg] of a square on the sky that contains an image."""
    wcs = celestial_wcs(header)
    ra, dec = (float(v) for v in wcs.all_pix2world(
        (header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2, 0
    ))  # fmt: skip
    outline = frame_outline(wcs)
    east = ((outline[:, 0] - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
    north = outline[:, 1] - dec
    return (ra, dec), 2 * MARGIN * float(max(np.abs(east).max(), np.abs(north).max()))


def fetch(job: Any) -> Path:
    """Return the image of the survey for the field of a coadd.

    Raises
    ------
    CutoutError
        The survey has no image.
    ReferenceUnavailable
        No server answers; a later attempt may succeed.
    """
    header = fits.getheader(job.input.coadd)
    if header.get("NAXIS") != 2 or "CRVAL1" not in header:
        raise CutoutError("there is no coadd to compare")
    centre, size = square_of(header)
    given, params = job.params.given, job.params
    servers = ReferenceSettings(
        cutout_servers=tuple(params.servers), timeout=params.timeout
    )  # fmt: skip
    for attempt in range(ATTEMPTS):
        try:
            return survey_cutout(
                params.survey, str(header.get("BAND", "")), centre, size,
                float(header["PIXSCALE"]), Path(given.cache).expanduser(), folder=given.folder,
                settings=cutout_settings(given.refcat, servers),
            )  # fmt: skip
        except ReferenceUnavailable as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("asking again: %s", error)
            time.sleep(PAUSE)
    raise AssertionError("not reached")


def main(job: Any) -> None:
    """Write the template of one coadd; a header with the reason where there is none to be had."""
    try:
        path = fetch(job)
    except (CutoutError, ReferenceUnavailable) as why:
        log.warning("%s", why)
        if isinstance(why, ReferenceUnavailable):
            # Stacks and light curves are wanted now, with a template or without.
            told = f"no image of {job.params.survey} could be had: {shown(why, 300)}"
            print(f"autoproc: {told}; '--forcerun template' asks again", file=sys.stderr)
        header = fits.Header({"QCSTAT": "REJECTED", "QCREASON": card_text(why, 500)})
        with atomic_path(job.output[0]) as beside:
            fits.PrimaryHDU(header=header).writeto(beside, checksum=True, overwrite=True)
        return
    with atomic_path(job.output[0]) as beside:
        shutil.copyfile(path, beside)


if "snakemake" in globals():
    run_rule(snakemake, main)
