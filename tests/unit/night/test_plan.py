"""The plan of a night is a function of its log and the configuration."""

from types import SimpleNamespace

import pytest

from lib.engine.config import check_config
from lib.night.plan import plan_night, threads_of_a_stack

ALIKE = dict.fromkeys(("instrument", "camera", "half", "binning", "shape", "readout"))


def night(frames=6, step=1.0, near_infrared=False, stacks=("b.r", "a.r", "a.i")):
    """Return a log of stacks of so many frames each, `step` minutes apart, with a sky a filter."""
    log = SimpleNamespace(frames={}, stacks={}, skies={}, stack_of={})
    for stack in stacks:
        names = [f"2{stack}{n}" for n in range(frames)]
        log.stacks[stack] = names
        log.skies.setdefault(f"sky-{stack.split('.')[1]}", []).extend(names)
        for n, name in enumerate(names):
            log.stack_of[name] = stack
            target, band = stack.split(".")
            log.frames[name] = SimpleNamespace(
                frame=name, target=target, filter=band, mjd=n * step / 1440,
                near_infrared=near_infrared, **ALIKE,
            )  # fmt: skip
    for name, members in log.skies.items():
        log.skies[name] = sorted(members, key=lambda one: log.frames[one].mjd)
    return log


def planned(log, **config):
    return plan_night(log, check_config(config))


def test_stacks_and_targets():
    plan = planned(night())
    assert list(plan.stacks) == ["b.r", "a.r", "a.i"]
    assert dict(plan.targets) == {"a": ("a.r", "a.i"), "b": ("b.r",)}
    assert plan.frames_of("a") == plan.stacks["a.r"] + plan.stacks["a.i"]
    assert plan.coadds == ("coaddb.r.fits", "coadda.r.fits", "coadda.i.fits")
    assert plan.target_tables == (
        "a.ecsv", "a.lightcurve.ecsv", "b.ecsv", "b.lightcurve.ecsv"
    )  # fmt: skip


def test_table_of_a_target_is_never_the_night_log():
    assert planned(night(stacks=("frames.r",))).target_tables[0] == "frames.target.ecsv"


def test_prefixes_without_cosmic_rays():
    plan = planned(night())
    assert (plan.prefix_before("solve"), plan.prefix("astrometry")) == ("zsfp", "azsfp")
    plan = planned(night(), nocrclean=True)
    assert (plan.prefix_before("solve"), plan.prefix("astrometry")) == ("sfp", "asfp")


def test_long_near_infrared_series_gets_several_skies_and_the_log_stays():
    log = night(frames=24, step=5.0, near_infrared=True, stacks=("a.H",))
    before = {name: list(members) for name, members in log.skies.items()}
    plan = planned(log)
    assert log.skies == before
    assert list(plan.skies) == ["sky-H-w1", "sky-H-w2"]
    assert sum((sky.frames for sky in plan.skies.values()), ()) == tuple(before["sky-H"])
    for frame, name in plan.sky_of.items():
        assert frame in plan.skies[name].frames
    assert plan.sky_of.keys() == log.frames.keys()
    assert list(planned(log, makesky={"window": 600}).skies) == ["sky-H"]


@pytest.mark.parametrize("near_infrared", [True, False])
def test_how_a_sky_is_made(near_infrared):
    log = night(near_infrared=near_infrared)
    sky = planned(log).skies["sky-r"]
    assert (sky.sigma, sky.structure, sky.passes) == (3.0, near_infrared, 1 + near_infrared)
    sky = planned(log, makesky={"smooth": 2, "sky_passes": 3}).skies["sky-r"]
    assert (sky.sigma, sky.structure, sky.passes) == (2.0, False, 3)


@pytest.mark.parametrize(("cores", "threads"), [(None, 1), (1, 1), (2, 1), (8, 2), (64, 4)])
def test_threads_of_a_stack(cores, threads):
    assert threads_of_a_stack(len(planned(night()).stacks), cores) == threads


def test_a_near_infrared_sky_knows_the_frames_of_other_targets_nearest_in_time():
    log = night(frames=4, step=10.0, near_infrared=True, stacks=("a.H", "b.H"))
    log.skies = {f"sky-H-{one}": [f"2{one}.H{n}" for n in range(4)] for one in "ab"}
    for n in range(4):
        log.frames[f"2b.H{n}"].mjd += (30 + 25) / 1440
    plan = planned(log)
    # An hour: the last of b begins 85 minutes after the last of a.
    assert plan.skies["sky-H-a"].others == ("2b.H0", "2b.H1", "2b.H2", "2b.H3")[:4]
    log.frames["2b.H3"].mjd += 60 / 1440
    assert "2b.H3" not in planned(log).skies["sky-H-a"].others
    assert planned(night(stacks=("a.r", "b.r"))).skies["sky-r"].others == ()
