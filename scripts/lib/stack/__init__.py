"""Stacks: frame selection, common grid, resampling, outliers, combination, calibration.

Takes the solved frames of one target and filter; gives the coadd, its weight map and its zero
point.
"""
