"""Rule solve: the astrometric solution of all frames of one stack.

Stars are detected on each frame (source-extractor), identified in the reference by a ladder of
ever fewer assumptions (lib.matching), and all frames are solved jointly (SCAMP, which is told
the identification and does not look for one). With no reference the frames are aligned with
each other.
"""

import io
import json
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from lib.frames import UNUSABLE, FrameRejected, atomic_path, read_frame
from lib.matching import (
    Mapping,
    NoMatch,
    brightest_per_cell,
    deproject,
    fit_mapping,
    match_stars,
    nearest_pairs,
    project,
)
from lib.programs import ProgramFailed, find_program, run_program
from lib.stats import mad_std

STEP_VERSION = 1

log = logging.getLogger("autoproc")

DEFAULTS = {
    "detect_threshold": 3.0,
    "detect_minarea": 5,
    "min_snr": 8.0,
    "min_stars": 6,
    "min_matched": 5,
    "min_contrast": 2.0,
    "log_chance": -6.0,
    "search_radius": None,
    "wide_radius": 0.4,
    "scale_error": 0.08,
    "degree": "auto",
    "match_resolution": 1.0,
    "timeout": 300.0,
}

BANDS = ("u", "B", "g", "V", "r", "R", "i", "I", "z", "y", "J", "H", "K")
"""In the order of wavelength: the nearest one stands in for a missing one."""

TRIAL_SCALES = (1.0, 2.0, 0.5, 1.15, 0.87, 1.32, 0.76, 1.52, 0.66, 1.75, 0.57)
"""Scales tried for a frame whose header scale is wrong; first the likely binning mistakes."""

MOST_LINKS = 200
"""Brightest stars without known position that tie the frames of a group to each other."""

MOST_KNOWN = 400
"""Reference stars, spread over the field, that are used in a joint solution: enough for 1 mas."""

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


# --- Sky and pixels -----------------------------------------------------------------------


def tpv_terms(degree):
    """Return index and powers (of the axis' own and of the other coordinate) of the TPV terms.

    Radial terms (3, 11, 23, 39) are left out. Source: the TPV registration document of FITS.
    """
    terms, index = [], 0
    for d in range(degree + 1):
        for power in range(d + 1):
            terms.append((index, d - power, power))
            index += 1
        if d % 2:
            index += 1
    return terms


def polynomial(u, v, terms):
    """Design matrix of the terms for coordinates `u`, `v`; shape (n, terms)."""
    return np.stack([u**i * v**j for _, i, j in terms], axis=1)


def fit_cards(sky, shape, *, max_degree=7, accuracy=2e-4, nodes=15):
    """Write a map from pixels to the sky as TAN or TPV cards, of the lowest degree that does.

    Parameters
    ----------
    sky : callable
        Takes x, y (1-based pixels), returns ra, dec [deg].
    shape : tuple of int
        (ny, nx) of the image; CRPIX is its middle.
    max_degree : int
        At most 7, odd.
    accuracy : float
        Largest difference from `sky` over the frame at which no higher degree is tried [arcsec].
    nodes : int
        Points per axis at which the map is sampled.

    Returns
    -------
    cards : dict
    error : float
        Largest difference from `sky` [arcsec].
    """
    ny, nx = shape
    crpix = np.array([(nx + 1) / 2, (ny + 1) / 2])
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, nx, nodes), np.linspace(1, ny, nodes)))
    ra, dec = sky(x, y)
    crval = [float(v[0]) for v in sky(crpix[:1], crpix[1:])]
    half = max(nx, ny) / 2
    u, v = (x - crpix[0]) / half, (y - crpix[1]) / half
    for degree in range(1, max_degree + 1, 2):
        terms = tpv_terms(degree)
        base = polynomial(u, v, terms)
        if degree == 1:
            for _ in range(3):
                # With no PV the constant belongs into CRVAL.
                target = project(ra, dec, *crval)
                coefficients = np.linalg.lstsq(base, target, rcond=None)[0]
                crval = [float(c[0]) for c in deproject(coefficients[:1], *crval)]
            cd = coefficients[1:3].T / half / 3600.0
            error = np.abs(project(ra, dec, *crval) - base[:, 1:] @ coefficients[1:]).max()
            pv = {}
        else:
            target = project(ra, dec, *crval) / 3600.0
            coefficients = np.linalg.lstsq(base, target, rcond=None)[0]
            cd = coefficients[1:3].T / half
            xi, eta = cd @ np.stack([x - crpix[0], y - crpix[1]])
            # Fitted in units of the frame's size: powers of degrees would be ill-conditioned.
            unit = max(np.abs(xi).max(), np.abs(eta).max())
            pv, error = {}, 0.0
            for axis, (own, other) in enumerate(((xi, eta), (eta, xi))):
                base_pv = polynomial(own / unit, other / unit, terms)
                c = np.linalg.lstsq(base_pv, target[:, axis], rcond=None)[0]
                error = max(error, np.abs(target[:, axis] - base_pv @ c).max() * 3600.0)
                for (index, i, j), value in zip(terms, c, strict=True):
                    pv[f"PV{axis + 1}_{index}"] = float(value / unit ** (i + j))
        if error < accuracy:
            break
    projection = "TPV" if pv else "TAN"
    cards = {
        "CTYPE1": f"RA---{projection}",
        "CTYPE2": f"DEC--{projection}",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": crval[0],
        "CRVAL2": crval[1],
        "CRPIX1": float(crpix[0]),
        "CRPIX2": float(crpix[1]),
        "CD1_1": float(cd[0, 0]),
        "CD1_2": float(cd[0, 1]),
        "CD2_1": float(cd[1, 0]),
        "CD2_2": float(cd[1, 1]),
        **pv,
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
    }
    return cards, float(error)


def sky_from_cards(cards):
    """Return the function of x, y (1-based) giving ra, dec [deg] that the cards stand for."""
    header = cards if isinstance(cards, fits.Header) else fits.Header(cards)
    return sky_from_wcs(WCS(header, naxis=2))


def sky_from_wcs(wcs):
    """Return the function of x, y (1-based) giving ra, dec [deg] of a WCS."""

    def sky(x, y):
        return wcs.all_pix2world(np.asarray(x, float), np.asarray(y, float), 1)

    return sky


def system_cards(header):
    """Return the cards of a header that make up its world coordinate system."""
    system = fits.Header()
    for key in header:
        if key.startswith(("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CD", "PC", "PV", "A_", "B_")):
            system[key] = header[key]
        elif key in ("RADESYS", "EQUINOX", "LONPOLE", "LATPOLE", "CROTA2"):
            system[key] = header[key]
    return system


def starting_sky(header, shape, centre=None):
    """Return the map from pixels to the sky that the header claims, and how far it may be off.

    A frame without world coordinates gets north up, east left, its PIXSCALE, about RA and DEC,
    else about `centre`, else about (0, 0).

    Parameters
    ----------
    header : astropy.io.fits.Header
    shape : tuple of int
        (ny, nx).
    centre : tuple of float, optional
        Middle and radius of the reference [deg].

    Returns
    -------
    sky : callable
        Takes x, y (1-based), returns ra, dec [deg].
    radius : float or None
        Uncertainty of the pointing [deg].
    """
    radius = header.get("POSERR")
    if str(header.get("CTYPE1", ""))[:2] in ("RA", "DE") and "CRVAL1" in header:
        return sky_from_cards(system_cards(header)), radius
    ra, dec = header.get("RA"), header.get("DEC")
    if not isinstance(ra, (int, float)) or not isinstance(dec, (int, float)):
        ra, dec, radius = centre if centre is not None else (0.0, 0.0, radius)
    scale = float(header.get("PIXSCALE", 1.0)) / 3600.0
    ny, nx = shape
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": float(ra),
        "CRVAL2": float(dec),
        "CRPIX1": (nx + 1) / 2,
        "CRPIX2": (ny + 1) / 2,
        "CD1_1": -scale,
        "CD1_2": 0.0,
        "CD2_1": 0.0,
        "CD2_2": scale,
    }
    return sky_from_cards(cards), radius


# --- Stars of a frame ---------------------------------------------------------------------


@dataclass
class Exposure:
    """One frame: its stars and what is known of its place on the sky.

    Parameters
    ----------
    name : str
    header : astropy.io.fits.Header
    shape : tuple of int
        (ny, nx).
    stars : ndarray
        Structured, with `CATALOGUE_COLUMNS`, bright first.
    sky : callable
        Header's map from pixels to the sky, later the solution's.
    radius : float
        Uncertainty of the pointing [arcsec].
    """

    name: str
    header: fits.Header
    shape: tuple
    stars: np.ndarray
    sky: object = None
    radius: float = 0.0
    match: object = None
    degree: int = 1
    notes: dict = field(default_factory=dict)

    @property
    def x(self):
        return self.stars["XWIN_IMAGE"]

    @property
    def y(self):
        return self.stars["YWIN_IMAGE"]

    @property
    def magnitude(self):
        return -2.5 * np.log10(self.stars["FLUX_AUTO"])

    @property
    def error(self):
        """Position error per axis [pixel]."""
        a, b = self.stars["ERRAWIN_IMAGE"], self.stars["ERRBWIN_IMAGE"]
        return np.sqrt((a**2 + b**2) / 2)

    @property
    def middle(self):
        """Pixel coordinates of the middle."""
        return np.array([(self.shape[1] + 1) / 2, (self.shape[0] + 1) / 2])

    def local_matrix(self, sky=None):
        """Derivative of the tangent plane [arcsec] by pixel at the middle, shape (2, 2)."""
        sky = sky or self.sky
        cx, cy = self.middle
        h = min(self.shape) / 8
        x = np.array([cx, cx + h, cx - h, cx, cx])
        y = np.array([cy, cy, cy, cy + h, cy - h])
        ra, dec = sky(x, y)
        p = project(ra, dec, ra[0], dec[0])
        return np.stack([p[1] - p[2], p[3] - p[4]], axis=1) / (2 * h)

    @property
    def scale(self):
        """Pixel scale [arcsec]."""
        return float(np.sqrt(abs(np.linalg.det(self.local_matrix()))))


def detection_arrays(image, mask):
    """Prepare an image for detection.

    Parameters
    ----------
    image : ndarray of float, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)

    Returns
    -------
    image : ndarray of float32
        Unusable pixels replaced by the median of the rest.
    weight : ndarray of float32
        0 for unusable pixels, else 1.
    flag : ndarray of int16
        The mask's unusable bits.
    """
    bad = ((mask & UNUSABLE) > 0) | ~np.isfinite(image)
    level = np.median(image[~bad]) if not bad.all() else 0.0
    clean = np.where(bad, np.float32(level), image).astype(np.float32)
    flag = np.where(bad, np.maximum(mask & UNUSABLE, 1), 0).astype(np.int16)
    return clean, (~bad).astype(np.float32), flag


def extractor_arguments(image, workdir, header, options):
    """Return the arguments of source-extractor; filter and column list are put into `workdir`."""
    workdir = Path(workdir)
    (workdir / "columns.param").write_text("\n".join(CATALOGUE_COLUMNS) + "\n")
    (workdir / "gauss.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    settings = {
        "CATALOG_NAME": "stars.ldac",
        "CATALOG_TYPE": "FITS_LDAC",
        "PARAMETERS_NAME": "columns.param",
        "FILTER_NAME": "gauss.conv",
        "DETECT_THRESH": options["detect_threshold"],
        "ANALYSIS_THRESH": options["detect_threshold"],
        "DETECT_MINAREA": options["detect_minarea"],
        "DEBLEND_MINCONT": 0.005,
        "WEIGHT_TYPE": "MAP_WEIGHT",
        "WEIGHT_IMAGE": "weight.fits",
        "FLAG_IMAGE": "flag.fits",
        "FLAG_TYPE": "OR",
        "GAIN": header.get("GAIN", 1.0),
        "GAIN_KEY": "NONE",
        "SATUR_LEVEL": min(float(header.get("SATURATE", 1e20)), 1e20),
        "SATUR_KEY": "NONE",
        "PIXEL_SCALE": header.get("PIXSCALE", 1.0),
        "BACK_SIZE": 64,
        "BACKPHOTO_TYPE": "LOCAL",
        "MEMORY_PIXSTACK": 3000000,
        "VERBOSE_TYPE": "QUIET",
        "WRITE_XML": "N",
    }
    argv = [find_program("source-extractor"), image, "-c", "empty.sex"]
    (workdir / "empty.sex").write_text("# all settings are on the command line\n")
    for key, value in settings.items():
        argv += [f"-{key}", value]
    return argv


def select_stars(table, min_snr):
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
    # A neighbour in the window draws the centroid: twice the error fits what is seen.
    for name in ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"):
        table[name] *= np.where(table["FLAGS"] > 0, 2.0, 1.0)
    return table[np.argsort(-table["FLUX_AUTO"], kind="stable")]


def detect(path, options):
    """Detect the stars of a frame.

    Parameters
    ----------
    path : path-like
        Frame file.
    options : dict
        See `DEFAULTS`.

    Returns
    -------
    Exposure

    Raises
    ------
    FrameRejected
        Rejected before, no usable pixel, or too few stars.
    """
    frame = read_frame(path)
    name = frame_name(path, frame.header)
    if frame.rejected or frame.image is None:
        code, _, numbers = (frame.reason or "REJECTED").partition(": ")
        raise FrameRejected(code, numbers)
    image, weight, flag = detection_arrays(frame.image, frame.mask)
    if not weight.any():
        raise FrameRejected("TOO_FEW_STARS", f"0 < {options['min_stars']}, no usable pixel")
    with tempfile.TemporaryDirectory(prefix="autoproc-detect-") as folder:
        folder = Path(folder)
        for stem, data in (("image", image), ("weight", weight), ("flag", flag)):
            fits.writeto(folder / f"{stem}.fits", data)
        argv = extractor_arguments("image.fits", folder, frame.header, options)
        try:
            run_program(argv, timeout=options["timeout"], cwd=folder)
        except ProgramFailed as why:
            raise FrameRejected("DETECTION_FAILED", str(why)) from why
        with fits.open(folder / "stars.ldac", memmap=False) as hdus:
            table = np.array(hdus["LDAC_OBJECTS"].data)
    table = table.astype(table.dtype.newbyteorder("="))
    stars = select_stars(table, options["min_snr"])
    log.info("%s: %d sources, %d of use", name, len(table), len(stars))
    if len(stars) < options["min_stars"]:
        raise FrameRejected("TOO_FEW_STARS", f"{len(stars)} < {options['min_stars']}")
    return Exposure(name, frame.header, image.shape, stars)


def frame_name(path, header):
    """Return the name of a frame: FRAME of its header, else its file name from the first 2 on."""
    name = header.get("FRAME")
    stem = Path(path).name.removesuffix(".fits")
    return str(name) if name else stem[max(stem.find("2"), 0) :]


# --- The reference ------------------------------------------------------------------------


@dataclass
class Reference:
    """Stars with known positions.

    Parameters
    ----------
    ra, dec : ndarray
        Degrees, at the epoch of the observation.
    error : ndarray
        Per axis [arcsec].
    magnitude : ndarray
        Of the band nearest to that observed; NaN where none is known.
    seen : ndarray of int, optional
        Number of frames a star was measured on, for a reference made of frames.
    """

    ra: np.ndarray
    dec: np.ndarray
    error: np.ndarray
    magnitude: np.ndarray
    seen: np.ndarray | None = None

    def __len__(self):
        return len(self.ra)

    def __getitem__(self, index):
        seen = None if self.seen is None else self.seen[index]
        return Reference(
            self.ra[index], self.dec[index], self.error[index], self.magnitude[index], seen
        )


def reference_from_table(table, band):
    """Take positions, errors and magnitudes from a reference table.

    Parameters
    ----------
    table : astropy.table.Table
        Columns ra, dec [deg], ra_err, dec_err [mas] and bands; the positions are taken as they
        are, rule refcat has moved them to the epoch of the observation.
    band : str
        Band observed, or empty.

    Returns
    -------
    Reference
    """

    def column(name, missing=np.nan):
        if name not in table.colnames:
            return np.full(len(table), missing)
        return np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)

    at = BANDS.index(band) if band in BANDS else BANDS.index("r")
    magnitude = np.full(len(table), np.nan)
    for name in sorted(BANDS, key=lambda b: abs(BANDS.index(b) - at)):
        values = column(name)
        known = np.isfinite(values) & np.isfinite(magnitude)
        missing = ~np.isfinite(magnitude)
        # Bands differ by a colour: stand-ins are put on the level of those that have both.
        shift = np.median((magnitude - values)[known]) if known.any() else 0.0
        magnitude[missing] = values[missing] + shift
    error = np.sqrt((column("ra_err") ** 2 + column("dec_err") ** 2) / 2) / 1000.0
    ra, dec = column("ra"), column("dec")
    good = np.isfinite(ra) & np.isfinite(dec)
    error = np.where(np.isfinite(error) & (error > 0), np.maximum(error, 5e-4), 0.1)
    return Reference(ra, dec, error, magnitude)[good]


def reference_extent(reference):
    """Middle (ra, dec) and radius of a reference, degrees; None where it is empty."""
    if not len(reference):
        return None
    a, d = np.radians(reference.ra), np.radians(reference.dec)
    v = np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    m = v.mean(axis=1)
    m /= np.linalg.norm(m)
    radius = np.degrees(np.arccos(np.clip(m @ v, -1, 1).min()))
    return (
        float(np.degrees(np.arctan2(m[1], m[0])) % 360),
        float(np.degrees(np.arcsin(m[2]))),
        (float(radius)),
    )


# --- First solution -----------------------------------------------------------------------


def plane_of(exposure, reference, sky=None):
    """Project stars and reference on the tangent plane about the middle of the frame.

    Returns
    -------
    stars, reference : ndarray, shapes (n, 2), (m, 2)
        Arcseconds.
    centre : tuple of float
        Tangent point, ra and dec [deg].
    """
    sky = sky or exposure.sky
    ra, dec = sky(*exposure.middle[:, None])
    centre = float(ra[0]), float(dec[0])
    stars = project(*sky(exposure.x, exposure.y), *centre)
    return stars, project(reference.ra, reference.dec, *centre), centre


def identify(
    exposure, reference, options, *, sky=None, radius=None, asterisms=False, scales=(1.0,)
):
    """Identify the stars of a frame in the reference and correct the frame's map by the result.

    Parameters
    ----------
    exposure : Exposure
    reference : Reference
    options : dict
        See `DEFAULTS`.
    sky : callable, optional
        Map to start from instead of the header's.
    radius : float, optional
        Uncertainty of the pointing [arcsec].
    asterisms, scales
        See `lib.matching.match_stars`.

    Returns
    -------
    match : Match
    sky : callable

    Raises
    ------
    NoMatch
    """
    sky = sky or exposure.sky
    radius = exposure.radius if radius is None else radius
    stars, other, centre = plane_of(exposure, reference, sky)
    scale = np.sqrt(abs(np.linalg.det(exposure.local_matrix(sky))))
    size = float(np.sqrt(np.prod(exposure.shape)) * scale)
    match = match_stars(
        stars,
        exposure.magnitude,
        other,
        reference.magnitude,
        size=size,
        tolerance=max(2.0 * scale, 0.6),
        radius=radius,
        first_radius=max(10 * scale, 5.0),
        min_matched=options["min_matched"],
        contrast=options["min_contrast"],
        log_chance=options["log_chance"],
        scale_error=options["scale_error"],
        scales=scales,
        asterisms=asterisms,
    )

    def corrected(x, y):
        return deproject(match.mapping(project(*sky(x, y), *centre)), *centre)

    return match, corrected


def turned_like(exposure, matrix):
    """Header's map of a frame, with the linear part that another frame was found to have.

    Parameters
    ----------
    exposure : Exposure
    matrix : ndarray, shape (2, 2)
        Arcseconds per pixel on the tangent plane.
    """
    ra, dec = exposure.sky(*exposure.middle[:, None])
    centre = float(ra[0]), float(dec[0])
    turn = Mapping(matrix @ np.linalg.inv(exposure.local_matrix()), np.zeros(2))
    header_sky = exposure.sky

    def sky(x, y):
        return deproject(turn(project(*header_sky(x, y), *centre)), *centre)

    return sky


def absorb_turn(exposure):
    """Put rotation and scale found for a frame before the distortion of its header, not after.

    A distortion of seventh order grows by 0.7 % when the frame is 0.1 % larger than its header
    says, which a linear term applied after it does not follow.

    Parameters
    ----------
    exposure : Exposure
        Identified: `sky` is the header's map followed by a linear one.

    Returns
    -------
    callable
        Map of the header with its CD matrix turned and CRVAL shifted, agreeing with `sky` in the
        middle of the frame to first order.
    """
    header = system_cards(exposure.header)
    wcs = WCS(header, naxis=2)
    for _ in range(2):
        sky = sky_from_wcs(wcs)
        turn = exposure.local_matrix() @ np.linalg.inv(exposure.local_matrix(sky))
        wcs.wcs.cd = turn @ wcs.wcs.cd if wcs.wcs.has_cd() else turn @ wcs.pixel_scale_matrix
        ra, dec = exposure.sky(*exposure.middle[:, None])
        for _ in range(2):
            now_ra, now_dec = sky_from_wcs(wcs)(*exposure.middle[:, None])
            wcs.wcs.crval = wcs.wcs.crval + [
                (ra[0] - now_ra[0] + 180) % 360 - 180,
                dec[0] - now_dec[0],
            ]
            wcs.wcs.set()
    return sky_from_wcs(wcs)


def same_orientation(a, b, angle=1.0, scale=0.01):
    """Whether two linear parts agree in parity, rotation [deg] and scale (relative)."""
    turn = Mapping(a @ np.linalg.inv(b), np.zeros(2))
    return turn.parity == 1 and abs(turn.rotation) < angle and abs(turn.scale - 1) < scale


def identify_group(exposures, reference, options, *, wide=True):
    """Identify all frames of a camera; what one frame teaches of the camera helps the others.

    Parameters
    ----------
    exposures : list of Exposure
        `match` and `sky` of those that are found are set.
    reference : Reference
    options : dict
    wide : bool
        Whether asterisms (any rotation, scale, mirror image) are tried.

    Returns
    -------
    dict
        Name of each frame that is not found: the numbers of its best hypothesis.
    """
    failed = {}
    claimed = {e.name: (e.sky, e.local_matrix()) for e in exposures}

    def attempt(exposure, **how):
        try:
            exposure.match, sky = identify(exposure, reference, options, **how)
        except NoMatch as why:
            failed[exposure.name] = str(why)
            return False
        failed.pop(exposure.name, None)
        exposure.sky = sky
        log.info("%s: %s: %s", exposure.name, exposure.match.rung, exposure.match)
        return True

    def widely(exposure, **how):
        return attempt(
            exposure, radius=max(exposure.radius, 3600.0 * options["wide_radius"]), **how
        )

    def solved():
        return [e for e in exposures if e.match]

    def learn(exposure):
        """Try the orientations of the frames solved, as they are and relative to their header."""
        tried = []
        for teacher in sorted(solved(), key=lambda e: e.match.log_chance):
            found = teacher.local_matrix()
            relative = found @ np.linalg.inv(claimed[teacher.name][1])
            for matrix in (found, relative @ claimed[exposure.name][1]):
                if any(same_orientation(matrix, t, 0.3, 0.003) for t in tried):
                    continue
                tried.append(matrix)
                exposure.sky = claimed[exposure.name][0]
                if (widely if wide else attempt)(exposure, sky=turned_like(exposure, matrix)):
                    return True
            if len(tried) >= 4:
                break
        return False

    for exposure in exposures:
        attempt(exposure) or (wide and widely(exposure))
    if wide and not solved():
        # The richest frame has the best chance; a few are enough to know that none will do.
        richest = sorted(exposures, key=lambda e: -len(e.stars))
        any(widely(e, asterisms=True) for e in richest[:3]) or widely(
            richest[0], asterisms=True, scales=TRIAL_SCALES[1:]
        )
    for exposure in exposures:
        if exposure.match is None and solved():
            learn(exposure) or (wide and widely(exposure, asterisms=True))

    # A weak match that disagrees with the camera's orientation is a false one.
    matrices = {e.name: e.local_matrix() for e in solved()}
    for exposure in solved():
        if exposure.match.log_chance < options["log_chance"] - 6:
            continue
        own = matrices[exposure.name]
        others = [m for name, m in matrices.items() if name != exposure.name]
        if not others or sum(same_orientation(own, m) for m in others) * 2 >= len(others):
            continue
        numbers = str(exposure.match)
        log.warning("%s: orientation unlike the other frames': %s", exposure.name, numbers)
        exposure.match, exposure.sky = None, claimed[exposure.name][0]
        if not learn(exposure):
            failed[exposure.name] = f"unlike the other frames: {numbers}"
    for exposure in exposures:
        if exposure.match is None:
            exposure.sky = claimed[exposure.name][0]
    return failed


def identify_by_neighbours(exposures, reference, options, failed):
    """Identify frames that show too few reference stars by the stars of frames already solved.

    Returns
    -------
    dict
        As `identify_group`, of the frames that match neither.
    """
    solved = [e for e in exposures if e.match]
    before = [e.sky for e in solved]
    for exposure in solved:
        exposure.sky, _ = fit_own(exposure, reference, 1)
    common = catalogue_of(solved)
    for exposure, sky in zip(solved, before, strict=True):
        exposure.sky = sky
    rest = [e for e in exposures if not e.match]
    again = identify_group(rest, common, options, wide=False)
    for exposure in rest:
        if exposure.match:
            exposure.sky, _ = fit_own(exposure, common, 1)
            exposure.notes["neighbours"] = True
    return {name: f"{failed[name]}; by its neighbours {numbers}" for name, numbers in again.items()}


# --- Refinement ---------------------------------------------------------------------------


def pair_up(exposure, reference, tolerance, sky=None):
    """Identify stars by position alone.

    Returns
    -------
    i, j : ndarray of int
        Stars and reference stars.
    residual : ndarray, shape (n, 2)
        Frame minus reference [arcsec], to the east and north.
    """
    from scipy.spatial import cKDTree

    stars, other, _ = plane_of(exposure, reference, sky)
    known = np.flatnonzero(np.all(np.isfinite(other), axis=1))
    i, j, _ = nearest_pairs(cKDTree(other[known]), stars, tolerance)
    j = known[j]
    return i, j, stars[i] - other[j]


def fit_own(exposure, reference, degree, *, tolerance=None, keep=None, accuracy=0.01):
    """Fit a polynomial map of one frame alone to the reference, robustly.

    Parameters
    ----------
    exposure : Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the polynomial in the plane of the present map.
    tolerance : float, optional
        Distance within which stars are identified [arcsec].
    keep : ndarray of bool, optional
        Reference stars to be used.
    accuracy : float
        Error floor of a position [pixel].

    Returns
    -------
    sky : callable
    used : int
        Number of stars in the fit.
    """
    base_sky = exposure.sky
    scale = exposure.scale
    half = max(exposure.shape) * scale / 2
    stars, other, centre = plane_of(exposure, reference)
    tolerance = tolerance or 2.0 * scale
    i, j, residual = pair_up(exposure, reference, tolerance)
    if keep is not None:
        i, j, residual = i[keep[j]], j[keep[j]], residual[keep[j]]
    terms = tpv_terms(degree)
    weight = 1 / np.sqrt(
        (exposure.error[i] * scale) ** 2 + reference.error[j] ** 2 + (accuracy * scale) ** 2
    )
    if len(i) < 3:
        return base_sky, len(i)
    coefficients = np.zeros((len(terms), 2))
    if len(i) < max(6, 2 * len(terms)):
        # Too few for a polynomial: shift, or similarity.
        kind = "similarity" if len(i) >= 5 else "shift"
        mapping = fit_mapping(stars[i], other[j], kind)
        change = (mapping.matrix - np.eye(2)).T
        coefficients[0] = mapping.offset
        coefficients[1:3] = change * half
        good = np.ones(len(i), bool)
    else:
        base = polynomial(*(stars[i].T / half), terms)
        good = np.ones(len(i), bool)
        for _ in range(8):
            coefficients = np.linalg.lstsq(
                base[good] * weight[good, None], -residual[good] * weight[good, None], rcond=None
            )[0]
            pull = (residual + base @ coefficients) * weight[:, None]
            spread = max(mad_std(pull[good]), 1e-6)
            now = np.all(np.abs(pull) < 3.5 * spread, axis=1)
            if now.sum() < 2 * len(terms) or np.array_equal(now, good):
                break
            good = now

    def sky(x, y):
        p = project(*base_sky(x, y), *centre)
        return deproject(p + polynomial(*(p.T / half), terms) @ coefficients, *centre)

    return sky, int(good.sum())


def gather(exposures, reference, merge=0.7):
    """Collect the measurements of all stars, known or not, on all frames.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    rows : dict of ndarray
        frame, star (index in the frame), source (index), one entry a measurement.
    positions : ndarray, shape (sources, 2)
        First guess [arcsec] on the tangent plane about `centre`: first those of the reference.
    centre : tuple of float
    """
    from scipy.spatial import cKDTree

    ra, dec = exposures[0].sky(*exposures[0].middle[:, None])
    centre = float(ra[0]), float(dec[0])
    scale = exposures[0].scale
    known = project(reference.ra, reference.dec, *centre)
    merged = catalogue_of(exposures, merge)
    merged = merged[merged.seen > 1]
    merged = merged[np.argsort(merged.magnitude, kind="stable")]
    other = project(merged.ra, merged.dec, *centre)
    if len(other) and len(known):
        other = other[cKDTree(known).query(other)[0] > 3 * scale]
    positions = np.concatenate([known, other[:MOST_LINKS]])
    tree = cKDTree(positions)
    parts = []
    for k, exposure in enumerate(exposures):
        points = project(*exposure.sky(exposure.x, exposure.y), *centre)
        i, j, distance = nearest_pairs(tree, points, 2 * scale)
        near = (j < len(known)) | (distance < merge * scale)
        parts.append(np.column_stack([np.full(near.sum(), k), i[near], j[near]]))
    table = np.concatenate(parts).astype(int)
    return dict(zip(("frame", "star", "source"), table.T, strict=True)), positions, centre


def fit_jointly(exposures, reference, degree):
    """Fit all frames and all stars together (`joint_maps`), and again on what is identified then.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    maps = joint_maps(exposures, reference, degree)
    for _ in range(2 if degree > 1 else 0):
        # Stars that the distortion had moved out of reach are identified now.
        again = [replace(e, sky=sky) for e, sky in zip(exposures, maps, strict=True)]
        maps = joint_maps(again, reference, degree)
    return maps


def joint_maps(exposures, reference, degree, *, freedom=5e-4, accuracy=0.01, clip=4.0):
    """Fit all frames and all stars together, robustly.

    Unknown are the position of each star, three linear terms per axis for each frame and a
    polynomial of the detector shared by all. A reference star adds its catalogued position as
    a measurement, so that its error counts once and not once a frame. The linear terms of a frame
    are held near those of the others as far as its own stars say nothing.

    Parameters
    ----------
    exposures : list of Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the shared polynomial.
    freedom : float
        Expected spread of scale and rotation [rad] between frames (refraction, flexure).
    accuracy : float
        Error floor of a position [pixel]; raised to what the bright stars show.
    clip : float
        Measurements further than this from the fit, in units of their scatter, are left out.

    Returns
    -------
    list of callable
        Map of each frame to the sky.
    """
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import splu

    rows, start, centre = gather(exposures, reference)
    frames, sources = len(exposures), len(start)
    # Shared linear terms too: those of a frame are only its difference from the group.
    terms = tpv_terms(degree)[1:]
    scale = exposures[0].scale
    matrices = [e.local_matrix() for e in exposures]
    halves = [max(e.shape) / 2 for e in exposures]

    def bases(k, x, y):
        u = (np.asarray(x) - exposures[k].middle[0]) / halves[k]
        v = (np.asarray(y) - exposures[k].middle[1]) / halves[k]
        linear = np.stack([np.ones_like(u), u, v], axis=1)
        return linear, polynomial(u, v, terms)

    # Unknowns, per axis: sources, 3 a frame; then the shared terms of both axes.
    per_axis = sources + 3 * frames
    unknowns = 2 * per_axis + 2 * len(terms)
    n = len(rows["frame"])
    observed, error, snr = np.empty((n, 2)), np.empty(n), np.empty(n)
    linear, shared = np.empty((n, 3)), np.empty((n, len(terms)))
    for k, exposure in enumerate(exposures):
        at = rows["frame"] == k
        i = rows["star"][at]
        x, y = exposure.x[i], exposure.y[i]
        observed[at] = project(*exposure.sky(x, y), *centre)
        linear[at], shared[at] = bases(k, x, y)
        error[at] = exposure.error[i] * exposure.scale
        snr[at] = (exposure.stars["FLUX_AUTO"] / exposure.stars["FLUXERR_AUTO"])[i]
    row, column, value = [], [], []

    def put(r, c, v):
        r, c, v = np.broadcast_arrays(r, c, v)
        row.append(r.ravel())
        column.append(c.ravel())
        value.append(v.ravel())

    matrix_of = np.array(matrices)[rows["frame"]]
    for axis in (0, 1):
        r = np.arange(n) + axis * n
        put(r, axis * per_axis + rows["source"], -1.0)
        for t in range(3):
            put(r, axis * per_axis + sources + 3 * rows["frame"] + t, linear[:, t])
        for t in range(len(terms)):
            for a in (0, 1):
                # The detector's distortion in pixels, turned onto the sky as the frame is.
                c = 2 * per_axis + a * len(terms) + t
                put(r, c, matrix_of[:, axis, a] * shared[:, t])
    count = 2 * n
    right = -observed.T.ravel()
    known = len(reference)
    for axis in (0, 1):
        put(count + np.arange(known), axis * per_axis + np.arange(known), 1.0)
        right = np.r_[right, start[:known, axis]]
        count += known
    # Priors: shift and shared terms almost free, linear terms near the median of the frames.
    typical = np.median(np.array(matrices), axis=0)
    prior_sigma = []
    for k in range(frames):
        size = halves[k] * exposures[k].scale
        alike = same_orientation(typical, matrices[k], 0.5, 0.005)
        # The correction at the edge of the frame that makes its matrix the typical one.
        wanted = (typical - matrices[k]) * halves[k] if alike else np.zeros((2, 2))
        for axis in (0, 1):
            for t in range(3):
                put(count, axis * per_axis + sources + 3 * k + t, 1.0)
                right = np.r_[right, wanted[axis, t - 1] if t else 0.0]
                narrow = freedom if alike else 10 * freedom
                prior_sigma.append(narrow * size if t else 5 * scale)
                count += 1
    for t in range(2 * len(terms)):
        put(count, 2 * per_axis + t, 1.0)
        right = np.r_[right, 0.0]
        prior_sigma.append(5.0)
        count += 1
    design = coo_matrix(
        (np.concatenate(value), (np.concatenate(row), np.concatenate(column))),
        shape=(count, unknowns),
    ).tocsr()
    floor = accuracy * scale
    good = np.ones(n, bool)
    good_known = np.ones(known, bool)
    bright = snr > max(30.0, np.percentile(snr, 60))
    solution = np.zeros(unknowns)
    for _ in range(10):
        sigma = np.hypot(error, floor)
        weight = np.concatenate(
            [
                np.tile(np.where(good, 1 / sigma**2, 0.0), 2),
                np.tile(np.where(good_known, 1 / reference.error**2, 0.0), 2),
                1 / np.array(prior_sigma) ** 2,
            ]
        )
        weighted = design.T @ diags(weight)
        # A source whose measurements are all left out is held where it was.
        normal = (weighted @ design + diags(np.full(unknowns, 1e-9))).tocsc()
        solution = splu(normal).solve(weighted @ right)
        residual = (design[: 2 * n] @ solution - right[: 2 * n]).reshape(2, n)
        pull = residual / sigma
        spread = max(mad_std(pull[:, good]), 1.0)
        now = np.all(np.abs(pull) < clip * spread, axis=0)
        off = (design[2 * n : 2 * n + 2 * known] @ solution).reshape(2, known) - start[:known].T
        pull_known = off / reference.error
        now_known = np.all(np.abs(pull_known) < clip * max(mad_std(pull_known), 1.0), axis=0)
        if np.count_nonzero(good & bright) > 10:
            seen = mad_std(residual[:, good & bright])
            floor = max(accuracy * scale, min(seen, 2 * floor))
        if np.array_equal(now, good) and np.array_equal(now_known, good_known):
            break
        good, good_known = now, now_known

    maps = []
    for k, exposure in enumerate(exposures):
        own = np.stack(
            [solution[a * per_axis + sources + 3 * k + np.arange(3)] for a in (0, 1)], axis=1
        )
        common = solution[2 * per_axis :].reshape(2, len(terms)).T @ matrices[k].T

        def sky(x, y, k=k, own=own, common=common, base_sky=exposure.sky):
            first, second = bases(k, x, y)
            points = project(*base_sky(x, y), *centre)
            return deproject(points + first @ own + second @ common, *centre)

        maps.append(sky)
    return maps


# --- SCAMP --------------------------------------------------------------------------------


FORMATS = {np.dtype("f8"): "D", np.dtype("f4"): "E", np.dtype("i2"): "I", np.dtype("i4"): "J"}
"""Column formats; SCAMP crashes where a column is not of the type source-extractor gives it."""


def write_ldac(path, header, columns):
    """Write a FITS_LDAC catalogue.

    Parameters
    ----------
    path : path-like
    header : astropy.io.fits.Header
        Of the image the catalogue stands for.
    columns : dict of str to ndarray
    """
    block = header.tostring(padding=False).encode("ascii")
    head = fits.Header(
        {
            "XTENSION": "BINTABLE",
            "BITPIX": 8,
            "NAXIS": 2,
            "NAXIS1": len(block),
            "NAXIS2": 1,
            "PCOUNT": 0,
            "GCOUNT": 1,
            "TFIELDS": 1,
            "EXTNAME": "LDAC_IMHEAD",
            "TTYPE1": "Field Header Card",
            "TFORM1": f"{len(block)}A",
            "TDIM1": f"(80, {len(block) // 80})",
        }
    )
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name, FORMATS[values.dtype], array=values)
            for name, values in columns.items()
        ],
        name="LDAC_OBJECTS",
    )
    # Written by hand: astropy ends strings with zeros, on which SCAMP crashes.
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(buffer)
    whole = buffer.getvalue()
    padding = b" " * (-len(block) % 2880)
    image = head.tostring().encode("ascii") + block + padding
    Path(path).write_bytes(whole[:2880] + image + whole[2880:])


class Straightened:
    """A frame with the distortion that its present map knows already taken out.

    SCAMP sees pixels u of an ideal TAN frame, so it need not find again the distortion that the
    instrument is known for, and a low degree is enough for what is left.

    Parameters
    ----------
    exposure : Exposure
    """

    def __init__(self, exposure):
        self.sky = exposure.sky
        self.middle = exposure.middle
        ra, dec = self.sky(*exposure.middle[:, None])
        self.centre = float(ra[0]), float(dec[0])
        self.matrix = exposure.local_matrix()
        self.inverse = np.linalg.inv(self.matrix)

    def __call__(self, x, y):
        """Return straightened pixel coordinates of pixels, two arrays."""
        p = project(*self.sky(x, y), *self.centre)
        return tuple((p @ self.inverse.T + self.middle).T)

    def cards(self):
        """TAN cards of the straightened frame."""
        cd = self.matrix / 3600.0
        return {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "CRVAL1": self.centre[0],
            "CRVAL2": self.centre[1],
            "CRPIX1": float(self.middle[0]),
            "CRPIX2": float(self.middle[1]),
            "CD1_1": float(cd[0, 0]),
            "CD1_2": float(cd[0, 1]),
            "CD2_1": float(cd[1, 0]),
            "CD2_2": float(cd[1, 1]),
            "RADESYS": "ICRS",
            "EQUINOX": 2000.0,
        }


def epoch_of(exposures):
    """Median epoch of the observations, Julian year."""
    return float(2000.0 + (np.median([_mjd(e.header) for e in exposures]) - 51544.5) / 365.25)


def _mjd(header):
    """MJD of the start of the exposure; that of J2000 where the header has none."""
    value = header.get("MJD-OBS")
    return float(value) if isinstance(value, (int, float)) else 51544.5


def read_head(path):
    """Read the WCS cards of a .head file written by SCAMP.

    Raises
    ------
    ValueError
        A card is missing or not finite.
    """
    header = fits.Header()
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        key = line[:8].strip()
        if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CD1_", "CD2_", "PV1_", "PV2_")):
            header.append(fits.Card.fromstring(line))
    for key in ("CTYPE1", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2"):
        if key not in header:
            raise ValueError(f"{path}: no {key}")
    values = [v for v in header.values() if not isinstance(v, str)]
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{path}: not finite")
    return header


def run_scamp(
    exposures, reference, degree, options, *, crossid, threads=1, passes="joint", quiet=False
):
    """Solve frames jointly with SCAMP.

    Parameters
    ----------
    exposures : list of Exposure
        With a `sky` good to a pixel.
    reference : Reference
    degree : int
        Of the distortion shared by the frames.
    options : dict
    crossid : float
        Radius of identification [arcsec].
    threads : int
    passes : {'loose', 'joint'}
        'loose' solves each exposure for itself.
    quiet : bool
        Whether SCAMP's own report is left out of the log.

    Returns
    -------
    list of callable
        Map of each frame to the sky.

    Raises
    ------
    ProgramFailed
        On a time-out, crash or output that is missing or makes no sense.
    """
    program = find_program("scamp")
    with tempfile.TemporaryDirectory(prefix="autoproc-scamp-") as folder:
        folder = Path(folder)
        straight = [Straightened(e) for e in exposures]
        names = []
        for k, (e, s) in enumerate(zip(exposures, straight, strict=True)):
            header = fits.Header()
            header["SIMPLE"] = True
            header["BITPIX"] = -32
            header["NAXIS"] = 2
            header["NAXIS1"], header["NAXIS2"] = e.shape[1], e.shape[0]
            header["EXPTIME"] = float(e.header.get("EXPTIME", 1.0))
            header["FILTER"] = "one"
            header["MJD-OBS"] = _mjd(e.header)
            header.update(s.cards())
            u, v = s(e.x, e.y)
            columns = {"XWIN_IMAGE": u, "YWIN_IMAGE": v}
            columns |= {name: e.stars[name] for name in CATALOGUE_COLUMNS[2:10]}
            columns["FLAGS"] = np.zeros(len(u), np.int16)
            name = f"{k:05d}.ldac"
            write_ldac(folder / name, header, columns)
            names.append(name)
        year = epoch_of(exposures)
        finite = np.isfinite(reference.magnitude)
        faint = reference.magnitude[finite].max() if finite.any() else 20.0
        ref_header = fits.Header({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0})
        write_ldac(
            folder / "reference.ldac",
            ref_header,
            {
                "X_WORLD": reference.ra,
                "Y_WORLD": reference.dec,
                "ERRA_WORLD": reference.error / 3600.0,
                "ERRB_WORLD": reference.error / 3600.0,
                "ERRTHETA_WORLD": np.zeros(len(reference)),
                "MAG": np.where(finite, reference.magnitude, faint),
                "MAGERR": np.full(len(reference), 0.05),
                "OBSDATE": np.full(len(reference), year),
            },
        )
        settings = {
            "ASTREF_CATALOG": "FILE",
            "ASTREFCAT_NAME": "reference.ldac",
            "MATCH": "N",
            "MATCH_RESOL": options["match_resolution"],
            "CROSSID_RADIUS": crossid,
            "ASTRINSTRU_KEY": "FILTER",
            "STABILITY_TYPE": "INSTRUMENT" if passes == "joint" else "EXPOSURE",
            "PROJECTION_TYPE": "TPV" if degree > 1 else "SAME",
            "DISTORT_DEGREES": degree,
            "SN_THRESHOLDS": f"{options['min_snr']},50.0",
            "FWHM_THRESHOLDS": "0.0,1000.0",
            "ELLIPTICITY_MAX": 0.9,
            "SOLVE_PHOTOM": "N",
            "PHOTINSTRU_KEY": "FILTER",
            "CHECKPLOT_TYPE": "NONE",
            "CHECKPLOT_DEV": "NULL",
            "WRITE_XML": "N",
            "VERBOSE_TYPE": "QUIET" if quiet else "NORMAL",
            "NTHREADS": threads,
        }
        argv = [program, *names, "-c", "empty.scamp"]
        (folder / "empty.scamp").write_text("# all settings are on the command line\n")
        for key, value in settings.items():
            argv += [f"-{key}", value]
        run_program(argv, timeout=options["timeout"], cwd=folder)
        maps = []
        for name, s in zip(names, straight, strict=True):
            try:
                inner = sky_from_cards(read_head(folder / name.replace(".ldac", ".head")))
            except (OSError, ValueError) as why:
                raise ProgramFailed("scamp", str(why)) from why
            maps.append(lambda x, y, s=s, inner=inner: inner(*s(x, y)))
    return maps


# --- Quality ------------------------------------------------------------------------------


def residuals(exposures, reference, sky=None, keep=None, tolerance=None):
    """Positions against the reference, of all frames.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    sky : list of callable, optional
        Maps of the frames instead of their own.
    keep : ndarray of bool, optional
        Reference stars that count.
    tolerance : float, optional
        Distance within which stars are identified [arcsec].

    Returns
    -------
    dict of ndarray
        frame (index), star, ref (index), dx, dy [arcsec, to the east and north], x, y [pixel],
        error (expected, per axis) [arcsec].
    """
    parts = []
    for k, exposure in enumerate(exposures):
        scale = exposure.scale
        i, j, residual = pair_up(
            exposure, reference, tolerance or 2.0 * scale, sky[k] if sky else None
        )
        if keep is not None:
            i, j, residual = i[keep[j]], j[keep[j]], residual[keep[j]]
        error = np.hypot(np.hypot(exposure.error[i], 0.01) * scale, reference.error[j])
        parts.append(
            np.column_stack(
                [np.full(len(i), k), i, j, residual, exposure.x[i], exposure.y[i], error]
            )
        )
    table = np.concatenate(parts) if parts else np.zeros((0, 8))
    names = ("frame", "star", "ref", "dx", "dy", "x", "y", "error")
    result = dict(zip(names, table.T, strict=True))
    for name in names[:3]:
        result[name] = result[name].astype(int)
    return result


def weighted_rms(residual, error, clip=4.0):
    """Rms weighted by 1/error**2, without outliers; in the unit of `residual`."""
    if len(residual) == 0:
        return float("nan")
    pull = residual / error
    good = np.abs(pull - np.median(pull)) < clip * max(mad_std(pull), 1e-9)
    weight = 1 / error[good] ** 2
    return float(np.sqrt(np.sum(weight * residual[good] ** 2) / np.sum(weight)))


def degrees_allowed(number, choice):
    """Degrees of distortion that a number of reference stars can carry.

    Parameters
    ----------
    number : int
        Different reference stars identified in the group.
    choice : int or 'auto'

    Returns
    -------
    list of int
        A degree has (d + 1)(d + 2) / 2 coefficients per axis: three times as many stars at least.
    """
    top = 7 if choice == "auto" else int(choice)
    return [1] + [d for d in (3, 5, 7) if d <= top and number >= 1.5 * (d + 1) * (d + 2)]


def cross_validate(exposures, reference, degree, solve, folds=4):
    """Residual of reference stars that the solution did not know.

    Parameters
    ----------
    exposures : list of Exposure
    reference : Reference
    degree : int
    solve : callable
        Takes exposures, reference and degree, returns maps.
    folds : int

    Returns
    -------
    float
        Weighted rms per axis [arcsec].
    """
    found = residuals(exposures, reference)
    used = np.unique(found["ref"])
    dx, dy, error = [], [], []
    for fold in range(folds):
        out = np.zeros(len(reference), bool)
        out[used[fold::folds]] = True
        maps = solve(exposures, reference[~out], degree)
        left = residuals(exposures, reference, sky=maps, keep=out)
        dx.append(left["dx"])
        dy.append(left["dy"])
        error.append(left["error"])
    dx, dy, error = (np.concatenate(v) for v in (dx, dy, error))
    return float(np.hypot(weighted_rms(dx, error), weighted_rms(dy, error)) / np.sqrt(2))


def plot_residuals(path, exposures, reference, found, title):
    """Draw residual vectors over the frame, and residuals against magnitude and position.

    Parameters
    ----------
    path : path-like
        PNG.
    exposures : list of Exposure
    reference : Reference
    found : dict
        From `residuals`.
    title : str
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
    figure.suptitle(title)
    dx, dy = found["dx"] * 1000, found["dy"] * 1000
    vectors = axes[0, 0]
    if len(dx):
        typical = max(float(np.median(np.hypot(dx, dy))), 0.1)
        q = vectors.quiver(
            found["x"],
            found["y"],
            dx,
            dy,
            found["frame"],
            cmap="turbo",
            angles="xy",
            scale=typical * 25,
            width=0.002,
        )
        vectors.quiverkey(q, 0.75, 1.02, typical, f"{typical:.1f} mas", labelpos="E")
    vectors.set(xlabel="x [pixel]", ylabel="y [pixel]", aspect="equal")
    limit = 5 * max(mad_std(np.r_[dx, dy]), 0.1) if len(dx) else 1.0
    panels = (
        (axes[0, 1], reference.magnitude[found["ref"]], "reference magnitude"),
        (axes[1, 0], found["x"], "x [pixel]"),
        (axes[1, 1], found["y"], "y [pixel]"),
    )
    for axis, along, label in panels:
        axis.plot(along, dx, ".", ms=3, alpha=0.5, label="east")
        axis.plot(along, dy, ".", ms=3, alpha=0.5, label="north")
        axis.axhline(0, color="0.5", lw=0.8)
        axis.set(xlabel=label, ylabel="frame - reference [mas]", ylim=(-limit, limit))
    axes[0, 1].legend()
    with atomic_path(path) as beside:
        figure.savefig(beside, format="png", dpi=80)
    plt.close(figure)


# --- The group ----------------------------------------------------------------------------


def solve_jointly(exposures, reference, options, threads=1):
    """Refine the maps of identified frames, all together; set `sky` and `degree` of each.

    SCAMP runs loose (each exposure for itself, first order), then jointly; `fit_jointly` solves
    the same problem by itself. Method and degree are those that predict left-out reference stars
    best; SCAMP failing leaves the other.

    Returns
    -------
    dict
        Numbers of the group: method, degree, crossvalidation [mas] per method and degree.
    """
    for exposure in exposures:
        if exposure.notes.get("neighbours"):
            continue
        if "PV1_1" in exposure.header and exposure.match.mapping.parity == 1:
            before = exposure.sky
            exposure.sky, _ = fit_own(exposure, reference, 1)
            exposure.sky = absorb_turn(exposure)
            if len(pair_up(exposure, reference, 2 * exposure.scale)[0]) < 0.8 * len(
                pair_up(exposure, reference, 2 * exposure.scale, before)[0]
            ):
                exposure.sky = before
        for _ in range(2):
            exposure.sky, _ = fit_own(exposure, reference, 1)
    near = np.unique(residuals(exposures, reference, tolerance=_reach(exposures))["ref"])
    reference = spread_out(exposures, reference[near])
    own = fit_jointly(exposures, reference, 1)
    _keep_better(exposures, reference, own)
    found = residuals(exposures, reference)
    scale = exposures[0].scale
    spread = mad_std(np.r_[found["dx"], found["dy"]])
    crossid = float(np.clip(8 * spread, 0.7 * scale, 3.0 * scale))
    number = len(np.unique(found["ref"]))
    summary = {"reference_stars": int(number), "crossid": crossid}

    def scamp(exposures, reference, degree, **how):
        how = {"crossid": crossid, "threads": threads, "quiet": True} | how
        return run_scamp(exposures, reference, degree, options, **how)

    candidates = {"own": fit_jointly}
    try:
        loose = scamp(exposures, reference, 1, crossid=3 * scale, passes="loose")
        _keep_better(exposures, reference, loose)
        scamp(exposures, reference, 1, quiet=False)
        candidates["scamp"] = scamp
    except ProgramFailed as why:
        log.warning("SCAMP failed and is left out: %s", why)
        summary["scamp_failed"] = str(why)
    validated = {}
    for method, solve in candidates.items():
        try:
            validated[method] = validate_degrees(exposures, reference, number, options, solve)
        except ProgramFailed as why:
            log.warning("SCAMP failed and is left out: %s", why)
            summary["scamp_failed"] = str(why)
    # Every frame's residual counts; SCAMP's solution is taken where it is as good.
    ranked = [
        (value * (1.0 if method == "scamp" else 1.02), degree, method)
        for method, values in validated.items()
        for degree, value in values.items()
        if np.isfinite(value)
    ]
    if ranked:
        best = min(ranked)
        method = best[2]
        degree = min(d for v, d, m in ranked if m == method and v <= 1.02 * best[0])
    else:
        method, degree = ("scamp" if "scamp" in validated else "own"), 1
    try:
        maps = candidates[method](exposures, reference, degree)
    except ProgramFailed as why:
        log.warning("SCAMP failed and is left out: %s", why)
        summary["scamp_failed"] = str(why)
        method = "own"
        maps = fit_jointly(exposures, reference, degree)
    _keep_better(exposures, reference, maps, degree)
    return summary | {
        "method": method,
        "degree": degree,
        "crossvalidation": {
            m: {str(d): _number(v) for d, v in values.items()} for m, values in validated.items()
        },
    }


def spread_out(exposures, reference):
    """Thin a reference to `MOST_KNOWN` stars, the brightest of each part of the field."""
    if len(reference) <= MOST_KNOWN:
        return reference
    ra, dec = exposures[0].sky(*exposures[0].middle[:, None])
    points = project(reference.ra, reference.dec, float(ra[0]), float(dec[0]))
    # Some 25 cells, those at the rim half empty.
    cell = float(np.ptp(points, axis=0).max()) / 5
    return reference[brightest_per_cell(points, reference.magnitude, cell, MOST_KNOWN // 25)]


def _reach(exposures):
    """Distance within which reference stars may belong to a star of the loose map [arcsec]."""
    return 4.0 * max(e.scale for e in exposures)


def validate_degrees(exposures, reference, number, options, solve):
    """Cross-validated residual of each degree that the number of stars allows.

    Returns
    -------
    dict
        Degree to residual [mas]; empty where there are too few stars to leave some out.
    """
    validated = {}
    for degree in degrees_allowed(number, options["degree"]) if number >= 12 else ():
        folds = 4 if number < 400 else 2
        value = 1000 * cross_validate(exposures, reference, degree, solve, folds)
        gain = degree == 1 or value < 0.98 * min(validated.values())
        validated[degree] = value
        if not gain:
            break
    return validated


def _keep_better(exposures, reference, maps, degree=1):
    """Take each map unless the one before fits clearly better."""
    before = residuals(exposures, reference)
    after = residuals(exposures, reference, sky=maps)
    for k, (exposure, sky) in enumerate(zip(exposures, maps, strict=True)):
        old, new = (
            weighted_rms(np.r_[r["dx"][m], r["dy"][m]], np.r_[r["error"][m], r["error"][m]])
            for r in (before, after)
            for m in [r["frame"] == k]
        )
        count = [np.count_nonzero(r["frame"] == k) for r in (before, after)]
        fits_more = count[1] >= 1.2 * count[0]
        fits_well = count[1] >= 0.8 * count[0] and new <= 1.5 * old + 1e-3
        if count[0] < 3 or fits_more or fits_well:
            exposure.sky, exposure.degree = sky, degree
            exposure.notes["own"] = False
        else:
            log.warning(
                "%s: joint solution (%d stars, %.3f arcsec) is worse than its own (%d, %.3f)",
                exposure.name,
                count[1],
                new,
                count[0],
                old,
            )
            exposure.notes["own"] = True


def catalogue_of(exposures, merge=0.7):
    """Merge the stars of frames into a reference.

    Parameters
    ----------
    exposures : list of Exposure
        With `sky` on a common system.
    merge : float
        Stars nearer than this are the same [pixel].

    Returns
    -------
    Reference
        Mean positions weighted by their errors, magnitudes of the instrument.
    """
    from scipy.spatial import cKDTree

    first = exposures[0]
    ra, dec = first.sky(*first.middle[:, None])
    centre = float(ra[0]), float(dec[0])
    total = np.zeros((0, 2))
    weight, bright, seen = np.zeros(0), np.zeros(0), np.zeros(0, int)
    for exposure in exposures:
        points = project(*exposure.sky(exposure.x, exposure.y), *centre)
        scale = exposure.scale
        w = 1 / ((exposure.error * scale) ** 2 + (0.01 * scale) ** 2)
        new = np.ones(len(points), bool)
        if len(total):
            i, j, _ = nearest_pairs(cKDTree(total / weight[:, None]), points, merge * scale)
            total[j] += points[i] * w[i, None]
            weight[j] += w[i]
            seen[j] += 1
            new[i] = False
        total = np.vstack([total, points[new] * w[new, None]])
        weight = np.r_[weight, w[new]]
        bright = np.r_[bright, exposure.magnitude[new]]
        seen = np.r_[seen, np.ones(new.sum(), int)]
    ra, dec = deproject(total / weight[:, None], *centre)
    return Reference(ra, dec, 1 / np.sqrt(weight), bright, seen)


def align(exposures, options):
    """Align frames with each other: the one with most stars keeps its header's system.

    Each frame is identified in the merged catalogue of those before it, then all but the first
    are fitted to the mean positions, three times over.

    Returns
    -------
    aligned : list of Exposure
        The first is the one that leads.
    reference : Reference
        Mean positions.
    failed : dict
        Name to numbers of those that match no other.
    """
    waiting = sorted(exposures, key=lambda e: -len(e.stars))
    aligned, failed = [waiting.pop(0)], {}
    while waiting:
        reference = catalogue_of(aligned)
        size = max(max(e.shape) * e.scale for e in aligned)
        for exposure in waiting:
            exposure.radius = max(2 * exposure.radius, 0.5 * size)
        failed = identify_group(waiting, reference, options)
        found = [e for e in waiting if e.match]
        if not found:
            break
        for exposure in found:
            exposure.sky, _ = fit_own(exposure, reference, 1)
        aligned += found
        waiting = [e for e in waiting if not e.match]
    for _ in range(3):
        reference = catalogue_of(aligned)
        for exposure in aligned[1:]:
            exposure.sky, _ = fit_own(exposure, reference, 1)
    reference = catalogue_of(aligned)
    if len(aligned) > 1:
        # A star on one frame only agrees with itself: it says nothing about the alignment.
        reference = reference[reference.seen > 1]
    return aligned, reference, failed


def frame_entry(exposure, found, k, summary):
    """Entry of a solved frame in the file of the rule.

    Parameters
    ----------
    exposure : Exposure
    found : dict
        From `residuals`.
    k : int
        Index of the frame in `found`.
    summary : dict
        Numbers of the group.
    """
    cards, error = fit_cards(exposure.sky, exposure.shape)
    mine = found["frame"] == k
    dx, dy, sigma = (found[name][mine] for name in ("dx", "dy", "error"))
    match = exposure.match
    return {
        "status": "OK",
        "cards": cards,
        "rms": [_number(1000 * weighted_rms(v, sigma)) for v in (dx, dy)],
        "nstars": int(mine.sum()),
        "detected": len(exposure.stars),
        "contrast": match.contrast if match else None,
        "log_chance": match.log_chance if match else None,
        "rung": ("neighbours" if exposure.notes.get("neighbours") else match.rung)
        if match
        else "header",
        "degree": exposure.degree,
        "own": bool(exposure.notes.get("own", False)),
        "epoch": epoch_of([exposure]),
        "pixel_scale": exposure.scale,
        "card_error_mas": 1000 * error,
    }


def _number(value):
    """A float for JSON; None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def solve_group(exposures, reference, options, *, catalogue, reason="", threads=1):
    """Solve the frames of one camera, filter and target.

    Parameters
    ----------
    exposures : list of Exposure
        With stars; `sky` and `radius` are set here from the headers.
    reference : Reference
        May be empty.
    options : dict
        See `DEFAULTS`.
    catalogue, reason : str
        Source of the reference; why it is empty.
    threads : int

    Returns
    -------
    result : dict
        As written by the rule, for these frames.
    exposures : list of Exposure
        Those solved.
    reference : Reference
        What they were solved against.
    found : dict
        Their residuals.
    """
    extent = reference_extent(reference)
    for exposure in exposures:
        exposure.sky, radius = starting_sky(exposure.header, exposure.shape, extent)
        if options["search_radius"]:
            radius = options["search_radius"]
        exposure.radius = 3600.0 * (radius if radius else 0.1)
    frames, solved = {}, []
    if exposures and len(reference):
        failed = identify_group(exposures, reference, options)
        solved = [e for e in exposures if e.match]
        if solved and failed:
            failed = identify_by_neighbours(exposures, reference, options, failed)
            solved = [e for e in exposures if e.match]
        if not solved:
            best = "; ".join(f"{name}: {numbers}" for name, numbers in failed.items())
            reason = f"no frame matched {catalogue}: {best}"
            log.warning("%s", reason)
        for name, numbers in failed.items() if solved else ():
            frames[name] = {"status": "REJECTED", "code": "NO_MATCH", "numbers": numbers}
    summary = {"method": "none", "degree": 1}
    if solved:
        summary = solve_jointly(solved, reference, options, threads)
    elif exposures:
        catalogue, summary["method"] = "NONE", "internal"
        solved, reference, failed = align(exposures, options)
        for name, numbers in failed.items():
            frames[name] = {"status": "REJECTED", "code": "NO_MATCH", "numbers": numbers}
    else:
        catalogue = catalogue if len(reference) else "NONE"
    found = residuals(solved, reference)
    for k, exposure in enumerate(solved):
        frames[exposure.name] = frame_entry(exposure, found, k, summary)
    summary |= {
        "catalogue": catalogue,
        "reason": reason if catalogue == "NONE" else "",
        "solved": len(solved),
        "rms": [_number(1000 * weighted_rms(found[axis], found["error"])) for axis in ("dx", "dy")],
        "offset": [
            _number(1000 * np.median(found[a])) if len(found[a]) else None for a in ("dx", "dy")
        ],
        "frames": frames,
    }
    return summary, solved, reference, found


def solve(paths, table, options, *, threads=1):
    """Detect and solve the frames of a stack.

    Parameters
    ----------
    paths : list of path-like
        Frame files.
    table : astropy.table.Table
        Reference; may have no row.
    options : dict
        Overrides of `DEFAULTS`.
    threads : int

    Returns
    -------
    As `solve_group`; frames with too few stars are entered as rejected.
    """
    options = DEFAULTS | {k: v for k, v in (options or {}).items() if v is not None}
    rejected, exposures = {}, []

    def one(path):
        try:
            return detect(path, options)
        except FrameRejected as why:
            return why

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for path, outcome in zip(paths, pool.map(one, paths), strict=True):
            if isinstance(outcome, Exposure):
                exposures.append(outcome)
                continue
            name = frame_name(path, fits.getheader(path))
            log.warning("%s: %s", name, outcome)
            rejected[name] = {
                "status": "REJECTED",
                "code": outcome.code,
                "numbers": outcome.numbers,
            }
    if rejected and all(r["code"] == "DETECTION_FAILED" for r in rejected.values()):
        if not exposures:
            # Not one frame could be searched: that is the machine's fault, not the frames'.
            raise ProgramFailed("source-extractor", next(iter(rejected.values()))["numbers"])
    band = exposures[0].header.get("BAND", "") if exposures else ""
    reference = reference_from_table(table, band)
    result = solve_group(
        exposures,
        reference,
        options,
        catalogue=str(table.meta.get("source", "reference")) if len(reference) else "NONE",
        reason=str(table.meta.get("reason", "")) or "no reference",
        threads=threads,
    )
    result[0]["frames"] |= rejected
    return result


def write_result(path, result):
    """Write the solution as JSON, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


if "snakemake" in globals():
    import warnings

    from astropy.table import Table

    from lib.steps import start_log

    start_log(snakemake.log[0])
    warnings.simplefilter("ignore", FITSFixedWarning)
    result, solved, reference, found = solve(
        snakemake.input.frames,
        Table.read(snakemake.input.reference, format="ascii.ecsv"),
        snakemake.params.settings,
        threads=snakemake.threads,
    )
    stack = snakemake.wildcards.stack
    result["stack"] = stack
    plot_residuals(
        Path(snakemake.output[0]).with_suffix(".png"),
        solved,
        reference,
        found,
        f"{stack}: {len(solved)} frames, {result['catalogue']}, degree {result['degree']}",
    )
    write_result(snakemake.output[0], result)
