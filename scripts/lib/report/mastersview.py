"""Content of the page about masters, and about frames that lack one."""

from dataclasses import dataclass
from pathlib import Path

from lib.frame.file import read_frame
from lib.night.nightlog import NightLog
from lib.report import pictures
from lib.report.links import Link, existing
from lib.report.numbers import is_number, number
from lib.report.outcomes import NightOutcome
from lib.report.sizes import Sizes

NUMBERS = (
    ("RDNOISE1", "read noise", 2, " DN"),
    ("NOISE", "pixel scatter", 4, ""),
    ("NHOT", "hot pixels", 0, ""),
    ("NLOW", "pixels of low response", 0, ""),
    ("NFILLED", "pixels filled", 0, ""),
)
"""Cards of a master shown on the page: key, label, digits, unit."""


@dataclass(frozen=True)
class Named:
    """A frame or master, and why it was left out or does not match."""

    name: str
    why: str


@dataclass(frozen=True)
class MasterView:
    """A master on the page.

    Parameters
    ----------
    used : int
        Number of frames in it.
    left : list of Named
        Frames left out of it.
    numbers : list of tuple of str
        Label and value.
    picture : str
        Data URI; '' where there is none.
    links : list of Link
        Links to its file.
    """

    name: str
    status: str
    reason: str
    used: int
    left: list[Named]
    numbers: list[tuple[str, str]]
    picture: str
    links: list[Link]


@dataclass(frozen=True)
class Mismatch:
    """Science frames that lack a calibration for the same reason, and the candidates."""

    kind: str
    frames: list[str]
    reason: str
    candidates: list[Named]


def _named(text: str, separator: str) -> Named:
    name, _, why = text.partition(separator)
    return Named(name, why)


def show_masters(result: NightOutcome, imdir: Path, sizes: Sizes) -> list[MasterView]:
    """Make the content of the page about the masters."""
    shown = []
    for name, cards in result.masters.items():
        picture = ""
        frame = read_frame(imdir / f"{name}.fits")
        if frame.image is not None:
            factor = pictures.block_factor(frame.image.shape, sizes.master)
            picture = pictures.encode(
                pictures.linear_grey(pictures.block_mean(frame.image, factor)), 60
            )
        shown.append(
            MasterView(
                name,
                status=cards.get("QCSTAT", "OK"),
                reason=cards.get("QCREASON", ""),
                used=len(cards.get("INPUT", ())),
                left=[_named(text, " ") for text in cards.get("LEFT", ())],
                numbers=[
                    (words, number(cards.get(key), digits, unit))
                    for key, words, digits, unit in NUMBERS
                    if is_number(cards.get(key))
                ],
                picture=picture,
                links=existing(imdir, [("file", f"{name}.fits")]),
            )
        )
    return shown


def calibration_mismatches(night: NightLog) -> list[Mismatch]:
    """Return the science frames that lack a calibration, and why no candidate matches."""
    found: dict[tuple[str, str], list[str]] = {}
    for frame in night.science:
        for kind, note in night.match(frame).notes.items():
            found.setdefault((kind, note), []).append(frame)
    shown = []
    for (kind, note), frames in found.items():
        reason, *candidates = note.split("; ")
        shown.append(Mismatch(kind, frames, reason, [_named(text, ": ") for text in candidates]))
    return shown
