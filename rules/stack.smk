# Takes: azsfp<frame>.fits of one target and filter, the reference stars of the field.
# Gives: coadd<target>.<filter>.fits, its weight (inverse variance) and source table. Those named
# .moving-<object> follow a moving object of the table `targets`.


from lib.night.positions import read_positions
from lib.night.targets import TargetError, parse_position

try:
    TARGET = parse_position(config["target_radec"])
    if config["targets"]:
        read_positions(config["targets"])
except TargetError as error:
    refuse(error)


rule stack:
    input:
        frames=FILES.of_stack("stack"),
        grid=FILES.grid_frames,
        nights=FILES.nights_of_stack,
        flats=FILES.stack_flats,
        refcat=FILES.reference,
    output:
        coadd=f"{IMDIR}/{NIGHT}coadd{{stack}}.fits",
        weight=f"{IMDIR}/{NIGHT}coadd{{stack}}.weight.fits",
        cat=report(
            f"{IMDIR}/{NIGHT}coadd{{stack}}.cat.fits",
            caption="../report/sources.rst",
            category="Stacks",
            labels={"stack": "{stack}", "product": "source table"},
        ),
        qa=f"{IMDIR}/{NIGHT}qa/stack/{{stack}}.json",
        plot=report(
            f"{IMDIR}/{NIGHT}qa/stack/{{stack}}.png",
            caption="../report/zeropoint.rst",
            category="Stacks",
            labels={"stack": "{stack}", "product": "zero point"},
        ),
    log:
        f"{IMDIR}/{NIGHT}logs/stack/{{stack}}.log",
    conda:
        "../environment.yml"
    threads: CAMPAIGN.threads_of_a_stack(available_cores(workflow))
    params:
        version=45,
        settings=FILES.stack_settings,
        customcatfilt=config["customcatfilt"],
        given=FILES.stack_given,
        contents=FILES.stack_contents,
    script:
        "../scripts/stack.py"


# Rule tables takes: the coadds of a target, their weights and source tables.
# Gives: <target>.ecsv, all its sources and the target itself, measured in every filter.
rule tables:
    input:
        coadds=FILES.products("coadd{stack}.fits"),
        weights=FILES.products("coadd{stack}.weight.fits"),
        cats=FILES.products("coadd{stack}.cat.fits"),
    output:
        f"{IMDIR}/{NIGHT}{{target}}{{mark}}.ecsv",
    log:
        f"{IMDIR}/{NIGHT}logs/tables/{{target}}{{mark}}.log",
    wildcard_constraints:
        # As `lib.night.plan.table_name` has it: frames.ecsv is the night log.
        target=r"(?!frames\.ecsv)[A-Za-z0-9_+-]+",
        mark=rf"(?:\.target|\.{MARK})?",
    conda:
        "../environment.yml"
    params:
        version=16,
        settings=FILES.stack_settings,
        target_radec=TARGET,
    script:
        "../scripts/tables.py"


# Rule lightcurve takes: the solved frames of a target, its coadds with their weights, source tables
# and quality files, and its difference images if any. Gives: <target>.lightcurve.ecsv and a plot,
# the target in every exposure, bin and stack; <target>.lightcurves.ecsv, the same for the positions
# in `targets`; exports/<target>.*, both in the formats of `export`.
rule lightcurve:
    input:
        frames=FILES.frames_of_target,
        coadds=FILES.products("coadd{stack}.fits"),
        weights=FILES.products("coadd{stack}.weight.fits"),
        cats=FILES.products("coadd{stack}.cat.fits"),
        quality=FILES.products("qa/stack/{stack}.json"),
        differences=FILES.differences,
        others=FILES.other_stacks,
    output:
        **FILES.of_positions,
        **FILES.exports,
        table=f"{IMDIR}/{NIGHT}{{target}}.lightcurve.ecsv",
        plot=f"{IMDIR}/{NIGHT}qa/lightcurve/{{target}}.png",
    log:
        f"{IMDIR}/{NIGHT}logs/lightcurve/{{target}}.log",
    conda:
        "../environment.yml"
    params:
        version=19,
        stacks=FILES.stacks_of_target,
        others=FILES.other_stack_names,
        given=FILES.frames_by_stack,
        settings=config["lightcurve"],
        site=FILES.site,
        positions=FILES.positions_content,
        export=FILES.light_curve_formats,
        observer=config["observer"],
        target_radec=TARGET,
    script:
        "../scripts/lightcurve.py"
