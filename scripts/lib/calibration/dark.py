"""Master dark: dark current per second where a bias exists, else a dark of one exposure time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.calibration.corrections import subtract_bias_and_dark
from lib.calibration.detector import assemble
from lib.calibration.masters import (
    combine_inputs,
    judge_siblings,
    master_header,
    pixel_noise,
    rejected_master,
    unstable_pixels,
)
from lib.core.stats import mad_std, regular_sample
from lib.frame.file import BAD, Frame, FrameRejected
from lib.night.facts import FrameFacts


def hot_pixels(rate: np.ndarray, sigma: float) -> np.ndarray:
    """Return the pixels whose dark current cannot be subtracted well.

    Parameters
    ----------
    rate : ndarray, shape (ny, nx)
        Master dark.
    sigma : float
        Pixels so many standard deviations above the median are hot.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    sample = regular_sample(rate)
    return rate > np.median(sample) + sigma * max(mad_std(sample), 1e-6)


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
        In adu/s (bias subtracted), or adu (not).
    """
    names = [one.frame for one in facts]
    shape = tuple(facts[0].shape)
    exptime = float(np.median([one.exptime for one in facts]))

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        ccd = assemble(paths[i], facts[i]).ccd
        if bias is None:
            return ccd.data, ccd.flags
        if not facts[i].exptime > 0:
            raise FrameRejected("EXPTIME", f"{facts[i].exptime} s")
        ccd = subtract_bias_and_dark(ccd, facts[i].exptime, bias)
        return ccd.data * np.float32(exptime / facts[i].exptime), ccd.flags

    try:
        mean, extent, inputs = combine_inputs(names, read, judge_siblings, shape, clip=clip)
    except FrameRejected as why:
        return rejected_master("dark", facts[0], names, why)
    count = sum(not one.why for one in inputs)
    # What a pixel holds adds its own photon noise, in DN.
    electrons = np.maximum(mean - np.nanmedian(mean), 0) * np.float32(facts[0].gain)
    noise = facts[0].rdnoise or 1.0
    unstable = unstable_pixels(extent, np.sqrt(1 + electrons / noise**2), count)
    if bias is not None:
        mean /= np.float32(exptime)
    header = master_header("dark", facts[0], inputs, "adu" if bias is None else "adu/s")
    header["EXPTIME"] = (exptime, "[s] exposure of the inputs")
    header["NOISE"] = (float(pixel_noise(mean)), "noise of the master, in BUNIT")
    mask = np.zeros(shape, np.uint8)
    mask[~np.isfinite(mean)] |= BAD
    mean[~np.isfinite(mean)] = np.nanmedian(mean)
    hot = hot_pixels(mean, hot_sigma)
    mask[hot] |= BAD
    mask[unstable] |= BAD
    header["NHOT"] = (int(hot.sum()), "hot pixels masked")
    header["NUNSTABL"] = (int((unstable & ~hot).sum()), "pixels masked that scatter")
    return Frame(mean, mask, header)
