"""The point-spread function of an image as a table that varies over the field.

Pixel coordinates are 0-based (x, y), as in sep. The table is an effective point-spread function
(Anderson & King 2000, PASP 112, 1360): its value at an offset is the part of a star's light that a
pixel there holds, so that undersampled stars are described as well as others.
"""

from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from lib.core.compiled import compiled
from lib.photometry.psf import Wings

NODES_PER_FWHM = 4.0
"""Nodes of the table along one FWHM: cubic splines follow a Gaussian to a thousandth so."""

COARSEST_STEP = 1.5
"""Maximum distance of nodes [pixel], for the rings of a telescope out of focus."""

REACH = 6.0
"""The table reaches this far [FWHM]; that of wide stars four."""

WIDE_FWHM = 8.0
"""[pixel] Wider stars count as wide."""

PROFILE_ERROR = 0.01
"""Relative error of a pixel of a model where its stars do not tell it, and at most."""

SUBPIXELS, FEW_SUBPIXELS = 5, 3
"""Points along an axis over which an analytic profile is averaged in a pixel; where the nodes are
0.75 pixels apart or more, fewer are enough."""


@dataclass(frozen=True)
class PsfModel:
    """A point-spread function that varies over the field.

    At (x, y) the coefficients of its cubic spline are the sum of `coefficients` times the powers
    1, u, v, u^2, u v, v^2 of u, v = ((x, y) - centre) / span, as far as `degree` has them.

    Parameters
    ----------
    coefficients : ndarray, shape (k, m, m)
        B-spline coefficients [part of a star's total light in a pixel], m odd.
    step : float
        Distance of the nodes [pixel].
    centre : tuple of float
        x, y [pixel].
    span : float
        [pixel].
    degree : int
        0, 1 or 2.
    fwhm : float
        FWHM of the stars from which it was made [pixel].
    error : float
        Relative error of a flux that is fitted with it, beyond noise.
    n_stars : int
        Stars that it was measured on.
    profile_error : float
        Relative error of a pixel of the model in the core: with it the cores of bright stars do not
        outweigh all else in a fit.
    """

    coefficients: np.ndarray
    step: float
    centre: tuple[float, float]
    span: float
    degree: int
    fwhm: float
    error: float = 0.0
    n_stars: int = 0
    profile_error: float = PROFILE_ERROR

    @property
    def reach(self) -> float:
        """Distance from a star at which the table ends [pixel]."""
        return (self.coefficients.shape[1] // 2 - 1) * self.step

    def shifted(self, x: float, y: float) -> "PsfModel":
        """Return the model of a part of the image whose first pixel is (x, y)."""
        return replace(self, centre=(self.centre[0] - x, self.centre[1] - y))

    def terms(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the powers of the coordinates, shape (n, k)."""
        return field_terms(x, y, self.centre, self.span, self.degree)

    def stamps(self, x: np.ndarray, y: np.ndarray, radius: np.ndarray) -> "Stamps":
        """Return the light of stars of flux 1, and its derivatives by their positions.

        Parameters
        ----------
        x, y : ndarray, shape (n,)
            [pixel].
        radius : ndarray, shape (n,)
            The stamps are discs of these radii [pixel].
        """
        radius = np.minimum(np.asarray(radius, float), self.reach)
        half = np.ceil(radius).astype(np.int64)
        sizes = (2 * half + 1) ** 2
        start = np.append(0, np.cumsum(sizes))
        out = np.zeros((3, start[-1]), np.float32)
        column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        _fill_stamps(
            np.ascontiguousarray(self.coefficients, float), self.step, self.terms(x, y),
            np.ascontiguousarray(column - x, float), np.ascontiguousarray(row - y, float), half,
            radius, start, out,
        )  # fmt: skip
        return Stamps(column, row, half, start, out)

    def sum_within(self, radius: float) -> np.ndarray:
        """Return the light within a radius [pixel] of each of the k terms, shape (k,)."""
        sums = []
        for table in self.coefficients:
            values = PsfModel(table[None], self.step, (0.0, 0.0), 1.0, 0, self.fwhm)
            # The mean over places within a pixel: what an aperture holds hangs on them.
            shift = (np.arange(4) + 0.5) / 4 - 0.5
            dx, dy = (axis.ravel() for axis in np.meshgrid(shift, shift))
            stamp = values.stamps(dx, dy, np.full(dx.size, min(radius, self.reach)))
            sums.append(float(stamp.light.sum()) / dx.size)
        return np.array(sums)

    def hdu(self) -> fits.ImageHDU:
        """Return the model as an extension ``PSF``, for those who fit again."""
        hdu = fits.ImageHDU(self.coefficients.astype(np.float32), name="PSF")
        for key, value, comment in (
            ("PSFSTEP", self.step, "[pixel] distance of the nodes of the cubic B-spline"),
            ("PSFDEG", self.degree, "degree of the polynomials in position"),
            ("PSFX0", self.centre[0] + 1, "[pixel] where these are 0, from 1"),
            ("PSFY0", self.centre[1] + 1, "[pixel] the same"),
            ("PSFSPAN", self.span, "[pixel] unit of the position"),
            ("PSFFWHM", self.fwhm, "[pixel] FWHM of the stars"),
            ("PSFERR", self.error, "relative error of fluxes beyond noise"),
            ("PSFNST", self.n_stars, "stars it was measured on"),
            ("PSFPROF", self.profile_error, "relative error of a pixel of the core"),
        ):
            hdu.header[key] = (value, comment)
        return hdu

    @classmethod
    def from_hdu(cls, hdu: fits.ImageHDU) -> "PsfModel":
        """Return the model of an extension that `hdu` has made."""
        card = hdu.header
        return cls(
            hdu.data.astype(float), float(card["PSFSTEP"]),
            (card["PSFX0"] - 1.0, card["PSFY0"] - 1.0), float(card["PSFSPAN"]),
            int(card["PSFDEG"]), float(card["PSFFWHM"]), float(card["PSFERR"]),
            int(card["PSFNST"]), float(card["PSFPROF"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Stamps:
    """The light of n stars of flux 1 in small squares about them.

    Parameters
    ----------
    column, row : ndarray of int, shape (n,)
        Central pixels.
    half : ndarray of int, shape (n,)
        Half the sides of the squares.
    start : ndarray of int, shape (n + 1,)
        Index in `values` at which each square begins, row after row.
    values : ndarray of float32, shape (3, start[-1])
        Light of a pixel, and its derivatives by x and y of the star.
    """

    column: np.ndarray
    row: np.ndarray
    half: np.ndarray
    start: np.ndarray
    values: np.ndarray

    @property
    def light(self) -> np.ndarray:
        """The light of each pixel."""
        return self.values[0]


def field_terms(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], span: float, degree: int
) -> np.ndarray:
    """Return powers of the coordinates of places in the field; see `PsfModel`.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        [pixel].
    centre : tuple of float
    span : float
    degree : int

    Returns
    -------
    ndarray, shape (n, (degree + 1) (degree + 2) / 2)
    """
    u, v = (np.asarray(x, float) - centre[0]) / span, (np.asarray(y, float) - centre[1]) / span
    powers = [u**i * v**j for d in range(degree + 1) for i, j in _exponents(d)]
    return np.ascontiguousarray(np.stack(powers, axis=-1))


def _exponents(degree: int) -> list[tuple[int, int]]:
    return [(degree - j, j) for j in range(degree + 1)]


def table_grid(fwhm: float) -> tuple[float, int]:
    """Return distance of the nodes [pixel] and half their number, for stars of a FWHM [pixel]."""
    step = min(fwhm / NODES_PER_FWHM, COARSEST_STEP)
    reach = (REACH if fwhm < WIDE_FWHM else 4.0) * fwhm
    return step, int(np.ceil(reach / step)) + 2


def analytic_table(wings: Wings, step: float, half: int) -> np.ndarray:
    """Return the B-spline coefficients of an analytic profile, averaged over the pixels.

    Parameters
    ----------
    wings : Wings
    step : float
        Distance of the nodes [pixel].
    half : int
        The table has 2 half + 1 nodes to a side.

    Returns
    -------
    ndarray, shape (2 half + 1, 2 half + 1)
    """
    from scipy.ndimage import spline_filter

    node = step * np.arange(-half, half + 1)
    points = SUBPIXELS if step < 0.75 else FEW_SUBPIXELS
    inside = (np.arange(points) + 0.5) / points - 0.5
    value = np.zeros((node.size, node.size))
    for dy in inside:
        for dx in inside:
            value += wings.density(node[None, :] + dx, node[:, None] + dy)
    table: np.ndarray = spline_filter(value / points**2, order=3, mode="mirror")
    return table


@compiled("void(f8, f8[::1], f8[::1])")
def _weights(part, value, slope):
    """Fill the four weights of a cubic B-spline, and their derivatives, for a part of a step."""
    q = 1.0 - part
    value[0] = q * q * q / 6
    value[1] = (4 - 6 * part * part + 3 * part * part * part) / 6
    value[2] = (4 - 6 * q * q + 3 * q * q * q) / 6
    value[3] = part * part * part / 6
    slope[0] = -q * q / 2
    slope[1] = (-12 * part + 9 * part * part) / 6
    slope[2] = (12 * q - 9 * q * q) / 6
    slope[3] = part * part / 2


@compiled(
    "void(f8[:,:,::1], f8, f8[:,::1], f8[::1], f8[::1], i8[::1], f8[::1], i8[::1], f4[:,::1])"
)
def _fill_stamps(tables, step, terms, dx, dy, half, radius, start, out):
    """Fill the stamps of stars; `dx`, `dy` lead from each star to its middle pixel."""
    n_terms, m = tables.shape[0], tables.shape[1]
    middle = m // 2
    table = np.empty((m, m))
    line, along = np.empty(m), np.empty(m)
    value, slope = np.empty(4), np.empty(4)
    for star in range(dx.size):
        h = half[star]
        # What of the table is needed.
        need = min(middle, int((h + 1) / step) + 3)
        low, high = middle - need, middle + need + 1
        for j in range(low, high):
            for i in range(low, high):
                total = 0.0
                for k in range(n_terms):
                    total += terms[star, k] * tables[k, j, i]
                table[j, i] = total
        limit = radius[star] * radius[star]
        at = start[star]
        for r in range(-h, h + 1):
            fy = (r + dy[star]) / step + middle
            j0 = int(np.floor(fy))
            if j0 < 1 or j0 > m - 3:
                at += 2 * h + 1
                continue
            _weights(fy - j0, value, slope)
            for i in range(low, high):
                line[i] = 0.0
                along[i] = 0.0
                for k in range(4):
                    line[i] += value[k] * table[j0 - 1 + k, i]
                    along[i] += slope[k] * table[j0 - 1 + k, i]
            for c in range(-h, h + 1):
                away = (r + dy[star]) ** 2 + (c + dx[star]) ** 2
                fx = (c + dx[star]) / step + middle
                i0 = int(np.floor(fx))
                if away <= limit and i0 >= 1 and i0 <= m - 3:
                    _weights(fx - i0, value, slope)
                    light, by_x, by_y = 0.0, 0.0, 0.0
                    for k in range(4):
                        light += value[k] * line[i0 - 1 + k]
                        by_x += slope[k] * line[i0 - 1 + k]
                        by_y += value[k] * along[i0 - 1 + k]
                    out[0, at] = light
                    # The star moves: the pixel goes the other way.
                    out[1, at] = -by_x / step
                    out[2, at] = -by_y / step
                at += 1
