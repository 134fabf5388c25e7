# Takes: a raw science frame, its master bias and dark, its flat where that gives the gain. Gives: p<frame>.fits [electron].


rule prepare:
    input:
        unpack(FILES.made("bias", "dark")),
        unpack(FILES.gain_flat),
    output:
        intermediate(FILES.after("prepare")),
    log:
        f"{IMDIR}/{NIGHT}logs/prepare/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=10,
        facts=FILES.facts,
        missing={
            "bias": config["prepare"]["missing_bias"],
            "dark": config["prepare"]["missing_dark"],
        },
        notes=FILES.notes,
        gain=config["prepare"]["gain"],
        given=FILES.given("bias", "dark", raw=True),
        contents=FILES.given_contents("bias", "dark"),
    script:
        "../scripts/prepare.py"
