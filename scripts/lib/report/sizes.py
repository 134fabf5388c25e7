"""Sizes of the pictures on the page."""

from dataclasses import dataclass


@dataclass
class Sizes:
    """Sizes of pictures [pixel], and the size at which details are moved to files beside the page.

    Parameters
    ----------
    coadd, tile, frame, thumb, master : int
        Longest side of a coadd and its tile, of a frame and its thumbnail, and of a master.
    finder : int
        Maximum side of a finding chart.
    quality : int
        WebP quality of the pictures of coadds.
    embed : float
        Maximum size of frame details embedded in the page [byte].
    sources : int
        Maximum number of marked sources of a coadd, brightest first.
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
    """Return sizes that keep the page of a large night small."""
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
