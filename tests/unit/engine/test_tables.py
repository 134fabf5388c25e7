"""A wrong table of stars is told before anything is planned, and read once."""

import pytest

from lib.engine import tables
from lib.engine.config import ConfigError, check_config
from lib.engine.tables import check_tables

GOOD = "ra,dec,r,r_err\n10.0,2.0,15.0,0.01\n"


def settings(tmp_path, **more):
    return check_config({"imdir": str(tmp_path / "imredux"), "refcat": "none"} | more)


@pytest.mark.parametrize("text, words", [("x,y\n1,2\n", "no column 'ra'"),
                                         ("ra,dec,r\n1,200,15\n", "dec is 200"),
                                         ("ra,dec\n1,2,3,4\n", "cannot be read")])  # fmt: skip
def test_wrong_table_is_one_sentence(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    config = settings(tmp_path, refcat=str(tmp_path / "t.csv"))
    for _ in range(2):
        with pytest.raises(ConfigError, match=words) as caught:
            check_tables(config)
        assert str(caught.value).startswith("refcat: ") and "\n" not in str(caught.value)


def test_table_is_read_again_where_it_changed_only(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text(GOOD)
    read = []
    good = tables._read_reference
    monkeypatch.setattr(tables, "_read_reference", lambda p: read.append(p) or good(p))
    config = settings(tmp_path, refcat=str(path))
    check_tables(config)
    check_tables(config)
    assert len(read) == 1
    path.write_text(GOOD.replace("10.0", "ten"))
    with pytest.raises(ConfigError, match="'ten', which is not a number"):
        check_tables(config)
    path.write_text(GOOD)
    check_tables(config)
    assert len(read) == 3


def test_wrong_custom_catalogue(tmp_path):
    (tmp_path / "c.txt").write_text("header\n1 2 3\n")
    config = settings(tmp_path, customcat=str(tmp_path / "c.txt"), customcatfilt=["r"])
    with pytest.raises(ConfigError, match="customcat: .*line 2 has 3 fields"):
        check_tables(config)


def test_no_table_is_nothing_to_read(tmp_path):
    check_tables(settings(tmp_path))
    assert not (tmp_path / "imredux").exists()
