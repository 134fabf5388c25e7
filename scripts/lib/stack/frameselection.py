"""Selection of the frames of a stack: relative zero points, transparencies and weights."""

from dataclasses import dataclass, replace

import numpy as np
from astropy.io import fits

from lib.core.crossmatch import common_stars, match
from lib.core.settings import StackSettings
from lib.core.sphere import mean_position, project, separation
from lib.core.wcs import frame_outline
from lib.frame.file import FrameRejected, exposure_of
from lib.photometry.coaddzeropoint import Reference, reference_errors
from lib.photometry.zeropoint import ASSUMED_REFERENCE_ERROR, relative_zeropoints
from lib.stack.combination import combination_of
from lib.stack.stackframe import FrameScaling, FrameStars, FrameZeropoint, StackFrame
from lib.stack.weights import frame_variance

FRAME_ERROR_FLOOR = 0.01
"""[mag] Added in quadrature to the errors of stars in frames, for flat-field errors."""

REFERENCE_ERROR_FLOOR = 0.05
"""[mag] The same for the reference, whose colour terms are unknown here."""

CHIP_ERROR = 0.005
"""[mag] Error of the relative sensitivities of chips from their flats, the same as assumed for a
single flat."""

MOST_APART = 0.03
"""[mag] If flats and stars disagree by more about the sensitivities of chips, the chips were not
illuminated alike."""

ALIKE, MOST_ELONGATED = 0.15, 0.7
"""Maximum difference in ellipticity from the roundest frame for frames to count as equally
elongated, up to a maximum ellipticity: longer trails cannot be measured as stars."""

DEEPER = 0.03
"""[mag] Least gain in depth for which frames of bad seeing are left out."""

LEAST_SHARP = 3
"""Frames that stay whatever their seeing: fewer do not tell what is an outlier."""

TRUSTED_STARS = 5
"""Minimum number of common stars of a frame that can be the best one, to which transparencies
refer."""


def select_frames(
    frames: list[StackFrame], reference: Reference | None, band: str, settings: StackSettings
) -> list[StackFrame]:
    """Select and scale the frames of a stack; the others are marked as left out.

    Parameters
    ----------
    frames : list of StackFrame
        Measured frames.
    reference : mapping of str to ndarray, or None
        Photometric reference.
    band : str
        Band of the reference.
    settings : StackSettings
        Settings of the step.

    Returns
    -------
    list of StackFrame
        The frames to stack, with zero point and scaling.
    """
    leave_out_trailed([frame for frame in frames if frame.used], settings.max_ellipticity)
    candidates = [frame for frame in frames if frame.used]
    if not candidates:
        return []
    _leave_out_distant(candidates, settings.max_offset)
    candidates = [frame for frame in candidates if frame.used]
    _share_aperture_corrections(candidates)
    stars = [frame.measurement.stars for frame in candidates]
    zeropoints = frame_zeropoints(stars, reference, band, settings.match_radius)
    chips = chip_levels([frame.header for frame in candidates])
    if chips.size:
        apart = levels_against_stars(zeropoints, chips)
        if apart < MOST_APART:
            zeropoints = frame_zeropoints(stars, reference, band, settings.match_radius, chips)
        else:
            for frame in candidates:
                frame.header["CHIPDIFF"] = (apart, "[mag] chips: their flats against stars")
    transparency, reasons = judge_frames(zeropoints, settings)
    for i, frame in enumerate(candidates):
        frame.zeropoint = FrameZeropoint(
            float(zeropoints.value[i]), zeropoints.absolute, float(zeropoints.scatter[i]),
            int(zeropoints.common[i]), float(transparency[i]),
        )  # fmt: skip
        why = reasons[i]
        if why is not None:
            frame.leave_out(why)
    frames = _scale_frames([frame for frame in candidates if frame.used], settings)
    if settings.max_seeing == "auto" and leave_out_blurred(frames):
        frames = _scale_frames([frame for frame in frames if frame.used], settings)
    return frames


def leave_out_trailed(frames: list[StackFrame], bound: float) -> None:
    """Leave out frames whose stars have an ellipticity above `bound`.

    If all frames are alike, because of the optics or the mount, they are kept: they match each
    other.
    """
    found = [frame.measurement.ellipticity for frame in frames]
    alike = min(found, default=0.0) + ALIKE if len(found) > 1 else 0.0
    for frame, ellipticity in zip(frames, found, strict=True):
        if ellipticity > bound and not ellipticity < min(alike, MOST_ELONGATED):
            frame.leave_out(FrameRejected("TRAILED", f"ellipticity {ellipticity:.2f} > {bound:g}"))


def depths_by_seeing(seeing: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the S/N of a point source in the mean of the frames up to each one.

    A star of the mean has the mean profile of the frames. For a profile P known, fitted to a mean
    of weight W, the squared S/N is W times the integral of P^2; the profiles of the frames are
    taken for Gaussians.

    Parameters
    ----------
    seeing, weight : ndarray, shape (n,)
        FWHM of the frames, and their weights: inverse variances of a pixel at a common scale of
        flux.

    Returns
    -------
    ndarray, shape (n,)
        In units of their own; `lib.stack.weights` says how pixels are weighted.
    """
    # The integral of the product of two Gaussians of widths s, t is 1 / (2 pi (s^2 + t^2)).
    overlap = np.outer(weight, weight) / np.add.outer(seeing**2, seeing**2)
    both = np.cumsum(np.cumsum(overlap, axis=0), axis=1).diagonal()
    return np.sqrt(both / np.cumsum(weight))


def leave_out_blurred(frames: list[StackFrame]) -> bool:
    """Leave out the frames of worst seeing where point sources are deeper without; tell whether.

    Frames that show sky that fewer than `LEAST_SHARP` sharper ones do stay.
    """
    ranked = sorted(frames, key=lambda frame: frame.measurement.seeing)
    if len(ranked) <= LEAST_SHARP:
        return False
    seeing = np.array([frame.measurement.seeing for frame in ranked])
    weight = np.array([frame.weighting.weight for frame in ranked])
    depth = depths_by_seeing(seeing, weight)
    best = LEAST_SHARP - 1 + int(np.argmax(depth[LEAST_SHARP - 1 :]))
    gain = 2.5 * np.log10(depth[best] / depth[-1])
    if gain < DEEPER:
        return False
    outlines, centres = _outlines(ranked)
    diagonal = np.array([separation(*one.T, *one[0]).max() for one in outlines])
    apart = np.array([separation(*centres[: best + 1].T, *one) for one in centres])
    # A shift of less than a third of a side.
    shown = (apart < diagonal[:, None] / 5).sum(axis=1) >= LEAST_SHARP
    for frame, covered in list(zip(ranked, shown, strict=True))[best + 1 :]:
        if covered:
            numbers = f"{frame.measurement.seeing:.2f} arcsec, {gain:.2f} mag deeper without"
            frame.leave_out(FrameRejected("BAD_SEEING", numbers))
    return any(not frame.used for frame in ranked)


def _outlines(frames: list[StackFrame]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return positions along the edges of frames, and their centres, shape (n, 2) [deg]."""
    outlines = [frame_outline(frame.measurement.wcs) for frame in frames]
    return outlines, np.array([mean_position(*outline.T) for outline in outlines])


def _leave_out_distant(frames: list[StackFrame], max_offset: float) -> None:
    """Leave out frames whose centre is more than `max_offset` [deg] from the others."""
    _, centres = _outlines(frames)
    # From the most central frame, not from the mean, which a single stray frame would shift.
    distances = np.array([separation(*centres.T, *centre) for centre in centres])
    offsets = distances[np.argmin(np.median(distances, axis=1))]
    for frame, offset in zip(frames, offsets, strict=True):
        if not offset <= max_offset:
            frame.leave_out(FrameRejected("OFF_FIELD", f"{offset:.2f} > {max_offset:g} deg"))


def shared_corrections(fractions: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return aperture corrections of frames, shrunk towards their mean by their uncertainty.

    Apertures of equal radius in units of the seeing have the same fraction of light in all frames
    of a camera as long as the shape of the profile is the same; comparing frames does then not
    require it to be known. A normal distribution of fractions, whose width is estimated from the
    frames, serves as the prior of each.

    Parameters
    ----------
    fractions, errors : ndarray, shape (n,)
        Fractions of light in the aperture, and their relative errors.

    Returns
    -------
    fractions, errors : ndarray, shape (n,)
    """
    value, variance = np.log(fractions), np.maximum(errors, 1e-6) ** 2
    width = 0.0
    for _ in range(50):
        weight = 1 / (variance + width)
        mean = np.average(value, weights=weight)
        # The width at which the variance is explained (Paule & Mandel 1982).
        excess = np.sum(weight * (value - mean) ** 2) - (len(value) - 1)
        slope = np.sum(weight**2 * (value - mean) ** 2)
        if excess <= 0 and width == 0 or slope <= 0:
            break
        step = excess / slope
        width = max(0.0, width + step)
        if abs(step) < 1e-4 * width:
            break
    own = width / (width + variance)
    known = mean + own * (value - mean)
    # The width is known to this from few frames; the errors allow for a larger one.
    unknown = np.sqrt(2 / (len(value) - 1)) / weight.mean()
    shared = (1 - own) ** 2 * (1 / weight.sum() + unknown)
    return np.exp(known), np.sqrt(np.minimum(own * variance + shared, variance))


def _share_aperture_corrections(frames: list[StackFrame]) -> None:
    """Rescale the total fluxes of the stars of frames to `shared_corrections`."""
    if len(frames) < 2:
        return
    measured = [frame.measurement for frame in frames]
    fractions, errors = shared_corrections(
        np.array([one.fraction for one in measured]),
        np.array([one.fraction_error for one in measured]),
    )
    for frame, one, fraction, error in zip(frames, measured, fractions, errors, strict=True):
        shift = 2.5 * np.log10(fraction / one.fraction)
        stars = replace(one.stars, magnitude=one.stars.magnitude + shift)
        frame.measured = replace(
            one, fraction=float(fraction), fraction_error=float(error), stars=stars
        )


def _scale_frames(frames: list[StackFrame], settings: StackSettings) -> list[StackFrame]:
    """Give frames their scales and weights; leave out those that would degrade a median."""
    while frames:
        exposures = [float(frame.header["EXPTIME"]) for frame in frames]
        transparencies = [frame.zeropoint.transparency for frame in frames if frame.zeropoint]
        for frame, scale in zip(frames, flux_scales(exposures, transparencies), strict=True):
            frame.scaling = frame_scaling(frame, float(scale))
        if combination_of(settings, len(frames)) == "weighted":
            break
        weights = np.array([frame.weighting.weight for frame in frames])
        relative = weights / weights.max()
        low = weights < settings.min_weight * weights.max()
        if not low.any():
            break
        for i in np.flatnonzero(low):
            numbers = f"{relative[i]:.3f} < {settings.min_weight:g}"
            frames[i].leave_out(FrameRejected("LOW_WEIGHT", numbers))
        frames = [frame for frame in frames if frame.used]
    return frames


def frame_scaling(frame: StackFrame, scale: float) -> FrameScaling:
    """Return the weight of a frame whose flux is multiplied by `scale`."""
    noise = frame.measurement.noise
    variance = frame_variance(frame.header)
    modelled = bool(variance > 0)
    # Without sky and read noise in the header the measured noise is used.
    variance = float(variance) if modelled else noise**2
    return FrameScaling(
        scale, variance, modelled, float(1.0 / (scale**2 * variance)), noise / np.sqrt(variance)
    )


@dataclass(frozen=True)
class FrameZeropoints:
    """Zero points of n frames.

    Parameters
    ----------
    value : ndarray, shape (n,)
        Magnitude of one electron per second: calibrated where the group of the frame is tied to the
        reference, otherwise with mean 0 in the group.
    scatter : ndarray, shape (n,)
        Robust scatter of the stars [mag].
    common : ndarray of int, shape (n,)
        Number of stars in common with other frames or the reference.
    group : ndarray of int, shape (n,)
        Group of each frame; zero points of different groups cannot be compared.
    absolute : bool
        Whether the zero points are calibrated.
    """

    value: np.ndarray
    scatter: np.ndarray
    common: np.ndarray
    group: np.ndarray
    absolute: bool


def chip_levels(headers: list[fits.Header]) -> np.ndarray:
    """Return the relative zero points of chips exposed together, from the levels of their flats.

    The flats of all chips of an exposure received the same light, as far as the illumination was
    uniform: their levels give the sensitivities of the chips.

    Parameters
    ----------
    headers : list of astropy.io.fits.Header
        Headers of the frames.

    Returns
    -------
    ndarray, shape (n_frames, n_exposures)
        Magnitude that a star of fixed brightness would have on each chip; NaN for frames of other
        exposures. Exposures with a single chip are left out.
    """
    groups: dict[tuple[tuple[str, str], str], list[int]] = {}
    for i, header in enumerate(headers):
        exposure = exposure_of(header)
        if header.get("FLATLEV", 0) > 0 and exposure:
            groups.setdefault((exposure, header.get("FLATSET", "")), []).append(i)
    several = [members for members in groups.values() if len(members) > 1]
    levels = np.full((len(headers), len(several)), np.nan)
    for k, members in enumerate(several):
        levels[members, k] = [-2.5 * np.log10(headers[i]["FLATLEV"]) for i in members]
    return levels


def levels_against_stars(zeropoints: "FrameZeropoints", chips: np.ndarray) -> float:
    """Return the disagreement between flats and stars about the sensitivities of chips [mag].

    Parameters
    ----------
    zeropoints : FrameZeropoints
        Zero points from stars alone.
    chips : ndarray, shape (n_frames, n_exposures)
        As from `chip_levels`.

    Returns
    -------
    float
        Median over the exposures of the largest deviation of a chip from their mean, reduced by its
        uncertainty from the few stars of a frame; 0 where stars give no answer.
    """
    differences = []
    noise = REFERENCE_ERROR_FLOOR / np.sqrt(np.maximum(zeropoints.common, 1))
    for column in chips.T:
        members = np.isfinite(column) & np.isfinite(zeropoints.value)
        if members.sum() < 2 or len(set(zeropoints.group[members])) > 1:
            continue
        found = zeropoints.value[members] + column[members]
        excess = np.abs(found - np.median(found)) - 3 * noise[members]
        differences.append(float(excess.max()))
    return max(0.0, float(np.median(differences))) if differences else 0.0


def frame_zeropoints(
    stars: list[FrameStars],
    reference: Reference | None,
    band: str,
    radius: float,
    chips: np.ndarray | None = None,
) -> FrameZeropoints:
    """Determine the zero points of frames from their common stars and the reference.

    The reference enters as one more frame, with larger errors.

    Parameters
    ----------
    stars : list of FrameStars
        Stars of each frame.
    reference : mapping of str to ndarray, or None
        Photometric reference with column `band`.
    band : str
        Band of the reference.
    radius : float
        Closer stars are identified with each other [arcsec].
    chips : ndarray, shape (n_frames, n_exposures), optional
        From `chip_levels`: each column counts as a star of small error.

    Returns
    -------
    FrameZeropoints
    """
    ra0, dec0 = mean_position(
        np.concatenate([one.ra for one in stars]), np.concatenate([one.dec for one in stars])
    )
    planes = [project(one.ra, one.dec, ra0, dec0) for one in stars]
    numbers, count = common_stars(planes, radius)
    rows = len(stars) + 1
    magnitude = np.full((rows, count), np.nan)
    error = np.full((rows, count), np.nan)
    place = np.full((count, 2), np.nan)
    for i, (one, number) in enumerate(zip(stars, numbers, strict=True)):
        magnitude[i + 1, number] = one.magnitude
        error[i + 1, number] = one.error
        place[number] = planes[i]
    if reference is not None and band in reference:
        at = project(reference["ra"], reference["dec"], ra0, dec0)
        ours, theirs = match(place, at, radius)
        magnitude[0, ours] = np.asarray(reference[band], float)[theirs]
        errors = reference_errors(reference, band)[theirs]
        error[0, ours] = np.where(errors > 0, errors, ASSUMED_REFERENCE_ERROR)
    floor = np.full((rows, 1), FRAME_ERROR_FLOOR)
    floor[0] = REFERENCE_ERROR_FLOOR
    if chips is not None and chips.size:
        ties = np.vstack([np.full(chips.shape[1], np.nan), chips])
        floor = np.hstack([np.broadcast_to(floor, error.shape), np.full(ties.shape, CHIP_ERROR)])
        magnitude = np.hstack([magnitude, ties])
        error = np.hstack([error, np.where(np.isfinite(ties), 0.0, np.nan)])
    z, scatter, number, group = relative_zeropoints(magnitude, error, floor)
    absolute = bool(np.isfinite(z[0]))
    if absolute:
        z = z - np.where(group == group[0], z[0], 0.0)
    if len(stars) == 1 and not np.isfinite(z[1]):
        z[1] = 0.0
    return FrameZeropoints(z[1:], scatter[1:], number[1:], group[1:], absolute)


def judge_frames(
    zeropoints: FrameZeropoints, settings: StackSettings
) -> tuple[np.ndarray, list[FrameRejected | None]]:
    """Return the transparency of each frame relative to the best, and why some are left out.

    Parameters
    ----------
    zeropoints : FrameZeropoints
        Zero points of the frames.
    settings : StackSettings
        Settings of the step.

    Returns
    -------
    transparency : ndarray, shape (n,)
        Transparencies; NaN where unknown.
    reasons : list of FrameRejected or None
        None for frames that are kept.
    """
    zeropoint, group = zeropoints.value, zeropoints.group
    n = len(zeropoint)
    reasons: list[FrameRejected | None] = [None] * n
    known = np.isfinite(zeropoint)
    transparency = np.full(n, np.nan)
    if not known.any():
        why = FrameRejected("NO_COMMON_STARS", "with any other frame or the reference")
        return transparency, [why] * n
    # Frames without common stars cannot be scaled: keep the largest group.
    labels, counts = np.unique(group[known], return_counts=True)
    largest = labels[np.argmax(counts)]
    for i in range(n):
        if not known[i] or group[i] != largest:
            reasons[i] = FrameRejected("NO_COMMON_STARS", f"with the other {n - 1} frames")
        elif zeropoints.scatter[i] > settings.max_scatter:
            numbers = f"scatter {zeropoints.scatter[i]:.2f} > {settings.max_scatter:g} mag"
            reasons[i] = FrameRejected("BAD_PHOTOMETRY", numbers)
    trusted = np.array([reason is None for reason in reasons])
    if not trusted.any():
        return transparency, reasons
    several = trusted & (zeropoints.common >= TRUSTED_STARS)
    best = zeropoint[several if several.any() else trusted].max()
    transparency[known] = 10 ** (0.4 * (zeropoint[known] - best))
    for i in map(int, np.flatnonzero(trusted)):
        if transparency[i] < settings.min_transparency:
            numbers = f"transparency {transparency[i]:.3f} < {settings.min_transparency:g}"
            reasons[i] = FrameRejected("CLOUDY", numbers)
    return transparency, reasons


def flux_scales(exposures: list[float], transparencies: list[float]) -> np.ndarray:
    """Return the factors that scale frames to a common exposure time and transparency.

    Parameters
    ----------
    exposures : list of float
        Exposure times [s].
    transparencies : list of float
        Transparencies relative to the best frame.

    Returns
    -------
    ndarray, shape (n,)
        Median exposure / exposure / transparency.
    """
    common = float(np.median(exposures))
    return common / np.asarray(exposures) / np.asarray(transparencies)
