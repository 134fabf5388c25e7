"""To which night a frame belongs."""

import pytest
from framefacts import made_facts

from lib.night.nights import tell_nights

DAY = 59607.0
"""Modified Julian date of 2022-01-28, 0 h UTC."""


def taken(*hours, longitude=0.0, type="object", instrument="lmi"):
    """Return frames taken so many hours after 0 h UTC of 2022-01-28."""
    return [
        made_facts(
            frame=f"{instrument}{type}{hour}", mjd=DAY + hour / 24, type=type,
            longitude=longitude, instrument=instrument,
        )
        for hour in hours
    ]  # fmt: skip


def nights(frames):
    return list(tell_nights(frames)[0].values())


@pytest.mark.parametrize(
    ("longitude", "hours", "expected"),
    [
        (-111.4, (2, 5, 13), ["20220127"] * 3),  # Arizona: noon is at 19:26 UTC
        (-111.4, (13, 26), ["20220127", "20220128"]),
        (-155.5, (4, 16), ["20220127"] * 2),  # Hawaii: noon UTC is before dawn
        (149.1, (-14, -4.5, 9.5), ["20220127", "20220127", "20220128"]),  # Siding Spring
        (0.0, (-5, 6, 20), ["20220127", "20220127", "20220128"]),
        (204.5, (4, 16), ["20220127"] * 2),  # Hawaii, counted eastwards
    ],
)
def test_nights_last_from_noon_to_noon_at_the_site(longitude, hours, expected):
    assert nights(taken(*hours, longitude=longitude)) == expected


def test_calibrations_of_another_day_belong_to_the_next_night_with_science():
    science = taken(5, 29, 53, longitude=-111.4)
    dark = taken(-60, 4, 30, 80, longitude=-111.4, type="bias")
    told = tell_nights(science + dark)[0]
    assert [told[one.frame] for one in science] == ["20220127", "20220128", "20220129"]
    assert [told[one.frame] for one in dark] == ["20220127", "20220127", "20220128", "20220129"]


def test_longitude_that_nobody_tells_is_that_of_greenwich_and_told():
    frames = taken(5, 29, longitude=None)
    told, notes = tell_nights(frames)
    assert list(told.values()) == ["20220127", "20220128"]
    assert notes == ["lmi: no header tells the longitude of the site, nights begin at noon UTC"]
    assert tell_nights(frames[:1])[1] == []  # nothing to be parted


def test_noon_that_falls_among_frames_is_not_believed():
    # A header that counts western longitudes: noon would be at 1:38 UTC.
    frames = taken(1, 2, 3, 9, 25, 26, 33, longitude=155.5)
    told, (note,) = tell_nights(frames)
    assert list(told.values()) == ["20220127"] * 4 + ["20220128"] * 3
    assert "longitude 155.5 falls among its frames, nights begin at 17.0 h UTC" in note


def test_frames_without_science_have_no_night():
    assert set(nights(taken(5, 29, type="bias"))) == {""}
