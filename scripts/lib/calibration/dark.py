"""Master dark: dark current per second where a bias exists, else a dark of one exposure time."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.calibration.corrections import subtract_bias_and_dark
from lib.calibration.detector import assemble
from lib.calibration.masters import (
    Input,
    block_medians,
    combine_inputs,
    judge_siblings,
    master_header,
    pixel_noise,
    rejected_master,
    unstable_pixels,
)
from lib.core.meshes import bilinear
from lib.core.stats import mad_std, regular_sample
from lib.frame.file import BAD, Frame, FrameRejected
from lib.night.facts import FrameFacts

log = logging.getLogger("autoproc")

KEPT_WEIGHT = 0.5
"""Structure that is more than half of a dark's variance is left as it is."""

STANDS_OUT = 5.0
"""[scatter of the pixels] What departs by more is no noise."""


def hot_pixels(rate: np.ndarray, sigma: float) -> np.ndarray:
    """Return the pixels whose dark current cannot be subtracted well.

    Parameters
    ----------
    rate : ndarray, shape (ny, nx)
        Master dark.
    sigma : float
        Pixels this many standard deviations above the median are hot.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    sample = regular_sample(rate)
    return rate > np.median(sample) + sigma * max(mad_std(sample), 1e-6)


def weigh_structure(dark: np.ndarray, noise: float) -> tuple[np.ndarray, float]:
    """Return a dark in which the structure of pixels that is mostly noise counts for less.

    A short dark scaled to a long exposure has its noise scaled too. Where that of a master is more
    than what the pixels differ by, the best estimate of a pixel lies nearer to its neighbours, by
    the part of the variance that is structure (James & Stein 1961). Pixels that stand out
    are kept.

    Parameters
    ----------
    dark : ndarray of float32, shape (ny, nx)
        Bias subtracted.
    noise : float
        Pixel noise, in the unit of `dark`.

    Returns
    -------
    dark : ndarray of float32, shape (ny, nx)
        The input itself where the structure exceeds the noise.
    weight : float
        Weight given to the structure; 1: kept as it is.
    """
    large_scale = bilinear(block_medians(dark), dark.shape)
    structure = dark - large_scale
    scatter = mad_std(regular_sample(structure))
    weight = max(0.0, 1 - (noise / scatter) ** 2) if scatter > 0 else 1.0
    if weight > KEPT_WEIGHT:
        return dark, 1.0
    alike = np.abs(structure) < STANDS_OUT * scatter
    return np.where(alike, large_scale + np.float32(weight) * structure, dark), weight


def _reader(
    paths: Sequence[str | Path], facts: Sequence[FrameFacts], bias: Frame | None, exptime: float
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Return a function that reads a raw dark: image [adu], scaled to `exptime` [s], and mask."""

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        ccd = assemble(paths[i], facts[i]).ccd
        if bias is None:
            return ccd.data, ccd.flags
        if not facts[i].exptime > 0:
            raise FrameRejected("EXPTIME", f"{facts[i].exptime} s")
        ccd = subtract_bias_and_dark(ccd, facts[i].exptime, bias)
        return ccd.data * np.float32(exptime / facts[i].exptime), ccd.flags

    return read


def make_dark(
    paths: Sequence[str | Path],
    facts: Sequence[FrameFacts],
    bias: Frame | None = None,
    clip: float = 4.0,
    hot_sigma: float = 50.0,
) -> Frame:
    """Combine raw darks of one exposure time.

    Parameters
    ----------
    paths : list of path-like
    facts : list of FrameFacts
    bias : Frame, optional
        Master bias. Without it the master keeps its bias, and serves its own exposure only.
    clip : float
    hot_sigma : float
        See `hot_pixels`.

    Returns
    -------
    Frame
        Master dark in adu/s (bias subtracted) or adu (bias included).
    """
    names = [one.frame for one in facts]
    shape = tuple(facts[0].shape)
    exptime = float(np.median([one.exptime for one in facts]))
    noises: list[float] = []

    def judge(inputs: Sequence[Input], planes: Sequence[np.ndarray]) -> None:
        judge_siblings(inputs, planes)
        good = [plane for one, plane in zip(inputs, planes, strict=True) if not one.why]
        if len(good) > 1:  # what all have in common is no noise
            noises.append(pixel_noise(good[0] - good[-1]) / np.sqrt(2))

    try:
        read = _reader(paths, facts, bias, exptime)
        mean, extent, inputs = combine_inputs(names, read, judge, shape, clip=clip)
    except FrameRejected as why:
        return rejected_master("dark", facts[0], names, why)
    count = sum(not one.why for one in inputs)
    unstable = unstable_pixels(extent, dark_noise(mean, facts[0]), count)
    weight = 1.0
    if bias is not None:
        number_of_biases = max(1, bias.header.get("NCOMBINE", 100))
        if noises:
            master_noise = noises[0] * np.sqrt(1 / count + 1 / number_of_biases)
            mean, weight = weigh_structure(mean, master_noise)
        mean /= np.float32(exptime)
    header = master_header("dark", facts[0], inputs, "adu" if bias is None else "adu/s")
    header["EXPTIME"] = (exptime, "[s] exposure of the inputs")
    header["NOISE"] = (float(pixel_noise(mean)), "noise of the master, in BUNIT")
    if weight < 1:
        kept = "part of the structure of pixels kept, rest is noise"
        header["DARKWGT"] = (round(weight, 3), kept)
        words = "dark of %g s: its noise exceeds its structure, of which %.2f is kept"
        log.info(words, exptime, weight)
    mask = mark_bad_pixels(mean, unstable, hot_sigma, header)
    return Frame(mean, mask, header)


def dark_noise(mean: np.ndarray, facts: FrameFacts) -> np.ndarray:
    """Return the noise expected of each pixel of a raw dark, in units of the read noise.

    Parameters
    ----------
    mean : ndarray of float32, shape (ny, nx)
        Mean of the darks [adu].
    facts : FrameFacts
        Gain and read noise.
    """
    # A pixel's dark current has photon noise of its own.
    electrons = np.maximum(mean - np.nanmedian(mean), 0) * np.float32(facts.gain)
    noise = facts.rdnoise or 1.0
    return np.sqrt(1 + electrons / noise**2)


def mark_bad_pixels(
    mean: np.ndarray, unstable: np.ndarray, hot_sigma: float, header: fits.Header
) -> np.ndarray:
    """Return the mask of a dark; pixels without a value get the median.

    Parameters
    ----------
    mean : ndarray of float32, shape (ny, nx)
    unstable : ndarray of bool, shape (ny, nx)
        Pixels that scatter between the inputs.
    hot_sigma : float
        See `hot_pixels`.
    header : astropy.io.fits.Header
        Receives the numbers of bad pixels.

    Returns
    -------
    ndarray of uint8, shape (ny, nx)
    """
    mask = np.zeros(mean.shape, np.uint8)
    mask[~np.isfinite(mean)] |= BAD
    mean[~np.isfinite(mean)] = np.nanmedian(mean)
    hot = hot_pixels(mean, hot_sigma)
    mask[hot] |= BAD
    mask[unstable] |= BAD
    header["NHOT"] = (int(hot.sum()), "hot pixels masked")
    header["NUNSTABL"] = (int((unstable & ~hot).sum()), "pixels masked that scatter")
    return mask
