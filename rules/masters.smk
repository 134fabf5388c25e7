# Takes: raw calibration frames. Gives: bias-*.fits, dark-*.fits [adu/s], flat_*.fits, each
# compared with a ready master of the same name.


rule bias:
    output:
        f"{IMDIR}/{NIGHT}bias-{{key}}.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/bias/{{key}}.log",
    wildcard_constraints:
        night=CAMPAIGN.every_folder_pattern,
    conda:
        "../environment.yml"
    params:
        version=8,
        facts=FILES.calibration_facts("bias"),
        given=FILES.calibrations_given("bias"),
        contents=FILES.calibrations_contents("bias"),
        clip=config["bias"]["clip"],
    script:
        "../scripts/bias.py"


rule dark:
    input:
        unpack(FILES.calibrations("dark", "bias")),
    output:
        f"{IMDIR}/{NIGHT}dark-{{key}}.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/dark/{{key}}.log",
    wildcard_constraints:
        night=CAMPAIGN.every_folder_pattern,
    conda:
        "../environment.yml"
    params:
        version=9,
        facts=FILES.calibration_facts("dark"),
        given=FILES.calibrations_given("dark", "bias"),
        contents=FILES.calibrations_contents("dark", "bias"),
        clip=config["dark"]["clip"],
        hot_sigma=config["dark"]["hot_sigma"],
    script:
        "../scripts/dark.py"


rule flat:
    input:
        unpack(FILES.calibrations("flat", "bias", "dark")),
        others=FILES.other_flats,
    output:
        f"{IMDIR}/{NIGHT}flat_{{key}}.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/flat/{{key}}.log",
    wildcard_constraints:
        night=CAMPAIGN.every_folder_pattern,
    conda:
        "../environment.yml"
    params:
        version=10,
        facts=FILES.calibration_facts("flat"),
        given=FILES.calibrations_given("flat", "bias", "dark"),
        contents=FILES.calibrations_contents("flat", "bias", "dark"),
        lights=FILES.other_lights,
        settings=config["flat"] | {"low_response": config["flatten"]["low_response"]},
        gain=config["prepare"]["gain"],
    script:
        "../scripts/flat.py"
