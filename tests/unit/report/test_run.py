"""The end of a run."""

from smallnight import header

from lib.frame.file import FrameRejected, reject, write_frame
from lib.night.plan import plan_night
from lib.report import page, run


def test_end_of_a_run_knows_whether_the_page_is_current(reduced):
    night, imdir, good, _ = reduced
    _, current = run.finish_run(night, plan_night(night, {}), imdir)
    assert not current
    page.make_page(night, {"datadir": "none", "exclude": "exclude.txt"}, imdir)
    result, current = run.finish_run(night, plan_night(night, {}), imdir)
    assert current
    why = FrameRejected("SATURATED", "0.7 > 0.5")
    write_frame(imdir / f"azsfp{good[2]}.fits", reject(header(good[2]), "prepare", why))
    _, current = run.finish_run(night, plan_night(night, {}), imdir)
    assert not current
