"""Where the telescope really pointed: the pixel of the header's pointing in the solution."""

import numpy as np
from astropy.io import fits

from lib.astrometry.pixelmaps import PixelMap
from lib.core.sphere import project

KEYS = ("RA", "DEC", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def solved_pointing(
    header: fits.Header, shape: tuple[int, int], pixel_to_world: PixelMap
) -> tuple[float, float] | None:
    """Return where the telescope pointed [deg], None where the header has no pointing.

    Parameters
    ----------
    header : astropy.io.fits.Header
        As before the solution: the pixel at which it has RA and DEC is looked up in the solution,
        the middle where that is another place than the frame's.
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
    x, y = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    if a * d != b * c and np.isfinite(offset).all():
        place = np.linalg.solve([[a, b], [c, d]], offset) + (x0, y0)
        if 0 < place[0] <= shape[1] and 0 < place[1] <= shape[0]:
            x, y = place
    found = pixel_to_world(np.array([x]), np.array([y]))
    return round(float(found[0][0]) % 360, 7), round(float(found[1][0]), 7)
