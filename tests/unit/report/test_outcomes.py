"""What became of every frame."""

from smallnight import put

from lib.night.plan import plan_night
from lib.report import outcomes, products


def test_every_frame_has_its_outcome(reduced):
    night, imdir, good, lost = reduced
    result = outcomes.collect(night, plan_night(night, {}), imdir)
    told = {one.frame: (one.status, one.step, one.reason, one.used) for one in result.rows}
    assert told == {
        good[0]: ("OK", "stack", "", "coaddT1.r"),
        good[1]: ("OK", "stack", "", "coaddT1.r"),
        good[2]: ("OK", "stack", "", "coaddT1.r"),
        good[3]: ("REJECTED", "stack", "CLOUDY: 0.02 < 0.1", ""),
        lost[0]: ("REJECTED", "flatten", "NO_FLAT: none of 2 fits", ""),
        lost[1]: ("UNFINISHED", "skysub", "NO_OUTPUT: skysub failed or was stopped", ""),
        "20220128T040000C0b": ("OK", "bias", "", "bias-C0"),
        "20220128T040100C0b": ("REJECTED", "bias", "LEVEL: 900.0 DN apart", ""),
        "grism.fits": ("IGNORED", "nightlog", "SPECTRUM: a grism", ""),
    }
    assert [one.frame for one in result.left_out] == [
        "20220128T040100C0b", lost[0], lost[1], good[3],
    ]  # fmt: skip


def test_a_frame_rejected_by_the_solution_is_told_so_before_its_file_is_there():
    outcome = outcomes.Outcome("f", step="crclean")
    outcomes.judge_in_stack(
        outcome, "T.r", {"status": "REJECTED", "code": "NO_MATCH", "numbers": "3 < 6"}, {}, False
    )
    assert (outcome.status, outcome.step, outcome.reason) == (
        "REJECTED", "astrometry", "NO_MATCH: 3 < 6",
    )  # fmt: skip


def test_headers_are_read_again_only_when_a_file_changed(reduced, monkeypatch):
    night, imdir, good, _ = reduced
    outcomes.collect(night, plan_night(night, {}), imdir)
    read = []
    original = products.cards_of
    monkeypatch.setattr(
        products, "cards_of", lambda path, *more: read.append(path.name) or original(path, *more)
    )
    outcomes.collect(night, plan_night(night, {}), imdir)
    assert read == []
    put(imdir, f"azsfp{good[1]}.fits", good[1], SKYCTS=999.0, NOTE="longer than it was")
    result = outcomes.collect(night, plan_night(night, {}), imdir)
    assert read == [f"azsfp{good[1]}.fits"]
    assert result.frames[good[1]].cards["SKYCTS"] == 999.0
