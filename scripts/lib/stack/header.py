"""The header of a coadd, and the table of the frames it was made from."""

from dataclasses import astuple
from typing import Any

import numpy as np
from astropy.io import fits

from lib.calibration.carried import common_cards
from lib.core.bands import AB_MINUS_VEGA, VEGA_BANDS
from lib.core.settings import StackSettings
from lib.core.sphere import separation
from lib.core.wcs import celestial_wcs, wcs_cards
from lib.frame.file import exposure_of
from lib.night.positions import Position
from lib.photometry.injection import complete_flux
from lib.photometry.measuredcoadd import MeasuredCoadd
from lib.photometry.zeropoint import Zeropoint
from lib.stack.depth import detection_settings, limiting_flux
from lib.stack.grid import Grid
from lib.stack.reference import StackReference, astrometric_scatter
from lib.stack.stackframe import StackFrame

Cards = dict[str, tuple[Any, str]]
"""Value and comment of header cards."""

IDENTITY_KEYS = ("INSTFILE", "CAMERA", "OBJECT", "TARGET", "FILTER", "BAND")

FLAT_ERROR_TOLD = 0.003
"""[fraction] Error of the flat above which a stack is flagged."""

WEIGHT_KEYS = (
    "CORRFAC", "CORRRAD", "CORRNAP", "WTSCALE", "NSTACK", "QCSTAT", "OBJECT", "FILTER",
)  # fmt: skip
"""Cards of the coadd copied to its weight map."""

WING_KEYS = {
    "PSFALPHA": "[pixel] Moffat wings of stars: scale radius",
    "PSFBETA": "exponent",
    "PSFNORM": "norm in units of total flux",
    "PSFE1": "ellipticity (a2-b2)/(a2+b2) along x",
    "PSFE2": "and along the diagonal",
}

PROVENANCE_KEYS = (
    "FRAME", "RAWFILE", "DATE-OBS", "EXPTIME", "AIRMASS", "BIASFILE", "BIASSUM", "DARKFILE",
    "DARKSUM", "FLATFILE", "FLATSUM", "SKYFILE", "SKYSUM", "FRNGFILE", "FRNGSUM", "GAIN",
    "RDNOISE", "SKYSUB", "ASTRCAT", "ASTRMS1", "ASTRMS2", "ASTRNST",
)  # fmt: skip

POINTING_ERROR = 0.5
"""[arcmin] Pointings with a larger error are replaced by those of the solutions."""


def stack_header(frames: list[StackFrame], number: int) -> fits.Header:
    """Return the initial header of a stack, which identifies target, filter and frames.

    Parameters
    ----------
    frames : list of StackFrame
        All frames, including those left out.
    number : int
        Number of frames to stack.

    Returns
    -------
    astropy.io.fits.Header
    """
    header = fits.Header()
    first = frames[0].header
    for key in IDENTITY_KEYS:
        if key in first:
            header[key] = (first[key], first.comments[key])
    header.update(common_cards(frame.header for frame in frames))
    header["NSTACK"] = (number, "frames in the stack")
    header["NREJECT"] = (len(frames) - number, "frames left out")
    return header


def describe_coadd(
    header: fits.Header,
    coadd: MeasuredCoadd,
    grid: Grid,
    saturate: float,
    used: list[StackFrame],
    zeropoint: Zeropoint,
    reference: StackReference,
    settings: StackSettings,
) -> list[str]:
    """Write the measurements of a coadd into its header.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header from `stack_header`, changed in place.
    coadd : MeasuredCoadd
    grid : Grid
    saturate : float
        Saturation level of the coadd; infinite where unknown.
    used : list of StackFrame
        The stacked frames.
    zeropoint : lib.photometry.zeropoint.Zeropoint
    reference : StackReference
    settings : StackSettings

    Returns
    -------
    list of str
        Codes of the flags set.
    """
    headers = [frame.header for frame in used]
    header.update(wcs_cards(grid.header()))
    header["BUNIT"] = "electron"
    band = str(header.get("BAND", ""))
    cards: Cards = {
        **time_cards(headers),
        **airmass_cards(headers),
        **pointing_cards(headers),
        "COMBINET": (settings.combine, "how the frames were combined"),
        "GAIN": (coadd.gain, "[electron] effective, per unit: noise^2 = flux / GAIN"),
        "PIXSCALE": (coadd.scale, "[arcsec] per pixel"),
        **shape_cards(coadd),
        **zeropoint_cards(zeropoint, band, reference.photometric_source),
        **limit_cards(coadd, zeropoint, settings),
        **position_cards(coadd, reference, headers, settings.match_radius),
        **outlier_cards(used),
        "QCSTAT": ("OK", "fit for use: OK or REJECTED"),
    }
    if "CHIPDIFF" in used[0].header:
        cards["CHIPDIFF"] = (used[0].header["CHIPDIFF"], used[0].header.comments["CHIPDIFF"])
    if flat_error(used):
        cards["FLATERR"] = (flat_error(used), "error of the flat, in the errors of the sources")
    if np.isfinite(saturate):
        cards["SATURATE"] = (float(saturate), "least saturation level of the frames, scaled")
    for number, frame in enumerate(used, start=1):
        cards[f"STACK{number}"] = (frame.name, "")
    for key, card in cards.items():
        header[key] = card
    return flag_stack(header, headers, zeropoint, settings)


NOT_FOLLOWED = ("COMPMAG", "PSFVAR", "NTRAIL", "NOUTLIER")
"""Cards of an ordinary coadd that do not apply to one without stars."""


def describe_followed(
    header: fits.Header,
    coadd: MeasuredCoadd,
    grid: Grid,
    moved: list[StackFrame],
    zeropoint: Zeropoint,
    followed: tuple[Position, float],
) -> None:
    """Replace the cards that differ for a coadd that follows a moving object.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header from `describe_coadd` of the ordinary coadd, changed in place.
    coadd : MeasuredCoadd
    grid : Grid
    moved : list of StackFrame
        The stacked frames.
    zeropoint : lib.photometry.zeropoint.Zeropoint
    followed : tuple
        The object, and the time of the position at which the coadd shows it [MJD].
    """
    for key in (*NOT_FOLLOWED, *wcs_cards(header), *LIMIT_KEYS):
        header.remove(key, ignore_missing=True)
    header.update(wcs_cards(grid.header()))
    position, mjd = followed
    ra, dec = (float(value[0]) for value in position.at(mjd))
    east, north = position.motion(mjd)
    cards: Cards = {
        **shape_cards(coadd),
        **depth_cards(coadd, zeropoint),
        **outlier_cards(moved),
        "MOVMJD": (mjd, "[d] when it was at MOVRA, MOVDEC (UTC)"),
        "MOVRA": (ra, "[deg] by its ephemeris"),
        "MOVDEC": (dec, "[deg] by its ephemeris"),
        "MOVEAST": (east, "[arcsec/h] motion then"),
        "MOVNORTH": (north, "[arcsec/h] motion then"),
        "MOVRATE": (float(np.hypot(east, north)), "[arcsec/h] motion then"),
    }
    cards.pop("NTRAIL", None)
    for key, card in cards.items():
        header[key] = card


def flat_error(used: list[StackFrame]) -> float:
    """Return the relative error of the flat stated by the frames; 0 where they state none.

    All frames share one flat: the error does not decrease with their number.
    """
    return max((float(frame.header.get("FLATERR", 0.0)) for frame in used), default=0.0)


def weight_header(header: fits.Header) -> fits.Header:
    """Return the header of the weight map of a coadd, given the coadd's header."""
    cards = wcs_cards(header)
    cards["BUNIT"] = "electron-2"
    for key in WEIGHT_KEYS:
        if key in header:
            cards[key] = (header[key], header.comments[key])
    return cards


def airmass_cards(headers: list[fits.Header]) -> Cards:
    """Return the median, minimum and maximum of the plausible airmasses, or no cards."""
    stated = [float(h["AIRMASS"]) for h in headers if isinstance(h.get("AIRMASS"), int | float)]
    values = np.array([v for v in stated if 1.0 <= v <= 10.0])
    if values.size == 0:
        return {}
    return {
        "AIRMASS": (float(np.median(values)), "median airmass of the frames"),
        "AIRMIN": (float(values.min()), "least airmass"),
        "AIRMAX": (float(values.max()), "largest airmass"),
    }


def pointing_cards(headers: list[fits.Header]) -> Cards:
    """Return the median pointing of the frames, or no cards.

    Where the astrometric solutions differ from it by more than `POINTING_ERROR`, they are used.
    """
    told = _median_position(headers, "RA", "DEC")
    solved = _median_position(headers, "RASOL", "DECSOL")
    if told is None:
        return {}
    cards: Cards = {
        "RA": (told[0], "[deg] pointing"),
        "DEC": (told[1], "[deg] median pointing of the frames"),
    }
    if solved is not None:
        off = 60 * float(separation(*told, *solved))
        if off > POINTING_ERROR:
            cards["RA"] = (solved[0], "[deg] pointing, by the solution")
            cards["DEC"] = (solved[1], "[deg] median pointing, by the solution")
            cards["POINTOFF"] = (round(off, 3), "[arcmin] by which that of the headers is off")
    return cards


def _median_position(headers: list[fits.Header], *keys: str) -> tuple[float, float] | None:
    """Return the median of positions in headers [deg]; None where there are none."""
    known = [h for h in headers if all(isinstance(h.get(key), float) for key in keys)]
    if not known:
        return None
    ra, dec = (np.array([h[key] for h in known]) for key in keys)
    turn = ra[0]
    return (
        float((turn + np.median((ra - turn + 180) % 360 - 180)) % 360),
        float(np.median(dec)),
    )


def time_cards(headers: list[fits.Header]) -> Cards:
    """Return the times of a stack: first and last start, median, exposure times."""
    starts = sorted(str(h["DATE-OBS"]) for h in headers if h.get("DATE-OBS"))
    cards: Cards = {}
    if starts:
        milliseconds = np.array(starts, dtype="datetime64[ms]").view("int64")
        median = np.datetime64(int(np.median(milliseconds)), "ms")
        cards["DATE-OBS"] = (str(median), "median start of the exposures (UTC)")
        cards["DATE1"] = (starts[0], "start of the first exposure (UTC)")
        cards["DATEN"] = (starts[-1], "start of the last exposure (UTC)")
    mjd = np.array([h["MJD-OBS"] for h in headers if "MJD-OBS" in h], float)
    if mjd.size:
        cards["MJD-OBS"] = (float(np.median(mjd)), "median start of the exposures")
        ends = [h["MJD-OBS"] + h["EXPTIME"] / 86400 for h in headers if "MJD-OBS" in h]
        cards["MJD-BEG"] = (float(mjd.min()), "start of the first exposure")
        cards["MJD-END"] = (float(max(ends)), "end of the last exposure")
        mean = mean_time(headers)
        cards["MJD-AVG"] = (mean, "mean of the mid-exposures, by exposure time")
        for name, value in (("BEG", mjd.min()), ("AVG", mean), ("END", max(ends))):
            cards[f"DATE-{name}"] = (calendar(value), f"the same as MJD-{name} (UTC)")
    exposure = np.array([float(h["EXPTIME"]) for h in headers])
    cards["EXPTIME"] = (float(np.median(exposure)), "[s] exposure the pixels are scaled to")
    # Chips exposed together count as one exposure.
    exposures = {exposure_of(h) or k: float(h["EXPTIME"]) for k, h in enumerate(headers)}
    cards["TOTALEXP"] = (sum(exposures.values()), "[s] sum of the exposures")
    cards["MAXEXP"] = (float(exposure.max()), "[s] longest exposure")
    cards["MINEXP"] = (float(exposure.min()), "[s] shortest exposure")
    return cards


def mean_time(headers: list[fits.Header]) -> float:
    """Return the mean mid-exposure of frames, weighted by exposure time [MJD]."""
    known = [h for h in headers if "MJD-OBS" in h]
    exposure = np.array([h["EXPTIME"] for h in known], float)
    middle = np.array([h["MJD-OBS"] for h in known]) + exposure / 2 / 86400
    weight = exposure if exposure.sum() > 0 else np.ones_like(exposure)
    return float(middle[0] + np.average(middle - middle[0], weights=weight))


def calendar(mjd: float) -> str:
    """Return a modified Julian date in ISO 8601, as in FITS, to the millisecond."""
    milliseconds = round(mjd * 86400000)
    return str(np.datetime64("1858-11-17", "ms") + np.timedelta64(milliseconds, "ms"))


def zeropoint_cards(zeropoint: Zeropoint, band: str, source: str) -> Cards:
    """Return the cards of a zero point, or of the reason why there is none."""
    cards: Cards = {}
    if not zeropoint.known:
        cards["ABSZPNST"] = (0, "stars in the zero point")
        cards["ABSZPCAT"] = ("NONE", "photometric reference")
        cards["ZPREASON"] = (zeropoint.reason[:66], "why there is no zero point")
        return cards
    vega = band in VEGA_BANDS
    cards["ABSZPT"] = (zeropoint.value, "[mag] mag = ABSZPT - 2.5 log10(sum of pixels)")
    cards["MAGZERO"] = (zeropoint.value, "[mag] the same as ABSZPT")
    cards["ABSZPERR"] = (zeropoint.error, "[mag] error of ABSZPT")
    cards["ABSZPTSC"] = (zeropoint.scatter, "[mag] robust scatter of the stars")
    cards["ABSZPRMS"] = (zeropoint.rms, "[mag] rms of the stars")
    cards["ABSZPINT"] = (zeropoint.intrinsic, "[mag] scatter beyond the stated errors")
    cards["ABSZPNST"] = (zeropoint.n_stars, "stars in the zero point")
    cards["ABSZPCAT"] = (source, "photometric reference")
    cards["ZPSYS"] = ("Vega" if vega else "AB", "system of ABSZPT")
    if band in AB_MINUS_VEGA:
        offset = AB_MINUS_VEGA[band]
        value = zeropoint.value
        cards["ABSZPAB"] = (value + offset if vega else value, "[mag] zero point, AB")
        cards["ABSZPVEG"] = (value if vega else value - offset, "[mag] zero point, Vega")
    if zeropoint.colour:
        cards["ABSZPCOL"] = (zeropoint.colour_term, "mag += ABSZPCOL * (colour - ABSZPCMN)")
        cards["ABSZPCER"] = (zeropoint.colour_term_error, "error of ABSZPCOL")
        cards["ABSZPCNM"] = (zeropoint.colour, "colour of the colour term")
        cards["ABSZPCMN"] = (zeropoint.colour_at, "[mag] colour at which ABSZPT holds")
    else:
        cards["ABSZPCOL"] = (0.0, "no colour term fitted")
    plane = zeropoint.spatial
    if plane is not None:
        cards["ABSZPDX"] = (plane.dx, "[mag/pixel] mag += ABSZPDX * (X - ABSZPX0)")
        cards["ABSZPDXE"] = (plane.dx_error, "[mag/pixel] error of ABSZPDX")
        cards["ABSZPDY"] = (plane.dy, "[mag/pixel] mag += ABSZPDY * (Y - ABSZPY0)")
        cards["ABSZPDYE"] = (plane.dy_error, "[mag/pixel] error of ABSZPDY")
        cards["ABSZPX0"] = (plane.x0 + 1, "[pixel] column at which ABSZPT holds")
        cards["ABSZPY0"] = (plane.y0 + 1, "[pixel] row at which ABSZPT holds")
    return cards


def shape_cards(coadd: MeasuredCoadd) -> Cards:
    """Return the cards of seeing, aperture correction and noise of a coadd."""
    field, noise, scale = coadd.field, coadd.noise, coadd.scale
    cards: Cards = {}
    if field is not None:
        fraction = float(field.growth.fraction(field.aperture))
        cards["SEEPIX"] = (field.fwhm, "[pixel] FWHM of stars")
        cards["SEEING"] = (field.fwhm * scale, "[arcsec] FWHM of stars")
        if np.isfinite(field.profile.ellipticity):
            cards["ELLIPTIC"] = (field.profile.ellipticity, "median 1 - b/a of stars")
        cards["APRAD"] = (field.aperture * scale, "[arcsec] radius of the photometry")
        cards["PSFVAR"] = (
            1.0857 * (field.variation.rms if field.variation else 0.0),
            "[mag] rms by which stars vary over the field",
        )
        cards["APCOR"] = (2.5 * np.log10(fraction), "[mag] from that aperture to total flux")
        cards["APCORERR"] = (1.0857 * field.growth.error, "[mag] error of APCOR")
        for key, value in zip(
            WING_KEYS, astuple(field.growth.wings(field.profile.shape)), strict=True
        ):
            cards[key] = (value, WING_KEYS[key])
        ratio = float(noise.ratio(field.aperture))
        cards["APNOISE"] = (ratio, "noise in APRAD over that of the weight map")
        core = field.core
        cards["APRADC"] = (core.radius * scale, "[arcsec] radius of the inner aperture")
        cards["APCORC"] = (2.5 * np.log10(core.fraction), "[mag] from that to total flux")
        cards["APCORCSC"] = (1.0857 * core.scatter, "[mag] scatter of APCORC among stars")
        ratio = float(noise.ratio(core.radius))
        cards["APNOISEC"] = (ratio, "noise in APRADC over that of the weight map")
        cards["APCORNST"] = (field.growth.n_stars, "stars in APCOR, 0: assumed profile")
    psf = coadd.psf
    cards["PSFMODEL"] = ("OK" if psf else coadd.psf_reason[:66], "extension PSF of the sources")
    if psf:
        cards["PSFNSTAR"] = (psf.n_stars, "stars that it was measured on")
        cards["PSFDEGRE"] = (psf.degree, "degree of its change over the field")
        cards["PSFERROR"] = (1.0857 * psf.error, "[mag] error of PSF magnitudes beyond noise")
    cards["CORRFAC"] = (noise.correlation, "variance in apertures over that of pixels")
    cards["CORRRAD"] = (noise.radius * scale, "[arcsec] radius of those apertures")
    cards["CORRNAP"] = (noise.apertures, "empty apertures; 0: CORRFAC not measured")
    cards["WTSCALE"] = (noise.weight_factor, "factor on the combined weights")
    return cards


def limit_cards(coadd: MeasuredCoadd, zeropoint: Zeropoint, settings: StackSettings) -> Cards:
    """Return the cards of the depth of a coadd."""
    cards = depth_cards(coadd, zeropoint)
    if not cards:
        return {}
    complete = complete_flux(
        coadd, cards["LIMFLUX"][0], detection_settings(settings), settings.background_box,
        settings.catalogue_snr,
    )  # fmt: skip
    if np.isfinite(complete) and zeropoint.known:
        value = zeropoint.value - 2.5 * np.log10(complete)
        cards["COMPMAG"] = (value, "[mag] half of the point sources are in the table")
    return cards


LIMIT_KEYS = ("LIMFLUX", "LIMMAG", "LIMRAD", "LIMNAP")


def depth_cards(coadd: MeasuredCoadd, zeropoint: Zeropoint) -> Cards:
    """Return the cards of the noise in empty apertures; none where there is no room for these."""
    limit = limiting_flux(coadd)
    if not np.isfinite(limit.flux):
        return {}
    cards: Cards = {"LIMFLUX": (limit.flux, "[electron] 5 sigma point source, total flux")}
    if zeropoint.known:
        value = zeropoint.value - 2.5 * np.log10(limit.flux)
        cards["LIMMAG"] = (value, "[mag] 5 sigma point source, empty apertures")
    cards["LIMRAD"] = (limit.radius * coadd.scale, "[arcsec] radius of those apertures")
    cards["LIMNAP"] = (limit.apertures, "empty apertures measured")
    return cards


def position_cards(
    coadd: MeasuredCoadd, reference: StackReference, headers: list[fits.Header], radius: float
) -> Cards:
    """Return the cards of the astrometric accuracy of a coadd.

    Parameters
    ----------
    coadd : MeasuredCoadd
    reference : StackReference
    headers : list of astropy.io.fits.Header
        Headers of the stacked frames.
    radius : float
        Maximum distance between a star and its match in the reference [arcsec].

    Returns
    -------
    dict
    """
    aligned = {str(h.get("ASTRCAT", "NONE")) for h in headers} != {"NONE"}
    stars = reference.stars if aligned else None
    source = "NONE" if stars is None else reference.source
    cards: Cards = {"ASTRCAT": (source, "astrometric reference")}
    if stars is not None and coadd.field is not None:
        rms, number = astrometric_scatter(coadd, stars, radius)
        if number >= 2:
            cards["ASTRMS1"] = (rms[0], "[mas] robust rms east against ASTRCAT")
            cards["ASTRMS2"] = (rms[1], "[mas] robust rms north against ASTRCAT")
        cards["ASTRNST"] = (number, "stars compared")
    return cards


def outlier_cards(frames: list[StackFrame]) -> Cards:
    """Return the cards that count the outliers masked in the frames."""
    counts = [frame.outliers for frame in frames if frame.outliers]
    if not counts:
        return {}
    pixels = sum(count.pixels + count.trail for count in counts)
    trails = sum(count.trail > 0 for count in counts)
    return {
        "NOUTLIER": (pixels, "pixels that the other frames contradict: no weight"),
        "NTRAIL": (trails, "frames with a satellite trail"),
    }


SKY_FLAGS = {"separated": "EXTENDED_LIGHT", "plane": "SKY_IS_PLANE"}
"""Flag of a stack whose frames had their sky made in this way (SKYMODE)."""


LEAST_DITHER = 3.0
"""[seeing] If frames are closer to each other, stars fall on the same pixels in all of them."""


def dither_of(headers: list[fits.Header]) -> float:
    """Return the extent of the dither of frames with a master sky.

    Parameters
    ----------
    headers : list of astropy.io.fits.Header
        Headers of the stacked frames.

    Returns
    -------
    float
        Largest distance from one of them [arcsec]; infinite where fewer than two positions are
        known.
    """
    own = [h for h in headers if h.get("SKYFILE") and "CRVAL1" in h and "NAXIS1" in h]
    if len(own) < 2:
        return np.inf
    places = np.array([
        celestial_wcs(h).all_pix2world(h["NAXIS1"] / 2, h["NAXIS2"] / 2, 0) for h in own
    ], float)  # fmt: skip
    distance = separation(*places.T, *places[len(places) // 2])
    return 3600 * float(np.max(distance))


def zero_level_of(headers: list[fits.Header]) -> str:
    """Return what is known of the zero level of extended light in frames, to be added to a reason.

    Parameters
    ----------
    headers : list of astropy.io.fits.Header
        EXTZERO and EXTZERR, see `lib.background.extendedlight.Separation`.
    """
    kinds = {one["EXTZERO"] for one in headers if "EXTZERO" in one}
    if kinds == {"profile"}:
        return f", zero to {max(one['EXTZERR'] for one in headers if 'EXTZERR' in one):.1g}"
    return ", zero unknown" if "unknown" in kinds else ""


LIGHT_COMMENTS = {
    "EXTLIGHT": "brightest extended light over the sky",
    "EXTZERR": "error of its zero level over the sky",
}


def add_light(header: fits.Header, headers: list[fits.Header]) -> None:
    """Write what the frames of a stack say of extended light into its header.

    Parameters
    ----------
    header : astropy.io.fits.Header
        EXTLIGHT, EXTZERO and EXTZERR are added: the worst of the frames.
    headers : list of astropy.io.fits.Header
        As `zero_level_of`.
    """
    for key in ("EXTLIGHT", "EXTZERR"):
        values = [one[key] for one in headers if key in one]
        if values:
            header[key] = (max(values), f"{LIGHT_COMMENTS[key]}, at most")
    kinds = {one["EXTZERO"] for one in headers if "EXTZERO" in one}
    for kind in ("unknown", "faint places", "profile"):
        if kind in kinds:
            header["EXTZERO"] = (kind, "what its zero level rests on")
            break


def flag_stack(
    header: fits.Header, headers: list[fits.Header], zeropoint: Zeropoint, settings: StackSettings
) -> list[str]:
    """Write the flags of a stack, with their reasons, into its header; return the codes."""
    flags = []
    if header["NSTACK"] < settings.min_frames:
        flags.append(("FEW_FRAMES", f"{header['NSTACK']} < {settings.min_frames}"))
    few = sum(one.get("ASTRHOW") == "few stars" for one in headers)
    if few:
        flags.append(("FEW_STARS", f"{few} of {len(headers)} frames placed by few"))
    if header.get("ELLIPTIC", 0.0) > settings.max_ellipticity:
        flags.append(("ELONGATED", f"ellipticity {header['ELLIPTIC']:.2f}, in all frames"))
    if header["ASTRCAT"] == "NONE":
        flags.append(("NO_ASTROMETRIC_REFERENCE", ""))
    if "CHIPDIFF" in header:
        flags.append(("CHIP_LEVELS", f"flats and stars differ by {header['CHIPDIFF']:.2f} mag"))
    if header.get("FLATERR", 0.0) > FLAT_ERROR_TOLD:
        flags.append(("FLAT_UNCERTAIN", f"{header['FLATERR']:.3f}, its pedestal is not known"))
    dither = dither_of(headers)
    if dither < LEAST_DITHER * header.get("SEEING", 0.0):
        flags.append(("UNDITHERED", f"{dither:.1f} arcsec, faint stars are in the master sky"))
    if header.get("PSFMODEL", "OK") != "OK":
        flags.append(("NO_PSF", header["PSFMODEL"]))
    if not zeropoint.known:
        flags.append(("NO_ZEROPOINT", zeropoint.reason))
    for mode, code in SKY_FLAGS.items():
        number = sum(one.get("SKYMODE") == mode for one in headers)
        if number:
            most = max(one.get("EXTLIGHT", 0.0) for one in headers)
            zero = zero_level_of(headers) if mode == "separated" else ""
            flags.append((code, f"to {most:.2g} of the sky in {number} frames{zero}"))
    add_light(header, headers)
    if flags:
        header["QCFLAG"] = (" ".join(code for code, _ in flags)[:66], "what to mind")
        reasons = [f"{code}: {why}" if why else code for code, why in flags]
        header["QCREASON"] = "; ".join(reasons)[:66]
    return [code for code, _ in flags]


def provenance_table(frames: list[StackFrame]) -> fits.BinTableHDU:
    """Return a table with one row per frame: its origin, its measurements, why it was left out.

    Parameters
    ----------
    frames : list of StackFrame
        All frames, including those left out.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    columns = []
    for key in PROVENANCE_KEYS:
        values = [frame.header.get(key) for frame in frames]
        name = key.replace("-", "_")
        if all(value is None for value in values):
            continue
        if all(isinstance(v, int | float) or v is None for v in values):
            array = np.array([np.nan if v is None else float(v) for v in values])
            columns.append(fits.Column(name=name, format="D", array=array))
        else:
            text = ["" if v is None else str(v) for v in values]
            width = max(1, max(len(word) for word in text))
            columns.append(fits.Column(name=name, format=f"{width}A", array=np.array(text)))
    numbers = [frame.numbers() for frame in frames]
    for key in ("fwhm", "seeing", "ellipticity", "zeropoint", "transparency", "scale", "weight"):
        array = np.array([known.get(key, np.nan) for known in numbers], float)
        columns.append(fits.Column(name=key.upper(), format="E", array=array))
    for key in ("outliers", "trail"):
        array = np.array([known.get(key, -1) for known in numbers])
        columns.append(fits.Column(name=key.upper(), format="J", null=-1, array=array))
    used = np.array([frame.used for frame in frames])
    columns.append(fits.Column(name="USED", format="L", array=used))
    text = [frame.reason for frame in frames]
    width = max(1, max(len(word) for word in text))
    columns.append(fits.Column(name="REASON", format=f"{width}A", array=np.array(text)))
    return fits.BinTableHDU.from_columns(columns, name="PROVENANCE")
