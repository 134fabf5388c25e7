"""Bands of the reference system, and their order."""

BAND_ORDER = "u B g V r R i I z Z y Y J H K".split()
"""Bands and filters from blue to red."""
