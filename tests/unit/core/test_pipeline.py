"""The declaration of the pipeline, and the texts and files that have to agree with it."""

import re
from pathlib import Path

import pytest

from lib.core.pipeline import PIPELINE, Pipeline, Rule, Scope, Step

ROOT = Path(__file__).resolve().parents[3]


def test_names_are_unique_and_each_step_has_its_main_rule():
    names = [rule.name for rule in PIPELINE.rules]
    assert len(set(names)) == len(names)
    for step in PIPELINE.steps:
        assert step.main in step.rules
    with pytest.raises(KeyError):
        PIPELINE["dance"]


def test_each_rule_stands_in_its_file_and_has_its_script():
    declared = {}
    for rule in PIPELINE.rules:
        declared.setdefault(f"{rule.rule_file}.smk", []).append(rule.name)
        assert (ROOT / "scripts" / f"{rule.name}.py").is_file()
    found = {}
    for path in (ROOT / "rules").glob("*.smk"):
        names = re.findall(r"^rule (\w+):", path.read_text(), re.MULTILINE)
        if names:
            found[path.name] = names
    assert found.keys() == declared.keys()
    for name, rules in declared.items():
        assert set(found[name]) == set(rules)
    snakefile = (ROOT / "Snakefile").read_text()
    assert set(re.findall(r"^rule (\w+):", snakefile, re.MULTILINE)) == set(PIPELINE.collecting)


def test_prefixes_of_the_contract():
    assert PIPELINE.frame_chain() == (
        ("prepare", ("p",)),
        ("flatten", ("fp",)),
        ("skysub", ("sfp",)),
        ("crclean", ("zsfp",)),
        ("astrometry", ("azsfp", "asfp")),
    )
    assert PIPELINE.prefix_before("prepare") == ""
    assert PIPELINE.prefix_before("makesky") == "fp"
    assert PIPELINE.prefix_before("stack") == "azsfp"
    assert PIPELINE.prefix_before("solve", {"crclean"}) == "sfp"
    assert PIPELINE.prefix("crclean", {"crclean"}) == "zsfp"


def test_steps_that_a_configuration_leaves_out():
    config = {"nocrclean": True, "nomastersky": False, "template": "own"}
    assert PIPELINE.left_out(config) == {"crclean"}
    # Nothing is subtracted without a template.
    assert PIPELINE.left_out({}) == PIPELINE.left_out({"template": None}) == {"subtract"}
    assert PIPELINE.is_last("subtract", set()) and not PIPELINE.is_last("stack", set())
    assert PIPELINE.is_last("stack", {"subtract"})


def test_groups_of_rules():
    assert PIPELINE.stack_rules == (
        "solve", "stack", "tables", "lightcurve", "export", "subtract", "framediff",
        "candidates", "night",
    )  # fmt: skip
    assert PIPELINE.before_stacks == ("skysub", "crclean")
    assert {rule.name for rule in PIPELINE.rules} - set(PIPELINE.local_rules) == {
        "refcat",
        "template",
    }
    assert PIPELINE.master_prefixes == ("bias-", "dark-", "flat_", "sky-")


def test_each_optional_step_halves_or_keeps_the_prefixes():
    steps = tuple(
        Step(name, "", (Rule(name, Scope.FRAME, prefix=name[0]),), left_out_by=key)
        for name, key in (("make", ""), ("bend", "nobend"), ("cool", "nocool"), ("dye", ""))
    )
    pipeline = Pipeline(steps)
    assert pipeline.prefixes("make") == ("m",)
    assert pipeline.prefixes("cool") == ("cbm", "cm")
    assert pipeline.prefixes("dye") == ("dcbm", "dbm", "dcm", "dm")


def test_tables_of_the_texts_agree():
    readme = (ROOT / "README.md").read_text()
    head = (ROOT / "Snakefile").read_text()
    for name, prefix, products, does in PIPELINE.table():
        row = next(line for line in readme.splitlines() if line.startswith(f"| {name} |"))
        _, _, takes, gives, told, _ = (cell.strip() for cell in row.split("|"))
        assert takes == (f"`{prefix}…`" if prefix else "raw frames")
        assert gives.split("`")[1] == products[0]
        for product in products[1:]:
            assert product in gives or f"….{product.split('>.')[-1]}" in gives
        assert told == does
        line = re.search(rf"^#   {name} +(.+?) +-> (\S+) ", head, re.MULTILINE)
        assert line and line[1] == (f"{prefix}*" if prefix else "raw 2*.fits")
        assert line[2].rstrip("*") == products[0].split("<")[0]
    steps = ", ".join(f"`{name}`" for name in PIPELINE.step_names)
    assert f"The steps are {steps}." in (ROOT / "docs/from-autoproc.md").read_text()
