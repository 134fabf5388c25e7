"""What the rules are told about the files of a night."""

from types import SimpleNamespace

import pytest
from framefacts import made_facts

from lib.core.pipeline import PIPELINE
from lib.engine.nightfiles import NightFiles, read_campaign
from lib.engine.paths import NothingToReduce
from lib.night.plan import Plan, Sky

FRAMES = ("20220128T050000C0o", "20220128T050100C0o")
SKY = Sky(FRAMES, near_infrared=False, sigma=3.0, structure=False, passes=1)


class Night:
    """A night of two frames with a flat made here and a ready bias, and no dark."""

    masters = {"bias-C0": "/ready/bias-C0.fits"}
    borrowed = {}
    flats = {"flat_r": ["20220127T230000C0f"]}
    biases = darks = {}

    def __init__(self, flat_is="required"):
        names = [*FRAMES, *self.flats["flat_r"]]
        self.frames = {
            name: made_facts(frame=name, raw=f"{name}.fits", calibrations={"flat": flat_is})
            for name in names
        }

    def match(self, frame):
        fits = {"bias": "bias-C0", "flat": "flat_r"}
        return SimpleNamespace(master=fits.get, notes={"dark": "none of 10 s"})


def files(**config):
    usual = {"imdir": "red", "datadir": "raw", "masters": "", "nomastersky": False}
    plan = Plan(
        stacks={"M_1.r": FRAMES},
        targets={"M_1": ("M_1.r",)},
        skies={"sky-r": SKY},
        stack_of=dict.fromkeys(FRAMES, "M_1.r"),
        sky_of=dict.fromkeys(FRAMES, "sky-r"),
        left_out=PIPELINE.left_out(usual | config),
    )
    return NightFiles(Night(), plan, usual | config)


def of(**wildcards):
    return SimpleNamespace(**wildcards)


def test_prefixes_follow_the_steps_left_out():
    assert files().before("astrometry") == "red/zsfp{frame}.fits"
    assert files(nocrclean=True).before("astrometry", "2a") == "red/sfp2a.fits"


def test_frame_is_reduced_with_the_masters_that_fit():
    frame = of(frame=FRAMES[0])
    given = files().given("bias", "dark", "flat", raw=True)(frame)
    assert vars(given) == {"raws": [f"raw/{FRAMES[0]}.fits"], "bias": "/ready/bias-C0.fits"}
    assert files().made("bias", "dark", "flat")(frame) == {"flat": "red/flat_r.fits"}


def test_master_has_its_frames_and_the_ready_one_to_compare_with(tmp_path):
    night, flat = files(masters=str(tmp_path), imdir=str(tmp_path)), ("flat", "bias", "dark")
    given = night.calibrations_given(*flat)
    expected = {"raws": ["raw/20220127T230000C0f.fits"], "bias": "/ready/bias-C0.fits"}
    assert vars(given(of(key="r"))) == expected
    assert night.calibrations(*flat)(of(key="r")) == {}
    (tmp_path / "flat_r.fit").touch()
    assert vars(given(of(key="r"))) == expected | {"ready": f"{tmp_path}/flat_r.fit"}
    assert night.calibrations_contents(*flat)(of(key="r")).keys() == {"bias", "ready"}


def test_params_tell_what_the_tables_and_masters_given_hold(tmp_path):
    (tmp_path / "table").write_text("1 2")
    config = {"imdir": str(tmp_path), "refcat": str(tmp_path / "table")}
    first = files(**config).reference_content(of(target="M_1"))
    (tmp_path / "table").write_text("1 3")
    assert first != files(**config).reference_content(of(target="M_1"))
    assert files(**config | {"refcat": "none"}).reference_content(of(target="M_1")) == ""
    stack = files(customcat=config["refcat"], imdir=str(tmp_path)).stack_contents(of(stack="M_1.r"))
    assert len(stack) == 1


def test_no_master_sky_where_none_is_wanted():
    assert files().sky(of(frame=FRAMES[0])) == {"sky": "red/sky-r.fits"}
    assert files(nomastersky=True).sky(of(frame=FRAMES[0])) == {}


def test_frames_of_a_stack_of_a_target_and_of_its_grid():
    night = files(stack={"grid": "target"})
    expected = [f"red/azsfp{frame}.fits" for frame in FRAMES]
    assert night.of_stack("stack")(of(stack="M_1.r")) == expected
    assert night.frames_of_target(of(target="M_1")) == expected
    assert night.grid_frames(of(stack="M_1.r")) == expected
    assert files(stack={"grid": "stack"}).grid_frames(of(stack="M_1.r")) == []
    assert night.products("qa/stack/{stack}.json")(of(target="M_1")) == ["red/qa/stack/M_1.r.json"]


def test_directory_without_frames_is_refused_in_one_sentence(tmp_path):
    config = {
        "datadir": str(tmp_path), "imdir": str(tmp_path / "red"), "exclude": "none.txt",
        "instrument": "auto", "masters": "", "nights": "auto", "max_age": {},
        "stack": {"by": ["auto"]},
    }  # fmt: skip
    with pytest.raises(NothingToReduce, match="holds no .fits"):
        read_campaign(config, write=False)
    assert not (tmp_path / "red").exists()
