"""Frames full of cosmic rays of which every charge is known, for tests and benchmarks."""

from dataclasses import dataclass

import numpy as np
import simulate
from astropy.io import fits

from lib.frame.file import Frame

SHAPE = (400, 400)

DETECTORS = ((10, 5, 13, 15), (300, 8, 13, 15), (5000, 16, 18, 6))
"""Sky and read noise [electron], pixel and depleted layer [um]: a CCD in the blue, one in the red,
an infrared array."""


@dataclass(frozen=True)
class Truth:
    """What a frame was made of.

    Parameters
    ----------
    cosmic, stars : ndarray, shape (ny, nx)
        Charge of the rays, light of the stars [electron].
    noise : ndarray, shape (ny, nx)
        Noise of a pixel without ray [electron].
    positions : ndarray, shape (n, 3)
        x, y and S/N of each star.
    """

    cosmic: np.ndarray
    stars: np.ndarray
    noise: np.ndarray
    positions: np.ndarray


def expose(fwhm, sky, readnoise, pitch, thickness, seed=1, stars=100, rays=30, shape=SHAPE, **psf):
    """Return a sky-subtracted frame of stars of S/N 12 to 1300, and its truth.

    Parameters
    ----------
    fwhm : float
        [px]
    sky, readnoise, pitch, thickness : float
        One of `DETECTORS`.
    seed, stars : int
    rays : float
        Cosmic rays, in units of the usual rate.
    shape : tuple of int
    **psf
        See `simulate.simulate_frame`.

    Returns
    -------
    Frame, Truth
    """
    rng = np.random.default_rng(seed)
    snr = 10 ** rng.uniform(np.log10(12), np.log10(1300), stars)
    # Pixels over which a star of this width gathers noise.
    area = 2 * np.pi * (0.68 * fwhm) ** 2
    flux = (snr**2 + np.sqrt(snr**4 + 4 * snr**2 * area * (sky + readnoise**2))) / 2
    x, y = rng.uniform(8, shape[1] - 9, stars), rng.uniform(8, shape[0] - 9, stars)
    exposure, _, _ = simulate.simulate_frame(
        shape,
        seed=seed,
        fwhm=fwhm,
        sky=sky,
        exptime=80.0,
        cosmic_scale=rays,
        positions=(x, y, flux),
        read_noise=readnoise,
        pitch=pitch,
        thickness=thickness,
        **psf,
    )
    header = fits.Header()
    header["GAIN"], header["RDNOISE"], header["PIXSCALE"] = 1.0, float(readnoise), 0.3
    header["SKYSUB"], header["SATURATE"] = float(sky), 1e6 - sky
    image = exposure.raw.astype(np.float32) - sky
    noise = np.sqrt(exposure.stars + sky + readnoise**2)
    truth = Truth(exposure.cosmic, exposure.stars, noise, np.c_[x, y, snr])
    return Frame(image, np.zeros(shape, np.uint8), header), truth


def altered_cores(before, after, truth, radius):
    """Return (stars untouched by cosmic rays, those whose core changed by more than 0.5 %)."""
    yy, xx = np.mgrid[: before.shape[0], : before.shape[1]]
    seen = altered = 0
    for x, y, snr in truth.positions:
        core = np.hypot(xx - x, yy - y) <= max(radius, 2)
        if not 20 <= snr <= 1000 or (truth.cosmic[core] >= 1).any():
            continue
        seen += 1
        change = np.abs(after[core] - before[core]).sum() / truth.stars[core].sum()
        altered += change > 0.005
    return seen, altered
