"""Detector corrections: overscan, bias, dark, gain, flat, cosmic rays.

Takes raw files; gives the masters, and frames in electrons of uniform response.
"""
