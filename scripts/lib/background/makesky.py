"""Master sky: the empty sky as seen through a filter, normalised to a median of 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.background.mastersky import MasterSky
from lib.background.pointings import pointing_groups, skies_without
from lib.background.secondpass import UNDITHERED, find_deep_sources
from lib.background.sky import sky_noise
from lib.background.skyframes import OpenFrames, SkyFrames
from lib.background.skymean import Sky, make_sky, sky_of_mean
from lib.background.targetlight import INSEPARABLE
from lib.calibration.masters import (
    Input,
    master_header,
    pixel_noise,
    rejected_master,
    spool,
)
from lib.frame.file import (
    BAD,
    NODATA,
    FrameRejected,
    read_header,
)
from lib.frame.step import log

MOST_RELATIVE_NOISE = 3.0
"""Maximum noise of a frame relative to its sky, in units of that of the best frame."""


FACTS = {
    "instrument": "INSTFILE",
    "camera": "CAMERA",
    "filter": "FILTER",
    "binning": "BINNING",
    "readout": "READOUT",
}


def judge_frames(headers: Sequence[fits.Header]) -> tuple[list[Input], tuple[int, ...]]:
    """Return the properties of each input of a sky, and why some are left out."""
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
            # Computed, not measured: the light of a nebula is not noise.
            one.noise = sky_noise(header)
    best = min((one.noise for one in inputs if not one.why), default=np.nan)
    for one in inputs:
        if not one.why and one.noise > MOST_RELATIVE_NOISE * best:
            most = f"{MOST_RELATIVE_NOISE:g} x {best:.2g}"
            one.why = f"NOISY: {one.noise:.2g} of its sky > {most}"
    return inputs, shape


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
        Degree of the surface by which each frame's sky may differ, see `frame_surfaces`.
    passes : int
        2: sources found on the sum of the frames less the first sky are masked too, and the
        sky made again.
    structure : bool
        Keep the pixel structure that the smoothing would remove, see `keep_structure`.
    others : list of path-like
        Frames of other targets, near in time: used if those of this one may show its light.

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
    with spool(len(good), shape) as planes:
        frames = SkyFrames.normalised(planes, good, order, OpenFrames(shape).read)
        frames.leave_out_odd(min_frames, busier=True)
        lit = frames.may_hold_light()
        if not (lit and others):
            if lit:
                frames.subtract_light()
            frames.leave_out_odd(min_frames, busier=frames.light is not None)
            frames.divide_surfaces()
            combined = combine_frames(frames, sigma, clip, passes, noise)
    if lit and others:
        more = [*paths, *others]
        return sky_from_frames(more, min_frames, sigma, clip, order, passes, structure)
    for one in inputs:
        log.info("%s level %.5g %s", one.name, one.level, one.why)
    header = master_header("sky", facts, inputs, "")
    return master_sky(frames, combined, header)


@dataclass
class CombinedSky:
    """The sky that frames have in common.

    Parameters
    ----------
    sky : Sky
    sigma : float
        Smoothing [px].
    passes : int
        2: sources found on the first sum were masked.
    defects : ndarray of bool, shape (ny, nx)
        Pixels that stand out at every pointing.
    deep : int
        Frames in which the sum showed sources that they do not show alone.
    groups : list of int
        Group of each frame by its pointing.
    without : dict of int to ndarray
        Sky of all frames but those of a group.
    """

    sky: Sky
    sigma: float
    passes: int
    defects: np.ndarray
    deep: int
    groups: list[int]
    without: dict[int, np.ndarray]


def combine_frames(
    frames: SkyFrames, sigma: float, clip: float, passes: int, noise: float | None
) -> CombinedSky:
    """Combine frames to the sky, without defects and sources that only their sum shows.

    Parameters
    ----------
    frames : SkyFrames
        Sources missed and defects become NaN.
    sigma, clip, noise : float
        See `make_sky`.
    passes : int
        See `sky_from_frames`.
    """
    planes, light = frames.planes, frames.light
    shape = planes.shape[1:]
    still = light is not None and light.kind == INSEPARABLE
    sky = make_sky(planes, shape, sigma, clip, noise)
    for _ in range(max(1, passes - 1)):
        defects, deep, places = find_deep_sources(frames, sky.smooth, passes > 1)
        groups = [0] * len(frames.good) if still else pointing_groups(places)
        dithered = max(groups) > 0
        if deep or defects.any():
            sky = make_sky(planes, shape, sigma, clip, noise)
        if not dithered and noise is None and sigma > 0:
            sigma = max(sigma, UNDITHERED["sigma"])
            sky = sky_of_mean(
                sky.mean, sky.number, sky.extent, sigma,
                threshold=UNDITHERED["threshold"], hole=UNDITHERED["hole"],
            )  # fmt: skip
    if still:
        # Smaller scales cannot be separated from light either: only pixel structure is kept.
        sky.image /= sky.smooth
    without = {}
    if dithered:
        images = skies_without(planes, sky, groups, frames.noises, sigma, clip, noise)
        without = dict(enumerate(images))
    return CombinedSky(sky, sigma, passes, defects, deep, groups, without)


def master_sky(frames: SkyFrames, combined: CombinedSky, header: fits.Header) -> MasterSky:
    """Return the master of a combined sky; its cards are added to `header`."""
    sky, defects, light = combined.sky, combined.defects, frames.light
    hidden = sky.number == 0
    mask = np.zeros(hidden.shape, np.uint8)
    mask[hidden] |= NODATA
    mask[defects] |= BAD
    header["SMOOTH"] = (float(combined.sigma), "[px] Gaussian smoothing")
    header["STRUCT"] = (sky.kept, "part of the pixel structure kept")
    header["PASSES"] = (int(combined.passes), "2: sources found on the first sum masked")
    header["NDEEP"] = (combined.deep, "frames in which they were")
    header["NBAD"] = (int(defects.sum()), "pixels that stand out at every pointing")
    header["NOISE"] = (float(pixel_noise(sky.image)), "pixel-to-pixel noise of the master")
    header["NFILLED"] = (int(hidden.sum()), "pixels without sky, filled from around")
    header["NGROUP"] = (max(combined.groups) + 1, "groups, each with a sky of the others")
    lights = {}
    if light:
        header["EXTLIGHT"] = (round(light.most, 4), "brightest extended light over the sky")
        header["EXTKIND"] = (light.kind, "what told it")
        if light.separation:
            header["EXTEVID"] = (round(light.separation.evidence, 1), "[ln] evidence for it")
            header["EXTZERO"] = (light.separation.zero, "what its zero level rests on")
            if np.isfinite(light.separation.zero_error):
                error = round(light.separation.zero_error, 6)
                header["EXTZERR"] = (error, "error of that level over the sky")
        for (_, facts, one), shown in zip(frames.good, light.maps, strict=True):
            lights[facts["FRAME"]] = shown * np.float32(one.level / facts["SKYCTS"])
    names = [facts["FRAME"] for _, facts, _ in frames.good]
    groups = dict(zip(names, combined.groups, strict=True))
    return MasterSky(sky.image, mask, header, groups, combined.without, lights)
