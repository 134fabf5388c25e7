# Takes: fp<frame>.fits. Gives: sky-*.fits of all frames of a filter, and sfp<frame>.fits.


def sky_smoothing(wildcards):
    """Return the smoothing of a sky: none for near-infrared arrays, whose pixels differ."""
    smooth = config["makesky"]["smooth"]
    if smooth != "auto":
        return smooth
    first = NIGHT.skies[f"sky-{wildcards.key}"][0]
    return 0.0 if NIGHT.frames[first]["near_infrared"] else 3.0


rule makesky:
    input:
        frames=sky_frames,
    output:
        f"{IMDIR}/sky-{{key}}.fits",
    log:
        f"{IMDIR}/logs/makesky/{{key}}.log",
    params:
        version=1,
        min_frames=config["makesky"]["min_frames"],
        clip=config["makesky"]["clip"],
        sigma=sky_smoothing,
    script:
        "../scripts/makesky.py"


rule skysub:
    input:
        unpack(sky_of),
        frame=f"{IMDIR}/fp{{frame}}.fits",
    output:
        intermediate(f"{IMDIR}/sfp{{frame}}.fits"),
    log:
        f"{IMDIR}/logs/skysub/{{frame}}.log",
    params:
        version=1,
    script:
        "../scripts/skysub.py"
