"""The lines that end a run."""

import re

from lib.night.plan import plan_night
from lib.report import outcomes, summary


def test_summary_names_stacks_and_frames_left_out(reduced):
    night, imdir, good, lost = reduced
    text = summary.summary(outcomes.collect(night, plan_night(night, {}), imdir), imdir)
    assert "1 of 2 stacks" in text
    assert re.search(r'T1\.r +3 of 4 +30 s +1\.4" +27\.000 ± 0\.010 +21\.5', text)
    assert re.search(rf"{good[3]} +stack +CLOUDY: 0.02 < 0.1", text)
    assert "Ignored (not imaging): 1 file." in text


def test_summary_of_many_frames_stays_short():
    rows = [
        outcomes.Outcome(f"f{k}", "REJECTED", "solve", f"NO_MATCH: {k} < 6") for k in range(5000)
    ]
    result = outcomes.NightOutcome(rows, {one.frame: one for one in rows}, {}, {})
    text = summary.summary(result, "imredux")
    assert len(text.splitlines()) < 12
    assert "5000 frames" in text and "NO_MATCH" in text


def test_summary_tells_remarks():
    rows = [outcomes.Outcome("f1")]
    remarks = [f"flat_V: remark {k}" for k in range(20)]
    result = outcomes.NightOutcome(rows, {"f1": rows[0]}, {}, {}, remarks)
    lines = summary.summary(result, "imredux").splitlines()
    assert "To be noted:" in lines and "  flat_V: remark 0" in lines
    assert "  and 8 remarks more, on the page" in lines


def test_why_there_is_no_reference_stands_with_the_positions():
    cards = {"QCREASON": "NO_ASTROMETRIC_REFERENCE; NO_ZEROPOINT", "ASTRCAT": "NONE"}
    outcome = outcomes.StackOutcome(cards, [], {}, {"reference_reason": "refcat: none"})
    note = summary.stack_numbers("T.r", outcome, {}).note
    assert note == "positions not tied to a catalogue (refcat: none); no zero point"
