"""What the raw headers of a night say, read with the instrument's file.

Takes a directory of raw frames; gives what each frame is, and which belong together:
calibrations, skies and stacks.
"""
