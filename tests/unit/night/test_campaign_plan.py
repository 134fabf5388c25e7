"""The nights of a run: what lies where, which masters of other nights are used, and why."""

from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from lib.core.contents import ContentRecord
from lib.engine.campaignfiles import campaign_files
from lib.engine.config import check_config
from lib.engine.nightfiles import grid_remarks
from lib.engine.nightlinks import link_nights
from lib.engine.settled import night_key
from lib.night import nightlog
from lib.night.campaign import plan_campaign

HEADER = {
    "IMAGETYP": "Light", "EXPTIME": 60.0, "FILTER": "V", "GAIN": 1.5, "RDNOISE": 5.0,
    "OBJECT": "M 1", "RA": 83.6, "DEC": 22.0, "SITELONG": -111.0, "XBINNING": 1, "YBINNING": 1,
}  # fmt: skip
FLAT, BIAS = {"IMAGETYP": "Flat"}, {"IMAGETYP": "Bias", "EXPTIME": 0.0}


def write(path, date, *shots, number=1):
    """Write raw frames of a night, taken from 3 h UTC of a day on, ten seconds apart."""
    path.mkdir(parents=True, exist_ok=True)
    for k, changes in enumerate(shot for shot in shots for _ in range(number)):
        cards = HEADER | {"DATE-OBS": f"{date}T03:{k:02d}:00"} | changes
        pixels = np.full((20, 30), k + 1, np.int16)
        pixels[0, 0] = int(date[-2:])
        fits.PrimaryHDU(pixels, fits.Header(cards)).writeto(path / f"{k}.fits")


@pytest.fixture
def season(tmp_path):
    """Three nights: the second lacks flats, the third has flats in another binning only."""
    binned = FLAT | {"XBINNING": 2, "YBINNING": 2}
    write(tmp_path / "raw/a", "2024-03-02", {}, {}, FLAT, BIAS)
    write(tmp_path / "raw/b", "2024-03-05", {}, {}, binned, BIAS)
    write(tmp_path / "raw/c", "2024-03-06", {}, {}, BIAS)
    return tmp_path


def planned(path, folders="*", **changes):
    config = check_config(
        {"datadir": f"{path}/raw/{folders}", "imdir": str(path / "red"), "instrument": "generic"}
        | changes
    )
    log = nightlog.open_log(config, config["imdir"])
    campaign = plan_campaign(log, config, config["imdir"])
    return campaign, campaign_files(campaign, config), config


@pytest.fixture(autouse=True)
def imdir(tmp_path):
    (tmp_path / "red").mkdir()
    return tmp_path / "red"


def test_nights_have_folders_and_one_night_has_none(season):
    assert list(planned(season)[0].nights) == ["20240301/", "20240304/", "20240305/"]
    assert list(planned(season, "a")[0].nights) == [""]
    assert list(planned(season, nights="one")[0].nights) == [""]


def test_night_that_lies_there_stays(season, imdir):
    campaign, _, _ = planned(season)
    (imdir / f"zsfp{campaign.nights['20240304/'].log.science[0]}.fits").touch()
    assert list(planned(season)[0].nights) == ["20240301/", "", "20240305/"]


def test_raw_files_of_one_name_are_different_frames(season):
    campaign, files, _ = planned(season)
    assert len(campaign.log.frames) == 11
    raws = {files.nights["20240301/"].raw(f) for f in campaign.nights["20240301/"].log.frames}
    assert raws == {f"{season}/raw/a/{k}.fits" for k in range(4)}


def test_facts_of_a_frame_do_not_depend_on_where_it_lies(season):
    campaign, files, _ = planned(season)
    frame = campaign.nights["20240301/"].log.science[0]
    alone = planned(season, "a")[1]._facts(frame)
    assert files.nights["20240301/"]._facts(frame) == alone


def test_nearest_flat_that_fits_is_taken_and_what_was_nearer_is_told(season):
    campaign, files, _ = planned(season)
    log = campaign.nights["20240305/"].log
    match = log.match(log.science[0])
    assert match.flat == "20240301/flat_V"
    assert match.taken["flat"] == (
        "20240301/flat_V, 4 d older; nearer but other: 20240304/flat_V: binning 2x2, not 1x1"
    )
    assert f"flat: {match.taken['flat']}" in log.table_text()
    assert match.bias == "bias-C0" or match.bias in log.biases
    made = files.nights["20240305/"].masters_of(log.science[0], ("flat",), ready=False)
    assert made == {"flat": f"{season}/red/20240301/flat_V.fits"}


def test_flats_of_later_nights_are_not_taken(season):
    write(season / "raw/d", "2024-02-28", {}, BIAS)
    log = planned(season)[0].nights["20240227/"].log
    assert log.match(log.science[0]).flat is None


def test_master_older_than_max_age_is_refused_with_its_age(season):
    campaign, _, _ = planned(season, max_age={"flat": 3})
    log = campaign.nights["20240305/"].log
    match = log.match(log.science[0])
    assert match.flat is None
    assert "20240301/flat_V: 4 d older, max_age.flat is 3" in match.notes["flat"]
    log = planned(season, max_age={"flat": 3.5})[0].nights["20240304/"].log
    assert log.match(log.science[0]).flat == "20240301/flat_V"


def test_dated_ready_masters_are_taken_by_age(season, tmp_path):
    for name, day in (("old", "2024-01-01"), ("new", "2024-03-04"), ("2x2", "2024-03-06")):
        (tmp_path / "masters" / name).mkdir(parents=True)
        binning = "2x2" if name == "2x2" else "1x1"
        cards = {"DATE-OBS": f"{day}T03:00:00", "BINNING": binning, "FILTER": "V"}
        fits.PrimaryHDU(np.ones((20, 30), np.float32), fits.Header(cards)).writeto(
            tmp_path / "masters" / name / "flat_V.fits"
        )
    campaign, files, _ = planned(season, masters=str(tmp_path / "masters"))
    log = campaign.nights["20240305/"].log
    match = log.match(log.science[0])
    assert match.flat == "new/flat_V"
    assert match.taken["flat"].startswith("new/flat_V, 2 d older; nearer but other: 2x2/flat_V:")
    ready = files.nights["20240305/"].masters_of(log.science[0], ("flat",), ready=True)
    assert ready == {"flat": f"{tmp_path}/masters/new/flat_V.fits"}


def test_stacks_over_nights_wait_for_those_of_the_nights(season):
    campaign, files, _ = planned(season)
    over = files.over_nights
    (name,) = campaign.slices
    assert name == "M_1.V.all" and len(campaign.slices[name]) == 6
    wildcards = type("Wildcards", (), {"night": "", "stack": name})
    assert files.of_stack("stack")(wildcards) == []
    assert files.nights_of_stack(wildcards) == [
        f"{season}/red/{night}/coaddM_1.V.fits" for night in ("20240301", "20240304", "20240305")
    ]
    given = files.stack_given(wildcards)
    assert len(given.frames) == 6 and all("/azsfp2" in path for path in given.frames)
    assert given.flats == [f"{season}/red/20240301/flat_V.fits"]
    assert set(files.stack_contents(wildcards)) == set(campaign.slices[name])
    assert f"{season}/red/M_1.lightcurve.ecsv" in over.products_over_nights


def test_stacks_on_one_grid_wait_for_all_nights_of_the_target(season, imdir):
    changes = {"stack": {"by": ["all", "1h"], "grid": "target"}}
    campaign, files, config = planned(season, **changes)
    first = "M_1.V.1h-20240302T030000"
    wildcards = SimpleNamespace(night="", stack=first)
    assert len(campaign.slices[first]) == 2
    nights = files.nights_of_stack(wildcards)
    assert nights == [f"{season}/red/{folder}coaddM_1.V.fits" for folder in campaign.nights]
    given = files.stack_given(wildcards)
    assert len(given.frames) == 2 and len(given.grid) == 6
    assert grid_remarks(campaign, config) == []
    # Two nights have been reduced, the third is new.
    for name in ("20240301", "20240304"):
        (imdir / name).mkdir()
        (imdir / name / "coaddM_1.V.fits").touch()
    for stack in campaign.slices:
        (imdir / f"coadd{stack}.fits").touch()
    (said,) = grid_remarks(campaign, config)
    assert "2 stacks without a new frame to be made again" in said
    assert grid_remarks(*planned(season)[::2]) == []


def test_parts_of_nights_and_all_nights_are_compared_with_the_template_of_their_night(season):
    changes = {"stack": {"by": ["all", "1h", "frames"]}, "template": "ps1"}
    campaign, files, _ = planned(season, **changes)
    hour = "M_1.V.1h-20240305T030000"
    assert set(campaign.compared) == {"M_1.V.all", hour, *(
        f"M_1.V.1h-2024030{day}T030000" for day in (2, 6)
    )}  # fmt: skip
    wanted = {f"{season}/red/diff{stack}.fits" for stack in campaign.compared}
    assert wanted < set(files.over_nights.products_over_nights)
    curve = SimpleNamespace(night="", target="M_1")
    nights = {f"{season}/red/{folder}diffM_1.V.fits" for folder in campaign.nights}
    assert set(files.differences(curve)) == wanted | nights
    one = SimpleNamespace(night="20240304/", target="M_1")  # its own light curve
    assert files.differences(one) == [f"{season}/red/20240304/diffM_1.V.fits"]
    own = f"{season}/red/20240304/refcat/M_1.V.template.fits"
    assert files.template_made(SimpleNamespace(night="", stack=hour)) == [own]
    assert planned(season, stack=changes["stack"])[0].compared == ()


def test_stacks_that_a_light_curve_is_not_measured_by_add_rows(season):
    campaign, files, _ = planned(season, stack={"by": ["all", "1h", "frames"]})
    curve = SimpleNamespace(night="", target="M_1")
    nights = {f"M_1.V.n{night.name}": f"{season}/red/{folder}coaddM_1.V.fits"
              for folder, night in campaign.nights.items()}  # fmt: skip
    hours = {stack: f"{season}/red/coadd{stack}.fits"
             for stack in campaign.parts if stack != "M_1.V.all"}  # fmt: skip
    assert len(hours) == 3 and files.other_stack_names(curve) == nights | hours
    assert sorted(files.other_stacks(curve)) == sorted((nights | hours).values())
    one = SimpleNamespace(night="20240304/", target="M_1")  # its own light curve
    assert files.other_stack_names(one) == {}
    _, alone, _ = planned(season, stack={"by": "night"})
    assert alone.other_stack_names(curve) == {}


def test_parts_of_a_lone_night_are_in_its_light_curve_with_its_template(season):
    changes = {"stack": {"by": ["auto", "1h"]}, "template": "own"}
    campaign, files, _ = planned(season, "a", **changes)
    (hour,) = campaign.compared
    curve = SimpleNamespace(target="M_1")
    assert files.other_stack_names(curve) == {hour: f"{season}/red/coadd{hour}.fits"}
    found = files.differences(curve)
    assert found == [f"{season}/red/diff{stack}.fits" for stack in ("M_1.V", hour)]
    given = files.template_given(SimpleNamespace(stack=hour))
    assert given.template is None and given.why


def test_digest_of_a_night_is_that_of_its_frames_and_settings_in_any_order(season):
    campaign, _, config = planned(season)
    night, contents = campaign.nights["20240301/"], ContentRecord(config["imdir"])
    key = night_key(night, config, contents, "code")
    backwards = dict(reversed(config.items()))
    assert night_key(night, backwards | {"quiet": True}, contents, "code") == key
    assert night_key(night, config | {"nocrclean": True}, contents, "code") != key
    assert night_key(night, config, contents, "other code") != key
    alone = next(iter(planned(season, "a")[0].nights.values()))
    assert night_key(alone, config, contents, "code") == key


def test_links_that_cannot_be_made_are_told(season, monkeypatch):
    campaign, _, config = planned(season)
    top = season / "red"
    for folder, night in campaign.nights.items():
        (top / folder).mkdir()
        for stack in night.plan.stacks:
            (top / folder / f"coadd{stack}.fits").write_text("a coadd")
    stack = next(iter(campaign.log.stacks))
    assert link_nights(campaign, config) == ""
    assert (top / f"coadd{stack}.n20240304.fits").read_text() == "a coadd"
    (top / f"coadd{stack}.n20240304.fits").unlink()

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    said = link_nights(campaign, config)
    assert said.startswith("1 links to stacks of nights could not be made")
    assert "Operation not permitted" in said and "folders of their nights" in said


def test_light_curve_over_nights_takes_the_differences_of_each(season):
    wildcards = SimpleNamespace(night="", target="M_1")
    assert planned(season)[1].differences(wildcards) == []
    campaign, files, _ = planned(season, template="own")
    found = files.differences(wildcards)
    *nights, over = found
    assert len(nights) == len(campaign.nights) and all("/diffM_1.V.fits" in one for one in nights)
    assert over == f"{season}/red/diffM_1.V.all.fits"
