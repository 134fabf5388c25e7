"""How well a simulated night is given back: pixels of frames, positions of frames and coadds."""

import json
import re

import numpy as np
import pytest
import sep
import simulate
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.spatial import cKDTree
from workbench import simulated

from lib.core.stats import mad_std
from lib.frame.file import COSMIC, UNUSABLE

# Robust rms per axis of single stars of a signal-to-noise ratio above 50, and their mean offset.
COADD, OFFSET, FRAME = 5.0, 2.0, 15.0  # mas

REFERENCE_STARS = 25  # that a stack has at least


CALIBRATIONS = 3  # of a kind

NOT_ALL_FRAMES = 4096  # bit of FLAGS


@pytest.fixture(scope="module", params=["lmi", "ratir"])
def night(request, passing_folder):
    """A night of one camera of LMI; of one optical and one near-infrared camera of RATIR."""
    if request.param == "lmi":
        options = {"size": 1024, "filters": ("SDSS-R",), "exptime": 90.0, "stars": 60}
    else:
        options = {"cameras": ("C0", "C3"), "stars": 30}
    with passing_folder(request.param) as folder:
        place = simulated(
            folder,
            **{"instrument": request.param, "exposures": 5, "seed": 3} | options,
            calibrations=CALIBRATIONS,
            scenes=True,
            detector_truth=True,
            faint_limit=None,
        )
        done = place.snakemake()
        assert done.code == 0, done.out
        yield place


@pytest.fixture(scope="module")
def truth(night):
    return simulate.load_truth(night.path)


@pytest.fixture(scope="module")
def sky(truth):
    """Every star of the night, at the epoch of observation."""
    return truth["stars"]


def errors(ra, dec, stars, unit=1.0):
    """Return the offsets from the nearest true star, east and north, shape (n, 2).

    In mas, or in units of `unit` [mas], which may be an error for each star.
    """
    centre = np.median(ra), np.median(dec)
    found, true = (
        3600 * np.column_stack(simulate.tan_project(*where, *centre))
        for where in ((ra, dec), (stars["ra"], stars["dec"]))
    )
    distance, nearest = cKDTree(true).query(found)
    near = distance < 0.5
    assert near.mean() > 0.9
    return (1000 * (found - true[nearest]) / np.reshape(unit, (-1, 1)))[near]


def frame_stars(path):
    """Return the positions of stars of S/N > 50 by the header of a frame: ra, dec [deg]."""
    with fits.open(path) as hdus:
        image, mask, header = hdus[0].data.astype(np.float32), hdus["MASK"].data, hdus[0].header
    bad = (mask & UNUSABLE) > 0
    background = sep.Background(image, mask=bad)
    image -= background.back()
    noise = background.globalrms
    found = sep.extract(image, 5.0, err=noise, mask=bad)
    width = np.median(np.sqrt(found["a"] * found["b"]))
    place = found["x"], found["y"]
    flux, error, _ = sep.sum_circle(
        image, *place, 3 * width, err=noise, gain=header["GAIN"], mask=bad
    )
    x, y, flag = sep.winpos(image, *place, np.full(len(found), width), mask=bad)
    good = (flux > 50 * error) & (found["flag"] == 0) & (flag == 0)
    return WCS(header).all_pix2world(x[good], y[good], 0)


def test_pixels_differ_from_the_truth_by_their_noise(night, truth):
    """The light of the sources through the pixels' response, and nothing else, but for noise."""
    left = rays = 0
    for path in sorted(night.products.glob("azsfp*.fits")):
        with fits.open(path) as hdus:
            image, mask, header = hdus[0].data, hdus["MASK"].data, hdus[0].header
        entry = truth["frames"][header["FRAME"]]
        true = simulate.load_pixels(truth, header["FRAME"])
        assert image.shape == true["scene"].shape
        good = (mask & (UNUSABLE ^ COSMIC) == 0) & (true["flat"] > 0)
        usable = good & (mask & COSMIC == 0)
        flat = np.where(good, true["flat"], 1)
        light = true["scene"] * true["response"]
        noise = np.sqrt(light + true["sky"] * flat + entry["read_noise"] ** 2) / flat
        pull = (image - light / flat) / noise
        empty = usable & (light < 0.2 * noise)
        # The means of so many bias and flat frames have a noise of their own, never more than this.
        assert 0.98 < pull[empty].std() < np.sqrt(1 + 1 / CALIBRATIONS), path.name
        assert abs(pull[empty].mean()) < 0.10, path.name
        # Beyond 5 sigma: rays too faint to be told from noise. 6e-7 were noise.
        assert (np.abs(pull[empty]) > 5).mean() < 1e-4, path.name
        stars = usable & (light > 2 * noise)
        error = noise[stars].std() * np.sqrt(stars.sum()) / light[stars].sum()
        ratio = image[stars].sum() / (light / flat)[stars].sum()
        assert ratio == pytest.approx(1, abs=0.005 + 3 * error), path.name
        hit = good & (true["cosmic"] > 10 * noise)
        rays, left = rays + hit.sum(), left + (hit & usable).sum()
    assert rays > 100
    assert left <= 0.05 * rays


def test_single_frames(night, sky):
    solutions = sorted((night.products / "qa" / "astrometry").glob("*.json"))
    assert solutions
    for path in solutions:
        frames = json.loads(path.read_text())["frames"]
        assert len(frames) == 5
        for name, entry in frames.items():
            assert entry["status"] == "OK", (name, entry)
            found = errors(*frame_stars(night.products / f"azsfp{name}.fits"), sky)
            assert mad_std(found[:, 0]) < FRAME, name
            assert mad_std(found[:, 1]) < FRAME, name


def test_coadds(night, sky):
    coadds = sorted(night.products.glob("coadd*.cat.fits"))
    assert coadds
    field, pulls = [], []
    for path in coadds:
        header = fits.getheader(path.with_name(path.name.replace(".cat.", ".")))
        assert header["ASTRNST"] >= REFERENCE_STARS
        sources = Table.read(path, hdu="SOURCES")
        # Where the dither ends, some frames have a star: that is no fault of it.
        clean = (sources["FLAGS"] & ~NOT_ALL_FRAMES) == 0
        # In 1.5 FWHM: by their shape fainter stars reach this, whose positions noise moves more.
        bright = (sources["FLUX_APER3"] > 50 * sources["FLUXERR_APER3"]) & clean
        found = errors(*(np.asarray(sources[key])[bright] for key in ("RA", "DEC")), sky)
        assert len(found) > 20, path.name
        assert np.abs(np.median(found, axis=0)).max() < OFFSET, path.name
        field.append(found)
        # What noise moves; brighter stars feel the solution, which is good to 1 or 2 mas.
        noisy = (sources["SNR"] > 10) & (sources["POSERR"] > 4) & clean
        ra, dec, stated = (np.asarray(sources[key])[noisy] for key in ("RA", "DEC", "POSERR"))
        pulls.append(errors(ra, dec, sky, stated))
    # Of all filters together: 30 stars alone tell a scatter to 15 % only.
    east, north = np.concatenate(field).T
    assert mad_std(east) < COADD
    assert mad_std(north) < COADD
    assert 0.8 < mad_std(np.concatenate(pulls)) < 1.2


def test_a_star_that_the_template_has_not(night, truth, sky):
    """A deep template without one of the stars, which is new then; nothing else has changed."""
    if len(truth["frames"]) > 5:
        return  # of one camera: the other one costs as much and tells no more
    name, entry = next(iter(truth["frames"].items()))
    true = simulate.load_pixels(truth, name)
    stars = true["stars"]
    bright = stars[stars["flux"] > 500]
    apart = np.hypot(*(stars[key][:, None] - bright[key] for key in "xy"))
    lonely = np.sort(apart, axis=1)[:, 1] > 40
    inside = np.all([(stars[key] > 250) & (stars[key] < 770) for key in "xy"], axis=0)
    # Well seen, and far from saturation.
    well = inside & lonely & (stars["flux"] > 5e3) & (stars["flux"] < 1e5)
    new = int(np.flatnonzero(well)[0])
    light = true["scene"].astype(float)
    y, x = np.indices(light.shape)
    light[np.hypot(x - stars["x"][new], y - stars["y"][new]) < 18] = 0
    image = np.random.default_rng(1).poisson(20 * light + 2e4) - 2e4
    header = simulate.true_wcs(entry).to_header()
    header["FILTER"] = entry["filter"]
    path = night.path / "template.fits"
    fits.writeto(path, image.astype(np.float32), header)
    done = night.snakemake(template=path)
    assert done.code == 0, done.out
    where = sky[sky["id"] == stars["id"][new]][0]
    table = Table.read(next(night.products.glob("*.candidates.ecsv")), format="ascii.ecsv")
    listed = table[table["SCORE"] >= 0.3]
    east = (listed["RA"] - where["ra"]) * np.cos(np.radians(where["dec"]))
    offset = 3600 * np.hypot(east, listed["DEC"] - where["dec"])
    found = listed[np.argmin(offset)]
    assert offset.min() < 0.1 and found["SIGN"] == 1
    assert found["NSEEN"] == found["NFRAMES"] == 5 and not found["MOVING"]
    diff = fits.getheader(next(night.products.glob("diff*.fits")))
    magnitude = where[entry["filter"].split("-")[-1].lower()]
    error = np.hypot(found["MAGERR"], diff["ABSZPERR"])
    assert found["MAG"] == pytest.approx(magnitude, abs=4 * np.hypot(error, 0.01))
    assert diff["DIFPULL"] == pytest.approx(1, abs=0.05)
    # A simulated sky does not change.
    assert (np.abs(listed["SNR"]) > 7).sum() == 1
    curve = Table.read(next(night.products.glob("*.lightcurve.ecsv")), format="ascii.ecsv")
    assert (curve["KIND"] == "difference").sum() == 1
    # On request that of each frame, and those in the light curve; nothing else is made again.
    told = night.snakemake("-n", template=path, difference="{frames: true}").out
    table = re.search(r"^job +count\n[- ]+\n(.*?)\n\n", told, re.M | re.S)
    jobs = "framediff 5 lightcurve 1 night 1 all 1 total 8"
    assert table and table.group(1).split() == jobs.split(), told
    # Without it the night is what it was: no more is made of it.
    assert not {"subtract", "candidates"} & set(re.findall(r"\w+", night.snakemake("-n").out))
