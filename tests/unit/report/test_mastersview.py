"""What the page shows of masters."""

from lib.report import mastersview


def test_calibration_mismatches_list_candidates_and_failing_keys(reduced):
    night, _, _, lost = reduced
    (one,) = mastersview.calibration_mismatches(night)
    assert one.frames == [lost[0]] and one.kind == "flat"
    assert [(each.name, each.why) for each in one.candidates] == [
        ("flat_V", "filter V, not g"),
        ("flat_g-C1", "camera C1, not C0"),
    ]
