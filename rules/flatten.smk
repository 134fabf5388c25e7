# Takes: p<frame>.fits, the master flat of its filter. Gives: fp<frame>.fits, sources marked.


def flat_missing(wildcards):
    """Tell why a frame that cannot do without a flat has none; empty where all is well."""
    required = NIGHT.frames[wildcards.frame].calibrations["flat"] == "required"
    note = NIGHT.match(wildcards.frame).notes.get("flat", "")
    return note if required else ""


rule flatten:
    input:
        unpack(lambda wildcards: masters_of(wildcards.frame, "flat")),
        frame=frame_before("flatten"),
    output:
        intermediate(frame_after("flatten")),
    log:
        f"{IMDIR}/logs/flatten/{{frame}}.log",
    params:
        version=4,
        settings=config["flatten"],
        missing=flat_missing,
    script:
        "../scripts/flatten.py"
