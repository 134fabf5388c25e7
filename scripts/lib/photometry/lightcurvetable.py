"""The table of a light curve: one row for each frame, bin of frames, and stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table

from lib.core.sphere import project
from lib.core.times import barycentric_dates
from lib.night.positions import Position
from lib.photometry.flags import FLAG_OUTSIDE, FLAG_SATURATED
from lib.photometry.forced import LIMIT_SIGMA, magnitudes
from lib.photometry.lightcurve import POISSON, MeasuredFrame
from lib.photometry.trailing import CENTROID_FACTOR, trailed_sigma

KINDS = ("frame", "bin", "stack", "difference")
"""Values of column KIND."""

COLUMNS = {
    "NAME": (str, None, "name of the position"),
    "KIND": (str, None, "frame, bin (of neighbouring frames), stack or difference"),
    "FRAME": (str, None, "name of the frame, the stack, or the first frame of the bin"),
    "FILTER": (str, None, "filter"),
    "MJD": (float, "d", "middle of the exposure, UTC; of several their weighted mean"),
    "BJD_TDB": (float, "d", "the same at the barycentre of the solar system, in TDB"),
    "DATE-OBS": (str, None, "start of the (first) exposure, UTC"),
    "EXPTIME": (float, "s", "exposure time, of several their sum"),
    "NFRAMES": (int, None, "number of frames"),
    "AIRMASS": (float, None, "airmass"),
    "SEEING": (float, "arcsec", "FWHM of stars"),
    "SKY": (float, "electron", "sky that was subtracted, per pixel"),
    "X": (float, "pixel", "column in the frame, from 1"),
    "Y": (float, "pixel", "row in the frame, from 1"),
    "RA": (float, "deg", "where it was measured, ICRS"),
    "DEC": (float, "deg", "the same"),
    "RACEN": (float, "deg", "centroid of what is seen there, S/N of 5 or more"),
    "DECCEN": (float, "deg", "the same"),
    "CENERR": (float, "arcsec", "error of the centroid per axis, with that of the frame"),
    "OCEAST": (float, "arcsec", "centroid less the position given or computed (O-C), to the east"),
    "OCNORTH": (float, "arcsec", "the same to the north"),
    "TRANSPARENCY": (float, None, "relative to the best frame"),
    "APRADIUS": (float, "arcsec", "radius of the aperture, corrected to total flux"),
    "FLUX": (float, "electron / s", "total flux, at the transparency of the best frame"),
    "FLUXERR": (
        float,
        "electron / s",
        "its error, with that of the flat and the scatter of comparison stars",
    ),
    "NEIGHERR": (
        float,
        "electron / s",
        "part of FLUXERR by the light of neighbours, known or too faint to be seen: alike in frames"
        " of one seeing",
    ),
    "SNR": (float, None, "FLUX over FLUXERR"),
    "DETECTED": (bool, None, f"whether SNR is {LIMIT_SIGMA:g} or more"),
    "MAG": (float, "mag", "magnitude, where detected"),
    "MAGERR": (float, "mag", "its error, without ZPERR and the error common to all"),
    "LIMIT": (float, "mag", f"{LIMIT_SIGMA:g} sigma upper limit, where not detected"),
    "FLUX_PSF": (float, "electron / s", "as FLUX, by a fit of the point-spread function"),
    "FLUXERR_PSF": (float, "electron / s", "its error"),
    "MAG_PSF": (float, "mag", "its magnitude, where its S/N is as of DETECTED"),
    "MAGERR_PSF": (float, "mag", "its error, as MAGERR"),
    "ZPSYS": (str, None, "system of MAG and LIMIT"),
    "ZPERR": (float, "mag", "error of the scale relative to the other frames, not in MAGERR"),
    "NCOMP": (int, None, "comparison stars that tell the scale"),
    "FLAGS": (
        int,
        None,
        "32 repaired, 256 saturated, 512 neighbour, 1024 masked, 2048 no data, 8192 trailed",
    ),
    "USED": (bool, None, "whether the frame is in a coadd"),
    "REASON": (str, None, "why not, or why it was not measured"),
}


@dataclass(frozen=True)
class StackFlux:
    """The flux at a position in a coadd.

    Parameters
    ----------
    name, filter : str
        Name and filter of the stack.
    members : tuple of str
        Names of its frames.
    rate, error : float
        Count rate at the flux scale of the coadd, and its error [electron/s].
    flags : int
        Flags of `lib.photometry.flags`.
    zeropoint : float
        Magnitude of one electron per second, on the scale of the ensemble.
    radius : float
        Radius of the aperture [arcsec].
    x, y : float
        Position on the coadd, 0-based [pixel].
    mjd : float
        Time for which the coadd stands, of one that follows a moving object; NaN of others.
    offset : tuple of float
        Measured offset from the ephemeris in east and north [arcsec].
    offset_error : float
        Per axis [arcsec].
    psf_rate, psf_error : float
        As `rate`, from a fit of the point-spread function; NaN without a model of it.
    kind : {'stack', 'difference'}
    """

    name: str
    filter: str
    members: tuple[str, ...]
    rate: float
    error: float
    flags: int
    zeropoint: float
    radius: float
    x: float
    y: float
    mjd: float = np.nan
    offset: tuple[float, float] = (np.nan, np.nan)
    offset_error: float = np.nan
    psf_rate: float = np.nan
    psf_error: float = np.nan
    kind: str = "stack"


@dataclass(frozen=True)
class BinRule:
    """How frames are combined into bins.

    Parameters
    ----------
    snr : float
        Target signal-to-noise ratio of a bin; 0 for no bins.
    gap : float
        Maximum time between neighbouring frames of a bin [d].
    """

    snr: float
    gap: float


def light_curve_table(
    frames: Sequence[MeasuredFrame], index: int, position: Position, rule: BinRule,
    stacks: Sequence[StackFlux] = (), site: Sequence[float] | None = None,
    systems: Mapping[str, str] | None = None,
) -> Table:  # fmt: skip
    """Return the light curve of one position.

    Parameters
    ----------
    frames : list of MeasuredFrame
        The frames, ordered by time.
    index : int
        Index of the position among the fluxes of the frames.
    position : Position
        Name and coordinates of the position.
    rule : BinRule
        How frames are combined into bins.
    stacks : list of StackFlux
        Fluxes at the position in the coadds.
    site : sequence of float, optional
        Site of the telescope, as for `lib.core.times.barycentric_dates`.
    systems : dict of str to str, optional
        Magnitude system of each filter.

    Returns
    -------
    astropy.table.Table
        The frames, then the bins, then the stacks, each ordered by time; columns as in `COLUMNS`.
    """
    best = _best_zeropoints(frames)
    rows = [_frame_row(one, index, position, best.get(one.filter, np.nan)) for one in frames]
    bins = []
    if rule.snr > 0:
        for name in dict.fromkeys(one.filter for one in frames):
            bins += bin_rows([row for row in rows if row["FILTER"] == name], rule)
    whole = [_stack_row(one, rows, best.get(one.filter, np.nan), position) for one in stacks]
    everything = [*rows, *sorted(bins, key=_by_time), *sorted(whole, key=_by_time)]
    offsets = {one.filter: one.offset for one in frames if np.isfinite(one.offset)}
    groups = {one.name: one.offset for one in frames}
    for row in everything:
        offset = groups.get(row["FRAME"], np.nan)
        if not np.isfinite(offset):
            offset = offsets.get(row["FILTER"], np.nan)
        _add_magnitude(row, best.get(row["FILTER"], np.nan) + offset)
        row["NAME"] = position.name
        row["ZPSYS"] = (systems or {}).get(row["FILTER"], "")
    return _table(everything, position, site)


def _by_time(row: dict[str, Any]) -> tuple[float, str]:
    return row["MJD"], row["FILTER"]


def _best_zeropoints(frames: Sequence[MeasuredFrame]) -> dict[str, float]:
    """Return the zero point of the best frame of each filter, to which the fluxes refer.

    The stacks state the transparency of their best frame; the highest counts, so that a single
    frame with a bad scale does not.
    """
    found: dict[str, dict[int, list[float]]] = {}
    for one in frames:
        if np.isfinite(one.zeropoint):
            value = one.zeropoint - 2.5 * np.log10(one.quality.transparency)
            found.setdefault(one.filter, {}).setdefault(one.stack, []).append(value)
    return {
        name: max(float(np.median(values)) for values in stacks.values())
        for name, stacks in found.items()
    }


def _frame_row(one: MeasuredFrame, index: int, position: Position, best: float) -> dict[str, Any]:
    """Return the row of one frame, without its magnitudes."""
    row: dict[str, Any] = {
        "KIND": "frame", "FRAME": one.name, "FILTER": one.filter, "MJD": one.mjd,
        "DATE-OBS": one.date_obs, "EXPTIME": one.exptime, "NFRAMES": 1, "AIRMASS": one.airmass,
        "SEEING": one.quality.seeing, "SKY": one.sky, "X": np.nan, "Y": np.nan,
        "TRANSPARENCY": one.quality.transparency, "APRADIUS": one.radius, "FLUX": np.nan,
        "FLUXERR": np.nan, "NEIGHERR": np.nan, "ZPERR": one.zeropoint_error,
        "NCOMP": one.n_comparison, "FLAGS": FLAG_OUTSIDE, "USED": one.quality.used,
        "REASON": one.reason, "WEIGHT": 0.0,
        "SIGMA": np.nan, "RACEN": np.nan, "DECCEN": np.nan, "CENERR": np.nan,
        "FLUX_PSF": np.nan, "FLUXERR_PSF": np.nan,
    }  # fmt: skip
    if one.fluxes is None:
        return row
    # Electrons of the frame for one electron per second at the best transparency.
    zeropoint, row["ZPERR"] = one.zeropoint_of(index)
    relative = 10 ** (0.4 * (zeropoint - best))
    scale = one.exptime * relative
    flux = one.fluxes.flux[index] / scale
    relative_error = np.hypot(one.excess / POISSON, one.flat_error)
    error = np.hypot(one.fluxes.error[index] / scale, relative_error * abs(flux))
    _, sky, beside = (values[index] for values in one.fluxes.error_parts())
    row |= {
        "X": one.fluxes.x[index] + 1, "Y": one.fluxes.y[index] + 1, "TRANSPARENCY": relative,
        "FLUX": flux, "FLUXERR": error, "FLAGS": int(one.fluxes.flags[index]),
        "SIGMA": one.fluxes.sky_error[index] / scale,
        "NEIGHERR": np.sqrt((1 - one.sky_share) * sky**2 + beside**2) / scale,
    }  # fmt: skip
    if len(one.fluxes.psf_flux):
        by_fit = one.fluxes.psf_flux[index] / scale
        own = one.fluxes.psf_error[index] / scale
        row |= {"FLUX_PSF": by_fit, "FLUXERR_PSF": np.hypot(own, relative_error * abs(by_fit))}
    if len(one.centroids) and flux > 0:
        length = np.hypot(*position.motion(one.mjd)) * one.exptime / 3600
        width = trailed_sigma(one.quality.seeing / 2.355, length)
        own = CENTROID_FACTOR * width * error / flux
        row["RACEN"], row["DECCEN"] = one.centroids[index]
        row["CENERR"] = float(np.hypot(own, np.nan_to_num(one.tie_error)))
    if not np.isfinite(flux) and not row["REASON"]:
        known = np.isfinite(position.at(one.mjd)[0][0])
        row["REASON"] = "not on the frame" if known else "no position at this time"
    return row


def bin_rows(rows: Sequence[dict[str, Any]], rule: BinRule) -> list[dict[str, Any]]:
    """Combine neighbouring frames of one filter into bins of the required signal-to-noise ratio.

    A series is halved as long as its halves are expected to reach that ratio, from the flux of the
    whole. Adding frames until a bin reaches it would stop where noise had made a frame bright, and
    so bias the fluxes of faint objects high.

    Parameters
    ----------
    rows : list of dict
        Rows of the frames of one filter, ordered by time.
    rule : BinRule
        Target signal-to-noise ratio and maximum gap.

    Returns
    -------
    list of dict
        One row for each bin.
    """
    good = [
        row for row in rows
        if np.isfinite(row["FLUX"]) and row["SIGMA"] > 0
        and not row["FLAGS"] & (FLAG_OUTSIDE | FLAG_SATURATED)
    ]  # fmt: skip
    times = np.array([row["MJD"] for row in good])
    starts = np.flatnonzero(np.diff(times) > rule.gap) + 1
    found = []
    for part in np.split(np.arange(len(good)), starts):
        found += _halved([good[i] for i in part], rule.snr)
    return found


def _halved(rows: list[dict[str, Any]], snr: float) -> list[dict[str, Any]]:
    """Return the bins of a series without gaps."""
    if not rows:
        return []
    whole = _combined(rows)
    if len(rows) == 1 or not whole["FLUX"] > np.sqrt(2) * snr * whole["FLUXERR"]:
        return [whole]
    # Split at half of the weight, so that both are equally deep.
    weight = np.cumsum([row["SIGMA"] ** -2 for row in rows])
    middle = int(np.clip(np.searchsorted(weight, weight[-1] / 2) + 1, 1, len(rows) - 1))
    return _halved(rows[:middle], snr) + _halved(rows[middle:], snr)


def _combined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the weighted mean of frames.

    Weights are from the sky noise alone: including the photon noise of the object would correlate
    them with its flux and bias the mean low.
    """
    weight = np.array([row["SIGMA"] ** -2 for row in rows])
    weight /= weight.sum()

    def mean(key: str) -> float:
        values = np.array([row[key] for row in rows], float)
        known = np.isfinite(values)
        return float(np.average(values[known], weights=weight[known])) if known.any() else np.nan

    # The light of neighbours is wrong in all of them alike.
    beside = np.array([row["NEIGHERR"] for row in rows])
    error = np.array([row["FLUXERR"] for row in rows])
    own = np.sum(weight**2 * np.maximum(error**2 - beside**2, 0))
    common = float(np.sum(weight * beside))
    scale_error = np.array([row["ZPERR"] for row in rows])
    # Of all of them or of none: the time is that of all.
    by_fit = float(weight @ np.array([row["FLUX_PSF"] for row in rows]))
    fit_error = float(np.hypot.reduce(weight * np.array([row["FLUXERR_PSF"] for row in rows])))
    row = dict(rows[0])
    row |= {key: mean(key) for key in ("MJD", "AIRMASS", "SEEING", "SKY", "X", "Y", "TRANSPARENCY",
                                       "APRADIUS", "FLUX")}  # fmt: skip
    row |= {
        "KIND": "bin", "EXPTIME": float(sum(one["EXPTIME"] for one in rows)),
        "NFRAMES": len(rows), "FLUXERR": float(np.sqrt(own + common**2)), "NEIGHERR": common,
        "SIGMA": float(np.sqrt(np.sum((weight * [one["SIGMA"] for one in rows]) ** 2))),
        "FLUX_PSF": by_fit, "FLUXERR_PSF": fit_error,
        "ZPERR": float(np.sqrt(np.nansum((weight * scale_error) ** 2))),
        "NCOMP": min(one["NCOMP"] for one in rows),
        "FLAGS": int(np.bitwise_or.reduce([one["FLAGS"] for one in rows])),
        "USED": all(one["USED"] for one in rows), "REASON": "", "RACEN": np.nan,
        "DECCEN": np.nan, "CENERR": np.nan,
    }  # fmt: skip
    return row


def _stack_row(
    one: StackFlux, rows: Sequence[dict[str, Any]], best: float, position: Position
) -> dict[str, Any]:
    """Return the row of a stack, without its magnitudes."""
    members = [row for row in rows if row["FRAME"] in one.members and row["FILTER"] == one.filter]
    weight = np.array([row["SIGMA"] for row in members], float)
    weight = np.where(weight > 0, weight, np.inf) ** -2.0
    weight = weight if weight.sum() > 0 else np.ones(len(members))

    def mean(key: str) -> float:
        values = np.array([row[key] for row in members], float)
        known = np.isfinite(values)
        return float(np.average(values[known], weights=weight[known])) if known.any() else np.nan

    relative = 10 ** (0.4 * (one.zeropoint - best))
    scale_error = np.array([row["ZPERR"] for row in members], float)
    mjd = one.mjd if np.isfinite(one.mjd) else mean("MJD")
    seen = (np.nan, np.nan)
    if np.isfinite(one.offset).all():
        ra, dec = position.shifted(*one.offset).at(mjd)
        seen = float(ra[0]), float(dec[0])
    return {
        "KIND": one.kind, "FRAME": one.name, "FILTER": one.filter, "MJD": mjd,
        "DATE-OBS": min((row["DATE-OBS"] for row in members), default=""),
        "EXPTIME": float(sum(row["EXPTIME"] for row in members)), "NFRAMES": len(members),
        "AIRMASS": mean("AIRMASS"), "SEEING": mean("SEEING"), "SKY": mean("SKY"),
        "X": one.x + 1, "Y": one.y + 1, "TRANSPARENCY": relative, "APRADIUS": one.radius,
        "FLUX": one.rate / relative, "FLUXERR": one.error / relative, "NEIGHERR": np.nan,
        "FLUX_PSF": one.psf_rate / relative, "FLUXERR_PSF": one.psf_error / relative,
        "ZPERR": float(np.sqrt(np.nansum((weight / weight.sum() * scale_error) ** 2)))
        if len(members) else np.nan,
        "NCOMP": min((row["NCOMP"] for row in members), default=0), "FLAGS": one.flags,
        "USED": True, "REASON": "" if np.isfinite(one.rate) else "outside of the coadd",
        "RACEN": seen[0], "DECCEN": seen[1], "CENERR": one.offset_error,
    }  # fmt: skip


def _add_magnitude(row: dict[str, Any], zeropoint: float) -> None:
    """Add signal-to-noise ratio, magnitude and limit to a row."""
    flux, error = row["FLUX"], row["FLUXERR"]
    row["SNR"] = flux / error if error > 0 else np.nan
    row["DETECTED"] = bool(row["SNR"] >= LIMIT_SIGMA)
    magnitude, magnitude_error, limit = magnitudes(np.array([flux]), np.array([error]), zeropoint)
    row["MAG"], row["MAGERR"], row["LIMIT"] = magnitude[0], magnitude_error[0], limit[0]
    flux, error = np.array([[row["FLUX_PSF"]], [row["FLUXERR_PSF"]]])
    magnitude, magnitude_error, _ = magnitudes(flux, error, zeropoint)
    row["MAG_PSF"], row["MAGERR_PSF"] = magnitude[0], magnitude_error[0]


def _table(
    rows: Sequence[dict[str, Any]], position: Position, site: Sequence[float] | None
) -> Table:
    """Return rows as a table, with barycentric dates added."""
    mjd = np.array([row["MJD"] for row in rows], float)
    ra, dec = position.at(mjd)
    dates = barycentric_dates(mjd, ra, dec, site)
    east, north = _from_computed(rows, position, mjd)
    computed = {"BJD_TDB": dates, "RA": ra, "DEC": dec, "OCEAST": east, "OCNORTH": north}
    table = Table()
    for key, (kind, unit, what) in COLUMNS.items():
        values = computed[key] if key in computed else [row[key] for row in rows]
        table[key] = np.array(values, dtype=kind)
        table[key].unit, table[key].description = unit, what
    return table


def _from_computed(
    rows: Sequence[dict[str, Any]], position: Position, mjd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the centroids of rows less the position without its offset [arcsec]."""
    ra, dec = position.shifted(0, 0).at(mjd)
    seen = np.array([[row["RACEN"], row["DECCEN"]] for row in rows], float).reshape(-1, 2)
    found = [
        project([one[0]], [one[1]], *place)[0]
        for one, place in zip(seen, zip(ra, dec, strict=True), strict=True)
    ]
    east, north = np.array(found, float).reshape(-1, 2).T
    return east, north
