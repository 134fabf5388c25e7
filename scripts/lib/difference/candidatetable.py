"""The table of a target's candidates, from the difference images of all its filters."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack
from astropy.wcs import WCS

from lib.core.settings import DifferenceSettings
from lib.core.sphere import project
from lib.core.wcs import celestial_wcs
from lib.difference.candidates import Candidates, DifferenceMaps, look_for_candidates
from lib.difference.cutouts import MOST, pixel_noise, triple
from lib.difference.frames import SeenInFrames, look_in_frames
from lib.difference.ranking import FEATURES, explained
from lib.difference.regions import Regions
from lib.difference.surroundings import (
    KNOWN_REACH,
    Surroundings,
    known_objects,
    surroundings,
)
from lib.frame.fitsbytes import read_table
from lib.night.positions import Position
from lib.photometry.lightcurve import FrameQuality
from lib.stack.jointtable import read_coadd

log = logging.getLogger("autoproc")

SAME_PLACE = 0.7
"""[FWHM] Candidates of two filters nearer to each other are one object."""

MOST_IN_FRAMES = 300
"""Candidates that are looked for in single frames: the best."""

COLUMNS = {
    "NUMBER": (None, "number in this table, the best first"),
    "OBJECT": (None, "the same for one place seen in several filters"),
    "FILTER": (None, "filter"),
    "STACK": (None, "stack whose difference image shows it"),
    "RA": ("deg", "right ascension, ICRS"),
    "DEC": ("deg", "declination, ICRS"),
    "POSERR": ("arcsec", "error of the position per axis, by the noise"),
    "X": ("pix", "column, the first is 1"),
    "Y": ("pix", "row, the first is 1"),
    "SNR": (None, "flux over its error, negative for what has faded"),
    "SIGN": (None, "1 brighter or new, -1 fainter or gone"),
    "FLUX": (None, "of a point source in the difference, units of the coadd"),
    "FLUXERR": (None, "its error, with the host and what is left of stars"),
    "MAG": ("mag", "of the change of flux, whatever its sign"),
    "MAGERR": ("mag", "its error, without that of the zero point"),
    "WIDTH": (None, "size over that of a point source"),
    "ELLIPTICITY": (None, "beyond that of a point source"),
    "MISFIT": (None, "reduced chi square of a point source"),
    "DIPOLE": (None, "peak of the other sign beside it, beyond the noise, over its own"),
    "MASKED": (None, "part of the pixels within a FWHM without value"),
    "STARDIST": ("arcsec", "to the nearest other star of the coadd"),
    "STARMAG": ("mag", "of that star"),
    "HOST": (None, "NUMBER of the host in the source table of the coadd, 0 for none"),
    "HOSTDIST": ("arcsec", "to the centre of the host"),
    "HOSTREACH": (None, "the same over its automatic aperture in that direction"),
    "HOSTMAG": ("mag", "of the host"),
    "NFRAMES": (None, "frames of the coadd that cover it"),
    "NSEEN": (None, "frames in which it is seen at 3 sigma"),
    "ALONE": (None, "part of its light that the brightest frame has beyond its share"),
    "RATE": ("arcsec / h", "of its motion from frame to frame"),
    "RATEERR": ("arcsec / h", "error of RATE"),
    "ANGLE": ("deg", "direction of the motion, from north through east"),
    "MOVING": (None, "whether RATE is above 4 errors, and the path above 0.3 of the seeing"),
    "KNOWN": (None, "name of a known object there, or 'reference star'"),
    "SCORE": (None, "product of 1 - weight (1 - Q): see score in the metadata"),
    "CUTOUT": (None, "row of qa/candidates/<target>.jpg, -1 for none"),
}
"""Units and descriptions."""


@dataclass(frozen=True)
class StackFiles:
    """Files of a stack: coadd, weight, source table, quality, difference, its weight, frames."""

    coadd: str
    weight: str
    cat: str
    quality: str
    diff: str
    diff_weight: str
    frames: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Name of the stack."""
        return Path(self.coadd).name.removeprefix("coadd").removesuffix(".fits")


def make_candidates(
    stacks: Sequence[StackFiles], settings: DifferenceSettings, *, reference: np.ndarray,
    known: Sequence[Position] = (), version: int = 1,
) -> tuple[Table, list[np.ndarray]]:  # fmt: skip
    """Return the candidates of a target and their cut-outs.

    Parameters
    ----------
    stacks : sequence of StackFiles
        One for each filter; those without a difference image have no candidates.
    settings : DifferenceSettings
    reference : ndarray, shape (m, 2)
        ra, dec of the reference stars [deg].
    known : sequence of Position
        Objects of the user.
    version : int
        Version of the step.

    Returns
    -------
    table : astropy.table.Table
        The highest scores first, of these the most significant.
    rows : list of ndarray of uint8
        Cut-outs of the first `MOST` of it whose score counts.
    """
    tables: list[Table] = []
    pictures: list[np.ndarray] = []
    left_out: dict[str, str] = {}
    seeing = 1.0
    common: dict[str, Any] = {}
    for stack in stacks:
        header = fits.getheader(stack.diff)
        common = common or {"object": str(header.get("OBJECT", ""))}
        if header.get("QCSTAT") != "OK":
            left_out[stack.name] = str(header.get("QCREASON", ""))
            continue
        seeing = max(seeing, float(header["SEEING"])) if tables else float(header["SEEING"])
        table, shown = stack_candidates(stack, header, settings, reference, known)
        tables.append(table)
        pictures += shown
    if tables:
        whole = vstack(tables, metadata_conflicts="silent")
        order = np.lexsort((-np.abs(whole["SNR"]), -np.round(whole["SCORE"], 2)))
        whole, pictures = whole[order], [pictures[k] for k in order]
    else:
        whole = empty_table()
    whole["NUMBER"] = np.arange(1, len(whole) + 1)
    whole["OBJECT"] = group(np.column_stack([whole["RA"], whole["DEC"]]), SAME_PLACE * seeing)
    listed = np.flatnonzero(whole["SCORE"] >= settings.score)[:MOST]
    whole["CUTOUT"] = np.full(len(whole), -1)
    whole["CUTOUT"][listed] = np.arange(listed.size)
    whole = described(whole)
    whole.meta = common | {
        "step": f"candidates v{version}", "threshold": settings.threshold,
        "least_score": settings.score, "score": explained(), "left_out": left_out,
        "counted": int(np.count_nonzero(whole["SCORE"] >= settings.score)),
    }  # fmt: skip
    return whole, [pictures[k] for k in listed]


def described(table: Table) -> Table:
    """Return a table with its columns in order, their units and descriptions."""
    qualities = [f"Q_{one.name}" for one in FEATURES]
    table = table[[*COLUMNS, *qualities]]
    for name, (unit, words) in COLUMNS.items():
        table[name].unit, table[name].description = unit, words
    for one in FEATURES:
        table[f"Q_{one.name}"].description = one.means
    return table


def empty_table() -> Table:
    """Return a table of no candidate."""
    texts = ("FILTER", "STACK", "KNOWN")
    whole = ("NUMBER", "OBJECT", "SIGN", "HOST", "NFRAMES", "NSEEN", "CUTOUT")
    kinds = [str if k in texts else int if k in whole else bool if k == "MOVING" else float
             for k in COLUMNS]  # fmt: skip
    names = [*COLUMNS, *(f"Q_{one.name}" for one in FEATURES)]
    return Table(names=names, dtype=[*kinds, *(float for _ in FEATURES)])


def group(positions: np.ndarray, radius: float) -> np.ndarray:
    """Return a number for each position, the same for those within a radius [arcsec]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(positions)
    if n == 0:
        return np.empty(0, int)
    plane = project(*positions.T, *positions[0])
    pairs = cKDTree(plane).query_pairs(radius, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(links, directed=False)[1]
    # Numbered as the table has them.
    first: dict[int, int] = {}
    return np.array([first.setdefault(int(one), len(first) + 1) for one in labels])


def read_maps(stack: StackFiles, header: fits.Header) -> tuple[DifferenceMaps, np.ndarray]:
    """Return the maps of a difference image, and the template on its grid and scale."""
    with fits.open(stack.diff) as hdus:
        planes = {
            name: np.asarray(hdus[name].data, np.float32)
            for name in ("SIGNIFICANCE", "FLUXERR", "PSF", "TEMPLATE")
        }
        image = np.asarray(hdus[0].data, np.float32)
        number = int(hdus["PSF"].header["REGIONS"])
    weight = np.asarray(fits.getdata(stack.diff_weight), np.float32)
    variance = np.zeros_like(weight)
    np.divide(1, weight, out=variance, where=weight > 0)
    rows, columns = image.shape
    maps = DifferenceMaps(
        image, variance, planes["SIGNIFICANCE"], planes["FLUXERR"], planes["PSF"],
        Regions((rows, columns), number), float(header["SEEPIX"]),
    )  # fmt: skip
    return maps, planes["TEMPLATE"]


def stack_candidates(
    stack: StackFiles, header: fits.Header, settings: DifferenceSettings, reference: np.ndarray,
    known: Sequence[Position],
) -> tuple[Table, list[np.ndarray]]:  # fmt: skip
    """Return the candidates of one difference image and their cut-outs."""
    maps, template = read_maps(stack, header)
    coadd = read_coadd(stack.coadd, stack.weight, stack.cat)
    grid, scale = celestial_wcs(header), float(header["PIXSCALE"])
    found = look_for_candidates(maps, settings.threshold)
    sky = sky_positions(grid, found.peaks.x, found.peaks.y)
    static = coadd.image - maps.image if header.get("DIFCONV") == "template" else template
    seen = _in_frames(stack, found, static, grid, sky)
    found = found.with_frames(seen.alone)
    sources = read_table(stack.cat, "SOURCES")
    about = surroundings(sources, found.peaks.x, found.peaks.y, found.flux, maps.fwhm, scale)
    mjd = float(header.get("MJD-AVG", header.get("MJD-OBS", np.nan)))
    radius = max(1.0, KNOWN_REACH * float(header["SEEING"]))
    names = known_objects(sky, radius, mjd, reference, known)
    table = candidate_rows(found, seen, about, sky, header)
    table["KNOWN"], table["STACK"] = names, stack.name
    used = maps.error > 0
    images = coadd.image, template, maps.image
    noises = [pixel_noise(one, used) for one in images]
    pictures = [
        triple(images, noises, x, y)
        for x, y in zip(found.peaks.x, found.peaks.y, strict=True)
    ]  # fmt: skip
    log.info(
        "%s: %d candidates, %d with a score of %.2g or more", stack.name, len(found),
        np.count_nonzero(found.score >= settings.score), settings.score,
    )  # fmt: skip
    return table, pictures


def sky_positions(grid: WCS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ra, dec [deg] of pixels, shape (n, 2)."""
    if not len(x):
        return np.empty((0, 2))
    return np.column_stack(grid.all_pix2world(x, y, 0))


def _in_frames(
    stack: StackFiles, found: Candidates, static: np.ndarray, grid: WCS, sky: np.ndarray
) -> SeenInFrames:
    """Return the measures of the best candidates in single frames."""
    n = len(found)
    if not n or not len(stack.frames):
        return SeenInFrames.unknown(n)
    numbers = json.loads(Path(stack.quality).read_text(encoding="utf-8")).get("frames", {})
    quality = {
        name: (FrameQuality.from_json(one), float(one.get("scale") or np.nan))
        for name, one in numbers.items()
    }
    best = np.argsort(-found.score, kind="stable")[:MOST_IN_FRAMES]
    sign = np.sign(found.peaks.significance[best])
    part = look_in_frames(stack.frames, quality, static, grid, sky[best], sign)
    whole = SeenInFrames.unknown(n)
    columns = {}
    for name, values in vars(whole).items():
        columns[name] = values.copy()
        columns[name][best] = getattr(part, name)
    return SeenInFrames(**columns)


def candidate_rows(
    found: Candidates, seen: SeenInFrames, about: Surroundings, sky: np.ndarray,
    header: fits.Header,
) -> Table:  # fmt: skip
    """Return the rows of candidates but for their numbers."""
    zeropoint = float(header.get("ABSZPT", np.nan))
    size = np.abs(found.flux)
    snr = found.peaks.significance
    with np.errstate(divide="ignore"):
        magnitude = zeropoint - 2.5 * np.log10(size)
    # King 1983 (PASP 95, 163): the error of a centroid is about half of FWHM over S/N.
    position = 0.5 * float(header["SEEING"]) / np.maximum(np.abs(snr), 1)
    forms, peaks, features = found.forms, found.peaks, found.features
    return Table({
        "FILTER": np.full(len(found), str(header.get("FILTER", ""))),
        "RA": sky[:, 0], "DEC": sky[:, 1], "POSERR": position, "X": peaks.x + 1, "Y": peaks.y + 1,
        "SNR": snr, "SIGN": np.sign(snr).astype(int), "FLUX": found.flux, "FLUXERR": found.error,
        "MAG": magnitude, "MAGERR": 1.0857 / np.maximum(np.abs(snr), 1e-3), "WIDTH": forms.width,
        "ELLIPTICITY": forms.ellipticity, "MISFIT": forms.misfit, "DIPOLE": peaks.dipole,
        "MASKED": forms.masked, "STARDIST": about.star_distance, "STARMAG": about.star_magnitude,
        "HOST": about.host, "HOSTDIST": about.host_distance, "HOSTREACH": about.host_reach,
        "HOSTMAG": about.host_magnitude, "NFRAMES": seen.frames, "NSEEN": seen.seen,
        "ALONE": seen.alone, "RATE": seen.rate, "RATEERR": seen.rate_error, "ANGLE": seen.angle,
        "MOVING": seen.moving, "SCORE": found.score,
    } | {f"Q_{one.name}": features[one.name] for one in FEATURES})  # fmt: skip
