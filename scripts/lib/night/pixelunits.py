"""The unit of raw pixels from BUNIT, where it is not DN."""

import functools
import re

from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import Header, get, text

DN, ELECTRON, ELECTRON_RATE, DN_RATE = "", "electron", "electron/s", "adu/s"
"""Units that are distinguished. Any other is taken to be DN."""

_ELECTRON = r"(photo-?)?(e-?|el|elec|electrons?)"

_DN = r"(adus?|dn|counts?|cts?|data ?numbers?)"

_RATE = r"\s*(/|per)\s*(s|secs?|seconds?)|[\s*.]*(s|secs?|seconds?)\s*(\^|\*\*)?\s*\(?-1\)?"

_PIXEL = r"(\s*(/|per)\s*pix(els?)?|[\s*.]*pix(els?)?\s*(\^|\*\*)?\s*\(?-1\)?)?"

_UNITS = {
    ELECTRON: re.compile(rf"{_ELECTRON}{_PIXEL}", re.IGNORECASE),
    ELECTRON_RATE: re.compile(
        rf"{_ELECTRON}{_PIXEL}({_RATE}){_PIXEL}", re.IGNORECASE
    ),
    DN_RATE: re.compile(rf"{_DN}{_PIXEL}({_RATE}){_PIXEL}", re.IGNORECASE),
}  # fmt: skip


def pixel_unit(header: Header) -> str:
    """Return the unit of a frame's pixels: ``electron``, ``electron/s``, ``adu/s``, or ``''``, DN.

    Parameters
    ----------
    header : mapping
        BUNIT as ``electron``, ``ELECTRONS``, ``e-``, ``e-/s``, ``adu s-1``, ...
    """
    return _unit(text(get(header, "BUNIT")))


@functools.lru_cache(maxsize=256)
def _unit(words: str) -> str:
    words = words.strip("[]() ")
    return next((unit for unit, pattern in _UNITS.items() if pattern.fullmatch(words)), DN)


def electrons_each(unit: str, exptime: float) -> tuple[float, str]:
    """Return the number of electrons for a pixel value of 1, in gains, and a remark.

    Parameters
    ----------
    unit : str
        Unit from `pixel_unit`, other than DN.
    exptime : float
        Exposure time [s].

    Returns
    -------
    factor : float
        Electrons for ``electron`` and ``electron/s``; for ``adu/s`` to be multiplied by the gain.
    note : str

    Raises
    ------
    FrameUnusable
        BAD_UNIT: a rate with zero exposure time.
    """
    if unit == ELECTRON:
        return 1.0, "BUNIT is electron: gain 1 is used"
    if not exptime > 0:
        raise FrameUnusable("BAD_UNIT", f"BUNIT is {unit} in an exposure of {exptime:g} s")
    return exptime, (
        f"BUNIT is {unit}: multiplied by the exposure time; bias and dark are not applied"
    )
