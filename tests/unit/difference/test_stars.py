"""Stars of two images tell scale and shift; those that vary do not."""

import numpy as np
import pytest
from differencepairs import Seeing, add_points, observe

from lib.difference.planes import Plane
from lib.difference.stars import flux_scale, shared_stars
from lib.frame.file import FrameRejected

SIZE = 300
SCALE = 2.5


def pair(rng, shift=(0.0, 0.0), variable=3, fwhm=(4.0, 3.0)):
    x, y = rng.uniform(20, SIZE - 21, (2, 50))
    flux = 10 ** rng.uniform(3.6, 5, 50)
    light = np.zeros((2, SIZE, SIZE))
    add_points(light[0], x, y, flux, Seeing(fwhm[0]))
    other = flux / SCALE
    other[:variable] *= 1.5
    add_points(light[1], x + shift[0], y + shift[1], other, Seeing(fwhm[1]))
    planes = [
        Plane(observe(one, 300, rng), np.full((SIZE, SIZE), 300, np.float32),
              np.zeros((SIZE, SIZE), bool), width, 1.0)
        for one, width in zip(light, fwhm, strict=True)
    ]  # fmt: skip
    table = np.zeros(50, dtype=[("X", "f8"), ("Y", "f8"), ("STAR", "?"), ("FLAGS", "i4"),
                                ("SNR", "f8"), ("FLUX_POINT", "f8")])  # fmt: skip
    table["X"], table["Y"], table["STAR"] = x + 1, y + 1, True
    table["FLUX_POINT"], table["SNR"] = flux, flux / np.sqrt(flux + 300 * 50)
    return planes, table


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.4, -2.7)])
def test_scale_shift_and_variables(rng, shift):
    (coadd, template), table = pair(rng, shift)
    stars = shared_stars(coadd, template, table, 8.0, Seeing(4.0).growth)
    # Half a per cent: what of two Moffat profiles lies beyond the apertures differs by that.
    assert stars.scale == pytest.approx(SCALE, abs=4 * stars.scale_error + 0.005 * SCALE)
    assert stars.scale_error < 0.01 * SCALE
    np.testing.assert_allclose(stars.mean_shift, shift, atol=0.03)
    bright = np.flatnonzero(table["FLUX_POINT"][:3] > 1e4)
    for k in bright:
        here = np.hypot(stars.x - table["X"][k] + 1, stars.y - table["Y"][k] + 1) < 0.1
        assert not stars.constant[here].any()
    assert stars.constant.mean() > 0.85
    assert (np.diff(stars.flux) <= 0).all()


def test_a_template_of_another_field_is_refused(rng):
    (coadd, _), table = pair(rng)
    (_, other), _ = pair(np.random.default_rng(99))
    with pytest.raises(FrameRejected, match="TEMPLATE_MISMATCH"):
        shared_stars(coadd, other, table, 2.0, Seeing(4.0).growth)


def test_scale_is_robust(rng):
    flux = 10 ** rng.uniform(3, 5, 60)
    error = np.sqrt(flux + 1000)
    other = flux / 3
    other[::6] *= rng.uniform(1.3, 3, 10)
    noisy = flux + error * rng.normal(size=60)
    scale, scale_error, constant = flux_scale(noisy, error, other, 0.001 * other)
    assert scale == pytest.approx(3, abs=4 * scale_error + 0.01)
    assert not constant[::6][flux[::6] > 3e3].any()


@pytest.fixture
def rng():
    return np.random.default_rng(5)
