# Takes: sfp<frame>.fits. Gives: zsfp<frame>.fits, cosmic rays flagged and repaired.


rule crclean:
    input:
        frame=frame_before("crclean"),
    output:
        intermediate(frame_after("crclean")),
    log:
        f"{IMDIR}/logs/crclean/{{frame}}.log",
    params:
        version=7,
        settings=config["crclean"],
    script:
        "../scripts/crclean.py"
