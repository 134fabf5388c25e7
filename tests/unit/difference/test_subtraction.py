"""Difference images of simulated pairs: noise, fluxes, limits, masks, stars that vary."""

from dataclasses import replace

import numpy as np
import pytest
from differencepairs import Seeing, add_points, empty_places, light_of, make_scene, observe
from transients import SKY, star_table

from lib.core.settings import DifferenceSettings
from lib.core.stats import mad_std
from lib.difference.limits import flux_at, injected_fraction
from lib.difference.planes import REACHED, SATURATED, TEMPLATE_NO_DATA, Plane
from lib.difference.stars import shared_stars
from lib.difference.subtraction import subtract
from lib.frame.file import FrameRejected
from lib.photometry.backgroundmesh import grow
from lib.photometry.sources import detect_sources

SIZE = 420
NEW = 3000.0
PAIRS = {
    "sharper template": (Seeing(3.0), Seeing(4.2)),
    "sharper coadd": (Seeing(4.2), Seeing(3.0)),
    "elongated": (Seeing(3.2), Seeing(3.6, ellipticity=0.25, angle=0.6)),
}
METHODS = ["sfft", "zogy"]


def make_pair(seeings, seed=4):
    """Return coadd, template, their stars, occupied pixels and the places of ten new sources."""
    rng = np.random.default_rng(seed)
    before, after = seeings
    scene = make_scene(rng, SIZE, 60, 12)
    light = [light_of(scene, after), light_of(scene, before)]
    new = empty_places(scene, rng, 10, 5 * max(before.fwhm, after.fwhm))
    add_points(light[0], *new.T, np.full(len(new), NEW), after)
    # The brightest but one star is half as bright as it was.
    order = np.argsort(-scene.stars[:, 2])
    variable = scene.stars[order[1]]
    add_points(light[1], variable[:1], variable[1:2], variable[2:], before)
    planes = [
        Plane(observe(one, sky, rng), np.full((SIZE, SIZE), sky, np.float32),
              np.zeros((SIZE, SIZE), bool), seeing.fwhm, 1.0)
        for one, sky, seeing in zip(light, SKY, (after, before), strict=True)
    ]  # fmt: skip
    table = star_table(scene, after, np.empty((0, 3)))
    stars = shared_stars(*planes, table, 6.0, after.growth)
    planes[1] = planes[1].scaled(stars.scale)
    found = [detect_sources(one.image, np.sqrt(one.variance), None, 1.5)[1] > 0 for one in planes]
    return planes[0], planes[1], stars, grow(found[0] | found[1], 3), new, variable


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    return make_pair(PAIRS[request.param])


@pytest.fixture(scope="module", params=METHODS)
def made(request, pair):
    """What one method makes of a pair, with one region: there are few stars."""
    return subtract(*pair[:4], DifferenceSettings(method=request.param, regions=1))


def test_noise_and_fluxes_are_true(pair, made):
    coadd, template, stars, occupied, new, _ = pair
    difference = made.difference
    assert difference.apertures > 100
    # A sample of so many apertures, half of them shared, tells a scatter to a twentieth.
    assert difference.pull == pytest.approx(1.0, abs=0.05)
    empty = ~occupied & np.isfinite(difference.error)
    assert mad_std(difference.fluxes.significance[empty]) == pytest.approx(1.0, abs=0.05)
    places = [flux_at(difference, x, y) for x, y in new]
    pulls = np.array([(one.flux - NEW) / one.error for one in places])
    assert np.abs(pulls).max() < 4 and abs(pulls.mean()) < 4 / np.sqrt(len(pulls))
    # The best that there is: the sky of both under the wider of both profiles.
    floor = np.sqrt(sum(SKY) * 4 * np.pi) * max(coadd.fwhm, template.fwhm) / 2.355
    assert 0.8 * floor < difference.depth(empty) < 1.5 * floor
    # Stars leave little, but for the one that varies.
    row, column = np.rint(stars.y).astype(int), np.rint(stars.x).astype(int)
    left = difference.fluxes.flux[row, column] / difference.fluxes.error[row, column]
    assert np.median(np.abs(left[stars.constant])) < 2
    assert made.bits[difference.variance > 0].max() == 0


def test_half_of_the_sources_at_a_limit_are_found(pair, made):
    occupied, difference = pair[3], made.difference
    error = difference.depth(~occupied & np.isfinite(difference.error))
    for level in (3.0, 5.0):
        rng = np.random.default_rng(3)
        part, number = injected_fraction(difference, error, level, 1.0, rng, 400, occupied)
        assert number > 60
        # Three sigma of so many throws of a coin.
        assert part == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(number))


def test_a_star_that_varies_does_not_drive_the_kernel(pair, made):
    stars, variable = pair[2], pair[5]
    here = np.hypot(stars.x - variable[0], stars.y - variable[1]) < 1
    assert here.any() and not stars.constant[here].any()
    found = flux_at(made.difference, *variable[:2])
    # It has lost its flux, to the error and the per cent that kernels know the scale to.
    assert found.flux == pytest.approx(-variable[2], abs=4 * found.error + 0.03 * variable[2])


def test_the_sharper_image_is_convolved(pair, made):
    coadd, template = pair[:2]
    if made.method == "zogy":
        assert made.convolved == "both" and made.half == 0
        return
    assert made.convolved == ("template" if template.fwhm <= coadd.fwhm else "coadd")
    assert made.difference.fwhm == max(coadd.fwhm, template.fwhm)
    # The template has been brought to the scale of the coadd. A sum of hundreds of free pixels,
    # of which most are but noise, is known to a few per cent.
    assert made.kernel_sum == pytest.approx(1.0, abs=0.06)


def test_masked_pixels_say_why():
    coadd, template, stars, occupied, _, _ = make_pair(PAIRS["sharper template"])
    saturated = np.zeros((SIZE, SIZE), bool)
    saturated[200:204, 100:104] = True
    hole = template.variance.copy()
    hole[300:303, 300:303] = 0
    made = subtract(
        replace(coadd, saturated=saturated), replace(template, variance=hole), stars, occupied,
        DifferenceSettings(method="zogy", regions=1),
    )  # fmt: skip
    assert (made.bits[200:204, 100:104] & SATURATED > 0).all()
    assert (made.bits[300:303, 300:303] & TEMPLATE_NO_DATA > 0).all()
    assert made.bits[304, 301] & REACHED
    assert (made.bits[:3] & REACHED > 0).all()
    assert (made.difference.variance[made.bits > 0] == 0).all()
    assert not made.bits[150:190, 150:190].any()


def test_auto_takes_the_least_noise_and_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    coadd, template, stars, occupied, _, _ = make_pair(PAIRS["elongated"])
    made = subtract(coadd, template, stars, occupied, DifferenceSettings(regions=1))
    tried = {name: figures[0] for name, figures in made.tried.items()}
    assert tried[made.method] < min(tried.values()) / 0.97
    assert {*tried, *(one.split(":")[0] for one in made.missing)} == {"sfft", "zogy", "hotpants"}
    assert any(one.startswith("hotpants: hotpants is not installed") for one in made.missing)
    with pytest.raises(FrameRejected, match="NO_METHOD: hotpants"):
        subtract(coadd, template, stars, occupied, DifferenceSettings(method="hotpants"))
