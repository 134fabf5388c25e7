"""lib.stack.stackframe: what a frame is known by, and the frames kept in memory."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from lib.frame.file import Frame, FrameRejected, write_frame
from lib.photometry.growth import GrowthCurve
from lib.stack.stackframe import (
    FrameCache,
    FrameMeasurement,
    FrameScaling,
    FrameStars,
    FrameZeropoint,
    OutlierCounts,
    StackFrame,
)


def make_frame(folder, name="20220101T000000C0o"):
    return StackFrame(name, folder / f"azsfp{name}.fits", fits.Header())


def test_numbers_grow_with_what_is_known(tmp_path):
    frame = make_frame(tmp_path)
    assert frame.numbers() == {"used": True, "reason": ""}
    with pytest.raises(AssertionError, match="not measured"):
        _ = frame.measurement
    with pytest.raises(AssertionError, match="not scaled"):
        _ = frame.weighting
    none = np.empty(0)
    frame.measured = FrameMeasurement(
        3.5, 1.4, 0.05, 40, 20.0, 5.25, 0.97, 0.002, (2.0, 3.0), (2.6, 0.6, 0.01),
        WCS(naxis=2), FrameStars(none, none, none, none),
        GrowthCurve(none, none, 5.25, 2.0, 3.0, 1.0, 1.0, 0.002, 9),
    )  # fmt: skip
    frame.zeropoint = FrameZeropoint(25.0, True, 0.01, 30, 0.9)
    frame.scaling = FrameScaling(1.1, 400.0, True, 2e-3, 1.0)
    frame.outliers = OutlierCounts(7, 100)
    numbers = frame.numbers()
    assert (numbers["fwhm"], numbers["zeropoint"], numbers["scale"]) == (3.5, 25.0, 1.1)
    assert (numbers["outliers"], numbers["trail"]) == (7, 100) and "step" not in numbers
    assert frame.measurement is frame.measured and frame.weighting is frame.scaling


def test_frame_left_out_has_its_reason_and_step(tmp_path):
    frame = make_frame(tmp_path)
    frame.leave_out(FrameRejected("CLOUDY", "transparency 0.050 < 0.1"))
    assert frame.numbers() == {
        "used": False, "reason": "CLOUDY: transparency 0.050 < 0.1", "step": "stack",
    }  # fmt: skip


def test_cache_keeps_frames_up_to_its_limit_and_reads_the_others_again(tmp_path):
    content = Frame(np.ones((10, 10), np.float32), np.zeros((10, 10), np.uint8), fits.Header())
    paths = [tmp_path / f"{k}.fits" for k in range(3)]
    for path in paths:
        write_frame(path, content)
    cache = FrameCache(2.5 * 500)  # of 500 bytes each
    for path in paths:
        cache.keep(path, content)
    assert [cache.take(path) is content for path in paths] == [True, True, False]
    assert cache.take(paths[0]) is not content  # taken before
