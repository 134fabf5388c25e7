# Takes: a table of sources or a light curve. Gives: exports/<its name>.vot or .parquet, for the
# formats of whole tables in `export`.


rule export:
    input:
        FILES.exported_table,
    output:
        f"{IMDIR}/{NIGHT}exports/{{product}}.{{form}}",
    log:
        f"{IMDIR}/{NIGHT}logs/export/{{product}}.{{form}}.log",
    wildcard_constraints:
        product=r"coadd.+\.cat|.+\.sources|.+\.lightcurves?",
        form="vot|parquet",
    conda:
        "../environment.yml"
    params:
        version=1,
    script:
        "../scripts/export.py"
