"""How far the large scales of a master flat can be trusted: its pedestal, and other light."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.calibration.detector import assemble
from lib.calibration.masters import block_medians, pixel_noise
from lib.core.stats import regular_sample
from lib.frame.file import NODATA, Frame, FrameRejected, add_notes
from lib.night.facts import FrameFacts

log = logging.getLogger("autoproc")

LIGHTS_DIFFER = 0.01
"""[fraction] rms difference of the large scales of two flats from which on it is told."""

GAIN_ERROR = 0.05
"""[fraction] by which the gain of a header may be wrong."""

LIGHT_NAMES = {"sky": "sky", "dome": "dome", "": "plain"}


def pedestal_bound(
    paths: Sequence[str | Path], facts: Sequence[FrameFacts]
) -> tuple[float, float] | None:
    """Return how large the pedestal in some flats may be, and their level [DN].

    Light has the noise of its photons, a pedestal none: the difference of two flats shows how
    much of their level is light (photon transfer, Janesick 2001, Scientific CCDs, ch. 2).

    Parameters
    ----------
    paths : list of path-like
        Raw flats.
    facts : list of FrameFacts

    Returns
    -------
    tuple of float, or None
        None where fewer than two can be read, or the gain is unknown.
    """
    if not facts[0].gain:
        return None
    images = []
    for path, one in zip(paths, facts, strict=True):
        try:
            ccd = assemble(path, one).ccd
        except FrameRejected:
            continue
        images.append((ccd.data, one))
        if len(images) == 2:
            break
    if len(images) < 2:
        return None
    (first, one), (second, _) = images
    levels = [float(np.median(regular_sample(image))) for image in (first, second)]
    if not min(levels) > 0:
        return None
    ratio = levels[0] / levels[1]
    variance = pixel_noise(first - np.float32(ratio) * second) ** 2
    electrons = variance * one.gain**2 - (1 + ratio**2) * one.rdnoise**2
    light = max(electrons, 0.0) / (one.gain * (1 + ratio))
    bound = max(levels[0] - light, 0.0) + GAIN_ERROR * light
    return min(bound, levels[0]), levels[0]


def pedestal_error(response: np.ndarray, pedestal: float, level: float) -> float:
    """Return the rms error of a flat of which a part of the level is no light.

    Parameters
    ----------
    response : ndarray, shape (ny, nx)
        The flat, 1 in the median.
    pedestal, level : float
        Part of the level that is no light, and the level [DN].

    Returns
    -------
    float
        Fraction. A response r is measured as (r (L - P) + P) / L.
    """
    shape = block_medians(response)
    part = min(pedestal / level, 0.9)
    true = np.maximum((shape - part) / (1 - part), 0.05)
    return float(np.nanstd(shape / true / np.nanmedian(shape / true)))


def note_pedestal(flat: Frame, paths: Sequence[str | Path], facts: Sequence[FrameFacts]) -> None:
    """Write the possible error of a flat without bias and dark into its header.

    Parameters
    ----------
    flat : Frame
        Flat; its header receives FLATERR and a note.
    paths : list of path-like
        Raw flats.
    facts : list of FrameFacts
    """
    if flat.rejected or not facts[0].has_pedestal:
        return
    found = pedestal_bound(paths, facts)
    if found is None:
        add_notes(flat.header, ["no bias, no dark: its pedestal stays in, how much is not known"])
        return
    pedestal, level = found
    error = pedestal_error(flat.image, pedestal, level)
    flat.header["FLATERR"] = (round(error, 5), "rms error on large scales, as a fraction")
    add_notes(
        flat.header,
        [
            f"no bias, no dark: {pedestal / level:.0%} may be pedestal, "
            f"magnitudes off {1.0857 * error:.3f} rms"
        ],
    )


def compare_light(flat: Frame, other: Frame, source: str, other_source: str) -> Frame:
    """Compare a flat with one of other light, which takes its place where it was rejected.

    Parameters
    ----------
    flat, other : Frame
        Masters of one filter.
    source, other_source : {'sky', 'dome', ''}
        Their light sources.

    Returns
    -------
    Frame
        `flat`, a note in its header where the two differ on large scales; or `other`.
    """
    light, other_light = LIGHT_NAMES[source], LIGHT_NAMES[other_source]
    if other.rejected:
        return flat
    if flat.rejected:
        other.header["FLATLITE"] = (other_light, "light of the flats used")
        add_notes(
            other.header, [f"{other_light} flats: the {light} ones cannot be used ({flat.reason})"]
        )
        return other
    good = (flat.mask | other.mask) & NODATA == 0
    ratio = np.where(good, flat.image / np.where(good, other.image, 1), np.nan)
    shape = block_medians(ratio, every=1)
    shape /= np.nanmedian(shape)
    rms = float(np.nanstd(shape))
    flat.header["FLATDIFF"] = (round(rms, 5), f"rms of large scales against {other_light} flats")
    log.info("%s flat: large scales differ by %.4f rms from the %s flat", light, rms, other_light)
    if rms > LIGHTS_DIFFER:
        low, high = np.nanmin(shape) - 1, np.nanmax(shape) - 1
        add_notes(
            flat.header,
            [
                f"large scales off the {other_light} flats by {rms:.1%} rms "
                f"({low:+.1%} to {high:+.1%})"
            ],
        )
    return flat
