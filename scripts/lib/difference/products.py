"""The difference image of a coadd from its files to its products, as one story."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.core.rawfiles import listed
from lib.core.settings import DifferenceSettings
from lib.core.text import card_text
from lib.core.wcs import celestial_wcs, wcs_cards
from lib.difference.header import (
    describe,
    difference_header,
    limit_cards,
    mask_hdu,
    noise_remarks,
    place_cards,
    template_remarks,
)
from lib.difference.limits import LEVELS, flux_at, injected_fraction
from lib.difference.planes import Plane
from lib.difference.quality import Difference
from lib.difference.stars import SharedStars, shared_stars
from lib.difference.subtraction import Subtraction, subtract
from lib.difference.template import (
    CORE_LEVEL,
    Template,
    TemplateFile,
    first_number,
    place_on_grid,
    read_template,
    with_seeing,
)
from lib.frame.file import FrameRejected, add_notes
from lib.frame.fitsbytes import read_table
from lib.frame.step import record_step
from lib.night.targets import parse_position, target_position
from lib.photometry.backgroundmesh import grow
from lib.photometry.psf import StarAperture, fit_profile
from lib.stack.coaddition import write_fits
from lib.stack.jointtable import measurable, read_coadd

log = logging.getLogger("autoproc")

SEARCH = 3.0
"""[arcsec] By which the positions of a template may be off."""

SHIFTED = 0.1
"""[pixel] A template that lies off by more is resampled again."""


@dataclass(frozen=True)
class DifferenceInputs:
    """Files that a difference image is made of.

    Parameters
    ----------
    coadd, weight, cat : path-like
        Coadd, its weight map and source table.
    template : path-like or None
        None where there is none.
    why : str
        Why there is none.
    target_radec : tuple of float, optional
        ra, dec of the target [deg], as configured.
    """

    coadd: str | Path
    weight: str | Path
    cat: str | Path
    template: str | Path | None
    why: str = ""
    target_radec: tuple[float, float] | None = None

    @classmethod
    def of_job(cls, job: Any) -> "DifferenceInputs":
        """Return the files that Snakemake hands to a script about one coadd."""
        got, given = job.input, job.params.given
        made = listed(got.get("template"))
        return cls(
            got.coadd, got.weight, got.cat, made[0] if made else given.template, given.why,
            parse_position(job.params.target_radec),
        )  # fmt: skip


@dataclass(frozen=True)
class CoaddPlane:
    """A coadd as it is compared.

    Parameters
    ----------
    plane : Plane
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of its sources and those without data.
    table : ndarray
        Source table of the coadd.
    header : astropy.io.fits.Header
    grid : astropy.wcs.WCS
        WCS of the coadd, with its size.
    aperture : lib.photometry.psf.StarAperture
        Aperture of its photometry, with the profile of stars.
    """

    plane: Plane
    occupied: np.ndarray
    table: np.ndarray
    header: fits.Header
    grid: WCS
    aperture: StarAperture

    def growth(self, radius: float) -> float:
        """Return the part of a star's light within a radius [pixel]."""
        wings = self.aperture.wings
        return 1 - float(wings.norm * (1 + (radius / wings.alpha) ** 2) ** (1 - wings.beta))


def make_difference(
    inputs: DifferenceInputs, diff: str | Path, weight: str | Path, settings: DifferenceSettings,
    *, version: int = 1,
) -> fits.Header:  # fmt: skip
    """Subtract the template of a coadd and write the difference image and its weight.

    Parameters
    ----------
    inputs : DifferenceInputs
    diff, weight : path-like
        Written whole or not at all. What cannot be made is a header with the reason.
    settings : DifferenceSettings
    version : int
        Version of the step.

    Returns
    -------
    astropy.io.fits.Header
        Header of the difference image.
    """
    header = fits.getheader(inputs.coadd)
    hdus: list = []
    image: np.ndarray | None = None
    inverse: np.ndarray | None = None
    try:
        if not measurable(header):
            reason = header.get("QCREASON", "") or "no star was measured"
            raise FrameRejected("NO_COADD", str(reason))
        if inputs.template is None:
            raise FrameRejected("NO_TEMPLATE", inputs.why)
        header, image, inverse, hdus = _subtracted(inputs, settings)
    except FrameRejected as why:
        header = difference_header(header)
        tell_rejection(header, why)
    record_step(header, "subtract", version, vars(settings))
    own = header.copy()
    own["BUNIT"] = ("electron**-2", "inverse variance")
    write_fits(weight, [fits.PrimaryHDU(inverse, own)])
    write_fits(diff, [fits.PrimaryHDU(image, header), *hdus])
    return header


def tell_rejection(header: fits.Header, why: FrameRejected) -> None:
    """Write into a header, and the log, why there is no difference image."""
    log.warning("rejected: %s", why)
    header["QCSTAT"] = ("REJECTED", "fit for use: OK or REJECTED")
    header["QCSTEP"] = ("subtract", "step that rejected it")
    header["QCREASON"] = card_text(why, 68)


def _subtracted(
    inputs: DifferenceInputs, settings: DifferenceSettings
) -> tuple[fits.Header, np.ndarray, np.ndarray, list]:
    """Return header, image, weight and extensions of a difference image."""
    coadd = read_plane(inputs.coadd, inputs.weight, inputs.cat)
    template, stars = find_template(inputs.template, coadd)
    return compare(coadd, template, stars, inputs.target_radec, settings)


def compare(
    coadd: CoaddPlane, template: Template, stars: SharedStars,
    target_radec: tuple[float, float] | None, settings: DifferenceSettings,
) -> tuple[fits.Header, np.ndarray, np.ndarray, list]:  # fmt: skip
    """Subtract a template from a coadd, or a frame on its grid, that lie in memory.

    Parameters
    ----------
    coadd : CoaddPlane
    template : Template
        In the units of its file.
    stars : SharedStars
    target_radec : tuple of float, optional
        ra, dec of the target [deg], as configured.
    settings : DifferenceSettings

    Returns
    -------
    header : astropy.io.fits.Header
        With method, quality and limits.
    image, weight : ndarray of float32, shape (ny, nx)
        Difference and its inverse variance.
    extensions : list
        HDUs MASK, SIGNIFICANCE, FLUXERR, PSF and TEMPLATE.
    """
    plane = template.plane.scaled(stars.scale)
    reach = int(np.ceil(0.75 * max(plane.fwhm, coadd.plane.fwhm)))
    occupied = coadd.occupied | grow(template.segments, reach)
    subtraction = subtract(coadd.plane, plane, stars, occupied, settings)
    difference = subtraction.difference
    scale = float(coadd.header["PIXSCALE"])
    header = difference_header(coadd.header)
    describe(header, subtraction, template, stars, scale, settings)
    remarks = template_remarks(template, coadd.header, stars.scale, stars.scale_error)
    remarks += noise_remarks(difference.expected)
    for remark in remarks:
        log.warning("%s", remark)
    add_notes(header, remarks)
    zeropoint = first_number(coadd.header, ("ABSZPT",))
    limit_cards(header, difference.depth(~occupied & (difference.variance > 0)), zeropoint)
    place_target(header, difference, coadd, target_radec)
    if settings.injections:
        check_limits(header, difference, coadd.plane.gain, settings.injections)
    header["QCSTAT"] = ("OK", "fit for use: OK or REJECTED")
    inverse = np.zeros_like(difference.variance)
    np.divide(1, difference.variance, out=inverse, where=difference.variance > 0)
    return header, difference.image, inverse, extensions(subtraction, plane, header)


def read_plane(path: str | Path, weight: str | Path, cat: str | Path) -> CoaddPlane:
    """Read a coadd as it is compared with a template.

    Parameters
    ----------
    path, weight, cat : path-like
        Coadd, weight map and source table.
    """
    coadd = read_coadd(path, weight, cat)
    header = coadd.header
    level = float(header.get("SATURATE", np.inf))
    raw = np.asarray(fits.getdata(path), np.float32)
    saturated = ((coadd.variance <= 0) & (raw >= CORE_LEVEL * level)) | (raw >= level)
    saturated &= np.isfinite(raw)
    fwhm = float(header["SEEPIX"])
    image = np.where(np.isfinite(coadd.image), coadd.image, 0).astype(np.float32)
    plane = Plane(
        image, coadd.variance, saturated, fwhm, float(header.get("GAIN", 0.0)), coadd.aperture.wings
    )
    grid = celestial_wcs(header)
    table = read_table(cat, "SOURCES")
    return CoaddPlane(plane, coadd.occupied, table, header, grid, coadd.aperture)


def check_own_frames(coadd: fits.Header, template: fits.Header) -> None:
    """Raise if a template contains frames of the coadd: a change would be in both.

    Raises
    ------
    FrameRejected
        TEMPLATE_SAME.
    """
    ours, theirs = (
        {str(header[key]) for key in header if re.fullmatch(r"STACK\d+", key)}
        for header in (coadd, template)
    )
    # Names of frames may repeat from night to night.
    begin, end = (first_number(coadd, (key,)) for key in ("MJD-BEG", "MJD-END"))
    apart = (
        first_number(template, ("MJD-BEG",)) >= end or first_number(template, ("MJD-END",)) <= begin
    )
    if ours & theirs and not apart:
        raise FrameRejected(
            "TEMPLATE_SAME", f"{len(ours & theirs)} of {len(ours)} frames are in the template, too"
        )


def find_template(path: str | Path | None, coadd: CoaddPlane) -> tuple[Template, SharedStars]:
    """Return a template on the grid of a coadd, shifted to its stars, and the stars of both.

    Parameters
    ----------
    path : path-like
    coadd : CoaddPlane

    Raises
    ------
    FrameRejected
    """
    assert path is not None
    source = read_template(path, coadd.grid)
    check_own_frames(coadd.header, source.header)
    name = Path(path).name
    scale = float(coadd.header["PIXSCALE"])
    guess = coadd.plane.fwhm
    seeing = source.header.get("SEEING")
    if isinstance(seeing, float) and 0.2 < seeing / scale < 50:
        guess = seeing / scale
    radius = max(SEARCH / scale, 2.0)
    template, stars = _measured(source, coadd, guess, name, radius, None)
    shift = stars.mean_shift
    if np.hypot(*shift) > SHIFTED:
        log.info("template shifted by %.2f, %.2f pixels", *shift)
        fwhm = template.plane.fwhm
        template, stars = _measured(source, coadd, fwhm, name, max(2.0, fwhm), shift)
    if np.hypot(*shift) * scale > 0.5:
        remark = f"template off by {np.hypot(*shift) * scale:.2f} arcsec: shifted to the stars"
        template.remarks.append(remark)
    return template, stars


def _measured(
    source: TemplateFile, coadd: CoaddPlane, fwhm: float, name: str, radius: float,
    shift: np.ndarray | None,
) -> tuple[Template, SharedStars]:  # fmt: skip
    """Return a template with its own seeing and the stars that it shares with a coadd."""
    template = place_on_grid(source, coadd.grid, fwhm, name, shift)
    stars = shared_stars(coadd.plane, template.plane, coadd.table, radius, coadd.growth)
    x, y = stars.x + stars.shift[:, 0], stars.y + stars.shift[:, 1]
    found, beta = fit_profile(template.plane.image, x, y, stars.template_flux, fwhm)
    if np.isfinite(found) and 0.5 < found:
        template = with_seeing(template, found, beta)
        stars = shared_stars(coadd.plane, template.plane, coadd.table, radius, coadd.growth)
    return template, stars


def place_target(
    header: fits.Header, difference: Difference, coadd: CoaddPlane,
    configured: tuple[float, float] | None,
) -> None:  # fmt: skip
    """Measure the target in the difference image and write it into the header."""
    ra, dec, origin = target_position(configured, [coadd.header])
    if not origin:
        return
    x, y = (float(value) for value in coadd.grid.all_world2pix(ra, dec, 0, quiet=True))
    if np.isfinite(x + y):
        place_cards(header, flux_at(difference, x, y), (float(ra), float(dec)))


def check_limits(header: fits.Header, difference: Difference, gain: float, number: int) -> None:
    """Put point sources at the limits into the image and write how many are found."""
    changed = grow(np.abs(difference.significance) > LEVELS[-1], int(2 * difference.fwhm))
    for key, name in (("TGTLIMF", "INJTGT"), ("DIFLIMF", "INJSKY")):
        for level in LEVELS:
            limit = header.get(f"{key}{level:g}")
            if limit is None:
                continue
            rng = np.random.default_rng(int(level))
            part, count = injected_fraction(
                difference, limit / level, level, gain, rng, number, changed
            )
            if count:
                header[f"{name}{level:g}"] = (part, f"part of {count} at that limit found")


def extensions(subtraction: Subtraction, template: Plane, header: fits.Header) -> list:
    """Return the extensions of a difference image.

    Its mask, the significance of a point source at each pixel and the error of its flux, the images
    of a point source in the regions, and the template on the scale of the coadd.
    """
    difference = subtraction.difference
    significance = fits.ImageHDU(
        np.where(np.isfinite(difference.error), difference.significance, 0).astype(np.float32),
        wcs_cards(header), name="SIGNIFICANCE",
    )  # fmt: skip
    psf = fits.ImageHDU(difference.stamps.astype(np.float32), name="PSF")
    psf.header["REGIONS"] = (difference.regions.number, "along each axis, row by row")
    error = np.where(np.isfinite(difference.error), difference.error, 0)
    errors = fits.ImageHDU(error.astype(np.float32), wcs_cards(header), name="FLUXERR")
    tile = (min(64, template.image.shape[0]), template.image.shape[1])
    old = fits.CompImageHDU(
        template.image, wcs_cards(header), name="TEMPLATE", compression_type="RICE_1",
        quantize_level=16, quantize_method=2, dither_seed=1, tile_shape=tile,
    )  # fmt: skip
    return [mask_hdu(subtraction.bits), significance, errors, psf, old]
