"""The sky of a frame: its level, and the pixels in which sources hide it."""

import numpy as np

from lib.frames import BAD, COSMIC, NODATA, SATURATED
from lib.stats import sigma_clipped_median


def find_sources(image, unusable, threshold=1.5, grow=4, mesh=64, minarea=6):
    """Return the pixels of a frame that belong to sources.

    The frame is smoothed by a 5x5 Gaussian and segmented above a local background
    (Bertin & Arnouts 1996, as implemented by sep); each segment is grown by `grow` pixels, and
    by more the larger it is, for the wings that lie below the threshold.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    unusable : ndarray of bool, shape (ny, nx)
        Pixels without information.
    threshold : float
        In standard deviations of the background.
    grow : int
        Pixels.
    mesh : int
        Size of the background mesh [px].
    minarea : int
        Pixels that a source must cover: a lone hot pixel is none.

    Returns
    -------
    ndarray of bool, shape (ny, nx)
    """
    import sep
    from scipy.ndimage import distance_transform_edt

    sep.set_extract_pixstack(max(300_000, image.size // 2))
    image = np.ascontiguousarray(image, np.float32)
    mesh = min(mesh, *image.shape)
    background = sep.Background(image, mask=unusable, bw=mesh, bh=mesh, fw=3, fh=3)
    x = np.arange(-2, 3)
    kernel = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / (2 * 1.2**2)).astype(np.float32)
    try:
        objects, segments = sep.extract(
            image - background.back(),
            threshold,
            err=max(background.globalrms, 1e-6),
            mask=unusable,
            minarea=minarea,
            filter_kernel=kernel,
            deblend_cont=1.0,
            clean=False,
            segmentation_map=True,
        )
    except Exception as error:  # sep raises plain Exception when its buffers overflow
        if "overflow" not in str(error) and "limit" not in str(error):
            raise
        return np.zeros(image.shape, bool)
    sources = segments > 0
    if not sources.any():
        return sources
    radius = np.zeros(len(objects) + 1, np.float32)
    radius[1:] = grow + 0.6 * np.sqrt(objects["npix"])
    distance, nearest = distance_transform_edt(~sources, return_indices=True)
    return distance <= radius[segments[tuple(nearest)]]


def sky_level(image, mask, sources):
    """Return level and pixel noise of the sky, from pixels without source or defect.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
    mask : ndarray of uint8, shape (ny, nx)
    sources : ndarray of bool, shape (ny, nx)

    Returns
    -------
    level, noise : float
        In the unit of the image; NaN where there is no sky pixel.
    """
    free = ~sources & (mask & (BAD | SATURATED | NODATA | COSMIC) == 0)
    level, noise, _ = sigma_clipped_median(image[free])
    return level, noise
