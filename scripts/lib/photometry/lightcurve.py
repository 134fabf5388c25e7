"""Light curves: forced photometry on all frames of a target, on a common photometric system.

Every position is measured in every frame, whether stacked or not, together with the comparison
stars of the field. These bring the frames of a band to a common scale (`lib.photometry.ensemble`),
which the zero points of all their stacks together calibrate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from lib.core.sphere import project
from lib.core.wcs import celestial_wcs, pixel_scale
from lib.frame.file import read_frame
from lib.frame.fitsbytes import read_table
from lib.night.positions import Position
from lib.photometry.ensemble import (
    ErrorParts,
    comparison_stars,
    solve_ensemble,
    tie_groups,
    varying_shares,
)
from lib.photometry.flags import (
    FLAG_NEIGHBOUR,
    FLAG_OUTSIDE,
    FLAG_SATURATED,
    FLAG_TRUNCATED,
    FLAG_WEIGHT,
)
from lib.photometry.frameforced import FrameFluxes, measure_frame
from lib.photometry.psf import CoreAperture, StarAperture, Wings

COMPARISON_SNR = 20.0
"""Minimum S/N of a comparison star in the coadd."""

MIN_ISOLATED = 5
"""With fewer isolated comparison stars, those with neighbours are used as well."""

POISSON = 1.0857
"""Magnitude error for a relative flux error of 1: 2.5 / ln(10)."""


@dataclass(frozen=True)
class FrameQuality:
    """Quality measures of a frame, from the stack it belongs to.

    Parameters
    ----------
    aperture : StarAperture, optional
        Aperture and profile of its stars; None for a frame without stars, which cannot be measured.
    seeing : float
        FWHM of stars [arcsec].
    transparency : float
        Transparency relative to the best frame of the stack.
    scatter : float
        Scatter of its stars about its flux scale [mag].
    n_common : int
        Number of stars that determine its flux scale.
    used : bool
        Whether the frame is in the coadd.
    weight : float
        Weight of a pixel in the coadd; 0 where the frame is not part of it.
    reason : str
        Why the frame was not used; '' for one that was.
    """

    aperture: StarAperture | None = None
    seeing: float = np.nan
    transparency: float = np.nan
    scatter: float = np.nan
    n_common: int = 0
    used: bool = False
    weight: float = 0.0
    reason: str = ""

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "FrameQuality":
        """Return the quality of a frame from its entry in the JSON file of a stack.

        These files are qa/stack/*.json.
        """
        aperture = None
        if "aperture" in entry:
            wings = Wings(*entry["wings"])
            core = CoreAperture(*entry["core"]) if "core" in entry else None
            aperture = StarAperture(entry["aperture"], entry["fraction"], wings, core)
        return cls(
            aperture=aperture, seeing=_number(entry.get("seeing")),
            transparency=_number(entry.get("transparency")), scatter=_number(entry.get("scatter")),
            n_common=int(entry.get("common") or 0),
            used=bool(entry.get("used", False)), weight=float(entry.get("weight") or 0.0),
            reason=str(entry.get("reason") or ""),
        )  # fmt: skip


@dataclass(frozen=True)
class StackedFrames:
    """A coadd, its sources and its frames.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the coadd.
    positions : ndarray, shape (n, 2)
        ra, dec of the sources of the coadd [deg].
    fluxes : ndarray, shape (n,)
        Their total fluxes, in units of the coadd.
    exptime : float
        Exposure time to which the coadd is scaled [s]; NaN where unknown.
    frames : dict of FrameQuality
        Quality of each frame, by its name.
    paths : sequence of path-like
        Paths of the solved, sky-subtracted frames.
    name : str
        Name of the stack.
    comparison : tuple of ndarray
        Positions, shape (k, 2) [deg], and S/N, shape (k,), of stars suitable for comparison.
    """

    header: fits.Header
    positions: np.ndarray
    fluxes: np.ndarray
    exptime: float
    frames: dict[str, FrameQuality] = field(default_factory=dict)
    paths: Sequence[str | Path] = ()
    name: str = ""
    comparison: tuple[np.ndarray, np.ndarray] = (np.empty((0, 2)), np.empty(0))

    @property
    def follows(self) -> str:
        """Name of the moving object that it follows; empty for an ordinary stack."""
        return str(self.header.get("MOVNAME", ""))

    @property
    def filter(self) -> str:
        """Name of the filter; '' where the coadd does not state it."""
        return str(self.header.get("FILTER", ""))

    @property
    def zeropoint(self) -> float:
        """Magnitude of one electron per second at the transparency of the best frame."""
        zeropoint = self.header.get("ABSZPT", np.nan)
        return np.nan if zeropoint is None else zeropoint - 2.5 * np.log10(self.exptime)

    @property
    def zeropoint_error(self) -> float:
        """Error of the zero point [mag]."""
        return _number(self.header.get("ABSZPERR"))


def _number(value: Any) -> float:
    """Return a number from a JSON file or a header; NaN for a missing one."""
    return float(value) if isinstance(value, int | float) else np.nan


def read_sources(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions and total fluxes of the sources of a coadd with S/N > 5.

    Parameters
    ----------
    path : path-like
        File coadd….cat.fits; it has no table where the stack was rejected.

    Returns
    -------
    positions : ndarray, shape (n, 2)
        ra, dec [deg].
    fluxes : ndarray, shape (n,)
        Total fluxes of point sources, in units of the coadd; of saturated stars whose flux is not
        known, what their plateaus hold.
    """
    sources = _sources(path)
    if sources is None:
        return np.empty((0, 2)), np.empty(0)
    flux, error = (
        np.where(
            np.isfinite(sources["FLUX_POINT"]), sources[f"{name}_POINT"], sources[f"{name}_AUTO"]
        )
        for name in ("FLUX", "FLUXERR")
    )
    sure = flux > 5 * error
    return np.column_stack([sources["RA"], sources["DEC"]])[sure], flux[sure].astype(float)


def read_comparison(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Return positions [deg] and S/N of the stars of a coadd suitable for comparison.

    These are point sources of S/N > 20, unsaturated, away from the edge, with no bad pixel;
    isolated ones where there are at least five.

    Parameters
    ----------
    path : path-like
        File coadd….cat.fits.

    Returns
    -------
    positions : ndarray, shape (n, 2)
        ra, dec [deg].
    snr : ndarray, shape (n,)
        Signal-to-noise ratios.
    """
    sources = _sources(path)
    if sources is None:
        return np.empty((0, 2)), np.empty(0)
    flags = sources["FLAGS"]
    bad = FLAG_SATURATED | FLAG_WEIGHT | FLAG_OUTSIDE | FLAG_TRUNCATED
    # S/N from sky and photon noise: confusion is the same in all frames.
    snr = np.where(sources["FLUXERR_POINT"] > 0, sources["FLUX_POINT"], 0) / np.where(
        sources["FLUXERR_POINT"] > 0, sources["FLUXERR_POINT"], 1
    )
    good = ((flags & bad) == 0) & (snr > COMPARISON_SNR) & sources["STAR"].astype(bool)
    isolated = good & ((flags & FLAG_NEIGHBOUR) == 0)
    chosen = isolated if isolated.sum() >= MIN_ISOLATED else good
    positions = np.column_stack([sources["RA"][chosen], sources["DEC"][chosen]])
    return positions, sources["FLUX_POINT"][chosen].astype(float)


def _sources(path: str | Path) -> np.ndarray | None:
    try:
        return read_table(path, "SOURCES")
    except KeyError:
        return None


def match_source(
    stacks: Sequence[StackedFrames], position: tuple[float, float], radius: float
) -> tuple[tuple[float, float] | None, float]:
    """Return the source nearest to a position, and its distance [arcsec].

    Parameters
    ----------
    stacks : list of StackedFrames
        The coadds searched.
    position : tuple of float
        ra, dec [deg].
    radius : float
        Maximum distance [arcsec].

    Returns
    -------
    found : tuple of float or None
        ra, dec [deg] in the coadd in which the source is brightest, an average over its frames;
        None where no source is within `radius`.
    distance : float
        Distance [arcsec]; NaN where there is none.
    """
    best: tuple[float, tuple[float, float], float] | None = None
    for stack in stacks:
        if not len(stack.positions) or not np.isfinite(position[0]):
            continue
        ra, dec = stack.positions.T
        distance = np.hypot(*project(ra, dec, *position).T)
        distance = np.where(np.isfinite(distance), distance, np.inf)
        near = int(np.argmin(distance))
        rate = float(stack.fluxes[near] / stack.exptime) if stack.exptime > 0 else 0.0
        if distance[near] < radius and (best is None or rate > best[0]):
            best = (rate, (float(ra[near]), float(dec[near])), float(distance[near]))
    return (None, np.nan) if best is None else (best[1], best[2])


@dataclass
class MeasuredFrame:
    """A frame with the fluxes at all positions.

    Parameters
    ----------
    name, filter, date_obs : str
        Name, filter, and start of the exposure (ISO 8601).
    stack : int
        Index of the stack with the best measures of the frame.
    mjd : float
        Middle of the exposure, UTC.
    exptime, airmass, sky : float
        Exposure time [s], airmass, and sky level [electron per pixel].
    quality : FrameQuality
        Its quality in that stack.
    radius : float
        Radius of the aperture [arcsec].
    reason : str
        Why it was not measured, or not used in the stack.
    fluxes : FrameFluxes, optional
        Fluxes at the positions, followed by those of the comparison stars.
    zeropoint, zeropoint_error : float
        Magnitude of one electron per second on the scale of the ensemble, and its error.
    offset, offset_error : float
        Offset from that scale to calibrated magnitudes, and its error.
    n_comparison : int
        Number of comparison stars.
    excess : float
        Scatter of the comparison stars of the band beyond their errors [mag].
    sky_share : float
        Share of the variance by the sky that differs from frame to frame.
    flat_error : float
        Relative error of the flat field, which applies to an object anywhere on the detector.
    centroids : ndarray, shape (n, 2)
        ra, dec [deg] of the detected objects; NaN for the others.
    tie_error : float
        Error of the frame's position on the sky, per axis [arcsec]; NaN where not known.
    without : ndarray, shape (n, 2), optional
        What to add to `zeropoint` for each position so that it is not compared with itself, and
        the error of the zero point then.
    """

    name: str
    filter: str
    stack: int
    mjd: float
    date_obs: str
    exptime: float
    airmass: float
    sky: float
    quality: FrameQuality
    radius: float
    reason: str
    fluxes: FrameFluxes | None = None
    zeropoint: float = np.nan
    zeropoint_error: float = np.nan
    offset: float = np.nan
    offset_error: float = np.nan
    n_comparison: int = 0
    excess: float = 0.0
    sky_share: float = 1.0
    flat_error: float = 0.0
    centroids: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    tie_error: float = np.nan
    without: np.ndarray | None = None

    def zeropoint_of(self, index: int) -> tuple[float, float]:
        """Return the zero point for a position, and its error: by the other stars."""
        if self.without is None:
            return self.zeropoint, self.zeropoint_error
        shift, error = self.without[index]
        return self.zeropoint + float(shift), float(error)


def choose_frames(stacks: Sequence[StackedFrames]) -> list[tuple[int, Path]]:
    """Return each frame once, with the index of the stack that has the best measures of it.

    A frame may be in several stacks of a band, for instance of its night and of all nights.
    """
    best: dict[tuple[str, str], tuple[tuple[bool, bool, int], int, Path]] = {}
    for number, stack in enumerate(stacks):
        for path in map(Path, stack.paths):
            quality = stack.frames.get(_frame_name(path, stack), FrameQuality())
            known = quality.aperture is not None and np.isfinite(quality.transparency)
            rank = (known, quality.used, len(stack.paths))
            key = (str(path), stack.filter)
            if key not in best or rank > best[key][0]:
                best[key] = (rank, number, path)
    return [(number, path) for _, number, path in best.values()]


def _frame_name(path: Path, stack: StackedFrames) -> str:
    """Return the name of a frame in a stack: the file name without the prefix of the steps."""
    stem = path.stem
    return next((name for name in stack.frames if stem.endswith(name)), stem)


def measure_frames(
    stacks: Sequence[StackedFrames], positions: Sequence[Position], most_comparison: int
) -> list[MeasuredFrame]:
    """Measure all positions, and comparison stars, in all frames of several stacks.

    Parameters
    ----------
    stacks : list of StackedFrames
        Stacks of any filters and nights.
    positions : list of Position
        The positions to measure.
    most_comparison : int
        Maximum number of comparison stars of a band.

    Returns
    -------
    list of MeasuredFrame
        Ordered by time, on a common scale in each filter.
    """
    measured: list[MeasuredFrame] = []
    chosen = choose_frames(stacks)
    for name in dict.fromkeys(stack.filter for stack in stacks):
        members = [stack for stack in stacks if stack.filter == name]
        seeing = [_number(stack.header.get("SEEING")) for stack in members]
        radius = max([value for value in seeing if np.isfinite(value)], default=2.0)
        now = [one.at(_middle(members)) for one in positions]
        avoid = np.array([[ra[0], dec[0]] for ra, dec in now]).reshape(-1, 2)
        sky = comparison_stars(
            [stack.comparison for stack in members], avoid[:1], radius, most_comparison, avoid[1:]
        )
        band = [
            measure_one(stacks[number], number, path, positions, sky)
            for number, path in chosen
            if stacks[number].filter == name
        ]
        put_on_one_scale(band, stacks, len(positions), same_star(avoid, sky, radius))
        measured += band
    return sorted(measured, key=lambda one: (one.mjd, one.filter, one.name))


def same_star(positions: np.ndarray, comparison: np.ndarray, radius: float) -> np.ndarray:
    """Return which comparison star each position is, -1 for none.

    Parameters
    ----------
    positions, comparison : ndarray, shape (n, 2), (k, 2)
        ra, dec [deg].
    radius : float
        [arcsec].

    Returns
    -------
    ndarray of int, shape (n,)
    """
    found = np.full(len(positions), -1)
    if not len(comparison):
        return found
    for k, (ra, dec) in enumerate(positions):
        if np.isfinite(ra):
            away = np.hypot(*project(comparison[:, 0], comparison[:, 1], ra, dec).T)
            nearest = int(np.nanargmin(np.where(np.isfinite(away), away, np.inf)))
            found[k] = nearest if away[nearest] < radius else -1
    return found


def _middle(stacks: Sequence[StackedFrames]) -> float:
    """Return the mean epoch of the frames of stacks (MJD), approximately."""
    times = [_number(stack.header.get("MJD-OBS")) for stack in stacks]
    known = [time for time in times if np.isfinite(time)]
    return float(np.mean(known)) if known else np.nan


def measure_one(
    stack: StackedFrames, number: int, path: Path, positions: Sequence[Position],
    comparison: np.ndarray,
) -> MeasuredFrame:  # fmt: skip
    """Measure positions and comparison stars in one frame.

    Parameters
    ----------
    stack : StackedFrames
        The stack with the best measures of the frame.
    number : int
        Index of that stack.
    path : path-like
        Path of the frame.
    positions : list of Position
        The positions to measure.
    comparison : ndarray, shape (k, 2)
        ra, dec of the comparison stars [deg].
    """
    frame = read_frame(path)
    header = frame.header
    name = str(header.get("FRAME", Path(path).stem))
    quality = stack.frames.get(name, FrameQuality())
    exposure = _number(header.get("EXPTIME"))
    airmass = _number(header.get("AIRMASS"))
    result = MeasuredFrame(
        name=name, filter=stack.filter or str(header.get("FILTER", "")), stack=number,
        mjd=_number(header.get("MJD-OBS")) + 0.5 * exposure / 86400,
        date_obs=str(header.get("DATE-OBS", "")), exptime=exposure,
        airmass=airmass if 1 <= airmass <= 10 else np.nan,
        sky=_number(header.get("SKYCTS", header.get("SKYSUB"))),
        quality=quality, radius=np.nan, reason=quality.reason or str(frame.reason or ""),
        flat_error=float(header.get("FLATERR", 0.0)),
    )  # fmt: skip
    ready = not frame.rejected and frame.image is not None and exposure > 0
    scale = exposure * quality.transparency
    if quality.aperture is None or not (ready and np.isfinite(scale) and scale > 0):
        result.reason = result.reason or "the frame could not be measured"
        return result
    wcs = celestial_wcs(header)
    result.radius = quality.aperture.radius * pixel_scale(wcs)
    places = [one.at(result.mjd) for one in positions]
    sky = np.array([[ra[0], dec[0]] for ra, dec in places]).reshape(-1, 2)
    trails = np.zeros((len(sky) + len(comparison), 2))
    for k, one in enumerate(positions):
        trails[k] = np.array(one.motion(result.mjd)) * exposure / 3600
    fwhm = quality.seeing / pixel_scale(wcs)
    stars = np.arange(len(positions), len(trails))
    result.fluxes = measure_frame(
        frame, np.concatenate([sky, comparison]), stack.positions,
        stack.fluxes * scale / stack.exptime, quality.aperture, wcs, trails,
        (stars, fwhm) if fwhm > 0 else None,
        np.array([*(one.moving for one in positions), *np.zeros(len(comparison), bool)]),
    )  # fmt: skip
    centroid = result.fluxes.centroid[: len(positions)]
    result.centroids = np.full(centroid.shape, np.nan)
    known = np.isfinite(centroid).all(axis=1)
    if known.any():
        result.centroids[known] = np.column_stack(wcs.all_pix2world(*centroid[known].T, 0))
    rms = np.hypot(_number(header.get("ASTRMS1")), _number(header.get("ASTRMS2"))) / np.sqrt(2)
    result.tie_error = rms / 1000 / np.sqrt(max(_number(header.get("ASTRNST", 1)), 1.0))
    return result


def put_on_one_scale(
    frames: Sequence[MeasuredFrame], stacks: Sequence[StackedFrames], n_positions: int,
    twins: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Determine the zero points of the frames of a band, in place.

    Parameters
    ----------
    frames : list of MeasuredFrame
        Frames of one band, measured.
    stacks : list of StackedFrames
        The stacks that `MeasuredFrame.stack` refers to.
    n_positions : int
        Number of positions; the fluxes after these are those of the comparison stars.
    twins : ndarray of int, shape (n_positions,), optional
        Index of the comparison star at each position, -1 for none.
    """
    ready = [one for one in frames if one.fluxes is not None]
    if not ready:
        return
    told = np.array([2.5 * np.log10(one.quality.transparency) for one in ready])
    magnitude, parts = _instrumental(ready, n_positions)
    error = parts.total()
    solved = solve_ensemble(magnitude, error)
    shares = varying_shares(magnitude, parts, solved)
    if min(shares) < 1:
        error = parts.total(*shares)
        solved = solve_ensemble(magnitude, error)
    zeropoint, zeropoint_error = solved.zeropoint, solved.error
    group = solved.group
    lost = ~np.isfinite(zeropoint)
    if lost.any():
        # Without comparison stars the flux scale of the stack is used.
        for i in np.flatnonzero(lost).tolist():
            same = [
                zeropoint[j] - told[j] for j in range(len(ready))
                if ready[j].stack == ready[i].stack and np.isfinite(solved.zeropoint[j])
            ]  # fmt: skip
            zeropoint[i] = told[i] + (np.median(same) if same else 0.0)
            common = max(ready[i].quality.n_common, 1)
            zeropoint_error[i] = ready[i].quality.scatter / np.sqrt(common)
            mates = [j for j in range(len(ready)) if ready[j].stack == ready[i].stack]
            group[i] = next((group[j] for j in mates if not lost[j]), -1 - ready[i].stack)
    absolute = np.array([stacks[one.stack].zeropoint for one in ready]) + told
    sigma = np.array([stacks[one.stack].zeropoint_error for one in ready])
    names = [str(one.stack) for one in ready]
    offset, offset_error = tie_groups(solved, absolute, sigma, names)
    for i, one in enumerate(ready):
        one.zeropoint, one.zeropoint_error = float(zeropoint[i]), float(zeropoint_error[i])
        one.offset, one.offset_error = float(offset[i]), float(offset_error[i])
        one.n_comparison = int(np.isfinite(magnitude[i][solved.used]).sum())
        one.excess = solved.excess
        one.sky_share = shares[0]
        if lost[i]:
            one.reason = one.reason or "no comparison star: scale of the stack"
        elif twins is not None and (twins >= 0).any():
            shift, own_error = solved.without_star(i, magnitude[i], error[i])
            one.without = np.array([
                (shift[j], own_error[j]) if j >= 0 and np.isfinite(shift[j])
                else (0.0, one.zeropoint_error)
                for j in twins
            ])  # fmt: skip


def _instrumental(
    frames: Sequence[MeasuredFrame], n_positions: int
) -> tuple[np.ndarray, ErrorParts]:
    """Return instrumental magnitudes of comparison stars for 1 s, and errors; NaN where flagged."""
    bad = FLAG_SATURATED | FLAG_OUTSIDE | FLAG_WEIGHT
    magnitudes, errors = [], []
    for one in frames:
        assert one.fluxes is not None
        flux, error = one.fluxes.flux[n_positions:], one.fluxes.error[n_positions:]
        good = (flux > 5 * error) & ((one.fluxes.flags[n_positions:] & bad) == 0)
        flux = np.where(good, flux, np.nan)
        magnitudes.append(-2.5 * np.log10(flux / one.exptime))
        errors.append([POISSON * part[n_positions:] / flux for part in one.fluxes.error_parts()])
    return np.array(magnitudes), ErrorParts(*np.moveaxis(np.array(errors), 1, 0))
