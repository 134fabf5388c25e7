"""lib.night.targets: positions as people write them."""

import numpy as np
import pytest
from astropy.io import fits

from lib.night.targets import TargetError, parse_position, target_position


@pytest.mark.parametrize("value", [
    [150.1, -0.3], "150.1 -0.3", ["150.1", "-0.3"], "150.1,-0.3", "10:00:24 -0:18:00",
    ["10h00m24s", "-0d18m00s"], "10 00 24 -00 18 00",
])  # fmt: skip
def test_positions_as_people_write_them(value):
    assert parse_position(value) == pytest.approx((150.1, -0.3))


@pytest.mark.parametrize("value", [[1.0], [1, 2, 3], "a b", [400, 0], [10, 91], "10:70:00 0:0:0"])
def test_no_position_is_an_error(value):
    with pytest.raises(TargetError, match="write two degrees"):
        parse_position(value)


def test_no_pointing_at_all():
    assert parse_position([]) is parse_position(None) is parse_position("") is None
    ra, dec, source = target_position(None, [fits.Header()])
    assert np.isnan(ra) and np.isnan(dec) and source == ""
