"""A new step is one rule file, one script and one line of the pipeline's declaration."""

import json
import shutil
import subprocess
import sys

import pytest
from workbench import ROOT, WHOLE, environment, run

LINE = '        Step("defringe", "fringes", (Rule("defringe", Scope.FRAME, prefix="d"),)),\n'

RULE = """
rule defringe:
    input:
        frame=FILES.before("defringe"),
    output:
        intermediate(FILES.after("defringe")),
    log:
        f"{IMDIR}/logs/defringe/{{frame}}.log",
    params:
        version=1,
    script:
        "../scripts/defringe.py"
"""

SCRIPT = """
from lib.frame.step import process, run_rule


def main(job):
    process("defringe", job.params.version, job.input.frame, job.output[0], lambda frame: frame)


if "snakemake" in globals():
    run_rule(snakemake, main)
"""

ASK = """
import json, sys
sys.path[:0] = ["scripts", "src"]
from autoproc import STEPS
from lib.engine import workerprocess
from lib.report import outcomes
print(json.dumps([list(STEPS), list(workerprocess.REUSING_STEPS), dict(outcomes.CHAIN)]))
"""


@pytest.fixture
def extended(tmp_path):
    """A copy of the workflow with a step between skysub and crclean."""
    copy = tmp_path / "workflow"
    for name in ("rules", "scripts", "src", "config", "profiles", "report"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, copy)
    declaration = copy / "scripts/lib/core/pipeline.py"
    text = declaration.read_text()
    place = text.index('        Step(\n            "crclean"')
    declaration.write_text(text[:place] + LINE + text[place:])
    (copy / "rules/defringe.smk").write_text(RULE)
    (copy / "scripts/defringe.py").write_text(SCRIPT)
    return copy


def test_new_step_is_known_everywhere(fresh, extended):
    argv = fresh.argv("--until", "crclean")
    argv[argv.index(ROOT / "Snakefile")] = extended / "Snakefile"
    done = run(argv, fresh.path)
    assert done.code == 0, done.out
    frames = WHOLE["crclean"]
    assert len(fresh.names("dsfp*.fits")) == len(fresh.names("zdsfp*.fits")) == frames
    assert f"  defringe{frames:>10} done" in done.out
    told = subprocess.run(
        [sys.executable, "-c", ASK], cwd=extended, env=environment(), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    steps, reusing_steps, chain = json.loads(told.stdout)
    assert steps[3:5] == ["skysub", "defringe"]
    assert "defringe" in reusing_steps
    assert chain["defringe"] == ["dsfp"] and chain["astrometry"] == ["azdsfp", "adsfp"]
