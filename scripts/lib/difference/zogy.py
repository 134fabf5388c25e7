"""Proper image subtraction: neither image has to be the sharper one.

Zackay, Ofek & Gal-Yam 2016 (ApJ 830, 27), equations 13 to 16: with the images N and R in units of
one flux, their point-spread functions P and noise sigma, the Fourier transform of the difference is

    (P_R N - P_N R) / sqrt(sigma_N^2 |P_R|^2 + sigma_R^2 |P_N|^2)

whose noise is as white as that of the images, and in which a point source has the form
P_N P_R / sqrt(...), here of flux 1 for a source of flux 1.
"""

import numpy as np

from lib.difference.convolution import convolve
from lib.difference.matched import Matched, spread_bad
from lib.difference.planes import REACHED, Plane
from lib.difference.regions import Regions


def subtract_properly(
    coadd: Plane, template: Plane, stamps: np.ndarray, template_stamps: np.ndarray,
    regions: Regions,
) -> Matched:  # fmt: skip
    """Subtract a template from a coadd.

    Parameters
    ----------
    coadd, template : Plane
        Images in the same units, with the template shifted to the coadd.
    stamps, template_stamps : ndarray, shape (nodes, s, s)
        Point-spread functions of both.
    regions : Regions

    Returns
    -------
    Matched
    """
    noise = [typical_noise(one) for one in (coadd, template)]
    half = stamps.shape[1] // 2
    forms = [
        proper_kernels(one, other, noise)
        for one, other in zip(stamps, template_stamps, strict=True)
    ]  # fmt: skip
    new, old, point = (np.array(one) for one in zip(*forms, strict=True))

    # What one of them lacks is taken from the other, too: else the whole star would be left.
    lacking = coadd.bad | template.bad
    ours, theirs = (np.where(lacking, np.float32(0), one.image) for one in (coadd, template))

    def part(node: int, place: tuple[slice, slice]) -> np.ndarray:
        return convolve(ours[place], new[node]) - convolve(theirs[place], old[node])

    image = regions.blend(part, new.shape[1] // 2)
    bad = spread_bad(coadd.bad, new) | spread_bad(template.bad, old)
    edge = np.ones_like(bad)
    edge[half : edge.shape[0] - half, half : edge.shape[1] - half] = False
    variance = coadd.full_variance + template.full_variance
    used = ~bad & ~edge
    own = coadd.bad
    reached = np.where((bad | edge) & ~own, np.uint8(REACHED), np.uint8(0))
    return Matched(
        np.where(used, image, 0).astype(np.float32),
        np.where(used, variance, 0).astype(np.float32),
        reached, np.empty((0, 1, 1)), old.sum(axis=(1, 2)), point,
    )  # fmt: skip


def typical_noise(plane: Plane) -> float:
    """Return the median noise of a pixel of the sky."""
    good = plane.variance[~plane.bad]
    return float(np.sqrt(np.median(good))) if good.size else 1.0


def proper_kernels(
    new: np.ndarray, old: np.ndarray, noise: list[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the kernels for coadd and template, and the profile of a point source.

    Parameters
    ----------
    new, old : ndarray, shape (s, s)
        Point-spread functions of coadd and template.
    noise : list of float
        Noise of both.

    Returns
    -------
    new_kernel, old_kernel, point : ndarray, shape (t, t)
    """
    half = 2 * (new.shape[0] // 2)
    size = 2 * half + 1

    def transform(stamp: np.ndarray) -> np.ndarray:
        whole = np.zeros((size, size))
        start = half - stamp.shape[0] // 2
        inner = slice(start, start + stamp.shape[0])
        whole[inner, inner] = stamp / stamp.sum()
        return np.fft.rfft2(np.fft.ifftshift(whole))

    def back(spectrum: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.irfft2(spectrum, s=(size, size)))

    ours, theirs = transform(new), transform(old)
    root = np.sqrt(noise[0] ** 2 * np.abs(theirs) ** 2 + noise[1] ** 2 * np.abs(ours) ** 2)
    root = np.maximum(root, 1e-6 * root.max())
    # F_D = 1 / sqrt(sigma_N^2 + sigma_R^2): divided by it, fluxes are those of the coadd.
    unit = np.sqrt(noise[0] ** 2 + noise[1] ** 2) / root
    return back(unit * theirs), back(unit * ours), back(unit * ours * theirs)
