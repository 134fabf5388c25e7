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
    shown = show_changes("T", {"T.r": StackOutcome({}, [], {}, {}, cards)}, {}, tmp_path)
    assert shown is not None and not shown.candidates and not shown.sheet
    assert "there is no template" in shown.differences[0].reason
    assert show_changes("T", {"T.r": StackOutcome({}, [], {}, {})}, {}, tmp_path) is None


def test_parts_of_the_night_are_listed_below_it_without_a_link_to_a_stack_of_the_page(tmp_path):
    night = {"QCSTAT": "OK", "FILTER": "r", "TGTSNR": 1.0}
    hour = {"QCSTAT": "OK", "FILTER": "r", "TGTMAG": 20.125, "TGTMERR": 0.05, "TGTSNR": 20.0}
    parts = {"T.r.1h-20220128T040000": hour}
    shown = show_changes("T", {"T.r": StackOutcome({}, [], {}, {}, night)}, parts, tmp_path)
    assert [one.part for one in shown.differences] == ["", "1h-20220128T040000"]
    page = page_of(tmp_path, 1, parts=parts)
    assert "20.125" in page and ">1h-20220128T040000<" in page
    assert "#stack=T.r.1h" not in page


@pytest.mark.parametrize("text", ["", "# %ECSV 1.0\n---\n", "\x00\x01"])
def test_a_damaged_table_shows_no_candidates(tmp_path, text):
    (tmp_path / "T.candidates.ecsv").write_text(text)
    cards = {"QCSTAT": "OK", "FILTER": "r"}
    shown = show_changes("T", {"T.r": StackOutcome({}, [], {}, {}, cards)}, {}, tmp_path)
    assert shown is not None and shown.candidates == []


def test_frames_less_the_template_have_their_significance_in_a_table_and_a_chart(tmp_path):
    """By time, in a colour for each filter; one that could not be made says why."""
    frames = {
        f"dazsfp2022{k}.fits": {"QCSTAT": "OK", "FRAME": f"2022{k}", "FILTER": "ri"[k % 2],
                                "ZPSYS": "AB", "MJD-OBS": 59600.5 - 0.01 * k, "EXPTIME": 864.0,
                                "TGTSNR": 8.0 - k, "TGTMAG": 20.0 + k, "TGTMERR": 0.1,
                                "TGTLIM3": 22.25}
        for k in range(3)
    }  # fmt: skip
    frames["dazsfp20229.fits"] = {"QCSTAT": "REJECTED", "QCREASON": "NOT_STACKED: clouds",
                                  "FRAME": "20229", "FILTER": "r"}  # fmt: skip
    write_candidates(tmp_path, 1)
    page = page_of(tmp_path, 1, frames)
    assert "4 single frames less the template" in page
    table = page[page.find('class="framechanges"') :]
    table = table[: table.find("</details>")]
    rows = re.findall(r'<a href="([^"]*)">(\w+)</a>', table)
    assert [name for _, name in rows] == ["20229", "20222", "20221", "20220"]
    assert rows[1][0] == "dazsfp20222.fits"
    for words in ("59600.48500", "20.000 ± 0.100 AB", "8.0", "22.25", "clouds"):
        assert words in table
    # A chart of three points with their errors, two colours.
    assert table.count("<svg") == 1 and len(set(re.findall(r'stroke="(#\w+)"', table))) == 2
    assert 'class="framechanges"' not in page_of(tmp_path, 1)
