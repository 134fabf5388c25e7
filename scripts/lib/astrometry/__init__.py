"""Positions: the stars of frames identified in a reference and solved together.

Takes frames and reference stars; gives a WCS for each frame, with its residuals.
"""
