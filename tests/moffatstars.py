"""Images of Moffat stars, of known total flux."""

import numpy as np

from lib.photometry.psf import moffat_alpha


def moffat_image(x, y, flux, fwhm, beta, shape, half=60, points=5):
    """Return the noiseless image of Moffat stars, each normalised to its total flux.

    Parameters
    ----------
    x, y, flux : array_like, shape (n,)
    fwhm, beta : float
    shape : tuple of int
    half : int
        Stars end this far from their centre [pixel].
    points : int
        Each pixel is the mean of points x points of the profile; 1 samples its centre.
    """
    image = np.zeros(shape)
    alpha = moffat_alpha(fwhm, beta)
    sub = (np.arange(points) - (points - 1) / 2) / points
    for xs, ys, f in zip(x, y, flux, strict=True):
        x0, x1 = max(0, int(xs) - half), min(shape[1], int(xs) + half + 1)
        y0, y1 = max(0, int(ys) - half), min(shape[0], int(ys) + half + 1)
        xx = np.arange(x0, x1)[:, None] + sub - xs
        yy = np.arange(y0, y1)[:, None] + sub - ys
        r2 = xx[None, None] ** 2 + yy[:, :, None, None] ** 2
        profile = (beta - 1) / (np.pi * alpha**2) * (1 + r2 / alpha**2) ** -beta
        image[y0:y1, x0:x1] += f * profile.mean(axis=(1, 3))
    return image


def jittered_grid(rng, start, stop, step):
    """Return x and y of stars on a square grid, each moved by up to half a pixel."""
    grid = np.arange(start, stop, float(step))
    return tuple(
        axis.ravel() + rng.uniform(-0.5, 0.5, grid.size**2) for axis in np.meshgrid(grid, grid)
    )
