"""One image of many frames: selection, grid, resampling, outliers, combination, calibration.

Takes solved frames of one target and filter; gives the coadd, its weight map and its zero point.
"""
