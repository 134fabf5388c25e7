# Takes: p<frame>.fits, the master flat of its filter. Gives: fp<frame>.fits, sources marked.


rule flatten:
    input:
        unpack(lambda wildcards: masters_of(wildcards.frame, "flat")),
        frame=f"{IMDIR}/p{{frame}}.fits",
    output:
        intermediate(f"{IMDIR}/fp{{frame}}.fits"),
    log:
        f"{IMDIR}/logs/flatten/{{frame}}.log",
    params:
        version=2,
        settings=config["flatten"],
        required=lambda wildcards: frame_facts(wildcards)["calibrations"]["flat"]
        == "required",
        note=calibration_note("flat"),
    script:
        "../scripts/flatten.py"
