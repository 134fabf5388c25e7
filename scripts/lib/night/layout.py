"""The structure of a raw file: chips, and their amplifiers."""

import re
from dataclasses import dataclass, field
from typing import Any

from lib.night.amplifiers import (
    extension_amplifiers,
    listed_amplifiers,
    parse_section,
    section_amplifiers,
    single_amplifier,
)
from lib.night.facts import Amplifier
from lib.night.frameignored import FrameUnusable
from lib.night.headervalues import Header, get, text
from lib.night.rawheaders import RawHDU

CHIP_KEYS = (
    "CCDNAME", "CCDNUM", "CCDCHIP", "CHIPID", "CHIP", "CHIPNAME", "CCDID", "DETPOS",
    "HIERARCH ESO DET CHIP ID", "HIERARCH ESO DET CHIP1 ID",
)  # fmt: skip
"""Keywords of extensions that name their chip; amplifiers of a chip share its name."""

NOT_IMAGES = r"(?i).*(var|dq|err|mask|bpm|weight|wht|unc|stat|catalog|sources|back|sky|exp).*"
"""Names of extensions with information about an image."""

LABEL_LENGTH = 8


@dataclass(frozen=True)
class Chip:
    """The images of one chip in a file.

    Parameters
    ----------
    label : str
        Distinguishes several chips, letters and digits; empty for a single one.
    hdus : list of RawHDU
        Its amplifiers, or its image.
    joined : bool
        Whether each image is an amplifier.
    """

    label: str
    hdus: list[RawHDU] = field(default_factory=list)
    joined: bool = False


def chips_of(camera: dict[str, Any], hdus: list[RawHDU], images: list[RawHDU]) -> list[Chip]:
    """Return the chips of a raw file.

    Parameters
    ----------
    camera : dict
        Camera of an instrument file. `amplifiers` is ``extensions``: all images are amplifiers of
        one detector; ``chips``: each is a chip; ``auto``: as their headers say; otherwise one image
        is used.
    hdus, images : list of RawHDU
        All HDUs, and those with an image.

    Raises
    ------
    FrameUnusable
        The file has no usable image.
    """
    mode = camera.get("amplifiers", "single")
    extensions = [hdu for hdu in images if hdu.index > 0]
    if mode == "extensions":
        return [Chip("", images, joined=True)]
    if mode == "chips" and len(extensions) > 1:
        return _labelled([[hdu] for hdu in _pictures(extensions)])
    if mode == "auto" and len(extensions) > 1 and len(extensions) == len(images):
        found = _told_chips(_pictures(extensions))
        if found:
            return found
    return [Chip("", [chosen_image(camera, hdus, images)])]


def _pictures(extensions: list[RawHDU]) -> list[RawHDU]:
    named = [(hdu, text(get(hdu.header, "EXTNAME"))) for hdu in extensions]
    return [hdu for hdu, name in named if not re.fullmatch(NOT_IMAGES, name)] or extensions[:1]


def _told_chips(pictures: list[RawHDU]) -> list[Chip]:
    """Return the chips and amplifiers described by the headers; none where they describe none."""
    if len(pictures) < 2 or any(len(hdu.shape or []) != 2 for hdu in pictures):
        return []
    placed = all(get(hdu.header, "DETSEC") is not None for hdu in pictures)
    for key in CHIP_KEYS:
        names = [text(get(hdu.header, key)) for hdu in pictures]
        if not all(names):
            continue
        groups: dict[str, list[RawHDU]] = {}
        for name, hdu in zip(names, pictures, strict=True):
            groups.setdefault(name, []).append(hdu)
        if len(groups) > 1 and (placed or len(groups) == len(pictures)):
            return _labelled(list(groups.values()))
        break
    if placed:
        if 0.5 < _covered(pictures) < 1:  # no gaps between the amplifiers of a chip
            return _labelled([[hdu] for hdu in pictures])
        if all(hdu.shape == pictures[0].shape for hdu in pictures):
            return [Chip("", pictures, joined=True)]
        return []
    # Named extensions without detector coordinates are chips. Calibrations have no WCS.
    named = {text(get(hdu.header, "EXTNAME")) for hdu in pictures}
    alike = all(hdu.shape == pictures[0].shape for hdu in pictures)
    if alike and "" not in named and len(named) == len(pictures):
        return _labelled([[hdu] for hdu in pictures])
    return []


def _covered(pictures: list[RawHDU]) -> float:
    """Return the fraction of the area spanned by the extensions' DETSEC that they fill, or 0."""
    told = [parse_section(get(hdu.header, "DETSEC")) for hdu in pictures]
    boxes = [found[0] for found in told if found is not None]
    if len(boxes) < len(pictures):
        return 0.0
    y0, x0 = (min(box[axis] for box in boxes) for axis in (0, 2))
    y1, x1 = (max(box[axis] for box in boxes) for axis in (1, 3))
    return sum((b[1] - b[0]) * (b[3] - b[2]) for b in boxes) / ((y1 - y0) * (x1 - x0))


def images_left_out(camera: dict[str, Any], images: list[RawHDU], chips: list[Chip]) -> int:
    """Return the number of unused images similar to the one used.

    Beside an image chosen by the instrument file, those count whose header mentions a chip.
    """
    if len(chips) > 1 or chips[0].joined:
        return 0
    used = chips[0].hdus[0]
    pictures = _pictures([hdu for hdu in images if hdu.index > 0])
    if "hdu" in camera:
        tells = ("DETSEC", *CHIP_KEYS)
        pictures = [hdu for hdu in pictures if any(get(hdu.header, key) for key in tells)]
    return sum(hdu.shape == used.shape for hdu in pictures if hdu is not used)


def _labelled(groups: list[list[RawHDU]]) -> list[Chip]:
    """Return chips with short labels derived from their names, the same in all frames."""
    for key in ("EXTNAME", *CHIP_KEYS):
        names = [_label(text(get(group[0].header, key))) for group in groups]
        if all(names) and len(set(names)) == len(groups):
            break
    else:
        names = [f"chip{group[0].index}" for group in groups]
    return [
        Chip(name, group, joined=len(group) > 1) for name, group in zip(names, groups, strict=True)
    ]


def _label(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", name)[-LABEL_LENGTH:]


def chosen_image(camera: dict[str, Any], hdus: list[RawHDU], images: list[RawHDU]) -> RawHDU:
    """Return the image HDU of a frame with one image.

    fpack moves a primary image into the first extension, hence the offset.

    Raises
    ------
    FrameUnusable
        NO_IMAGE: the HDU named by the instrument file has no image.
    """
    if "hdu" not in camera:
        for hdu in images:
            if text(get(hdu.header, "EXTNAME")) == "SCI":
                return hdu
        return images[0]
    wanted = camera["hdu"]
    packed = len(hdus) > 1 and hdus[1].packed_primary
    index = wanted + 1 if packed and not hdus[0].shape else wanted
    for hdu in images:
        if hdu.index == index:
            return hdu
    if wanted == 0 and len(images) == 1:  # compressed by a program other than fpack
        return images[0]
    raise FrameUnusable("NO_IMAGE", f"no image in HDU {wanted}")


def chip_amplifiers(
    camera: dict[str, Any],
    half: dict[str, Any] | None,
    chip: Chip,
    headers: dict[int, Header],
    binning: str,
) -> tuple[list[Amplifier], list[int]]:
    """Return the amplifiers of a chip, or of a half of it, and the shape of their joined frame.

    Parameters
    ----------
    camera : dict
    half : dict or None
        Entry of `halves`.
    chip : Chip
    headers : dict of int to mapping
        Headers by index of the HDU, including the keywords of the primary header.
    binning : str

    Raises
    ------
    FrameUnusable
    """
    if chip.joined:
        return extension_amplifiers(chip.hdus, headers, binning)
    hdu = chip.hdus[0]
    header, mode = headers[hdu.index], camera.get("amplifiers", "single")
    found = None
    if isinstance(mode, list):
        found = listed_amplifiers(camera, header, hdu, binning)
    elif mode in ("auto", "chips", "sections") and half is None:
        found = section_amplifiers(header, hdu)
    if found is not None:
        return found
    if chip.label and get(header, "DETSEC") is not None:
        try:
            return extension_amplifiers([hdu], headers, binning)
        except FrameUnusable:
            pass  # its sections are read as for any image
    only = single_amplifier(camera, half, header, hdu, binning)
    y0, y1, x0, x1 = only.data
    return [only], [y1 - y0, x1 - x0]


def mosaic_refpix(
    chip: Chip, chips: list[Chip], headers: dict[int, Header], binning: str
) -> list[float] | None:
    """Return the centre of a mosaic in pixels of the first image of a chip (1-based).

    Parameters
    ----------
    chip : Chip
        The chip.
    chips : list of Chip
        All chips of the file.
    headers : dict of int to mapping
    binning : str

    Returns
    -------
    list of float, or None
        None where there is a single chip, or not all have a DETSEC.
    """
    if len(chips) < 2:
        return None
    sections = {
        hdu.index: parse_section(get(headers[hdu.index], "DETSEC"))
        for one in chips
        for hdu in one.hdus
    }
    known = [found for found in sections.values() if found is not None]
    if len(known) < len(sections):
        return None
    own = sections[chip.hdus[0].index]
    assert own is not None
    told = parse_section(get(headers[chip.hdus[0].index], "DATASEC"))
    start = [told[0][2], told[0][0]] if told else [0, 0]
    size = [told[0][3] - told[0][2], told[0][1] - told[0][0]] if told else []
    size = size or list(reversed(chip.hdus[0].shape or [1, 1]))
    refpix = []
    for axis, (low, high) in enumerate(((2, 3), (0, 1))):
        middle = (min(box[low] for box, _ in known) + max(box[high] for box, _ in known)) / 2
        box, flip = own
        step = (box[high] - box[low]) / size[axis]
        offset = (box[high] - middle if flip[1 - axis] else middle - box[low]) / step
        refpix.append(start[axis] + offset + 0.5)
    return refpix
