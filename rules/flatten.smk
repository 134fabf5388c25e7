# Takes: p<frame>.fits, the master flat of its filter. Gives: fp<frame>.fits, sources marked.


rule flatten:
    input:
        unpack(FILES.flat),
        frame=FILES.before("flatten"),
    output:
        intermediate(FILES.after("flatten")),
    log:
        f"{IMDIR}/logs/flatten/{{frame}}.log",
    params:
        version=4,
        settings=config["flatten"],
        missing=FILES.flat_missing,
    script:
        "../scripts/flatten.py"
