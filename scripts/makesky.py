"""Master sky: what the empty sky looks like through this filter, 1 in the median."""

import numpy as np
from lib.frames import (
    BAD,
    COSMIC,
    NODATA,
    SATURATED,
    SOURCE,
    Frame,
    FrameRejected,
    read_frame,
    read_header,
    write_frame,
)
from lib.masters import Input, master_header, pixel_noise, rejected_master, spool
from lib.sky import find_sources
from lib.stats import combine
from lib.steps import log, record_step, start_log

NOT_SKY = BAD | SATURATED | NODATA | COSMIC | SOURCE

NOISY = 3.0
"""Frames whose noise, relative to their sky, is so much above the best one's tell nothing."""

FACTS = {
    "instrument": "INSTRUME",
    "camera": "CAMERA",
    "filter": "FILTER",
    "binning": "BINNING",
    "readout": "READOUT",
}


def smooth_sky(sky, good, sigma):
    """Smooth a sky by a Gaussian that ignores pixels without value.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
    good : ndarray of bool, shape (ny, nx)
    sigma : float
        Standard deviation of the Gaussian [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Normalised convolution (Knutsson & Westin 1993); 1 where no good pixel is near.
    """
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(good.astype(np.float32), sigma)
    total = gaussian_filter(np.where(good, sky - 1, 0).astype(np.float32), sigma)
    return 1 + np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)


def fill_sky(sky, good, reach=16.0):
    """Fill the pixels that no frame shows free of sources from those around them."""
    if good.all():
        return sky
    around = smooth_sky(sky, good, reach)
    return np.where(good, sky, around)


def make_sky(planes, shape, sigma=0.0, clip=3.0):
    """Combine normalised frames to the sky.

    Parameters
    ----------
    planes : sequence of ndarray, each of shape `shape`
        Frames divided by their sky level; NaN in sources and defects.
    shape : tuple of int
    sigma : float
        Smoothing [px]: where the sky has no pixel-scale structure, so that the noise of few
        frames is not subtracted along with it. 0 for none.
    clip : float
        Outliers beyond so many standard deviations are left out of a pixel's mean.

    Returns
    -------
    sky : ndarray of float32, shape (ny, nx)
        1 in the median.
    number : ndarray of int, shape (ny, nx)
        Frames that each pixel rests on.
    """
    sky, number = combine(planes, shape, clip=clip)
    good = np.isfinite(sky) & (number > 0)
    sky = np.where(good, sky, np.float32(1))
    if sigma > 0:
        # What is small and bright in the mean of the skies: stars too faint for the single frame,
        # at the same pixels each time, as in a series without dither.
        good &= ~find_sources(sky, ~good, threshold=2.0, grow=2, mesh=32)
        sky = smooth_sky(np.where(good, sky, 1), good, sigma)
    sky = fill_sky(sky, good)
    return (sky / np.median(sky[good])).astype(np.float32), number


def sky_from_frames(paths, min_frames=2, sigma=0.0, clip=3.0):
    """Read flattened frames and make their sky.

    Parameters
    ----------
    paths : list of path-like
        Frames with SKYCTS, and their sources marked in the mask.
    min_frames : int
        Frames needed.
    sigma, clip : float
        See `make_sky`.

    Returns
    -------
    Frame
    """
    headers = [read_header(path) for path in paths]
    inputs = [Input(header["FRAME"], why=header.get("QCREASON", "")) for header in headers]
    alive = [header for header in headers if header["QCSTAT"] == "OK"]
    facts = {key: alive[0].get(word) for key, word in FACTS.items()} if alive else {}
    shape = (alive[0]["NAXIS2"], alive[0]["NAXIS1"]) if alive else (0, 0)
    for one, header in zip(inputs, headers, strict=True):
        one.level = header.get("SKYCTS", np.nan)
        if one.why:
            continue
        if (header["NAXIS2"], header["NAXIS1"]) != shape:
            one.why = f"SHAPE: {header['NAXIS2']} x {header['NAXIS1']}, siblings {shape}"
        elif not one.level > 0:
            one.why = f"NO_SKY: {one.level:.1f} electrons"
        else:
            one.noise = header["SKYNOISE"] / one.level
    best = min((one.noise for one in inputs if not one.why), default=np.nan)
    for one in inputs:
        if not one.why and one.noise > NOISY * best:
            one.why = f"NOISY: {one.noise:.2g} of its sky > {NOISY:g} x {best:.2g}"
    good = [(path, one) for path, one in zip(paths, inputs, strict=True) if not one.why]
    if len(good) < min_frames:
        why = FrameRejected("TOO_FEW_FRAMES", f"{len(good)} < {min_frames}")
        return rejected_master("sky", facts, [one.name for one in inputs], why)
    with spool(len(good), shape) as planes:
        for plane, (path, one) in zip(planes, good, strict=True):
            frame = read_frame(path)
            plane[:] = frame.image / np.float32(one.level)
            plane[frame.mask & NOT_SKY > 0] = np.nan
        sky, number = make_sky(planes, shape, sigma, clip)
    for one in inputs:
        log.info("%s level %.5g %s", one.name, one.level, one.why)
    header = master_header("sky", facts, inputs, "")
    mask = np.zeros(shape, np.uint8)
    mask[number == 0] |= NODATA
    header["SMOOTH"] = (float(sigma), "[px] Gaussian smoothing")
    header["NOISE"] = (float(pixel_noise(sky)), "pixel-to-pixel noise of the master")
    header["NFILLED"] = (int((number == 0).sum()), "pixels without any sky, filled from around")
    return Frame(sky, mask, header)


if "snakemake" in globals():
    start_log(snakemake.log[0])
    settings = {key: snakemake.params[key] for key in ("min_frames", "sigma", "clip")}
    sky = sky_from_frames(snakemake.input.frames, **settings)
    record_step(sky.header, "makesky", snakemake.params.version, settings)
    write_frame(snakemake.output[0], sky)
