"""Master flat: the relative response of the pixels, 1 in the median."""

import numpy as np

from lib.calibration.detector import (
    assemble,
    deviant_pixels,
    gain_map,
    illuminated_area,
    subtract_bias_and_dark,
)
from lib.calibration.masters import (
    combine_inputs,
    compare_masters,
    master_header,
    pixel_noise,
    rejected_master,
    shapes_of,
    unstable_pixels,
)
from lib.core.stats import regular_sample
from lib.frame.file import (
    BAD,
    NODATA,
    SATURATED,
    Frame,
    FrameRejected,
    read_frame,
    record_calibration,
    write_frame,
)
from lib.frame.step import record_step, start_log


def judge_shape(inputs, planes, largest):
    """Leave out flats whose large-scale shape differs from their siblings'.

    Parameters
    ----------
    inputs : list of Input
    planes : list of ndarray
        Normalised flats.
    largest : float
        Bound of the rms difference of block medians from the siblings' median shape.
    """
    if len(inputs) < 3:
        return
    shapes = shapes_of(planes)
    usual = np.median(shapes, axis=0)
    for one, shape in zip(inputs, shapes, strict=True):
        rms = float(np.sqrt(np.mean((shape / usual - 1) ** 2)))
        if rms > largest:
            one.why = f"GRADIENT: {rms:.3f} > {largest}"


def normalise(image, good):
    """Divide a flat by its median over the good pixels, in place; return the level."""
    sample = regular_sample(image)[regular_sample(good)]
    level = float(np.median(sample)) if sample.size else np.nan
    image /= np.float32(level)
    return level


def make_flat(
    paths,
    facts,
    bias=None,
    dark=None,
    *,
    amin=0.05,
    amax=0.85,
    low_response=0.3,
    largest_gradient=0.05,
    deviant=0.3,
    clip=4.0,
):
    """Combine raw flats of one filter.

    Parameters
    ----------
    paths : list of path-like
    facts : list of dict
    bias, dark : Frame, optional
        Masters.
    amin, amax : float
        A flat's level must be within these fractions of saturation.
    low_response : float
        Pixels below this response are marked NODATA.
    largest_gradient : float
        See `judge_shape`.
    deviant : float
        See `lib.calibration.detector.deviant_pixels`: such pixels are marked BAD.
    clip : float

    Returns
    -------
    Frame
        Response, 1 in the median of the good pixels.
    """
    names = [one["frame"] for one in facts]
    shape = tuple(facts[0]["shape"])
    bias_level = 0.0
    if bias is not None and bias.image is not None:
        bias_level = float(np.median(regular_sample(bias.image)))

    def read(i):
        image, mask, pedestal = assemble(paths[i], facts[i])
        saturate = facts[i]["saturate"] - pedestal
        saturated = float(((mask & SATURATED) > 0).mean())
        if bias is not None:
            saturate -= bias_level
        image, mask = subtract_bias_and_dark(image, mask, facts[i]["exptime"], bias, dark)
        if saturated > 0.1:
            raise FrameRejected("SATURATED", f"{saturated:.0%} of the pixels")
        level = float(np.median(regular_sample(image)))
        if not amin * saturate <= level <= amax * saturate:
            raise FrameRejected(
                "LEVEL", f"{level:.0f} DN not in {amin * saturate:.0f}..{amax * saturate:.0f}"
            )
        image *= gain_map(facts[i])
        good = mask == 0
        normalise(image, good)
        image[mask & SATURATED > 0] = np.nan
        return image, mask

    try:
        for kind, master in (("BIAS", bias), ("DARK", dark)):
            if master is not None and master.rejected:
                raise FrameRejected(f"BAD_{kind}", master.reason)
        mean, extent, inputs = combine_inputs(
            names,
            read,
            lambda alive, planes: judge_shape(alive, planes, largest_gradient),
            shape,
            clip=clip,
        )
    except FrameRejected as why:
        return rejected_master("flat", facts[0], names, why)
    mask = np.zeros(shape, np.uint8)
    for master in (bias, dark):
        if master is not None:
            mask |= master.mask & BAD
    finite = np.isfinite(mean)
    normalise(mean, finite & (mask == 0) & (mean > low_response))
    mask[~finite] |= BAD
    mean[~finite] = 1.0
    mask[mean < low_response] |= NODATA
    y0, y1, x0, x1 = illuminated_area(mean)
    dark_rim = np.ones(shape, bool)
    dark_rim[y0:y1, x0:x1] = False
    mask[dark_rim] |= NODATA
    lit = mask & NODATA == 0
    odd = lit & deviant_pixels(mean, deviant)
    # The photon noise of a flat goes as the root of its light.
    count = sum(not one.why for one in inputs)
    unstable = lit & unstable_pixels(extent, np.sqrt(np.maximum(mean, low_response)), count)
    mask[odd | unstable] |= BAD
    header = master_header("flat", facts[0], inputs, "")
    header["NOISE"] = (float(pixel_noise(mean)), "pixel-to-pixel scatter of the response")
    header["NLOW"] = (int((mask & NODATA > 0).sum()), f"pixels of response below {low_response}")
    header["ILLUM"] = (f"[{y0}:{y1},{x0}:{x1}]", "lit rows and columns, from 0, ends excluded")
    header["NODD"] = (int(odd.sum()), f"pixels {deviant:.0%} off the median around")
    header["NUNSTABL"] = (int((unstable & ~odd).sum()), "pixels that scatter between the inputs")
    return Frame(mean, mask, header)


if "snakemake" in globals():
    start_log(snakemake.log[0])
    paths = {kind: snakemake.input.get(kind) for kind in ("bias", "dark")}
    used = {kind: read_frame(path) if path else None for kind, path in paths.items()}
    ready = snakemake.input.get("ready")
    settings = dict(snakemake.params.settings)
    master = make_flat(snakemake.input.raws, snakemake.params.facts, **used, **settings)
    for kind, calibration in used.items():
        if calibration is not None:
            record_calibration(master.header, kind.upper(), paths[kind], calibration.header)
    if ready:
        compare_masters(master.header, master, read_frame(ready), relative=True)
    record_step(master.header, "flat", snakemake.params.version, settings)
    write_frame(snakemake.output[0], master)
