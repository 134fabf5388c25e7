# Takes: azsfp<frame>.fits of one target and filter, the reference stars of the field.
# Gives: coadd<target>.<filter>.fits, its weight (inverse variance) and source table.


def stack_flats(wildcards):
    """Return the flats that tell how the noise varies over the frames."""
    flats = {}
    for frame in NIGHT.stacks[wildcards.stack]:
        flats |= dict.fromkeys(masters_of(frame, "flat").values())
    return list(flats)


def grid_frames(wildcards):
    """Return the frames whose footprint the coadd covers, where that is more than its own."""
    if config["stack"]["grid"] == "stack":
        return []
    target = target_of(wildcards)
    stacks = [stack for stack in NIGHT.stacks if stack.split(".")[0] == target]
    return [f"{IMDIR}/{SOLVED}{frame}.fits" for stack in stacks for frame in NIGHT.stacks[stack]]


rule stack:
    input:
        frames=stack_frames(SOLVED),
        grid=grid_frames,
        flats=stack_flats,
        refcat=lambda wildcards: f"{IMDIR}/refcat/{target_of(wildcards)}.ecsv",
        customcat=config["customcat"] or [],
    output:
        coadd=f"{IMDIR}/coadd{{stack}}.fits",
        weight=f"{IMDIR}/coadd{{stack}}.weight.fits",
        cat=report(
            f"{IMDIR}/coadd{{stack}}.cat.fits",
            caption="../report/sources.rst",
            category="Stacks",
            labels={"stack": "{stack}", "product": "source table"},
        ),
        qa=f"{IMDIR}/qa/stack/{{stack}}.json",
        plot=report(
            f"{IMDIR}/qa/stack/{{stack}}.png",
            caption="../report/zeropoint.rst",
            category="Stacks",
            labels={"stack": "{stack}", "product": "zero point"},
        ),
    log:
        f"{IMDIR}/logs/stack/{{stack}}.log",
    params:
        version=1,
        settings=config["stack"],
        customcatfilt=config["customcatfilt"],
    threads: 2
    script:
        "../scripts/stack.py"
