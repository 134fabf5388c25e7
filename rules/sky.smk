# Takes: fp<frame>.fits. Gives: sky-*.fits of all frames of a filter, and sfp<frame>.fits.


from lib.background.sky import time_windows


def part_skies():
    """Give a series that outlasts its sky, or is very long, a sky for each part: sky-H-w1 ..."""
    for name, frames in list(NIGHT.skies.items()):
        times = [NIGHT.frames[frame].mjd for frame in frames]
        changes = NIGHT.frames[frames[0]].near_infrared
        parts = time_windows(
            times,
            config["makesky"]["window"] if changes else float("inf"),
            config["makesky"]["window_frames"],
        )
        if len(parts) == 1:
            continue
        del NIGHT.skies[name]
        for n, part in enumerate(parts, 1):
            NIGHT.skies[f"{name}-w{n}"] = [frames[i] for i in part]
            NIGHT.sky_of.update({frames[i]: f"{name}-w{n}" for i in part})


part_skies()


def sky_is_near_infrared(wildcards):
    """Tell whether the pixels of an array differ in their sky, and that sky changes."""
    return NIGHT.frames[NIGHT.skies[f"sky-{wildcards.key}"][0]].near_infrared


def sky_smoothing(wildcards):
    smooth = config["makesky"]["smooth"]
    return 3.0 if smooth == "auto" else smooth


def sky_structure(wildcards):
    """Tell whether pixel structure outlives the smoothing."""
    return config["makesky"]["smooth"] == "auto" and sky_is_near_infrared(wildcards)


def sky_passes(wildcards):
    passes = config["makesky"]["sky_passes"]
    return (2 if sky_is_near_infrared(wildcards) else 1) if passes == "auto" else passes


rule makesky:
    input:
        frames=sky_frames,
    output:
        f"{IMDIR}/sky-{{key}}.fits",
    log:
        f"{IMDIR}/logs/makesky/{{key}}.log",
    params:
        version=11,
        min_frames=config["makesky"]["min_frames"],
        clip=config["makesky"]["clip"],
        sigma=sky_smoothing,
        structure=sky_structure,
        order=config["skysub"]["order"],
        passes=sky_passes,
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
        version=6,
        order=config["skysub"]["order"],
        fringe_scale=config["skysub"]["fringe_scale"],
    script:
        "../scripts/skysub.py"
