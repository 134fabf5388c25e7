# Takes: p<frame>.fits, the master flat of its filter. Gives: fp<frame>.fits, sources marked.


rule flatten:
    input:
        unpack(FILES.made("flat")),
        frame=FILES.before("flatten"),
    output:
        intermediate(FILES.after("flatten")),
    log:
        f"{IMDIR}/{NIGHT}logs/flatten/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=7,
        settings=config["flatten"],
        missing=FILES.flat_missing,
        given=FILES.given("flat"),
        contents=FILES.given_contents("flat"),
    script:
        "../scripts/flatten.py"
