"""The gain of a camera as the night's flats tell it, beside that of the header."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from astropy.io import fits

from lib.calibration.photontransfer import PhotonTransfer, gain_of_flats
from lib.frame.file import Frame, FrameRejected, add_notes
from lib.night.electronics import DISAGREEMENT
from lib.night.facts import Amplifier, FrameFacts

SAMPLE_SIDE = 512
"""[pixel] side of the part of an amplifier that is looked at, in its middle."""

SAMPLE_PART = 0.7
"""The same as a fraction of its rows and columns, at most: edges are vignetted."""

MOST_SCATTER = 0.2
"""[fraction] pairs of flats whose gains differ by more tell none."""


def amplifier_samples(image: np.ndarray, flags: np.ndarray, facts: FrameFacts) -> list[np.ndarray]:
    """Return the middle of each amplifier, flagged pixels NaN.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    flags : ndarray of uint8, shape (ny, nx)
    facts : FrameFacts
    """
    samples = []
    for amplifier in facts.amplifiers:
        parts = tuple(_middle(*span) for span in _place(amplifier))
        samples.append(np.where(flags[parts] > 0, np.float32(np.nan), image[parts]))
    return samples


def _place(amplifier: Amplifier) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first row and rows, first column and columns of an amplifier in the frame."""
    return (amplifier.origin[0], amplifier.size[0]), (amplifier.origin[1], amplifier.size[1])


def _middle(start: int, length: int) -> slice:
    side = max(1, min(SAMPLE_SIDE, int(SAMPLE_PART * length)))
    first = start + (length - side) // 2
    return slice(first, first + side)


def read_variance(bias: Frame | None, amplifier: Amplifier, facts: FrameFacts) -> float:
    """Return the variance of the read noise of an amplifier [adu^2]."""
    if bias is not None and bias.header.get("RDNOISE1", 0) > 0:
        return float(bias.header["RDNOISE1"]) ** 2
    gain = amplifier.gain or facts.gain or 1.0
    return ((amplifier.rdnoise or facts.rdnoise) / gain) ** 2


def measure_gains(
    samples: Sequence[Sequence[np.ndarray]], bias: Frame | None, facts: FrameFacts
) -> list[PhotonTransfer] | None:
    """Measure the gain of each amplifier.

    Parameters
    ----------
    samples : sequence of sequence of ndarray
        `amplifier_samples` of each flat used [adu], bias subtracted, in the order of time.
    bias : Frame or None
        Master bias; tells the read noise.
    facts : FrameFacts
        Facts of one of the flats.

    Returns
    -------
    list of PhotonTransfer, or None
        None where the flats do not tell: fewer than two, or faint, or they disagree.
    """
    found = [
        gain_of_flats([one[i] for one in samples], read_variance(bias, amplifier, facts))
        for i, amplifier in enumerate(facts.amplifiers)
    ]
    if any(one.gain is None or one.scatter > MOST_SCATTER for one in found):
        return None
    return found


def record_gains(header: fits.Header, found: Sequence[PhotonTransfer], facts: FrameFacts) -> None:
    """Write the gains into the header of a master flat, and a note where the night log has others.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Receives GAINM1, ... of each amplifier, GAINPAIR.
    found : sequence of PhotonTransfer
    facts : FrameFacts
    """
    worst = (1.0, 0.0, 0.0)
    for number, (one, amplifier) in enumerate(zip(found, facts.amplifiers, strict=True), 1):
        gain = one.gain or 0.0
        header[f"GAINM{number}"] = (round(gain, 4), "[electron/adu] measured in these flats")
        told = amplifier.gain or facts.gain
        if told > 0 and gain > 0:
            worst = max(worst, (max(gain / told, told / gain), gain, told))
    header["GAINPAIR"] = (found[0].flat_pairs, "pairs of flats in which the gain was measured")
    factor, gain, told = worst
    if factor > DISAGREEMENT:
        add_notes(
            header,
            [f"gain: {gain:.3g} e/DN measured in these flats, header or instrument file: {told:g}"],
        )


def gains_of(header: fits.Header) -> list[float]:
    """Return the gains that a master flat has of its amplifiers; empty where it has none."""
    gains: list[float] = []
    while (gain := header.get(f"GAINM{len(gains) + 1}")) is not None:
        gains.append(float(gain))
    return gains


def with_gains(facts: FrameFacts, gains: Sequence[float]) -> FrameFacts:
    """Return facts whose amplifiers have these gains."""
    amplifiers = [
        replace(one, gain=gain) for one, gain in zip(facts.amplifiers, gains, strict=True)
    ]
    return replace(facts, amplifiers=amplifiers, gain=float(np.mean(gains)))


def with_measured_gain(
    facts: FrameFacts, flat: Frame | None, wanted: bool
) -> tuple[FrameFacts, list[str]]:
    """Return the facts of a frame with the gain of its flat where it has none, or it is wanted.

    Parameters
    ----------
    facts : FrameFacts
    flat : Frame or None
        Master flat of the frame.
    wanted : bool
        Whether a measured gain is wanted rather than that of the header.

    Returns
    -------
    facts : FrameFacts
    notes : list of str

    Raises
    ------
    FrameRejected
        NO_GAIN: neither the header nor a flat tells it.
    """
    if facts.gain > 0 and not wanted:
        return facts, []
    gains = gains_of(flat.header) if flat is not None else []
    if len(gains) == len(facts.amplifiers):
        told = f"gain: {np.mean(gains):.3g} e/DN of the flats is used"
        beside = f", not {facts.gain:g}" if facts.gain > 0 else ""
        return with_gains(facts, gains), [told + beside]
    if facts.gain > 0:
        return facts, [f"gain: no flat tells it, {facts.gain:g} of the header is used"]
    raise FrameRejected("NO_GAIN", "neither header nor flats; see gain of the instrument file")


def relative_gains(facts: FrameFacts, gains: Sequence[float]) -> np.ndarray:
    """Return the gain of each pixel relative to the mean of the amplifiers.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    relative = np.ones(tuple(facts.shape), np.float32)
    for amplifier, gain in zip(facts.amplifiers, gains, strict=True):
        (y, rows), (x, columns) = _place(amplifier)
        relative[y : y + rows, x : x + columns] = gain / np.mean(gains)
    return relative
