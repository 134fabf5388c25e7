"""The light curve of a target: forced photometry on the single frames of its stacks.

A frame's fluxes are brought to the scale of its coadd by the transparency that the stack found for
it from the stars they share, so that the coadd's zero point holds for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sep
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from lib.core.figures import new_figure, save_figure
from lib.core.wcs import celestial_wcs
from lib.frame.file import INTERPOLATED, SATURATED, UNUSABLE, Frame, read_frame
from lib.frame.fitsbytes import read_table
from lib.photometry.backgroundmesh import background, background_without, spread_mesh
from lib.photometry.flags import (
    FLAG_NEIGHBOUR,
    FLAG_OUTSIDE,
    FLAG_REPAIRED,
    FLAG_SATURATED,
    FLAG_WEIGHT,
)
from lib.photometry.forced import filter_order, magnitudes
from lib.photometry.neighbours import StarModels
from lib.photometry.pointflux import ApertureSums, point_fluxes
from lib.photometry.psf import CoreAperture, StarAperture, Wings
from lib.photometry.sources import detect_sources

CUTOUT_HALF_SIZE = 192
"""Half of the side of the part of a frame that is measured [pixel]."""

BACKGROUND_BOX = 64
"""Mesh of its background [pixel]."""

WINGS_ERROR = 0.1
"""Relative error of the light of neighbours: the wings of one frame are not better known."""


@dataclass(frozen=True)
class FrameQuality:
    """What the stack measured of one of its frames.

    Parameters
    ----------
    aperture : StarAperture, optional
        None for a frame without stars: it cannot be measured.
    seeing : float
        FWHM of stars [arcsec].
    transparency : float
        Relative to the best frame of the stack.
    scatter : float
        Of its stars about its scale [mag].
    n_common : int
        Stars that tell its scale.
    fraction_error : float
        Relative error of the part of light in the aperture.
    used : bool
        Whether the frame is in the coadd.
    reason : str
        Why not.
    """

    aperture: StarAperture | None = None
    seeing: float = np.nan
    transparency: float = np.nan
    scatter: float = np.nan
    n_common: int = 0
    fraction_error: float = 0.0
    used: bool = False
    reason: str = ""

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "FrameQuality":
        """Return a frame's entry in the quality numbers of a stack (qa/stack/*.json)."""
        aperture = None
        if "aperture" in entry:
            wings = Wings(*entry["wings"])
            core = CoreAperture(*entry["core"]) if "core" in entry else None
            aperture = StarAperture(entry["aperture"], entry["fraction"], wings, core)
        return cls(
            aperture=aperture, seeing=_number(entry.get("seeing")),
            transparency=_number(entry.get("transparency")), scatter=_number(entry.get("scatter")),
            n_common=int(entry.get("common") or 0),
            fraction_error=float(entry.get("fraction_error") or 0.0),
            used=bool(entry.get("used", False)),
            reason=str(entry.get("reason") or ""),
        )  # fmt: skip


@dataclass(frozen=True)
class StackedFrames:
    """A coadd, its sources and its frames.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Of the coadd.
    positions : ndarray, shape (n, 2)
        ra, dec of its sources [deg].
    fluxes : ndarray, shape (n,)
        Their total fluxes in units of the coadd.
    exptime : float
        Exposure time that the coadd is scaled to [s]; NaN where there is none.
    frames : dict of FrameQuality
        By the name of the frame.
    paths : sequence of path-like
        Of the frames, solved and sky-subtracted.
    """

    header: fits.Header
    positions: np.ndarray
    fluxes: np.ndarray
    exptime: float
    frames: dict[str, FrameQuality] = field(default_factory=dict)
    paths: Sequence[str | Path] = ()

    @property
    def filter(self) -> str:
        """Name of the filter, empty where the coadd does not tell it."""
        return str(self.header.get("FILTER", ""))

    @property
    def zeropoint(self) -> float:
        """Magnitude of one electron per second at the transparency of the best frame."""
        zeropoint = self.header.get("ABSZPT", np.nan)
        return np.nan if zeropoint is None else zeropoint - 2.5 * np.log10(self.exptime)


def _number(value: float | None) -> float:
    """Return a number of a JSON file, NaN for none."""
    return np.nan if value is None else float(value)


def measure_exposure(
    frame: Frame, position: tuple[float, float], neighbours: np.ndarray, fluxes: np.ndarray,
    aperture: StarAperture,
) -> tuple[float, float, int]:  # fmt: skip
    """Measure a point source at a given position on one frame.

    Parameters
    ----------
    frame : lib.frame.file.Frame
        Sky-subtracted, with WCS.
    position : tuple of float
        ra, dec [deg].
    neighbours : ndarray, shape (n, 2)
        ra, dec of other sources [deg]; within half of the aperture's radius they are taken for
        the target.
    fluxes : ndarray, shape (n,)
        Their total fluxes in units of the frame.
    aperture : StarAperture

    Returns
    -------
    flux, error : float
        Total flux of a point source there, in units of the frame; NaN outside the frame.
    flags : int
    """
    wcs = celestial_wcs(frame.header)
    x, y = (float(v) for v in wcs.all_world2pix(*position, 0))
    ny, nx = frame.image.shape
    if not (-0.5 < x < nx - 0.5 and -0.5 < y < ny - 0.5):
        return np.nan, np.nan, FLAG_OUTSIDE
    cutout = _Cutout.around(frame, x, y)
    x, y, radius = x - cutout.x0, y - cutout.y0, aperture.radius
    residual = _without_neighbours(cutout, wcs, (x, y), neighbours, fluxes, aperture)

    def alone(one: StarAperture) -> tuple[ApertureSums, float]:
        """Return the target's sum in an aperture, and the light of its neighbours there."""
        everything, error, _ = sep.sum_circle(
            cutout.image, [x], [y], one.radius, err=cutout.noise, subpix=5,
            gain=frame.header.get("GAIN", 1.0),
        )  # fmt: skip
        own = sep.sum_circle(residual, [x], [y], one.radius, subpix=5)[0]
        light = float(everything[0] - own[0])
        return ApertureSums(own, np.hypot(error, WINGS_ERROR * light), one.fraction), light

    wide, light = alone(aperture)
    flags = 0
    if abs(light) > max(0.1 * abs(wide.sums[0]), wide.error[0]):
        flags |= FLAG_NEIGHBOUR
    for bits, flag in ((SATURATED, FLAG_SATURATED), (INTERPOLATED, FLAG_REPAIRED)):
        if _area((cutout.mask & bits) > 0, x, y, radius) > 0:
            flags |= flag
    unusable_area = _area(cutout.bad, x, y, radius)
    if unusable_area > 0:
        flags |= FLAG_WEIGHT
    if unusable_area > 0.5 * np.pi * radius**2:
        return np.nan, np.nan, flags | FLAG_OUTSIDE
    flux, error = wide.total, np.sqrt(wide.variance)
    if aperture.core is not None:
        core, _ = alone(aperture.inner())
        joined = np.array([bool(flags & FLAG_NEIGHBOUR)])
        flux, error = point_fluxes(wide, core, aperture.core.scatter, joined)
    return float(flux[0]), float(error[0]), flags


@dataclass(frozen=True)
class _Cutout:
    """The part of a frame about a position, its background subtracted.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        0 where it is not finite, less the background.
    mask : ndarray of uint8, same shape
        Of the frame.
    bad : ndarray of bool, same shape
        Pixels without a usable value.
    noise : float
        Of a pixel.
    x0, y0 : int
        First pixel in the frame.
    """

    image: np.ndarray
    mask: np.ndarray
    bad: np.ndarray
    noise: float
    x0: int
    y0: int

    @classmethod
    def around(cls, frame: Frame, x: float, y: float) -> "_Cutout":
        """Cut out the surroundings of (x, y) and subtract their background."""
        x0, y0 = max(0, round(x) - CUTOUT_HALF_SIZE), max(0, round(y) - CUTOUT_HALF_SIZE)
        part = (
            slice(y0, round(y) + CUTOUT_HALF_SIZE + 1), slice(x0, round(x) + CUTOUT_HALF_SIZE + 1)
        )  # fmt: skip
        image, mask = frame.image[part], frame.mask[part]
        bad = ((mask & UNUSABLE) > 0) | ~np.isfinite(image)
        image = np.where(np.isfinite(image), image, 0).astype(np.float32)
        level, noise = background(image, bad, BACKGROUND_BOX)
        noise = max(noise, 1e-6)
        segments = detect_sources(image - level, noise, None, 2.0)[1]
        mesh = background_without(image, bad, segments, BACKGROUND_BOX)
        return cls(image - spread_mesh(mesh, image.shape), mask, bad, noise, x0, y0)


def _without_neighbours(
    cutout: _Cutout, wcs: WCS, target: tuple[float, float], positions: np.ndarray,
    fluxes: np.ndarray, aperture: StarAperture,
) -> np.ndarray:  # fmt: skip
    """Return a cutout without the light of the neighbours of the target at (x, y) in it."""
    radius = aperture.radius
    x, y = np.empty(0), np.empty(0)
    if len(positions):
        x, y = wcs.all_world2pix(*positions.T, 0)
    x, y = x - cutout.x0, y - cutout.y0
    distance = np.hypot(x - target[0], y - target[1])
    near = (distance > 0.5 * radius) & (distance < 12 * radius) & (fluxes > 0)
    return StarModels(
        cutout.image, x[near], y[near], fluxes[near], aperture.wings, cutout.noise, radius
    ).residual


def _area(pixels: np.ndarray, x: float, y: float, radius: float) -> float:
    """Return how many of some pixels lie in a circle."""
    return sep.sum_circle(pixels.astype(np.float32), [x], [y], radius, subpix=1)[0][0]


def light_curve(stacks: Sequence[StackedFrames], position: tuple[float, float]) -> Table:
    """Measure the target in every frame of its stacks.

    Parameters
    ----------
    stacks : list of StackedFrames
    position : tuple of float
        ra, dec [deg], NaN where unknown.

    Returns
    -------
    astropy.table.Table
        One row per frame, in order of time.
    """
    rows = [_row(stack, path, position) for stack in stacks for path in stack.paths]
    rows.sort(key=lambda row: (row["MJD"], row["FILTER"]))
    table = Table()
    for key, (kind, unit, what) in COLUMNS.items():
        table[key] = np.array([row[key] for row in rows], dtype=kind)
        table[key].unit, table[key].description = unit, what
    return table


def read_sources(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions and total fluxes of the sources of a coadd above 5 sigma.

    Parameters
    ----------
    path : path-like
        coadd….cat.fits, without a table where the stack was rejected.

    Returns
    -------
    positions : ndarray, shape (n, 2)
        ra, dec [deg].
    fluxes : ndarray, shape (n,)
        Total fluxes of point sources, in units of the coadd.
    """
    try:
        sources = read_table(path, "SOURCES")
    except KeyError:
        return np.empty((0, 2)), np.empty(0)
    sure = sources[sources["FLUX_POINT"] > 5 * sources["FLUXERR_POINT"]]
    return np.column_stack([sure["RA"], sure["DEC"]]), sure["FLUX_POINT"].astype(float)


COLUMNS = {
    "FRAME": (str, None, "name of the frame"),
    "FILTER": (str, None, "filter"),
    "MJD": (float, "d", "middle of the exposure, UTC"),
    "DATE-OBS": (str, None, "start of the exposure, UTC"),
    "EXPTIME": (float, "s", "exposure time"),
    "AIRMASS": (float, None, "airmass"),
    "SEEING": (float, "arcsec", "FWHM of stars"),
    "TRANSPARENCY": (float, None, "relative to the best frame of the stack"),
    "FLUX": (float, "electron / s", "total flux, at the transparency of the best frame"),
    "FLUXERR": (float, "electron / s", "its error, that of the flat (FLATERR) included"),
    "MAG": (float, "mag", "magnitude, where seen"),
    "MAGERR": (float, "mag", "its error, without that of the zero point of the coadd"),
    "LIMIT": (float, "mag", "upper limit, where not seen"),
    "ZPERR": (float, "mag", "error of the frame's scale relative to the coadd, not in MAGERR"),
    "FLAGS": (int, None, "32 repaired, 256 saturated, 512 neighbour, 1024 masked, 2048 no data"),
    "USED": (bool, None, "whether the frame is in the coadd"),
    "REASON": (str, None, "why not, or why it was not measured"),
}


def _row(stack: StackedFrames, path: str | Path, position: tuple[float, float]) -> dict[str, Any]:
    """Return the row of one frame."""
    # Only what lies about the target is read from disk.
    frame = read_frame(path, mapped=True)
    header = frame.header
    name = str(header.get("FRAME", Path(path).stem))
    quality = stack.frames.get(name, FrameQuality())
    exposure = float(header.get("EXPTIME", np.nan))
    airmass = header.get("AIRMASS")
    good_airmass = isinstance(airmass, int | float) and 1 <= airmass <= 10
    row = {
        "FRAME": name, "FILTER": stack.filter or str(header.get("FILTER", "")),
        "MJD": float(header.get("MJD-OBS", np.nan)) + 0.5 * exposure / 86400,
        "DATE-OBS": str(header.get("DATE-OBS", "")), "EXPTIME": exposure,
        "AIRMASS": float(airmass) if good_airmass else np.nan,
        "SEEING": quality.seeing, "TRANSPARENCY": quality.transparency,
        "FLUX": np.nan, "FLUXERR": np.nan, "MAG": np.nan, "MAGERR": np.nan, "LIMIT": np.nan,
        "ZPERR": np.nan, "FLAGS": 0, "USED": quality.used,
        "REASON": quality.reason or str(frame.reason or ""),
    }  # fmt: skip
    # Electrons of the frame per electron a second of the coadd's scale.
    scale = exposure * quality.transparency
    ready = not frame.rejected and frame.image is not None
    if quality.aperture is None or not (
        ready and np.isfinite(scale) and scale > 0 and np.isfinite(position[0])
    ):
        row["REASON"] = row["REASON"] or "the position of the target is not known"
        row["FLAGS"] = FLAG_OUTSIDE
        return row
    fluxes = stack.fluxes * scale / stack.exptime
    flux, error, row["FLAGS"] = measure_exposure(
        frame, position, stack.positions, fluxes, quality.aperture
    )
    # Wherever on the detector the target fell: what its flat is off there is not known.
    error = np.hypot(error, float(header.get("FLATERR", 0.0)) * flux)
    row["FLUX"], row["FLUXERR"] = flux / scale, error / scale
    magnitude, magnitude_error, limit = magnitudes(
        np.array([row["FLUX"]]), np.array([row["FLUXERR"]]), stack.zeropoint
    )
    row["MAG"], row["MAGERR"], row["LIMIT"] = magnitude[0], magnitude_error[0], limit[0]
    if quality.n_common:
        stars = quality.scatter / np.sqrt(quality.n_common)
        row["ZPERR"] = np.hypot(stars, 1.0857 * quality.fraction_error)
    return row


def plot_light_curve(path: str | Path, table: Table, title: str) -> None:
    """Draw magnitudes (fluxes where there is no zero point) and limits against time.

    Parameters
    ----------
    path : path-like
    table : astropy.table.Table
        Of `light_curve`.
    title : str
    """
    figure, axes = new_figure((8, 5), (0.1, 0.11, 0.97, 0.92))
    axis = axes[0, 0]
    known = np.isfinite(table["MJD"])
    start = np.floor(np.min(table["MJD"][known])) if known.any() else 0.0
    calibrated = np.isfinite(table["MAG"]).any() or np.isfinite(table["LIMIT"]).any()
    drawn = False
    for number, name in enumerate(filter_order(set(table["FILTER"]))):
        rows = table[(table["FILTER"] == name) & known]
        hours = 24 * (rows["MJD"] - start)
        key = "MAG" if calibrated else "FLUX"
        shown = np.isfinite(rows[key])
        colour = f"C{number % 10}"
        if shown.any():
            axis.errorbar(
                hours[shown], rows[key][shown], rows[f"{key}ERR"][shown], fmt="o", ms=4,
                color=colour, label=name,
            )  # fmt: skip
            drawn = True
        limits = np.isfinite(rows["LIMIT"])
        if calibrated and limits.any():
            axis.plot(
                hours[limits], rows["LIMIT"][limits], "v", color=colour, mfc="none",
                label=None if shown.any() else name,
            )  # fmt: skip
            drawn = True
    if drawn:
        if calibrated:
            axis.invert_yaxis()
        axis.legend(title="filter")
        label = "magnitude" if calibrated else "flux [electron / s]"
        axis.set(xlabel=f"hours since MJD {start:.0f} (UTC)", ylabel=label)
    else:
        axis.text(0.02, 0.5, "the target was not measured")
        axis.set_axis_off()
    axis.set_title(title)
    save_figure(figure, path, ticks=8)
