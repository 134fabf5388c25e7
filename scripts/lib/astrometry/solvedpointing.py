"""True pointing of the telescope: the solved position of the pixel of the header's pointing."""

import numpy as np
from astropy.io import fits

from lib.astrometry.pixelmaps import PixelMap
from lib.core.sphere import deproject, project

KEYS = ("RA", "DEC", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")

FARTHEST = 1.5
"""[side of the frame] from its middle; what is farther off is no pointing of this frame."""


def solved_pointing(
    header: fits.Header, shape: tuple[int, int], pixel_to_world: PixelMap
) -> tuple[float, float] | None:
    """Return where the telescope pointed [deg], None where the header has no pointing.

    Parameters
    ----------
    header : astropy.io.fits.Header
        As before the solution: the pixel at which it has RA and DEC is looked up in the solution.
        It may lie beside the frame, as for one half of a split detector; where it is farther off
        than `FARTHEST`, the middle is taken.
    shape : tuple of int
        (ny, nx).
    pixel_to_world : callable
        The solution.
    """
    values = [header.get(key) for key in KEYS]
    if not all(isinstance(value, int | float) for value in values):
        return None
    ra, dec, ra0, dec0, x0, y0, a, b, c, d = (float(value) for value in values)
    (offset,) = project([ra], [dec], ra0, dec0) / 3600
    pixel = np.array([(shape[1] + 1) / 2, (shape[0] + 1) / 2])
    beyond = np.zeros(2)
    if a * d != b * c and np.isfinite(offset).all():
        place = np.linalg.solve([[a, b], [c, d]], offset) + (x0, y0)
        if (place > 0).all() and (place <= shape[::-1]).all():
            pixel = place
        elif (np.abs(place - pixel) < FARTHEST * np.array(shape[::-1])).all():
            beyond = place - pixel
    # The polynomials of a solution hold within its frame alone: its scale and rotation go on.
    steps = pixel + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    sky = np.column_stack(pixel_to_world(*steps.T))
    linear = project(sky[1:, 0], sky[1:, 1], *sky[0]).T
    found_ra, found_dec = deproject([linear @ beyond], *sky[0])
    return round(float(found_ra[0]) % 360, 7), round(float(found_dec[0]), 7)
