"""Several nights: one, then two more, one without flats and one of another temperature."""

import re
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
BY = "{by: [auto, 1h], grid: target}"
LATER = ("20220129", "20220201")
CHANGES = {"template": "own", "difference": "{frames: true}"}
"""Each night less the one before it, its frames, too."""


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Three nights of 512² pixels, three exposures each, of which the first run knows one."""
    place = Place(tmp_path_factory.mktemp("campaign"))
    for name, options in NIGHTS.items():
        usual = {"instrument": "lmi", "size": 512, "exposures": 3, "stars": 25, "calibrations": 3}
        # No stars below the limit of a night: they would add to the noise of the deeper stack.
        usual |= {"faint_limit": 21.5}
        night = simulate.Night(
            **usual | {"seed": 7, "filters": (FILTER,), "detector_truth": False} | options
        )
        simulate.simulate_night(place.path / name, night)
        place.raw.mkdir(exist_ok=True)
        (place.path / name / "raw").rename(place.raw / name)
    shutil.copy(place.path / "20220127/reference.ecsv", place.path)
    place.said, place.before = [], []
    for folders in ("20220127", "2*"):
        place.before.append(times(place.products))
        done = place.snakemake(datadir=f"raw/{folders}", stack=BY, **CHANGES)
        assert done.code == 0, done.out
        place.said.append(done.out)
    return place


def times(products):
    """Return when each image and table was made, links left out."""
    return {
        path: path.stat().st_mtime_ns
        for path in products.glob("**/*.fits") if not path.is_symlink()
    }  # fmt: skip


def test_night_that_was_alone_stays_where_it_is_and_is_not_made_again(campaign):
    _, second = campaign.said
    assert "3 nights, 20220127 to 20220201, each in its folder of imdir; 20220127" in second
    after = times(campaign.products)
    changed = {path.name for path, time in campaign.before[1].items() if after[path] != time}
    hour = f"{STACK}.1h-20220128T040000"
    assert changed == {
        *(f"coadd{hour}{end}.fits" for end in ("", ".weight", ".cat")),
        *(f"diff{hour}{end}.fits" for end in ("", ".weight")),
    }
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
    hour = fits.getheader(campaign.products / f"coadd{STACK}.1h-20220202T040000.fits")
    assert hour["DATE1"][:10] == "2022-02-02" and hour["NSTACK"] == 3


def test_stacks_over_nights_share_a_grid_which_grows_with_each_night(campaign):
    names = [*campaign.products.glob(f"coadd{STACK}.1h-*T??0000.fits")]
    assert len(names) == 3
    grids = {grid_of(path) for path in [*names, campaign.products / f"coadd{STACK}.all.fits"]}
    own = {grid_of(campaign.products / folder / f"coadd{STACK}.fits") for folder in ("", *LATER)}
    (grid,) = grids
    assert len(own) == 3 and grid not in own
    first, second = campaign.said
    assert "grid: target" not in first
    assert "1 stack without a new frame to be made again, on the grid" in second


def grid_of(path):
    header = fits.getheader(path)
    keys = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD2_2", "NAXIS1", "NAXIS2")
    return tuple(header[key] for key in keys)


def test_pages_of_nights_and_of_all_lead_to_each_other(campaign):
    top = campaign.products / "campaign.html"
    pages = [campaign.products / folder / "night.html" for folder in ("", *LATER)]
    linked = set(re.findall(r'href="([^"#]*night\.html)"', top.read_text(encoding="utf-8")))
    assert {top.parent / one for one in linked} == set(pages)
    for page in pages:
        (back,) = re.findall(r'href="([^"]*campaign\.html)"', page.read_text(encoding="utf-8"))
        assert (page.parent / back).resolve() == top.resolve()


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
    stacks = curve[curve["KIND"] == "stack"]
    nights = {f"{STACK}.n{night}" for night in NIGHTS}
    hours = {path.stem[5:] for path in campaign.products.glob(f"coadd{STACK}.1h-*T??0000.fits")}
    assert set(stacks["FRAME"]) == {f"{STACK}.all"} | nights | hours and len(stacks) == 7
    # The hours of this campaign are its nights.
    flux = dict(zip(stacks["FRAME"], stacks["FLUX"], strict=True))
    error = dict(zip(stacks["FRAME"], stacks["FLUXERR"], strict=True))
    for night, hour in zip(sorted(nights), sorted(hours), strict=True):
        assert abs(flux[night] - flux[hour]) < error[night]
    assert len(Table.read(campaign.products / "GRB220128A.all.ecsv", format="ascii.ecsv")) > 20


def test_each_night_and_its_frames_are_compared_with_a_night_before(campaign):
    """No night is before the first; nothing was put in at the target that has changed since."""
    first = fits.getheader(campaign.products / f"diff{STACK}.fits")
    assert first["QCREASON"].startswith("NO_TEMPLATE")
    for folder in LATER:
        paths = [*campaign.products.glob(f"{folder}/dazsfp*.fits"),
                 campaign.products / folder / f"diff{STACK}.fits"]  # fmt: skip
        assert len(paths) == 4
        for path in paths:
            header = fits.getheader(path)
            assert header["QCSTAT"] == "OK" and abs(header["TGTSNR"]) < 4
            assert 0.9 < header["DIFPULL"] < 1.1
    curve = Table.read(campaign.products / "GRB220128A.lightcurve.ecsv", format="ascii.ecsv")
    rows = curve[(curve["KIND"] == "difference") & np.isfinite(curve["FLUX"])]
    singles = {str(name) for name in rows["FRAME"] if str(name) != STACK}
    hours = {name for name in singles if ".1h-" in name}
    assert len(rows) == 10 and len(hours) == 2 and len(singles - hours) == 6
    top = (campaign.products / "campaign.html").read_text(encoding="utf-8")
    for name in hours:  # each less the night before its own
        assert fits.getheader(campaign.products / f"diff{name}.fits")["QCSTAT"] == "OK"
        assert f'href="diff{name}.fits"' in top
    assert not list(campaign.products.glob("diff*moving*"))
    assert np.abs(rows["SNR"]).max() < 4
    page = (campaign.products / LATER[0] / "night.html").read_text(encoding="utf-8")
    assert all(name in page for name in singles if name.startswith("20220130"))


def test_settled_nights_are_not_planned_again(campaign):
    again = campaign.snakemake("--dry-run", datadir="raw/2*", stack=BY, **CHANGES)
    assert again.did_nothing and "2 of them have come to their end before" in again.out
    forced = campaign.dry("--forcerun", "prepare", datadir="raw/2*", stack=BY, **CHANGES)
    assert forced["prepare"] == 9
    (campaign.products / "20220201" / f"coadd{STACK}.fits").unlink()
    opened = campaign.dry(datadir="raw/2*", stack=BY, **CHANGES)
    assert opened["stack"] == 5 and "prepare" not in opened  # the night's, all, three hours
    nights = campaign.dry("nights", datadir="raw/2*", stack=BY)
    assert nights["stack"] == 1  # although its page is there
