"""What Snakemake offers besides running jobs works as its documentation has it typed."""

import json

import pytest
import yaml
from same import differences, products
from workbench import ROOT, TARGET, WHOLE, environment, run

MODULE = """
module autoproc:
    snakefile: {snakefile!r}
    config: config["night"]

use rule * from autoproc as night_*

rule mine:
    default_target: True
    input: {coadd!r}
    output: "mine.txt"
    shell: "ls {{input}} > {{output}}"
"""


def snakemake(*words, cwd):
    """Run Snakemake without ``--cores``, as its documentation types these commands."""
    return run(["snakemake", "--snakefile", ROOT / "Snakefile", *words], cwd)


@pytest.mark.parametrize("words", [["--lint"], ["--list-rules"], ["--list-target-rules"]])
def test_description_of_the_rules_needs_no_data_and_leaves_nothing(tmp_path, words):
    done = snakemake(*words, cwd=tmp_path)
    assert done.code == 0, done.out
    wanted = {"--lint": "your workflow is in a good condition"}.get(words[0], "\ntargets\n")
    assert wanted in done.out
    assert "Lints for" not in done.out
    # Snakemake's own log aside.
    assert [path.name for path in tmp_path.iterdir()] == [".snakemake"]


def test_lint_of_a_night_finds_nothing(raw_night):
    """The night and the configuration of `.test`, as the workflow catalog takes them."""
    settings = ["--configfile", ROOT / ".test/config/config.yaml", "--directory", raw_night.path]
    done = snakemake("--lint", *settings, cwd=ROOT)
    assert done.code == 0, done.out
    assert not raw_night.products.exists()


def test_finished_night_is_described_without_cores(reduced):
    settings = ["--config", "datadir=raw", "imdir=imredux", "refcat=reference.ecsv"]
    before = {path: path.stat().st_mtime_ns for path in reduced.products.glob("*.fits")}

    def ask(*words):
        done = snakemake(*words, *settings, cwd=reduced.path)
        assert done.code == 0, done.out
        return done.out

    lines = [line.split("\t") for line in ask("--summary").splitlines() if "imredux/" in line]
    plans = {line[0]: line[-1] for line in lines if len(line) > 3}
    assert plans[f"imredux/coadd{TARGET}.SDSS-R.fits"] == "no update"
    graph = ask("--rulegraph")
    assert all(f'label = "{rule}"' in graph for rule in WHOLE)
    assert ask("--dag").count('label = "') >= sum(WHOLE.values())
    nodes = json.loads(next(line for line in ask("--d3dag").splitlines() if line[:1] == "{"))
    assert len(nodes["nodes"]) >= sum(WHOLE.values())
    ask("--report", "report.html")
    report = (reduced.path / "report.html").read_text()
    assert f"qa/stack/{TARGET}.SDSS-R.png" in report
    after = {path: path.stat().st_mtime_ns for path in reduced.products.glob("*.fits")}
    assert after == before


def test_module_of_another_workflow_without_additions(fresh, reduced_night):
    """The stack and all it rests on are those of the workflow with its warm worker, to the bit."""
    coadd = f"imredux/coadd{TARGET}.SDSS-R.fits"
    module = MODULE.format(snakefile=str(ROOT / "Snakefile"), coadd=coadd)
    (fresh.path / "Snakefile").write_text(module)
    night = {"datadir": "raw", "imdir": "imredux", "refcat": "reference.ecsv"}
    (fresh.path / "config.yaml").write_text(yaml.safe_dump({"night": night}))
    argv = ["snakemake", "--cores", "2", "--configfile", "config.yaml"]
    done = run(argv, fresh.path, environment(AUTOPROC_PLAIN="1"))
    assert done.code == 0, done.out
    assert (fresh.path / "mine.txt").read_text().strip() == coadd
    made = products(fresh.products)
    assert sum(name.endswith(".fits") for name in made) >= 20, list(made)
    others = differences(fresh.products, reduced_night.products)
    # The table of frames tells what became of those of the other filter, too.
    assert [name for name in others if name in made] in ([], ["frames.ecsv"])
