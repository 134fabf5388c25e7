"""The header of a difference image."""

import warnings

import numpy as np
from astropy.io import fits

from lib.core.settings import DifferenceSettings
from lib.difference.limits import LEVELS, PlaceFlux
from lib.difference.planes import DIFF_MASK
from lib.difference.stars import SharedStars
from lib.difference.subtraction import Subtraction
from lib.difference.template import Template

DROPPED = (
    "CHECKSUM", "DATASUM", "LIMMAG", "LIMFLUX", "COMPMAG", "LIMRAD", "LIMNAP", "CORRFAC", "CORRRAD",
    "CORRNAP", "WTSCALE", "APRAD", "APRADC", "APCOR", "APCORC", "APCORERR", "APCORCSC", "APCORNST",
    "APNOISE", "APNOISEC", "PSFVAR", "PSFALPHA", "PSFBETA", "PSFNORM", "PSFE1", "PSFE2",
)  # fmt: skip
"""Cards of the coadd that are not true of the difference."""

OTHER_FILTER = (
    "the template is in filter {}, the coadd in {}: stars of other colours leave residuals"
)

LESS_NOISE, MORE_NOISE = 0.6, 1.6
"""Noise over that by the weights below and above which it is told."""

CONTRADICTION = 0.1
"""[mag] Zero points that contradict the stars by more are told."""


def difference_header(coadd: fits.Header) -> fits.Header:
    """Return the header of a coadd without the cards that do not apply to its difference."""
    header = coadd.copy()
    for key in DROPPED:
        header.remove(key, ignore_missing=True, remove_all=True)
    return header


def template_remarks(
    template: Template, coadd: fits.Header, scale: float, error: float
) -> list[str]:
    """Return contradictions between a template and a coadd.

    Parameters
    ----------
    template : Template
    coadd : astropy.io.fits.Header
    scale, error : float
        Factor from fluxes of the template to those of the coadd, by stars, and its error.

    Returns
    -------
    list of str
    """
    remarks = list(template.remarks)
    theirs = str(template.header.get("FILTER", "") or "")
    bands = {str(coadd.get(key, "") or "").lower() for key in ("FILTER", "BAND")} - {""}
    told = {theirs.lower(), str(template.header.get("BAND", "") or "").lower()} - {""}
    if told and bands and not told & bands:
        remarks.append(
            OTHER_FILTER.format(theirs or template.header.get("BAND"), coadd.get("FILTER"))
        )
    zeropoint = coadd.get("ABSZPT")
    if isinstance(zeropoint, float) and np.isfinite(template.zeropoint):
        by_stars = zeropoint - 2.5 * np.log10(scale)
        apart = template.zeropoint - by_stars
        if abs(apart) > max(CONTRADICTION, 3 * 1.0857 * error / scale):
            remarks.append(
                f"the zero point of the template, {template.zeropoint:.3f}, contradicts the stars, "
                f"which have {by_stars:.3f}: theirs is taken"
            )
    start = coadd.get("MJD-BEG", coadd.get("MJD-OBS"))
    if isinstance(start, float) and template.end > start:
        remarks.append("the template is not earlier than the coadd: what it holds is lost")
    return remarks


def noise_remarks(expected: float) -> list[str]:
    """Return what is to be told of the noise of a difference image.

    Parameters
    ----------
    expected : float
        Noise over that by the weights of both images; NaN where not measured.
    """
    if expected < LESS_NOISE:
        return [f"the noise is {expected:.2f} of what the weights say: coadd and template share it"]
    if expected > MORE_NOISE:
        return [f"the noise is {expected:.1f} times what the weights of coadd and template say"]
    return []


def describe(
    header: fits.Header, subtraction: Subtraction, template: Template, stars: SharedStars,
    scale: float, settings: DifferenceSettings,
) -> None:  # fmt: skip
    """Write the method and the quality of a subtraction into a header.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header from `difference_header`, changed in place.
    subtraction : Subtraction
    template : Template
        Template in the units of its file.
    stars : SharedStars
        Stars common to coadd and template, on the grid of the coadd.
    scale : float
        Arcsec per pixel.
    settings : DifferenceSettings
    """
    difference = subtraction.difference
    cards = {
        "DIFTMPL": (template.title, "template that was subtracted"),
        "DIFTDATE": (template.date, "when the template was taken"),
        "DIFTFILT": (str(template.header.get("FILTER", "") or ""), "its filter"),
        "DIFTZP": (template.zeropoint, "[mag] its zero point, by its header"),
        "DIFTSEE": (template.plane.fwhm * scale, "[arcsec] its FWHM of stars"),
        "DIFMETH": (subtraction.method, "method of the subtraction"),
        "DIFASKED": (settings.method, "method asked for"),
        "DIFCONV": (subtraction.convolved, "image that was convolved"),
        "DIFKHALF": (subtraction.half, "[pixel] half side of the kernel"),
        "DIFREG": (difference.regions.number, "regions along each axis with a kernel"),
        "DIFORD": (0, "order of the kernel in a region"),
        "DIFKSUM": (subtraction.kernel_sum, "flux after over before the kernel"),
        "DIFSCALE": (stars.scale, "flux of the coadd over that of the template"),
        "DIFSCERR": (stars.scale_error, "error of DIFSCALE"),
        "DIFNSTAR": (int(stars.constant.sum()), "stars of the scale and the kernel"),
        "DIFNVAR": (int((~stars.constant).sum()), "stars left out, for they vary"),
        "DIFAST": (stars.scatter * scale, "[arcsec] scatter of positions, per axis"),
        "DIFRESID": (difference.left, "part of a star's light that is left, about"),
        "DIFCHI": (difference.chi, "scatter at sources over the errors"),
        "DIFPULL": (difference.pull, "scatter of empty apertures over the errors"),
        "DIFNOISE": (difference.expected, "noise over that by the weights of both images"),
        "DIFPULLN": (difference.apertures, "number of these apertures"),
        "SEEPIX": (difference.fwhm, "[pixel] FWHM of a point source"),
        "SEEING": (difference.fwhm * scale, "[arcsec] FWHM of a point source"),
    }  # fmt: skip
    for key, (value, comment) in cards.items():
        if not (isinstance(value, float) and not np.isfinite(value)):
            header[key] = (value, comment)
    if subtraction.missing:
        names = " ".join(one.split(":")[0] for one in subtraction.missing)
        header["DIFMISS"] = (names, "methods not installed: see the log")
    for method, (worth, error, chi) in subtraction.tried.items():
        text = f"{worth:.5g}: error {error:.5g}, sources {chi:.2f}"
        header[f"DIF{method.upper()[:5]}"] = (text, "noise by this method")


def limit_cards(
    header: fits.Header, error: float, zeropoint: float, prefix: str = "DIFLIM", where: str = "sky"
) -> None:
    """Write the limits that an error of a flux means into a header.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Changed in place.
    error : float
    zeropoint : float
        NaN where not known: the limits are fluxes then, as always under <prefix>F3 and F5.
    prefix, where : str
        Of the cards, and what their comments say.
    """
    if not np.isfinite(error):
        return
    for level in LEVELS:
        header[f"{prefix[:6]}F{level:g}"] = (level * error, f"{level:g} sigma flux limit, {where}")
        if np.isfinite(zeropoint):
            value = zeropoint - 2.5 * np.log10(level * error)
            header[f"{prefix}{level:g}"] = (value, f"[mag] {level:g} sigma limit, {where}")


def place_cards(header: fits.Header, place: PlaceFlux, radec: tuple[float, float]) -> None:
    """Write the flux of the target in the difference image, and its limits, into a header."""
    header["TGTRA"] = (radec[0], "[deg] where the target is, ICRS")
    header["TGTDEC"] = (radec[1], "[deg] the same")
    if not np.isfinite(place.flux):
        header["TGTWHY"] = ("no data", "why the target has no flux")
        return
    zeropoint = header.get("ABSZPT", np.nan)
    header["TGTFLUX"] = (place.flux, "flux of a point source there")
    header["TGTFERR"] = (place.error, "its error, with that of the host")
    header["TGTSNR"] = (place.flux / place.error, "TGTFLUX over TGTFERR")
    limit_cards(header, place.error, zeropoint, "TGTLIM", "at the target")
    if place.flux > LEVELS[0] * place.error and np.isfinite(zeropoint):
        header["TGTMAG"] = (zeropoint - 2.5 * np.log10(place.flux), "[mag] of the target")
        header["TGTMERR"] = (1.0857 * place.error / place.flux, "[mag] its error")


def mask_hdu(bits: np.ndarray) -> fits.ImageHDU:
    """Return the mask of a difference image as an extension."""
    hdu = fits.ImageHDU(bits, name="MASK")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)  # long comments are cut
        for bit, meaning in DIFF_MASK.items():
            hdu.header[f"BIT{bit}"] = meaning
    return hdu
