"""Celestial coordinates of an image, by astropy.wcs."""

from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

WCS_KEYS = ("CTYPE", "CUNIT", "CRVAL", "CRPIX", "CDELT", "CROTA", "CD", "PC", "PV", "LONPOLE",
            "LATPOLE", "RADESYS", "EQUINOX")  # fmt: skip


def wcs_cards(header: fits.Header) -> fits.Header:
    """Return the cards of a header that make its celestial coordinates, and nothing else."""
    cards: dict[str, Any] = {}
    for card in header.cards:
        if card.keyword.rstrip("0123456789_") in WCS_KEYS:
            cards.setdefault(card.keyword, card)
    return fits.Header(cards.values())


def celestial_wcs(header: fits.Header) -> WCS:
    """Return the celestial WCS of a frame's header, with its image size."""
    wcs = WCS(wcs_cards(header), naxis=2)
    if "NAXIS1" in header and "NAXIS2" in header:
        wcs.pixel_shape = (header["NAXIS1"], header["NAXIS2"])
    return wcs


def pixel_scale(wcs: WCS) -> float:
    """Return the pixel scale of a WCS at its reference point [arcsec per pixel]."""
    return 3600.0 * float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))


def frame_outline(wcs: WCS, points: int = 9) -> np.ndarray:
    """Return positions [deg] along the edge of a frame.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        It must know the size of the image, as that of `celestial_wcs` does.
    points : int
        Number of points on each side.

    Returns
    -------
    ndarray, shape (4 points, 2)
    """
    nx, ny = wcs.pixel_shape
    t = np.linspace(0, 1, points)
    x = np.concatenate([t, np.ones(points), t[::-1], np.zeros(points)]) * nx - 0.5
    y = np.concatenate([np.zeros(points), t, np.ones(points), t[::-1]]) * ny - 0.5
    return np.column_stack(wcs.all_pix2world(x, y, 0))
