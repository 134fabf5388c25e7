"""Custom catalogues in the text format of the original."""

import numpy as np
import pytest

from lib.core.bands import BANDS
from lib.reference.customcat import read_customcat
from lib.reference.referencetable import CatalogueError


def customcat_line(ra, magnitudes, errors, mode=0):
    return " ".join(map(str, [ra, 2.0, *magnitudes, *errors, mode])) + "\n"


def test_customcat(tmp_path):
    path = tmp_path / "custom.txt"
    magnitudes = np.arange(13) + 10.5
    missing = [99.0, 0.0, -99.0, *magnitudes[3:]]
    path.write_text(
        "anything at all in the first line\n"
        + customcat_line(150.0, magnitudes, [0.01] * 13)
        + "\n"
        + customcat_line(150.1, missing, [0.02] * 13, mode=2)
    )
    table = read_customcat(path)
    assert [float(table[band][0]) for band in BANDS] == list(magnitudes)
    assert (table["K_err"] == [0.01, 0.02]).all()
    assert np.isnan([table[band][1] for band in "ugr"]).all()
    assert table["i"][1] == magnitudes[3]
    assert list(table["mode"]) == [0, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("150 2 15 16\n", "line 2 has 4 fields, not 29"),
        (customcat_line(150, [1] * 13, [1] * 13).replace(" 1 ", " x ", 1), "line 2"),
        ("", "no stars"),
        (customcat_line("10:00:24", [1] * 13, [1] * 13), "line 2: .*decimal degrees"),
        (customcat_line("10h00m24s", [1] * 13, [1] * 13), "line 2: .*decimal degrees"),
        (customcat_line("10 00 24 0 18", [1] * 13, [1] * 13), "33 fields.*decimal degrees"),
    ],
)
def test_wrong_customcat_names_the_line(tmp_path, text, words):
    (tmp_path / "c.txt").write_text("header\n" + text)
    with pytest.raises(CatalogueError, match=words):
        read_customcat(tmp_path / "c.txt")
