"""Links to products."""

from lib.report import links


def test_only_what_is_there_is_linked_and_names_are_quoted(tmp_path):
    (tmp_path / "qa" / "stack").mkdir(parents=True)
    for name in ("coaddA+b.r.fits", "qa/stack/A+b.r.png", "A+b.ecsv", "a#b.fits"):
        (tmp_path / name).touch()
    found = links.stack_links(tmp_path, "A+b.r")
    assert [(one.what, one.href) for one in found] == [
        ("coadd", "coaddA%2Bb.r.fits"), ("zero point (plot)", "qa/stack/A%2Bb.r.png"),
    ]  # fmt: skip
    assert [one.href for one in links.target_links(tmp_path, "A+b")] == ["A%2Bb.ecsv"]
    assert links.existing(tmp_path, [("x", "a#b.fits")])[0].href == "a%23b.fits"
    assert links.night_links(tmp_path) == []
