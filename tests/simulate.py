"""A raw night with known truth, for tests and for the demonstration.

The module is the independent truth of the tests: it shares no code with the reduction. It draws a
field of stars, projects it on each detector (gnomonic, with the radial TPV distortion of the
RATIR near-infrared cameras), renders every star as a Moffat profile integrated over the pixels,
adds sky, flat field, dark current, bias, noise, cosmic rays and defects, and writes raw FITS files
with the headers of the instrument.

    python tests/simulate.py OUTDIR --instrument ratir --exposures 3 --stars 60 --seed 1

writes ``OUTDIR/raw/*.fits``, ``OUTDIR/reference.ecsv`` and ``OUTDIR/truth/``.

truth.json       per science frame (stem, and _FILTER for a half of a split detector): raw file,
                 section, true WCS of the full frame, pointing, rotation and scale error,
                 transparency, zero_point (magnitude of 1 e in the exposure), sky [e/px], fwhm ...
stars.ecsv       every source: position at the epoch of observation, magnitudes in all bands
reference.ecsv   row by row of the reference table: id of the star, whether the entry is wrong
<stem>.npz       charge of cosmic rays and saturated pixels (sparse), stars_<filter> = id, x, y,
                 flux [e]; scene and sky [e at response 1] with ``scenes``
detector-*.npz   flat, response, sky (fixed pattern), bad (bits DEAD, LOW, HOT), dark [e/s],
                 bias [DN]; full frame

`load_truth`, `true_wcs` and `load_pixels` read them back, cropped to the science section.

Conventions: pixel coordinates are 0-based (x = column, y = row) in the full raw frame; the FITS
reference pixel is 1-based. Electrons are electrons at the detector. A flat field is normalised to
median 1 over the science section, so that ``zero_point`` of the truth belongs to flattened pixels.

What a pixel holds, in electrons:

    Poisson(stars * response + sky * response * area + dark * exptime) + cosmic rays + read noise

where ``response * area`` is the flat field that a flat frame sees: a pixel that subtends more sky
collects more sky but not more of a star (it matters at the corners of the RATIR C2 and C3 fields,
where the pixel area falls by ten per cent).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

ARCSEC = 1 / 3600
BANDS = ("u", "g", "r", "i", "z", "y", "B", "V", "R", "I", "J", "H", "K")
DEAD, LOW, HOT = 1, 2, 4  # bits of the detector's true map of bad pixels


# ---------------------------------------------------------------------------------------------
# Geometry
# ---------------------------------------------------------------------------------------------


def tan_project(ra, dec, ra0, dec0):
    """Gnomonic projection of sky positions about a tangent point.

    Parameters
    ----------
    ra, dec : array_like
        Positions [deg].
    ra0, dec0 : float
        Tangent point [deg].

    Returns
    -------
    xi, eta : ndarray
        Standard coordinates [deg]; NaN on the far hemisphere.
    """
    ra, dec = np.radians(ra), np.radians(dec)
    ra0, dec0 = np.radians(ra0), np.radians(dec0)
    cos_c = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    cos_c = np.where(cos_c > 0.01, cos_c, np.nan)
    xi = np.cos(dec) * np.sin(ra - ra0) / cos_c
    eta = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cos_c
    return np.degrees(xi), np.degrees(eta)


def tan_deproject(xi, eta, ra0, dec0):
    """Inverse of `tan_project`; every angle in degrees."""
    xi, eta = np.radians(xi), np.radians(eta)
    ra0, dec0 = np.radians(ra0), np.radians(dec0)
    across = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0 + np.arctan2(xi, across)
    dec = np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, across))
    return np.degrees(ra) % 360, np.degrees(dec)


@dataclass(frozen=True)
class Optics:
    """Pixel scale, orientation and radial distortion of one camera.

    CD1_1 = -s1 cos t, CD2_1 = s1 sin t, CD1_2 = s2 sin t, CD2_2 = s2 cos t. The distortion maps
    the linear coordinates (u, v) of radius r [deg] to standard coordinates
    xi = u (1 + k2 r^2 + k4 r^4 + k6 r^6), and likewise eta: a TPV polynomial.

    Parameters
    ----------
    scale1, scale2 : float
        Pixel scales [arcsec/px]; the sign carries the parity.
    theta : float
        Rotation [deg].
    x0, y0 : float
        FITS reference pixel (1-based) of the full frame.
    radial : tuple of float
        k2, k4, k6 [deg^-2, deg^-4, deg^-6].
    """

    scale1: float
    scale2: float
    theta: float
    x0: float
    y0: float
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def scale(self):
        """Geometric mean of the pixel scales [arcsec/px]."""
        return float(np.sqrt(abs(self.scale1 * self.scale2)))

    def cd(self, rotation=0.0, stretch=0.0):
        """CD matrix [deg/px] with an error of rotation [deg] and of scale (relative)."""
        t = np.radians(self.theta + rotation)
        s1, s2 = (s * ARCSEC * (1 + stretch) for s in (self.scale1, self.scale2))
        return np.array([[-s1 * np.cos(t), s2 * np.sin(t)], [s1 * np.sin(t), s2 * np.cos(t)]])

    def _factor(self, r):
        k2, k4, k6 = self.radial
        return 1 + r**2 * (k2 + r**2 * (k4 + r**2 * k6))

    def _slope(self, r):
        k2, k4, k6 = self.radial
        return 1 + r**2 * (3 * k2 + r**2 * (5 * k4 + r**2 * 7 * k6))

    def undistorted_radius(self, rho):
        """Linear radius r [deg] of a distorted radius rho = r f(r); NaN where there is none.

        Newton's method, to 1e-13 deg.
        """
        rho = np.asarray(rho, float)
        if not any(self.radial):
            return rho
        grid = np.linspace(0, 1, 20001)
        falling = np.flatnonzero(self._slope(grid) <= 0.05)
        r_max = grid[falling[0]] if falling.size else 1.0
        inside = rho < r_max * self._factor(r_max)
        r = np.where(inside, rho, 0.0)
        for _ in range(30):
            r = np.clip(
                r - (r * self._factor(r) - np.where(inside, rho, 0)) / self._slope(r), 0, r_max
            )
        return np.where(inside, r, np.nan)

    def sky_to_pixel(self, ra, dec, crval, rotation=0.0, stretch=0.0):
        """0-based pixel coordinates (x, y) of sky positions [deg], NaN off the projection."""
        xi, eta = tan_project(ra, dec, *crval)
        rho = np.hypot(xi, eta)
        r = self.undistorted_radius(rho)
        shrink = np.divide(r, rho, out=np.ones_like(rho), where=rho > 0)
        inverse = np.linalg.inv(self.cd(rotation, stretch))
        x, y = inverse @ np.array([xi * shrink, eta * shrink]).reshape(2, -1)
        return (x + self.x0 - 1).reshape(rho.shape), (y + self.y0 - 1).reshape(rho.shape)

    def pixel_to_sky(self, x, y, crval, rotation=0.0, stretch=0.0):
        """Sky positions (ra, dec) [deg] of 0-based pixel coordinates."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        offset = np.array([x - (self.x0 - 1), y - (self.y0 - 1)]).reshape(2, -1)
        u, v = self.cd(rotation, stretch) @ offset
        f = self._factor(np.hypot(u, v))
        ra, dec = tan_deproject(u * f, v * f, *crval)
        return ra.reshape(x.shape), dec.reshape(x.shape)

    def pixel_area(self, shape):
        """Sky area of each pixel relative to that of the reference pixel; shape (ny, nx)."""
        if not any(self.radial):
            return np.ones(shape, np.float32)
        y, x = np.mgrid[0 : shape[0] : 8, 0 : shape[1] : 8]
        u, v = self.cd() @ np.array([x - self.x0 + 1, y - self.y0 + 1], float).reshape(2, -1)
        r = np.hypot(u, v).reshape(x.shape)
        area = self._factor(r) * self._slope(r)
        rows = np.arange(shape[0]) / 8
        cols = np.arange(shape[1]) / 8
        return bilinear(area, rows, cols).astype(np.float32)

    def cards(self, crval, rotation=0.0, stretch=0.0):
        """WCS header cards of the full frame, as a dict."""
        cd = self.cd(rotation, stretch)
        distorted = any(self.radial)
        tail = "TPV" if distorted else "TAN"
        cards = {
            "CTYPE1": f"RA---{tail}",
            "CTYPE2": f"DEC--{tail}",
            "CRVAL1": float(crval[0]),
            "CRVAL2": float(crval[1]),
            "CRPIX1": float(self.x0),
            "CRPIX2": float(self.y0),
            "CD1_1": float(cd[0, 0]),
            "CD1_2": float(cd[0, 1]),
            "CD2_1": float(cd[1, 0]),
            "CD2_2": float(cd[1, 1]),
            "CUNIT1": "deg",
            "CUNIT2": "deg",
        }
        if distorted:
            k2, k4, k6 = self.radial
            terms = {
                7: k2,
                9: k2,
                17: k4,
                19: 2 * k4,
                21: k4,
                31: k6,
                33: 3 * k6,
                35: 3 * k6,
                37: k6,
            }
            for axis in (1, 2):
                cards[f"PV{axis}_1"] = 1.0
                cards.update({f"PV{axis}_{n}": float(k) for n, k in terms.items() if k})
        return cards


def bilinear(grid, rows, cols):
    """Values of a coarse grid at the outer product of fractional rows and columns."""
    ny, nx = grid.shape
    r0 = np.clip(np.floor(rows).astype(int), 0, max(ny - 2, 0))
    c0 = np.clip(np.floor(cols).astype(int), 0, max(nx - 2, 0))
    fr, fc = (rows - r0)[:, None], (cols - c0)[None, :]
    r1, c1 = np.minimum(r0 + 1, ny - 1), np.minimum(c0 + 1, nx - 1)
    return (grid[np.ix_(r0, c0)] * (1 - fc) + grid[np.ix_(r0, c1)] * fc) * (1 - fr) + (
        grid[np.ix_(r1, c0)] * (1 - fc) + grid[np.ix_(r1, c1)] * fc
    ) * fr


# ---------------------------------------------------------------------------------------------
# Sources
# ---------------------------------------------------------------------------------------------

# Mean stellar locus against g-i (AB; J, H, K Vega): colours rounded from published SDSS-2MASS
# loci (Covey et al. 2007); only their size and curvature matter here.
LOCUS = {
    "g-i": (-0.5, 0.0, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0),
    "u-g": (0.60, 0.95, 0.95, 1.05, 1.45, 1.75, 2.35, 2.55, 2.60, 2.65),
    "g-r": (-0.35, 0.05, 0.24, 0.38, 0.58, 0.72, 1.08, 1.35, 1.43, 1.45),
    "i-z": (-0.18, -0.06, 0.00, 0.04, 0.10, 0.14, 0.24, 0.38, 0.60, 0.85),
    "z-J": (0.50, 0.70, 0.78, 0.85, 0.95, 1.00, 1.15, 1.25, 1.35, 1.50),
    "J-H": (0.00, 0.15, 0.22, 0.28, 0.40, 0.47, 0.60, 0.65, 0.62, 0.60),
    "H-K": (0.00, 0.03, 0.05, 0.06, 0.07, 0.09, 0.14, 0.18, 0.22, 0.27),
}


def power_law_magnitudes(n, bright, faint, slope, rng):
    """Draw magnitudes whose cumulative counts grow as 10^(slope m) between two limits."""
    low, high = 10 ** (slope * bright), 10 ** (slope * faint)
    return np.log10(low + (high - low) * rng.random(n)) / slope


def stellar_magnitudes(r, rng, scatter=0.02):
    """Magnitudes in all of `BANDS` for stars of given r, with colours along the locus.

    u..I are AB, J, H, K are Vega.
    """
    n = len(r)
    red = rng.random(n) < np.clip(0.25 + 0.07 * (r - 15), 0.1, 0.7)
    gi = np.where(red, rng.normal(2.1, 0.35, n), rng.normal(0.75, 0.3, n)).clip(-0.4, 2.95)
    colour = {
        name: np.interp(gi, LOCUS["g-i"], values) + rng.normal(0, scatter, n)
        for name, values in LOCUS.items()
    }
    g_r, r_i = colour["g-r"], colour["g-i"] - colour["g-r"]
    m = {"r": r, "g": r + g_r, "i": r - r_i}
    m["u"] = m["g"] + colour["u-g"]
    m["z"] = m["i"] - colour["i-z"]
    m["y"] = m["z"] - 0.45 * colour["i-z"]
    m["J"] = m["z"] - colour["z-J"]
    m["H"] = m["J"] - colour["J-H"]
    m["K"] = m["H"] - colour["H-K"]
    m["B"] = m["g"] + 0.33 * g_r + 0.12
    m["V"] = m["g"] - 0.59 * g_r - 0.03
    m["R"] = r - 0.29 * r_i + 0.07
    m["I"] = r - 1.244 * r_i + 0.07
    return {band: m[band] for band in BANDS}


@dataclass
class Field:
    """Stars (and galaxies) of a piece of sky.

    Parameters
    ----------
    ra, dec, radius : float
        Centre and radius [deg].
    sources : astropy.table.Table
        id, ra, dec [deg, ICRS at the epoch of observation], pmra (with cos dec), pmdec [mas/yr],
        one column of true total magnitude per band of `BANDS`, g_i, galaxy (bool),
        size [arcsec, half-light], axis_ratio, angle [deg].
    epoch : float
        Epoch of the positions [yr].
    """

    ra: float
    dec: float
    radius: float
    sources: Table
    epoch: float


def make_field(
    ra,
    dec,
    radius,
    n,
    rng,
    epoch=2022.08,
    bright=13.5,
    faint=24.0,
    slope=0.2,
    galaxies=0,
    proper_motion=8.0,
    scatter=0.02,
):
    """Draw n stars (r between bright and faint) uniformly in a circle of the sky.

    Parameters
    ----------
    ra, dec, radius : float
        Centre and radius [deg].
    n : int
        Stars.
    rng : numpy.random.Generator
    epoch : float
        Epoch of the positions [yr].
    slope : float
        d log10 N / dm.
    galaxies : int
        Galaxies added, of r 18 to faint.
    proper_motion : float
        Dispersion at r = 16 [mas/yr]; fainter stars move less.
    scatter : float
        Intrinsic scatter about the stellar locus [mag].
    """
    total = n + galaxies
    r_sky = radius * np.sqrt(rng.random(total))
    angle = rng.uniform(0, 2 * np.pi, total)
    star_ra, star_dec = tan_deproject(r_sky * np.cos(angle), r_sky * np.sin(angle), ra, dec)
    r = power_law_magnitudes(n, bright, faint, slope, rng)
    if galaxies:
        r = np.append(r, power_law_magnitudes(galaxies, 18.0, faint, 0.35, rng))
    magnitudes = stellar_magnitudes(r, rng, scatter)
    galaxy = np.arange(total) >= n
    speed = proper_motion * 10 ** (-0.1 * (r - 16)) * ~galaxy
    sources = Table()
    sources["id"] = np.arange(total)
    sources["ra"], sources["dec"] = star_ra, star_dec
    sources["pmra"] = rng.standard_t(4, total) * speed
    sources["pmdec"] = rng.standard_t(4, total) * speed
    for band, m in magnitudes.items():
        sources[band] = m
    sources["g_i"] = magnitudes["g"] - magnitudes["i"]
    sources["galaxy"] = galaxy
    sources["size"] = np.where(galaxy, rng.uniform(0.3, 1.5, total), 0.0)
    sources["axis_ratio"] = np.where(galaxy, rng.uniform(0.3, 1.0, total), 1.0)
    sources["angle"] = rng.uniform(0, 180, total)
    return Field(ra, dec, radius, sources, epoch)


def reference_table(
    sky, rng, limit=19.5, epoch=2016.0, position_error=0.3, floor=0.005, wrong=0.0, bands=BANDS
):
    """The brighter stars of a field as a catalogue would list them.

    Parameters
    ----------
    sky : Field
    limit : float
        Faintest r.
    epoch : float
        Epoch of the catalogue [yr]; positions are moved there by the proper motion.
    position_error : float
        Error at r = 18 [mas]; 0.2 to 6 times that from bright to faint.
    floor : float
        Photometric error of bright stars [mag]; grows towards the limit of each band.
    wrong : float
        Fraction of entries that are wrong: off by 0.4-2 mag (variables, blends), half of them
        also by 0.2-1 arcsec.
    bands : sequence of str
        Bands listed; the others are NaN throughout.

    Returns
    -------
    astropy.table.Table
        ra, dec [deg], ra_err, dec_err [mas], pmra, pmdec [mas/yr], epoch [yr], <band> and
        <band>_err. ``meta['wrong']`` holds the row numbers of the wrong entries and
        ``meta['id']`` the identifiers of the stars.
    """
    stars = sky.sources[(sky.sources["r"] < limit) & ~sky.sources["galaxy"]]
    n = len(stars)
    years = epoch - sky.epoch
    error = position_error * np.clip(10 ** (0.2 * (np.asarray(stars["r"]) - 18)), 0.2, 6.0)
    pm_error = 0.1 * error
    pmra = np.asarray(stars["pmra"]) + rng.normal(0, 1, n) * pm_error
    pmdec = np.asarray(stars["pmdec"]) + rng.normal(0, 1, n) * pm_error
    cosdec = np.cos(np.radians(np.asarray(stars["dec"])))
    mas = ARCSEC / 1000
    ra = stars["ra"] + (stars["pmra"] * years + rng.normal(0, 1, n) * error) * mas / cosdec
    dec = stars["dec"] + (stars["pmdec"] * years + rng.normal(0, 1, n) * error) * mas
    bad = np.flatnonzero(rng.random(n) < wrong)
    moved = bad[::2]
    angle, shift = rng.uniform(0, 2 * np.pi, len(moved)), rng.uniform(0.2, 1.0, len(moved))
    ra[moved] += shift * np.cos(angle) * ARCSEC / cosdec[moved]
    dec[moved] += shift * np.sin(angle) * ARCSEC
    jump = np.zeros(n)
    jump[bad] = rng.uniform(0.4, 2.0, len(bad)) * rng.choice([-1, 1], len(bad))

    # faint limits of the survey behind each band: beyond it there is no measurement
    limits = {"u": limit - 0.5, "J": 16.8, "H": 16.2, "K": 15.5}
    table = Table()
    table["ra"], table["dec"] = np.asarray(ra) % 360, np.asarray(dec)
    table["ra_err"], table["dec_err"] = error, error.copy()
    table["pmra"], table["pmdec"] = pmra, pmdec
    table["epoch"] = np.full(n, float(epoch))
    for band in BANDS:
        m = np.asarray(stars[band])
        faint = limits.get(band, limit + 2)
        scale = 0.1 if band in "JHK" else 0.03
        sigma = np.hypot(floor * (4 if band in "JHK" else 1), scale * 10 ** (0.4 * (m - faint)))
        seen = (m < faint) & (band in bands)
        table[band] = np.where(seen, m + jump + rng.normal(0, 1, n) * sigma, np.nan)
        table[f"{band}_err"] = np.where(seen, sigma, np.nan)
    table.meta["source"] = "simulated"
    table.meta["wrong"] = [int(i) for i in bad]
    table.meta["id"] = [int(i) for i in stars["id"]]
    return table


# ---------------------------------------------------------------------------------------------
# Point-spread function
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PSF:
    """An elliptical Moffat profile, trailed if wanted.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, geometric mean of both axes [px].
    beta : float
        Moffat exponent.
    ellipticity : float
        1 - b/a.
    angle : float
        Position of the major axis, from x towards y [deg].
    trail, trail_angle : float
        Length [px] and direction [deg] of a uniform motion during the exposure.
    spots : tuple of (float, float, float, float)
        Offsets x, y [px], weight and relative width of the profiles that make up a star instead of
        one in its centre: see `ring_spots`, `coma_spots`, `spike_spots`. Without a trail.
    """

    fwhm: float
    beta: float = 3.5
    ellipticity: float = 0.0
    angle: float = 0.0
    trail: float = 0.0
    trail_angle: float = 0.0
    spots: tuple[tuple[float, float, float, float], ...] = ()

    @property
    def alpha(self):
        """Moffat core radius [px]."""
        return self.fwhm / 2 / np.sqrt(2 ** (1 / self.beta) - 1)

    def enclosed_radius(self, lost):
        """Radius [px] outside which a fraction `lost` of the light falls (round profile)."""
        return self.alpha * np.sqrt(lost ** (1 / (1 - self.beta)) - 1)

    def density(self, dx, dy):
        """Surface brightness of unit flux at offsets from the centroid [px^-2]."""
        q = 1 - self.ellipticity
        c, s = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        along, across = (dx * c + dy * s) * np.sqrt(q), (dy * c - dx * s) / np.sqrt(q)
        u = 1 + (along**2 + across**2) / self.alpha**2
        return (self.beta - 1) / np.pi / self.alpha**2 * np.exp(-self.beta * np.log(u))


def ring_spots(outer, inner, step, shift=0.0):
    """The pupil of a telescope out of focus: a disc of radius `outer` with a hole, every `step`.

    Parameters
    ----------
    outer, inner, step : float
        [px].
    shift : float
        Of the hole along x [px]: a collimation that is off.

    Returns
    -------
    tuple
        `PSF.spots`.
    """
    grid = np.arange(-np.ceil(outer / step), np.ceil(outer / step) + 1) * step
    x, y = (axis.ravel() for axis in np.meshgrid(grid, grid))
    lit = (np.hypot(x, y) <= outer) & (np.hypot(x - shift, y) >= inner)
    return tuple((dx, dy, 1.0, 1.0) for dx, dy in zip(x[lit], y[lit], strict=True))


def coma_spots(length, number=24):
    """A comatic image: a bright head and a tail of some length [px] that fades and widens."""
    along = np.linspace(0, 1, number, endpoint=False)
    return tuple((0.8 * length * t, 0.6 * length * t, 1 - t, 1 + t) for t in along)


def spike_spots(length, part, number=24):
    """Four diffraction spikes of some length [px] that hold a part of the light."""
    along = np.linspace(0, 1, number + 1)[1:]
    fading = 1 / (1 + (4 * along) ** 2)
    fading *= part / 4 / fading.sum()
    spokes = [
        (sx * length * t, sy * length * t, w, 0.6)
        for sx, sy in ((1, 0), (-1, 0), (0, 1), (0, -1))
        for t, w in zip(along, fading, strict=True)
    ]
    return ((0.0, 0.0, 1 - part, 1.0), *spokes)


def render_sources(shape, x, y, flux, psf, noise=1.0, out=None):
    """Add sources to an image, each in its own stamp, integrated over the pixels.

    Gauss-Legendre quadrature in every pixel (3x3 nodes, 5x5 for an undersampled profile) keeps
    centroids to better than 1e-4 px. A stamp ends where less than 1e-4 of the light is left, or
    later where the wing of a bright star would still be 2 % of the noise.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    x, y, flux : ndarray, shape (n,)
        0-based centroids [px] and total flux.
    psf : PSF
    noise : float
        Noise of one pixel, in the unit of the flux.
    out : ndarray, optional
        Image to add to, in place.

    Returns
    -------
    ndarray, float64, shape `shape`
    """
    image = np.zeros(shape) if out is None else out
    x, y, flux = (np.asarray(a, float) for a in (x, y, flux))
    keep = np.isfinite(x) & np.isfinite(y) & (flux > 0)
    x, y, flux = x[keep], y[keep], flux[keep]
    if not len(x):
        return image
    peak = psf.density(0.0, 0.0) * flux
    wing = psf.alpha * np.sqrt(np.maximum(peak / (0.02 * noise), 1) ** (1 / psf.beta))
    # stars far below the noise need no wings at all
    lost = np.where(peak > noise, 1e-4, 1e-3)
    half = np.maximum(wing, psf.enclosed_radius(lost)) / np.sqrt(1 - psf.ellipticity)
    reach = max([psf.trail / 2, *(np.hypot(dx, dy) for dx, dy, _, _ in psf.spots)])
    half = np.ceil((half + reach) / 4).astype(int) * 4
    near = (x > -half) & (x < shape[1] + half) & (y > -half) & (y < shape[0] + half)
    x, y, flux, half = x[near], y[near], flux[near], half[near]

    # a trail smooths as it is summed
    order = 2 if psf.trail else 3 if psf.fwhm > 2 else 5
    nodes, weights = np.polynomial.legendre.leggauss(order)
    nodes, weights = nodes / 2, weights / 2
    steps = max(1, int(np.ceil(psf.trail / (psf.fwhm / 2))))
    along = (np.arange(steps) - (steps - 1) / 2) * psf.trail / steps
    spots = psf.spots or [
        (a * np.cos(np.radians(psf.trail_angle)), a * np.sin(np.radians(psf.trail_angle)), 1.0, 1.0)
        for a in along
    ]
    total = sum(weight for _, _, weight, _ in spots)
    for h in np.unique(half):
        members = np.flatnonzero(half == h)
        size = 2 * h + 1
        offset = np.arange(-h, h + 1)
        batch = max(1, 30_000 // size**2)  # stays in the processor's cache
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            ix, iy = np.round(x[rows]).astype(int), np.round(y[rows]).astype(int)
            dx = (ix - x[rows])[:, None, None] + offset[None, None, :]
            dy = (iy - y[rows])[:, None, None] + offset[None, :, None]
            stamps = np.zeros((len(rows), size, size))
            for mx, my, part, wide in spots:
                for ny, wy in zip(nodes, weights, strict=True):
                    for nx, wx in zip(nodes, weights, strict=True):
                        light = psf.density((dx + nx - mx) / wide, (dy + ny - my) / wide)
                        stamps += wx * wy * part / wide**2 * light
            stamps *= (flux[rows] / total)[:, None, None]
            for stamp, cx, cy in zip(stamps, ix, iy, strict=True):
                y0, y1 = max(cy - h, 0), min(cy + h + 1, shape[0])
                x0, x1 = max(cx - h, 0), min(cx + h + 1, shape[1])
                if y0 < y1 and x0 < x1:
                    image[y0:y1, x0:x1] += stamp[
                        y0 - cy + h : y1 - cy + h, x0 - cx + h : x1 - cx + h
                    ]
    return image


# ---------------------------------------------------------------------------------------------
# Detector
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Region:
    """A part of a detector behind one filter.

    Parameters
    ----------
    filter, band : str
        Name of the filter and the band of the reference table.
    rows : (int, int)
        Rows of the full frame this filter covers (first, last + 1).
    section : (int, int, int, int)
        Science section y0, y1, x0, x1.
    """

    filter: str
    band: str
    rows: tuple[int, int]
    section: tuple[int, int, int, int]

    @property
    def slices(self):
        """Numpy slices of the science section."""
        y0, y1, x0, x1 = self.section
        return slice(y0, y1), slice(x0, x1)


@dataclass(frozen=True)
class Detector:
    """One camera's detector.

    Parameters
    ----------
    name : str
        Camera, as in file names.
    shape : (int, int)
        Rows, columns of the raw frame.
    regions : tuple of Region
    gain : float
        [e/DN].
    read_noise : float
        [e].
    saturation : float
        [DN], of the raw pixel.
    bias : float
        Bias level [DN]; 0 where the raw is already reset-subtracted.
    dark : float
        Dark current [e/s/px].
    hot, bad : float
        Fraction of hot pixels and of dead or low ones.
    pitch, thickness : float
        Pixel and sensitive layer [um], for cosmic rays.
    dtype : str
        'uint16' or 'int32'.
    calibrated : bool
        Whether bias and dark frames exist.
    ccd : bool
        A CCD blooms and has a 16 bit converter; a hybrid array has one well per pixel.
    illumination, grain : float
        Large scale variation and pixel-to-pixel rms of the flat.
    sky_structure : float
        Amplitude of the fixed low-order pattern on the sky, relative.
    fringes : float
        Amplitude of fringes, relative to the sky.
    nonlinearity : float
        Relative loss at saturation: DN' = DN (1 - c DN / saturation).
    vignette : float
        Loss at the corners of the section, relative.
    """

    name: str
    shape: tuple[int, int]
    regions: tuple[Region, ...]
    gain: float = 1.5
    read_noise: float = 6.0
    saturation: float = 65000.0
    bias: float = 1000.0
    dark: float = 0.002
    hot: float = 3e-4
    bad: float = 2e-4
    pitch: float = 13.0
    thickness: float = 20.0
    dtype: str = "uint16"
    calibrated: bool = True
    ccd: bool = True
    illumination: float = 0.15
    grain: float = 0.01
    dust_rings: int = 6
    sky_structure: float = 0.0
    fringes: float = 0.0
    nonlinearity: float = 0.0
    vignette: float = 0.0
    softgain: float | None = None


@dataclass
class DetectorMaps:
    """The truth of one detector, float32 arrays of the full frame.

    bias [DN], dark [e/s], response (stars), area (sky area of a pixel), flat = response * area,
    sky (fixed relative pattern, 1 on average), bad (uint8 bits DEAD, LOW, HOT), well [e].
    """

    bias: np.ndarray
    dark: np.ndarray
    response: np.ndarray
    area: np.ndarray
    flat: np.ndarray
    sky: np.ndarray
    bad: np.ndarray
    well: np.ndarray


def low_order_pattern(shape, amplitude, rng, order=3):
    """A smooth random surface (Legendre, no constant term) of given peak amplitude."""
    coefficients = rng.normal(0, 1, (order + 1, order + 1))
    i, j = np.indices(coefficients.shape)
    coefficients[(i + j > order) | (i + j == 0)] = 0
    y, x = np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1])
    surface = np.polynomial.legendre.leggrid2d(y, x, coefficients)
    return (surface * amplitude / max(np.abs(surface).max(), 1e-30)).astype(np.float32)


def fringe_pattern(shape, amplitude, rng):
    """Interference fringes: contours of a smooth surface, of given amplitude."""
    thickness = low_order_pattern(shape, 12.0, rng, order=4)
    return (amplitude * np.sin(2 * np.pi * thickness)).astype(np.float32)


def soft_edge(n, start, stop, width=2.0, margin=6.0):
    """1 inside [start, stop), falling to 0 beyond it over a few pixels."""
    i = np.arange(n)
    rise = 1 / (1 + np.exp(-np.clip((i - start + margin) / width * 2, -50, 50)))
    fall = 1 / (1 + np.exp(np.clip((i - stop + 1 - margin) / width * 2, -50, 50)))
    rise = np.ones(n) if start <= 0 else rise
    fall = np.ones(n) if stop >= n - 1 else fall
    return rise * fall


def make_detector_maps(detector, rng, optics=None):
    """Draw the bias, dark, flat field, sky pattern and defects of a detector."""
    shape = detector.shape
    ny, nx = shape
    columns = np.cumsum(rng.normal(0, 0.15, nx))
    columns -= np.linspace(columns[0], columns[-1], nx)
    bias = detector.bias + (columns + rng.normal(0, 0.3, nx))[None, :] * np.ones((ny, 1))
    if detector.bias:
        bias += 4 * np.exp(-np.arange(ny) / 60)[:, None]  # amplifier settling
    else:
        bias[:] = 0
    bias = bias.astype(np.float32)

    pick = rng.random(shape, dtype=np.float32)
    hot = pick < detector.hot
    low = pick > 1 - detector.bad / 2
    dead = (pick > 1 - detector.bad) & ~low
    # defects come in clumps too
    for _ in range(max(1, int(detector.bad * ny * nx / 150))):
        y, x, r = rng.integers(0, ny), rng.integers(0, nx), rng.uniform(1, 3.5)
        y0, x0 = max(y - 4, 0), max(x - 4, 0)
        yy, xx = np.mgrid[y0 : min(y + 5, ny), x0 : min(x + 5, nx)]
        dead[yy, xx] |= (yy - y) ** 2 + (xx - x) ** 2 <= r**2
    dark = detector.dark * rng.gamma(16, 1 / 16, shape).astype(np.float32)
    dark[hot] += 10 ** rng.uniform(0, 2.3, hot.sum())

    response = 1 + detector.grain * rng.standard_normal(shape, dtype=np.float32)
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
    response *= 1 - detector.illumination * (0.4 * (x**2 + y**2) + 0.1 * x - 0.1 * y)
    response += low_order_pattern(shape, 0.15 * detector.illumination, rng, order=4)
    for _ in range(detector.dust_rings):
        cy, cx, r = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(10, 30)
        y0, y1 = max(int(cy - 50), 0), min(int(cy + 50), ny)
        x0, x1 = max(int(cx - 50), 0), min(int(cx + 50), nx)
        yy, xx = np.mgrid[y0:y1, x0:x1]
        ring = np.exp(-0.5 * ((np.hypot(yy - cy, xx - cx) - r) / 4) ** 2)
        response[y0:y1, x0:x1] *= 1 - rng.uniform(0.02, 0.06) * ring
    illuminated = np.zeros(shape, np.float32)
    pattern = np.ones(shape, np.float32)
    for region in detector.regions:
        y0, y1, x0, x1 = region.section
        r0, r1 = region.rows
        edge = soft_edge(ny, y0, y1)[:, None] * soft_edge(nx, x0, x1)[None, :]
        illuminated[r0:r1] = (0.03 + 0.97 * edge)[r0:r1]
        if detector.vignette:
            v = np.linspace(-1, 1, y1 - y0)[:, None] ** 2 + np.linspace(-1, 1, x1 - x0) ** 2
            loss = np.clip((v - 1.2) / 0.8, 0, 1)
            illuminated[region.slices] *= 1 - detector.vignette * loss**2
        if detector.sky_structure:
            pattern[r0:r1] += low_order_pattern((r1 - r0, nx), detector.sky_structure, rng)
        if detector.fringes:
            pattern[r0:r1] += fringe_pattern((r1 - r0, nx), detector.fringes, rng)
    response *= illuminated
    response[low] *= rng.uniform(0.05, 0.6, low.sum()).astype(np.float32)
    response[dead] *= 0.0
    response = np.maximum(response, 0)
    area = np.ones(shape, np.float32) if optics is None else optics.pixel_area(shape)
    flat = response * area
    for region in detector.regions:
        r0, r1 = region.rows
        norm = np.median(flat[region.slices])
        flat[r0:r1] /= norm
        response[r0:r1] /= norm
    well = np.full(shape, detector.saturation * detector.gain, np.float32)
    if not detector.ccd:
        well *= 1 + 0.05 * rng.random(shape, dtype=np.float32)
    bad = (DEAD * dead + LOW * (low & ~dead) + HOT * hot).astype(np.uint8)
    return DetectorMaps(
        bias, dark, response.astype(np.float32), area, flat.astype(np.float32), pattern, bad, well
    )


def cosmic_rays(shape, exptime, rng, rate=0.03, pitch=13.0, thickness=20.0, scale=1.0):
    """Charge left by cosmic rays and by radioactivity, from points to long tracks and worms.

    Muons (three quarters) cross the layer at zenith angles drawn from cos^2, so that tracks last
    thickness * tan(angle) / pitch pixels, with 75 e/um and Landau-like fluctuations; Compton
    electrons (15 %) wander; the rest are point hits.

    Parameters
    ----------
    shape : (int, int)
    exptime : float
        [s].
    rng : numpy.random.Generator
    rate : float
        Events per cm^2 and s (0.03 is 2 per cm^2 and minute, a mountain).
    pitch, thickness : float
        Pixel size and sensitive layer [um].
    scale : float
        Factor on the rate.

    Returns
    -------
    ndarray, float32, shape `shape`
        [e].
    """
    image = np.zeros(shape, np.float32)
    area = shape[0] * shape[1] * (pitch * 1e-4) ** 2
    for _ in range(rng.poisson(rate * scale * area * exptime)):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        kind, direction = rng.random(), rng.uniform(0, 2 * np.pi)
        if kind < 0.75:
            cos_zenith = rng.random() ** 0.25  # flux through a plane goes as cos^3
            cos_zenith = max(cos_zenith, 0.03)
            length = thickness * np.sqrt(1 - cos_zenith**2) / cos_zenith / pitch
            charge = 75 * thickness / cos_zenith * rng.lognormal(0, 0.3)
            n = max(20, int(length * 20))
            t = np.linspace(0, length, n)
            px, py = x + t * np.cos(direction), y + t * np.sin(direction)
        elif kind < 0.9:
            length = 13.0 / pitch * 10 ** rng.uniform(0.3, 1.5)
            charge = 10 ** rng.uniform(3, 4.5)
            n = max(20, int(length * 20))
            turn = direction + np.cumsum(rng.normal(0, 1.5 / np.sqrt(n), n))
            px = x + np.cumsum(np.cos(turn)) * length / n
            py = y + np.cumsum(np.sin(turn)) * length / n
        else:
            charge, n = 10 ** rng.uniform(2.3, 4), 40
            px, py = np.full(n, x), np.full(n, y)
        diffusion = 4.0 / pitch  # lateral spread in the silicon
        ix = np.floor(px + rng.normal(0, diffusion, n)).astype(int)
        iy = np.floor(py + rng.normal(0, diffusion, n)).astype(int)
        inside = (ix >= 0) & (ix < shape[1]) & (iy >= 0) & (iy < shape[0])
        np.add.at(image, (iy[inside], ix[inside]), charge / n)
    return image


def bleed(electrons, well):
    """Spread the charge above the full well along the columns, both ways alike (a CCD)."""
    over = electrons > well
    for column in np.flatnonzero(over.any(axis=0)):
        charge, limit = electrons[:, column], well[:, column]
        rows = np.flatnonzero(over[:, column])
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            excess = float((charge[run] - limit[run]).clip(0).sum())
            charge[run] = np.minimum(charge[run], limit[run])
            up, down = run[-1] + 1, run[0] - 1
            while excess > 0 and (up < len(charge) or down >= 0):
                share = excess / 2 if up < len(charge) and down >= 0 else excess
                for row in (r for r in (up, down) if 0 <= r < len(charge)):
                    room = max(float(limit[row] - charge[row]), 0.0)
                    taken = min(room, share)
                    charge[row] += taken
                    excess -= taken
                up, down = up + 1, down - 1
    return electrons


def expose(detector, maps, light, exptime, rng, cosmic=None):
    """Turn noiseless light into raw DN: photon noise, dark, cosmic rays, well, bias, converter.

    Parameters
    ----------
    detector : Detector
    maps : DetectorMaps
    light : ndarray or float
        Expected photo-electrons, response included.
    exptime : float
        [s].
    rng : numpy.random.Generator
    cosmic : ndarray, optional
        Charge of cosmic rays [e].

    Returns
    -------
    raw : ndarray
        DN, dtype of the detector.
    saturated : ndarray of bool
        Pixels at the full well or the converter's end.
    """
    electrons = rng.poisson(light + maps.dark * exptime).astype(np.float32)
    if cosmic is not None:
        electrons += cosmic
    if detector.ccd:
        electrons = bleed(electrons, maps.well)
    electrons = np.minimum(electrons, maps.well)
    noise = rng.standard_normal(detector.shape, dtype=np.float32)
    dn = (electrons + detector.read_noise * noise) / detector.gain
    if detector.nonlinearity:
        dn *= 1 - detector.nonlinearity * dn / detector.saturation
    dn += maps.bias
    if detector.ccd:
        # the converter ends at the saturation, or at 16 bits when that is a little higher
        top = max(detector.saturation, 65535 if detector.saturation >= 65000 else 0)
        dn = np.minimum(dn, top)
    saturated = dn >= detector.saturation
    dn = np.rint(dn)
    if detector.dtype == "uint16":
        dn = dn.clip(0, 65535)
    return dn.astype(detector.dtype), saturated


@dataclass
class Exposure:
    """One simulated raw frame and its truth.

    raw (DN), stars [e] and sky [e] at response 1 (float32), cosmic [e], saturated (bool),
    x, y, flux [e] of every source by region filter.
    """

    raw: np.ndarray
    stars: np.ndarray
    sky: np.ndarray
    cosmic: np.ndarray
    saturated: np.ndarray
    positions: dict = field(default_factory=dict)


def render_exposure(
    detector,
    maps,
    catalogue,
    sky_level,
    psf,
    exptime,
    rng,
    cosmic_scale=1.0,
    gradient=(0.0, 0.0),
    galaxies=None,
    satellite=None,
    discs=None,
):
    """Render one science exposure.

    Parameters
    ----------
    detector : Detector
    maps : DetectorMaps
    catalogue : dict
        Filter -> (x, y, flux): 0-based positions [px] and total flux [e] of the stars.
    sky_level : dict
        Filter -> sky [e/px in the exposure] at flat 1.
    psf : PSF or dict
        The same for every filter, or filter -> PSF.
    gradient : (float, float)
        Relative change of the sky from the centre to the edge along y and x.
    galaxies : dict, optional
        Filter -> (x, y, flux, half-light radius [px], axis ratio, angle [deg]).
    satellite : (float, float, float), optional
        Intercept [px], angle [deg], brightness [e per px of length] of a trail.
    discs : dict, optional
        Filter -> (x, y, flux, scale length [px], axis ratio) of an exponential disc so much
        larger than the seeing that this is left out.
    """
    ny, nx = detector.shape
    stars = np.zeros(detector.shape)
    sky = np.zeros(detector.shape, np.float32)
    positions = {}
    y, x = np.linspace(-1, 1, ny)[:, None], np.linspace(-1, 1, nx)[None, :]
    tilt = (1 + gradient[0] * y + gradient[1] * x).astype(np.float32)
    for region in detector.regions:
        r0, r1 = region.rows
        level = sky_level[region.filter]
        shape_psf = psf[region.filter] if isinstance(psf, dict) else psf
        sx, sy, flux = catalogue[region.filter]
        noise = np.hypot(np.sqrt(max(level, 1.0)), detector.read_noise)
        view = stars[r0:r1]
        render_sources(view.shape, sx, sy - r0, flux, shape_psf, noise, out=view)
        if galaxies:
            for gx, gy, gf, size, q, angle in zip(*galaxies[region.filter], strict=True):
                wide = replace(
                    shape_psf,
                    fwhm=np.hypot(shape_psf.fwhm, 1.7 * size),
                    beta=2.5,
                    ellipticity=(1 - q) * size / (size + shape_psf.fwhm),
                    angle=angle,
                )
                render_sources(
                    view.shape,
                    np.array([gx]),
                    np.array([gy - r0]),
                    np.array([gf]),
                    wide,
                    noise,
                    out=view,
                )
        if discs:
            gx, gy, gf, length, q = discs[region.filter]
            view += exponential_disc(view.shape, gx, gy - r0, gf, length, q)
        sky[r0:r1] = level * maps.sky[r0:r1] * tilt[r0:r1]
        positions[region.filter] = (sx, sy, flux)
    if satellite is not None:
        stars += satellite_trail(detector.shape, *satellite, fwhm=shape_psf.fwhm)
    cosmic = cosmic_rays(
        detector.shape,
        exptime,
        rng,
        pitch=detector.pitch,
        thickness=detector.thickness,
        scale=cosmic_scale,
    )
    light = stars * maps.response + sky * maps.flat
    raw, saturated = expose(detector, maps, light, exptime, rng, cosmic)
    return Exposure(raw, stars.astype(np.float32), sky, cosmic, saturated, positions)


def exponential_disc(shape, x, y, flux, length, axis_ratio):
    """An exponential disc of total `flux`, its major axis along the rows."""
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    radius = np.hypot(columns - x, (rows - y) / axis_ratio)
    return flux / (2 * np.pi * length**2 * axis_ratio) * np.exp(-radius / length)


def satellite_trail(shape, intercept, angle, brightness, fwhm):
    """A straight line across the frame, Gaussian across, `brightness` e per px of length."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    a = np.radians(angle)
    distance = (y - intercept) * np.cos(a) - x * np.sin(a)
    sigma = fwhm / 2.3548
    return brightness * np.exp(-0.5 * (distance / sigma) ** 2) / sigma / np.sqrt(2 * np.pi)


def simulate_frame(
    shape=(512, 512),
    stars=100,
    seed=1,
    fwhm=4.0,
    sky=500.0,
    exptime=60.0,
    cosmic_scale=1.0,
    bright=2e5,
    faint=100.0,
    positions=None,
    beta=3.5,
    ellipticity=0.0,
    spots=(),
    flat=False,
    **detector_options,
):
    """One frame of any size without an instrument, for tests of single functions.

    Parameters
    ----------
    shape : (int, int)
    stars : int
        Stars, of total flux between `faint` and `bright` [e], N(>F) going as F^-0.6.
    positions : (ndarray, ndarray, ndarray), optional
        x, y, flux instead of random stars.
    fwhm, beta, ellipticity : float
        Of the PSF [px].
    spots : tuple
        See `PSF`.
    sky : float
        [e/px] in the exposure.
    flat : bool
        Whether the detector has a flat field and defects; else it is perfect.
    **detector_options
        Fields of `Detector` (gain, read_noise, saturation, bias, ...).

    Returns
    -------
    exposure : Exposure
    detector : Detector
    maps : DetectorMaps
    """
    rng = np.random.default_rng(seed)
    region = Region("r", "r", (0, shape[0]), (0, shape[0], 0, shape[1]))
    options = {
        "gain": 1.0,
        "bias": 0.0,
        "dark": 0.0,
        "read_noise": 5.0,
        "dtype": "int32",
        "saturation": 1e6,
    }
    if not flat:
        options.update(hot=0.0, bad=0.0, illumination=0.0, grain=0.0, dust_rings=0)
    options.update(detector_options)
    detector = Detector("C0", tuple(shape), (region,), **options)
    maps = make_detector_maps(detector, rng)
    if not flat:
        for perfect in (maps.response, maps.flat):
            perfect[:] = 1
        maps.bad[:] = 0
    if positions is None:
        x = rng.uniform(0, shape[1] - 1, stars)
        y = rng.uniform(0, shape[0] - 1, stars)
        low, high = bright**-0.6, faint**-0.6
        flux = (low + (high - low) * rng.random(stars)) ** (-1 / 0.6)
    else:
        x, y, flux = (np.asarray(a, float) for a in positions)
    psf = PSF(fwhm, beta, ellipticity, spots=spots)
    exposure = render_exposure(
        detector, maps, {"r": (x, y, flux)}, {"r": sky}, psf, exptime, rng, cosmic_scale
    )
    return exposure, detector, maps


# ---------------------------------------------------------------------------------------------
# Instruments
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Camera:
    """A detector behind its optics, and how long it exposes."""

    detector: Detector
    optics: Optics
    exptime: float


# Zero points [mag giving 1 e/s at airmass 1] and sky [mag/arcsec^2]; AB, and Vega in J and H:
# photons of a 1.5 m (RATIR) and a 4.3 m telescope (LMI) times a throughput of about 0.3-0.4.
RATIR_ZP = {"u": 22.6, "g": 24.7, "r": 24.5, "i": 24.2, "z": 23.6, "y": 22.9, "J": 22.9, "H": 22.8}
LMI_ZP = {
    "u": 25.6,
    "g": 27.3,
    "r": 27.2,
    "i": 26.8,
    "z": 26.0,
    "B": 27.1,
    "V": 27.2,
    "R": 27.2,
    "I": 26.6,
}
SKY_MAG = {
    "u": 22.3,
    "g": 21.8,
    "r": 20.8,
    "i": 19.9,
    "z": 18.8,
    "y": 17.6,
    "J": 15.9,
    "H": 14.0,
    "B": 22.2,
    "V": 21.5,
    "R": 20.8,
    "I": 19.9,
}
EXTINCTION = {
    "u": 0.5,
    "g": 0.18,
    "r": 0.10,
    "i": 0.06,
    "z": 0.05,
    "y": 0.05,
    "J": 0.08,
    "H": 0.05,
    "B": 0.22,
    "V": 0.14,
    "R": 0.10,
    "I": 0.06,
}
WAVELENGTH = {
    "u": 0.36,
    "g": 0.48,
    "r": 0.62,
    "i": 0.76,
    "z": 0.91,
    "y": 1.02,
    "J": 1.25,
    "H": 1.65,
    "B": 0.44,
    "V": 0.55,
    "R": 0.64,
    "I": 0.8,
}  # micron
AB_OF_VEGA = {"J": 0.91, "H": 1.39}  # AB magnitude of Vega (Blanton & Roweis 2007, AJ 133, 734)
SKY_SWING = {"z": 0.05, "y": 0.08, "J": 0.15, "H": 0.20}  # amplitude within half an hour

APERTURES = {
    "rcenter": (0.0, 0.0),
    "icenter": (0.0, 0.0),
    "ricenter": (0.0, 0.0),
    "riZJcenter": (1.2, 0.0),
    "riYHcenter": (-1.8, 0.0),
    "ZJcenter": (2.2, 0.7),
    "YHcenter": (-3.2, 0.7),
}  # arcmin


def ratir_cameras(c0="r", c1="i", softgain_ccd=4.0, softgain_ir=1.0, sky_structure=0.03):
    """The four cameras of RATIR, numbers of the instrument's description.

    The saturation is 2^16/SOFTGAIN - 1 DN, so a full well of 69 ke needs SOFTGAIN 4.
    """
    radial = (0.0, -19.60381671, -4128.15179797)
    saturation = 2**16 / softgain_ccd - 1
    well = 36000 / softgain_ir - 1
    ccd = {
        "bias": 500.0,
        "dark": 0.05,
        "pitch": 13.0,
        "thickness": 15.0,
        "saturation": saturation,
        "softgain": softgain_ccd,
        "sky_structure": 0.002,
    }
    infrared = {
        "bias": 0.0,
        "dark": 0.3,
        "hot": 8e-4,
        "bad": 2e-3,
        "pitch": 18.0,
        "thickness": 6.0,
        "saturation": well,
        "calibrated": False,
        "ccd": False,
        "softgain": softgain_ir,
        "sky_structure": sky_structure,
        "illumination": 0.2,
    }
    c0 = Detector(
        "C0",
        (1024, 1024),
        (Region(c0, c0, (0, 1024), (0, 1023, 125, 1023)),),
        gain=16.80 / softgain_ccd,
        read_noise=8.0,
        **ccd,
    )
    c1 = Detector(
        "C1",
        (1024, 1024),
        (Region(c1, c1, (0, 1024), (75, 1000, 15, 1000)),),
        gain=18.64 / softgain_ccd,
        read_noise=9.0,
        **ccd,
    )
    c2 = Detector(
        "C2",
        (2048, 2048),
        (
            Region("Z", "z", (0, 1055), (4, 975, 100, 2000)),
            Region("Y", "y", (1055, 2048), (1135, 2043, 240, 2043)),
        ),
        gain=2.2 / softgain_ir,
        read_noise=17.0,
        **infrared,
    )
    c3 = Detector(
        "C3",
        (2048, 2048),
        (
            Region("J", "J", (0, 1100), (50, 1000, 4, 2000)),
            Region("H", "H", (1100, 2048), (1200, 2043, 4, 1940)),
        ),
        gain=2.4 / softgain_ir,
        read_noise=15.0,
        dtype="int32",
        **infrared,
    )
    return (
        Camera(c0, Optics(0.3168, 0.3171, 0.60, 512, 512), 80.0),
        Camera(c1, Optics(0.3171, 0.3191, 2.40, 512, 512), 80.0),
        Camera(c2, Optics(0.2988, 0.2955, -88.1, 1177, 1031, radial), 67.0),
        Camera(c3, Optics(0.2983, -0.2945, 90.4, 924, 982, radial), 67.0),
    )


def lmi_cameras(filters=("SDSS-R", "SDSS-I"), size=512, exptime=30.0, cubic=0.0, fringes=0.0):
    """The LMI camera, once per filter; size None is the full raw frame at 2x2 binning."""
    if size is None:
        shape, section = (3082, 3120), (3, 3079, 27, 3096)
    else:
        shape, section = (size, size), (0, size, 0, size)
    cameras = []
    for name in filters:
        band = name[-1].lower() if name.startswith("SDSS-") else name
        detector = Detector(
            "C0",
            shape,
            (Region(name, band, (0, shape[0]), section),),
            gain=2.89,
            read_noise=6.0,
            saturation=65000.0,
            bias=1100.0,
            pitch=30.0,
            thickness=40.0,
            sky_structure=0.002,
            fringes=fringes if band in "zI" else 0.0,
        )
        optics = Optics(0.24, 0.24, 0.5, shape[1] / 2 + 0.5, shape[0] / 2 + 0.5, (cubic, 0.0, 0.0))
        cameras.append(Camera(detector, optics, exptime))
    return tuple(cameras)


# ---------------------------------------------------------------------------------------------
# Night
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Afterglow:
    """The afterglow of a burst at the target: a point source that fades.

    Its flux density goes as t^-decay nu^-slope from the burst on (Sari, Piran & Narayan 1998,
    ApJ 497, L17), averaged over each exposure.

    Parameters
    ----------
    magnitude : float
        AB magnitude in i at the beginning of the night's science exposures.
    delay : float
        From the burst to that time [s].
    decay, slope : float
    absorbed : float
        Bands of a shorter wavelength hold nothing of it, as for a burst of high redshift [micron].
    """

    magnitude: float
    delay: float = 240.0
    decay: float = 1.2
    slope: float = 0.8
    absorbed: float = 0.7

    def band_magnitude(self, band, begin, end):
        """Mean magnitude in a band between two times after the start of the night [s]."""
        wavelength = WAVELENGTH[band]
        if wavelength < self.absorbed:
            return np.inf
        times, rest = np.array([begin, end]) / self.delay + 1, 1 - self.decay
        mean = np.diff(times**rest)[0] / (rest * np.diff(times)[0])
        colour = self.slope * np.log10(wavelength / WAVELENGTH["i"])
        return self.magnitude - 2.5 * (np.log10(mean) + colour) - AB_OF_VEGA.get(band, 0.0)


@dataclass(frozen=True)
class Extra:
    """A point source that moves, or varies with a period; of the same magnitude in all bands.

    Parameters
    ----------
    ra, dec : float
        Where it is at `epoch` [deg].
    magnitude : float
        Mean magnitude, of the catalogue's system in each band.
    epoch : str
        UTC, ISO.
    east, north : float
        Motion [arcsec/h], on the plane tangent at (ra, dec).
    amplitude, period : float
        Of a sine in magnitudes from `epoch` on; [d].
    """

    ra: float
    dec: float
    magnitude: float
    epoch: str = "2022-01-28T00:00:00"
    east: float = 0.0
    north: float = 0.0
    amplitude: float = 0.0
    period: float = 1.0

    def at(self, when):
        """Return ra, dec [deg] and magnitude at a time."""
        hours = (when - datetime.fromisoformat(self.epoch)).total_seconds() / 3600
        xi, eta = (np.array([rate * hours * ARCSEC]) for rate in (self.east, self.north))
        ra, dec = tan_deproject(xi, eta, self.ra, self.dec)
        phase = 2 * np.pi * hours / 24 / self.period
        return float(ra[0]), float(dec[0]), self.magnitude + self.amplitude * np.sin(phase)

    def drawn(self, begin, exptime, steps=9):
        """Return ra, dec and magnitude of points, shape (steps,), that make an exposure."""
        times = [begin + timedelta(seconds=exptime * (k + 0.5) / steps) for k in range(steps)]
        ra, dec, magnitude = np.array([self.at(time) for time in times]).T
        return ra, dec, magnitude + 2.5 * np.log10(steps)


@dataclass
class Night:
    """What is observed, and what goes wrong.

    Parameters
    ----------
    instrument : str
        'ratir' or 'lmi'.
    exposures : int
        Dithered exposures (of each filter for lmi).
    stars : int
        Reference stars expected on the smallest science frame (half of a split detector).
    seed, detector_seed : int
        The second where the detectors shall be those of another night.
    ra, dec : float
        Target [deg].
    start : str
        Beginning of the science exposures (UTC, ISO).
    visit : int
        Which night of a campaign: the sky, the detectors and the dithers of the seed, noise and
        rays of its own.
    target : str
        Name (lmi), or 'PRPSLID-visVSTID' (ratir).
    seeing : float or sequence
        FWHM [arcsec] in r; per exposure where a sequence. Varies by 5 % from one to the next.
    pointing_error : float
        Common error of the pointing [arcsec], in a random direction.
    pointing_jitter : float
        Its scatter from frame to frame [arcsec, per axis].
    rotation_error, scale_error : float
        [deg] and relative; per camera, of random sign.
    dither : float
        Radius of the dither pattern [arcsec].
    transparency_scatter : float
        rms from frame to frame; the best frame has at most 1.
    extinction : float
        Light lost in all frames [mag].
    temperature : float or None
        Of the detector of lmi [deg C], where its headers tell it.
    cosmic_scale : float
        Factor on the cosmic-ray rate.
    calibrations : int
        Biases, darks and flats of each kind.
    flat_level : float
        Of the flats, relative to saturation.
    afterglow : Afterglow, optional
        At the target.
    extras : sequence of Extra
        What else is in the sky; not in the reference.
    reference_limit, reference_error, reference_wrong, reference_bands
        See `reference_table`.
    disc, disc_magnitudes : float, dict
        Scale length [arcsec] of an exponential disc of axis ratio 0.7 at the target, and band ->
        its total magnitude.
    colour_terms : dict
        Filter -> c: instrumental = catalogue magnitude + c (g_i - 1).
    size : int or None
        Rows and columns of an lmi frame, None for the full frame.
    filters : sequence of str
        Of lmi, or of C0 and C1 of ratir.
    cameras : sequence of str
        Of ratir, those simulated.
    aperture : str or sequence
        STRRQAP, cycled through.
    names : str
        Of lmi files: 'lmi', 'date' or 'mixed'.
    hostile : dict
        Kind -> list of exposures from 1 (or of cameras/filters for noflat): cloudy, trailed,
        truncated, stray (header pointing 20' wrong), elsewhere (another field), satellite,
        noflat.
    scenes, compress, detector_truth : bool
        Keep the noiseless stars and sky in the npz of each frame; compress it; write
        truth/detector-*.npz (20 bytes a pixel).
    """

    instrument: str = "ratir"
    exposures: int = 3
    stars: int = 60
    seed: int = 1
    detector_seed: int | None = None
    ra: float = 150.1
    dec: float = 20.3
    start: str = "2022-01-28T04:54:24"
    visit: int = 0
    target: str = ""
    seeing: float | tuple = 1.3
    beta: float = 3.5
    ellipticity: float = 0.04
    pointing_error: float = 4.0
    pointing_jitter: float = 0.5
    rotation_error: float = 0.1
    scale_error: float = 0.001
    dither: float | None = None
    transparency_scatter: float = 0.02
    extinction: float = 0.0
    temperature: float | None = None
    cosmic_scale: float = 3.0
    calibrations: int = 5
    flat_level: float = 0.4
    galaxies: float = 0.0
    disc: float = 0.0
    disc_magnitudes: dict = field(default_factory=dict)
    afterglow: Afterglow | None = None
    extras: tuple = ()
    bright_limit: float | None = None
    faint_limit: float | None = None
    slope: float = 0.2
    reference_limit: float | None = None
    reference_error: float = 0.3
    reference_wrong: float = 0.0
    reference_bands: tuple = BANDS
    reference_margin: float = 60.0
    colour_terms: dict = field(default_factory=dict)
    sky_factor: float = 1.0
    sky_structure: float = 0.03
    fringes: float = 0.0
    exptime: float | None = None
    size: int | None = 512
    filters: tuple | None = None
    cameras: tuple = ("C0", "C1", "C2", "C3")
    aperture: str | tuple = "rcenter"
    names: str = "mixed"
    hostile: dict = field(default_factory=dict)
    scenes: bool = False
    detector_truth: bool = True
    compress: bool = False

    def has(self, kind, exposure):
        """Whether something of that kind happens in an exposure (from 1)."""
        return exposure in self.hostile.get(kind, ())


def night_cameras(night):
    """The cameras of a night."""
    if night.instrument == "ratir":
        c0, c1 = night.filters or ("r", "i")
        cameras = ratir_cameras(c0, c1, sky_structure=night.sky_structure)
        cameras = tuple(c for c in cameras if c.detector.name in night.cameras)
        if night.fringes:
            cameras = tuple(
                replace(c, detector=replace(c.detector, fringes=night.fringes))
                if {r.band for r in c.detector.regions} & set("izy")
                else c
                for c in cameras
            )
    elif night.instrument == "lmi":
        filters = night.filters or ("SDSS-R", "SDSS-I")
        cameras = lmi_cameras(filters, night.size, fringes=night.fringes)
    else:
        raise ValueError(f"no simulator for instrument {night.instrument!r}: ratir or lmi")
    if night.exptime:
        cameras = tuple(replace(c, exptime=night.exptime) for c in cameras)
    return cameras


def dither_offsets(n, radius, rng):
    """n offsets [arcsec] on a sunflower spiral, jittered: no two alike."""
    k = np.arange(n)
    r = radius * np.sqrt((k + 0.5) / n)
    angle = k * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    jitter = rng.normal(0, 0.05 * radius, (2, n))
    return r * np.cos(angle) + jitter[0], r * np.sin(angle) + jitter[1]


def decimal_year(when):
    """Julian epoch of a datetime."""
    return 2000 + ((when - datetime(2000, 1, 1, 12)).total_seconds() / 86400) / 365.25


@dataclass
class Shot:
    """One exposure of one camera: where it points, and through which air."""

    camera: Camera
    index: int  # exposure number, from 1
    when: datetime
    header_crval: tuple[float, float]  # what the header tells, before any stray
    crval: tuple[float, float]  # the truth
    offsets: tuple[float, float]  # dither [deg of RA and Dec coordinate]
    aperture: str
    rotation: float
    stretch: float
    seeing: float
    transparency: float
    airmass: float
    gradient: tuple[float, float]
    phase: float


def plan_night(night, cameras, rng):
    """Draw pointings, seeing, transparency and sky of every exposure."""
    start = datetime.fromisoformat(night.start)
    simultaneous = night.instrument == "ratir"
    total = night.exposures if simultaneous else night.exposures * len(cameras)
    radius = night.dither
    if radius is None:
        radius = 40.0 if night.instrument == "ratir" else 8.0
    angle = rng.uniform(0, 2 * np.pi)
    cosdec = np.cos(np.radians(night.dec))
    common = night.pointing_error * np.array([np.cos(angle), np.sin(angle)])
    boresight = {
        c.detector.name + c.detector.regions[0].filter: rng.normal(0, 0.3, 2) for c in cameras
    }
    twist = {
        c.detector.name: (
            night.rotation_error * rng.choice([-1, 1]) * rng.uniform(0.5, 1),
            night.scale_error * rng.choice([-1, 1]) * rng.uniform(0.5, 1),
        )
        for c in cameras
    }
    dx, dy = dither_offsets(night.exposures, radius, rng)
    apertures = [night.aperture] if isinstance(night.aperture, str) else list(night.aperture)
    seeing = np.atleast_1d(np.asarray(night.seeing, float))
    phase = rng.uniform(0, 2 * np.pi)
    shots = []
    step = timedelta(seconds=max(c.exptime for c in cameras) + 25)
    for n in range(total):
        index = n % night.exposures + 1
        when = start + n * step
        jitter = rng.normal(0, night.pointing_jitter, 2)
        transparency = float(np.clip(1 - abs(rng.normal(0, night.transparency_scatter)), 0.05, 1))
        transparency *= 10 ** (-0.4 * night.extinction)
        if night.has("cloudy", index):
            transparency *= 0.04
        airmass = 1.1 + 0.02 * n
        fwhm = float(seeing[(index - 1) % len(seeing)] * (1 + 0.05 * rng.standard_normal()))
        gradient = tuple(0.01 * rng.standard_normal(2))
        aperture = apertures[(index - 1) % len(apertures)]
        offsets = (dx[index - 1] * ARCSEC / cosdec, dy[index - 1] * ARCSEC)
        header_crval = (night.ra + offsets[0], night.dec + offsets[1])
        if night.instrument == "ratir":
            ap_ra, ap_dec = APERTURES[aperture]
            header_crval = (header_crval[0] - ap_ra / 60, header_crval[1] - ap_dec / 60)
        for camera in cameras if simultaneous else (cameras[n // night.exposures],):
            shift = (
                common
                + jitter
                + boresight[camera.detector.name + camera.detector.regions[0].filter]
            )
            crval = (
                header_crval[0] + shift[0] * ARCSEC / cosdec,
                header_crval[1] + shift[1] * ARCSEC,
            )
            rotation, stretch = twist[camera.detector.name]
            shots.append(
                Shot(
                    camera,
                    index,
                    when,
                    header_crval,
                    crval,
                    offsets,
                    aperture,
                    rotation,
                    stretch,
                    fwhm,
                    transparency,
                    airmass,
                    gradient,
                    phase,
                )
            )
    return shots


def section_sky(shot, region):
    """Sky positions of a ring of points around a science section."""
    y0, y1, x0, x1 = region.section
    x = np.array([x0, (x0 + x1) / 2, x1, x1, x1, (x0 + x1) / 2, x0, x0], float)
    y = np.array([y0, y0, y0, (y0 + y1) / 2, y1, y1, y1, (y0 + y1) / 2], float)
    return shot.camera.optics.pixel_to_sky(x, y, shot.crval, shot.rotation, shot.stretch)


def night_field(night, cameras, shots, rng):
    """A field that covers every frame, with the wanted number of reference stars on a frame."""
    centre = np.mean([s.crval for s in shots], axis=0)
    reach = 0.0
    for shot in shots:
        for region in shot.camera.detector.regions:
            xi, eta = tan_project(*section_sky(shot, region), *centre)
            reach = max(reach, np.hypot(xi, eta).max())
    radius = reach + night.reference_margin * ARCSEC
    smallest = min(
        (r.section[1] - r.section[0])
        * (r.section[3] - r.section[2])
        * (c.optics.scale * ARCSEC) ** 2
        for c in cameras
        for r in c.detector.regions
    )
    ratir = night.instrument == "ratir"
    bright = night.bright_limit or (13.5 if ratir else 14.5)
    faint = night.faint_limit or (24.0 if ratir else 25.5)
    limit = night.reference_limit or (19.5 if ratir else 20.5)
    counts = [10 ** (night.slope * m) for m in (bright, limit, faint)]
    boost = (counts[2] - counts[0]) / (counts[1] - counts[0])
    n = round(night.stars * np.pi * radius**2 / smallest * boost)
    epoch = decimal_year(shots[len(shots) // 2].when)
    sky = make_field(
        *centre,
        radius,
        n,
        rng,
        epoch,
        bright,
        faint,
        night.slope,
        galaxies=round(night.galaxies * n),
    )
    reference = reference_table(
        sky,
        rng,
        limit,
        position_error=night.reference_error,
        wrong=night.reference_wrong,
        bands=night.reference_bands,
    )
    return sky, reference


def frame_light(night, shot, region, sky):
    """Positions and fluxes of the field on one region of one exposure.

    Returns
    -------
    stars : tuple
        id, x, y, flux [e].
    galaxies : tuple
        x, y, flux, half-light radius [px], axis ratio, angle.
    numbers : dict
        zero_point, sky, fwhm_px ... of the exposure.
    """
    optics, exptime, band = shot.camera.optics, shot.camera.exptime, region.band
    zp_table = RATIR_ZP if night.instrument == "ratir" else LMI_ZP
    zero_point = (
        zp_table[band]
        - EXTINCTION[band] * (shot.airmass - 1)
        + 2.5 * np.log10(shot.transparency * exptime)
    )
    scale = optics.scale * (1 + shot.stretch)
    x, y = optics.sky_to_pixel(
        np.asarray(sky.sources["ra"]),
        np.asarray(sky.sources["dec"]),
        shot.crval,
        shot.rotation,
        shot.stretch,
    )
    term = night.colour_terms.get(region.filter, 0.0)
    magnitude = np.asarray(sky.sources[band]) + term * (np.asarray(sky.sources["g_i"]) - 1)
    flux = 10 ** (-0.4 * (magnitude - zero_point))
    seconds = (shot.when - datetime.fromisoformat(night.start)).total_seconds()
    swing = SKY_SWING.get(band, 0.01) * np.sin(shot.phase + 2 * np.pi * seconds / 1500)
    # clouds dim the stars; they do not dim the sky, which is what makes them costly
    level = (
        10 ** (-0.4 * (SKY_MAG[band] - zp_table[band]))
        * scale**2
        * exptime
        * (1 + swing)
        * night.sky_factor
    )
    # seeing goes as wavelength^-0.2
    seeing = shot.seeing * (WAVELENGTH[band] / 0.62) ** -0.2
    star = ~np.asarray(sky.sources["galaxy"])
    near = np.isfinite(x) & (np.abs(x) < 1e5)
    ids = np.asarray(sky.sources["id"])
    use, gal = star & near, ~star & near
    galaxies = (
        x[gal],
        y[gal],
        flux[gal],
        np.asarray(sky.sources["size"])[gal] / scale,
        np.asarray(sky.sources["axis_ratio"])[gal],
        np.asarray(sky.sources["angle"])[gal],
    )
    numbers = {
        "zero_point": float(zero_point),
        "zero_point_per_second": zp_table[band],
        "extinction": EXTINCTION[band],
        "sky": float(level),
        "fwhm": float(seeing),
        "fwhm_px": float(seeing / scale),
        "colour_term": term,
    }
    stars = np.stack([ids[use], x[use], y[use], flux[use]])
    if night.afterglow and not night.has("elsewhere", shot.index):
        place = optics.sky_to_pixel(
            np.array([night.ra]), np.array([night.dec]), shot.crval, shot.rotation, shot.stretch
        )
        shown = night.afterglow.band_magnitude(band, seconds, seconds + exptime)
        if np.isfinite(shown):
            numbers["afterglow"] = float(shown)
            one = [[-1], *place, [10 ** (-0.4 * (shown - zero_point))]]
            stars = np.concatenate([stars, one], axis=1)
    for extra in night.extras:
        ra, dec, shown = extra.drawn(shot.when, exptime)
        place = optics.sky_to_pixel(ra, dec, shot.crval, shot.rotation, shot.stretch)
        more = [np.full(len(ra), -2), *place, 10 ** (-0.4 * (shown - zero_point))]
        stars = np.concatenate([stars, more], axis=1)
    return (stars[0].astype(int), *stars[1:]), galaxies, numbers


def stamp(when):
    """Time as in file names."""
    return when.strftime("%Y%m%dT%H%M%S")


def iso(when):
    """ISO time with milliseconds."""
    return when.isoformat(timespec="milliseconds")


def ratir_header(night, detector, shot, kind, when, exptime):
    """Header cards of a raw RATIR frame; its kind is told by the file name alone."""
    proposal, _, visit = (night.target or "1001-vis0").partition("-vis")
    cards = {
        "SDATE": iso(when),
        "EXPTIME": exptime,
        "FILTER": "".join(r.filter for r in detector.regions)
        if len(detector.regions) > 1
        else detector.regions[0].filter,
        "SOFTGAIN": detector.softgain,
        "PRPSLID": int(proposal) if proposal.isdigit() else proposal,
        "VSTID": int(visit) if visit.isdigit() else visit,
    }
    if shot is not None:
        stray = 20 / 60 if night.has("stray", shot.index) else 0.0
        cards.update(
            ETRRQRA=night.ra + stray,
            ETRRQDE=night.dec,
            ETRRQRAO=shot.offsets[0],
            ETRRQDEO=shot.offsets[1],
            STRRQAP=shot.aperture,
            STROBAM=round(shot.airmass, 4),
        )
    return cards


def lmi_header(night, detector, shot, kind, when, exptime):
    """Header cards of a raw LMI frame."""
    obstype = {"b": "BIAS", "f": "SKY FLAT", "o": "OBJECT"}[kind]
    name = night.target or "GRB220128A"
    if kind == "f" and detector.regions[0].band == "i":
        obstype = "DOME FLAT"
    cards = {
        "INSTRUME": "LMI",
        "TELESCOP": "LDT",
        "OBSTYPE": obstype,
        "OBJECT": name if kind == "o" else "",
        "OBJNAME": name if kind == "o" else obstype,
        "FILTER1": detector.regions[0].filter if kind != "b" else "OPEN",
        "FILTER2": "OPEN",
        "EXPTIME": exptime,
        "DATE-OBS": iso(when),
        "UT": iso(when)[11:],
        "CCDSUM": "2 2",
        "ADELX_01": 2,
        "ADELY_01": 2,
        "GAIN": detector.gain,
        "RDNOISE": detector.read_noise,
    }
    if night.temperature is not None:
        cards["CCDTEMP"] = night.temperature
    if shot is not None:
        ra, dec = shot.header_crval
        if night.has("stray", shot.index):
            ra += 20 / 60
        cards.update(
            RA=sexagesimal(ra / 15),
            DEC=sexagesimal(dec, sign=True),
            AIRMASS=round(shot.airmass, 4),
            RADESYS="ICRS",
        )
        cards.update(replace(shot.camera.optics, radial=(0, 0, 0)).cards((ra, dec)))
    return cards


def sexagesimal(value, sign=False):
    """'hh:mm:ss.ss' of hours or degrees."""
    total = round(abs(value) * 360000)
    mark = "-" if value < 0 else "+" if sign else ""
    h, rest = divmod(total, 360000)
    m, s = divmod(rest, 6000)
    return f"{mark}{h:02d}:{m:02d}:{s / 100:05.2f}"


def write_raw(path, data, cards):
    """Write one raw frame."""
    header = fits.Header()
    for key, value in cards.items():
        header[key] = value
    fits.PrimaryHDU(data, header).writeto(path, overwrite=True)


def simulate_night(outdir, night, add=False):
    """Write a whole raw night with its reference table and truth.

    Parameters
    ----------
    outdir : path
        raw/, reference.ecsv and truth/ are made in it. An earlier simulation there is replaced.
    night : Night
    add : bool
        Add to the night already there instead (another target: give another seed and start, the
        `detector_seed` of the first, and no calibrations).

    Returns
    -------
    dict
        The contents of truth/truth.json.
    """
    outdir = Path(outdir)
    raw, truth_dir = outdir / "raw", outdir / "truth"
    raw.mkdir(parents=True, exist_ok=True)
    truth_dir.mkdir(parents=True, exist_ok=True)
    path = truth_dir / "truth.json"
    earlier = json.loads(path.read_text()) if path.exists() else {"frames": {}, "raw": []}
    if not add:
        for name in earlier["raw"]:
            (raw / name).unlink(missing_ok=True)
        for name in (
            *truth_dir.glob("*.npz"),
            path,
            *truth_dir.glob("*.ecsv"),
            outdir / "reference.ecsv",
        ):
            name.unlink(missing_ok=True)
        earlier = {"frames": {}, "raw": []}
    # independent streams: the sky stays the same when an exposure is added
    seeds = np.random.SeedSequence(night.seed).spawn(6)
    rng_plan, rng_field, rng_maps, rng_cal, rng_frames, rng_other = map(
        np.random.default_rng, seeds
    )
    if night.detector_seed is not None:
        rng_maps = np.random.default_rng(np.random.SeedSequence(night.detector_seed).spawn(6)[2])
    if night.visit:
        own = np.random.SeedSequence((night.seed, night.visit)).spawn(2)
        rng_cal, rng_frames = map(np.random.default_rng, own)
    cameras = night_cameras(night)
    shots = plan_night(night, cameras, rng_plan)
    sky, reference = night_field(night, cameras, shots, rng_field)
    entries = Table(
        {
            "id": reference.meta.pop("id"),
            "wrong": np.isin(np.arange(len(reference)), reference.meta.pop("wrong")),
        }
    )
    if add and (truth_dir / "stars.ecsv").exists():
        first = len(Table.read(truth_dir / "stars.ecsv"))
        sky.sources["id"] += first
        entries["id"] += first
    elsewhere = make_field(
        sky.ra,
        sky.dec,
        sky.radius,
        len(sky.sources),
        rng_other,
        sky.epoch,
        float(sky.sources["r"].min()),
        float(sky.sources["r"].max()),
        night.slope,
    )
    maps = {}
    for camera in cameras:
        detector = camera.detector
        key = detector_key(night, detector)
        made = make_detector_maps(detector, rng_maps, camera.optics)
        if night.instrument == "lmi" and maps:
            # one CCD: bias, dark and defects do not change with the filter
            first = next(iter(maps.values()))
            made = replace(made, bias=first.bias, dark=first.dark, bad=first.bad, well=first.well)
        maps[key] = made
    namer = Namer(night, len(earlier["raw"]))
    begin = datetime.fromisoformat(night.start)
    write_calibrations(night, cameras, maps, raw, namer, begin, rng_cal)

    frames = {}
    header_maker = {"ratir": ratir_header, "lmi": lmi_header}[night.instrument]
    for shot in shots:
        detector = shot.camera.detector
        scene = elsewhere if night.has("elsewhere", shot.index) else sky
        catalogue, galaxies, levels, psfs, numbers, ids = {}, {}, {}, {}, {}, {}
        discs = {}
        trail = 6.0 / shot.camera.optics.scale if night.has("trailed", shot.index) else 0.0
        for region in detector.regions:
            stars, gal, n = frame_light(night, shot, region, scene)
            ids[region.filter] = stars[0]
            catalogue[region.filter], galaxies[region.filter] = stars[1:], gal
            levels[region.filter], numbers[region.filter] = n["sky"], n
            if night.disc:
                optics = shot.camera.optics
                gx, gy = optics.sky_to_pixel(
                    np.array([night.ra]),
                    np.array([night.dec]),
                    shot.crval,
                    shot.rotation,
                    shot.stretch,
                )
                magnitude = night.disc_magnitudes.get(region.band, 99.0)
                flux = 10 ** (-0.4 * (magnitude - n["zero_point"]))
                length = night.disc / (optics.scale * (1 + shot.stretch))
                discs[region.filter] = (gx[0], gy[0], flux, length, 0.7)
            psfs[region.filter] = PSF(
                n["fwhm_px"], night.beta, night.ellipticity, 30.0, trail, 20.0
            )
        satellite = None
        if night.has("satellite", shot.index):
            # a peak of some ten times the noise
            noise = np.sqrt(max(levels.values()))
            satellite = (
                0.3 * detector.shape[0],
                15.0,
                10 * noise * max(n["fwhm_px"] for n in numbers.values()),
            )
        exposure = render_exposure(
            detector,
            maps[detector_key(night, detector)],
            catalogue,
            levels,
            psfs,
            shot.camera.exptime,
            rng_frames,
            night.cosmic_scale,
            shot.gradient,
            galaxies if night.galaxies else None,
            satellite,
            discs,
        )
        name, stem = namer.next(shot.when, detector, "o")
        write_raw(
            raw / name,
            exposure.raw,
            header_maker(night, detector, shot, "o", shot.when, shot.camera.exptime),
        )
        if night.has("truncated", shot.index) and detector.name == cameras[0].detector.name:
            size = (raw / name).stat().st_size
            with open(raw / name, "r+b") as handle:
                handle.truncate(int(size * 0.4) // 2880 * 2880 + 1000)
        save_frame_truth(truth_dir / f"{stem}.npz", exposure, detector, ids, night)
        for region in detector.regions:
            key = f"{stem}_{region.filter}" if len(detector.regions) > 1 else stem
            sx, sy, flux = catalogue[region.filter]
            y0, y1, x0, x1 = region.section
            on = (sx >= x0) & (sx < x1) & (sy >= y0) & (sy < y1)
            frames[key] = frame_entry(
                night, shot, region, name, stem, numbers[region.filter], int(on.sum()), trail
            )
    truth = {
        "instrument": night.instrument,
        "seed": night.seed,
        "epoch": sky.epoch,
        "field": {"ra": float(sky.ra), "dec": float(sky.dec), "radius": float(sky.radius)},
        "target": {"ra": night.ra, "dec": night.dec},
        "raw": earlier["raw"] + namer.written,
        "frames": earlier["frames"],
    }
    truth["frames"].update(frames)
    path.write_text(json.dumps(truth, indent=1))
    merged(outdir / "reference.ecsv", reference)
    merged(truth_dir / "stars.ecsv", sky.sources)
    merged(truth_dir / "reference.ecsv", entries)
    if night.detector_truth:
        for camera in cameras:
            key = detector_key(night, camera.detector)
            m = maps[key]
            np.savez(
                truth_dir / f"detector-{key}.npz",
                flat=m.flat,
                response=m.response,
                sky=m.sky,
                bad=m.bad,
                dark=m.dark,
                bias=m.bias,
            )
    return truth


def merged(path, table):
    """Write a table, after the rows already there (a second target of the night)."""
    if path.exists():
        from astropy.table import vstack

        table = vstack([Table.read(path), table], metadata_conflicts="silent")
    table.write(path, overwrite=True)


def detector_key(night, detector):
    """C0..C3, and for lmi the filter too: the flat field changes with it."""
    if night.instrument == "lmi":
        return f"{detector.name}_{detector.regions[0].filter}"
    return detector.name


class Namer:
    """File names of a night: RATIR's, or the two kinds LMI has."""

    def __init__(self, night, first=0):
        self.night = night
        self.number = first
        self.written = []

    def next(self, when, detector, kind):
        """File name, and the stem in the form of RATIR."""
        stem = f"{stamp(when)}{detector.name}{kind}"
        self.number += 1
        numbered = self.night.names == "lmi" or (
            self.night.names == "mixed" and self.number % 3 != 0
        )
        lmi = self.night.instrument == "lmi" and numbered
        name = f"lmi.{self.number:04d}.fits" if lmi else f"{stem}.fits"
        self.written.append(name)
        return name, stem


def write_calibrations(night, cameras, maps, raw, namer, begin, rng):
    """Write biases, darks and flats taken before the night."""
    header_maker = {"ratir": ratir_header, "lmi": lmi_header}[night.instrument]
    when = begin - timedelta(hours=2)
    biased = set()
    for camera in cameras:
        detector, m = camera.detector, maps[detector_key(night, camera.detector)]
        clock = when
        if night.instrument == "lmi":
            clock = when + timedelta(minutes=30 * len(biased) + 30 * cameras.index(camera))
        plan = []
        if detector.calibrated and detector.name not in biased:
            plan += [("b", 0.0)] * night.calibrations
            if night.instrument == "ratir":
                plan += [("d", camera.exptime)] * night.calibrations
            biased.add(detector.name)
        missing = night.hostile.get("noflat", ())
        if not ({detector.name, *(r.filter for r in detector.regions)} & set(missing)):
            plan += [("f", 5.0)] * night.calibrations
        for kind, exptime in plan:
            light = 0.0
            if kind == "f":
                level = night.flat_level * rng.uniform(0.8, 1.2) * detector.saturation
                light = level * detector.gain * m.flat
            cosmic = cosmic_rays(
                detector.shape,
                exptime,
                rng,
                pitch=detector.pitch,
                thickness=detector.thickness,
                scale=night.cosmic_scale,
            )
            frame, _ = expose(detector, m, light, exptime, rng, cosmic)
            name, _ = namer.next(clock, detector, kind)
            write_raw(raw / name, frame, header_maker(night, detector, None, kind, clock, exptime))
            clock += timedelta(seconds=exptime + 17)


def save_frame_truth(path, exposure, detector, ids, night):
    """Write the truth of the pixels of one raw frame (full frame, sparse where it can be)."""
    hit = np.flatnonzero(exposure.cosmic >= 1)
    arrays = {
        "shape": np.array(detector.shape),
        "cosmic_index": hit.astype(np.int32),
        "cosmic_electrons": exposure.cosmic.ravel()[hit],
        "saturated_index": np.flatnonzero(exposure.saturated).astype(np.int32),
    }
    for name, (x, y, flux) in exposure.positions.items():
        arrays[f"stars_{name}"] = np.array([ids[name], x, y, flux])
    if night.scenes:
        arrays["scene"], arrays["sky"] = exposure.stars, exposure.sky
    (np.savez_compressed if night.compress else np.savez)(path, **arrays)


def frame_entry(night, shot, region, name, stem, numbers, on_frame, trail):
    """What truth.json says of one science frame."""
    cosdec = np.cos(np.radians(night.dec))
    return {
        "file": name,
        "npz": f"{stem}.npz",
        "exposure": shot.index,
        "camera": shot.camera.detector.name,
        "filter": region.filter,
        "band": region.band,
        "detector": f"detector-{detector_key(night, shot.camera.detector)}.npz",
        "section": list(region.section),
        "exptime": shot.camera.exptime,
        "date": iso(shot.when),
        "airmass": shot.airmass,
        "gain": shot.camera.detector.gain,
        "read_noise": shot.camera.detector.read_noise,
        "saturation": shot.camera.detector.saturation,
        "header_crval": [float(v) for v in shot.header_crval],
        "crval": [float(v) for v in shot.crval],
        "pointing_error": [
            float((shot.crval[0] - shot.header_crval[0]) * cosdec / ARCSEC),
            float((shot.crval[1] - shot.header_crval[1]) / ARCSEC),
        ],
        "rotation_error": float(shot.rotation),
        "scale_error": float(shot.stretch),
        "transparency": shot.transparency,
        "gradient": [float(g) for g in shot.gradient],
        "beta": night.beta,
        "ellipticity": night.ellipticity,
        "trail_px": float(trail),
        "elsewhere": night.has("elsewhere", shot.index),
        "stray": night.has("stray", shot.index),
        "truncated": night.has("truncated", shot.index),
        "stars_on_frame": on_frame,
        "wcs": shot.camera.optics.cards(shot.crval, shot.rotation, shot.stretch),
        **numbers,
    }


# ---------------------------------------------------------------------------------------------
# Reading the truth back
# ---------------------------------------------------------------------------------------------


def load_truth(outdir):
    """truth.json as a dict; ``['stars']`` is the table of all sources."""
    directory = Path(outdir) / "truth"
    truth = json.loads((directory / "truth.json").read_text())
    truth["stars"] = Table.read(directory / "stars.ecsv")
    truth["directory"] = str(directory)
    return truth


def true_wcs(entry, cropped=True):
    """astropy WCS of one frame of truth.json; cropped to its science section by default."""
    header = fits.Header()
    for key, value in entry["wcs"].items():
        header[key] = value
    if cropped:
        header["CRPIX1"] -= entry["section"][2]
        header["CRPIX2"] -= entry["section"][0]
    return WCS(header)


def load_pixels(truth, frame, cropped=True):
    """Pixel truth of one frame.

    Returns
    -------
    dict
        cosmic [e], saturated (bool), flat, bad, and scene and sky [e at response 1] where kept;
        stars: ids, x, y, flux [e]. Cropped to the science section by default.
    """
    entry = truth["frames"][frame]
    directory = Path(truth["directory"])
    y0, y1, x0, x1 = entry["section"]
    cut = (slice(y0, y1), slice(x0, x1)) if cropped else (slice(None), slice(None))
    out = {}
    with np.load(directory / entry["npz"]) as npz:
        shape = tuple(npz["shape"])
        cosmic = np.zeros(shape, np.float32)
        cosmic.ravel()[npz["cosmic_index"]] = npz["cosmic_electrons"]
        saturated = np.zeros(shape, bool)
        saturated.ravel()[npz["saturated_index"]] = True
        out["cosmic"], out["saturated"] = cosmic[cut], saturated[cut]
        ids, x, y, flux = npz[f"stars_{entry['filter']}"]
        if cropped:
            x, y = x - x0, y - y0
        out["stars"] = Table([ids.astype(int), x, y, flux], names=("id", "x", "y", "flux"))
        for key in ("scene", "sky"):
            if key in npz:
                out[key] = npz[key][cut]
    detector = directory / entry["detector"]
    if detector.exists():
        with np.load(detector) as npz:
            for key in ("flat", "response", "bad", "dark", "bias"):
                out[key] = npz[key][cut]
            out["sky_pattern"] = npz["sky"][cut]
    return out


# ---------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------


def parse_hostile(words):
    """{'cloudy': [2], 'noflat': ['i']} of ['cloudy=2', 'noflat=i']; lists with commas."""
    kinds = {"cloudy", "trailed", "truncated", "stray", "elsewhere", "satellite", "noflat"}
    out = {}
    for word in words:
        kind, _, values = word.partition("=")
        if kind not in kinds or not values:
            raise argparse.ArgumentTypeError(
                f"{word!r}: write KIND=N[,N] with KIND one of {', '.join(sorted(kinds))}"
            )
        items = values.split(",")
        out[kind] = items if kind == "noflat" else [int(i) for i in items]
    return out


def main(argv=None):
    """Command line of the simulator."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("outdir", type=Path)
    add("--instrument", choices=("ratir", "lmi"), default="ratir")
    add("--exposures", type=int, default=3)
    add("--stars", type=int, default=60, help="reference stars on the smallest frame")
    add("--seed", type=int, default=1)
    add("--detector-seed", type=int)
    add("--add", action="store_true", help="add a target to the night already in OUTDIR")
    add(
        "--tiny",
        action="store_true",
        help="least files: 3 calibrations of a kind; lmi 512x512 (its default size)",
    )
    add("--full", action="store_true", help="lmi: the full 3k frame")
    add("--size", type=int, default=512, help="lmi: rows and columns")
    add("--seeing", type=float, nargs="+", default=[1.3], help="arcsec; one, or one an exposure")
    add("--ra", type=float, default=150.1)
    add("--dec", type=float, default=20.3)
    add("--start", default="2022-01-28T04:54:24")
    add("--target", default="")
    add("--exptime", type=float)
    add("--filters", nargs="+", help="lmi: FILTER1 values; ratir: filters of C0 and C1")
    add("--cameras", nargs="+", default=["C0", "C1", "C2", "C3"], help="ratir")
    add("--aperture", nargs="+", default=["rcenter"], choices=APERTURES, help="ratir: STRRQAP")
    add("--names", choices=("lmi", "date", "mixed"), default="mixed")
    add("--calibrations", type=int, default=5)
    add("--dither", type=float, help="arcsec")
    add("--pointing-error", type=float, default=4.0, help="arcsec")
    add("--rotation-error", type=float, default=0.1, help="deg")
    add("--scale-error", type=float, default=0.001)
    add("--cosmic-scale", type=float, default=3.0)
    add("--galaxies", type=float, default=0.0, help="per star")
    add("--reference-error", type=float, default=0.3, help="mas at r = 18")
    add("--reference-wrong", type=float, default=0.0, help="fraction of wrong entries")
    add("--fringes", type=float, default=0.0)
    add(
        "--hostile",
        nargs="+",
        default=[],
        metavar="KIND=N",
        help="cloudy=2 trailed=3 truncated=1 stray=4 elsewhere=5 satellite=2 noflat=i",
    )
    add("--reference-limit", type=float, help="faintest r of the reference table")
    add(
        "--transparency-scatter",
        type=float,
        default=0.02,
        help="rms of the transparency from frame to frame",
    )
    add(
        "--no-detector-truth",
        dest="detector_truth",
        action="store_false",
        help="leave out truth/detector-*.npz, which are large",
    )
    add("--afterglow", type=float, help="i magnitude at the start of a fading source at the target")
    add("--scenes", action="store_true", help="keep the noiseless images too")
    args = parser.parse_args(argv)
    options = {k: v for k, v in vars(args).items() if k not in ("outdir", "tiny", "full", "add")}
    try:
        options["hostile"] = parse_hostile(args.hostile)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    if args.tiny:
        options["calibrations"] = min(args.calibrations, 3)
    options["afterglow"] = Afterglow(args.afterglow) if args.afterglow else None
    options["size"] = None if args.full else args.size
    for key in ("seeing", "cameras", "aperture", "filters"):
        options[key] = tuple(options[key]) if options[key] else None
    truth = simulate_night(args.outdir, Night(**options), add=args.add)
    print(f"{len(truth['frames'])} science frames in {args.outdir / 'raw'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
