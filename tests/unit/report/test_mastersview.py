"""What the page shows of masters."""

from lib.report import mastersview


def test_calibration_mismatches_list_candidates_and_failing_keys(reduced):
    night, _, _, lost = reduced
    (one,) = mastersview.calibration_mismatches(night)
    assert one["frames"] == [lost[0]] and one["kind"] == "flat"
    assert one["candidates"] == [
        {"name": "flat_V", "why": "filter V, not g"},
        {"name": "flat_g-C1", "why": "camera C1, not C0"},
    ]
