"""Offsets between frames, by the peak of their cross-correlation."""

import numpy as np

from lib.background.smoothing import halved

CLEAR_PEAK = 8.0
"""A cross-correlation gives the offset where its peak exceeds its scatter by this factor."""


def spectrum(image: np.ndarray) -> np.ndarray:
    """Return the Fourier transform of an image: half its size, padded to what is done fast."""
    from scipy.fft import next_fast_len, rfft2

    image = halved(image)
    rows, columns = image.shape
    # Even, as the way back takes it to be.
    columns = 2 * next_fast_len(-(-columns // 2), real=True)
    return rfft2(image, (next_fast_len(rows), columns))


def offset(reference: np.ndarray, image: np.ndarray) -> tuple[int, ...] | None:
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
        top_at = float(place) + (0.5 * (before - after) / bend if bend < 0 else 0.0)
        shift.append(round(2 * (top_at if top_at <= line.size / 2 else top_at - line.size)))
    return tuple(shift)
