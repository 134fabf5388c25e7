"""The interface to Snakemake: configuration, paths, run lock, progress, warm worker.

Takes the workflow and its configuration; gives the rules checked settings, and a fast, quiet run.
"""
