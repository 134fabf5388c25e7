"""Master bias: the level and structure that a frame of no exposure shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.calibration.detector import assemble
from lib.calibration.masters import (
    combine_inputs,
    judge_siblings,
    master_header,
    pixel_noise,
    rejected_master,
    unstable_pixels,
)
from lib.core.stats import mad_std, regular_sample, sigma_clipped_median
from lib.frame.file import BAD, Frame, FrameRejected, add_notes
from lib.night.electronics import DISAGREEMENT
from lib.night.facts import FrameFacts

MOST_CUT_OFF = 0.02
"""[fraction] of the pixels of a bias that may be 0: with more, the half of the noise is lost."""

READ_NOISE_FRAMES = 4
"""Number of bias frames used to measure the read noise: a million pixels each."""


def read_noise(images: Sequence[np.ndarray]) -> float:
    """Return the read noise from the differences of bias frames and their successors.

    What is the same in both, the pattern of the detector, is not noise.

    Parameters
    ----------
    images : list of ndarray, shape (ny, nx)
        Two at least.

    Returns
    -------
    float
        Read noise in the unit of the images.
    """
    noises = [
        sigma_clipped_median(second - first, sigma=5)[1]
        for first, second in zip(images, images[1:], strict=False)
    ]
    return float(np.median(noises) / np.sqrt(2))


def read_noise_notes(measured: float, facts: FrameFacts) -> list[str]:
    """Return remarks where the read noise differs from that in the night log.

    Parameters
    ----------
    measured : float
        [adu]
    facts : FrameFacts
        Facts of one of the biases; its gain is used.
    """
    found = measured * facts.gain
    if not found > 0 or max(found, facts.rdnoise) <= DISAGREEMENT * min(found, facts.rdnoise):
        return []
    return [
        f"read noise: {found:.3g} e measured and used, "
        f"header or instrument file: {facts.rdnoise:g} (gain {facts.gain:g})"
    ]


def make_bias(paths: Sequence[str | Path], facts: Sequence[FrameFacts], clip: float = 4.0) -> Frame:
    """Combine raw bias frames.

    Parameters
    ----------
    paths : list of path-like
    facts : list of FrameFacts
        The night log's facts of each.
    clip : float
        Values beyond this many standard deviations are left out of a pixel's mean.

    Returns
    -------
    Frame
        Mean bias [DN above the overscan]; header RDNOISE1 is the read noise [DN] measured in
        differences of its inputs, absent where there is only one.
    """
    names = [one.frame for one in facts]
    shape = tuple(facts[0].shape)

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        ccd = assemble(paths[i], facts[i]).ccd
        bad = (ccd.flags & BAD).mean()
        if bad > 0.5:
            raise FrameRejected("NO_FINITE_PIXEL", f"{bad:.0%} bad")
        return ccd.data, ccd.flags

    try:
        mean, extent, inputs = combine_inputs(names, read, judge_siblings, shape, clip=clip)
    except FrameRejected as why:
        return rejected_master("bias", facts[0], names, why)
    header = master_header("bias", facts[0], inputs, "adu")
    used = [i for i, one in enumerate(inputs) if not one.why]
    if len(used) > 1:
        images = [read(i)[0] for i in used[:READ_NOISE_FRAMES]]
        cut_off = float((images[0] <= 0).mean()) if facts[0].has_pedestal else 0.0
        if cut_off > MOST_CUT_OFF:
            add_notes(
                header,
                [f"{cut_off:.0%} of the pixels are 0: the offset of the camera is too small, "
                 "noise is cut off and not measured"],
            )  # fmt: skip
        else:
            header["RDNOISE1"] = (read_noise(images), "[adu] read noise, from differences")
            add_notes(header, read_noise_notes(header["RDNOISE1"], facts[0]))
    header["NOISE"] = (float(pixel_noise(mean)), "[adu] noise of the master")
    mask = np.zeros(shape, np.uint8)
    sample = regular_sample(mean)
    far = np.abs(mean - np.nanmedian(sample)) > 100 * mad_std(sample) + 1
    mask[~np.isfinite(mean) | far] |= BAD
    mask[unstable_pixels(extent, 1.0, len(used))] |= BAD
    mean[~np.isfinite(mean)] = np.nanmedian(mean)
    header["NBAD"] = (int((mask & BAD > 0).sum()), "pixels masked: far off, or unstable")
    return Frame(mean, mask, header)
