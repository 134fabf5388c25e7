"""Frame files: an image, its mask and its header, on disk and in memory.

Takes and gives FITS files and `Frame`; runs what a step does to one frame, with its log, its
rejection and its record in the header.
"""
