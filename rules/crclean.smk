# Takes: sfp<frame>.fits. Gives: zsfp<frame>.fits, cosmic rays flagged and repaired.


rule crclean:
    input:
        frame=f"{IMDIR}/sfp{{frame}}.fits",
    output:
        intermediate(f"{IMDIR}/zsfp{{frame}}.fits"),
    log:
        f"{IMDIR}/logs/crclean/{{frame}}.log",
    params:
        version=7,
        settings=config["crclean"],
    script:
        "../scripts/crclean.py"
