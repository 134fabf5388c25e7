# Takes: a raw science frame, its master bias and dark. Gives: p<frame>.fits [electron].


rule prepare:
    input:
        unpack(lambda wildcards: masters_of(wildcards.frame, "bias", "dark")),
        raw=lambda wildcards: raw(wildcards.frame),
    output:
        intermediate(f"{IMDIR}/p{{frame}}.fits"),
    log:
        f"{IMDIR}/logs/prepare/{{frame}}.log",
    params:
        version=4,
        facts=frame_facts,
        missing={
            "bias": config["prepare"]["missing_bias"],
            "dark": config["prepare"]["missing_dark"],
        },
        notes=lambda wildcards: NIGHT.match(wildcards.frame)["notes"],
    script:
        "../scripts/prepare.py"
