# Takes: all products of a night. Gives: night.html, frames.ecsv with the outcome of each frame,
# and the summary at the end of a run.

from lib.engine.nightrun import NightRun


rule night:
    input:
        # They depend on the coadds and on every frame.
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
    # At this time no other job runs.
    threads: 2
    params:
        version=5,
        night_log=FILES.log_digest,
        key=FILES.night_key,
        # Made at the end of a run, which another workflow that uses this one is not told of.
        campaign=FILES.campaign_link if workflow.modifier.is_main_snakefile() else "",
    script:
        "../scripts/night.py"


RUN = NightRun(CAMPAIGN, config, HOME, TERMINAL)


onstart:
    RUN.begin(workflow.cores)


onsuccess:
    RUN.end()


onerror:
    RUN.end(failed=True, logs=[log] if isinstance(log, str) else log)
