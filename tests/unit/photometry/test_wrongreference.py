"""A reference that cannot be right gives no zero point, and the reason says what is wrong."""

import numpy as np
import pytest
from astropy.io import fits
from test_coaddzeropoint import RA, crowded

from lib.core.settings import StackSettings
from lib.core.wcs import celestial_wcs
from lib.photometry.coaddzeropoint import coadd_zeropoint
from lib.stack.depth import measure_coadd

SETTINGS = StackSettings(colour_term="off")


@pytest.fixture(scope="module")
def field():
    """A coadd of 80 stars, and its true reference; the zero point is 29.445."""
    cards = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": RA, "CRVAL2": 0.0, "CRPIX1": 1.0,
        "CRPIX2": 1.0, "CD1_1": -1 / 9000, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1 / 9000,
    }  # fmt: skip
    wcs = celestial_wcs(fits.Header(cards))
    x, y, magnitude, _, image = crowded(np.random.default_rng(3), 80)
    weight = np.full(image.shape, 5 / 464, np.float32)
    coadd = measure_coadd(
        image, weight, wcs=wcs, scale=0.4, gain=5.0, saturate=5e4, settings=SETTINGS
    )
    ra, dec = wcs.all_pix2world(x, y, 0)
    return coadd, {"ra": ra, "dec": dec, "r": magnitude, "r_err": np.full(x.size, 0.01)}


def random_stars(field, number, seed=4):
    """Return stars that are nowhere, with magnitudes of any star, over the coadd and around."""
    coadd, reference = field
    rng = np.random.default_rng(seed)
    ra, dec = reference["ra"], reference["dec"]
    width, height = np.ptp(ra), np.ptp(dec)
    return {
        "ra": ra.min() + width * rng.uniform(-0.5, 1.5, number),
        "dec": dec.min() + height * rng.uniform(-0.5, 1.5, number),
        "r": rng.uniform(12, 22, number),
        "r_err": np.full(number, 0.01),
    }


@pytest.mark.parametrize("tied", [True, False])
def test_the_true_reference_gives_the_zero_point(field, tied):
    coadd, reference = field
    found, _ = coadd_zeropoint(coadd, reference, "r", SETTINGS, tied)
    assert found.value == pytest.approx(25 + 2.5 * np.log10(60), abs=0.01)


@pytest.mark.parametrize("number", [300, 3000, 30_000])
def test_wrong_stars_match_by_chance(field, number):
    coadd, _ = field
    wrong = random_stars(field, number)
    found, _ = coadd_zeropoint(coadd, wrong, "r", SETTINGS, tied=False)
    assert not found.known
    assert "as by chance" in found.reason or "TOO_FEW" in found.reason or "NO_MATCH" in found.reason
    if number >= 3000:
        assert "the reference is not of this field" in found.reason
    # Also where the positions are believed.
    found, _ = coadd_zeropoint(coadd, wrong, "r", SETTINGS, tied=True)
    assert not found.known


def test_true_stars_among_many_wrong_ones_are_no_chance(field):
    coadd, reference = field
    wrong = random_stars(field, 2000)
    both = {name: np.r_[reference[name], wrong[name]] for name in reference}
    found, _ = coadd_zeropoint(coadd, both, "r", SETTINGS, tied=False)
    assert found.value == pytest.approx(25 + 2.5 * np.log10(60), abs=0.03)


def test_magnitudes_of_other_stars_are_told(field):
    coadd, reference = field
    shuffled = reference | {"r": np.random.default_rng(1).permutation(reference["r"])}
    found, stars = coadd_zeropoint(coadd, shuffled, "r", SETTINGS)
    assert not found.known and np.isnan(found.error)
    assert found.reason.startswith("SCATTERED: ")
    assert "not the r magnitudes" in found.reason
    assert found.used.shape == found.residual.shape == stars.source.shape
