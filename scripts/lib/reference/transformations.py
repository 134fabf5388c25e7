"""Published relations between the bands, and the magnitudes that they give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from lib.core.bands import AB_MINUS_VEGA, BANDS
from lib.reference.photometry import set_band

Bands = Mapping[str, np.ndarray]
"""Values [mag] of each star, by band."""


@dataclass(frozen=True)
class Transformation:
    """A published relation: band = base + polynomial in (blue - red), with its scatter.

    `vega` names the bands of the relation that the paper has in the Vega system; their
    magnitudes are turned to AB with `AB_MINUS_VEGA`.

    Parameters
    ----------
    band, base, blue, red : str
    coefficients : tuple of float
        Coefficients of the polynomial, the constant first [mag].
    scatter : float
        [mag]
    valid : tuple of float
        Range of colours [mag].
    source : str
        The paper.
    vega : tuple of str
    """

    band: str
    base: str
    blue: str
    red: str
    coefficients: tuple[float, ...]
    scatter: float
    valid: tuple[float, float]
    source: str
    vega: tuple[str, ...] = ()

    def apply(self, magnitudes: Bands, errors: Bands) -> tuple[np.ndarray, np.ndarray]:
        """Return magnitude and error of `band`, AB.

        Parameters
        ----------
        magnitudes, errors : mapping of band to ndarray
            AB magnitudes (Vega for J H K) and their errors.
        """
        m = {b: magnitudes[b] - self._offset(b) for b in (self.base, self.blue, self.red)}
        colour = m[self.blue] - m[self.red]
        value = m[self.base] + sum(a * colour**k for k, a in enumerate(self.coefficients))
        slope: Any = sum(k * a * colour ** (k - 1) for k, a in enumerate(self.coefficients) if k)
        # base may be one of the two bands of the colour, so gather the derivative by band
        derivative: dict[str, Any] = {}
        for name, factor in ((self.base, 1.0), (self.blue, slope), (self.red, -slope)):
            derivative[name] = derivative.get(name, 0.0) + factor
        variance: Any = self.scatter**2
        for name, factor in derivative.items():
            variance = variance + (factor * errors[name]) ** 2
        outside = ~((colour >= self.valid[0]) & (colour <= self.valid[1]))
        return np.where(outside, np.nan, value + self._offset(self.band)), np.sqrt(variance)

    def _offset(self, band: str) -> float:
        return AB_MINUS_VEGA[band] if band in self.vega else 0.0


# The colours are bounded to where the relations are good for normal stars: beyond g-r of 1.3
# the M dwarfs share one g-r whatever their other colours.
_DWARFS = (-0.5, 1.3)


_TONRY = "Tonry et al. 2012"


_LUPTON = "Lupton 2005"


_JESTER = "Jester et al. 2005"


_GAIA = "Riello et al. 2021"


PS1_TO_REFERENCE = (
    Transformation("g", "g", "g", "r", (0.013, 0.145, 0.019), 0.008, _DWARFS, _TONRY),
    Transformation("r", "r", "g", "r", (-0.001, 0.004, 0.007), 0.004, _DWARFS, _TONRY),
    Transformation("i", "i", "g", "r", (-0.005, 0.011, 0.010), 0.004, _DWARFS, _TONRY),
    Transformation("z", "z", "g", "r", (0.013, -0.039, -0.012), 0.010, _DWARFS, _TONRY),
    Transformation("B", "g", "g", "r", (0.212, 0.556, 0.034), 0.032, _DWARFS, _TONRY, ("B",)),
    Transformation("V", "r", "g", "r", (0.005, 0.462, 0.013), 0.012, _DWARFS, _TONRY, ("V",)),
    Transformation("R", "r", "g", "r", (-0.137, -0.108, -0.029), 0.015, _DWARFS, _TONRY, ("R",)),
    Transformation("I", "i", "g", "r", (-0.366, -0.136, -0.018), 0.017, _DWARFS, _TONRY, ("I",)),
)
"""From Pan-STARRS magnitudes (Tonry et al. 2012, ApJ 750, 99, table 6); y needs none."""


GAIA_TO_REFERENCE = (
    Transformation("g", "G", "BP", "RP", (-0.2199, 0.6365, 0.1548, -0.0064), 0.0745, (0.3, 3.0),
                   _GAIA),
    Transformation("r", "G", "BP", "RP", (0.09837, -0.08592, -0.1907, 0.1701, -0.02263), 0.0378,
                   (0.0, 3.0), _GAIA),
    Transformation("i", "G", "BP", "RP", (0.293, -0.6404, 0.09609, 0.002104), 0.0409, (0.5, 2.0),
                   _GAIA),
    Transformation("V", "G", "BP", "RP", (0.02704, -0.01424, 0.2156, -0.01426), 0.0302,
                   (-0.5, 3.0), _GAIA, ("V",)),
    Transformation("R", "G", "BP", "RP", (0.02275, -0.3961, 0.1243, 0.01396, -0.003775), 0.0317,
                   (0.0, 3.0), _GAIA, ("R",)),
    Transformation("I", "G", "BP", "RP", (-0.01753, -0.76, 0.0991), 0.0377, (-0.5, 3.0), _GAIA,
                   ("I",)),
)  # fmt: skip
"""From Gaia's G, BP, RP (Gaia DR3 documentation, section 5.5.1, Carrasco & Bellazzini; the same in
Riello et al. 2021, A&A 649, A3, appendix C)."""


TRANSFORMATIONS = (
    Transformation("B", "g", "g", "r", (0.2271, 0.3130), 0.0107, _DWARFS, _LUPTON, ("B",)),
    Transformation("V", "g", "g", "r", (-0.0038, -0.5784), 0.0054, _DWARFS, _LUPTON, ("V",)),
    Transformation("R", "r", "r", "i", (-0.1439, -0.2936), 0.0072, (-0.5, 1.5), _LUPTON, ("R",)),
    Transformation("R", "r", "g", "r", (-0.0971, -0.1837), 0.0106, _DWARFS, _LUPTON, ("R",)),
    Transformation("I", "r", "r", "i", (-0.3820, -1.2444), 0.0078, (-0.5, 1.5), _LUPTON, ("I",)),
    Transformation("I", "i", "i", "z", (-0.3974, -0.3780), 0.0063, (-0.5, 1.0), _LUPTON, ("I",)),
    Transformation("g", "V", "B", "V", (-0.12, 0.60), 0.02, (-0.3, 1.5), _JESTER, ("B", "V")),
    Transformation("r", "V", "B", "V", (0.11, -0.42), 0.03, (-0.3, 1.5), _JESTER, ("B", "V")),
    Transformation("i", "r", "R", "I", (0.20, -0.91), 0.03, (-0.3, 1.15), _JESTER, ("R", "I")),
    Transformation("z", "r", "R", "I", (0.41, -1.72), 0.03, (-0.3, 1.15), _JESTER, ("R", "I")),
    Transformation("y", "z", "g", "r", (0.031, -0.106, 0.011), 0.023, _DWARFS, _TONRY),
)
"""Between bands of the reference itself, tried in this order: Lupton (2005) as given on the
SDSS pages, Jester et al. (2005, AJ 130, 873, table 1), Tonry et al. (2012)."""


def transform(
    relations: Sequence[Transformation], magnitudes: Bands, errors: Bands
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the magnitudes that `relations` give, the first that is known for each star.

    Parameters
    ----------
    relations : sequence of Transformation
    magnitudes, errors : mapping of band to ndarray

    Returns
    -------
    dict of band to (magnitude, error) ndarrays
    """
    result: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for relation in relations:
        if not {relation.base, relation.blue, relation.red} <= set(magnitudes):
            continue
        value, error = relation.apply(magnitudes, errors)
        if relation.band in result:
            before, error_before = result[relation.band]
            use = np.isnan(before)
            value, error = np.where(use, value, before), np.where(use, error, error_before)
        result[relation.band] = (value, error)
    return result


def fill_by_transformation(
    table: Table, max_error: float = 0.15, bands: Sequence[str] = BANDS
) -> dict[str, int]:
    """Fill bands in place, where only neighbouring ones are measured, by `TRANSFORMATIONS`.

    Only measured magnitudes are put into a relation, never ones that another relation gave.

    Parameters
    ----------
    table : astropy.table.Table
    max_error : float
        Magnitudes less certain than this [mag] are not taken.
    bands : sequence of str
        Bands to be completed.

    Returns
    -------
    dict
        Number of magnitudes filled in each band.
    """
    magnitudes = {band: np.array(table[band], float) for band in BANDS}
    errors = {band: np.array(table[f"{band}_err"], float) for band in BANDS}
    rows = np.arange(len(table))
    filled: dict[str, int] = {}
    for relation in TRANSFORMATIONS:
        if relation.band not in bands:
            continue
        value, error = relation.apply(magnitudes, errors)
        value[~(error <= max_error)] = np.nan
        source = f"{relation.source} from {relation.base}, {relation.blue}-{relation.red}"
        count = set_band(table, relation.band, rows, value, error, source)
        filled[relation.band] = filled.get(relation.band, 0) + count
    return filled
