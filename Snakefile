# autoproc: raw frames to calibrated stacks, zero points and a page about the night.
#
#   snakemake --cores 8 --config datadir=raw imdir=imredux
#
# Each step maps files to files with one more letter in front, and is a rule of its own name, so
# that `--until STEP` stops after it and `--forcerun STEP` does it again:
#
#   prepare     raw 2*.fits  -> p*       electrons: overscan, bias, dark, gain
#   flatten     p*           -> fp*      response of the pixels
#   makesky     fp*          -> sky-*    the empty sky of each filter
#   skysub      fp*          -> sfp*     sky subtracted
#   crclean     sfp*         -> zsfp*    cosmic rays flagged and repaired
#   astrometry  zsfp*        -> azsfp*   positions on the sky
#   stack       azsfp*       -> coadd*   one image, zero point and source table a target and filter
#   subtract    coadd*       -> diff*    what has changed against a template, where there is one
#
# Where there are several nights, the files of each lie in a folder of their own, wildcard `night`.

import os

from snakemake.utils import min_version

min_version("9.0.0")


# With `--sdm apptainer` jobs run in this image, as the Containerfile makes it.
container: os.environ.get("AUTOPROC_IMAGE", "autoproc.sif")


# Reads config/config.yaml and the night.
include: "rules/common.smk"


for name in PIPELINE.rule_files:

    include: f"rules/{name}.smk"


rule all:
    default_target: True
    input:
        FILES.products_of_nights,
        FILES.products_over_nights,
        # Damaged products, even if the final products no longer need them.
        AGAIN,


# The tables of a target depend on all its frames. A large data set is planned in parts by
# target: `--batch targets=1/10 -- targets`.
rule targets:
    input:
        FILES.tables_of_nights,


# A campaign of many nights is planned in parts by night: `--batch nights=1/10 -- nights`. Not only
# their pages: a run that stopped early has made these of what there was.
rule nights:
    input:
        FILES.products_of_nights,
