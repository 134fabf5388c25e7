"""Which frames make a stack, by ``stack.by``."""

import re

import pytest
from framefacts import made_facts

from lib.engine.config import ConfigError, check_config
from lib.night.slices import MARK, parse_slice, sliced, slices_of

DAY = 59607.0


def stacks_of(words, times, several=True):
    """Return the slices of a target whose frames were taken at some hours, in two filters."""
    frames = {
        f"2{name}{n}": made_facts(frame=f"2{name}{n}", mjd=DAY + hour / 24)
        for name in ("r", "i")
        for n, hour in enumerate(times)
    }
    stacks = {f"M_1.{name}": [f for f in frames if f[1] == name] for name in ("r", "i")}
    found = sliced(stacks, frames, slices_of(words, several))
    assert all(re.fullmatch(MARK, name.split(".", 2)[2]) for name in found)
    return {name: len(members) for name, members in found.items() if name.startswith("M_1.r")}


def test_one_night_has_no_other_stacks_unless_they_are_asked_for():
    assert stacks_of(["auto"], [1, 2, 3], several=False) == {}
    assert stacks_of(["night"], [1, 2, 3]) == {}
    assert stacks_of(["auto"], [1, 2, 26]) == {"M_1.r.all": 3}
    assert stacks_of(["night", "all"], [1, 2], several=False) == {"M_1.r.all": 2}


def test_bins_begin_at_whole_hours_whatever_comes_later():
    first = stacks_of(["1h"], [4.98, 5.0, 5.5])
    assert first == {"M_1.r.1h-20220128T040000": 1, "M_1.r.1h-20220128T050000": 2}
    assert stacks_of(["1h"], [4.98, 5.0, 5.5, 6.2]).items() >= first.items()
    assert list(stacks_of(["30min"], [5.5])) == ["M_1.r.30min-20220128T053000"]


def test_last_hour_counts_back_from_the_last_frame():
    assert stacks_of(["last1h"], [3, 4, 4.5, 5.2]) == {"M_1.r.last1h": 2}
    assert stacks_of(["last 2d"], [3, 4]) == {"M_1.r.last2d": 2}


def test_each_frame_by_itself():
    assert stacks_of(["frames"], [3, 4]) == {"M_1.r.f2r0": 1, "M_1.r.f2r1": 1}


def test_names_of_bins_sort_by_time():
    names = list(stacks_of(["1h"], [1, 30, 9, 2]))
    assert names == sorted(names) and len(names) == 4


@pytest.mark.parametrize("word", ["hour", "1", "0h", "0.5s", "1 week", "-1h", "last"])
def test_wrong_word_is_answered_with_what_to_write(word):
    with pytest.raises(ConfigError, match=r"stack\.by.*write"):
        check_config({"stack": {"by": ["night", word]}})


def test_words_may_be_one_or_several():
    assert check_config({"stack": {"by": "night,all"}})["stack"]["by"] == ["night", "all"]
    assert check_config({"stack": {"by": "1h"}})["stack"]["by"] == ["1h"]
    assert parse_slice("1.5h").word == "1p5h"
