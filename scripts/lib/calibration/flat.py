"""Master flat: the relative response of the pixels, 1 in the median."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ccdproc
import numpy as np
from astropy.io import fits

from lib.calibration.corrections import subtract_bias_and_dark
from lib.calibration.detector import assemble, gain_map
from lib.calibration.masters import (
    Input,
    combine_inputs,
    master_header,
    pixel_noise,
    rejected_master,
    shapes_of,
    unstable_pixels,
)
from lib.calibration.measuredgain import (
    amplifier_samples,
    measure_gains,
    record_gains,
    relative_gains,
    with_gains,
)
from lib.core.settings import FlatSettings
from lib.core.stats import regular_sample
from lib.frame.file import BAD, NODATA, SATURATED, Frame, FrameRejected
from lib.night.facts import FrameFacts

MOST_SATURATED = 0.1
"""[fraction of the pixels] A flat with more saturated ones is left out."""

DEFAULTS = FlatSettings()


def _check_masters(bias: Frame | None, dark: Frame | None) -> None:
    """Raise FrameRejected where a master was rejected."""
    for kind, master in (("BIAS", bias), ("DARK", dark)):
        if master is not None and master.rejected:
            raise FrameRejected(f"BAD_{kind}", master.reason)


def _known_bad_pixels(shape: tuple[int, ...], bias: Frame | None, dark: Frame | None) -> np.ndarray:
    """Return a mask of `shape` with the bad pixels of the masters."""
    mask = np.zeros(shape, np.uint8)
    for master in (bias, dark):
        if master is not None:
            mask |= master.mask & BAD
    return mask


def make_flat(
    paths: Sequence[str | Path],
    facts: Sequence[FrameFacts],
    bias: Frame | None = None,
    dark: Frame | None = None,
    settings: FlatSettings = DEFAULTS,
    low_response: float = 0.3,
    measure_gain: bool = False,
) -> Frame:
    """Combine raw flats of one filter.

    Parameters
    ----------
    paths : list of path-like
    facts : list of FrameFacts
        The night log's facts of each.
    bias, dark : Frame, optional
        Masters.
    settings : FlatSettings
        `amin`, `amax`: a flat's level must be within these fractions of saturation;
        `largest_gradient`: see `judge_shape`; `deviant`: see `deviant_pixels`, such pixels are
        marked BAD; `clip`: see `lib.core.combination.clipped_mean`.
    low_response : float
        Pixels below this response are marked NODATA.
    measure_gain : bool
        Whether amplifiers are joined by the gains that the flats tell, not those of `facts`.

    Returns
    -------
    Frame
        Response, 1 in the median of the good pixels. The header has the gains that the flats tell,
        see `lib.calibration.measuredgain.record_gains`.
    """
    names = [one.frame for one in facts]
    shape = tuple(facts[0].shape)
    told = facts[0]
    measure_gain = measure_gain or not told.gain
    samples: dict[int, list[np.ndarray]] = {}
    levels: dict[int, float] = {}
    if measure_gain:  # a gain of 1 until the flats have told
        facts = [with_gains(one, [1.0] * len(one.amplifiers)) for one in facts]
    try:
        _check_masters(bias, dark)
        mean, extent, inputs = combine_inputs(
            names,
            flat_reader(paths, facts, bias, dark, settings, samples, levels),
            lambda alive, planes: judge_shape(alive, planes, settings.largest_gradient),
            shape,
            clip=settings.clip,
        )
    except FrameRejected as why:
        return rejected_master("flat", facts[0], names, why)
    used = [samples[i] for i, one in enumerate(inputs) if not one.why and i in samples]
    gains = measure_gains(used, bias, told)
    if measure_gain and gains:
        mean *= relative_gains(told, [one.gain or 1.0 for one in gains])
    mask = _known_bad_pixels(shape, bias, dark)
    finite = np.isfinite(mean)
    scale = normalise(mean, finite & (mask == 0) & (mean > low_response))
    mask[~finite] |= BAD
    mean[~finite] = 1.0
    count = sum(not one.why for one in inputs)
    cards = mark_defects(mask, mean, extent, count, settings.deviant, low_response)
    header = master_header("flat", facts[0], inputs, "")
    header["NOISE"] = (float(pixel_noise(mean)), "pixel-to-pixel scatter of the response")
    header.update(cards)
    if gains:
        record_gains(header, gains, told)
    if told.half:
        gain = np.mean([one.gain or 1.0 for one in gains]) if measure_gain and gains else 1.0
        record_level(header, inputs, facts, levels, float(scale * gain))
    return Frame(mean, mask, header)


def record_level(
    header: fits.Header,
    inputs: Sequence[Input],
    facts: Sequence[FrameFacts],
    levels: Mapping[int, float],
    scale: float,
) -> None:
    """Write into the header of a chip's flat how bright it was: the same light fell on all chips.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Receives FLATLEV, and FLATSET, which is the same for chips whose flats are of the same
        exposures.
    inputs : list of Input
    facts : list of FrameFacts
    levels : mapping of int to float
        Level of each input [electron].
    scale : float
        Level of the master in units of its inputs'.
    """
    used = [i for i, one in enumerate(inputs) if not one.why and i in levels]
    if not used:
        return
    names = "\n".join(sorted(facts[i].raw for i in used))
    header["FLATLEV"] = (scale * float(np.median([levels[i] for i in used])), "[electron] level")
    header["FLATSET"] = (hashlib.sha256(names.encode()).hexdigest()[:16], "its exposures")


def mark_defects(
    mask: np.ndarray,
    mean: np.ndarray,
    extent: np.ndarray,
    count: int,
    deviant: float,
    low_response: float,
) -> dict[str, tuple[int | str, str]]:
    """Mark the pixels that a flat cannot correct.

    Parameters
    ----------
    mask : ndarray of uint8, shape (ny, nx)
        Receives NODATA where the response is low or the detector unlit, BAD where the response
        is off its surroundings or unstable.
    mean, extent : ndarray of float32, shape (ny, nx)
        Response, and its scatter, see `lib.core.combination.clipped_mean`.
    count : int
        Flats combined.
    deviant, low_response
        See `make_flat`.

    Returns
    -------
    dict
        Cards of the header: how many of each, and the lit area.
    """
    mask[mean < low_response] |= NODATA
    y0, y1, x0, x1 = illuminated_area(mean)
    unlit = np.ones(mask.shape, bool)
    unlit[y0:y1, x0:x1] = False
    mask[unlit] |= NODATA
    lit = mask & NODATA == 0
    odd = lit & deviant_pixels(mean, deviant)
    # The photon noise of a flat goes as the root of its light.
    unstable = lit & unstable_pixels(extent, np.sqrt(np.maximum(mean, low_response)), count)
    mask[odd | unstable] |= BAD
    return {
        "NLOW": (int((mask & NODATA > 0).sum()), f"pixels of response below {low_response}"),
        "ILLUM": (f"[{y0}:{y1},{x0}:{x1}]", "lit rows and columns, from 0, ends excluded"),
        "NODD": (int(odd.sum()), f"pixels {deviant:.0%} off the median around"),
        "NUNSTABL": (int((unstable & ~odd).sum()), "pixels that scatter between the inputs"),
    }


def flat_reader(
    paths: Sequence[str | Path],
    facts: Sequence[FrameFacts],
    bias: Frame | None,
    dark: Frame | None,
    settings: FlatSettings,
    samples: dict[int, list[np.ndarray]],
    levels: dict[int, float],
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Return the function that reads, judges and normalises one raw flat.

    Parameters
    ----------
    paths, facts, bias, dark, settings
        See `make_flat`.
    samples : dict of int to list of ndarray
        Receives the middle of each amplifier of each flat [adu], where no pedestal is left.
    levels : dict of int to float
        Receives the level of each flat [electron].

    Returns
    -------
    callable
        See `lib.calibration.masters.combine_inputs`; saturated pixels are NaN.
    """
    bias_level = 0.0
    if bias is not None and bias.image is not None:
        bias_level = float(np.median(regular_sample(bias.image)))

    def read(i: int) -> tuple[np.ndarray, np.ndarray]:
        raw = assemble(paths[i], facts[i])
        ccd = raw.ccd
        saturate = raw.saturate - raw.pedestal - bias_level
        saturated = float((ccd.flags & SATURATED > 0).mean())
        ccd = subtract_bias_and_dark(ccd, facts[i].exptime, bias, dark)
        if saturated > MOST_SATURATED:
            raise FrameRejected("SATURATED", f"{saturated:.0%} of the pixels")
        level = float(np.median(regular_sample(ccd.data)))
        least, most = settings.amin * saturate, settings.amax * saturate
        if not least <= level <= most:
            raise FrameRejected("LEVEL", f"{level:.0f} DN not in {least:.0f}..{most:.0f}")
        if not (facts[i].has_pedestal and bias is None and dark is None):
            samples[i] = amplifier_samples(ccd.data, ccd.flags, facts[i])
        image = ccdproc.gain_correct(ccd, gain_map(facts[i]), add_keyword=False).data
        levels[i] = normalise(image, ccd.flags == 0)
        image[ccd.flags & SATURATED > 0] = np.nan
        return image, ccd.flags

    return read


def judge_shape(inputs: Sequence[Input], planes: Sequence[np.ndarray], largest: float) -> None:
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
    usual = np.nanmedian(shapes, axis=0)
    for one, shape in zip(inputs, shapes, strict=True):
        rms = float(np.sqrt(np.nanmean((shape / usual - 1) ** 2)))
        if rms > largest:
            one.why = f"GRADIENT: {rms:.3f} > {largest}"


def normalise(image: np.ndarray, good: np.ndarray) -> float:
    """Divide a flat by its median over the good pixels, in place.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    good : ndarray of bool, shape (ny, nx)

    Returns
    -------
    float
        The median; NaN where no pixel is good.
    """
    sample = regular_sample(image)[regular_sample(good)]
    level = float(np.median(sample)) if sample.size else np.nan
    image /= np.float32(level)
    return level


def deviant_pixels(image: np.ndarray, limit: float = 0.3, reach: int = 4) -> np.ndarray:
    """Return the pixels that differ from the median of those around by a large factor.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Response, 1 in the median.
    limit : float
        Maximum difference, as a fraction of the median of the surroundings.
    reach : int
        The median is taken over a square of ``2 * reach + 1`` pixels.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    ny, nx = image.shape
    # Only what differs from a neighbour too is worth a median.
    suspect = np.zeros(image.shape, bool)
    half = limit / 2
    for axis in (0, 1):
        step = np.abs(np.diff(image, axis=axis))
        first = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        jump = step > half * np.abs(np.maximum(image[first], image[second]))
        suspect[first] |= jump
        suspect[second] |= jump
    y, x = np.nonzero(suspect)
    offsets = np.arange(-reach, reach + 1)
    deviant = np.zeros(image.shape, bool)
    for start in range(0, y.size, 100_000):
        part = slice(start, start + 100_000)
        rows = (y[part, None, None] + offsets[:, None]).clip(0, ny - 1)
        columns = (x[part, None, None] + offsets[None, :]).clip(0, nx - 1)
        around = np.median(image[rows, columns].reshape(rows.shape[0], -1), axis=1)
        here = image[y[part], x[part]]
        deviant[y[part], x[part]] = np.abs(here - around) > limit * np.abs(around)
    return deviant


def illuminated_area(response: np.ndarray, least: float = 0.5, margin: int = 2) -> list[int]:
    """Return the part of a detector that the sky reaches.

    Parameters
    ----------
    response : ndarray of float32, shape (ny, nx)
        Flat, 1 in the median.
    least : float
        Outer rows and columns whose median response is lower are cut off.
    margin : int
        Rows and columns cut off beyond those at each dark edge, as the edge moves.

    Returns
    -------
    list of int
        y0, y1, x0, x1 (0-based, ends excluded); the whole where nothing is left.
    """
    ny, nx = response.shape
    y0, y1, x0, x1 = 0, ny, 0, nx
    for _ in range(2):  # the second round without the dark rows in the columns' medians
        lit = np.flatnonzero(np.median(response[:, x0:x1], axis=1) >= least)
        if lit.size == 0:
            return [0, ny, 0, nx]
        y0, y1 = int(lit[0]), int(lit[-1]) + 1
        lit = np.flatnonzero(np.median(response[y0:y1], axis=0) >= least)
        if lit.size == 0:
            return [0, ny, 0, nx]
        x0, x1 = int(lit[0]), int(lit[-1]) + 1
    y0, x0 = y0 + margin * (y0 > 0), x0 + margin * (x0 > 0)
    y1, x1 = y1 - margin * (y1 < ny), x1 - margin * (x1 < nx)
    return [y0, y1, x0, x1]
