"""What the header of a coadd says, and the table of what it was made of."""

from dataclasses import astuple

import numpy as np
from astropy.io import fits

from lib.photometry.zeropoint import AB_MINUS_VEGA, VEGA_BANDS
from lib.stack.calibrate import astrometric_scatter, limiting_flux

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


def airmass_cards(headers):
    """Return the median, least and largest airmass that can be true, or nothing."""
    values = [float(h["AIRMASS"]) for h in headers if isinstance(h.get("AIRMASS"), int | float)]
    values = np.array([v for v in values if 1.0 <= v <= 10.0])
    if values.size == 0:
        return {}
    return {
        "AIRMASS": (float(np.median(values)), "median airmass of the frames"),
        "AIRMIN": (float(values.min()), "least airmass"),
        "AIRMAX": (float(values.max()), "largest airmass"),
    }


def pointing_cards(headers):
    """Return the median pointing of the frames, or nothing."""
    known = [h for h in headers if isinstance(h.get("RA"), float) and isinstance(h["DEC"], float)]
    if not known:
        return {}
    ra, dec = (np.array([h[key] for h in known]) for key in ("RA", "DEC"))
    turn = ra[0]
    return {
        "RA": (float((turn + np.median((ra - turn + 180) % 360 - 180)) % 360), "[deg] pointing"),
        "DEC": (float(np.median(dec)), "[deg] median pointing of the frames"),
    }


def time_cards(headers):
    """Return the times of a stack: first and last start, median, exposure times."""
    starts = sorted(str(h["DATE-OBS"]) for h in headers if h.get("DATE-OBS"))
    cards = {}
    if starts:
        middle = np.array(starts, dtype="datetime64[ms]")
        median = middle.view("int64")
        median = np.datetime64(int(np.median(median)), "ms")
        cards["DATE-OBS"] = (str(median), "median start of the exposures (UTC)")
        cards["DATE1"] = (starts[0], "start of the first exposure (UTC)")
        cards["DATEN"] = (starts[-1], "start of the last exposure (UTC)")
    mjd = np.array([h["MJD-OBS"] for h in headers if "MJD-OBS" in h], float)
    if mjd.size:
        cards["MJD-OBS"] = (float(np.median(mjd)), "median start of the exposures")
        ends = [h["MJD-OBS"] + h["EXPTIME"] / 86400 for h in headers if "MJD-OBS" in h]
        cards["MJD-BEG"] = (float(mjd.min()), "start of the first exposure")
        cards["MJD-END"] = (float(max(ends)), "end of the last exposure")
    exposure = np.array([float(h["EXPTIME"]) for h in headers])
    cards["EXPTIME"] = (float(np.median(exposure)), "[s] exposure the pixels are scaled to")
    cards["TOTALEXP"] = (float(exposure.sum()), "[s] sum of the exposures")
    cards["MAXEXP"] = (float(exposure.max()), "[s] longest exposure")
    cards["MINEXP"] = (float(exposure.min()), "[s] shortest exposure")
    return cards


def zeropoint_cards(zeropoint, band, source):
    """Return the cards of a zero point, or of why there is none."""
    cards = {}
    if not zeropoint.known:
        cards["ABSZPNST"] = (0, "stars in the zero point")
        cards["ABSZPCAT"] = ("NONE", "photometric reference")
        cards["ZPREASON"] = (zeropoint.reason[:66], "why there is no zero point")
        return cards
    vega = band in VEGA_BANDS
    cards["ABSZPT"] = (zeropoint.value, "[mag] mag = ABSZPT - 2.5 log10(sum of pixels)")
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


def shape_cards(coadd, scale):
    """Return the cards of seeing, aperture correction and noise of a coadd."""
    field = coadd["field"]
    cards = {}
    if field is not None:
        fraction = float(field.growth.fraction(field.aperture))
        cards["SEEPIX"] = (field.fwhm, "[pixel] FWHM of stars")
        cards["SEEING"] = (field.fwhm * scale, "[arcsec] FWHM of stars")
        if np.isfinite(field.ellipticity):
            cards["ELLIPTIC"] = (field.ellipticity, "median 1 - b/a of stars")
        cards["APRAD"] = (field.aperture * scale, "[arcsec] radius of the photometry")
        cards["APCOR"] = (2.5 * np.log10(fraction), "[mag] from that aperture to total flux")
        cards["APCORERR"] = (1.0857 * field.growth.error, "[mag] error of APCOR")
        for key, value in zip(WING_KEYS, astuple(field.growth.wings(field.shape)), strict=True):
            cards[key] = (value, WING_KEYS[key])
        ratio = np.interp(field.aperture, coadd["radii"], coadd["ratios"])
        cards["APNOISE"] = (float(ratio), "noise in APRAD over that of the weight map")
        cards["APCORNST"] = (field.growth.n_stars, "stars in APCOR, 0: assumed profile")
    cards["CORRFAC"] = (coadd["correlation"], "variance in apertures over that of pixels")
    cards["CORRRAD"] = (coadd["corr_radius"] * scale, "[arcsec] radius of those apertures")
    cards["CORRNAP"] = (coadd["apertures"], "empty apertures; 0: CORRFAC not measured")
    cards["WTSCALE"] = (coadd["factor"], "factor on the combined weights")
    return cards


def limit_cards(coadd, zeropoint, scale):
    """Return the cards of the depth of a coadd."""
    limit, radius, number = limiting_flux(coadd)
    if not np.isfinite(limit):
        return {}
    cards = {"LIMFLUX": (limit, "[electron] 5 sigma point source, total flux")}
    if zeropoint.known:
        value = zeropoint.value - 2.5 * np.log10(limit)
        cards["LIMMAG"] = (value, "[mag] 5 sigma point source, empty apertures")
    cards["LIMRAD"] = (radius * scale, "[arcsec] radius of those apertures")
    cards["LIMNAP"] = (number, "empty apertures measured")
    return cards


def position_cards(field, sky, reference, headers, radius):
    """Return the cards of the astrometry of a coadd."""
    aligned = {str(h.get("ASTRCAT", "NONE")) for h in headers} != {"NONE"}
    known = reference.stars is not None and aligned
    cards = {"ASTRCAT": (reference.source if known else "NONE", "astrometric reference")}
    if known and field is not None:
        rms, number = astrometric_scatter(field, sky, reference.stars, radius)
        if number >= 2:
            cards["ASTRMS1"] = (rms[0], "[mas] robust rms east against ASTRCAT")
            cards["ASTRMS2"] = (rms[1], "[mas] robust rms north against ASTRCAT")
        cards["ASTRNST"] = (number, "stars compared")
    return cards


def outlier_cards(records):
    """Return the cards of what was left out of frames because the others contradict it."""
    if not any("outliers" in record for record in records):
        return {}
    pixels = sum(record["outliers"] + record["trail"] for record in records)
    trails = sum(record["trail"] > 0 for record in records)
    return {
        "NOUTLIER": (pixels, "pixels that the other frames contradict: no weight"),
        "NTRAIL": (trails, "frames with a satellite trail"),
    }


def flag_stack(header, zeropoint, settings):
    """Write into the header what to mind about a stack; return the codes."""
    flags = []
    if header["NSTACK"] < settings["min_frames"]:
        flags.append(("FEW_FRAMES", f"{header['NSTACK']} < {settings['min_frames']}"))
    if header["ASTRCAT"] == "NONE":
        flags.append(("NO_ASTROMETRIC_REFERENCE", ""))
    if not zeropoint.known:
        flags.append(("NO_ZEROPOINT", zeropoint.reason))
    if flags:
        header["QCFLAG"] = (" ".join(code for code, _ in flags)[:66], "what to mind")
        reasons = [f"{code}: {why}" if why else code for code, why in flags]
        header["QCREASON"] = "; ".join(reasons)[:66]
    return [code for code, _ in flags]


def provenance_table(records):
    """Return one row per frame: what it is made of, what was measured, why it was left out.

    Parameters
    ----------
    records : list of dict
        With name, header, code and the numbers of `run`.

    Returns
    -------
    astropy.io.fits.BinTableHDU
    """
    columns = []
    for key in PROVENANCE_KEYS:
        values = [record["header"].get(key) for record in records]
        if all(value is None for value in values):
            continue
        if all(isinstance(v, int | float) or v is None for v in values):
            array = np.array([np.nan if v is None else float(v) for v in values])
            columns.append(fits.Column(name=key, format="D", array=array))
        else:
            text = ["" if v is None else str(v) for v in values]
            width = max(1, max(len(word) for word in text))
            columns.append(fits.Column(name=key, format=f"{width}A", array=np.array(text)))
    for key in ("fwhm", "seeing", "ellipticity", "zeropoint", "transparency", "scale", "weight"):
        array = np.array([record.get(key, np.nan) for record in records], float)
        columns.append(fits.Column(name=key.upper(), format="E", array=array))
    for key in ("outliers", "trail"):
        array = np.array([record.get(key, -1) for record in records])
        columns.append(fits.Column(name=key.upper(), format="J", null=-1, array=array))
    used = np.array([record["used"] for record in records])
    columns.append(fits.Column(name="USED", format="L", array=used))
    text = [record.get("reason", "") for record in records]
    width = max(1, max(len(word) for word in text))
    columns.append(fits.Column(name="REASON", format=f"{width}A", array=np.array(text)))
    return fits.BinTableHDU.from_columns(columns, name="PROVENANCE")
