"""Maps from pixels to the sky, their distortion polynomials, and the cards that stand for them.

A map is a function of x, y (1-based pixels) that returns ra, dec [deg].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from lib.core.sphere import deproject, project

PixelMap = Callable[[ArrayLike, ArrayLike], tuple[np.ndarray, np.ndarray]]
"""Takes x, y (1-based pixels); returns ra, dec [deg]."""

Cards = dict[str, Any]
"""Keywords and values of a FITS header."""

Term = tuple[int, int, int]
"""A TPV term: its index, and the powers of the axis' own and of the other coordinate."""


CACHED_RESULTS = 4
"""Results that a map keeps."""


def cached_map(pixel_to_world: PixelMap) -> PixelMap:
    """Return a map that caches its results for the same arrays.

    Maps are made of maps, and each is evaluated again and again for the same stars. Only read-only
    arrays are recognised, by their identity.
    """
    results: list[tuple[ArrayLike, ArrayLike, tuple[np.ndarray, np.ndarray]]] = []

    @functools.wraps(pixel_to_world)
    def cached(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        for one, other, known in results:
            if one is x and other is y:
                return known
        ra, dec = pixel_to_world(x, y)
        found = ra, dec
        if is_read_only(x) and is_read_only(y):
            for values in found:
                values.flags.writeable = False
            results.append((x, y, found))
            del results[:-CACHED_RESULTS]
        return found

    return cached


def is_read_only(values: ArrayLike) -> bool:
    """Tell whether values are an array that cannot be changed."""
    return isinstance(values, np.ndarray) and not values.flags.writeable


def tpv_terms(degree: int) -> list[Term]:
    """Return the TPV terms up to a degree: index, power of the axis' own coordinate, of the other.

    Radial terms (3, 11, 23, 39) are left out. Source: the TPV registration document of FITS.
    """
    terms: list[Term] = []
    index = 0
    for d in range(degree + 1):
        for power in range(d + 1):
            terms.append((index, d - power, power))
            index += 1
        if d % 2:
            index += 1
    return terms


def polynomial(u: np.ndarray, v: np.ndarray, terms: Sequence[Term]) -> np.ndarray:
    """Return the design matrix of the terms for coordinates `u`, `v`; shape (n, terms)."""
    highest = max(max(i, j) for _, i, j in terms)
    powers = np.ones((2, highest + 1, np.size(u)))
    for one, value in zip(powers, (u, v), strict=True):
        np.multiply.accumulate(np.broadcast_to(value, one[1:].shape), axis=0, out=one[1:])
    i, j = np.array([(i, j) for _, i, j in terms]).T
    return (powers[0, i] * powers[1, j]).T


def tan_cards(crval: Any, crpix: Any, cd: Any) -> Cards:
    """Return the cards of an undistorted system.

    Parameters
    ----------
    crval : array_like, shape (2,)
        [deg]
    crpix : array_like, shape (2,)
        [pixel]
    cd : array_like, shape (2, 2)
        [deg per pixel]
    """
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": float(crval[0]),
        "CRVAL2": float(crval[1]),
        "CRPIX1": float(crpix[0]),
        "CRPIX2": float(crpix[1]),
        "CD1_1": float(cd[0][0]),
        "CD1_2": float(cd[0][1]),
        "CD2_1": float(cd[1][0]),
        "CD2_2": float(cd[1][1]),
    }


def fit_cards(
    pixel_to_world: PixelMap,
    shape: tuple[int, int],
    *,
    max_degree: int = 7,
    accuracy: float = 2e-4,
    nodes: int = 15,
) -> tuple[Cards, float]:
    """Write a map as TAN or TPV cards, of the lowest degree that does.

    Parameters
    ----------
    pixel_to_world : callable
    shape : tuple of int
        (ny, nx) of the image; CRPIX is its middle.
    max_degree : int
        Odd, 7 at most.
    accuracy : float
        Difference from the map that is small enough, anywhere on the frame [arcsec].
    nodes : int
        Points per axis at which the map is sampled.

    Returns
    -------
    cards : dict
    error : float
        Maximum difference from the map [arcsec].
    """
    ny, nx = shape
    crpix = np.array([(nx + 1) / 2, (ny + 1) / 2])
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, nx, nodes), np.linspace(1, ny, nodes)))
    ra, dec = pixel_to_world(x, y)
    crval = [float(v[0]) for v in pixel_to_world(crpix[:1], crpix[1:])]
    half = max(nx, ny) / 2
    u, v = (x - crpix[0]) / half, (y - crpix[1]) / half

    base = polynomial(u, v, tpv_terms(1))
    for _ in range(3):
        # With no PV the constant belongs into CRVAL.
        target = project(ra, dec, *crval)
        coefficients = np.linalg.lstsq(base, target, rcond=None)[0]
        crval = [float(c[0]) for c in deproject(coefficients[:1], *crval)]
    cd = coefficients[1:3].T / half / 3600.0
    error = float(np.abs(project(ra, dec, *crval) - base[:, 1:] @ coefficients[1:]).max())

    target = project(ra, dec, *crval) / 3600.0
    pv: Cards = {}
    for degree in range(3, max_degree + 1, 2):
        if error < accuracy:
            break
        terms = tpv_terms(degree)
        coefficients = np.linalg.lstsq(polynomial(u, v, terms), target, rcond=None)[0]
        cd = coefficients[1:3].T / half
        xi, eta = cd @ np.stack([x - crpix[0], y - crpix[1]])
        pv, error = fit_pv(xi, eta, target, terms)

    cards = tan_cards(crval, crpix, cd)
    if pv:
        cards |= {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"} | pv
    return cards | {"RADESYS": "ICRS", "EQUINOX": 2000.0}, error


def fit_pv(
    xi: np.ndarray, eta: np.ndarray, target: np.ndarray, terms: Sequence[Term]
) -> tuple[Cards, float]:
    """Fit the PV terms of both axes.

    Parameters
    ----------
    xi, eta : ndarray, shape (n,)
        Undistorted coordinates, the CD matrix times pixels [deg].
    target : ndarray, shape (n, 2)
        True ones [deg].
    terms : sequence of Term

    Returns
    -------
    pv : dict
        Cards.
    error : float
        Maximum residual [arcsec].
    """
    # Fitted in units of the frame's size: powers of degrees would be ill-conditioned.
    unit = max(np.abs(xi).max(), np.abs(eta).max())
    pv: Cards = {}
    error = 0.0
    for axis, (own, other) in enumerate(((xi, eta), (eta, xi))):
        base = polynomial(own / unit, other / unit, terms)
        c = np.linalg.lstsq(base, target[:, axis], rcond=None)[0]
        error = max(error, float(np.abs(target[:, axis] - base @ c).max() * 3600.0))
        for (index, i, j), value in zip(terms, c, strict=True):
            pv[f"PV{axis + 1}_{index}"] = float(value / unit ** (i + j))
    return pv, error


def map_from_cards(cards: Cards | fits.Header) -> PixelMap:
    """Return the map that TAN or TPV cards stand for, by WCSLIB."""
    header = cards if isinstance(cards, fits.Header) else fits.Header(cards)
    return map_from_wcs(WCS(header, naxis=2))


def map_from_wcs(wcs: WCS) -> PixelMap:
    """Return the map of a WCS."""

    @cached_map
    def pixel_to_world(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        return wcs.all_pix2world(np.asarray(x, float), np.asarray(y, float), 1)

    return pixel_to_world


def map_from_tpv(cards: Cards) -> PixelMap:
    """Return the map of cards of a TAN or TPV system without radial terms.

    The same as `map_from_cards`, in a twentieth of the time.

    Parameters
    ----------
    cards : dict
        CRPIX, CRVAL, CD, and PV where there are any.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        The cards have other terms.
    """
    crpix, crval = (np.array([cards[f"{key}{k}"] for k in (1, 2)]) for key in ("CRPIX", "CRVAL"))
    cd = np.array([[cards[f"CD{i}_{j}"] for j in (1, 2)] for i in (1, 2)])
    given = {key for key in cards if key.startswith("PV") and cards[key] != 0}
    terms = tpv_terms(7)
    names = [[f"PV{axis}_{index}" for index, _, _ in terms] for axis in (1, 2)]
    if not given <= {*names[0], *names[1]}:
        raise ValueError(f"terms {sorted(given - {*names[0], *names[1]})} are not known")
    pv = np.array([[cards.get(name, float(name[4:] == "1")) for name in one] for one in names])
    # What all higher degrees lack is not evaluated.
    number = int(max(np.flatnonzero(pv.any(axis=0)), default=0)) + 1
    terms, pv = terms[:number], pv[:, :number]

    @cached_map
    def pixel_to_world(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        xi, eta = cd @ np.stack([np.asarray(x) - crpix[0], np.asarray(y) - crpix[1]])
        if given:
            xi, eta = polynomial(xi, eta, terms) @ pv[0], polynomial(eta, xi, terms) @ pv[1]
        return deproject(3600.0 * np.stack([xi, eta], axis=1), *crval)

    return pixel_to_world


def coordinate_cards(header: fits.Header) -> fits.Header:
    """Return the cards of a header that make up its world coordinate system, SIP included."""
    system = fits.Header()
    for key in header:
        if key.startswith(("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CD", "PC", "PV", "A_", "B_")):
            system[key] = header[key]
        elif key in ("RADESYS", "EQUINOX", "LONPOLE", "LATPOLE", "CROTA2"):
            system[key] = header[key]
    return system


def starting_map(
    header: fits.Header,
    shape: tuple[int, int],
    centre: tuple[float, float, float] | None = None,
) -> tuple[PixelMap, float | None]:
    """Return the map that the header claims, and how far it may be off.

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
    pixel_to_world : callable
    radius : float or None
        Uncertainty of the pointing [deg].
    """
    radius = header.get("POSERR")
    if str(header.get("CTYPE1", ""))[:2] in ("RA", "DE") and "CRVAL1" in header:
        return map_from_cards(coordinate_cards(header)), radius
    ra, dec = header.get("RA"), header.get("DEC")
    if not isinstance(ra, (int, float)) or not isinstance(dec, (int, float)):
        ra, dec, radius = centre if centre is not None else (0.0, 0.0, radius)
    scale = float(header.get("PIXSCALE", 1.0)) / 3600.0
    ny, nx = shape
    middle = ((nx + 1) / 2, (ny + 1) / 2)
    return map_from_cards(tan_cards((ra, dec), middle, ((-scale, 0.0), (0.0, scale)))), radius
