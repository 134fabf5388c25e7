# Takes: cleaned frames and the reference stars of their field.
# Gives: refcat/<target>.ecsv, qa/astrometry/<stack>.json (the solution of all frames of a stack
# together), azsfp<frame>.fits with it in the header.


rule refcat:
    output:
        f"{IMDIR}/{NIGHT}refcat/{{target}}.ecsv",
    log:
        f"{IMDIR}/{NIGHT}logs/refcat/{{target}}.log",
    # Servers may be slow: frames are reduced meanwhile.
    priority: int(config["refcat"] == "online")
    # On a cluster the nodes may have no network.
    localrule: True
    conda:
        "../environment.yml"
    resources:
        network=1,
    params:
        version=3,
        given=FILES.reference_given,
        refcat=FILES.reference_kind,
        contents=FILES.reference_content,
        ra=lambda wildcards: FILES.field(wildcards).ra,
        dec=lambda wildcards: FILES.field(wildcards).dec,
        radius=lambda wildcards: FILES.field(wildcards).radius,
        wide=lambda wildcards: FILES.field(wildcards).wide,
        epoch=lambda wildcards: FILES.field(wildcards).epoch,
        servers=config["reference"]["servers"],
        timeout=config["reference"]["timeout"],
        attempts=3,
    script:
        "../scripts/refcat.py"


rule solve:
    input:
        frames=FILES.of_stack("solve"),
        anchor=FILES.anchor,
        reference=FILES.reference,
    output:
        solution=f"{IMDIR}/{NIGHT}qa/astrometry/{{stack}}.json",
        plot=report(
            f"{IMDIR}/{NIGHT}qa/astrometry/{{stack}}.png",
            caption="../report/astrometry.rst",
            category="Astrometry",
            labels={"stack": "{stack}", "product": "residuals"},
        ),
    log:
        f"{IMDIR}/{NIGHT}logs/solve/{{stack}}.log",
    conda:
        "../environment.yml"
    threads: CAMPAIGN.threads_of_a_stack(available_cores(workflow))
    params:
        version=14,
        settings=config["astrometry"],
    script:
        "../scripts/solve.py"


rule astrometry:
    input:
        frame=FILES.before("astrometry"),
        solution=FILES.solution,
    output:
        FILES.after("astrometry"),
    log:
        f"{IMDIR}/{NIGHT}logs/astrometry/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=3,
    script:
        "../scripts/astrometry.py"
