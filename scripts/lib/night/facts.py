"""What the night log knows of a frame: typed, and as plain values where they cross a border.

Rules hand facts to their scripts, and the cache keeps them, as the plain values of `to_dict`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any


class _ByName:
    """Read access to fields by name, for tables of cards and columns."""

    __slots__ = ()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field; `default` where there is no such field."""
        return getattr(self, name, default)


@dataclass(slots=True)
class Amplifier(_ByName):
    """Where the pixels of one amplifier are, and what they mean.

    Parameters
    ----------
    hdu : int
        Index of its HDU in the raw file.
    data, overscan : list of int
        Sections ``[y0, y1, x0, x1]`` of that HDU, 0-based, ends excluded.
    origin : list of int
        Row and column of its first pixel in the joined frame.
    flip : list of bool
        Whether its rows and columns run backwards.
    gain : float
        Electrons per DN.
    rdnoise : float
        Electrons.
    phases : list of list of int
        Row and column, 0 or 1, of those pixels of each cell of 2 x 2 whose mean is a pixel of the
        frame, from the first of `data` on; empty where each pixel is one.
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
    """What the raw header of one frame says, read with the file of its instrument.

    Parameters
    ----------
    type : {'bias', 'dark', 'flat', 'object'}
    exptime : float
        Seconds.
    mjd : float
        Start of the exposure, UTC.
    object, target : str
        OBJECT as a header card holds it, and as a part of file names.
    filter_text, filter, band : str
        As the header has it, as a part of file names, and in the reference system.
    ra, dec : float
        Pointing [deg], or None.
    readout : str
        Readout mode.
    saturate, linear : float
        DN at which pixels saturate, and to which they are linear (None: up to saturation).
    near_infrared : bool
    poserr : float
        How far the pointing may be off [deg].
    calibrations : dict
        For bias, dark and flat: ``required``, ``optional`` or ``none``.
    raw : str
        Name of the raw file.
    frame : str
        Unique name of the frame.
    half : str
        Which half of a split detector, or chip of a mosaic; else empty.
    amplifiers : list of Amplifier
    shape : list of int
        Rows and columns of the trimmed, joined frame.
    gain, rdnoise : float
        Mean gain [electron/DN] and largest read noise [electron] of the amplifiers.
    wcs : dict
        Cards of the first WCS, or None.
    pixscale : float
        Arcsec per pixel, or None.
    source : {'sky', 'dome', ''}
        What has lit a flat.
    gain_setting, offset : str
        Settings of the camera as they compare; empty where the header does not tell.
    detector : str
        What tells the detector from others that no instrument file tells apart; empty: any.
    unit : {'', 'electron', 'electron/s', 'adu/s'}
        Of the raw pixels; empty: DN.
    ra_guessed : bool
        Whether `ra` is a number below 24 that is taken for degrees as nothing tells its unit.
    notes : list of str
        What the header has that is not as it should be, and what is used instead.
    content : str
        Stands for the bytes of the raw file: other bytes, another text.
    site : list of float
        Latitude, longitude (east positive) [deg] and elevation [m] of the telescope, or None.
    longitude : float
        Of the site, east [deg], where nothing but that is known of it, or None.
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
        """Whether an amplifier has no overscan: the bias level stays in its pixels."""
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
        """Return facts from what `to_dict` gave.

        Raises
        ------
        TypeError
            Where a fact is missing or not known.
        """
        amplifiers = [Amplifier(**one) for one in content["amplifiers"]]
        return cls(**(dict(content) | {"amplifiers": amplifiers}))


FIELDS = tuple(one.name for one in fields(FrameFacts))

AMPLIFIER_FIELDS = tuple(one.name for one in fields(Amplifier))


def facts_of(contents: Iterable[Mapping[str, Any]]) -> list[FrameFacts]:
    """Return the facts of frames from the plain values that a rule hands to its script."""
    return [FrameFacts.from_dict(content) for content in contents]
