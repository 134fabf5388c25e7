"""The watch over a live night: what arrives is reduced, and nothing that happens ends it."""

import errno

import pytest

from autoproc import command, watch


def test_files_that_still_grow_have_not_settled(tmp_path):
    for name in ("whole.fits", "grows.fits", "notes.txt", ".hidden.fits"):
        (tmp_path / name).write_bytes(b"x")
    before = watch.raw_files(tmp_path)
    assert set(before) == {"whole.fits", "grows.fits"}
    (tmp_path / "grows.fits").write_bytes(b"xy")
    (tmp_path / "new.fits").write_bytes(b"x")
    assert set(watch.settled(before, watch.raw_files(tmp_path))) == {"whole.fits"}


class Night:
    """A watched directory, runs that end as told, and what is said."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.codes, self.said, self.runs = folder, [], [], 0
        self.time = 0.0
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.time)
        self.watch = watch.Watch(self.run, folder, 1.0, self.said.append)

    def run(self):
        self.runs += 1
        code = self.codes.pop(0) if self.codes else 0
        if isinstance(code, Exception):
            raise code
        return code

    def add(self, name, content=b"x"):
        (self.folder / name).write_bytes(content)

    def looks(self, number=2):
        return [self.watch.look() for _ in range(number)]


@pytest.fixture
def night(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    return Night(tmp_path / "raw", monkeypatch)


def test_what_settles_is_reduced_once(night):
    night.looks(3)
    assert night.runs == 0
    night.add("1.fits")
    night.looks(4)
    assert night.runs == 1
    night.add("1.fits", b"xy")
    night.looks(4)
    assert night.runs == 2


def test_links_in_a_circle_do_not_end_it(night):
    (night.folder / "loop.fits").symlink_to("loop.fits")
    (night.folder / "nowhere.fits").symlink_to("nothing")
    night.add("1.fits")
    night.looks(3)
    assert night.runs == 1


def test_directory_that_goes_away_comes_back(night, tmp_path):
    night.add("1.fits")
    night.looks()
    night.folder.rename(tmp_path / "away")
    assert night.looks(3) == [None] * 3
    assert [line for line in night.said if "waiting for it" in line] == night.said
    assert len(night.said) == 1
    (tmp_path / "away").rename(night.folder)
    night.add("2.fits")
    night.looks(3)
    assert night.said[1:] == [f"{night.folder} is back"]
    assert night.runs == 2


@pytest.mark.parametrize("failure", [1, OSError(errno.ENOSPC, "No space left on device")])
def test_a_run_that_fails_is_tried_again(night, failure):
    night.codes = [failure, 1, 0]
    night.add("1.fits")
    night.looks(5)
    assert night.runs == 1 and "once more in 10 s" in night.said[-1]
    night.time = 11.0
    night.looks(5)
    assert night.runs == 2 and "once more in 20 s" in night.said[-1]
    night.time = 30.0
    night.looks(5)
    assert night.runs == 2
    night.time = 32.0
    night.looks(5)
    night.time = 1e4
    night.looks(5)
    assert night.runs == 3


def test_impossible_configuration_ends_it_at_once_but_not_later(night):
    night.codes = [2]
    night.add("1.fits")
    assert night.looks() == [None, 2]
    night.codes = [0, 2]
    for name in ("2.fits", "3.fits", "4.fits"):
        night.add(name)
        assert night.looks(4) == [None] * 4
    assert night.runs == 4


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "0", "1e300", "soon", ""])
def test_interval_that_is_none_is_one_sentence(value, capsys):
    assert command.main(["--watch", value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"autoproc: --watch: {value!r} is no time between looks, write")
    assert watch.look_interval("0.5") == 0.5


def test_nights_that_come_in_folders_of_their_own_are_seen(tmp_path):
    for night in ("20220127", "20220128"):
        (tmp_path / night).mkdir()
        (tmp_path / night / "a.fits").touch()
    assert set(watch.raw_files(f"{tmp_path}/2022*")) == {"20220127/a.fits", "20220128/a.fits"}
    assert set(watch.raw_files(tmp_path, recursive=True)) == {"20220127/a.fits", "20220128/a.fits"}
