"""Master sky: what the empty sky looks like through this filter, 1 in the median."""

import warnings
from dataclasses import dataclass

import numpy as np

from lib.background.mastersky import MasterSky, write_sky
from lib.background.sky import block_sky, find_sources, fit_surface, surface
from lib.calibration.masters import (
    Input,
    master_header,
    outliers,
    pixel_noise,
    rejected_master,
    release,
    spool,
)
from lib.core.combination import combine
from lib.core.stats import CHUNK, chunks, mad_std, regular_sample
from lib.frame.file import (
    BAD,
    COSMIC,
    NODATA,
    SATURATED,
    SOURCE,
    FrameRejected,
    read_frame,
    read_header,
)
from lib.frame.step import log, record_step, start_log

NOT_SKY = BAD | SATURATED | NODATA | COSMIC | SOURCE

NOISY = 3.0
"""Frames whose noise, relative to their sky, is so much above the best one's tell nothing."""

HELD = 128e6
"""Bytes of frames that stay open after the first look at them."""

ENOUGH = 40
"""Frames of different pointing that tell defects from sources."""

APART = 10.0
"""Pointings nearer to each other [px] show the same sources at the same pixels."""

GROUPS = 5
"""Groups of pointings, each with a sky of its own, which rests on four fifths of the frames."""

STARE = {"sigma": 14.0, "hole": 8.0, "threshold": 0.9}
"""Of frames that all point alike: least smoothing [px], as what is smaller may be a source; the
hole in its kernel, and the threshold [sigma] above which a source is looked for in their mean:
about S/N 4.

The sky below a star can only come from around it. With the hole it does so everywhere: a kernel
without takes a good part of their own noise from empty pixels, and the noise of empty apertures
was two thirds of that of stars."""

ODD_SHAPE = 0.1
"""A sky whose shape departs from that of all by no more, as a fraction of the noise, is one of
them: the mean of a few frames does not show it."""

COARSE = 2.5
"""Smoothing [px] from which on it is done on an image of half the size."""

CLEAR_PEAK = 8.0
"""A cross-correlation tells the offset where its peak is so many times its scatter."""

FACTS = {
    "instrument": "INSTRUME",
    "camera": "CAMERA",
    "filter": "FILTER",
    "binning": "BINNING",
    "readout": "READOUT",
}


def halved(values):
    """Return an image of half the size: each pixel of 4 x 4, by weights (1, 3, 3, 1) / 8.

    Fine structure, which half as many pixels cannot hold, does not come back as coarse one. Beyond
    the edge is 0.
    """
    odd = [(0, size % 2) for size in values.shape]
    if any(after for _, after in odd):
        values = np.pad(values, odd)
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        pairs = values[0::2] + values[1::2]
        pairs *= np.float32(3)
        pairs[1:] += values[1:-1:2]
        pairs[:-1] += values[2::2]
        pairs *= np.float32(0.125)
        values = np.moveaxis(pairs, 0, axis)
    return values


def doubled(coarse, shape):
    """Return an image of twice the size, or a row less: linear between the pixels' centres."""
    for axis in (1, 0):
        # Of each pair of pixels, one is nearer to the square before, one to that after.
        far = coarse * np.float32(0.25)
        near = coarse - far
        size = list(coarse.shape)
        size[axis] *= 2
        image = np.empty(size, np.float32)
        fine, before = np.moveaxis(image, axis, 0), np.moveaxis(far, axis, 0)
        near = np.moveaxis(near, axis, 0)
        np.add(near[1:], before[:-1], out=fine[2::2])
        np.add(near[:-1], before[1:], out=fine[1:-1:2])
        fine[0], fine[-1] = coarse.take(0, axis), coarse.take(-1, axis)
        coarse = image
    return coarse[: shape[0], : shape[1]]


def smooth_sky(sky, good, sigma, hole=0.0):
    """Smooth a sky by a Gaussian that ignores pixels without value.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
    good : ndarray of bool or float32, shape (ny, nx)
        Pixels with a value, or their weights.
    sigma : float
        Standard deviation of the Gaussian [px].
    hole : float
        That of a narrower Gaussian [px] that is taken from it, so that the kernel is 0 at its
        centre and no pixel counts for itself.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
        Normalised convolution (Knutsson & Westin 1993); 1 where no good pixel is near.
    """
    from scipy.ndimage import gaussian_filter

    def smooth(values):
        wide = gaussian_filter(values, sigma)
        if hole > 0:
            wide -= np.float32((hole / sigma) ** 2) * gaussian_filter(values, hole)
        return wide

    weight = good.astype(np.float32)
    total = sky - np.float32(1)
    total *= weight
    coarse = sigma >= COARSE and hole == 0
    if coarse:
        # On the way there and back, they are smoothed too: each time with a variance of 0.75.
        weight, total = halved(weight), halved(total)
        sigma = np.sqrt((sigma**2 - 1.5) / 4)
    weight, total = smooth(weight), smooth(total)
    smoothed = np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-3)
    smoothed += 1
    return doubled(smoothed, sky.shape) if coarse else smoothed


def fill_sky(sky, good, reach=16.0):
    """Fill the pixels that no frame shows free of sources from those around them.

    Parameters
    ----------
    sky : ndarray of float32, shape (ny, nx)
        Smooth, and finite everywhere.
    good : ndarray of bool, shape (ny, nx)
    reach : float
        Standard deviation of the Gaussian by which those around are weighted [px].

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    if good.all():
        return sky
    # As it is smooth, every fourth pixel tells enough.
    some = np.ix_(*(np.minimum(np.arange(0, size, 4) + 2, size - 1) for size in sky.shape))
    around = smooth_sky(sky[some], good[some], reach / 4)
    around = doubled(doubled(around, [-(-size // 2) for size in sky.shape]), sky.shape)
    return np.where(good, sky, around)


def keep_structure(sky, smooth, good, variance):
    """Return the smooth sky with as much of its pixel structure as is not noise.

    The deviations r of the pixels from the smooth sky have a variance of s^2 + n^2, structure
    and noise. The best estimate of structure is r s^2 / (s^2 + n^2) (Wiener 1949); a deviation
    beyond 4 n, as of a pixel of high dark current, is kept whole.

    Parameters
    ----------
    sky, smooth : ndarray of float32, shape (ny, nx)
    good : ndarray of bool, shape (ny, nx)
    variance : ndarray of float32, shape (ny, nx)
        n^2, of each pixel of `sky`.

    Returns
    -------
    sky : ndarray of float32, shape (ny, nx)
    kept : float
        Part of the structure that was kept, where the noise is that of the median pixel.
    """
    if not good.any():
        return sky, 1.0
    sample = regular_sample(good)
    shown = (regular_sample(sky) - regular_sample(smooth))[sample]
    usual = float(np.median(regular_sample(variance)[sample]))
    structure = np.float32(max(0.0, mad_std(shown) ** 2 - usual))
    kept = np.empty_like(sky)
    # Slab by slab: what is between the lines stays in the cache.
    for rows in chunks(len(sky), max(1, CHUNK // sky.shape[1])):
        noise = variance[rows]
        deviation = np.where(good[rows], sky[rows] - smooth[rows], np.float32(0))
        # Without noise, all is structure.
        weight = structure / np.maximum(structure + noise, np.finfo(np.float32).tiny)
        weight[deviation**2 > 16 * noise] = 1
        np.add(smooth[rows], weight * deviation, out=kept[rows])
    return kept, float(structure / (structure + usual)) if structure + usual > 0 else 1.0


@dataclass
class Sky:
    """What `make_sky` makes of a set of frames.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        1 in the median.
    smooth : ndarray of float32, shape (ny, nx)
        The same without the structure of single pixels.
    number : ndarray of int, shape (ny, nx)
        Frames that each pixel rests on.
    kept : float
        Part of the pixel structure that is in the image.
    mean, extent : ndarray of float32, shape (ny, nx)
        The mean of the frames, and how far they scatter, as from `lib.core.combination.combine`.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that the smoothing left out.
    """

    image: np.ndarray
    smooth: np.ndarray
    number: np.ndarray
    kept: float
    mean: np.ndarray
    extent: np.ndarray
    hidden: np.ndarray


def make_sky(planes, shape, sigma=3.0, clip=3.0, noise=None, threshold=2.0, hole=0.0):
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
    noise : float, optional
        Noise of a pixel of one frame. Given for arrays whose pixels differ in their sky, it
        tells how much pixel structure outlives the smoothing, see `keep_structure`.
    threshold : float
        Of the sources that the smoothing leaves out, see `lib.background.sky.find_sources`.
    hole : float
        In the kernel of the smoothing, see `smooth_sky`.

    Returns
    -------
    Sky
    """
    mean, number, extent = combine(planes, shape, clip=clip, after=lambda: release(planes))
    # What one frame alone shows would take that frame's noise, and its star, away.
    good = np.isfinite(mean) & (number >= min(2, len(planes)))
    number = np.where(good, number, 0)
    return sky_of_mean(mean, number, extent, sigma, noise, threshold, hole)


def sky_of_mean(mean, number, extent, sigma=3.0, noise=None, threshold=2.0, hole=0.0):
    """Smooth combined frames, for `make_sky`.

    Parameters
    ----------
    mean, number, extent : ndarray, shape (ny, nx)
        See `Sky`; a number of 0 where no sky is shown.
    sigma, noise, threshold, hole : float
        See `make_sky`.

    Returns
    -------
    Sky
    """
    good = number > 0
    sky = np.where(good, mean, np.float32(1))
    if sigma > 0 and noise is None:
        # What is small and bright in the mean of the skies: stars too faint for the single frame,
        # at the same pixels each time, as in a series without dither.
        hidden = find_sources(sky, ~good, threshold, grow=2, mesh=32)
    else:
        # What stands out.
        deviation = sky - smooth_sky(sky, good, sigma or 3.0)
        hidden = np.abs(deviation) >= 4 * error_of_mean(sky, number, noise)
        hidden &= good
    image, smooth, kept = finish_sky(mean, number, good, hidden, sigma, noise, hole)
    return Sky(image, smooth, number, kept, mean, extent, hidden)


def error_of_mean(sky, number, noise=None):
    """Return the noise of each pixel of a mean of `number` frames; see `finish_sky`."""
    noise = np.float32(noise or pixel_noise(sky))
    return (noise / np.sqrt(np.maximum(np.arange(number.max() + 1), 1, dtype=np.float32)))[number]


def finish_sky(mean, number, good, hidden, sigma=3.0, noise=None, hole=0.0):
    """Turn the mean of frames into the sky.

    Parameters
    ----------
    mean : ndarray of float32, shape (ny, nx)
    number : ndarray of int, shape (ny, nx)
        Frames that each pixel rests on.
    good : ndarray of bool, shape (ny, nx)
        Pixels that show sky.
    hidden : ndarray of bool, shape (ny, nx)
        Pixels that the smoothing leaves out.
    sigma, noise, hole : float
        See `make_sky`.

    Returns
    -------
    image, smooth : ndarray of float32, shape (ny, nx)
    kept : float
        As in `Sky`.
    """
    from scipy.ndimage import gaussian_filter

    sky = np.where(good, mean, np.float32(1))
    calm = good & ~hidden
    smooth = smooth_sky(sky, calm, sigma or 3.0, hole)
    plain = sigma > 0 and noise is None
    if plain:
        kept = 0.0
        good = calm
        if hole > 0:
            # Small sources have the sky of the pixels about them, as all others have.
            good = good | (gaussian_filter(good.astype(np.float32), sigma) > 0.2)
        sky = smooth = fill_sky(smooth, good)
    else:
        kept = 1.0
        if sigma > 0:
            variance = error_of_mean(sky, number, noise) ** 2
            sky, kept = keep_structure(sky, smooth, good & (number > 2), variance)
        smooth = fill_sky(smooth, good)
        sky = np.where(good, sky, smooth)
    level = np.median(regular_sample(sky)[regular_sample(good)])
    level = level if np.isfinite(level) else np.float32(1)
    smooth = smooth / np.float32(level)
    return smooth if plain else sky / np.float32(level), smooth, kept


def pointing_groups(places, most=GROUPS, apart=APART):
    """Part frames into groups, so that frames which point alike are in the same.

    Parameters
    ----------
    places : list of (target, shift)
        Target and offset (dy, dx) [px] of each frame, in order of time. An offset of None, where
        no star tells it, is a pointing of its own.
    most : int
        Groups.
    apart : float
        Pointings nearer to each other [px] are the same.

    Returns
    -------
    list of int
        Group of each frame, from 0.
    """
    pointings, which = [], []
    for target, shift in places:
        for n, (other, place) in enumerate(pointings):
            if other == target and None not in (shift, place) and np.hypot(
                *np.subtract(shift, place)
            ) < apart:  # fmt: skip
                which.append(n)
                break
        else:
            which.append(len(pointings))
            pointings.append((target, shift))
    # Neighbours in time stay together: a telescope that drifts moves little between frames.
    count = np.bincount(which)
    middle = np.cumsum(count) - count / 2
    group = (middle / count.sum() * min(most, len(pointings))).astype(int)
    return np.unique(group, return_inverse=True)[1][which].tolist()


def skies_without(planes, sky, groups, noises, sigma, clip, noise):
    """Make the sky without the frames of each group.

    Parameters
    ----------
    planes : sequence of ndarray
        As for `make_sky`.
    sky : Sky
        Of all planes.
    groups : list of int
        Group of each plane.
    noises : list of float
        Noise of each plane's pixels.
    sigma, clip, noise : float
        See `make_sky`.

    Yields
    ------
    ndarray of float32, shape (ny, nx)
        For each group, in order: the sky of the other groups' frames.
    """
    sizes = np.bincount(groups)
    shape = sky.mean.shape
    means = np.zeros((sizes.size, *shape), np.float32)
    numbers = np.zeros(means.shape, np.int16)
    # Slab by slab: the frames' pixels stay in the cache.
    for rows in chunks(shape[0], max(1, CHUNK // shape[1])):
        sums, counts = means[:, rows], numbers[:, rows]
        for plane, group, one in zip(planes, groups, noises, strict=True):
            bound = np.fmax(np.float32(clip * one), sky.extent[rows])
            with np.errstate(invalid="ignore"):
                used = np.abs(plane[rows] - sky.mean[rows]) <= bound
            sums[group] += np.where(used, plane[rows], np.float32(0))
            counts[group] += used
        np.subtract(sums.sum(axis=0), sums, out=sums)
        np.subtract(counts.sum(axis=0, dtype=np.int16), counts, out=counts)
        sums /= np.maximum(counts, 1)
        release(planes)
    for mean, number, size in zip(means, numbers, sizes, strict=True):
        good = number >= min(2, len(planes) - size)
        yield finish_sky(mean, number, good, sky.hidden, sigma, noise)[0]


def own_surface(blocks, order):
    """Return by how much each frame's sky departs from what all have in common.

    Moonlight and twilight tilt the sky of a frame. Left in, the tilt would print the outlines of
    each frame's masked sources on the mean.

    Parameters
    ----------
    blocks : ndarray, shape (n, rows, columns)
        Sky of each frame in squares, `lib.background.sky.block_sky`, 1 in the median.
    order : int
        Degree of the surfaces.

    Returns
    -------
    tilts : list of ndarray
        Coefficients of ``blocks / common - 1``, see `lib.background.sky.fit_surface`.
    left : ndarray, shape (n, rows, columns)
        What the surface leaves of it.
    """
    levelled = blocks
    # The median of tilted skies is not what they have in common, that of levelled ones is.
    for _ in range(3):
        with warnings.catch_warnings():
            # Squares that no frame shows.
            warnings.simplefilter("ignore", RuntimeWarning)
            common = np.nanmedian(levelled, axis=0)
        tilts = [fit_surface(one / common - 1, order) for one in blocks]
        planes = np.array([surface(tilt, common.shape) for tilt in tilts])
        levelled = blocks / (1 + planes)
    return tilts, blocks / common - 1 - planes


def odd_shapes(left, noises):
    """Return by how much each frame's sky is of another shape than its siblings', if it is.

    The halo of a bright star that fills a frame is no sky, and no source that could be masked.

    Parameters
    ----------
    left : ndarray, shape (n, rows, columns)
        See `own_surface`.
    noises : sequence of float
        Noise of each frame's pixels.

    Returns
    -------
    ndarray, shape (n,)
        Rms of what is left, as a fraction of the noise; 0 for those with no more than usual.
    """
    known = np.isfinite(left)
    squares = np.where(known, left, 0) ** 2
    rms = np.sqrt(squares.sum(axis=(1, 2)) / known.sum(axis=(1, 2)).clip(1)) / noises
    apart = outliers(rms, 0.0) & (rms > max(ODD_SHAPE, np.median(rms)))
    return np.where(apart, rms, 0.0)


def spectrum(image):
    """Return the Fourier transform of an image: half its size, padded to what is done fast."""
    from scipy.fft import next_fast_len, rfft2

    image = halved(image)
    rows, columns = image.shape
    # Even, as the way back takes it to be.
    columns = 2 * next_fast_len(-(-columns // 2), real=True)
    return rfft2(image, (next_fast_len(rows), columns))


def offset(reference, image):
    """Return by how many whole pixels an image is shifted against a reference.

    Parameters
    ----------
    reference : ndarray of complex
        `spectrum` of the reference, which has the shape of the image: sources on zero.
    image : ndarray of float32, shape (ny, nx)

    Returns
    -------
    dy, dx : int or None
        ``image[y + dy, x + dx]`` shows what ``reference[y, x]`` does; None where the highest peak
        of the cross-correlation does not stand out.
    """
    from scipy.fft import irfft2

    correlation = irfft2(spectrum(image) * np.conj(reference))
    peak = np.unravel_index(np.argmax(correlation), correlation.shape)
    top = correlation[peak]
    if top <= max(0, CLEAR_PEAK * correlation.std()):
        return None
    shift = []
    for place, line in zip(peak, (correlation[:, peak[1]], correlation[peak[0]]), strict=True):
        # The top of a parabola: to a pixel of the image, of which two are one here.
        before, after = (float(line[(place + step) % line.size]) for step in (-1, 1))
        bend = before - 2 * float(top) + after
        place += 0.5 * (before - after) / bend if bend < 0 else 0.0
        shift.append(round(2 * (place if place <= line.size / 2 else place - line.size)))
    return tuple(shift)


class DitheredSum:
    """Sum of the frames of one target, each moved so that its sources lie on the others'.

    Parameters
    ----------
    brightest : float
        Excess beyond this is cut, so that a hot pixel or a cosmic ray in one frame does not
        look like a source in the sum.
    """

    def __init__(self, brightest=3.0):
        self.brightest = brightest
        self.reference = None
        self.shifts = []

    def add(self, excess, usable, sources):
        """Register a frame on the first one and add it.

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
            shift = (0, 0) if bright.any() else None
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
            # Of the same type: numpy would convert it piece by piece.
            self.depth[place] += usable.astype(np.uint16)
        return shift

    def place(self, shift, shape):
        """Return the part of the sum that a frame covers."""
        return tuple(
            slice(m - s, m - s + n) for m, s, n in zip(self.margin, shift, shape, strict=True)
        )

    def sources(self, shape, threshold=1.5):
        """Return for each frame the pixels in which the sum shows a source, None if unknown."""
        if self.reference is None or sum(shift is not None for shift in self.shifts) < 2:
            return [None for _ in self.shifts]
        seen = self.depth > 0
        # Noise 1 everywhere, whatever the number of frames.
        self.total /= np.sqrt(np.maximum(self.depth, 1), dtype=np.float32)
        found = find_sources(self.total, ~seen, threshold)
        return [shift and found[self.place(shift, shape)] for shift in self.shifts]


class Persistence:
    """Pixels that stand out in frames of different pointing: they are no sky, but defects.

    Parameters
    ----------
    shape : tuple of int
    sigma : float
        Excess, in units of the noise, that makes a pixel stand out.
    line_sigma : float
        The same of a piece of a column or row, of which more than half exceeds it.
    length : int
        Of such a piece [px], 255 at most.
    apart : float
        Pointings nearer to each other [px] show the same sources at the same pixels.
    """

    def __init__(self, shape, sigma=4.0, line_sigma=1.5, length=64, apart=APART):
        self.sigma, self.line_sigma, self.apart = sigma, line_sigma, apart
        self.pointings = []
        self.high, self.low, self.hidden = np.zeros((3, *shape), np.int16)
        # Per axis: where pieces begin, how often each was high, and low.
        self.lines = []
        for size, across in (shape, shape[::-1]):
            starts = [*range(0, size - length, length), max(0, size - length)]
            pieces = [slice(start, min(start + length, size)) for start in starts]
            self.lines.append((pieces, *np.zeros((2, len(pieces), across), np.int16)))

    def add(self, excess, usable, target, shift):
        """Count what stands out, unless a frame of this pointing was counted."""
        for other, place in self.pointings:
            if other == target and np.hypot(*np.subtract(place, shift)) < self.apart:
                return
        self.pointings.append((target, shift))
        # Few pixels: to count only those is faster.
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

    def defects(self, least=3, share=0.9):
        """Return the pixels that stood out the same way in nearly all of 3 pointings or more."""
        looks = len(self.pointings) - self.hidden
        need = np.maximum(np.ceil(share * np.arange(len(self.pointings) + 1)), least)
        need = need.astype(np.int16)[looks]
        found = (self.high >= need) | (self.low >= need)
        need = max(least, share * len(self.pointings))
        for bad, (pieces, high, low) in zip((found, found.T), self.lines, strict=True):
            for n, piece in enumerate(pieces):
                bad[piece, (high[n] >= need) | (low[n] >= need)] = True
        return found & (looks > 0)


def sky_noise(header):
    """Return the noise that photons and read-out give a pixel, as a fraction of the sky."""
    electrons = header["SKYCTS"] * header["GAIN"]
    return float(np.sqrt(max(electrons, 0) + header["RDNOISE"] ** 2) / electrons)


def judge_frames(headers):
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
            one.noise = header["SKYNOISE"] / one.level
    best = min((one.noise for one in inputs if not one.why), default=np.nan)
    for one in inputs:
        if not one.why and one.noise > NOISY * best:
            one.why = f"NOISY: {one.noise:.2g} of its sky > {NOISY:g} x {best:.2g}"
    return inputs, shape


def look_again(planes, good, tilts, smooth, deep, read):
    """Look at the frames less their sky: for what the first sky could not know.

    Parameters
    ----------
    planes : sequence of ndarray
        Normalised frames. Set to NaN where a source was missed, and in defects.
    good : list of (path, header, Input)
    tilts : list of ndarray
        Own surface of each frame.
    smooth : ndarray of float32, shape (ny, nx)
        The sky, without pixel structure.
    deep : bool
        Look for sources that only the sum of the frames of a target shows.
    read : callable
        Gives the frame of a path; its arrays are left as they are.

    Returns
    -------
    defects : ndarray of bool, shape (ny, nx)
        Pixels that stand out wherever the telescope points, see `Persistence`.
    number : int
        Frames in which deep sources were masked.
    places : list of (target, shift)
        See `pointing_groups`. Of a frame that was not looked at: those of the one before.
    """
    places = [None] * len(good)
    persistence = Persistence(smooth.shape)
    targets = {}
    for n in range(0, len(good), 1 if deep else max(1, len(good) // ENOUGH)):
        targets.setdefault(good[n][1].get("TARGET", ""), []).append(n)
    number = 0
    for target, members in targets.items():
        together = DitheredSum()
        for n in members:
            path, header, one = good[n]
            frame = read(path)
            usable = frame.mask & (BAD | SATURATED | NODATA) == 0
            excess = frame.image / (1 + surface(tilts[n], smooth.shape))
            excess /= np.float32(one.level)
            excess -= smooth
            excess /= np.float32(sky_noise(header))
            np.copyto(excess, 0, where=~usable)
            # Saturated cores are sources, and the brightest.
            np.copyto(excess, np.inf, where=frame.mask & SATURATED > 0)
            shift = together.add(excess, usable, frame.mask & SOURCE > 0)
            log.info("%s shift %s", one.name, shift or "unknown")
            places[n] = (target, shift)
            if shift:
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


def sky_from_frames(paths, min_frames=2, sigma=3.0, clip=3.0, order=1, passes=1, structure=False):
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
        return MasterSky(None, None, rejected_master("sky", facts, inputs, why).header)
    noise = np.median([sky_noise(header) for _, header, _ in good]) if structure else None
    held = {}

    def read(path):
        frame = held.get(path) or read_frame(path, mapped=True)
        if len(held) < HELD / (5 * np.prod(shape)):
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
        blocks = np.array(blocks)
        tilts, left = own_surface(blocks, order)
        odd = odd_shapes(left, [sky_noise(header) for _, header, _ in good])
        kept = np.flatnonzero(odd == 0)
        if min_frames <= len(kept) < len(good):
            for (_, _, one), rms in zip(good, odd, strict=True):
                if rms:
                    one.why = f"SKY_SHAPE: {rms:.2f} of its noise apart from its siblings"
            good, blocks = [good[n] for n in kept], blocks[kept]
            for to, n in enumerate(kept):
                planes[to] = planes[n]
            planes = planes[: len(kept)]
            tilts, _ = own_surface(blocks, order)
        for plane, tilt in zip(planes, tilts, strict=True):
            plane /= 1 + surface(tilt, shape)
            release(planes)
        sky = make_sky(planes, shape, sigma, clip, noise)
        deep, defects = 0, np.zeros(shape, bool)
        for _ in range(max(1, passes - 1)):
            defects, deep, places = look_again(planes, good, tilts, sky.smooth, passes > 1, read)
            groups = pointing_groups(places)
            stare = max(groups) == 0
            if deep or defects.any():
                sky = make_sky(planes, shape, sigma, clip, noise)
            if stare and not structure and sigma > 0:
                sigma = max(sigma, STARE["sigma"])
                sky = sky_of_mean(
                    sky.mean, sky.number, sky.extent, sigma,
                    threshold=STARE["threshold"], hole=STARE["hole"],
                )  # fmt: skip
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
    header["NGROUP"] = (max(groups) + 1, "groups of pointings, each with a sky of the others")
    names = [header["FRAME"] for _, header, _ in good]
    return MasterSky(sky.image, mask, header, dict(zip(names, groups, strict=True)), without)


if "snakemake" in globals():
    start_log(snakemake.log[0])
    names = ("min_frames", "sigma", "clip", "order", "passes", "structure")
    settings = {name: snakemake.params[name] for name in names}
    sky = sky_from_frames(snakemake.input.frames, **settings)
    record_step(sky.header, "makesky", snakemake.params.version, settings)
    write_sky(snakemake.output[0], sky)
