"""Building master frames: each input judged, the good ones combined, both recorded."""

import logging
import mmap
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from lib.core.combination import combine
from lib.core.stats import SAMPLE, mad_std, regular_sample, sigma_clipped_median
from lib.frame.file import BAD, NODATA, Frame, FrameRejected
from lib.night.facts import FrameFacts

log = logging.getLogger("autoproc")

IN_MEMORY = 512e6
"""Bytes of inputs up to which they are kept in memory, not spooled to scratch."""


@dataclass
class Input:
    """One input of a master and what became of it.

    Parameters
    ----------
    name : str
    level : float
        Typical value, in the unit of the input.
    noise : float
        Pixel-to-pixel noise, same unit.
    why : str
        Reason for which it was left out; empty when used.
    """

    name: str
    level: float = np.nan
    noise: float = np.nan
    why: str = ""


class NoGoodInput(FrameRejected):
    """A master cannot be made: too few of its inputs are good.

    Parameters
    ----------
    inputs : list of Input
        The reasons are those of the inputs.
    least : int
        Inputs needed.
    """

    def __init__(self, inputs: Sequence[Input], least: int) -> None:
        self.inputs = inputs
        good = sum(not one.why for one in inputs)
        whys = "; ".join(f"{one.name} {one.why}" for one in inputs if one.why)
        super().__init__("NO_GOOD_INPUT", f"{good} < {least} of {len(inputs)} ({whys})")


def pixel_noise(image: np.ndarray) -> float:
    """Return the pixel-to-pixel noise of an image, from differences of neighbours in a row."""
    # Whole rows of both parities, one of each pair of neighbours.
    every = max(1, image.size // (4 * SAMPLE)) | 1
    even = image.shape[1] // 2 * 2
    rows = image[::every]
    # Clipped, not the median deviation alone: that of whole DN is a whole number.
    _, noise, _ = sigma_clipped_median(rows[:, 1:even:2] - rows[:, :even:2], sigma=5)
    return noise / np.sqrt(2)


def outliers(values: npt.ArrayLike, floor: float, sigma: float = 5.0) -> np.ndarray:
    """Return which values stand apart from their siblings.

    Parameters
    ----------
    values : array_like, shape (n,)
    floor : float
        Deviations below this are never outliers.
    sigma : float

    Returns
    -------
    ndarray of bool, shape (n,)
        All False for fewer than 3 values: of two, either may be right.
    """
    values = np.asarray(values, float)
    if values.size < 3:
        return np.zeros(values.shape, bool)
    deviation = np.abs(values - np.median(values))
    return deviation > max(floor, sigma * mad_std(values))


def block_medians(image: np.ndarray, blocks: int = 8, every: int = 0) -> np.ndarray:
    """Return the medians of `blocks` x `blocks` parts of an image: its large-scale shape.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        NaN where there is no value.
    blocks : int
    every : int
        Distance of the pixels that are looked at [px]; 0: as far apart as 2000 in each part allow.

    Returns
    -------
    ndarray, shape (blocks, blocks)
        NaN where a part has no value.
    """
    # 2000 pixels tell the median of a part to 3 per cent of the noise; an odd distance, so that
    # even and odd rows and columns count alike.
    every = every or max(1, int(np.sqrt(image.size / blocks**2 / 2000))) | 1
    rows, columns = (np.array_split(np.arange(size), blocks) for size in image.shape)
    medians = np.full((blocks, blocks), np.nan)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            if r.size and c.size:
                part = image[r[0] : r[-1] + 1 : every, c[0] : c[-1] + 1 : every]
                part = part[np.isfinite(part)]
                if part.size:
                    medians[i, j] = np.median(part)
    return medians


def judge_siblings(inputs: Sequence[Input], planes: Sequence[np.ndarray]) -> None:
    """Leave out inputs whose level, noise or large-scale shape stands apart from the others'.

    Parameters
    ----------
    inputs : list of Input
        `Input.why` is set.
    planes : list of ndarray
        Images of the inputs.
    """
    noise = np.median([one.noise for one in inputs]) if inputs else 0.0
    for one, apart in zip(inputs, outliers([one.level for one in inputs], noise), strict=True):
        if apart:
            one.why = f"LEVEL: {one.level:.1f} DN apart from its siblings"
    for one, apart in zip(inputs, outliers([one.noise for one in inputs], noise / 2), strict=True):
        if apart and not one.why:
            one.why = f"NOISE: {one.noise:.2f} DN, siblings {noise:.2f}"
    if len(inputs) < 4:
        return
    shapes = shapes_of(planes)
    shapes -= np.nanmedian(shapes, axis=0)
    shapes -= np.nanmedian(shapes, axis=(1, 2), keepdims=True)
    rms = np.sqrt(np.nanmean(shapes**2, axis=(1, 2)))
    for one, value, apart in zip(inputs, rms, outliers(rms, noise / 2), strict=True):
        if apart and value > np.median(rms) and not one.why:
            one.why = f"GRADIENT: {value:.2f} DN, siblings {np.median(rms):.2f}"


def unstable_pixels(
    extent: np.ndarray, expected: float | np.ndarray, count: int, sigma: float = 5.0
) -> np.ndarray:
    """Return the pixels that scatter more between the inputs than noise makes them.

    Parameters
    ----------
    extent : ndarray of float32, shape (ny, nx)
        As from `lib.core.combination.combine`.
    expected : float or ndarray of float32
        Noise of a pixel relative to the usual one's. How large that is tells the extent itself.
    count : int
        Inputs. Fewer than 5 cannot tell a cosmic ray from an unstable pixel.
    sigma : float
        Extent, in units of the expected one, above which a pixel is unstable.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    if count < 5:
        return np.zeros(extent.shape, bool)
    # Of whole DN the median may be 0.
    sample = regular_sample(extent / expected)
    usual = max(np.nanmedian(sample), np.nanmean(sample))
    with np.errstate(invalid="ignore"):
        return extent > sigma * usual * expected


def compare_masters(header: fits.Header, made: Frame, ready: Frame, relative: bool = False) -> None:
    """Write into a master's header by how much it differs from a ready one.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Receives CMPFILE, CMPMED and CMPSTD, or CMPNOTE.
    made : Frame
    ready : Frame
    relative : bool
        Compare the ratio with 1, as for flats.
    """
    if made.image is None or ready.image is None:
        header["CMPNOTE"] = ("no image to compare", "comparison with the ready master")
        return
    if made.image.shape != ready.image.shape:
        header["CMPNOTE"] = (f"shape {ready.image.shape}", "comparison with the ready master")
        return
    good = (made.mask | ready.mask) & (BAD | NODATA) == 0
    if relative:
        good &= ready.image > 0
    first, second = made.image[good], ready.image[good]
    median, std, _ = sigma_clipped_median(first / second - 1 if relative else first - second)
    header["CMPMED"] = (median, "median difference from the ready master")
    header["CMPSTD"] = (std, "its scatter")
    log.info("ready master: differs by %.4g, scatter %.4g", median, std)


def shapes_of(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the `block_medians` of each of many images, one after the other in memory."""
    shapes = []
    for plane in planes:
        shapes.append(block_medians(plane))
        release(plane)
    return np.array(shapes)


@contextmanager
def spool(count: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Give an array (count, ny, nx) of float32: in memory, or in a scratch file if large."""
    if 4.0 * count * np.prod(shape) <= IN_MEMORY:
        yield np.empty((count, *shape), np.float32)
        return
    with tempfile.TemporaryFile() as scratch:
        yield np.memmap(scratch, np.float32, "w+", shape=(count, *shape))


def release(planes: np.ndarray) -> None:
    """Release the memory that holds a scratch file's pages; their content remains."""
    if isinstance(planes, np.memmap):
        planes._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


def combine_inputs(
    names: Sequence[str],
    read: Callable[[int], tuple[np.ndarray, np.ndarray | None]],
    judge: Callable[[Sequence[Input], Sequence[np.ndarray]], None],
    shape: tuple[int, ...],
    *,
    clip: float,
    minimum: int = 1,
) -> tuple[np.ndarray, np.ndarray, list[Input]]:
    """Read, judge and combine the inputs of a master.

    Parameters
    ----------
    names : list of str
    read : callable
        ``read(i)`` gives image (float32, `shape`) and mask of input i, or raises
        `FrameRejected`.
    judge : callable
        ``judge(inputs, planes)`` sets `Input.why` of those to leave out; `planes[i]` is the
        image.
    shape : tuple of int
    clip : float
        See `lib.core.combination.clipped_mean`.
    minimum : int
        Inputs needed.

    Returns
    -------
    mean : ndarray of float32, shape (ny, nx)
    extent : ndarray of float32, shape (ny, nx)
        How far each pixel scatters between the inputs, see `lib.core.combination.clipped_mean`.
    inputs : list of Input

    Raises
    ------
    NoGoodInput
    """
    inputs = [Input(name) for name in names]
    with spool(len(names), shape) as planes:
        for i, one in enumerate(inputs):
            try:
                image, _ = read(i)
            except FrameRejected as why:
                one.why = str(why)
                continue
            one.level = float(np.median(regular_sample(image)))
            one.noise = pixel_noise(image)
            planes[i] = image
            release(planes)
        alive = [one for one in inputs if not one.why]
        judge(alive, [planes[i] for i, one in enumerate(inputs) if not one.why])
        good = [i for i, one in enumerate(inputs) if not one.why]
        for one in inputs:
            log.info("%s level %.5g noise %.4g %s", one.name, one.level, one.noise, one.why)
        if len(good) < minimum:
            raise NoGoodInput(inputs, minimum)
        mean, _, extent = combine(
            [planes[i] for i in good], shape, clip=clip, after=lambda: release(planes)
        )
    return mean, extent, inputs


def master_header(
    kind: str, facts: FrameFacts | Mapping[str, Any], inputs: Sequence[Input], unit: str
) -> fits.Header:
    """Return the header of a master: its configuration, its inputs and those left out.

    Parameters
    ----------
    kind : {'bias', 'dark', 'flat', 'sky'}
    facts : FrameFacts
        The night log's facts of one input.
    inputs : list of Input
    unit : str
        BUNIT.

    Returns
    -------
    astropy.io.fits.Header
    """
    header = fits.Header()
    header["BUNIT"] = unit
    header["IMAGETYP"] = (f"master {kind}", "kind of frame")
    for key, name in (
        ("INSTFILE", "instrument"),
        ("CAMERA", "camera"),
        ("FILTER", "filter"),
        ("BINNING", "binning"),
        ("READOUT", "readout"),
    ):
        if facts.get(name):
            header[key] = str(facts.get(name))[:60]
    used = [one for one in inputs if not one.why]
    header["NCOMBINE"] = (len(used), "inputs combined")
    header["NLEFTOUT"] = (len(inputs) - len(used), "inputs left out")
    for n, one in enumerate(used, 1):
        header[f"INPUT{n}"] = one.name
    for n, one in enumerate((one for one in inputs if one.why), 1):
        header[f"LEFT{n}"] = f"{one.name} {one.why}"[:68]
    return header


def rejected_master(
    kind: str,
    facts: FrameFacts | Mapping[str, Any],
    inputs: Sequence[str | Input],
    why: FrameRejected,
) -> Frame:
    """Return the header-only frame of a master that could not be made.

    Parameters
    ----------
    kind : str
    facts : FrameFacts
    inputs : list of str or list of Input
        Names of the inputs, or `Input` records.
    why : FrameRejected
        Why the master was rejected; its `inputs`, if any, have details.
    """
    known = [
        one if isinstance(one, Input) else Input(one) for one in getattr(why, "inputs", inputs)
    ]
    # No input was used: each has its own reason, or the master's.
    header = master_header(
        kind, facts, [Input(one.name, why=one.why or why.code) for one in known], ""
    )
    header["QCSTAT"] = "REJECTED"
    header["QCSTEP"] = kind
    header["QCREASON"] = str(why)[:68]
    header.add_history(str(why))
    return Frame.without_image(header)
