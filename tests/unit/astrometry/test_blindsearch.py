"""A search in vain is ended: with a table of wrong stars, not every frame is searched for."""

from types import SimpleNamespace

import pytest

from lib.astrometry import firstsolution
from lib.astrometry.firstsolution import MANY_STARS, MOST_IN_VAIN, Search
from lib.astrometry.matching import NoMatch
from lib.core.settings import AstrometrySettings


def frames_with(*stars):
    return [
        SimpleNamespace(
            name=f"f{k}", stars=[0] * count, match=None, radius=10.0, pixel_to_world=None,
            local_matrix=lambda: None,
        )
        for k, count in enumerate(stars)
    ]  # fmt: skip


@pytest.fixture
def searched(monkeypatch):
    """The (name, whether farther away) of each search; frames in `found` are found farther away."""
    calls, found = [], set()

    def identify(frame, reference, settings, *, radius=None, **_):
        calls.append((frame.name, radius is not None))
        if radius is None or frame.name not in found:
            raise NoMatch("none")
        return SimpleNamespace(rung="offset"), None

    monkeypatch.setattr(firstsolution, "identify", identify)
    return calls, found


def farther(calls):
    return [name for name, wide in calls if wide]


def test_frames_of_many_stars_are_given_up_after_some(searched):
    calls, _ = searched
    search = Search(frames_with(*range(100, 140)), ["star"] * 7, AstrometrySettings())
    search.try_pointings()
    assert len([name for name, wide in calls if not wide]) == 40
    assert farther(calls) == [f"f{k}" for k in range(39, 39 - MOST_IN_VAIN, -1)]


def test_frames_of_few_stars_are_all_searched_for(searched):
    calls, _ = searched
    search = Search(frames_with(*[MANY_STARS] * 20), ["star"], AstrometrySettings())
    search.try_pointings()
    assert len(farther(calls)) == 20


def test_one_that_is_found_is_hope_for_all(searched):
    calls, found = searched
    frames = frames_with(*range(100, 140))
    found.add("f36")  # the fourth of most stars
    search = Search(frames, ["star"], AstrometrySettings())
    search.try_pointings()
    assert len(farther(calls)) == 40 and [one.name for one in search.solved] == ["f36"]


def test_what_sister_frames_tell_is_hope_too(searched):
    calls, _ = searched
    search = Search(frames_with(*range(100, 140)), ["star"], AstrometrySettings())
    search.corrections = [None]
    search.try_pointings()
    assert len(farther(calls)) == 40
