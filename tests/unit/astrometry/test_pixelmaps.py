"""Maps from pixels to the sky, and the cards that stand for them."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from simulatedframes import RADIAL, SHAPE, cards
from starlink import Ast

from lib.astrometry.pixelmaps import (
    cached_map,
    fit_cards,
    map_from_cards,
    map_from_tpv,
    starting_map,
    tpv_terms,
)
from lib.core.sphere import project


@pytest.mark.parametrize("degree", [1, 3, 5, 7])
def test_tpv_terms_are_those_of_wcslib(degree):
    index, i, j = tpv_terms(degree)[-2]
    header = fits.Header(cards(pv={"PV1_1": 1.0, "PV2_1": 1.0}))
    header[f"PV1_{index}"] = 0.01 if index > 1 else 1.01
    x, y = np.array([100.0, 800.0]), np.array([50.0, 70.0])
    got = project(*WCS(header).all_pix2world(x, y, 1), 150.0, 20.0) / 3600
    cd = np.array([[header["CD1_1"], header["CD1_2"]], [header["CD2_1"], header["CD2_2"]]])
    xi, eta = cd @ [x - header["CRPIX1"], y - header["CRPIX2"]]
    np.testing.assert_allclose(got[:, 0], xi + 0.01 * xi**i * eta**j, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("dec", "pv"), [(20.0, None), (-89.5, None), (20.0, RADIAL)])
def test_cards_reproduce_a_map(dec, pv):
    true = cards(0.01, dec, angle=33, pv=pv)
    made, error = fit_cards(map_from_cards(true), SHAPE)
    assert made["CTYPE1"] == ("RA---TPV" if pv else "RA---TAN")
    assert error < 2e-4
    x, y = np.array([1.0, 333.0, 900.0]), np.array([1024.0, 77.0, 3.0])
    a = project(*map_from_cards(made)(x, y), 0.01, dec)
    b = project(*map_from_cards(true)(x, y), 0.01, dec)
    # Between the nodes too: 1 mas is far below what is asked of a solution.
    np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 7])
def test_quick_map_of_tpv_is_that_of_wcslib(degree):
    rng = np.random.default_rng(degree)
    made = cards(359.99, 70.0, angle=33)
    if degree > 1:
        made |= {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.001, "PV2_1": 0.999}
        for axis in (1, 2):
            for index, i, j in tpv_terms(degree):
                if i + j > 1:
                    made[f"PV{axis}_{index}"] = rng.normal() * 0.05 ** (1 - i - j) * 1e-3
    x, y = rng.uniform(1, 900, (2, 50))
    ra, dec = map_from_tpv(made)(x, y)
    expected = map_from_cards(made)(x, y)
    # Microarcseconds.
    np.testing.assert_allclose([ra, dec], expected, rtol=0, atol=1e-10)


def test_quick_map_refuses_radial_terms():
    with pytest.raises(ValueError, match="PV1_3"):
        map_from_tpv(cards(pv={"PV1_1": 1.0, "PV1_3": 0.1}))


def test_maps_remember_only_what_cannot_change():
    calls = []

    @cached_map
    def sky(x, y):
        calls.append(len(x))
        return x + 1, y + 1

    x, y = np.arange(3.0), np.arange(3.0)
    sky(x, y)
    x[0] = 5
    assert sky(x, y)[0][0] == 6
    assert len(calls) == 2
    for values in (x, y):
        values.flags.writeable = False
    assert sky(x, y) is sky(x, y)
    assert len(calls) == 3
    with pytest.raises(ValueError, match="read-only"):
        sky(x, y)[0][0] = 0


@pytest.mark.parametrize("pv", [None, RADIAL])
def test_cards_are_read_alike_by_ast(pv):
    """AST is what DS9 reads coordinates with, WCSLIB what astropy does."""
    made, _ = fit_cards(map_from_cards(cards(angle=33, pv=pv)), SHAPE)
    header = fits.Header(made | {"NAXIS": 2, "NAXIS1": SHAPE[1], "NAXIS2": SHAPE[0]})
    channel = Ast.FitsChan()
    for card in header.cards:
        channel.putfits(str(card), False)
    channel.Card = 1
    x, y = np.random.default_rng(1).uniform(1, 900, (2, 50))
    ra, dec = np.degrees(channel.read().tran([x, y]))
    expected = np.array(WCS(header).all_pix2world(x, y, 1))
    # Microarcseconds.
    np.testing.assert_allclose([ra % 360, dec], expected, rtol=0, atol=3e-10)


def test_starting_map_without_any_coordinates():
    header = fits.Header({"PIXSCALE": 0.5})
    sky, radius = starting_map(header, (100, 100))
    ra, dec = sky([50.5, 49.5], [50.5, 50.5])
    assert radius is None
    assert (ra[0], dec[0]) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert ra[1] * 3600 == pytest.approx(0.5, rel=1e-6)


def test_starting_map_from_pointing_or_reference():
    sky, radius = starting_map(
        fits.Header({"RA": 10.0, "DEC": -5.0, "POSERR": 0.2}), (100, 100), (50.0, 1.0, 0.3)
    )
    assert [float(v[0]) for v in sky([50.5], [50.5])] == pytest.approx([10.0, -5.0])
    assert radius == 0.2
    sky, radius = starting_map(fits.Header(), (100, 100), (50.0, 1.0, 0.3))
    assert [float(v[0]) for v in sky([50.5], [50.5])] == pytest.approx([50.0, 1.0])
    assert radius == 0.3


def test_coordinates_that_are_none_of_the_sky():
    header = fits.Header({"CTYPE1": "PIXEL", "CRVAL1": 512.0, "RA": 10.0, "DEC": 20.0})
    sky, _ = starting_map(header, (100, 100))
    assert float(sky([50.5], [50.5])[0][0]) == pytest.approx(10.0)


def test_cards_have_the_lowest_degree_that_does():
    cubic = {f"PV{a}_{n}": v for a in (1, 2) for n, v in ((1, 1.0), (7, 5.0), (9, 5.0))}
    made, error = fit_cards(map_from_cards(cards(pv=cubic)), SHAPE)
    indices = {int(key.split("_")[1]) for key in made if key.startswith("PV")}
    assert max(indices) == max(index for index, _, _ in tpv_terms(3))
    assert error < 2e-4
    assert not any(key.startswith("PV") for key in fit_cards(map_from_cards(cards()), SHAPE)[0])


@pytest.mark.parametrize("pv", [None, RADIAL], ids=["TAN", "TPV"])
def test_cards_round_trip_through_astropy(pv):
    made, _ = fit_cards(map_from_cards(cards(angle=77, pv=pv)), SHAPE)
    wcs = WCS(fits.Header(made))
    x, y = np.random.default_rng(3).uniform(1, 900, (2, 60))
    ra, dec = map_from_tpv(made)(x, y)
    back = wcs.all_world2pix(ra, dec, 1, tolerance=1e-8)
    np.testing.assert_allclose(back, [x, y], rtol=0, atol=1e-6)


def test_error_of_cards_is_the_largest_difference():
    true = map_from_cards(cards(pv=RADIAL))
    made, error = fit_cards(true, SHAPE, max_degree=3)
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(1, 900, 15), np.linspace(1, 1024, 15)))
    off = project(*map_from_cards(made)(x, y), 150.0, 20.0) - project(*true(x, y), 150.0, 20.0)
    assert error == pytest.approx(np.abs(off).max(), rel=0.01)
