"""The facts of a frame in the night log: typed, and as plain values across process borders.

Rules pass facts to their scripts, and the cache stores them, as plain values from `to_dict`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class _ByName:
    """Access to fields by name, for tables of cards and columns."""

    __slots__ = ()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field; `default` where there is no such field."""
        return getattr(self, name, default)


@dataclass(slots=True)
class Amplifier(_ByName):
    """The pixels of one amplifier in a raw file, and their calibration.

    Parameters
    ----------
    hdu : int
        Index of the HDU in the raw file.
    data, overscan : list of int
        Sections ``[y0, y1, x0, x1]`` of that HDU, 0-based, ends excluded.
    origin : list of int
        Row and column of its first pixel in the joined frame.
    flip : list of bool
        Whether rows and columns are reversed.
    gain : float
        Gain [electron/DN].
    rdnoise : float
        Read noise [electron].
    phases : list of list of int
        Rows and columns, 0 or 1 from the first pixel of `data`, of the pixels in each 2 x 2 cell
        whose mean is a pixel of the frame; empty where every pixel is one.
    """

    hdu: int
    data: list[int]
    overscan: list[int] | None = None
    origin: list[int] = field(default_factory=lambda: [0, 0])
    flip: list[bool] = field(default_factory=lambda: [False, False])
    gain: float = 0.0
    rdnoise: float = 0.0
    phases: list[list[int]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in the joined frame."""
        y0, y1, x0, x1 = self.data
        step = 2 if self.phases else 1
        return (y1 - y0) // step, (x1 - x0) // step


@dataclass(slots=True)
class FrameFacts(_ByName):
    """The facts of one frame: its raw header, interpreted with the file of its instrument.

    Parameters
    ----------
    type : {'bias', 'dark', 'flat', 'object'}
    exptime : float
        Exposure time [s].
    mjd : float
        Start of the exposure [MJD, UTC].
    object, target : str
        OBJECT as written to header cards, and as part of file names.
    filter_text, filter, band : str
        Filter as in the header, as part of file names, and its band in the reference.
    ra, dec : float
        Pointing [deg, ICRS], or None.
    readout : str
        Readout mode.
    saturate, linear : float
        DN at which pixels saturate, and up to which they are linear (None: up to saturation).
    near_infrared : bool
    poserr : float
        Maximum error of the pointing [deg].
    calibrations : dict
        Whether bias, dark and flat are ``required``, ``optional`` or ``none``.
    raw : str
        Name of the raw file.
    frame : str
        Unique name of the frame.
    half : str
        Name of the half of a split detector, or of the chip of a mosaic; else empty.
    amplifiers : list of Amplifier
    shape : list of int
        Rows and columns of the trimmed, joined frame.
    gain, rdnoise : float
        Mean gain [electron/DN] and largest read noise [electron] of the amplifiers.
    wcs : dict
        Cards of the initial WCS, or None.
    pixscale : float
        Pixel scale [arcsec/pixel], or None.
    source : {'sky', 'dome', ''}
        Light source of a flat.
    gain_setting, offset : str
        Camera settings, normalised for comparison; empty where the header lacks them.
    detector : str
        Identifies the detector where the instrument file does not; empty: any.
    unit : {'', 'electron', 'electron/s', 'adu/s'}
        Unit of the raw pixels; empty: DN.
    ra_guessed : bool
        Whether `ra` is a number below 24 assumed to be in degrees for lack of a unit.
    notes : list of str
        Irregularities of the header, and the values used instead.
    content : str
        Identifier of the content of the raw file: different for different bytes.
    site : list of float
        Latitude, longitude (east positive) [deg] and elevation [m] of the telescope, or None.
    longitude : float
        Longitude of the site [deg, east], where only that is known, or None.
    """

    instrument: str
    camera: str
    type: str
    exptime: float
    mjd: float
    date_obs: str
    object: str
    target: str
    ra: float | None
    dec: float | None
    airmass: float | None
    binning: str
    temperature: float | None
    readout: str
    saturate: float
    linear: float | None
    near_infrared: bool
    poserr: float
    calibrations: dict[str, str]
    raw: str = ""
    frame: str = ""
    half: str = ""
    amplifiers: list[Amplifier] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)
    gain: float = 0.0
    rdnoise: float = 0.0
    filter: str = ""
    band: str = ""
    wcs: dict[str, Any] | None = None
    pixscale: float | None = None
    filter_text: str = ""
    source: str = ""
    gain_setting: str = ""
    offset: str = ""
    unit: str = ""
    detector: str = ""
    notes: list[str] = field(default_factory=list)
    ra_guessed: bool = False
    content: str = ""
    site: list[float] | None = None
    longitude: float | None = None

    @property
    def has_pedestal(self) -> bool:
        """Whether an amplifier has no overscan, so that the bias level remains in its pixels."""
        return any(one.overscan is None for one in self.amplifiers)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain values: numbers, texts, lists and dicts."""
        content = {name: getattr(self, name) for name in FIELDS}
        if not self.filter_text:
            del content["filter_text"]
        content["amplifiers"] = [
            {name: getattr(one, name) for name in AMPLIFIER_FIELDS} for one in self.amplifiers
        ]
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "FrameFacts":
        """Return facts from the result of `to_dict`.

        Raises
        ------
        TypeError
            A fact is missing or unknown.
        """
        amplifiers = [Amplifier(**one) for one in content["amplifiers"]]
        return cls(**(dict(content) | {"amplifiers": amplifiers}))


FIELDS = tuple(one.name for one in fields(FrameFacts))

AMPLIFIER_FIELDS = tuple(one.name for one in fields(Amplifier))


def facts_of(contents: Iterable[Mapping[str, Any]]) -> list[FrameFacts]:
    """Return the facts of frames from the plain values that a rule passes to its script."""
    return [FrameFacts.from_dict(content) for content in contents]
