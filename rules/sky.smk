# Takes: fp<frame>.fits. Gives: sky-*.fits of all frames of a filter, and sfp<frame>.fits.


rule makesky:
    input:
        frames=FILES.sky_frames,
        others=FILES.frames_beside_sky,
    output:
        f"{IMDIR}/{NIGHT}sky-{{key}}.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/makesky/{{key}}.log",
    conda:
        "../environment.yml"
    params:
        version=18,
        min_frames=config["makesky"]["min_frames"],
        clip=config["makesky"]["clip"],
        sigma=lambda wildcards: FILES.sky_plan(wildcards).sigma,
        structure=lambda wildcards: FILES.sky_plan(wildcards).structure,
        order=config["skysub"]["order"],
        passes=lambda wildcards: FILES.sky_plan(wildcards).passes,
    script:
        "../scripts/makesky.py"


rule skysub:
    input:
        unpack(FILES.sky),
        frame=FILES.before("skysub"),
    output:
        intermediate(FILES.after("skysub")),
    log:
        f"{IMDIR}/{NIGHT}logs/skysub/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=10,
        order=config["skysub"]["order"],
        fringe_scale=config["skysub"]["fringe_scale"],
    script:
        "../scripts/skysub.py"
