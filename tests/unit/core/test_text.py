"""Texts of others, shown without what a terminal obeys."""

import logging

import pytest
from astropy.io import fits

from autoproc import workflow
from lib.core.text import card_text, shown, shown_lines, shown_within
from lib.engine.install import Terminal
from lib.engine.paths import tell
from lib.frame.file import FrameRejected
from lib.frame.step import start_log, stop_log
from lib.night.frameignored import FrameIgnored
from lib.reference.referencetable import CatalogueError
from lib.reference.vizier import AnswerError
from lib.report.embed import script_json

NASTY = ["\x1b[2J", "\x9b31m", "a\u202egpj.exe", "\u2066x\u2069", "\udcff", "\x00", "\x85",
         "\u2028", "\u200b", "\ufeff", "\U000e0041", "\x7f", "\r"]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_what_is_not_printed_is_shown(text):
    for found in (shown(text), shown_lines(text), card_text(text)):
        assert found.isprintable() and "\\" in found
        found.encode()
    assert card_text(text).isascii()
    fits.Header()["A"] = card_text(text)


def test_letters_stay():
    assert shown("étoile ☆ Ωμέγα 星") == "étoile ☆ Ωμέγα 星"
    assert shown("two\nlines") == "two\\x0alines"
    assert shown_lines("two\n\tlines") == "two\n\tlines"
    assert shown("abcdefghij", 8) == "abcde..."
    assert card_text("naïve\n") == "na\\xefve\\x0a"
    assert shown_within({"a\x1b": ["\x1b", 1, None, {"b": "c"}]}) == {
        "a\\x1b": ["\\x1b", 1, None, {"b": "c"}]
    }


@pytest.mark.parametrize("text", NASTY)
def test_every_way_out_shows_it(text, capsys, tmp_path):
    for error in (AnswerError, CatalogueError):
        assert str(error(text)) == shown(text)
    assert str(FrameRejected("CODE", text)) == f"CODE: {shown(text)}"
    assert str(FrameIgnored("CODE", text)) == f"CODE: {shown(text)}"
    tell(text)
    Terminal().say(f"a\n{text}")
    assert capsys.readouterr().err == f"autoproc: {shown(text)}\na\n{shown(text)}\n"
    start_log(tmp_path / "a.log")
    logging.getLogger("autoproc").warning("%s", text)
    stop_log()
    (line,) = (tmp_path / "a.log").read_text().splitlines()
    assert line.endswith(shown(text))
    assert shown(text).replace("\\", "\\\\") in script_json([text])
    workflow.note(text)
    assert capsys.readouterr().err == f"autoproc: {shown(text)}\n"
