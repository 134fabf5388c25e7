"""Sources too faint for a single frame, and defects, found on the sum of all frames."""

from typing import Any

import numpy as np

from lib.background.lightsquares import light_image
from lib.background.pointings import SAME_POINTING_PIXELS
from lib.background.registration import offset, spectrum
from lib.background.sky import find_sources, sky_noise, surface
from lib.background.skyframes import SkyFrames
from lib.calibration.masters import release
from lib.frame.file import (
    BAD,
    NODATA,
    SATURATED,
    SOURCE,
)
from lib.frame.step import log

ENOUGH_POINTINGS = 40
"""Number of pointings that suffices to distinguish defects from sources."""

MOST_BY_CHANCE = 1e-3
"""Part of the pixels in which stars may stand out at every pointing by chance; with more, defects
cannot be distinguished from them."""

LIT = 3.0
"""[noise] Where the light of a target is brighter what its model lacks stands out everywhere:
defects are not looked for."""

UNDITHERED = {"sigma": 14.0, "hole": 8.0, "threshold": 0.9}
"""For frames that all have one pointing: least smoothing [px], as anything smaller may be a source;
the hole in its kernel; and the threshold [sigma] for sources in their mean, about S/N 4.

The sky below a star can only come from its surroundings. With the hole it does so everywhere:
without it, the smoothing removes a good part of the noise of empty pixels, and the noise of empty
apertures was two thirds of that of stars."""


class DitheredSum:
    """Sum of the frames of one target, each moved so that its sources lie on the others'.

    Parameters
    ----------
    brightest : float
        The excess is clipped at this value, so that a hot pixel or a cosmic ray in one frame
        does not look like a source in the sum.
    """

    def __init__(self, brightest: float = 3.0) -> None:
        self.brightest = brightest
        self.reference: np.ndarray | None = None
        self.shifts: list[Any] = []

    def add(self, excess: np.ndarray, usable: np.ndarray, sources: np.ndarray) -> Any:
        """Count significant pixels, unless a frame of this pointing was counted already.

        Parameters
        ----------
        excess : ndarray of float32, shape (ny, nx)
            Image less its sky, in units of its noise.
        usable : ndarray of bool, shape (ny, nx)
        sources : ndarray of bool, shape (ny, nx)
            Sources known from the frame itself.

        Returns
        -------
        dy, dx : int or None
            None where the frame could not be registered, or lies too far away.
        """
        limit = np.float32(self.brightest)
        bright = excess.clip(0, limit)
        np.copyto(bright, 0, where=~sources)
        if self.reference is None:
            shift: tuple[int, ...] | None = (0, 0) if bright.any() else None
            if shift:
                self.reference = spectrum(bright)
                self.margin = tuple(size // 4 for size in excess.shape)
                size = [n + 2 * m for n, m in zip(excess.shape, self.margin, strict=True)]
                self.total, self.depth = np.zeros(size, np.float32), np.zeros(size, np.uint16)
        else:
            shift = offset(self.reference, bright)
        if shift and any(abs(s) > m for s, m in zip(shift, self.margin, strict=True)):
            shift = None
        self.shifts.append(shift)
        if shift:
            place = self.place(shift, excess.shape)
            moved = excess.clip(-limit, limit)
            np.copyto(moved, 0, where=~usable)
            self.total[place] += moved
            # With another type numpy would convert piece by piece, which is slow.
            self.depth[place] += usable.astype(np.uint16)
        return shift

    def place(self, shift: tuple[int, ...], shape: tuple[int, ...]) -> Any:
        """Return the part of the sum that a frame covers."""
        return tuple(
            slice(m - s, m - s + n) for m, s, n in zip(self.margin, shift, shape, strict=True)
        )

    def sources(self, shape: tuple[int, ...], threshold: float = 1.5) -> list[Any]:
        """Return for each frame the pixels in which the sum shows a source, None if unknown."""
        if self.reference is None or sum(shift is not None for shift in self.shifts) < 2:
            return [None for _ in self.shifts]
        seen = self.depth > 0
        # Noise 1 everywhere, whatever the number of frames.
        self.total /= np.sqrt(np.maximum(self.depth, 1), dtype=np.float32)
        found = find_sources(self.total, ~seen, threshold)
        return [shift and found[self.place(shift, shape)] for shift in self.shifts]


class Persistence:
    """Pixels that stand out at all pointings: they are defects.

    Parameters
    ----------
    shape : tuple of int
    sigma : float
        Excess, in units of the noise, that makes a pixel stand out.
    line_sigma : float
        Excess that makes a segment of a column or row stand out, if more than half of its pixels
        show it.
    length : int
        Length of such a segment [px], at most 255.
    apart : float
        Pointings nearer to each other [px] show the same sources at the same pixels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        sigma: float = 4.0,
        line_sigma: float = 1.5,
        length: int = 64,
        apart: float = SAME_POINTING_PIXELS,
    ) -> None:
        self.sigma, self.line_sigma, self.apart = sigma, line_sigma, apart
        self.pointings: list[tuple[str, tuple[int, ...]]] = []
        self.high, self.low, self.hidden = np.zeros((3, *shape), np.int16)
        # Fraction of the pixels of each frame that stand out.
        self.shares: list[float] = []
        # Per axis: where pieces begin, how often each was high, and low.
        self.lines = []
        for size, across in (shape, shape[::-1]):
            starts = [*range(0, size - length, length), max(0, size - length)]
            pieces = [slice(start, min(start + length, size)) for start in starts]
            self.lines.append((pieces, *np.zeros((2, len(pieces), across), np.int16)))

    def add(
        self, excess: np.ndarray, usable: np.ndarray, target: str, shift: tuple[int, ...]
    ) -> None:
        """Count what stands out, unless a frame of this pointing was counted."""
        for other, place in self.pointings:
            if other == target and np.hypot(*np.subtract(place, shift)) < self.apart:
                return
        self.pointings.append((target, shift))
        self.shares.append(np.count_nonzero(excess > self.line_sigma) / excess.size)
        # They are few: counting only those is faster.
        for times, there in (
            (self.high, usable & (excess > self.sigma)),
            (self.low, usable & (excess < -self.sigma)),
            (self.hidden, ~usable),
        ):
            times.reshape(-1)[np.flatnonzero(there)] += 1
        above, below = excess > self.line_sigma, excess < -self.line_sigma
        for axis, (pieces, high, low) in enumerate(self.lines):
            for beyond, times in ((above, high), (below, low)):
                values = np.moveaxis(beyond, axis, 0).view(np.uint8)
                for n, piece in enumerate(pieces):
                    # A piece has no more pixels than a byte can count.
                    number = values[piece].sum(axis=0, dtype=np.uint8)
                    times[n] += number > (piece.stop - piece.start) / 2

    def defects(self, least: int = 3, share: float = 0.9) -> np.ndarray:
        """Return the pixels that stood out the same way in nearly all of 3 pointings or more.

        There are none in a field so crowded that stars would make as many by chance.
        """
        often = share * len(self.pointings)
        if self.shares and np.mean(self.shares) ** max(least, often) > MOST_BY_CHANCE:
            log.warning("sources everywhere: defects are not looked for")
            return np.zeros(self.high.shape, bool)
        looks = len(self.pointings) - self.hidden
        need = np.maximum(np.ceil(share * np.arange(len(self.pointings) + 1)), least)
        need = need.astype(np.int16)[looks]
        found = (self.high >= need) | (self.low >= need)
        need = max(least, share * len(self.pointings))
        for bad, (pieces, high, low) in zip((found, found.T), self.lines, strict=True):
            for n, piece in enumerate(pieces):
                bad[piece, (high[n] >= need) | (low[n] >= need)] = True
        return found & (looks > 0)


def find_deep_sources(
    frames: SkyFrames, smooth: np.ndarray, deep: bool
) -> tuple[np.ndarray, int, list[Any]]:
    """Search the sky-subtracted frames for sources and defects that were not known before.

    Parameters
    ----------
    frames : SkyFrames
        Their planes become NaN where a source was missed, and in defects.
    smooth : ndarray of float32, shape (ny, nx)
        The sky, without pixel structure.
    deep : bool
        Look for sources that only the sum of the frames of a target shows.

    Returns
    -------
    defects : ndarray of bool, shape (ny, nx)
        Pixels that stand out wherever the telescope points, see `Persistence`.
    number : int
        Frames in which deep sources were masked.
    places : list of (target, shift)
        See `pointing_groups`. A frame that was not looked at has those of the one before.
    """
    planes, good = frames.planes, frames.good
    places: list[Any] = [None] * len(good)
    persistence = Persistence(smooth.shape)
    targets: dict[str, list[int]] = {}
    for n in range(0, len(good), 1 if deep else max(1, len(good) // ENOUGH_POINTINGS)):
        targets.setdefault(good[n][1].get("TARGET", ""), []).append(n)
    number = 0
    for target, members in targets.items():
        together = DitheredSum()
        for n in members:
            excess, usable, sources, lit = frame_excess(frames, n, smooth)
            shift = together.add(excess, usable, sources)
            log.info("%s shift %s", good[n][2].name, shift or "unknown")
            places[n] = (target, shift)
            if shift:
                if lit is not None:
                    usable &= ~lit
                    excess[lit] = 0
                persistence.add(excess, usable, target, shift)
        if deep:
            masks = together.sources(smooth.shape)
            for n, mask in zip(members, masks, strict=True):
                if mask is not None:
                    planes[n][mask] = np.nan
                    release(planes)
                    number += 1
    defects = persistence.defects()
    if defects.any():
        for plane in planes:
            plane[defects] = np.nan
            release(plane)
    for n in range(1, len(places)):
        places[n] = places[n] or places[n - 1]
    return defects, number, places


def frame_excess(
    frames: SkyFrames, n: int, smooth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the excess of a frame over its sky.

    Parameters
    ----------
    frames : SkyFrames
    n : int
        Index of the frame.
    smooth : ndarray of float32, shape (ny, nx)
        The sky, without pixel structure.

    Returns
    -------
    excess : ndarray of float32, shape (ny, nx)
        In units of the noise; infinite where saturated, 0 where nothing is known.
    usable, sources : ndarray of bool, shape (ny, nx)
        Pixels without a defect; sources known from the frame itself.
    lit : ndarray of bool, shape (ny, nx), or None
        Where it has much light of its target; None where no frame has any.
    """
    path, header, one = frames.good[n]
    frame = frames.read(path)
    usable = frame.mask & (BAD | SATURATED | NODATA) == 0
    noise, lit = np.float32(sky_noise(header)), None
    if frames.light is None:
        excess = frame.image / (1 + surface(frames.tilts[n], smooth.shape))
        excess /= np.float32(one.level)
    else:
        excess = frame.image / np.float32(one.level)
        light = light_image(frames.light.maps[n], smooth.shape)
        lit = light > LIT * noise
        excess -= light
        excess /= 1 + surface(frames.tilts[n], smooth.shape)
    excess -= smooth
    excess /= noise
    np.copyto(excess, 0, where=~usable)
    # Saturated cores are sources, and the brightest.
    np.copyto(excess, np.inf, where=frame.mask & SATURATED > 0)
    return excess, usable, frame.mask & SOURCE > 0, lit
