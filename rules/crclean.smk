# Takes: sfp<frame>.fits. Gives: zsfp<frame>.fits, cosmic rays flagged and repaired.


rule crclean:
    input:
        frame=FILES.before("crclean"),
    output:
        intermediate(FILES.after("crclean")),
    log:
        f"{IMDIR}/{NIGHT}logs/crclean/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=8,
        settings=config["crclean"],
    script:
        "../scripts/crclean.py"
