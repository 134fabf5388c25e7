"""Magnitudes of a reference from other catalogues, joined by position."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from lib.core.bands import BANDS
from lib.core.stats import mad_std
from lib.reference.epochs import match_at_epoch


def set_band(
    table: Table,
    band: str,
    rows: np.ndarray,
    magnitude: np.ndarray,
    error: np.ndarray,
    source: str,
) -> int:
    """Fill a band of `table` in place where it is still empty.

    Parameters
    ----------
    table : astropy.table.Table
    band : str
    rows : ndarray of int
        Rows the values belong to.
    magnitude, error : ndarray
        [mag]; NaN fills nothing.
    source : str
        Written to ``<band>_src``.

    Returns
    -------
    int
        Number of magnitudes filled.
    """
    name = f"{band}_src"
    if name not in table.colnames:
        table[name] = np.full(len(table), "", dtype="U40")
    empty = np.isnan(table[band][rows]) & np.isfinite(magnitude) & np.isfinite(error)
    rows = rows[empty]
    table[band][rows] = np.asarray(magnitude)[empty]
    table[f"{band}_err"][rows] = np.asarray(error)[empty]
    table[name][rows] = source
    return len(rows)


def join_photometry(
    table: Table,
    photometry: Table,
    source: str,
    *,
    radius: float = 1.0,
    bands: Sequence[str] = BANDS,
    max_error: float = 0.15,
) -> dict[str, int]:
    """Fill the empty magnitudes of a reference table from another catalogue, by position.

    The reference is moved to the epoch of the other catalogue before matching, so fast stars
    are found too. A magnitude that is already there is kept: join the best catalogue first.

    Parameters
    ----------
    table : astropy.table.Table
        Changed in place.
    photometry : astropy.table.Table
        ra, dec [deg], epoch [yr] and any of the bands with errors.
    source : str
        Written to ``<band>_src``.
    radius : float
        [arcsec]
    bands : sequence of str
    max_error : float
        Magnitudes less certain than this [mag] are not taken.

    Returns
    -------
    dict
        Number of magnitudes filled in each band.
    """
    rows, others = match_at_epoch(table, photometry, radius)
    filled = {}
    for band in bands:
        if band not in photometry.colnames or not np.isfinite(photometry[band]).any():
            continue
        magnitude = np.asarray(photometry[band])[others]
        error = np.asarray(photometry[f"{band}_err"])[others]
        good = error <= max_error
        filled[band] = set_band(table, band, rows[good], magnitude[good], error[good], source)
    return filled


class ColourFit(NamedTuple):
    """A line in colour from one photometric system to another.

    Parameters
    ----------
    offset : float
        Value at colour zero [mag].
    slope : float
    scatter : float
        [mag]
    number : int
        Stars fitted.
    """

    offset: float
    slope: float
    scatter: float
    number: int


def tie_to_reference(
    table: Table,
    photometry: Table,
    band: str,
    blue: str,
    red: str,
    *,
    radius: float = 1.0,
    min_stars: int = 8,
) -> ColourFit | None:
    """Bring a survey's band onto the reference with the stars of the field that have both.

    A line in the survey's own colour is fitted robustly to (reference - survey), because no
    published relation covers the band.

    Parameters
    ----------
    table, photometry : astropy.table.Table
        `photometry` is changed in place; its errors take in the scatter of the fit.
    band, blue, red : str
        Band to tie, and the bands of the colour, in `photometry`.
    radius : float
        [arcsec]
    min_stars : int
        Common stars needed.

    Returns
    -------
    ColourFit or None
        None where too few stars are common: the band of `photometry` is then set to NaN.
    """
    rows, others = match_at_epoch(table, photometry, radius)
    colour_all = np.asarray(photometry[blue]) - np.asarray(photometry[red])
    difference = np.asarray(table[band])[rows] - np.asarray(photometry[band])[others]
    colour = colour_all[others]
    good = np.isfinite(difference) & np.isfinite(colour)
    for _ in range(5):
        if good.sum() < min_stars:
            photometry[band] = np.nan
            return None
        slope, offset = np.polyfit(colour[good], difference[good], 1)
        residual = difference - (offset + slope * colour)
        scatter = max(float(mad_std(residual[good])), 0.003)
        good = np.abs(residual) < 3.5 * scatter
    low, high = colour[good].min(), colour[good].max()
    value = np.asarray(photometry[band]) + offset + slope * colour_all
    # no further than the colours that were fitted
    value[~((colour_all >= low - 0.1) & (colour_all <= high + 0.1))] = np.nan
    photometry[band] = value
    photometry[f"{band}_err"] = np.hypot(photometry[f"{band}_err"], scatter)
    return ColourFit(float(offset), float(slope), scatter, int(good.sum()))
