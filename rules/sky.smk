# Takes: fp<frame>.fits. Gives: sky-*.fits of all frames of a filter, and sfp<frame>.fits.


rule makesky:
    input:
        frames=sky_frames,
    output:
        f"{IMDIR}/sky-{{key}}.fits",
    log:
        f"{IMDIR}/logs/makesky/{{key}}.log",
    params:
        version=12,
        min_frames=config["makesky"]["min_frames"],
        clip=config["makesky"]["clip"],
        sigma=lambda wildcards: sky_plan(wildcards).sigma,
        structure=lambda wildcards: sky_plan(wildcards).structure,
        order=config["skysub"]["order"],
        passes=lambda wildcards: sky_plan(wildcards).passes,
    script:
        "../scripts/makesky.py"


rule skysub:
    input:
        unpack(sky_of),
        frame=frame_before("skysub"),
    output:
        intermediate(frame_after("skysub")),
    log:
        f"{IMDIR}/logs/skysub/{{frame}}.log",
    params:
        version=6,
        order=config["skysub"]["order"],
        fringe_scale=config["skysub"]["fringe_scale"],
    script:
        "../scripts/skysub.py"
