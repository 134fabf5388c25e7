"""lib.engine.survivors: the tables of a target of which a stack has failed."""

import os
from types import SimpleNamespace

from lib.engine import survivors

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
    assert survivors.make_tables_of_survivors(PLAN, config, tmp_path, [log]) == []
