"""What the page shows of difference images and candidates."""

import re

import pytest
from candidatepage import candidate_table, page_of, write_candidates

from lib.report.differenceview import CUT, candidate_rows, show_changes
from lib.report.outcomes import StackOutcome


def test_a_page_with_200_candidates_stays_light(tmp_path):
    plain = page_of(tmp_path, 0)
    assert "What has changed" not in plain
    write_candidates(tmp_path, 200)
    page = page_of(tmp_path, 200)
    # A row has half a kilobyte of words; pictures are on a sheet beside the page.
    assert len(page) - len(plain) < 200_000
    assert page.count('class="cut"') == 200 and "data:image" not in page[page.find("changes") :]
    assert (tmp_path / "qa/candidates/T.jpg").stat().st_size < 2_000_000
    places = re.findall(r"url\('qa/candidates/T.jpg'\) 0 -(\d+)px", page)
    assert [int(one) for one in places] == [CUT[1] * k for k in range(200)]
    # Closed: the browser asks for the sheet when the list is opened.
    assert re.search(r'<details class="candidates">\s*<summary>200 candidates', page)
    for words in ("22.90, 22.30", "ps1 r", "moves", "from a galaxy"):
        assert words in page


def test_rows_say_what_is_near_and_what_is_known():
    table = candidate_table(8)
    table["KNOWN"] = table["KNOWN"].astype("U20")
    table["KNOWN"][1] = "2022 AB"
    rows = candidate_rows(table)
    assert [row.known for row in rows[:3]] == ["", "2022 AB", ""]
    assert "from a star" in rows[0].near and "from a galaxy" in rows[1].near
    assert rows[0].sign == 1 and rows[1].sign == -1 and rows[0].frames == "4 of 5"


def test_the_reason_of_a_difference_that_is_not_there(tmp_path):
    cards = {"QCSTAT": "REJECTED", "QCREASON": "NO_TEMPLATE: no file", "FILTER": "r"}
    shown = show_changes("T", {"T.r": StackOutcome({}, [], {}, {}, cards)}, tmp_path)
    assert shown is not None and not shown.candidates and not shown.sheet
    assert "there is no template" in shown.differences[0].reason
    assert show_changes("T", {"T.r": StackOutcome({}, [], {}, {})}, tmp_path) is None


@pytest.mark.parametrize("text", ["", "# %ECSV 1.0\n---\n", "\x00\x01"])
def test_a_damaged_table_shows_no_candidates(tmp_path, text):
    (tmp_path / "T.candidates.ecsv").write_text(text)
    cards = {"QCSTAT": "OK", "FILTER": "r"}
    shown = show_changes("T", {"T.r": StackOutcome({}, [], {}, {}, cards)}, tmp_path)
    assert shown is not None and shown.candidates == []
