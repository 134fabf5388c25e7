"""Frames with known truth: star lists of a simulated sky, without pixels."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lib.astrometry.detection import CATALOGUE_COLUMNS
from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.pixelmaps import map_from_cards
from lib.astrometry.solution import solve_frames
from lib.astrometry.starlists import Reference
from lib.core.settings import AstrometrySettings
from lib.core.sphere import deproject, project

SHAPE = (1024, 900)


SCALE = 0.3  # arcsec a pixel


RADIAL = {}
for axis in (1, 2):
    RADIAL |= {f"PV{axis}_1": 1.0, f"PV{axis}_17": -19.6, f"PV{axis}_19": -39.2}
    RADIAL |= {f"PV{axis}_21": -19.6}


def cards(ra=150.0, dec=20.0, *, angle=0.0, scale=SCALE, pv=None, parity=-1):
    """WCS cards of a frame, the optical axis off its middle where distorted."""
    a = np.radians(angle)
    cd = scale / 3600 * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    cd = cd * [parity, 1.0]
    projection = "TPV" if pv else "TAN"
    return {
        "CTYPE1": f"RA---{projection}",
        "CTYPE2": f"DEC--{projection}",
        "CRVAL1": ra,
        "CRVAL2": dec,
        "CRPIX1": 700.0 if pv else 450.5,
        "CRPIX2": 900.0 if pv else 512.5,
        "CD1_1": cd[0, 0],
        "CD1_2": cd[0, 1],
        "CD2_1": cd[1, 0],
        "CD2_2": cd[1, 1],
        **(pv or {}),
    }


def simulated_sky(rng, count=400, radius=300.0, ra=150.0, dec=20.0):
    """Stars about a point: ra, dec [deg] and magnitude."""
    points = rng.uniform(-radius, radius, (count, 2))
    return (*deproject(points, ra, dec), 19 - rng.exponential(1.5, count))


def simulated_frame(name, true, claimed, sky, rng, *, noise=0.03, depth=19.0):
    """A frame with the stars that `true` cards put on it, and the header `claimed`."""
    ra, dec, magnitude = sky
    with np.errstate(invalid="ignore"):
        x, y = WCS(fits.Header(true)).all_world2pix(ra, dec, 1, quiet=True)
    on = (x > 1) & (x < SHAPE[1]) & (y > 1) & (y < SHAPE[0]) & (magnitude < depth)
    x, y, magnitude = x[on], y[on], magnitude[on]
    error = noise * 10 ** (0.2 * (magnitude - 17))
    dtype = [(name, "f8") for name in CATALOGUE_COLUMNS[:2]]
    dtype += [(name, "f4") for name in CATALOGUE_COLUMNS[2:10]]
    dtype += [(name, "i2") for name in CATALOGUE_COLUMNS[10:12]]
    dtype += [(name, "i4") for name in CATALOGUE_COLUMNS[12:]]
    stars = np.zeros(len(x), dtype)
    stars["XWIN_IMAGE"] = x + error * rng.normal(size=len(x))
    stars["YWIN_IMAGE"] = y + error * rng.normal(size=len(x))
    for key in ("ERRAWIN_IMAGE", "ERRBWIN_IMAGE"):
        stars[key] = error
    stars["FLUX_AUTO"] = 10 ** (-0.4 * (magnitude - 25))
    stars["FLUXERR_AUTO"] = stars["FLUX_AUTO"] * error / 1.5
    stars["FWHM_IMAGE"], stars["FLUX_RADIUS"], stars["ELONGATION"] = 4.0, 2.0, 1.0
    stars = stars[np.argsort(-stars["FLUX_AUTO"])]
    header = fits.Header(claimed)
    header.update({"POSERR": 0.05, "PIXSCALE": SCALE, "MJD-OBS": 59607.0, "EXPTIME": 60.0})
    return AstrometryFrame(name, header, SHAPE, stars)


def reference_of(sky, rng, error=0.0005):
    """Reference with Gaussian errors [arcsec]."""
    ra, dec, magnitude = sky
    points = project(ra, dec, 150.0, 20.0) + rng.normal(0, error, (len(ra), 2))
    return Reference(*deproject(points, 150.0, 20.0), np.full(len(ra), error), np.array(magnitude))


def group(rng, sky, *, count=4, pv=None, error=4.0, angle=0.1, **how):
    """Dithered frames whose headers are off in pointing [arcsec] and angle [deg]."""
    made, truths = [], []
    for k in range(count):
        ra, dec = 150 + 0.003 * k, 20 + 0.002 * (k % 3)
        true = cards(ra, dec, angle=angle, pv=pv, scale=SCALE * 1.0005)
        off = rng.normal(0, error / 3600, 2)
        claimed = cards(ra + off[0], dec + off[1], pv=pv)
        made.append(simulated_frame(f"2f{k}", true, claimed, sky, rng, **how))
        truths.append(true)
    return made, truths


def map_error(entry, true):
    """Difference of solved cards from the truth over the frame [mas], shape (n, 2)."""
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, 900, 8), np.linspace(1, 1024, 8)))
    ra, dec = map_from_cards(entry["cards"])(x, y)
    true_ra, true_dec = WCS(fits.Header(true)).all_pix2world(x, y, 1)
    return 3.6e6 * np.stack([(ra - true_ra) * np.cos(np.radians(dec)), dec - true_dec], axis=1)


SETTINGS = AstrometrySettings(timeout=60.0)


def solved(frames, reference, **how):
    """The file's content of `solve_frames`."""
    arguments = {"catalogue": "made"} | how
    return solve_frames(frames, reference, SETTINGS, **arguments).as_json()


EMPTY = Reference(*(np.zeros(0) for _ in range(4)))
