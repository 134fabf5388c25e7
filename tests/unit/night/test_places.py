"""Spellings of OBJECT at one place are one target; other names there are asked about."""

import pytest
from framefacts import made_facts

from lib.night.headervalues import safe_name
from lib.night.places import plain_target, unite_targets

FIELD = 0.5 * 1000 / 3600  # deg


def frames(*named, filter_text="V"):
    """Return science frames of 1000 x 1000 pixels: (OBJECT, ra, dec)."""
    return [
        made_facts(
            object=name, target=safe_name(name), ra=ra, dec=dec, shape=[1000, 1000], pixscale=0.5,
            filter_text=filter_text, frame=f"2{k}",
        )
        for k, (name, ra, dec) in enumerate(named)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "filter_text"),
    [
        (["NGC 2420", "ngc2420", "NGC_2420"], "V"), (["M13", "M 13", "M-13"], "V"),
        (["NGC 2420 V", "NGC2420"], "V"), (["NGC2420_Johnson_V", "NGC2420"], "Johnson V"),
        (["M13_001", "M13_002", "M13"], "r"), (["Field1", "field 1"], "r"),
        (["XO-1b z", "XO-1b"], "z"), (["hd209458-3", "HD 209458"], "R"),
    ],
)  # fmt: skip
def test_spellings(names, filter_text):
    plain = {plain_target(name, filter_text) for name in names}
    assert len(plain) == 1


@pytest.mark.parametrize(
    "names", [["NGC 7331", "NGC 7332"], ["M 1", "M 13"], ["HIP 5", "HIP 6"], ["A+1", "A-1"],
              ["SN2020abc", "SN2020abd"], ["M13 R", "M13 V"]],
)  # fmt: skip
def test_other_names(names):
    assert plain_target(names[0], "r") != plain_target(names[1], "r")


def test_one_place_is_one_target():
    night = frames(("NGC 2420", 114.6, 21.57), ("NGC 2420", 114.6, 21.57),
                   ("ngc2420", 114.6 + 0.1 * FIELD, 21.57), ("other", 120.0, 0.0))  # fmt: skip
    notes = unite_targets(night)
    assert [one.target for one in night] == ["NGC_2420"] * 3 + ["other"]
    assert night[2].object == "ngc2420"
    assert notes == ["target NGC_2420: the same field is called ngc2420 too; it is one target"]


def test_one_name_at_two_places_stays():
    """A spelling counts only where it points alike: 0.4 of a field away it is another target."""
    night = frames(("Field 1", 0.0, 0.0), ("field1", 0.4 * FIELD, 0.0))
    assert unite_targets(night) == []
    assert {one.target for one in night} == {"Field_1", "field1"}


def test_across_ra_zero():
    night = frames(("M 1", 359.995, 0.0), ("M1", 0.005, 0.0))
    assert len(unite_targets(night)) == 1 and len({one.target for one in night}) == 1


def test_other_names_of_one_field_are_asked_about():
    night = frames(("M13", 250.42, 36.46), ("NGC 6205", 250.42, 36.46), ("M92", 259.28, 43.14))
    (note,) = unite_targets(night)
    assert "M13, NGC_6205 point at one field: are they one?" in note
    assert len({one.target for one in night}) == 3


def test_without_pointing_nothing_is_said():
    assert unite_targets(frames(("M 1", None, None), ("M1", None, None))) == []
