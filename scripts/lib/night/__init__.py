"""Interpretation of the raw headers of a night, by means of the instrument files.

Takes a directory of raw frames; gives what each frame is, and which belong together: calibrations,
skies and stacks.
"""
