"""Flags of measured sources, in addition to those of sep.

Those of sep: 1 merged, 2 truncated, 4 and 8 numerical, 16 aperture truncated, 32 aperture with
masked pixels, 64 all masked, 128 Kron radius not positive.
"""

FLAG_BLENDED = 1
"""From sep: the source was deblended from another."""

FLAG_TRUNCATED = 2
"""From sep: the source touches the edge of the image."""

FLAG_REPAIRED = 32
"""A pixel of the aperture was repaired."""

FLAG_SATURATED = 256
"""A pixel is saturated."""

FLAG_NEIGHBOUR = 512
"""Another source contaminates the aperture."""

FLAG_WEIGHT = 1024
"""A pixel of the core, or of the aperture of forced photometry, has no usable value."""

FLAG_OUTSIDE = 2048
"""At least half of the aperture has no data."""

FLAG_PARTIAL = 4096
"""Not all frames of the coadd cover the source; its profile is that of those that do."""

FLAG_TRAILED = 8192
"""It moves by more than the FWHM during an exposure."""
