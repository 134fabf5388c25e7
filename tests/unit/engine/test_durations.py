"""What jobs took in earlier runs, as a guess for the next."""

import pytest

from lib.engine.durations import RECORD, read_durations, write_durations


def test_rules_that_did_not_run_keep_theirs(tmp_path):
    write_durations(tmp_path, {"prepare": 1.5, "stack": 20.0})
    write_durations(tmp_path, {"stack": 10.0})
    assert read_durations(tmp_path) == {"prepare": 1.5, "stack": 10.0}


@pytest.mark.parametrize(
    "text", ["", "null", "[1]", '{"a": "b"}', '{"a": [1]}', "\xff", "[" * 9999]
)
def test_a_damaged_record_is_none(tmp_path, text):
    (tmp_path / RECORD).write_text(text, encoding="latin-1")
    assert read_durations(tmp_path) == {}


def test_no_run_no_record(tmp_path):
    write_durations(tmp_path, {})
    assert not (tmp_path / RECORD).exists()
