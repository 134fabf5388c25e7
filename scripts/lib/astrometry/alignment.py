"""Frames aligned with each other, where there is no reference."""

from collections.abc import Sequence

from lib.astrometry.crossvalidation import best_solution, degrees_allowed, validate_degrees
from lib.astrometry.fewstars import PointingCorrection
from lib.astrometry.firstsolution import identify_all
from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.jointfit import fit_alone
from lib.astrometry.pixelmaps import PixelMap
from lib.astrometry.starlists import Reference, merged_stars
from lib.core.settings import AstrometrySettings


def align(
    frames: Sequence[AstrometryFrame], settings: AstrometrySettings
) -> tuple[list[AstrometryFrame], Reference, dict[str, str]]:
    """Align frames with each other: the one with most stars keeps its header's system.

    Each frame is identified in the merged stars of those before it. Chips of a camera that share
    no star are placed by their headers, relative to the chip that saw most. Then all but the first
    are fitted to the mean positions, three times over: linearly, and by a polynomial of the degree
    that predicts left-out stars best, for frames that see a star through different parts of the
    optics.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
    settings : AstrometrySettings

    Returns
    -------
    aligned : list of AstrometryFrame
        The first keeps its map; `pixel_to_world` and `degree` of all are set.
    reference : Reference
        Mean positions.
    failed : dict
        Name to numbers of those that match no other.
    """
    waiting = sorted(frames, key=lambda frame: -len(frame.stars))
    headers = {frame.name: (frame.centre(), frame.local_matrix()) for frame in frames}
    aligned, failed = [waiting.pop(0)], {}
    while waiting:
        reference = merged_stars(aligned)
        size = max(max(frame.shape) * frame.scale for frame in aligned)
        for frame in waiting:
            frame.radius = max(2 * frame.radius, 0.5 * size)
        corrections = [PointingCorrection.of(one, *headers[one.name]) for one in aligned]
        failed = identify_all(waiting, reference, settings, corrections=corrections)
        found = [frame for frame in waiting if frame.match]
        for frame in found:
            frame.pixel_to_world = fit_alone(frame, reference, 1)
        if not found:
            found = sister_chips(waiting, aligned[0])[:1]
            for frame in found:
                failed.pop(frame.name, None)
        if not found:
            break
        aligned += found
        names = {frame.name for frame in found}
        waiting = [frame for frame in waiting if frame.name not in names]
    fit_to_mean(aligned, 1)
    degree = alignment_degree(aligned, settings)
    if degree > 1:
        fit_to_mean(aligned, degree)
    reference = merged_stars(aligned)
    if len(aligned) > 1:
        # A star on one frame only agrees with itself: it says nothing about the alignment.
        reference = reference.repeated
    return aligned, reference, failed


def sister_chips(
    waiting: Sequence[AstrometryFrame], first: AstrometryFrame
) -> list[AstrometryFrame]:
    """Return the frames that other chips took in the exposure of a frame.

    They share no star with it, but its pointing: where it keeps its header's system, they do.

    Parameters
    ----------
    waiting : sequence of AstrometryFrame
    first : AstrometryFrame
    """
    exposure = first.header.get("RAWFILE")
    return [frame for frame in waiting if exposure and frame.header.get("RAWFILE") == exposure]


def fit_to_mean(frames: Sequence[AstrometryFrame], degree: int, rounds: int = 3) -> None:
    """Fit aligned frames to the mean positions of their stars; the first keeps its map.

    Before, once to the stars of the first alone: the mean holds what the others have in common.
    """
    for number in range(rounds + 1):
        reference = merged_stars(frames if number else frames[:1])
        maps = maps_to_mean(frames, reference, degree)
        for frame, pixel_to_world in zip(frames, maps, strict=True):
            frame.pixel_to_world, frame.degree = pixel_to_world, degree


def maps_to_mean(
    frames: Sequence[AstrometryFrame], reference: Reference, degree: int
) -> list[PixelMap]:
    """Return the map of each frame, fitted to mean positions; that of the first as it is."""
    first, *others = frames
    return [first.pixel_to_world, *(fit_alone(frame, reference, degree) for frame in others)]


def alignment_degree(frames: Sequence[AstrometryFrame], settings: AstrometrySettings) -> int:
    """Return the degree of the maps that predict left-out stars of aligned frames best."""
    reference = merged_stars(frames).repeated
    if len(frames) < 2 or len(reference) < 12:
        return 1
    degrees = degrees_allowed(len(reference), settings.degree)
    validated = validate_degrees(frames, reference, len(reference), degrees, maps_to_mean)
    return best_solution({"own": validated})[1]
