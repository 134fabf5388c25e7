"""What knows Snakemake: configuration, paths, the lock of a run, progress, the warm worker.

Takes the workflow and its configuration; gives rules checked settings and a fast, quiet run.
"""
