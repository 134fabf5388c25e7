"""Sizes of the pictures on the page."""

from dataclasses import dataclass


@dataclass
class Sizes:
    """How large pictures are [pixel], and when details move to files beside the page.

    Parameters
    ----------
    coadd, tile, frame, thumb, master : int
        Longest side of a coadd in full and on its tile, of a frame in full and in a list, of a
        master.
    finder : int
        Side of a finding chart, at most.
    quality : int
        WebP quality of the pictures of coadds.
    embed : float
        Details of frames [byte] up to which they are kept in the page.
    sources : int
        Sources of a coadd that are marked, the brightest.
    """

    coadd: int = 1400
    tile: int = 320
    frame: int = 200
    thumb: int = 56
    master: int = 140
    finder: int = 420
    quality: int = 45
    embed: float = 5e6
    sources: int = 600


def sizes_for(frames: int, stacks: int) -> Sizes:
    """Return the sizes that keep the page of a large night small."""
    sizes = Sizes()
    if stacks > 12:
        sizes.coadd, sizes.sources = 900, 300
    if stacks > 60:
        sizes.coadd, sizes.tile, sizes.sources = 400, 190, 60
        sizes.quality, sizes.finder = 40, 240
    if frames > 400:
        sizes.frame = 180
    if frames > 1500:
        sizes.thumb = 40
    return sizes
