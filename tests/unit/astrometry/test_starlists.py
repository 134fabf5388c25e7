"""Reference stars: from a table, thinned, merged from frames."""

import numpy as np
import pytest
from astropy.table import Table

from lib.astrometry.starlists import Reference, reference_extent, reference_from_table


def test_reference_extent_across_zero():
    reference = Reference(np.array([359.9, 0.1]), np.zeros(2), np.full(2, 0.1), np.zeros(2))
    ra, dec, radius = reference_extent(reference)
    assert min(ra, 360 - ra) < 1e-9
    assert dec == pytest.approx(0.0)
    assert radius == pytest.approx(0.1)


def test_reference_from_table_fills_magnitudes_and_errors():
    table = Table({"ra": [1.0, 2.0, np.nan], "dec": [0.0, 0.0, 0.0]})
    table["ra_err"], table["dec_err"] = [3.0, np.nan, 1.0], [3.0, 1.0, 1.0]
    table["r"], table["J"] = [15.0, np.nan, 3.0], [13.0, 14.0, 1.0]
    reference = reference_from_table(table, "r")
    assert len(reference) == 2
    np.testing.assert_allclose(reference.error, [0.003, 0.1])
    np.testing.assert_allclose(reference.magnitude, [15.0, 16.0])
