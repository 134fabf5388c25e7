# Takes: all that a night was made into. Gives: night.html, frames.ecsv with what became of each
# frame, and the summary that ends a run.

from lib.engine.nightrun import NightRun


rule night:
    input:
        # They rest on the coadds and on every frame.
        FILES.target_tables,
    output:
        report(
            f"{IMDIR}/{NIGHT}night.html",
            caption="../report/night.rst",
            category="Night",
            labels={"product": "page"},
        ),
    log:
        f"{IMDIR}/{NIGHT}logs/night/night.log",
    localrule: True
    conda:
        "../environment.yml"
    # By then nothing else runs.
    threads: 2
    params:
        version=4,
        night_log=FILES.log_digest,
        key=FILES.night_key,
    script:
        "../scripts/night.py"


RUN = NightRun(CAMPAIGN, config, HOME, TERMINAL)


onstart:
    RUN.begin(workflow.cores)


onsuccess:
    RUN.end()


onerror:
    RUN.end(failed=True, logs=[log] if isinstance(log, str) else log)
