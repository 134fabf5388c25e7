"""lib.engine.survivors: the tables of a target of which a stack has failed."""

import os
from types import SimpleNamespace

from framefacts import made_facts

from lib.engine import survivors
from lib.night.campaign import Night
from lib.night.plan import Plan

PLAN = SimpleNamespace(targets={"a": ("a.r", "a.i"), "b": ("b.r",), "c": ("c.r", "c.i")})


def made(imdir, *stacks):
    for stack in stacks:
        for path in survivors.products(imdir, stack):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def test_a_target_that_lacks_a_stack_has_tables_of_the_others(tmp_path):
    made(tmp_path, "a.r", "b.r")
    assert survivors.surviving_stacks(PLAN, tmp_path) == {"a": ["a.r"]}


def test_tables_made_since_are_not_made_again(tmp_path):
    made(tmp_path, "a.r")
    for name in ("a.ecsv", "a.lightcurve.ecsv"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (2e9, 2e9))
    assert survivors.surviving_stacks(PLAN, tmp_path) == {}


def test_a_stack_of_which_a_product_is_missing_is_none(tmp_path):
    made(tmp_path, "a.r")
    survivors.products(tmp_path, "a.r")[-1].unlink()
    assert survivors.surviving_stacks(PLAN, tmp_path) == {}


def test_a_run_that_its_user_ends_makes_none(tmp_path):
    made(tmp_path, "a.r")
    log = tmp_path / "snakemake.log"
    log.write_text("Terminating processes on user request, this might take some time.\n")
    config = {"imdir": str(tmp_path)}
    night = Night("20220127", None, PLAN)
    assert survivors.make_tables_of_survivors(night, config, tmp_path, [log]) == []


def test_jobs_are_those_of_the_rules_for_a_night_of_the_survivors():
    names = ("20220128T050000C0o", "20220128T050100C0o")
    site = [31.0, -115.5, 2800.0]
    facts = {name: made_facts(frame=name, site=site) for name in names}
    plan = Plan(
        stacks={"a.r": names[:1], "a.i": names[1:]}, targets={"a": ("a.r", "a.i")}, skies={},
        stack_of={}, sky_of={}, left_out=frozenset(), with_positions=True,
    )  # fmt: skip
    night = Night("20220127", SimpleNamespace(frames=facts), plan)
    config = {"imdir": "red", "datadir": "raw", "target_radec": "", "targets": "t.ecsv"}
    config |= {"stack": {"by": ["auto"], "table_snr": 5.0}, "lightcurve": {"snr": 5.0}}
    (script, table), (_, curve) = survivors.jobs_of(night, config, "a", ["a.i"])
    assert script == "tables.py"
    assert table["output"] == ["red/a.ecsv"]
    assert table["params"]["settings"] == {"table_snr": 5.0}
    assert curve["input"]["quality"] == ["red/qa/stack/a.i.json"]
    assert curve["params"]["given"] == {
        "frames": [[f"red/azsfp{names[1]}.fits"]], "positions": "t.ecsv",
    }  # fmt: skip
    assert curve["params"]["site"] == site
    assert curve["output"] == {
        "table": "red/a.lightcurve.ecsv", "plot": "red/qa/lightcurve/a.png",
        "all_table": "red/a.lightcurves.ecsv", "all_plot": "red/qa/lightcurve/a.all.png",
    }  # fmt: skip
