"""Building master frames: each input judged, the good ones combined, both recorded."""

import logging
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from astropy.io import fits

from lib.frames import Frame, FrameRejected
from lib.stats import combine, mad_std, sigma_clipped_median

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


def pixel_noise(image):
    """Return the pixel-to-pixel noise of an image, from differences of neighbours in a row."""
    even = image.shape[1] // 2 * 2
    # Clipped, not the median deviation alone: that of whole DN is a whole number.
    _, noise, _ = sigma_clipped_median(image[:, 1:even:2] - image[:, :even:2], sigma=5)
    return noise / np.sqrt(2)


def outliers(values, floor, sigma=5.0):
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
        All False for fewer than 3 values: two cannot tell which of them is right.
    """
    values = np.asarray(values, float)
    if values.size < 3:
        return np.zeros(values.shape, bool)
    deviation = np.abs(values - np.median(values))
    return deviation > max(floor, sigma * mad_std(values))


def block_medians(image, blocks=8):
    """Return the medians of `blocks` x `blocks` parts of an image: its large-scale shape."""
    rows = np.array_split(np.arange(image.shape[0]), blocks)
    columns = np.array_split(np.arange(image.shape[1]), blocks)
    return np.array(
        [
            [np.median(image[r[0] : r[-1] + 1, c[0] : c[-1] + 1]) for c in columns]
            for r in rows
            if r.size
        ]
    )


@contextmanager
def spool(count, shape):
    """Give an array (count, ny, nx) of float32: in memory, or in a scratch file if large."""
    if 4.0 * count * np.prod(shape) <= IN_MEMORY:
        yield np.empty((count, *shape), np.float32)
        return
    with tempfile.TemporaryFile() as scratch:
        yield np.memmap(scratch, np.float32, "w+", shape=(count, *shape))


def combine_inputs(names, read, judge, shape, *, clip, minimum=1):
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
        See `lib.stats.clipped_mean`.
    minimum : int
        Inputs needed.

    Returns
    -------
    mean : ndarray of float32, shape (ny, nx)
    number : ndarray of int
    inputs : list of Input

    Raises
    ------
    FrameRejected
        Too few good inputs: numbers tell why each was left out.
    """
    inputs = [Input(name) for name in names]
    with spool(len(names), shape) as planes:
        for i, one in enumerate(inputs):
            try:
                image, _ = read(i)
            except FrameRejected as why:
                one.why = str(why)
                continue
            one.level = float(np.median(image))
            one.noise = pixel_noise(image)
            planes[i] = image
        alive = [one for one in inputs if not one.why]
        judge(alive, [planes[i] for i, one in enumerate(inputs) if not one.why])
        good = [i for i, one in enumerate(inputs) if not one.why]
        for one in inputs:
            log.info("%s level %.5g noise %.4g %s", one.name, one.level, one.noise, one.why)
        if len(good) < minimum:
            whys = "; ".join(f"{one.name} {one.why}" for one in inputs if one.why)
            raise FrameRejected("NO_GOOD_INPUT", f"{len(good)} of {len(inputs)} ({whys})")
        mean, number = combine([planes[i] for i in good], shape, clip=clip)
    return mean, number, inputs


def master_header(kind, facts, inputs, unit):
    """Return the header of a master: what it is of, what went in and what was left out."""
    header = fits.Header()
    header["BUNIT"] = unit
    header["IMAGETYP"] = (f"master {kind}", "kind of frame")
    for key, name in (
        ("INSTRUME", "instrument"),
        ("CAMERA", "camera"),
        ("FILTER", "filter"),
        ("BINNING", "binning"),
        ("READOUT", "readout"),
    ):
        if facts.get(name):
            header[key] = str(facts[name])[:60]
    used = [one for one in inputs if not one.why]
    header["NCOMBINE"] = (len(used), "inputs combined")
    header["NLEFTOUT"] = (len(inputs) - len(used), "inputs left out")
    for n, one in enumerate(used, 1):
        header[f"INPUT{n}"] = one.name
    for n, one in enumerate((one for one in inputs if one.why), 1):
        header[f"LEFT{n}"] = f"{one.name} {one.why}"[:68]
    return header


def rejected_master(kind, facts, names, why):
    """Return the header-only frame of a master that could not be made."""
    header = master_header(kind, facts, [Input(name, why=why.code) for name in names], "")
    header["QCSTAT"] = "REJECTED"
    header["QCSTEP"] = kind
    header["QCREASON"] = str(why)[:68]
    header.add_history(str(why))
    return Frame(None, None, header)
