"""Content of the page about stacks: pictures, sources, comparison with the reference."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from lib.frame.fitsbytes import map_images, read_table
from lib.night.targets import target_position
from lib.report import pictures
from lib.report.links import Link, stack_links
from lib.report.numbers import rounded
from lib.report.outcomes import NightOutcome
from lib.report.products import Cards
from lib.report.reasons import reason_in_words
from lib.report.sizes import Sizes
from lib.report.summary import StackNumbers, stack_numbers

if TYPE_CHECKING:
    from astropy.table import Table
    from astropy.wcs import WCS


PICTURE_FWHM = 1.75
"""[pixel] Minimum FWHM of stars in the picture of a coadd."""


def read_coadd(
    imdir: Path, stack: str
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return image and weight (as on disk) and source table of a coadd; None for missing ones."""
    paths = [imdir / f"coadd{stack}{kind}.fits" for kind in ("", ".weight", ".cat")]
    image, weight = (map_images(path)[1].get("") if path.exists() else None for path in paths[:2])
    try:
        return image, weight, read_table(paths[2], "SOURCES")
    except (FileNotFoundError, KeyError):
        return image, weight, None


def mark_sources(sources: np.ndarray | None, shape: tuple[int, ...], most: int) -> list[list[Any]]:
    """Return the brightest sources, with positions as fractions of the picture's sides.

    Returns
    -------
    list of list
        x, y (from the top), magnitude (or None), whether a star, whether used for the zero point,
        number in the table. Sources below 5 sigma, some of which are noise, are left out.
    """
    if sources is None or len(sources) == 0:
        return []
    names = sources.dtype.names or ()
    if {"FLUX_POINT", "FLUXERR_POINT"} <= set(names):
        sources = sources[~(sources["FLUX_POINT"] < 5 * sources["FLUXERR_POINT"])]
    flux = np.asarray(sources["FLUX_AUTO"] if "FLUX_AUTO" in names else sources["X"], float)
    if "FLUX_POINT" in names:
        # Those that only fits show have no automatic aperture.
        flux = np.where(np.isfinite(flux), flux, sources["FLUX_POINT"])
    sources = sources[np.argsort(-np.nan_to_num(flux))[:most]]

    def column(name, missing):
        return sources[name].tolist() if name in names else [missing] * len(sources)

    marked = zip(
        (sources["X"] - 0.5) / shape[1], 1 - (sources["Y"] - 0.5) / shape[0],
        column("MAG_AUTO", None), column("STAR", False), column("ZP_STAR", False),
        sources["NUMBER"].tolist(), strict=True,
    )  # fmt: skip
    return [
        [rounded(x, 4), rounded(y, 4), rounded(magnitude, 2), int(star), int(zero), number]
        for x, y, magnitude, star, zero, number in marked
    ]


def read_reference(path: Path) -> "Table | None":
    """Return the reference table of a target; None where it has no rows."""
    from lib.reference.referencetable import read_written_reference

    if not path.exists():
        return None
    table = read_written_reference(path)
    return table if len(table) else None


@dataclass(frozen=True)
class Comparison:
    """Comparison of the stars of a coadd with the reference.

    Parameters
    ----------
    zeropoint : list of list
        Reference magnitude, reference - measured, whether used for the zero point, x, y.
    positions : list of list
        x, y, offset in east and north [mas].
    """

    zeropoint: list[list[Any]]
    positions: list[list[Any]]


def compare_reference(
    sources: np.ndarray | None,
    reference: "Table | None",
    cards: Cards,
    band: str,
    radius: float = 2.0,
    most: int = 1500,
) -> Comparison:
    """Compare magnitudes and positions of a coadd's stars with the reference.

    Parameters
    ----------
    sources : numpy record array
        Source table of the coadd.
    reference : astropy.table.Table
    cards : dict
        Header of the coadd.
    band : str
    radius : float
        Maximum distance of a match [arcsec].
    most : int

    Returns
    -------
    Comparison
    """
    names = () if sources is None else sources.dtype.names or ()
    if sources is None or reference is None or not {"RA", "DEC"} <= set(names):
        return Comparison([], [])
    hit, row, offset = _matched(sources, reference, cards, radius)
    if "FLAGS" in names:
        clean = (np.asarray(sources["FLAGS"])[hit] & ~1) == 0
        if clean.any():
            hit, row, offset = hit[clean], row[clean], offset[clean]
    order = np.argsort(-np.asarray(sources["FLUX_POINT"], float)[hit])[:most]
    hit, row, offset = hit[order], row[order], offset[order]
    x, y = sources["X"][hit], sources["Y"][hit]
    positions = [
        [rounded(a, 1), rounded(b, 1), rounded(e, 1), rounded(n, 1)]
        for a, b, (e, n) in zip(x, y, offset, strict=True)
    ]
    zeropoint = []
    if band and band in reference.colnames:
        magnitude = np.ma.filled(np.ma.asarray(reference[band], float), np.nan)[row]
        ours_mag = np.asarray(sources["MAG_POINT"], float)[hit]
        used = sources["ZP_STAR"][hit]
        for k in np.flatnonzero(np.isfinite(magnitude) & np.isfinite(ours_mag)):
            zeropoint.append(
                [rounded(magnitude[k], 3), rounded(magnitude[k] - ours_mag[k], 4), int(used[k]),
                 rounded(x[k], 1), rounded(y[k], 1)]
            )  # fmt: skip
    return Comparison(zeropoint, positions)


def _matched(
    sources: np.ndarray, reference: "Table", cards: Cards, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return matched rows of sources and reference, and the offsets in east and north [mas].

    Each source is matched to the nearest star within `radius` arcsec.
    """
    from scipy.spatial import cKDTree

    ra, dec = np.asarray(sources["RA"], float), np.asarray(sources["DEC"], float)
    known_at: list[np.ndarray] = [
        np.ma.filled(np.ma.asarray(reference[k], float), np.nan) for k in ("ra", "dec")
    ]
    ra0, dec0 = cards.get("CRVAL1", np.median(ra)), cards.get("CRVAL2", np.median(dec))
    cosine = math.cos(math.radians(dec0))

    def plane(a, d):
        return np.column_stack(((((a - ra0 + 180) % 360) - 180) * cosine, d - dec0)) * 3600

    ours, theirs = plane(ra, dec), plane(*known_at)
    known = np.flatnonzero(np.isfinite(theirs).all(axis=1))
    if ours.shape[0] == 0 or known.size == 0:
        none = np.empty(0, int)
        return none, none, np.empty((0, 2))
    distance, nearest = cKDTree(theirs[known]).query(ours, distance_upper_bound=radius)
    hit = np.flatnonzero(np.isfinite(distance))
    row = known[nearest[hit]]
    return hit, row, 1000 * (ours[hit] - theirs[row])


@dataclass
class Member:
    """A frame of a stack: whether it is in the coadd, and why not."""

    frame: str
    used: bool
    why: str


@dataclass
class StackView:
    """A stack on the page.

    Parameters
    ----------
    numbers : StackNumbers
    members : list of Member
    size : list of int
        Columns and rows of the coadd.
    flags : list of str
    rank : int
        Rank of the filter from blue to red.
    zpreason : str
        Why there is no zero point, in words.
    colour : str
        Colour of the colour term.
    colour_term, colour_error : float
    tile, picture, weight : str
        Data URIs; empty where there is none.
    sources : list of list
        From `mark_sources`.
    nsources : int
        Number of rows of the source table.
    zp, positions_xy : list of list
        From `compare_reference`.
    target_xy : list of float
        From `target_place`.
    links : list of Link
        Links to the products.
    """

    numbers: StackNumbers
    members: list[Member]
    size: list[int]
    flags: list[str]
    rank: int
    zpreason: str
    colour: str
    colour_term: float | None
    colour_error: float | None
    tile: str = ""
    picture: str = ""
    weight: str = ""
    sources: list[list[Any]] = field(default_factory=list)
    nsources: int = 0
    zp: list[list[Any]] = field(default_factory=list)
    positions_xy: list[list[Any]] = field(default_factory=list)
    target_xy: list[float | None] | None = None
    links: list[Link] = field(default_factory=list)

    def script_data(self) -> dict[str, Any]:
        """Return the data for the page's script: all but the tile, flattened."""
        content = asdict(self)
        del content["tile"]
        return content.pop("numbers") | content


def show_stack(
    stack: str, night_outcome: NightOutcome, imdir: Path, reference: "Table | None", sizes: Sizes
) -> StackView:
    """Make the content of the page about one stack.

    Parameters
    ----------
    stack : str
    night_outcome : NightOutcome
    imdir : Path
    reference : astropy.table.Table or None
        Reference stars of the target.
    sizes : Sizes
    """
    result = night_outcome.stacks[stack]
    cards, quality = result.cards, result.quality
    numbers = stack_numbers(stack, result, night_outcome.frames)
    zeropoint = quality.get("zeropoint") if isinstance(quality.get("zeropoint"), dict) else None
    zeropoint = zeropoint or {}
    view = StackView(
        numbers,
        members=[
            Member(frame, bool(outcome.used), outcome.reason)
            for frame, outcome in ((one, night_outcome.frames[one]) for one in result.frames)
        ],
        size=[cards.get("NAXIS1", 0), cards.get("NAXIS2", 0)],
        flags=quality.get("flags", []),
        rank=pictures.colour_rank(numbers.filter, numbers.band),
        zpreason=zeropoint_reason(numbers, zeropoint),
        colour=zeropoint.get("colour", ""),
        colour_term=zeropoint.get("colour_term"),
        colour_error=zeropoint.get("colour_term_error"),
        links=stack_links(imdir, stack),
    )
    image, weight, sources = read_coadd(imdir, stack)
    if image is None or image.ndim != 2:
        return view
    valid = np.isfinite(image) if weight is None else weight > 0
    view.picture, view.tile = pictures.covered_pictures(
        image, valid, (picture_size(cards, sizes.coadd), sizes.tile), 2 * (sizes.quality,)
    )
    if weight is not None:
        factor = pictures.block_factor(weight.shape, sizes.tile)
        small = pictures.block_mean(weight, factor)
        grey = (255 * small / max(float(small.max()), 1e-30)).astype(np.uint8)
        view.weight = pictures.encode(grey, 60)
    view.sources = mark_sources(sources, image.shape, sizes.sources)
    view.nsources = 0 if sources is None else len(sources)
    compared = compare_reference(sources, reference, cards, cards.get("BAND", ""))
    view.zp, view.positions_xy = compared.zeropoint, compared.positions
    return view


def zeropoint_reason(numbers: StackNumbers, zeropoint: dict[str, Any]) -> str:
    """Return why a stack has no zero point, in words; '' where it has one."""
    if numbers.zeropoint is not None:
        return ""
    reason = reason_in_words(str(zeropoint.get("reason") or ""))
    if reason:
        return reason
    if not numbers.made:
        return "the stack was not made"
    return numbers.note or "its stars were not compared with a reference"


def picture_size(cards: Cards, most: int) -> int:
    """Return the size of the picture of a coadd [pixel].

    Pixels are binned where stars are wider than `PICTURE_FWHM` pixels: finer ones would show no
    more detail and only add noise.
    """
    longest = max(cards.get("NAXIS1", 0), cards.get("NAXIS2", 0))
    factor = int((cards.get("SEEPIX") or 0.0) / PICTURE_FWHM)
    return min(most, -(-longest // factor)) if factor > 1 else most


def target_place(cards: Cards, configured: tuple[float, float] | None) -> list[float | None] | None:
    """Return the position of a stack's target in its picture, as fractions, or None.

    Parameters
    ----------
    cards : mapping
        Cards of the coadd.
    configured : tuple of float, or None
        Setting `target_radec` [deg]; without it the pointing of the telescope.
    """
    if "CD1_1" not in cards or cards.get("ASTRCAT", "NONE") == "NONE":
        return None
    ra, dec, source = target_position(configured, [cards])
    if not source:
        return None
    try:
        x, y = coadd_wcs(cards).all_world2pix(ra, dec, 0)
    except ValueError:
        return None
    place = [rounded((x + 0.5) / cards["NAXIS1"], 4), rounded(1 - (y + 0.5) / cards["NAXIS2"], 4)]
    inside = all(value is not None and 0 < value < 1 for value in place)
    return place if inside else None


def coadd_wcs(cards: Cards) -> "WCS":
    """Return the celestial WCS from the cards of a coadd."""
    from astropy.wcs import WCS

    header = fits.Header()
    for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2",
                "CD2_1", "CD2_2"):  # fmt: skip
        if key in cards:
            header[key] = cards[key]
    return WCS(header, naxis=2)
