"""Several nights: the first alone, then two more, one without flats, one of another temperature."""

import shutil

import numpy as np
import pytest
import simulate
from astropy.io import fits
from astropy.table import Table
from workbench import Place

FILTER = "SDSS-R"
STACK = f"GRB220128A.{FILTER}"
NIGHTS = {
    "20220127": {},
    "20220129": {"start": "2022-01-30T05:10:00", "visit": 1, "seeing": 1.5, "extinction": 0.15,
                 "hostile": {"noflat": (FILTER,)}},
    "20220201": {"start": "2022-02-02T04:00:00", "visit": 2, "seeing": 1.2, "temperature": -100.0},
}  # fmt: skip
BY = "{by: [auto, last1h]}"
LATER = ("20220129", "20220201")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Three nights of 512² pixels, three exposures each, the first reduced before the others."""
    place = Place(tmp_path_factory.mktemp("campaign"))
    for name, options in NIGHTS.items():
        usual = {"instrument": "lmi", "size": 512, "exposures": 3, "stars": 40, "calibrations": 3}
        # No stars below the limit of a night: they would add to the noise of the deeper stack.
        usual |= {"faint_limit": 21.5}
        night = simulate.Night(
            **usual | {"seed": 7, "filters": (FILTER,), "detector_truth": False} | options
        )
        simulate.simulate_night(place.path / name, night)
        place.raw.mkdir(exist_ok=True)
        (place.path / name / "raw").rename(place.raw / name)
    shutil.copy(place.path / "20220127/reference.ecsv", place.path)
    first = place.snakemake(datadir="raw/20220127")
    assert first.code == 0, first.out
    place.first = {path: path.stat().st_mtime_ns for path in place.products.glob("*.fits")}
    place.said = place.snakemake(datadir="raw/2*", stack=BY)
    assert place.said.code == 0, place.said.out
    return place


def test_night_that_was_alone_stays_where_it_is_and_is_not_made_again(campaign):
    assert (
        "3 nights, 20220127 to 20220201, each in its folder of imdir; 20220127" in campaign.said.out
    )
    assert all(path.stat().st_mtime_ns == time for path, time in campaign.first.items())
    for night in LATER:
        folder = campaign.products / night
        assert len(list(folder.glob("azsfp*.fits"))) == 3
        assert (folder / "night.html").exists() and (folder / "frames.ecsv").exists()
    assert not list(campaign.products.glob("azsfp20220130*"))


def test_stacks_of_nights_sort_in_one_place(campaign):
    stacks = [path.name for path in sorted(campaign.products.glob(f"coadd{STACK}.n*[0-9].fits"))]
    assert stacks == [f"coadd{STACK}.n{night}.fits" for night in NIGHTS]
    frames = [fits.getheader(campaign.products / name)["NSTACK"] for name in stacks]
    assert frames == [3, 3, 3]
    assert fits.getheader(campaign.products / f"coadd{STACK}.all.fits")["NSTACK"] == 9
    last = campaign.products / f"coadd{STACK}.last1h.fits"
    assert fits.getheader(last)["DATE1"][:10] == "2022-02-02"
    assert fits.getheader(last)["NSTACK"] == 3


def test_depth_of_all_nights_is_that_of_the_nights_in_quadrature(campaign):
    names = [f"n{night}" for night in NIGHTS]
    depths = [
        10 ** (0.8 * fits.getheader(campaign.products / f"coadd{STACK}.{name}.fits")["LIMMAG"])
        for name in names
    ]
    header = fits.getheader(campaign.products / f"coadd{STACK}.all.fits")
    # 1 / flux limit squared adds up; 3 % in flux.
    expected = 1.25 * np.log10(sum(depths))
    assert header["LIMMAG"] == pytest.approx(expected, abs=2.5 * np.log10(1.03))


def test_night_without_flats_takes_those_before_and_tells(campaign):
    folder = campaign.products / "20220129"
    assert not list(folder.glob("flat_*.fits"))
    with fits.open(next(folder.glob("fp*.fits"))) as hdus:
        header = hdus[0].header
    assert header["FLATSUM"] == fits.getheader(campaign.products / f"flat_{FILTER}.fits")["DATASUM"]
    rows = Table.read(folder / "frames.ecsv", format="ascii.ecsv")
    notes = set(rows["calnote"][rows["type"] == "object"])
    assert notes == {f"flat: 20220127/flat_{FILTER}, 2 d older"}


def test_night_of_another_temperature_has_masters_of_its_own(campaign):
    folder = campaign.products / "20220201"
    header = fits.getheader(next(folder.glob("p2*.fits")))
    assert header["BIASSUM"] == fits.getheader(folder / "bias-C0.fits")["DATASUM"]


def test_light_curve_runs_over_all_nights(campaign):
    curve = Table.read(campaign.products / "GRB220128A.lightcurve.ecsv", format="ascii.ecsv")
    frames = curve[curve["KIND"] == "frame"]
    assert len(frames) == len(set(frames["MJD"])) == 9
    assert len(Table.read(campaign.products / "GRB220128A.all.ecsv", format="ascii.ecsv")) > 20


def test_settled_nights_are_not_planned_again(campaign):
    again = campaign.snakemake("--dry-run", datadir="raw/2*", stack=BY)
    assert again.did_nothing and "2 of them have come to their end before" in again.out
    forced = campaign.dry("--forcerun", "prepare", datadir="raw/2*", stack=BY)
    assert forced["prepare"] == 9
    (campaign.products / "20220201" / f"coadd{STACK}.fits").unlink()
    opened = campaign.dry(datadir="raw/2*", stack=BY)
    assert opened["stack"] == 3 and "prepare" not in opened  # the night's, all, the last hour
