# Takes: a raw science frame, its master bias and dark. Gives: p<frame>.fits [electron].


def prepare_inputs(wildcards):
    masters = masters_of(wildcards.frame, "bias", "dark")
    return masters | {"raw": raw(wildcards.frame)}


rule prepare:
    input:
        unpack(prepare_inputs),
    output:
        intermediate(frame_after("prepare")),
    log:
        f"{IMDIR}/logs/prepare/{{frame}}.log",
    params:
        version=4,
        facts=frame_facts,
        missing={
            "bias": config["prepare"]["missing_bias"],
            "dark": config["prepare"]["missing_dark"],
        },
        notes=lambda wildcards: NIGHT.match(wildcards.frame).notes,
    script:
        "../scripts/prepare.py"
