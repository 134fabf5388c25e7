# Takes: azsfp<frame>.fits of one target and filter, the reference stars of the field.
# Gives: coadd<target>.<filter>.fits, its weight (inverse variance) and source table.


from lib.night.targets import TargetError, parse_position

try:
    TARGET = parse_position(config["target_radec"])
except TargetError as error:
    refuse(error)


def stack_flats(wildcards):
    """Return the flats that tell how the noise varies over the frames."""
    flats = {}
    for frame in PLAN.stacks[wildcards.stack]:
        flats |= dict.fromkeys(masters_of(frame, "flat").values())
    return list(flats)


def grid_frames(wildcards):
    """Return the frames whose footprint the coadd covers, where that is more than its own."""
    if config["stack"]["grid"] == "stack":
        return []
    return [
        frame_before("stack", frame)
        for frame in PLAN.frames_of(target_of(wildcards.stack))
    ]


rule stack:
    input:
        frames=stack_frames("stack"),
        grid=grid_frames,
        flats=stack_flats,
        refcat=stack_refcat,
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
    threads: PLAN.threads_of_a_stack(available_cores(workflow))
    params:
        version=13,
        settings=config["stack"],
        customcatfilt=config["customcatfilt"],
    script:
        "../scripts/stack.py"


def stack_products(pattern):
    """Return the input function that gives one product of each stack of a target."""
    return lambda wildcards: [
        f"{IMDIR}/{pattern.format(stack=stack)}"
        for stack in PLAN.targets[wildcards.target]
    ]


# Rule tables takes: the coadds of a target, their weights and source tables.
# Gives: <target>.ecsv, all its sources and the target itself, measured in every filter.
rule tables:
    input:
        coadds=stack_products("coadd{stack}.fits"),
        weights=stack_products("coadd{stack}.weight.fits"),
        cats=stack_products("coadd{stack}.cat.fits"),
    output:
        f"{IMDIR}/{{target}}{{mark}}.ecsv",
    log:
        f"{IMDIR}/logs/tables/{{target}}{{mark}}.log",
    wildcard_constraints:
        # As `lib.night.plan.table_name` has it: frames.ecsv is the night log.
        target=r"(?!frames\.ecsv)[A-Za-z0-9_+-]+",
        mark=r"(?:\.target)?",
    params:
        version=5,
        settings=config["stack"],
        target_radec=TARGET,
    script:
        "../scripts/tables.py"


def frames_of_stacks(wildcards):
    """Return the solved frames of each stack of a target, as lists."""
    return [
        [frame_before("stack", frame) for frame in PLAN.stacks[stack]]
        for stack in PLAN.targets[wildcards.target]
    ]


# Rule lightcurve takes: the solved frames of a target, its coadds, their source tables and what
# the stack measured. Gives: <target>.lightcurve.ecsv and a plot, the target in every exposure.
rule lightcurve:
    input:
        frames=lambda wildcards: sum(frames_of_stacks(wildcards), []),
        coadds=stack_products("coadd{stack}.fits"),
        cats=stack_products("coadd{stack}.cat.fits"),
        quality=stack_products("qa/stack/{stack}.json"),
    output:
        table=f"{IMDIR}/{{target}}.lightcurve.ecsv",
        plot=f"{IMDIR}/qa/lightcurve/{{target}}.png",
    log:
        f"{IMDIR}/logs/lightcurve/{{target}}.log",
    params:
        version=2,
        frames=frames_of_stacks,
        target_radec=TARGET,
    script:
        "../scripts/lightcurve.py"
