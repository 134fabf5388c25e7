"""Master bias: the level and structure that a frame of no exposure shows."""

import numpy as np
from lib.detector import assemble
from lib.frames import BAD, Frame, FrameRejected, write_frame
from lib.masters import combine_inputs, master_header, outliers, pixel_noise, rejected_master
from lib.stats import mad_std
from lib.steps import record_step, start_log


def judge_bias(inputs, planes):
    """Leave out biases whose level or noise stands apart from their siblings.

    Parameters
    ----------
    inputs : list of Input
    planes : list of ndarray
        Not used: level and noise tell.
    """
    noise = np.median([one.noise for one in inputs]) if inputs else 0.0
    for one, apart in zip(inputs, outliers([one.level for one in inputs], noise), strict=True):
        if apart:
            one.why = f"LEVEL: {one.level:.1f} DN apart from its siblings"
    for one, apart in zip(inputs, outliers([one.noise for one in inputs], noise / 2), strict=True):
        if apart and not one.why:
            one.why = f"NOISE: {one.noise:.2f} DN, siblings {noise:.2f}"


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
        mean, number, inputs = combine_inputs(names, read, judge_bias, shape, clip=clip)
    except FrameRejected as why:
        return rejected_master("bias", facts[0], names, why)
    header = master_header("bias", facts[0], inputs, "adu")
    used = [one for one in inputs if not one.why]
    header["RDNOISE1"] = (float(np.median([one.noise for one in used])), "[adu] noise of one bias")
    header["NOISE"] = (float(pixel_noise(mean)), "[adu] noise of the master")
    mask = np.zeros(shape, np.uint8)
    mask[~np.isfinite(mean) | (np.abs(mean - np.median(mean)) > 100 * mad_std(mean) + 1)] |= BAD
    mean[~np.isfinite(mean)] = np.nanmedian(mean)
    return Frame(mean, mask, header)


if "snakemake" in globals():
    start_log(snakemake.log[0])
    master = make_bias(snakemake.input.raws, snakemake.params.facts, snakemake.params.clip)
    record_step(master.header, "bias", snakemake.params.version, {"clip": snakemake.params.clip})
    write_frame(snakemake.output[0], master)
