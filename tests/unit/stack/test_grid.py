"""lib.stack.grid: the grid holds all frames, north up."""

import numpy as np
import pytest
from starfields import (
    SCALE,
    SIZE,
    make_header,
)

from lib.core.wcs import celestial_wcs, frame_outline
from lib.stack.grid import common_grid, repaired_footprint


def test_grid_holds_all_frames_north_up():
    headers = []
    for angle, shift in ((0, (0, 0)), (90, (30, -20)), (215, (-40, 60))):
        header = make_header(angle, shift)
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, SIZE, SIZE + 50
        headers.append(header)
    grid = common_grid([celestial_wcs(header) for header in headers])
    assert grid.scale == pytest.approx(SCALE)
    wcs = grid.wcs
    for header in headers:
        x, y = wcs.all_world2pix(*frame_outline(celestial_wcs(header)).T, 0)
        assert x.min() > -0.5 and y.min() > -0.5
        assert x.max() < grid.nx - 0.5 and y.max() < grid.ny - 0.5
    east = wcs.all_pix2world([[10, 10], [9, 10], [10, 11]], 0)
    assert east[1][0] > east[0][0] and east[2][1] > east[0][1]


@pytest.mark.parametrize("ra, dec", [(0.0, 0.0), (359.999, 60.0), (120.0, -85.0)])
def test_grid_across_ra_zero_and_near_the_pole(ra, dec):
    header = make_header()
    header["CRVAL1"], header["CRVAL2"] = ra, dec
    header["NAXIS1"] = header["NAXIS2"] = SIZE
    grid = common_grid([celestial_wcs(header)])
    assert abs((grid.ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec)) * 3600 < 2
    assert grid.dec == pytest.approx(dec, abs=2 / 3600)
    assert SIZE < grid.nx < 1.1 * SIZE and SIZE < grid.ny < 1.1 * SIZE


def test_pixels_of_the_grid_that_rest_on_repaired_ones():
    header = make_header(shift=(20.3, -10.6))
    header["NAXIS1"] = header["NAXIS2"] = SIZE
    grid = common_grid([celestial_wcs(header)])
    repaired = np.zeros((SIZE, SIZE), bool)
    repaired[200, 150] = repaired[90, 310] = True
    wcs = celestial_wcs(header)
    row, column = repaired_footprint(repaired, wcs, grid)
    expected = set()
    for x, y in ((150, 200), (310, 90)):
        u, v = grid.wcs.all_world2pix(*wcs.all_pix2world(x, y, 0), 0)
        u, v = round(float(u)), round(float(v))
        expected |= {(v + j, u + i) for j in (-1, 0, 1) for i in (-1, 0, 1)}
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == expected
