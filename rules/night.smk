# Takes: all that a night was made into. Gives: night.html, frames.ecsv with what became of each
# frame, and the summary that ends a run.

from lib.engine.nightrun import NightRun
from lib.report.frametable import log_digest


rule night:
    input:
        # They rest on the coadds and on every frame.
        FILES.target_tables,
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
    conda:
        "../environment.yml"
    # By then nothing else runs.
    threads: 2
    params:
        version=3,
        night_log=log_digest(NIGHT),
    script:
        "../scripts/night.py"


RUN = NightRun(NIGHT, PLAN, config, HOME, TERMINAL)


onstart:
    RUN.begin(workflow.cores)


onsuccess:
    RUN.end()


onerror:
    RUN.end(failed=True, logs=[log] if isinstance(log, str) else log)
