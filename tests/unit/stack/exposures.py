"""Aligned exposures of stars in changing seeing."""

import numpy as np
import simulate

SHAPE = (300, 340)
NOISE = 20.0


def exposures(count=5, seed=1, fwhms=None, stars=80, shift=0.15):
    """Return aligned exposures of stars in changing seeing, and the noiseless scenes."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, SHAPE[1], stars), rng.uniform(0, SHAPE[0], stars)
    flux = 10 ** rng.uniform(2.8, 5.5, stars)
    fwhms = fwhms or rng.uniform(3.2, 5.0, count)
    scenes = np.array(
        [
            simulate.render_sources(
                SHAPE,
                x + rng.normal(0, shift),
                y + rng.normal(0, shift),
                flux,
                simulate.PSF(fwhm),
                NOISE,
            )
            for fwhm in fwhms
        ]
    )
    images = rng.poisson(scenes + NOISE**2) - NOISE**2
    return images.astype(np.float32), scenes, list(fwhms), rng


def noises(scenes):
    return [np.sqrt(scene + NOISE**2).astype(np.float32) for scene in scenes]
