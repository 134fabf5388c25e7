"""Cut-outs of candidates on one sheet: new image, template, difference, a row each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.core.files import atomic_path
from lib.core.stats import sigma_clipped_median

SIDE = 31
"""[pixel] Side of a cut-out in the images."""

ZOOM = 2
"""Pixels of the sheet for each."""

MOST = 200
"""Rows of a sheet."""

FAINT, BRIGHT = -2.0, 12.0
"""[noise of a pixel] What is black and what is white."""


def cut(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the square about a place; 0 beyond the edge of the image.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
    x, y : float
        Centre, 0-based [pixel].
    """
    half = SIDE // 2
    column, row = round(x), round(y)
    found = np.zeros((SIDE, SIDE), np.float32)
    y0, x0 = max(0, row - half), max(0, column - half)
    part = image[y0 : max(0, row + half + 1), x0 : max(0, column + half + 1)]
    found[y0 - row + half :, x0 - column + half :][: part.shape[0], : part.shape[1]] = part
    return found


def triple(images: Sequence[np.ndarray], noises: Sequence[float], x: float, y: float) -> np.ndarray:
    """Return the cut-outs of images side by side as grey values, north where their rows end.

    Parameters
    ----------
    images : sequence of ndarray, shape (ny, nx)
    noises : sequence of float
        Noise of a pixel in each.
    x, y : float

    Returns
    -------
    ndarray of uint8, shape (ZOOM SIDE, n ZOOM SIDE + n - 1)
        The first two on one scale of brightness, that of the brighter one.
    """
    cuts = [cut(image, x, y) / noise for image, noise in zip(images, noises, strict=True)]
    inner = slice(SIDE // 2 - 3, SIDE // 2 + 4)
    top = max(BRIGHT, *(float(one[inner, inner].max()) for one in cuts[:2]))
    shown = []
    for number, one in enumerate(cuts):
        high = top if number < 2 else max(BRIGHT, float(np.abs(one[inner, inner]).max()))
        low = FAINT if number < 2 else -high
        stretched = np.arcsinh(one / 3), np.arcsinh(low / 3), np.arcsinh(high / 3)
        grey = 255 * np.clip((stretched[0] - stretched[1]) / (stretched[2] - stretched[1]), 0, 1)
        shown.append(np.kron(grey[::-1], np.ones((ZOOM, ZOOM))))
        if number < len(cuts) - 1:
            shown.append(np.full((ZOOM * SIDE, 1), 255.0))
    return np.concatenate(shown, axis=1).astype(np.uint8)


def pixel_noise(image: np.ndarray, used: np.ndarray) -> float:
    """Return the noise of a pixel of an image, for its display; 1 where it has none."""
    values = image[used]
    noise = sigma_clipped_median(values[:: max(1, values.size // 20000)])[1] if values.size else 0
    return noise if noise > 0 else 1.0


def write_sheet(path: str | Path, rows: Sequence[np.ndarray]) -> None:
    """Write the rows of cut-outs below each other as a JPEG; of one white pixel without rows.

    Parameters
    ----------
    path : path-like
    rows : sequence of ndarray of uint8
        Rows of equal shape.
    """
    from PIL import Image

    sheet = np.concatenate(rows) if len(rows) else np.full((1, 1), 255, np.uint8)
    with atomic_path(path) as beside:
        Image.fromarray(sheet).save(beside, format="JPEG", quality=80)
