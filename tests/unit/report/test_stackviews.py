"""What the page shows of stacks."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from lib.report import stackviews


def test_target_is_where_config_or_pointing_say():
    cards = {
        "ASTRCAT": "x", "NAXIS1": 100, "NAXIS2": 200, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CRVAL1": 150.0, "CRVAL2": 0.0, "CRPIX1": 50.5, "CRPIX2": 100.5, "CD1_1": -1e-3,
        "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "RA": 150.0, "DEC": 0.0,
    }  # fmt: skip
    assert stackviews.target_place(cards, None) == pytest.approx([0.5, 0.5], abs=1e-3)
    assert stackviews.target_place(cards, (149.98, 0.05)) == pytest.approx([0.7, 0.25], abs=1e-3)
    assert stackviews.target_place(cards, (150.5, 0.5)) is None  # outside of the picture
    assert stackviews.target_place(cards | {"ASTRCAT": "NONE"}, None) is None


def test_comparison_with_the_reference_finds_offsets_put_in():
    rng = np.random.default_rng(5)
    count = 40
    ra, dec = 359.99 + rng.uniform(0, 0.02, count), rng.uniform(49.99, 50.01, count)
    reference = Table({"ra": ra % 360, "dec": dec, "r": rng.uniform(14, 18, count)})
    east, north = 0.050, -0.030
    columns = {
        "RA": (ra + east / 3600 / np.cos(np.radians(50))) % 360, "DEC": dec + north / 3600,
        "X": rng.uniform(1, 80, count), "Y": rng.uniform(1, 64, count),
        "FLUX_POINT": rng.uniform(1, 9, count), "FLAGS": np.zeros(count, int),
        "MAG_POINT": np.asarray(reference["r"]) - 0.02, "ZP_STAR": np.arange(count) < 25,
    }  # fmt: skip
    sources = fits.BinTableHDU(Table(columns)).data
    compared = stackviews.compare_reference(
        sources, reference, {"CRVAL1": 0.0, "CRVAL2": 50.0}, "r"
    )
    assert len(compared.positions) == count
    offsets = np.array(compared.positions)[:, 2:]
    np.testing.assert_allclose(offsets, np.tile([50, -30], (count, 1)), atol=0.3)
    zero = np.array(compared.zeropoint)
    np.testing.assert_allclose(zero[:, 1], 0.02, atol=1e-3)
    assert zero[:, 2].sum() == 25


def test_stack_without_frames_has_a_header_and_no_picture(tmp_path):
    for name in ("coaddx.r.fits", "coaddx.r.weight.fits", "coaddx.r.cat.fits"):
        fits.PrimaryHDU(header=fits.Header({"QCSTAT": "REJECTED"})).writeto(tmp_path / name)
    assert stackviews.read_coadd(tmp_path, "x.r") == (None, None, None)
    assert stackviews.read_coadd(tmp_path, "y.r") == (None, None, None)
