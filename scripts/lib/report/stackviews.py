"""What the page shows of stacks: pictures, sources, comparison with the reference."""

import math

import numpy as np
from astropy.io import fits

from lib.frame.fitsbytes import map_images, read_table
from lib.night.targets import target_position
from lib.report import pictures
from lib.report.numbers import rounded
from lib.report.summary import stack_numbers


def read_coadd(imdir, stack):
    """Return image and weight (as on disk) and source table of a coadd, None for what it lacks."""
    paths = [imdir / f"coadd{stack}{kind}.fits" for kind in ("", ".weight", ".cat")]
    image, weight = (map_images(path)[1].get("") if path.exists() else None for path in paths[:2])
    try:
        return image, weight, read_table(paths[2], "SOURCES")
    except (FileNotFoundError, KeyError):
        return image, weight, None


def mark_sources(sources, shape, most):
    """Return the brightest sources for the picture, as fractions of its sides.

    Returns
    -------
    list of list
        x, y (from the top), magnitude (or None), whether a star, whether of the zero point,
        number in the table. Those below 5 sigma, of which some are noise, are left out.
    """
    if sources is None or len(sources) == 0:
        return []
    names = sources.dtype.names
    if {"FLUX_POINT", "FLUXERR_POINT"} <= set(names):
        sources = sources[~(sources["FLUX_POINT"] < 5 * sources["FLUXERR_POINT"])]
    flux = np.asarray(sources["FLUX_AUTO"] if "FLUX_AUTO" in names else sources["X"], float)
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


def read_reference(path):
    """Return the reference table of a target as columns, or None where it has no rows."""
    from astropy.table import Table

    if not path.exists():
        return None
    table = Table.read(path, format="ascii.ecsv")
    return table if len(table) else None


def compare_reference(sources, reference, cards, band, radius=2.0, most=1500):
    """Compare a coadd's stars with the reference: what the zero point and positions rest on.

    Parameters
    ----------
    sources : numpy record array
        Source table of the coadd.
    reference : astropy.table.Table
    cards : dict
        Header of the coadd.
    band : str
    radius : float
        Arcsec.
    most : int

    Returns
    -------
    dict
        ``zeropoint``: list of [reference magnitude, reference - ours, used, x, y];
        ``positions``: list of [x, y, east, north] with the offsets [mas].
    """
    if sources is None or reference is None or not {"RA", "DEC"} <= set(sources.dtype.names):
        return {"zeropoint": [], "positions": []}
    from scipy.spatial import cKDTree

    ra, dec = np.asarray(sources["RA"], float), np.asarray(sources["DEC"], float)
    ra_ref, dec_ref = (np.ma.filled(np.ma.asarray(reference[k], float), np.nan)
                       for k in ("ra", "dec"))  # fmt: skip
    ra0, dec0 = cards.get("CRVAL1", np.median(ra)), cards.get("CRVAL2", np.median(dec))
    cosine = math.cos(math.radians(dec0))

    def plane(a, d):
        return np.column_stack(((((a - ra0 + 180) % 360) - 180) * cosine, d - dec0)) * 3600

    ours, theirs = plane(ra, dec), plane(ra_ref, dec_ref)
    known = np.flatnonzero(np.isfinite(theirs).all(axis=1))
    if ours.shape[0] == 0 or known.size == 0:
        return {"zeropoint": [], "positions": []}
    distance, nearest = cKDTree(theirs[known]).query(ours, distance_upper_bound=radius)
    hit = np.flatnonzero(np.isfinite(distance))
    flags = np.asarray(sources["FLAGS"]) if "FLAGS" in sources.dtype.names else None
    if flags is not None:
        clean = hit[(flags[hit] & ~1) == 0]
        hit = clean if clean.size else hit
    order = np.argsort(-np.asarray(sources["FLUX_POINT"], float)[hit])
    hit = hit[order][:most]
    row = known[nearest[hit]]
    offset = 1000 * (ours[hit] - theirs[row])
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
    return {"zeropoint": zeropoint, "positions": positions}


def show_stack(stack, result, night_outcome, imdir, reference, sizes):
    """Make what the page shows of one stack.

    Returns
    -------
    dict
        Numbers (`lib.report.outcomes.stack_numbers`), tile, picture, weight (data URIs), sources,
        comparisons, size [pixel], frames.
    """
    shown = stack_numbers(stack, result, night_outcome.frames)
    cards = result["cards"]
    quality = result["quality"]
    zeropoint = quality.get("zeropoint") if isinstance(quality.get("zeropoint"), dict) else {}
    shown |= {
        "flags": quality.get("flags", []), "tile": "", "picture": "", "weight": "", "sources": [],
        "zp": [], "positions_xy": [], "target_xy": None, "zpreason": zeropoint.get("reason", ""),
        "size": [cards.get("NAXIS1", 0), cards.get("NAXIS2", 0)],
        "colour": zeropoint.get("colour", ""), "colour_term": zeropoint.get("colour_term"),
        "colour_error": zeropoint.get("colour_term_error"),
        "members": [
            {
                "frame": frame,
                "used": night_outcome.frames[frame].used != "",
                "why": night_outcome.frames[frame].reason,
            }
            for frame in result["frames"]
        ],
    }  # fmt: skip
    image, weight, sources = read_coadd(imdir, stack)
    if image is None or image.ndim != 2:
        return shown
    valid = np.isfinite(image) if weight is None else weight > 0
    shown["picture"], shown["tile"] = pictures.covered_pictures(
        image, valid, (sizes.coadd, sizes.tile), (sizes.quality, sizes.quality)
    )
    if weight is not None:
        factor = pictures.block_factor(weight.shape, sizes.tile)
        small = pictures.block_mean(weight, factor)
        grey = (255 * small / max(float(small.max()), 1e-30)).astype(np.uint8)
        shown["weight"] = pictures.encode(grey, 60)
    shown["sources"] = mark_sources(sources, image.shape, sizes.sources)
    shown["nsources"] = 0 if sources is None else len(sources)
    compared = compare_reference(sources, reference, cards, cards.get("BAND", ""))
    shown["zp"], shown["positions_xy"] = compared["zeropoint"], compared["positions"]
    return shown


def target_place(cards, configured):
    """Return where a stack's target lies in its picture, as fractions, or None.

    Parameters
    ----------
    cards : mapping
        Of the coadd.
    configured : tuple of float, or None
        Config `target_radec`; otherwise the target is where the telescope was sent.
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


def coadd_wcs(cards):
    """Return the celestial WCS in the cards kept of a coadd."""
    from astropy.wcs import WCS

    header = fits.Header()
    for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2",
                "CD2_1", "CD2_2"):  # fmt: skip
        if key in cards:
            header[key] = cards[key]
    return WCS(header, naxis=2)
