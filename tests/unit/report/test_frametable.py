"""frames.ecsv."""

import numpy as np
import pytest
from astropy.table import Table
from smallnight import HOSTILE

from lib.night.nightlog import COLUMNS
from lib.night.plan import plan_night
from lib.report import frametable, outcomes


def test_frames_table_holds_every_row_and_is_written_only_when_it_changes(reduced):
    night, imdir, good, lost = reduced
    path = imdir / "frames.ecsv"
    assert frametable.begin_frames_table(night, path)
    assert set(Table.read(path)["status"]) == {"OK", "IGNORED"}
    assert not frametable.begin_frames_table(night, path)

    result = outcomes.collect(night, plan_night(night, {}), imdir)
    assert frametable.write_frames_table(night, result.rows, path)
    assert not frametable.write_frames_table(night, result.rows, path)
    assert not frametable.begin_frames_table(night, path), "outcomes are lost at the next start"

    table = Table.read(path)
    assert set(COLUMNS) <= set(table.colnames)
    assert list(table["raw"]) == [row.raw for row in night.rows]
    row = table[list(table["frame"]).index(good[0])]
    assert row["used"] == "coaddT1.r" and row["fwhm"] == 1.2 and row["nstars"] == 30
    assert row["object"] == HOSTILE
    assert table[list(table["frame"]).index(lost[0])]["reason"] == "NO_FLAT: none of 2 fits"
    assert table["fwhm"].dtype.kind == "f" and table["ncosmic"].dtype.kind == "i"

    night.add("20220128T060000C0b", "bias")
    assert frametable.begin_frames_table(night, path)
    assert len(Table.read(path)) == len(night.rows)


@pytest.mark.parametrize("text", ['a "quoted", text', "tab\tand\nnewline", "#no comment", "é ☃"])
def test_texts_survive_the_table(tmp_path, text):
    rows = [{"frame": "f1", "object": text, "x": 1.5}, {"frame": "f2", "object": "", "x": None}]
    kinds = {"frame": "string", "object": "string", "x": "float64"}
    (tmp_path / "t.ecsv").write_text(frametable.ecsv_text(rows, kinds, {}), encoding="utf-8")
    table = Table.read(tmp_path / "t.ecsv")
    assert table["object"][0] == " ".join(text.split())
    assert table["x"][0] == 1.5 and np.ma.is_masked(table["x"][1])
