"""The sky surveys whose images serve as templates: their HiPS, and what their pixels hold."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PS1_ASINH = 2.5 * np.log10(np.e)
"""Softening of the magnitudes in which Pan-STARRS1 stores its stacks (Waters et al. 2020)."""


@dataclass(frozen=True)
class ImageSurvey:
    """Images of a survey, served as one HiPS a band.

    Parameters
    ----------
    title : str
    hips : mapping of str to str
        Band to the identifier of its HiPS.
    pixel : float
        Pixel of the survey's images [arcsec]: what a value of the HiPS is the flux of.
    declinations : tuple of float
        South and north end of the survey [deg].
    dates : tuple of str
        First and last day of its exposures: a template may hold what shone then.
    asinh : str
        Bands whose HiPS holds asinh magnitudes instead of fluxes.
    zero_point : float or None
        AB magnitude of a pixel sum of 1; None where the HiPS does not state one.
    unit : str
        Unit of the pixels, if the zero point is known.
    reason : str
        Why there is no zero point.
    """

    title: str
    hips: Mapping[str, str]
    pixel: float
    declinations: tuple[float, float]
    dates: tuple[str, str]
    asinh: str = ""
    zero_point: float | None = None
    unit: str = ""
    reason: str = ""

    def band(self, name: str) -> str | None:
        """Return the survey's band for one of ours, or None where it has none near enough."""
        near = {"R": "r", "I": "i", "Z": "z", "Y": "y"}
        name = name if name in self.hips else near.get(name, "")
        return name if name in self.hips else None


IMAGE_SURVEYS: dict[str, ImageSurvey] = {
    # Chambers et al. (2016): r i z y are stored as the stacks are, in asinh magnitudes, g as
    # fluxes; the zero point, 25 + 2.5 log10(exposure time), is another in each sky cell, and the
    # HiPS has no header of the cells. Dates as the HiPS tell them.
    "ps1": ImageSurvey(
        "Pan-STARRS1 DR1",
        {band: f"CDS/P/PanSTARRS/DR1/{band}" for band in "grizy"},
        pixel=0.25,
        declinations=(-31.0, 90.0),
        dates=("2009-06-17", "2014-08-27"),
        asinh="rizy",
        reason="differs between sky cells, not in the HiPS",
    ),
    # Dey et al. (2019): coadds in nanomaggies. The dates are of all exposures of DR10, not those of
    # DECaLS alone, which the HiPS tells.
    "legacy": ImageSurvey(
        "DESI Legacy Surveys DR10",
        {band: f"CDS/P/DESI-Legacy-Surveys/DR10/{band}" for band in "griz"},
        pixel=0.262,
        declinations=(-90.0, 85.0),
        dates=("2013-01-08", "2021-08-30"),
        zero_point=22.5,
        unit="nanomaggy",
    ),
    # Onken et al. (2024): exposures of different depth, scaled by the maker of the HiPS.
    "skymapper": ImageSurvey(
        "SkyMapper DR4",
        {band: f"CDS/P/Skymapper/DR4/{band}" for band in "gri"},
        pixel=0.497,
        declinations=(-90.0, 28.0),
        dates=("2014-03-01", "2021-09-30"),
        reason="not stated by the HiPS",
    ),
}


def asinh_to_flux(values: np.ndarray, soft: float = 0.5, offset: float = 0.0) -> np.ndarray:
    """Return fluxes from the asinh magnitudes of Pan-STARRS1.

    Parameters
    ----------
    values : ndarray
        Pixel values as stored.
    soft, offset : float
        Cards BSOFTEN and BOFFSET of a stack. A HiPS does not have them: its fluxes are relative.

    Returns
    -------
    ndarray
        offset + 2 soft sinh(values / `PS1_ASINH`).
    """
    return offset + 2.0 * soft * np.sinh(np.asarray(values, float) / PS1_ASINH)
