# Takes: all that a night was made into. Gives: night.html, frames.ecsv with what became of each
# frame, and the summary that ends a run.

import os
import subprocess

from lib.engine import paths
from lib.report.frametable import log_digest
from lib.report.run import finish_run, record_run
from lib.report.summary import summary


rule night:
    input:
        # They rest on the coadds and on every frame.
        target_tables,
    output:
        report(
            f"{IMDIR}/night.html",
            caption="../report/night.rst",
            category="Night",
            labels={"product": "page"},
        ),
    log:
        f"{IMDIR}/logs/night/night.log",
    localrule: True
    # By then nothing else runs.
    threads: 2
    params:
        version=2,
        night_log=log_digest(NIGHT),
        imdir=IMDIR,
    script:
        "../scripts/night.py"


def tell_outcome():
    """Bring frames.ecsv and the page up to date, and say how the run ended."""
    TERMINAL.end()
    # Again: jobs of a killed run may have died after this one began.
    paths.sweep(IMDIR)
    result, page_is_current = finish_run(NIGHT, IMDIR)
    if not page_is_current:
        script = f"{HOME}/scripts/night.py"
        subprocess.run([sys.executable, script, "--imdir", IMDIR], check=False)
    if not config["quiet"]:
        TERMINAL.say(summary(result, IMDIR))


CLAIM = paths.Claim(IMDIR)


onstart:
    try:
        CLAIM.take()
    except ConfigError as error:
        refuse(error)
    paths.sweep(IMDIR)
    TERMINAL.begin(quiet=config["quiet"])
    record_run(IMDIR, config, workflow.cores, sys.argv, os.getcwd())


onsuccess:
    tell_outcome()


onerror:
    tell_outcome()
