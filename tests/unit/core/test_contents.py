"""The record of what input files hold."""

import os

import pytest

from lib.core.contents import ContentRecord, checksum, sealed, unsealed


@pytest.fixture
def place(tmp_path):
    (tmp_path / "table").write_bytes(b"1 2 3")
    return tmp_path


def test_times_change_nothing_and_bytes_do(place):
    path = place / "table"
    first = ContentRecord(place).sum_of(path)
    os.utime(path, (0, 0))
    assert ContentRecord(place).sum_of(path) == first
    path.write_bytes(b"1 2 4")
    os.utime(path, (0, 0))
    assert ContentRecord(place).sum_of(path) != first


def test_file_is_read_once(place, monkeypatch):
    path = place / "table"
    first = ContentRecord(place).sum_of(path)
    monkeypatch.setattr("lib.core.contents.checksum", lambda _: pytest.fail("read again"))
    assert ContentRecord(place).sum_of(path) == first


def test_unreadable_file_has_a_sum_of_its_own(place):
    assert ContentRecord(place).sum_of(place / "absent") == "unreadable"


def test_file_that_changes_while_it_is_read_is_not_known(place):
    path = place / "table"
    with ContentRecord(place).reading("raw:table", path, content="a"):
        path.write_bytes(b"more than before")
    entry = ContentRecord(place).find("raw:table")
    assert entry["stamp"] is None and entry["sum"] == "" and entry["content"] == "a"


def test_damaged_lines_spoil_no_other(place):
    record = ContentRecord(place)
    record.write("one", (1, 2, 3), "sum")
    with open(record.path, "ab") as file:
        file.write(b'{"name": "two", "sum\n[[[[\n{"name": 3}\n\xff\xfe\n' + b"[" * 100_000 + b"\n")
    record.write("three", (1, 2, 3), "sum")
    assert set(ContentRecord(place).entries) == {"one", "three"}


def test_compact_keeps_the_last_entry_of_each(place):
    record = ContentRecord(place)
    for number in range(50):
        record.write("one", (number, 2, 3), "sum")
    long = record.path.stat().st_size
    record.compact()
    assert record.path.stat().st_size < long / 10
    assert ContentRecord(place).find("one")["stamp"] == [49, 2, 3]


def test_checksum_tells_order_and_length(place):
    sums = set()
    for content in (b"ab" * 9, b"ba" * 9, b"", b"\0", b"\0\0"):
        (place / "table").write_bytes(content)
        sums.add(checksum(place / "table"))
    assert len(sums) == 5


def test_sealed_note_is_known_again_and_a_changed_one_is_not():
    note = {"files": {"a": [1, 2.5, None], "\u00e9": "x"}}
    text = sealed(note)
    assert unsealed(text) == unsealed(text.encode() + b"\n") == note
    for number in range(len(text)):
        changed = text[:number] + chr(ord(text[number]) ^ 1) + text[number + 1 :]
        assert unsealed(changed) == {}
    for other in ("", "null", "[]", "[" * 100_000, text[:-1], text + "}"):
        assert unsealed(other) == {}
