"""Sky subtraction: the master sky scaled to the frame, or the frame's median alone."""

import numpy as np

from lib.background.fringes import (
    fringe_excess,
    fringe_pattern,
    fringe_scale_of,
    may_have_excess,
    pattern_noise,
)
from lib.background.largesources import large_halo
from lib.background.lightsquares import light_image
from lib.background.mastersky import MasterSky
from lib.background.sky import NOT_SKY, block_sky, fit_surface, sky_level, surface
from lib.background.targetlight import INSEPARABLE
from lib.core.stats import (
    regular_sample,
    sigma_clipped_median,
)
from lib.frame.file import (
    BAD,
    NODATA,
    SOURCE,
    Frame,
    FrameRejected,
)


def subtract_sky(
    image: np.ndarray,
    mask: np.ndarray,
    sky: np.ndarray | None = None,
    order: int = 0,
    light: np.ndarray | None = None,
) -> tuple[np.ndarray, float, float, float]:
    """Subtract the sky from an image.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
        SOURCE is set where sources hide the sky.
    sky : ndarray of float32, shape (ny, nx), optional
        Master sky, 1 in the median. Without it the level alone is subtracted.
    order : int
        Degree of the surface by which the sky of this frame differs from the master: 1 for the
        gradient that comes and goes with moon and twilight, 0 for none.
    light : ndarray of float32, shape (ny, nx), optional
        Light of the target that fills part of the frame: it stays in the image, level and
        surface are those without it.

    Returns
    -------
    image : ndarray of float32, shape (ny, nx)
        ``image - level * sky * (1 + surface)``, in which level is the clipped median of
        ``image / sky`` over the pixels free of sources, and the surface is fitted to the medians
        of ``image / sky / level - 1`` in squares of 64 pixels.
    level, noise : float
    tilt : float
        Maximum difference within the surface, as a fraction of the level.

    Raises
    ------
    FrameRejected
        NO_SKY_PIXEL.
    """
    sources = mask & SOURCE > 0
    flat_sky = image if light is None else image - light
    if sky is not None:
        flat_sky = flat_sky / sky
    halo = large_halo(flat_sky, mask)
    if halo is not None:
        sources |= halo
        mask = mask | halo.view(np.uint8) * np.uint8(SOURCE)
    level, noise = sky_level(flat_sky, mask, sources)
    if not np.isfinite(level):
        raise FrameRejected("NO_SKY_PIXEL", f"{sources.mean():.2f} of the pixels are sources")
    tilt = 0.0
    if order and level > 0:
        free = mask & NOT_SKY == 0
        blocks = block_sky(flat_sky, free, every=3)
        if halo is not None and not surrounds(blocks):
            order = 0
        coefficients = fit_surface(blocks / np.float32(level) - 1, order)
        model = surface(level * coefficients, image.shape)
        model += np.float32(level)
        # The constant term belongs to the level.
        level *= 1 + coefficients[0, 0]
        coefficients[0, 0] = 0
        tilt = float(np.ptp(surface(coefficients, (129, 129))))
        if sky is not None:
            model *= sky
        image = np.subtract(image, model, out=model)
        rest = image if light is None else image - light
        _, noise, _ = sigma_clipped_median(regular_sample(rest)[regular_sample(free)])
    else:
        image = image - (np.float32(level) if sky is None else np.float32(level) * sky)
    np.copyto(image, 0, where=mask & NODATA > 0)
    return image, level, noise, tilt


def surrounds(blocks: np.ndarray) -> bool:
    """Return whether the known squares extend to all sides, so that a plane is an interpolation."""
    known = np.isfinite(blocks)
    if known.sum() < 8:
        return False
    reaches = [np.ptp(at) / size for at, size in zip(np.nonzero(known), known.shape, strict=True)]
    return min(reaches) > 0.6


def sky_mode(master: Frame | None) -> str:
    """Return the kind of sky that is subtracted from a frame.

    Parameters
    ----------
    master : Frame, optional
        Or a `MasterSky`.

    Returns
    -------
    {'median', 'master', 'separated', 'plane'}
        separated: the master without light that moves with the stars; plane: a master whose large
        scales may be the target's, and are left to it, but for a plane.
    """
    if master is None:
        return "median"
    if not isinstance(master, MasterSky) or master.own_light is None:
        return "master"
    return "plane" if master.header.get("EXTKIND") == INSEPARABLE else "separated"


def skysub_frame(
    frame: Frame, sky: Frame | None = None, order: int = 0, fringe_scale: int | str = 0
) -> Frame:
    """Subtract the sky from a frame; keep the header true.

    Parameters
    ----------
    frame : Frame
    sky : Frame, optional
        Master sky. If it could not be made it is not used, and the header says so.
    order : int
        See `subtract_sky`.
    fringe_scale : int or 'auto'
        Structure of the master sky below this size [px] is fitted on its own; 0: it is not; auto:
        where it is not noise and surely differs from what scales with the sky.

    Returns
    -------
    Frame
        Header SKYSUB holds the level taken away, SATURATE is lowered by it.
    """
    header = frame.header
    master = sky if sky is not None and not sky.rejected else None
    if master is not None and master.image.shape != frame.image.shape:
        raise FrameRejected("SKY_SHAPE", f"{master.image.shape} for a frame of {frame.image.shape}")
    # Pixels that stand out in the sky at every pointing are defects of the detector.
    mask = frame.mask if master is None else frame.mask | (master.mask & BAD)
    mode = sky_mode(master)
    light = None
    own_light = master.own_light if isinstance(master, MasterSky) else None
    if own_light is not None and mode == "separated":
        light = light_image(own_light, frame.image.shape)
        light *= np.float32(header["SKYCTS"])
    image, level, noise, tilt = subtract_sky(
        frame.image, mask, None if master is None else master.image, order, light
    )
    scale = fringe_scale_of(fringe_scale, frame.image.shape)
    if master is not None and scale and level > 0:
        rest = (image if light is None else image - light) / np.float32(level)
        free, sure = mask & NOT_SKY == 0, fringe_scale == "auto"
        told = noise / level, master.header
        excess = 0.0
        if not sure or may_have_excess(rest, free, master.image, scale, *told):
            fringe = fringe_pattern(master.image, scale)
            excess = fringe_excess(rest, free, fringe, *pattern_noise(*told), sure=sure)
            image = image - np.float32(excess * level) * fringe
            image[mask & NODATA > 0] = 0
        header["FRINGE"] = (1 + excess, "fringes, relative to those of the master sky")
    header["SKYMODE"] = (mode, "what was subtracted")
    if master is not None and mode in ("separated", "plane"):
        for key in ("EXTLIGHT", "EXTZERO", "EXTZERR"):
            if key in master.header:
                header[key] = (master.header[key], master.header.comments[key])
    if sky is not None and sky.rejected:
        header["SKYNOTE"] = (sky.reason[:50], "why no master sky")
    header["SKYSUB"] = (level, "sky level subtracted, in BUNIT")
    header["SKYTILT"] = (tilt, "own surface of this frame, largest difference")
    header["SKYCTS"] = (level, "sky level, in BUNIT")
    header["SKYNOISE"] = (noise, "pixel noise of the sky, in BUNIT")
    header["SATURATE"] -= level
    return Frame(image, mask, header)
