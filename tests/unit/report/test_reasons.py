"""Codes of rejections in words."""

import pytest

from lib.report import reasons


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("NO_FLAT: none of 2 fits", "no flat fits: none of 2 fits"),
        ("FEW_FRAMES: 2 < 3; NO_ZEROPOINT: NO_REFERENCE", "few frames: 2 < 3; no zero point: "
         "no reference"),
        ("SOMETHING_NEW", "something new"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)  # fmt: skip
def test_reasons_in_words(reason, words):
    assert reasons.reason_in_words(reason) == words
