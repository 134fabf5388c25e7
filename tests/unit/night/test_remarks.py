"""Remarks on the headers of a night."""

from test_header_readings import facts_of

from lib.night.remarks import clashing_times, header_remarks


def frame(raw, seconds, exptime=60.0, **changes):
    facts = facts_of({"EXPTIME": exptime} | changes)
    facts.raw, facts.mjd = raw, facts.mjd + seconds / 86400
    return facts


def test_notes_that_differ_only_in_numbers_are_one_remark():
    frames = [frame("a.fits", 0, GAIN=100, EGAIN=0.8), frame("b.fits", 90, GAIN=200, EGAIN=0.4)]
    assert header_remarks(frames) == [
        "a.fits and 1 more: gain: GAIN 100 is a setting, EGAIN 0.8 is used"
    ]
    assert header_remarks([frame("a.fits", 0)]) == []


def test_frames_of_a_frozen_clock_are_told():
    (remark,) = clashing_times([frame(f"{i}.fits", 0) for i in range(4)])
    assert remark.startswith("4 frames") and "2023-03-10T03:10:00" in remark


def test_exposures_that_overlap_are_told_and_a_usual_series_is_not():
    (remark,) = clashing_times([frame(f"{i}.fits", 70 * i, 6000.0) for i in range(4)])
    assert remark.startswith("0.fits and 2 more") and "70 s" in remark
    assert clashing_times([frame(f"{i}.fits", 61 * i) for i in range(4)]) == []
