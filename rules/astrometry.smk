# Takes: cleaned frames and the reference stars of their field.
# Gives: refcat/<target>.ecsv, qa/astrometry/<stack>.json (the solution of all frames of a stack
# together), azsfp<frame>.fits with it in the header.

from lib.night.pointing import field_of


def field(wildcards):
    """Return where the frames of a target lie: `ra`, `dec`, `radius`, `wide` [deg], `epoch` [yr]."""
    frames = [NIGHT.frames[frame] for frame in PLAN.frames_of(wildcards.target)]
    return field_of(frames, config["astrometry"]["wide_radius"])


rule refcat:
    input:
        [] if config["refcat"] in ("online", "offline", "none") else config["refcat"],
    output:
        f"{IMDIR}/refcat/{{target}}.ecsv",
    log:
        f"{IMDIR}/logs/refcat/{{target}}.log",
    # A server is slow: it may take its time while frames are reduced.
    priority: int(config["refcat"] == "online")
    retries: 2
    # On a cluster the nodes may have no network.
    localrule: True
    resources:
        attempt=lambda wildcards, attempt: attempt,
        network=1,
    params:
        version=2,
        refcat=config["refcat"],
        ra=lambda wildcards: field(wildcards).ra,
        dec=lambda wildcards: field(wildcards).dec,
        radius=lambda wildcards: field(wildcards).radius,
        wide=lambda wildcards: field(wildcards).wide,
        epoch=lambda wildcards: field(wildcards).epoch,
        cache=config["refcat_cache"],
        servers=config["reference"]["servers"],
        timeout=config["reference"]["timeout"],
        attempts=3,
    script:
        "../scripts/refcat.py"


rule solve:
    input:
        frames=stack_frames("solve"),
        reference=stack_refcat,
    output:
        solution=f"{IMDIR}/qa/astrometry/{{stack}}.json",
        plot=report(
            f"{IMDIR}/qa/astrometry/{{stack}}.png",
            caption="../report/astrometry.rst",
            category="Astrometry",
            labels={"stack": "{stack}", "product": "residuals"},
        ),
    log:
        f"{IMDIR}/logs/solve/{{stack}}.log",
    threads: PLAN.threads_of_a_stack(available_cores(workflow))
    params:
        version=6,
        settings=config["astrometry"],
    script:
        "../scripts/solve.py"


rule astrometry:
    input:
        frame=frame_before("astrometry"),
        solution=lambda wildcards: f"{IMDIR}/qa/astrometry/{stack_of(wildcards)}.json",
    output:
        frame_after("astrometry"),
    log:
        f"{IMDIR}/logs/astrometry/{{frame}}.log",
    params:
        version=1,
    script:
        "../scripts/astrometry.py"
