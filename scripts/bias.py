"""Master bias: the level and structure that a frame of no exposure shows."""

import numpy as np

from lib.detector import assemble
from lib.frames import BAD, Frame, FrameRejected, read_frame, write_frame
from lib.masters import (
    combine_inputs,
    compare_masters,
    judge_siblings,
    master_header,
    pixel_noise,
    rejected_master,
    unstable_pixels,
)
from lib.stats import mad_std
from lib.steps import record_step, start_log


def make_bias(paths, facts, clip=4.0):
    """Combine raw bias frames.

    Parameters
    ----------
    paths : list of path-like
    facts : list of dict
        The night log's facts of each.
    clip : float
        Outliers beyond so many standard deviations are left out of a pixel's mean.

    Returns
    -------
    Frame
        Mean bias [DN above the overscan]; header RDNOISE1 is the read noise [DN] measured.
    """
    names = [one["frame"] for one in facts]
    shape = tuple(facts[0]["shape"])

    def read(i):
        image, mask, _ = assemble(paths[i], facts[i])
        if (mask & BAD).mean() > 0.5:
            raise FrameRejected("NO_FINITE_PIXEL", f"{(mask & BAD).mean():.0%} bad")
        return image, mask

    try:
        mean, extent, inputs = combine_inputs(names, read, judge_siblings, shape, clip=clip)
    except FrameRejected as why:
        return rejected_master("bias", facts[0], names, why)
    header = master_header("bias", facts[0], inputs, "adu")
    used = [one for one in inputs if not one.why]
    header["RDNOISE1"] = (float(np.median([one.noise for one in used])), "[adu] noise of one bias")
    header["NOISE"] = (float(pixel_noise(mean)), "[adu] noise of the master")
    mask = np.zeros(shape, np.uint8)
    mask[~np.isfinite(mean) | (np.abs(mean - np.median(mean)) > 100 * mad_std(mean) + 1)] |= BAD
    mask[unstable_pixels(extent, 1.0, len(used))] |= BAD
    mean[~np.isfinite(mean)] = np.nanmedian(mean)
    header["NBAD"] = (int((mask & BAD > 0).sum()), "pixels masked: far off, or unstable")
    return Frame(mean, mask, header)


if "snakemake" in globals():
    start_log(snakemake.log[0])
    master = make_bias(snakemake.input.raws, snakemake.params.facts, snakemake.params.clip)
    if ready := snakemake.input.get("ready"):
        compare_masters(master.header, master, read_frame(ready))
    record_step(master.header, "bias", snakemake.params.version, {"clip": snakemake.params.clip})
    write_frame(snakemake.output[0], master)
