"""Convolution with kernels of tens of pixels, by Fourier transforms."""

import numpy as np


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return an image convolved with a kernel, of its own size; beyond its edges it is 0.

    `scipy.signal.oaconvolve`, whose import alone takes a second, gives the same.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    kernel : ndarray, shape (s, t)
        Kernel with odd sides.

    Returns
    -------
    ndarray of float32, shape (ny, nx)
    """
    from scipy import fft

    whole = [n + k - 1 for n, k in zip(image.shape, kernel.shape, strict=True)]
    size = [fft.next_fast_len(n, real=True) for n in whole]
    product = fft.rfft2(np.asarray(image, np.float32), size)
    product *= fft.rfft2(np.asarray(kernel, np.float32), size)
    found = fft.irfft2(product, size, overwrite_x=True)
    y, x = kernel.shape[0] // 2, kernel.shape[1] // 2
    return found[y : y + image.shape[0], x : x + image.shape[1]]
