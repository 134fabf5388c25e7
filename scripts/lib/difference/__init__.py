"""Changes on the sky: difference images, their candidates and limits.

Takes coadds with their weights and source tables, and a template; gives the difference image with
mask, weights and significance, and the candidates found in it.
"""
