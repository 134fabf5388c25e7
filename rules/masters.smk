# Takes: raw calibration frames. Gives: bias-*.fits, dark-*.fits [adu/s], flat_*.fits, each
# compared with a ready master of its name.


def ready_master(prefix):
    """Return the input function for the ready master of the same name, where there is one."""

    def ready(wildcards):
        for ending in ("fits", "fit"):
            path = Path(config["masters"] or "") / f"{prefix}{wildcards.key}.{ending}"
            if config["masters"] and path.exists():
                return {"ready": str(path)}
        return {}

    return ready


rule bias:
    input:
        unpack(master_inputs("bias")),
        unpack(ready_master("bias-")),
    output:
        f"{IMDIR}/bias-{{key}}.fits",
    log:
        f"{IMDIR}/logs/bias/{{key}}.log",
    params:
        version=5,
        facts=master_facts("bias"),
        clip=config["bias"]["clip"],
    script:
        "../scripts/bias.py"


rule dark:
    input:
        unpack(master_inputs("dark", "bias")),
        unpack(ready_master("dark-")),
    output:
        f"{IMDIR}/dark-{{key}}.fits",
    log:
        f"{IMDIR}/logs/dark/{{key}}.log",
    params:
        version=5,
        facts=master_facts("dark"),
        clip=config["dark"]["clip"],
        hot_sigma=config["dark"]["hot_sigma"],
    script:
        "../scripts/dark.py"


rule flat:
    input:
        unpack(master_inputs("flat", "bias", "dark")),
        unpack(ready_master("flat_")),
    output:
        f"{IMDIR}/flat_{{key}}.fits",
    log:
        f"{IMDIR}/logs/flat/{{key}}.log",
    params:
        version=5,
        facts=master_facts("flat"),
        settings=config["flat"] | {"low_response": config["flatten"]["low_response"]},
    script:
        "../scripts/flat.py"
