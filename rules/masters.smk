# Takes: raw calibration frames. Gives: bias-*.fits, dark-*.fits [adu/s], flat_*.fits, each
# compared with a ready master of its name.


rule bias:
    input:
        unpack(FILES.calibrations("bias")),
    output:
        f"{IMDIR}/bias-{{key}}.fits",
    log:
        f"{IMDIR}/logs/bias/{{key}}.log",
    params:
        version=5,
        facts=FILES.calibration_facts("bias"),
        clip=config["bias"]["clip"],
    script:
        "../scripts/bias.py"


rule dark:
    input:
        unpack(FILES.calibrations("dark", "bias")),
    output:
        f"{IMDIR}/dark-{{key}}.fits",
    log:
        f"{IMDIR}/logs/dark/{{key}}.log",
    params:
        version=5,
        facts=FILES.calibration_facts("dark"),
        clip=config["dark"]["clip"],
        hot_sigma=config["dark"]["hot_sigma"],
    script:
        "../scripts/dark.py"


rule flat:
    input:
        unpack(FILES.calibrations("flat", "bias", "dark")),
    output:
        f"{IMDIR}/flat_{{key}}.fits",
    log:
        f"{IMDIR}/logs/flat/{{key}}.log",
    params:
        version=5,
        facts=FILES.calibration_facts("flat"),
        settings=config["flat"] | {"low_response": config["flatten"]["low_response"]},
    script:
        "../scripts/flat.py"
