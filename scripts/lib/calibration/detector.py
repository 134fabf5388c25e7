"""From raw file to one image of the detector: amplifiers joined, overscan subtracted, gain."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import ccdproc
import numpy as np
from astropy import units as u
from astropy.nddata import CCDData

from lib.calibration.overscan import overscan_level, section
from lib.calibration.rawchecksums import check_checksums
from lib.calibration.rawpixels import read_raw
from lib.calibration.saturation import largest, top_plateau, wrapped_cores
from lib.core.stats import mad_std, regular_sample
from lib.frame.file import BAD, NONLINEAR, SATURATED, FrameRejected
from lib.night.facts import Amplifier, FrameFacts

GAIN_UNIT = u.electron / u.adu

GREENS_DIFFER = 0.02
"""[fraction of the level] by which the two greens of a colour matrix differ when that is told."""

NEAR_TOP = 0.9
"""[fraction of saturation] cores can only have wrapped where pixels are brighter."""


@dataclass
class DetectorImage:
    """The image of a detector.

    Parameters
    ----------
    ccd : CCDData of float32 [adu]
        Above the overscan level (above zero where there is none). Flags tell the pixels that are
        not finite, saturated or beyond the linearity limit, as `lib.frame.file.MASK_BITS`.
    pedestal : float
        Maximum overscan level subtracted [adu].
    saturate : float
        Raw value at which pixels saturate [adu], as header and pixels tell.
    notes : list of str
        Remarks on properties found in the pixels but not in the header.
    """

    ccd: CCDData
    pedestal: float = 0.0
    saturate: float = math.inf
    notes: list[str] = field(default_factory=list)


def saturation_of(raw: np.ndarray, top: float, saturate: float) -> tuple[float, list[str]]:
    """Return where an amplifier saturates [adu], and a remark about it.

    Parameters
    ----------
    raw : ndarray, shape (ny, nx)
        Pixels of the raw frame.
    top : float
        The largest of them.
    saturate : float
        Saturation level from header or instrument file.
    """
    plateau = top_plateau(raw, top) if top < saturate else None
    if plateau is None:
        return saturate, []
    top, count = plateau
    told = f"saturation: {count} pixels have the top value {top:.0f} DN, taken for it"
    # A pad of zero bits: 65520 beside 65535 is the same converter.
    return top, [] if top > 0.999 * saturate else [f"{told} instead of {saturate:.0f}"]


def read_amplifier(
    raw: np.ndarray, amplifier: Amplifier, saturate: float, linear: float | None
) -> DetectorImage:
    """Return one amplifier's image: trimmed, flagged, overscan subtracted, turned.

    Parameters
    ----------
    raw : ndarray, shape (ny, nx)
        The whole HDU.
    amplifier : Amplifier
        `data` and `overscan`: sections [y0, y1, x0, x1]; `flip`: whether y and x run backwards.
    saturate, linear : float
        Raw values [adu] at which pixels are SATURATED and NONLINEAR. Where the pixels have a
        plateau below `saturate`, it counts.
    """
    data = section(amplifier.data)
    notes: list[str] = []
    top = largest(raw[data]) if math.isfinite(saturate) else -math.inf
    if math.isfinite(top):
        saturate, notes = saturation_of(raw[data], top, saturate)
    # Trimmed first: the pixels beyond are not needed in what follows.
    ccd = ccdproc.trim_image(CCDData(raw, unit=u.adu)[data], add_keyword=False)
    ccd.data = ccd.data.astype(np.float32)
    flags = np.zeros(ccd.shape, np.uint8)
    flags[~np.isfinite(ccd.data)] |= BAD
    flags[ccd.data >= saturate] |= SATURATED
    if linear:
        flags[ccd.data >= linear] |= NONLINEAR
    wrapped = wrapped_cores(ccd.data, top) if top > NEAR_TOP * min(saturate, 65535) else None
    if wrapped is not None:
        flags[wrapped] |= SATURATED
        notes.append(f"saturation: {wrapped.sum()} pixels of wrapped cores")
    pedestal = 0.0
    if amplifier.overscan:
        level = overscan_level(raw, amplifier.overscan, amplifier.data)
        pedestal = float(np.median(level))
        # One column, or row, of the model stands for the overscan.
        ccd = ccdproc.subtract_overscan(
            ccd,
            overscan=CCDData(level, unit=u.adu),
            overscan_axis=1 if level.shape[1] == 1 else 0,
            add_keyword=False,
        )
    if amplifier.phases:
        notes += odd_greens(ccd.data, amplifier.phases)
        ccd, flags = mean_of_phases(ccd, flags, amplifier.phases)
    flip_y, flip_x = amplifier.flip
    turned = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
    ccd = CCDData(ccd.data[turned], unit=u.adu, flags=flags[turned])
    return DetectorImage(ccd, pedestal, saturate, notes)


def odd_greens(image: np.ndarray, phases: list[list[int]]) -> list[str]:
    """Return a remark where the two green pixels of a Bayer cell differ.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        [adu]
    phases : list of list of int
        Row and column of each in the cell; two of them are green.

    Returns
    -------
    list of str
        A sentence where those differ, and the other two, red and blue, do not: the matrix is
        another, as where rows are stored from the other end than the header says.
    """
    if len(phases) != 2:
        return []
    others = [[y, x] for y in (0, 1) for x in (0, 1) if [y, x] not in phases]
    parts = [[regular_sample(image[y::2, x::2]) for y, x in pair] for pair in (phases, others)]
    green, other = (abs(float(np.median(one) - np.median(two))) for one, two in parts)
    level = abs(float(np.median(parts[0][0])))
    error = 1.25 * mad_std(parts[0][0]) * np.sqrt(2 / parts[0][0].size)
    if not green > max(10 * error, GREENS_DIFFER * level, 3 * other):
        return []
    return [
        f"colour matrix: the green pixels of a cell differ by {green:.4g} DN, those taken for red "
        f"and blue by {other:.4g}: rows or columns begin elsewhere than the header says"
    ]


def mean_of_phases(
    ccd: CCDData, flags: np.ndarray, phases: list[list[int]]
) -> tuple[CCDData, np.ndarray]:
    """Return the mean of some pixels of each cell of 2 x 2, and all their flags.

    Parameters
    ----------
    ccd : CCDData of float32, shape (ny, nx)
    flags : ndarray of uint8, shape (ny, nx)
    phases : list of list of int
        Row and column of each in the cell.
    """
    ny, nx = (length // 2 for length in flags.shape)
    image, joined = np.zeros((ny, nx), np.float32), np.zeros((ny, nx), np.uint8)
    for y, x in phases:
        image += ccd.data[y::2, x::2][:ny, :nx]
        joined |= flags[y::2, x::2][:ny, :nx]
    return CCDData(image / np.float32(len(phases)), unit=ccd.unit), joined


def assemble(
    path: str | Path, facts: FrameFacts, defects: np.ndarray | None = None
) -> DetectorImage:
    """Join a raw frame's amplifiers to one image, each one's overscan subtracted.

    Parameters
    ----------
    path : path-like
        Raw file.
    facts : FrameFacts
        Facts of the frame: `shape`, `amplifiers`, `saturate`, `linear`.
    defects : ndarray of bool, optional
        Pixels that the masters call bad, of shape `facts.shape`. Where these are at the top, no
        star has filled them: they and their neighbours are BAD, not SATURATED.

    Returns
    -------
    DetectorImage
        Image of shape `facts.shape`.

    Raises
    ------
    FrameRejected
        The file holds other pixels than the night log saw, than its checksum says, or none that
        are finite.
    """
    shape = tuple(facts.shape)
    image = np.full(shape, np.nan, np.float32)
    flags = np.zeros(shape, np.uint8)
    joined = DetectorImage(CCDData(image, unit=u.adu, flags=flags), saturate=facts.saturate)
    hdus = {amplifier.hdu for amplifier in facts.amplifiers}
    raws = read_raw(path, hdus)
    joined.notes += check_checksums(path, hdus)
    for amplifier in facts.amplifiers:
        raw = raws[amplifier.hdu]
        part = read_amplifier(raw, amplifier, facts.saturate, facts.linear)
        joined.pedestal = max(joined.pedestal, part.pedestal)
        joined.saturate = min(joined.saturate, part.saturate)
        joined.notes += [note for note in part.notes if note not in joined.notes]
        y, x = amplifier.origin
        place = (slice(y, y + part.ccd.shape[0]), slice(x, x + part.ccd.shape[1]))
        if image[place].shape != part.ccd.shape:
            raise FrameRejected("SHAPE", f"{part.ccd.shape} does not fit {shape} at ({y}, {x})")
        image[place] = part.ccd.data
        flags[place] |= part.ccd.flags
    bad = ~np.isfinite(image)
    if bad.all():
        raise FrameRejected("NO_FINITE_PIXEL", f"0 of {image.size}")
    if bad.any():
        flags[bad] |= BAD
        image[bad] = np.median(image[~bad])
    if defects is not None:
        release_defects(flags, defects)
    flags = fill_holes(grow(flags, SATURATED), SATURATED)
    joined.ccd = CCDData(image, unit=u.adu, flags=flags)
    return joined


def release_defects(flags: np.ndarray, defects: np.ndarray) -> None:
    """Turn SATURATED into BAD, in place, where a defect is at the top in every frame.

    Its neighbours, into which charge may run, are BAD as well. A star that saturates about it
    covers it again as its flag grows.
    """
    stuck = defects & (flags & SATURATED > 0)
    if stuck.any():
        flags[stuck] &= np.uint8(255 - SATURATED)
        beside = grow(stuck.astype(np.uint8), 1)
        flags[beside > 0] |= BAD


def fill_holes(mask: np.ndarray, bit: int) -> np.ndarray:
    """Set `bit` also in enclosed pixels: the core of a saturated star may read low.

    Parameters
    ----------
    mask : ndarray of uint8, shape (ny, nx)
        Changed in place.
    bit : int

    Returns
    -------
    ndarray of uint8, shape (ny, nx)
        `mask`. A hole twice as large as the rim around it, as between two bleeding columns, stays.
    """
    marked = mask & bit > 0
    if not marked.any():
        return mask
    from scipy.ndimage import binary_closing, binary_fill_holes, find_objects, label

    square, gap = np.ones((3, 3), bool), 2
    labels, _ = label(marked, square)
    for number, box in enumerate(find_objects(labels), 1):
        rim = labels[box] == number
        if min(rim.shape) <= 4:
            continue
        # A rim with a gap of a few pixels encloses as well.
        closed = binary_closing(np.pad(rim, gap), square, iterations=gap)[gap:-gap, gap:-gap]
        filled = binary_fill_holes(closed | rim)
        if filled.sum() <= 3 * rim.sum():
            mask[box][filled] |= bit
    return mask


def grow(mask: np.ndarray, bit: int, pixels: int = 1) -> np.ndarray:
    """Set `bit` also in the neighbours (corners too) of the pixels that have it."""
    if not (mask & bit).any():
        return mask
    from scipy.ndimage import binary_dilation

    square = np.ones((3, 3), bool)
    grown = binary_dilation(mask & bit > 0, structure=square, iterations=pixels)
    mask[grown] |= bit
    return mask


def gain_map(facts: FrameFacts) -> u.Quantity:
    """Return the gain of each pixel: one value, or a map where amplifiers differ.

    Parameters
    ----------
    facts : FrameFacts
        `gain`, `shape`, `amplifiers`.

    Returns
    -------
    Quantity of float32 [electron/adu]
    """
    amplifiers = facts.amplifiers
    gains = {amplifier.gain or facts.gain for amplifier in amplifiers}
    if len(gains) == 1:
        return np.float32(gains.pop()) * GAIN_UNIT
    gain = np.empty(tuple(facts.shape), np.float32)
    for amplifier in amplifiers:
        (y, x), (ny, nx) = amplifier.origin, amplifier.size
        gain[y : y + ny, x : x + nx] = amplifier.gain or facts.gain
    return u.Quantity(gain, GAIN_UNIT, copy=False)
