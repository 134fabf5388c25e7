"""Master sky: what the empty sky looks like through a filter, 1 in the median."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.background.mastersky import MasterSky
from lib.background.pointings import pointing_groups, skies_without
from lib.background.secondpass import UNDITHERED, find_deep_sources
from lib.background.shapes import busier_shapes, odd_shapes, own_surface
from lib.background.sky import NOT_SKY, block_sky, sky_noise, surface
from lib.background.skymean import make_sky, sky_of_mean
from lib.background.targetlight import STILL, TargetLight, find_light, may_hold_light
from lib.calibration.masters import (
    Input,
    master_header,
    pixel_noise,
    rejected_master,
    release,
    spool,
)
from lib.frame.file import (
    BAD,
    NODATA,
    Frame,
    FrameRejected,
    read_frame,
    read_header,
)
from lib.frame.step import log

MOST_RELATIVE_NOISE = 3.0
"""Frames whose noise, relative to their sky, is so much above the best one's tell nothing."""


HELD_BYTES = 128e6
"""Bytes of frames that stay open after the first look at them."""


FACTS = {
    "instrument": "INSTRUME",
    "camera": "CAMERA",
    "filter": "FILTER",
    "binning": "BINNING",
    "readout": "READOUT",
}


def judge_frames(headers: Sequence[fits.Header]) -> tuple[list[Input], tuple[int, ...]]:
    """Return what is known of each input of a sky, with why those unfit are left out."""
    inputs = [Input(header["FRAME"], why=header.get("QCREASON", "")) for header in headers]
    alive = [header for header in headers if header["QCSTAT"] == "OK"]
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
            # Not as measured: what a nebula adds is no noise.
            one.noise = sky_noise(header)
    best = min((one.noise for one in inputs if not one.why), default=np.nan)
    for one in inputs:
        if not one.why and one.noise > MOST_RELATIVE_NOISE * best:
            most = f"{MOST_RELATIVE_NOISE:g} x {best:.2g}"
            one.why = f"NOISY: {one.noise:.2g} of its sky > {most}"
    return inputs, shape


def leave_out_odd(
    planes: np.ndarray,
    good: Sequence[tuple[str | Path, fits.Header, Input]],
    odd: np.ndarray,
    least: int,
) -> list[int]:
    """Leave out frames of odd shape, unless too few are left.

    Parameters
    ----------
    planes : sequence of ndarray
        Those of the frames kept are moved to the front.
    good : list of (path, header, Input)
        `Input.why` is set.
    odd : ndarray, shape (n,)
        See `lib.background.shapes.odd_shapes`.
    least : int
        Frames needed.

    Returns
    -------
    list of int
        The frames kept.
    """
    kept = np.flatnonzero(odd == 0).tolist()
    if not least <= len(kept) < len(good):
        return list(range(len(good)))
    for (_, _, one), rms in zip(good, odd, strict=True):
        if rms:
            one.why = f"SKY_SHAPE: {rms:.2f} of its noise apart from its siblings"
    for to, n in enumerate(kept):
        planes[to] = planes[n]
    return kept


def sky_from_frames(
    paths: Sequence[str | Path],
    min_frames: int = 2,
    sigma: float = 3.0,
    clip: float = 3.0,
    order: int = 1,
    passes: int = 1,
    structure: bool = False,
    others: Sequence[str | Path] = (),
) -> MasterSky:
    """Read flattened frames and make their sky.

    Parameters
    ----------
    paths : list of path-like
        Frames with SKYCTS, and their sources marked in the mask.
    min_frames : int
        Frames needed.
    sigma, clip : float
        See `make_sky`.
    order : int
        Degree of the surface by which each frame's sky may differ, see `own_surface`.
    passes : int
        2: sources found on the sum of the frames less the first sky are masked too, and the
        sky made again.
    structure : bool
        Keep the pixel structure that the smoothing would take away, see `keep_structure`.
    others : list of path-like
        Frames of other targets, near in time: used where those of this one may show its light.

    Returns
    -------
    MasterSky
        BAD in the mask where all frames show a defect, NODATA where none shows sky.
    """
    headers = [read_header(path) for path in paths]
    inputs, shape = judge_frames(headers)
    alive = [header for header in headers if header["QCSTAT"] == "OK"]
    facts = {key: alive[0].get(word) for key, word in FACTS.items()} if alive else {}
    good = [
        (path, header, one)
        for path, header, one in zip(paths, headers, inputs, strict=True)
        if not one.why
    ]
    if len(good) < min_frames:
        why = FrameRejected("TOO_FEW_FRAMES", f"{len(good)} < {min_frames}")
        return MasterSky.without_image(rejected_master("sky", facts, inputs, why).header)
    noise = np.median([sky_noise(header) for _, header, _ in good]) if structure else None
    held: dict[str | Path, Frame] = {}

    def read(path):
        frame = held.get(path) or read_frame(path, mapped=True)
        if len(held) < HELD_BYTES / (5 * np.prod(shape)):
            held[path] = frame
        return frame

    with spool(len(good), shape) as planes:
        blocks = []
        for plane, (path, _, one) in zip(planes, good, strict=True):
            frame = read(path)
            np.divide(frame.image, np.float32(one.level), out=plane)
            free = frame.mask & NOT_SKY == 0
            blocks.append(block_sky(plane, free, every=3))
            plane[~free] = np.nan
            release(planes)
        surfaces = np.array(blocks)
        tilts, left = own_surface(surfaces, order)
        noises = [sky_noise(header) for _, header, _ in good]
        light: TargetLight | None = None
        # A frame with more structure than its siblings says nothing of theirs.
        odd = odd_shapes(left, noises) * busier_shapes(surfaces)
        kept = leave_out_odd(planes, good, odd, min_frames)
        good, surfaces, planes = [good[n] for n in kept], surfaces[kept], planes[: len(kept)]
        tilts, left = own_surface(surfaces, order)
        if may_hold_light(planes, left, [sky_noise(header) for _, header, _ in good]):
            if others:
                more = [*paths, *others]
                return sky_from_frames(more, min_frames, sigma, clip, order, passes, structure)
            light = find_light(planes, good, read)
        if light:
            surfaces = light.subtract(planes, [one for _, _, one in good])
            tilts, left = own_surface(surfaces, order)
        odd = odd_shapes(left, [sky_noise(header) for _, header, _ in good])
        if light:
            odd *= busier_shapes(surfaces)
        kept = leave_out_odd(planes, good, odd, min_frames)
        if len(kept) < len(good):
            good, surfaces, planes = [good[n] for n in kept], surfaces[kept], planes[: len(kept)]
            light = light.part(kept) if light else None
            tilts, _ = own_surface(surfaces, order)
        for plane, tilt in zip(planes, tilts, strict=True):
            plane /= 1 + surface(tilt, shape)
            release(planes)
        sky = make_sky(planes, shape, sigma, clip, noise)
        deep, defects = 0, np.zeros(shape, bool)
        for _ in range(max(1, passes - 1)):
            defects, deep, places = find_deep_sources(
                planes, good, tilts, sky.smooth, passes > 1, read, light.maps if light else None
            )
            groups = pointing_groups(places)
            if light and light.kind == STILL:
                groups = [0] * len(good)
            stare = max(groups) == 0
            if deep or defects.any():
                sky = make_sky(planes, shape, sigma, clip, noise)
            if stare and not structure and sigma > 0:
                sigma = max(sigma, UNDITHERED["sigma"])
                sky = sky_of_mean(
                    sky.mean, sky.number, sky.extent, sigma,
                    threshold=UNDITHERED["threshold"], hole=UNDITHERED["hole"],
                )  # fmt: skip
        if light and light.kind == STILL:
            # Nor can smaller scales be told from light: only what single pixels show is kept.
            sky.image /= sky.smooth
        without = {}
        if not stare:
            noises = [sky_noise(header) for _, header, _ in good]
            images = skies_without(planes, sky, groups, noises, sigma, clip, noise)
            without = dict(enumerate(images))
    for one in inputs:
        log.info("%s level %.5g %s", one.name, one.level, one.why)
    header = master_header("sky", facts, inputs, "")
    mask = np.zeros(shape, np.uint8)
    mask[sky.number == 0] |= NODATA
    mask[defects] |= BAD
    header["SMOOTH"] = (float(sigma), "[px] Gaussian smoothing")
    header["STRUCT"] = (sky.kept, "part of the pixel structure kept")
    header["PASSES"] = (int(passes), "2: sources found on the first sum masked")
    header["NDEEP"] = (deep, "frames in which they were")
    header["NBAD"] = (int(defects.sum()), "pixels that stand out at every pointing")
    header["NOISE"] = (float(pixel_noise(sky.image)), "pixel-to-pixel noise of the master")
    header["NFILLED"] = (int((sky.number == 0).sum()), "pixels without sky, filled from around")
    header["NGROUP"] = (max(groups) + 1, "groups, each with a sky of the others")
    names = [header["FRAME"] for _, header, _ in good]
    lights = {}
    if light:
        header["EXTLIGHT"] = (round(light.most, 4), "brightest extended light over the sky")
        header["EXTKIND"] = (light.kind, "what told it")
        header["EXTEVID"] = (round(light.evidence, 1), "[ln] evidence for it")
        for (_, facts_of, one), shown in zip(good, light.maps, strict=True):
            lights[facts_of["FRAME"]] = shown * np.float32(one.level / facts_of["SKYCTS"])
    groups_of = dict(zip(names, groups, strict=True))
    return MasterSky(sky.image, mask, header, groups_of, without, lights)
