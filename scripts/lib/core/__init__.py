"""Tools of every room: statistics, combination, the sphere, bands, files, running a program.

Takes and gives arrays and numbers; knows nothing of frames, nights or Snakemake.
"""
