"""Which instrument a file belongs to that no instrument file claims: that of its siblings.

Calibrations often lack the keywords by which the science frames of the same camera are told
(a dome flat is taken without the telescope's computer, its TELESCOP is blank)."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.night.headervalues import evaluate, get, keywords_of, parse_binning, safe_name, text
from lib.night.instrumentfile import instrument_path
from lib.night.instrumentsource import read_source
from lib.night.rawheaders import RawHeaders

OTHER_WORDS = ("TELESCOP", "OBSERVAT", "DETECTOR", "DETNAM", "DETID", "CAMERA", "SERNO")
"""Keywords that name camera or telescope where INSTRUME does not."""

FIRST_OF_CAMERA = 2
"""The first of them that is the camera's, not the telescope's."""

SLACK = 0.06
"""Part of the detector's length by which overscan and windows change that of a binned frame."""


@dataclass(frozen=True)
class Likeness:
    """What frames of one camera have in common, as plain values for the cache.

    Parameters
    ----------
    layout : int
        Number of images in the file.
    size : tuple of int
        Rows and columns of the first image, in unbinned pixels.
    instrume : str
        INSTRUME in lower case; empty where the header does not tell.
    others : tuple of str
        The same for `OTHER_WORDS`.
    """

    layout: int
    size: tuple[int, ...]
    instrume: str
    others: tuple[str, ...]

    def to_list(self) -> list[Any]:
        """Return the likeness as a list that JSON holds."""
        return [self.layout, list(self.size), self.instrume, list(self.others)]

    @classmethod
    def from_list(cls, content: list[Any]) -> "Likeness":
        """Return the likeness from what `to_list` gave."""
        layout, size, instrume, others = content
        return cls(layout, tuple(size), instrume, tuple(others))


def likeness(headers: RawHeaders) -> Likeness | None:
    """Return what a file has in common with others of its camera; None where it has no image.

    Parameters
    ----------
    headers : RawHeaders
    """
    images = [hdu for hdu in headers.hdus if hdu.shape]
    if not images:
        return None
    first = images[0]
    keywords = _keywords()
    values = list(map(headers.primary.get, keywords))
    if first.index:
        values = [
            first.header.get(key) if value is None or value == "" else value
            for key, value in zip(keywords, values, strict=True)
        ]
    return _likeness(len(images), tuple(first.shape or ()), tuple(values))


@functools.lru_cache(maxsize=1)
def _binning() -> list[Any]:
    """Return where any header may have its binning; the rest of that file is read when needed."""
    spec: list[Any] = read_source(instrument_path("generic")).content["binning"]
    return spec


@functools.lru_cache(maxsize=1)
def _keywords() -> list[str]:
    """Return the keywords that make a likeness: of the camera, and those of the binning."""
    words = keywords_of(_binning())
    return ["INSTRUME", *OTHER_WORDS, *(word.removeprefix("HIERARCH ") for word in words)]


@functools.lru_cache(maxsize=4096, typed=True)
def _likeness(layout: int, shape: tuple[int, ...], values: tuple[Any, ...]) -> Likeness:
    """Return the likeness of values: those of a night are nearly always the same."""
    header = dict(zip(_keywords(), values, strict=True))
    told = (parse_binning(evaluate(one, header)) for one in _binning())
    bin_x, bin_y = (int(part) for part in next(filter(None, told), "1x1").split("x"))
    rows, columns = shape[-2:] if len(shape) > 1 else (0, 0)
    words = [text(get(header, key)).lower() for key in ("INSTRUME", *OTHER_WORDS)]
    return Likeness(layout, (rows * bin_y, columns * bin_x), words[0], tuple(words[1:]))


def are_siblings(one: Likeness, other: Likeness) -> bool:
    """Return whether two files may be of the same camera.

    The layout is the same, the detector's size too, and the words that both have agree:
    INSTRUME where both have it (one may be longer), else none of the others may differ.
    """
    if one.layout != other.layout:
        return False
    for length, wanted in zip(one.size, other.size, strict=True):
        if abs(length - wanted) > SLACK * max(length, wanted):
            return False
    if one.instrume and other.instrume:
        return one.instrume.startswith(other.instrume) or other.instrume.startswith(one.instrume)
    return all(not a or not b or a == b for a, b in zip(one.others, other.others, strict=True))


def adopt(
    unclaimed: Mapping[str, Likeness], claimed: Iterable[tuple[str, Likeness]]
) -> dict[str, str]:
    """Return the instrument that each file joins which no instrument file claims.

    Parameters
    ----------
    unclaimed : mapping of str to Likeness
        Keyed by file name.
    claimed : iterable of (str, Likeness)
        Instruments of the other files of the folder.

    Returns
    -------
    dict of str to str
        File -> instrument; files that are like none, or like two instruments, are not in it.
    """
    known = set(claimed)
    cache: dict[Likeness, str] = {}
    result = {}
    for name, one in unclaimed.items():
        if one not in cache:
            ranks = [
                (_closeness(one, other), instrument)
                for instrument, other in known
                if are_siblings(one, other)
            ]
            nearest = {found for rank, found in ranks if rank == max(ranks)[0]}
            cache[one] = nearest.pop() if len(nearest) == 1 else ""
        if cache[one]:
            result[name] = cache[one]
    return result


def _closeness(one: Likeness, other: Likeness) -> tuple[int, int, bool]:
    """Return how much of two siblings is known to agree: INSTRUME, other words, size."""
    words = sum(a == b != "" for a, b in zip(one.others, other.others, strict=True))
    same = 2 if one.instrume == other.instrume != "" else int(bool(one.instrume and other.instrume))
    return same, words, one.size == other.size


def tell_detectors(alike: Mapping[str, Likeness]) -> dict[str, str]:
    """Return a name of the detector of each file where they are of several.

    INSTRUME, or another word that names camera or detector, tells two of them apart where both
    files have it.

    Parameters
    ----------
    alike : mapping of str to Likeness
        Keyed by file; all are of one instrument.

    Returns
    -------
    dict of str to str
        File -> part of a file name; empty where the header fits several. No entries where all
        files may be of one detector.
    """
    words = {one: (one.instrume, *one.others[FIRST_OF_CAMERA:]) for one in set(alike.values())}
    # The most telling first; those that fit one of them only are the same.
    ordered = sorted(set(words.values()), key=lambda told: (-sum(map(bool, told)), told))
    detectors: list[tuple[str, ...]] = []
    for told in ordered:
        if not any(_one_camera(told, other) for other in detectors):
            detectors.append(told)
    if len(detectors) < 2:
        return {}
    names: dict[tuple[str, ...], str] = {}
    for told in sorted(detectors):
        first = next((word for word in told if word), "")
        own = [word for k, word in enumerate(told) if word and len({d[k] for d in detectors}) > 1]
        name = base = safe_name((own or [first])[0], replacement="-")[:24].strip("-") or "camera"
        while name in names.values():
            name = f"{base}-{len(names) + 1}"
        names[told] = name
    result = {}
    for file, one in alike.items():
        fits = [told for told in detectors if _one_camera(words[one], told)]
        result[file] = names[fits[0]] if len(fits) == 1 else ""
    return result


def _one_camera(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether no word that both have differs; one may be longer."""
    return all(
        not a or not b or a.startswith(b) or b.startswith(a)
        for a, b in zip(one, other, strict=True)
    )
