# Takes: coadds with their weights and source tables, and a template of each. Gives: what has
# changed: difference images, and the candidates in them. Nothing of it runs without `template`.


# Rule template takes: a coadd. Gives: the image of its field in a sky survey, where that is its
# template.
rule template:
    input:
        coadd=f"{IMDIR}/{NIGHT}coadd{{stack}}.fits",
    output:
        f"{IMDIR}/{NIGHT}refcat/{{stack}}.template.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/template/{{stack}}.log",
    # On a cluster the nodes may have no network.
    localrule: True
    conda:
        "../environment.yml"
    resources:
        network=1,
    params:
        version=1,
        survey=FILES.survey,
        given=FILES.survey_given,
        servers=config["reference"]["cutout_servers"],
        timeout=config["reference"]["timeout"],
    script:
        "../scripts/template.py"


rule subtract:
    input:
        coadd=f"{IMDIR}/{NIGHT}coadd{{stack}}.fits",
        weight=f"{IMDIR}/{NIGHT}coadd{{stack}}.weight.fits",
        cat=f"{IMDIR}/{NIGHT}coadd{{stack}}.cat.fits",
        template=FILES.template_made,
    output:
        diff=f"{IMDIR}/{NIGHT}diff{{stack}}.fits",
        weight=f"{IMDIR}/{NIGHT}diff{{stack}}.weight.fits",
    log:
        f"{IMDIR}/{NIGHT}logs/subtract/{{stack}}.log",
    conda:
        "../environment.yml"
    params:
        version=1,
        settings=FILES.subtract_settings,
        given=FILES.template_given,
        content=FILES.template_contents,
        target_radec=TARGET,
    script:
        "../scripts/subtract.py"


# Rule framediff takes: a solved frame, its coadd and the template of that. Gives: the frame less the
# template, on the grid and scale of the coadd, where `difference: frames` asks for it.
rule framediff:
    input:
        frame=FILES.before("subtract"),
        coadd=FILES.of_stack_of_frame("coadd{stack}.fits"),
        weight=FILES.of_stack_of_frame("coadd{stack}.weight.fits"),
        cat=FILES.of_stack_of_frame("coadd{stack}.cat.fits"),
        quality=FILES.of_stack_of_frame("qa/stack/{stack}.json"),
        diff=FILES.of_stack_of_frame("diff{stack}.fits"),
        template=FILES.by_stack_of_frame(FILES.template_made),
    output:
        diff=FILES.frame_difference,
    log:
        f"{IMDIR}/{NIGHT}logs/framediff/{{frame}}.log",
    conda:
        "../environment.yml"
    params:
        version=1,
        settings=FILES.subtract_settings,
        given=FILES.by_stack_of_frame(FILES.template_given),
        content=FILES.by_stack_of_frame(FILES.template_contents),
        target_radec=TARGET,
    script:
        "../scripts/framediff.py"


# Rule candidates takes: the difference images of a target, its coadds and frames, its reference
# stars. Gives: <target>.candidates.ecsv, and their cut-outs on one sheet.
rule candidates:
    input:
        frames=FILES.frames_of_target,
        coadds=FILES.of_differences("coadd{stack}.fits"),
        weights=FILES.of_differences("coadd{stack}.weight.fits"),
        cats=FILES.of_differences("coadd{stack}.cat.fits"),
        quality=FILES.of_differences("qa/stack/{stack}.json"),
        diffs=FILES.of_differences("diff{stack}.fits"),
        diff_weights=FILES.of_differences("diff{stack}.weight.fits"),
        refcat=FILES.reference_of_target,
    output:
        table=report(
            f"{IMDIR}/{NIGHT}{{target}}.candidates.ecsv",
            caption="../report/candidates.rst",
            category="Changes",
            labels={"target": "{target}", "product": "candidates"},
        ),
        sheet=f"{IMDIR}/{NIGHT}qa/candidates/{{target}}.jpg",
    log:
        f"{IMDIR}/{NIGHT}logs/candidates/{{target}}.log",
    conda:
        "../environment.yml"
    params:
        version=1,
        settings=FILES.candidate_settings,
        given=FILES.known_given,
        known=FILES.known_content,
    script:
        "../scripts/candidates.py"
