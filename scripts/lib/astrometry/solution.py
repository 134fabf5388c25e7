"""The astrometric solution of all frames of one stack, and the file that holds it.

Stars are detected on each frame (`lib.astrometry.detection`), identified in the reference by a
ladder of ever fewer assumptions (`lib.astrometry.firstsolution`), and all frames are solved
jointly (`lib.astrometry.jointsolution`). With no reference the frames are aligned with each other
(`lib.astrometry.alignment`).
"""

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import ArrayLike

from lib.astrometry.alignment import align
from lib.astrometry.anchor import Anchor, tie_to_anchor
from lib.astrometry.detection import detect, frame_name
from lib.astrometry.firstsolution import followed_by_linear, identify_all, identify_few
from lib.astrometry.frames import AstrometryFrame, epoch_of
from lib.astrometry.jointsolution import JointSolution, solve_jointly
from lib.astrometry.matching import NoMatch
from lib.astrometry.pixelmaps import Cards, fit_cards, starting_map
from lib.astrometry.residuals import Residuals, residuals
from lib.astrometry.solvedpointing import solved_pointing
from lib.astrometry.starlists import (
    Reference,
    merged_stars,
    reference_extent,
    reference_from_table,
)
from lib.core.files import atomic_path
from lib.core.programs import ProgramFailed
from lib.core.settings import AstrometrySettings
from lib.core.text import card_text
from lib.frame.file import FrameRejected

log = logging.getLogger("autoproc")


# --- What is found ------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameSolution:
    """The solution of one frame.

    Parameters
    ----------
    cards : dict
        World coordinate system of the frame.
    card_error : float
        Maximum difference of the cards from the fitted map [mas].
    rms : tuple of float
        Weighted, to the east and north [mas]; NaN without stars.
    number : int
        Stars identified in the reference.
    detected : int
        Stars found on the frame.
    contrast, log_chance : float or None
        Contrast and chance probability [ln] of its match; None without one.
    rung : str
        Step of the ladder that identified it.
    degree : int
        Degree of the fitted distortion.
    own_solution : bool
        Whether it keeps a solution of its own, better than the joint one.
    epoch : float
        Julian year.
    pixel_scale : float
        [arcsec]
    pointing : tuple of float, or None
        Pointing of the telescope [deg].
    """

    cards: Cards
    card_error: float
    rms: tuple[float, float]
    number: int
    detected: int
    contrast: float | None
    log_chance: float | None
    rung: str
    degree: int
    own_solution: bool
    epoch: float
    pixel_scale: float
    pointing: tuple[float, float] | None = None

    @classmethod
    def of(cls, frame: AstrometryFrame, found: Residuals) -> "FrameSolution":
        """Return the solution of a frame, `found` being its residuals."""
        cards, error = fit_cards(frame.pixel_to_world, frame.shape)
        match = frame.match
        east, north = found.rms()
        return cls(
            cards=cards,
            card_error=1000 * error,
            rms=(1000 * east, 1000 * north),
            number=len(found),
            detected=len(frame.stars),
            contrast=match.contrast if match else None,
            log_chance=match.log_chance if match else None,
            rung=rung_of(frame),
            degree=frame.degree,
            own_solution=frame.own_solution,
            epoch=epoch_of([frame]),
            pixel_scale=frame.scale,
            pointing=solved_pointing(frame.header, frame.shape, frame.pixel_to_world),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the solution's file."""
        return {
            "status": "OK",
            "cards": self.cards,
            "rms": [finite(value) for value in self.rms],
            "nstars": self.number,
            "detected": self.detected,
            "contrast": self.contrast,
            "log_chance": self.log_chance,
            "rung": self.rung,
            "degree": self.degree,
            "own": self.own_solution,
            "epoch": self.epoch,
            "pixel_scale": self.pixel_scale,
            "pointing": self.pointing,
            "card_error_mas": self.card_error,
        }


@dataclass(frozen=True)
class Rejection:
    """Why a frame is not solved.

    Parameters
    ----------
    code, numbers : str
        Code and numbers, as in QCREASON.
    """

    code: str
    numbers: str

    def as_json(self) -> dict[str, Any]:
        """Return the entry of the solution's file."""
        return {"status": "REJECTED", "code": self.code, "numbers": self.numbers}


@dataclass
class StackSolution:
    """The solution of the frames of one camera, filter and target.

    Parameters
    ----------
    frames : dict
        Name of each frame to its `FrameSolution` or `Rejection`.
    catalogue : str
        Source of the reference, or 'NONE' where the frames are aligned with each other only.
    reason : str
        Why it is 'NONE'.
    method : {'own', 'scamp', 'internal', 'tied', 'none'}
    degree : int
        Degree of the fitted distortion.
    reference : Reference
        Stars that the frames were solved against.
    residuals : Residuals
        Residuals of the solved frames.
    joint : JointSolution, optional
        Joint solution, where there is a reference.
    anchor : Anchor, optional
        Anchor for other stacks of the target, where a frame is solved.
    """

    frames: dict[str, FrameSolution | Rejection]
    catalogue: str
    reason: str
    method: str
    degree: int
    reference: Reference
    residuals: Residuals
    joint: JointSolution | None = None
    anchor: Anchor | None = None

    @property
    def solved(self) -> int:
        """Number of frames that are solved."""
        return sum(isinstance(entry, FrameSolution) for entry in self.frames.values())

    def title(self, stack: str) -> str:
        """Return the title of the plot of residuals."""
        return f"{stack}: {self.solved} frames, {self.catalogue}, degree {self.degree}"

    def as_json(self) -> dict[str, Any]:
        """Return the content of the solution's file."""
        content: dict[str, Any] = {}
        if self.joint:
            content |= {
                "reference_stars": self.joint.reference_stars,
                "crossid": self.joint.crossid,
            }
            if self.joint.scamp_failed:
                content["scamp_failed"] = self.joint.scamp_failed
        content |= {"method": self.method, "degree": self.degree}
        if self.joint:
            content["crossvalidation"] = {
                method: {str(degree): finite(value) for degree, value in values.items()}
                for method, values in self.joint.crossvalidation.items()
            }
        return content | {
            "catalogue": self.catalogue,
            "reason": self.reason,
            "solved": self.solved,
            "rms": [finite(1000 * value) for value in self.residuals.rms()],
            "offset": [finite(1000 * value) for value in self.residuals.median()],
            "frames": {name: entry.as_json() for name, entry in self.frames.items()},
            **({"anchor": self.anchor.as_json()} if self.anchor else {}),
        }


def rung_of(frame: AstrometryFrame) -> str:
    """Return the step of the ladder that identified a frame."""
    if frame.by_few:
        return "few stars"
    if frame.by_neighbours:
        return "neighbours"
    return frame.match.rung if frame.match else "header"


def finite(value: float) -> float | None:
    """Return a float for JSON; None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def write_solution(
    path: str | Path, solution: StackSolution, stack: str, notes: Sequence[str] = ()
) -> None:
    """Write the solution of a stack as JSON, whole or not at all; `notes` are on the reference."""
    content = solution.as_json() | {"stack": stack, "reference_notes": [str(one) for one in notes]}
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


# --- How it is found ----------------------------------------------------------------------


def solve_stack(
    paths: Sequence[str | Path],
    table: Table,
    settings: AstrometrySettings,
    *,
    threads: int = 1,
    anchor: Anchor | None = None,
) -> StackSolution:
    """Detect and solve the frames of a stack.

    Parameters
    ----------
    paths : sequence of path-like
        Frame files.
    table : astropy.table.Table
        Reference; may have no row.
    settings : AstrometrySettings
    threads : int
        Frames searched for stars at once.
    anchor : Anchor, optional
        Solution of another stack of the target.

    Returns
    -------
    StackSolution
        Frames with too few stars are entered as rejected.
    """
    frames, rejected = detect_all(paths, settings, threads)
    if table.meta.get("ra_in_hours"):
        for frame in frames:
            take_for_hours(frame.header)
    band = frames[0].header.get("BAND", "") if frames else ""
    reference = reference_from_table(table, band)
    solution = solve_frames(
        frames,
        reference,
        settings,
        catalogue=card_text(table.meta.get("source", "reference")) if len(reference) else "NONE",
        reason=str(table.meta.get("reason", "")) or "no reference",
        anchor=anchor,
    )
    solution.frames |= rejected
    if table.meta.get("elsewhere") and solution.catalogue == "NONE":
        solution.reason = f"{table.meta['elsewhere']}; {solution.reason}"
    return solution


def take_for_hours(header: fits.Header) -> None:
    """Change a header whose right ascensions were hours, and had been taken for degrees."""
    for key in ("RA", "CRVAL1"):
        if isinstance(header.get(key), float):
            header[key] = 15 * header[key] % 360


def detect_all(
    paths: Sequence[str | Path], settings: AstrometrySettings, threads: int
) -> tuple[list[AstrometryFrame], dict[str, Rejection]]:
    """Detect the stars of all frames.

    Parameters
    ----------
    paths : sequence of path-like
    settings : AstrometrySettings
    threads : int
        Frames searched at once.

    Returns
    -------
    frames : list of AstrometryFrame
    rejected : dict
        The frames without enough stars, by name.

    Raises
    ------
    ProgramFailed
        Where no frame can be searched, or one no longer that could be before: that is the
        machine's fault, not the frames'.
    """

    def attempt(path: str | Path) -> AstrometryFrame | FrameRejected:
        try:
            return detect(path, settings)
        except FrameRejected as why:
            return why

    with ThreadPoolExecutor(max(1, threads)) as pool:
        outcomes = dict(zip(paths, pool.map(attempt, paths), strict=True))
    # Once more, for what fails twice; then a frame that could be searched shows whose fault it is.
    again = {path: attempt(path) for path in paths if detection_failed(outcomes[path])}
    outcomes |= again
    broken = [one for one in again.values() if detection_failed(one)]
    if broken:
        sound = [path for path in paths if not isinstance(outcomes[path], FrameRejected)][:1]
        if len(broken) == len(paths) or any(detection_failed(attempt(path)) for path in sound):
            raise ProgramFailed("source-extractor", broken[0].numbers)
    rejected, frames = {}, []
    for path, outcome in outcomes.items():
        if isinstance(outcome, FrameRejected):
            name = frame_name(path, fits.getheader(path))
            log.warning("%s: %s", name, outcome)
            rejected[name] = Rejection(outcome.code, outcome.numbers)
        else:
            frames.append(outcome)
    return frames, rejected


def detection_failed(outcome: AstrometryFrame | FrameRejected) -> TypeGuard[FrameRejected]:
    """Tell whether a frame could not be searched for stars, whatever it holds."""
    return isinstance(outcome, FrameRejected) and outcome.code == "DETECTION_FAILED"


def solve_frames(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    settings: AstrometrySettings,
    *,
    catalogue: str,
    reason: str = "",
    anchor: Anchor | None = None,
) -> StackSolution:
    """Solve the frames of one camera, filter and target.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames with stars; map and `radius` are set here from the headers.
    reference : Reference
        May be empty.
    settings : AstrometrySettings
    catalogue, reason : str
        Source of the reference; why it is empty.
    anchor : Anchor, optional
        Solution of another stack of the target.

    Returns
    -------
    StackSolution
    """
    start_from_headers(frames, reference, settings)
    headers = {frame.name: (frame.centre(), frame.local_matrix()) for frame in frames}
    solved: list[AstrometryFrame] = []
    failed: dict[str, str] = {}
    if frames and len(reference):
        solved, failed = identify_frames(frames, reference, settings, anchor)
        if not solved:
            best = "; ".join(f"{name}: {numbers}" for name, numbers in failed.items())
            reason = f"no frame matched {catalogue}: {best}"
            log.warning("%s", reason)
    joint = None
    method, degree = "none", 1
    if solved:
        joint = solve_jointly(solved, reference, settings)
        method, degree = joint.method, joint.degree
        for frame in solved:
            if frame.by_few:
                log.warning("%s: placed by %d stars", frame.name, len(frame.stars))
    elif frames:
        catalogue = "NONE"
        solved, reference, failed = align(frames, settings)
        method, degree = "internal", max(frame.degree for frame in solved)
        if anchor and (tied := tie_to_anchor(solved, anchor, settings)):
            log.info("tied to another filter of the target: %s", tied)
            catalogue, method = anchor.catalogue, "tied"
            reference = merged_stars(solved)
    elif not len(reference):
        catalogue = "NONE"
    found = residuals(solved, reference)
    entries: dict[str, FrameSolution | Rejection] = {
        name: Rejection("NO_MATCH", numbers) for name, numbers in failed.items()
    }
    entries |= {
        frame.name: FrameSolution.of(frame, found.of_frame(k)) for k, frame in enumerate(solved)
    }
    reason = reason if catalogue == "NONE" else ""
    offered = Anchor.of(solved, headers, catalogue) if solved else None
    return StackSolution(
        entries, catalogue, reason, method, degree, reference, found, joint, offered
    )


def identify_frames(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    settings: AstrometrySettings,
    anchor: Anchor | None,
) -> tuple[list[AstrometryFrame], dict[str, str]]:
    """Identify the stars of frames with those of the reference, by all the ways there are.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        One frame or more.
    reference : Reference
    settings : AstrometrySettings
    anchor : Anchor or None
        Solution of another stack of the target.

    Returns
    -------
    solved : list of AstrometryFrame
    failed : dict of str to str
        Why each of the others was not found.
    """
    sisters = anchor.corrections_for(frames) if anchor else []
    failed = identify_all(frames, reference, settings, neighbours=True, corrections=sisters)
    if anchor and failed:
        place_by_anchor(frames, anchor, settings, failed)
    solved = [frame for frame in frames if frame.match]
    if not solved and max(len(frame.stars) for frame in frames) < settings.min_stars:
        return identify_together(frames, reference, settings)
    return solved, failed


def place_by_anchor(
    frames: Sequence[AstrometryFrame],
    anchor: Anchor,
    settings: AstrometrySettings,
    failed: dict[str, str],
) -> None:
    """Identify frames that show too few reference stars by the stars of another filter."""
    sisters = anchor.corrections_for(frames)
    for frame in frames:
        if frame.match:
            continue
        try:
            frame.match, frame.pixel_to_world = identify_few(frame, anchor.stars, settings, sisters)
        except NoMatch as why:
            log.info("%s: not found by another filter: %s", frame.name, why)
            continue
        frame.by_few = True
        failed.pop(frame.name, None)


def identify_together(
    frames: Sequence[AstrometryFrame], reference: Reference, settings: AstrometrySettings
) -> tuple[list[AstrometryFrame], dict[str, str]]:
    """Identify frames of few stars as one: aligned with each other, all their stars by one shift.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        None of which is identified by itself.
    reference : Reference
    settings : AstrometrySettings

    Returns
    -------
    solved : list of AstrometryFrame
        Frames with `match`; none where all stars together are not found.
    failed : dict
        Name to numbers of the others.
    """
    start = [frame.pixel_to_world for frame in frames]
    radius = [frame.radius for frame in frames]
    aligned, _, failed = align(frames, settings)
    merged = merged_stars(aligned)
    first = aligned[0]
    # All their stars on the plane of the first, as if it had seen them.
    columns = np.zeros(len(merged), first.stars.dtype)
    columns["FLUX_AUTO"] = 10 ** (-0.4 * merged.magnitude)
    columns["FWHM_IMAGE"] = np.median(first.stars["FWHM_IMAGE"])
    whole = replace(first, stars=columns, radius=max(radius))

    def positions(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        return (merged.ra, merged.dec) if x is whole.x else first.pixel_to_world(x, y)

    whole.pixel_to_world = positions
    try:
        match, _ = identify_few(whole, reference, settings)
    except NoMatch as why:
        for frame, pixel_to_world, one in zip(frames, start, radius, strict=True):
            frame.match, frame.by_few = None, False
            frame.pixel_to_world, frame.radius = pixel_to_world, one
        return [], {frame.name: f"all together: {why}" for frame in frames}
    centre = whole.centre()
    for frame in aligned:
        frame.pixel_to_world = followed_by_linear(frame.pixel_to_world, match.mapping, centre)
        frame.match, frame.by_few = match, True
    return aligned, failed


def start_from_headers(
    frames: Sequence[AstrometryFrame], reference: Reference, settings: AstrometrySettings
) -> None:
    """Set map and uncertainty of each frame from its header."""
    extent = reference_extent(reference)
    for frame in frames:
        frame.pixel_to_world, radius = starting_map(frame.header, frame.shape, extent)
        frame.radius = 3600.0 * (settings.search_radius or radius or 0.1)
