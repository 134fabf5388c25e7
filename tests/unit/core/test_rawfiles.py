"""Where raw files lie, and what they are called."""

import pytest

from lib.core.rawfiles import NoRawFolder, raw_places


@pytest.fixture
def season(tmp_path, monkeypatch):
    """Folders of two nights, with a file each, one deeper, and others beside."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "raw/20220128/a.fits", "raw/20220129/a.fits.fz", "raw/20220129/late/b.FIT",
        "raw/notes/c.txt", "raw/notes/.hidden.fits", "more/d.fts",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()


def found(datadir, **options):
    places = raw_places(datadir, **options)
    return places.root, places.names()


@pytest.mark.usefixtures("season")
def test_directory_pattern_and_list():
    assert found("raw/20220128") == ("raw/20220128", ["a.fits"])
    assert found("raw/2022*/") == ("raw", ["20220128/a.fits", "20220129/a.fits.fz"])
    assert found("raw/2022*/", recursive=True)[1][2:] == ["20220129/late/b.FIT"]
    assert found(["raw/20220128", "raw/20220129"]) == (
        "raw", ["20220128/a.fits", "20220129/a.fits.fz"]
    )  # fmt: skip
    assert found(["raw/2022*", "more"])[1] == [
        "more/d.fts", "raw/20220128/a.fits", "raw/20220129/a.fits.fz"
    ]  # fmt: skip
    assert found("raw", recursive=True)[1] == found("raw/2022*", recursive=True)[1]


@pytest.mark.usefixtures("season")
def test_products_and_circles_are_not_searched(tmp_path):
    (tmp_path / "raw/red").mkdir()
    (tmp_path / "raw/red/p2.fits").touch()
    (tmp_path / "raw/20220128/back").symlink_to("..")
    names = found("raw", recursive=True, leave_out="raw/red")[1]
    assert names == ["20220128/a.fits", "20220129/a.fits.fz", "20220129/late/b.FIT"]


@pytest.mark.usefixtures("season")
@pytest.mark.parametrize(
    ("datadir", "says"),
    [("nowhere", "no directory nowhere"), ("raw/1999*", "no directory fits raw/1999*")],
)
def test_nothing_there_is_said_in_one_sentence(datadir, says):
    with pytest.raises(NoRawFolder, match=says.replace("*", r"\*")):
        raw_places(datadir)


@pytest.mark.usefixtures("season")
def test_brackets_in_a_name_are_no_pattern(tmp_path):
    (tmp_path / "raw/[1]").mkdir()
    (tmp_path / "raw/[1]/e.fits").touch()
    assert found("raw/[1]") == ("raw/[1]", ["e.fits"])
