"""lib.core.times: barycentric dates, against an orbit of the Earth of this test's own."""

import numpy as np
import pytest

from lib.core.times import JD_OF_MJD, barycentric_dates

AU = 499.004784
"""[s] Light time of an astronomical unit."""

UTC_TO_TDB = 37 + 32.184
"""[s] Since 2017."""


def earth_from_barycentre(mjd):
    """Return the position of the Earth [au, equatorial], good to about 0.002 au.

    The Sun by its mean elements (Meeus, Astronomical Algorithms, chapter 25), moved from the
    barycentre by Jupiter and Saturn (mean elements of Simon et al. 1994, A&A 282, 663).
    """
    century = (mjd - 51544.5) / 36525
    anomaly = np.radians(357.52911 + 35999.05029 * century)
    centre = 1.914602 * np.sin(anomaly) + 0.019993 * np.sin(2 * anomaly)
    longitude = np.radians(280.46646 + 36000.76983 * century + centre - 1.397 * century)
    distance = 1.000001018 * (1 - 0.016708634**2) / (1 + 0.016708634 * np.cos(anomaly))
    sun = distance * np.array([np.cos(longitude), np.sin(longitude)])
    barycentre = np.zeros(2)
    for mass, axis, start, rate, e, perihelion in (
        (1 / 1047.35, 5.2026, 34.351, 3034.906, 0.0485, 14.331),
        (1 / 3497.9, 9.5549, 50.077, 1222.114, 0.0555, 93.057),
    ):
        mean = np.radians(start + rate * century - perihelion)
        true = mean + 2 * e * np.sin(mean) + 1.25 * e**2 * np.sin(2 * mean)
        radius = axis * (1 - e**2) / (1 + e * np.cos(true))
        angle = true + np.radians(perihelion)
        barycentre += mass * radius * np.array([np.cos(angle), np.sin(angle)])
    x, y = -sun - barycentre
    tilt = np.radians(23.4393)
    return np.array([x, y * np.cos(tilt), y * np.sin(tilt)])


def expected(mjd, ra, dec):
    a, d = np.radians([ra, dec])
    towards = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    seconds = UTC_TO_TDB + AU * towards @ earth_from_barycentre(mjd)
    return seconds


@pytest.mark.parametrize("ra, dec", [(31.04, 46.69), (270.0, -23.4), (100.0, 80.0)])
def test_dates_are_those_of_the_barycentre(ra, dec):
    """To 1.5 s, the error of the simple orbit; the Sun itself is off by up to 4 s."""
    mjd = 58107.2 + np.arange(0, 3000, 250.0)
    found = (barycentric_dates(mjd, ra, dec) - (mjd + JD_OF_MJD)) * 86400
    truth = [expected(one, ra, dec) for one in mjd]
    assert np.abs(found - truth).max() < 1.5


def test_the_site_counts():
    """A telescope on the side of the Earth that is nearer to the star sees it earlier: 21 ms."""
    mjd = 59607.0 + np.arange(0, 1, 0.125)
    site = [0.0, 0.0, 0.0]
    late = (barycentric_dates(mjd, 100.0, 0.0, site) - barycentric_dates(mjd, 100.0, 0.0)) * 86400
    # Above the horizon, and 2 ms of the annual terms of TDB that depend on the place.
    assert np.max(late) == pytest.approx(0.0213, abs=0.003)
    assert np.min(late) == pytest.approx(-0.0213, abs=0.003)


def test_years_without_tables_and_unknown_positions_give_no_warning():
    found = barycentric_dates([75000.0, np.nan, 59607.0], [10.0, 10.0, np.nan], 20.0, [30, 10, 0])
    assert np.isfinite(found).tolist() == [True, False, False]
