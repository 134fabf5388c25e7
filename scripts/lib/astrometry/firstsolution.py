"""First solution of each frame: which of its stars are which, by a ladder of assumptions.

The matching itself is in `lib.astrometry.matching`; here are the frames, and how the solution of
one helps to find the others.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from astropy.wcs import WCS
from numpy.typing import ArrayLike

from lib.astrometry.blind import blind_match, moved_map
from lib.astrometry.fewstars import (
    OTHER_FILTER_RANGE,
    POINTED_CHANCE,
    PREDICTED_CHANCE,
    SAME_FILTER_RANGE,
    PointingCorrection,
    match_few,
    predicted,
)
from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.jointfit import fit_alone
from lib.astrometry.mapping import Mapping, same_orientation
from lib.astrometry.matching import Match, NoMatch, PlaneStars, SearchRange, match_stars
from lib.astrometry.pixelmaps import PixelMap, cached_map, coordinate_cards, map_from_wcs
from lib.astrometry.starlists import (
    Reference,
    match_by_position,
    merged_stars,
    project_together,
)
from lib.core.settings import AstrometrySettings
from lib.core.sphere import deproject, project, separation

log = logging.getLogger("autoproc")

TRIAL_SCALES = (1.0, 2.0, 0.5, 1.15, 0.87, 1.32, 0.76, 1.52, 0.66, 1.75, 0.57)
"""Scales tried for a frame whose header scale is wrong; first those of a wrong binning."""


# --- One frame ----------------------------------------------------------------------------


def identify(
    frame: AstrometryFrame,
    reference: Reference,
    settings: AstrometrySettings,
    *,
    pixel_to_world: PixelMap | None = None,
    radius: float | None = None,
    asterisms: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> tuple[Match, PixelMap]:
    """Identify the stars of a frame in the reference and correct the frame's map by the result.

    Parameters
    ----------
    frame : AstrometryFrame
    reference : Reference
    settings : AstrometrySettings
        min_matched, min_contrast, log_chance, scale_error.
    pixel_to_world : callable, optional
        Map to start from instead of the frame's.
    radius : float, optional
        Uncertainty of the pointing [arcsec] instead of the frame's.
    asterisms, scales
        See `lib.astrometry.matching.SearchRange`.

    Returns
    -------
    match : Match
    pixel_to_world : callable

    Raises
    ------
    NoMatch
    """
    start = pixel_to_world or frame.pixel_to_world
    stars, known, centre = project_together(frame, reference, start)
    scale = frame.scale_by(start)
    search = SearchRange(
        size=float(np.sqrt(np.prod(frame.shape)) * scale),
        tolerance=frame.tolerance * scale,
        radius=frame.radius if radius is None else radius,
        first_radius=max(10 * scale, 5.0),
        scales=scales,
        asterisms=asterisms,
    )
    match = match_stars(
        PlaneStars(stars, frame.magnitude),
        PlaneStars(known, reference.magnitude),
        search,
        settings,
    )
    return match, followed_by_linear(start, match.mapping, centre)


def followed_by_linear(
    pixel_to_world: PixelMap, mapping: Mapping, centre: tuple[float, float]
) -> PixelMap:
    """Return a map followed by a linear one of the tangent plane about `centre`."""

    @cached_map
    def changed(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        return deproject(mapping(project(*pixel_to_world(x, y), *centre)), *centre)

    return changed


def reoriented_map(frame: AstrometryFrame, matrix: np.ndarray) -> PixelMap:
    """Return the map of a frame with the linear part that another frame was found to have.

    Parameters
    ----------
    frame : AstrometryFrame
    matrix : ndarray, shape (2, 2)
        Arcseconds per pixel on the tangent plane.
    """
    turn = Mapping(matrix @ np.linalg.inv(frame.local_matrix()), np.zeros(2))
    return followed_by_linear(frame.pixel_to_world, turn, frame.centre())


def rotate_before_distortion(frame: AstrometryFrame) -> PixelMap:
    """Put rotation and scale found for a frame before the distortion of its header, not after.

    A distortion of seventh order grows by 0.7 % when the frame is 0.1 % larger than its header
    says, which a linear term applied after it does not follow.

    Parameters
    ----------
    frame : AstrometryFrame
        Identified: its map is the header's followed by a linear one.

    Returns
    -------
    callable
        Map of the header with its CD matrix turned and CRVAL shifted, agreeing with the frame's in
        the middle to first order.
    """
    wcs = WCS(coordinate_cards(frame.header), naxis=2)
    ra, dec = frame.centre()
    for _ in range(2):
        turn = frame.local_matrix() @ np.linalg.inv(frame.local_matrix(map_from_wcs(wcs)))
        wcs.wcs.cd = turn @ wcs.wcs.cd if wcs.wcs.has_cd() else turn @ wcs.pixel_scale_matrix
        for _ in range(2):
            now_ra, now_dec = frame.centre(map_from_wcs(wcs))
            wcs.wcs.crval = wcs.wcs.crval + [(ra - now_ra + 180) % 360 - 180, dec - now_dec]
            wcs.wcs.set()
    return map_from_wcs(wcs)


def identify_few(
    frame: AstrometryFrame,
    reference: Reference,
    settings: AstrometrySettings,
    corrections: Sequence[PointingCorrection] = (),
) -> tuple[Match, PixelMap]:
    """Identify the stars of a frame that has few of them, by a shift.

    Where sister frames say that it points; then where its header does, which takes three stars,
    or the certainty of any match.

    Parameters
    ----------
    frame : AstrometryFrame
    reference : Reference
    settings : AstrometrySettings
    corrections : sequence of PointingCorrection
        Pointing corrections of sister frames.

    Returns
    -------
    match : Match
    pixel_to_world : callable

    Raises
    ------
    NoMatch
    """
    starts = [(frame.pixel_to_world, frame.radius, POINTED_CHANCE, 3)]
    if corrections:
        one, radius = predicted(corrections, frame.mjd, frame.scale)
        turned = reoriented_map(frame, one.turn @ frame.local_matrix())
        moved = followed_by_linear(turned, Mapping(np.eye(2), one.offset), frame.centre())
        starts.insert(0, (moved, min(radius, frame.radius), PREDICTED_CHANCE, 1))
    same = reference.seen is not None
    best: Match | None = None
    for start, radius, chance, least in starts:
        stars, known, centre = project_together(frame, reference, start)
        scale = frame.scale_by(start)
        side = np.sqrt(np.prod(frame.shape)) * scale + 2 * radius
        inside = np.flatnonzero(np.all(np.abs(np.nan_to_num(known, nan=1e9)) < side / 2, axis=1))
        # The frame shows the brightest of them.
        bright = inside[np.argsort(reference.magnitude[inside], kind="stable")]
        bright = bright[: 3 * len(stars) + 5]
        if not len(bright):
            continue
        match = match_few(
            PlaneStars(stars, frame.magnitude), PlaneStars(known, reference.magnitude)[bright],
            area=side**2, radius=radius, tolerance=1.5 * frame.tolerance * scale,
            spread=SAME_FILTER_RANGE if same else OTHER_FILTER_RANGE,
        )  # fmt: skip
        if match is None:
            continue
        match = replace(match, reference=bright[match.reference])
        certain = match.number >= 2 and match.log_chance <= settings.log_chance
        if certain or (match.number >= max(least, len(stars) / 2) and match.log_chance <= chance):
            return match, followed_by_linear(start, match.mapping, centre)
        if best is None or match.log_chance < best.log_chance:
            best = match
    raise NoMatch(f"best {best.brief}" if best else f"{len(frame.stars)} stars, none met another")


def refine(frame: AstrometryFrame, reference: Reference) -> None:
    """Fit the map of an identified frame to first order; the known distortion keeps its shape."""
    match = frame.match
    if "PV1_1" in frame.header and match is not None and match.mapping.parity == 1:
        before = frame.pixel_to_world
        frame.pixel_to_world = fit_alone(frame, reference, 1)
        frame.pixel_to_world = rotate_before_distortion(frame)
        tolerance = 2 * frame.scale
        now, then = (
            len(match_by_position(frame, reference, tolerance, one)[0])
            for one in (frame.pixel_to_world, before)
        )
        if now < 0.8 * then:
            frame.pixel_to_world = before
    for _ in range(2):
        frame.pixel_to_world = fit_alone(frame, reference, 1)


MOST_IN_VAIN = 6
"""Frames of many stars that are searched for in vain, before the others are given up, too."""

MOST_BLIND = 2
"""Frames, the richest, that are looked for anywhere."""

MANY_STARS = 25
"""A frame with more shows enough to be found by a shift, if it shows any of the reference."""


# --- All frames of a camera ---------------------------------------------------------------


class Search:
    """The search for all frames of a camera; one that is not found has the map of its header.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        `match` and `pixel_to_world` of those that are found are set.
    reference : Reference
    settings : AstrometrySettings
    """

    def __init__(
        self,
        frames: Sequence[AstrometryFrame],
        reference: Reference,
        settings: AstrometrySettings,
    ) -> None:
        self.frames, self.reference, self.settings = frames, reference, settings
        self.wide_radius = 3600.0 * settings.wide_radius
        self.from_header = {f.name: (f.pixel_to_world, f.local_matrix()) for f in frames}
        self.corrections: list[PointingCorrection] = []
        self.failed: dict[str, str] = {}
        self.nowhere: dict[str, str] = {}

    @property
    def solved(self) -> list[AstrometryFrame]:
        """Frames that are identified."""
        return [frame for frame in self.frames if frame.match]

    @property
    def unsolved(self) -> list[AstrometryFrame]:
        """Frames that are not."""
        return [frame for frame in self.frames if not frame.match]

    def try_frame(
        self,
        frame: AstrometryFrame,
        *,
        wide: bool = False,
        pixel_to_world: PixelMap | None = None,
        asterisms: bool = False,
        scales: tuple[float, ...] = (1.0,),
    ) -> bool:
        """Identify a frame, `wide` beyond the uncertainty of its pointing; return success."""
        try:
            frame.match, found = identify(
                frame,
                self.reference,
                self.settings,
                pixel_to_world=pixel_to_world,
                radius=max(frame.radius, self.wide_radius) if wide else None,
                asterisms=asterisms,
                scales=scales,
            )
        except NoMatch as why:
            self.failed[frame.name] = str(why)
            return False
        self.failed.pop(frame.name, None)
        frame.pixel_to_world = found
        log.info("%s: %s: %s", frame.name, frame.match.rung, frame.match)
        return True

    def try_pointings(self) -> None:
        """Search for each frame near where its header points, and then farther away."""
        for frame in self.frames:
            self.try_frame(frame)
        farther = [frame for frame in self.unsolved if frame.radius < self.wide_radius]
        for frame in self.worth_a_search(farther):
            self.try_frame(frame, wide=True)

    def worth_a_search(self, frames: Sequence[AstrometryFrame]) -> Iterator[AstrometryFrame]:
        """Yield frames, the richest first, as long as there is hope: of wrong stars none is found.

        Where the `MOST_IN_VAIN` richest and all before were searched for in vain, only those
        follow whose stars are few: a search for them is quick.
        """
        tried = 0
        for frame in sorted(frames, key=lambda one: -len(one.stars)):
            hopeless = tried >= MOST_IN_VAIN and not self.solved and not self.corrections
            if hopeless and len(frame.stars) > MANY_STARS:
                if tried == MOST_IN_VAIN:
                    log.warning(
                        "the %d frames of most stars show none of the %d reference stars: is it "
                        "the right table, the right pointing?", tried, len(self.reference),
                    )  # fmt: skip
                tried += 1
                continue
            tried += 1
            yield frame

    def rich(self, frame: AstrometryFrame) -> bool:
        """Return whether a frame has stars enough for a blind search."""
        return len(frame.stars) >= self.settings.min_stars

    def corrections_of(self, frames: Sequence[AstrometryFrame]) -> list[PointingCorrection]:
        """Return by how much the headers of solved frames are off."""
        headers = [self.from_header[one.name] for one in frames]
        return [
            PointingCorrection.of(one, one.centre(pixel_to_world), matrix)
            for one, (pixel_to_world, matrix) in zip(frames, headers, strict=True)
        ]

    def match_few_stars(self, frames: Sequence[AstrometryFrame]) -> None:
        """Identify frames with few stars, using the pointing of those already solved."""
        corrections = self.corrections + self.corrections_of(self.solved)
        for frame in self.worth_a_search(frames):
            try:
                frame.match, frame.pixel_to_world = identify_few(
                    frame, self.reference, self.settings, corrections
                )
            except NoMatch as why:
                self.failed[frame.name] = self.nowhere.get(frame.name, str(why))
                continue
            self.failed.pop(frame.name, None)
            frame.by_few = True
            log.info("%s: few stars: %s", frame.name, frame.match)

    def try_asterisms_on_richest(self) -> None:
        """Try asterisms on the richest frames: if these fail, so will the others."""
        richest = sorted(filter(self.rich, self.frames), key=lambda frame: -len(frame.stars))
        if not richest:
            return
        for frame in richest[:3]:
            if self.try_frame(frame, wide=True, asterisms=True):
                return
        self.try_blind()
        if not self.solved:
            self.try_frame(richest[0], wide=True, asterisms=True, scales=TRIAL_SCALES[1:])

    def try_blind(self) -> None:
        """Look for the richest frames anywhere in the reference, at any scale and rotation."""
        richest = sorted(filter(self.rich, self.frames), key=lambda frame: -len(frame.stars))
        for frame in richest[:MOST_BLIND]:
            try:
                match, start, centre = blind_match(frame, self.reference, self.settings)
            except NoMatch as why:
                self.failed[frame.name] = self.nowhere[frame.name] = str(why)
                continue
            frame.match = match
            frame.pixel_to_world = followed_by_linear(start, match.mapping, centre)
            self.failed.pop(frame.name, None)
            header, _ = self.from_header[frame.name]
            off = separation(*frame.centre(), *frame.centre(header))
            log.warning(
                "%s: found at %.4f %+.4f, %.2f deg from where it was expected, with %.3f "
                "arcsec/pixel: %s", frame.name, *frame.centre(), off, frame.scale, match,
            )  # fmt: skip
            return

    def nearest_solved(self, frame: AstrometryFrame) -> AstrometryFrame:
        """Return the identified frame that was taken nearest in time."""
        return min(self.solved, key=lambda one: abs(one.mjd - frame.mjd))

    @property
    def lost(self) -> bool:
        """Whether a frame was found by none of its header: those of the others tell nothing."""
        return any(frame.match and frame.match.rung == "blind" for frame in self.frames)

    def follow_solved(self) -> None:
        """Look for the other frames where a solved one points."""
        for frame in self.unsolved:
            nearest = self.nearest_solved(frame)
            self.try_frame(frame, wide=True, pixel_to_world=moved_map(frame, nearest))

    def try_orientations(self, frame: AstrometryFrame) -> bool:
        """Try the orientations of the frames solved, as they are and relative to their header."""
        own = frame.local_matrix()
        tried: list[np.ndarray] = []
        for other in sorted(self.solved, key=chance_of):
            found = other.local_matrix()
            relative = found @ np.linalg.inv(self.from_header[other.name][1])
            for matrix in (found, relative @ own):
                if any(same_orientation(matrix, t, 0.3, 0.003) for t in tried):
                    continue
                tried.append(matrix)
                turned = reoriented_map(frame, matrix)
                if self.try_frame(frame, wide=True, pixel_to_world=turned):
                    return True
            if len(tried) >= 4:
                break
        return False

    def apply_orientations(self) -> None:
        """Try the orientations of the frames solved on the others."""
        if self.solved:
            for frame in self.unsolved:
                self.try_orientations(frame)

    def match_to_neighbours(self) -> None:
        """Identify frames that show too few reference stars by the stars of frames solved."""
        solved, rest = self.solved, self.unsolved
        before = [frame.pixel_to_world for frame in solved]
        for frame in solved:
            frame.pixel_to_world = fit_alone(frame, self.reference, 1)
        common = merged_stars(solved)
        for frame, pixel_to_world in zip(solved, before, strict=True):
            frame.pixel_to_world = pixel_to_world
        search = Search(rest, common, self.settings)
        search.corrections = self.corrections_of(solved)
        search.try_pointings()
        search.apply_orientations()
        search.reject_odd_orientations()
        search.match_few_stars(search.unsolved)
        for frame in rest:
            if frame.match:
                frame.pixel_to_world = fit_alone(frame, common, 1)
                frame.by_neighbours = True
                self.failed.pop(frame.name, None)
        for name, numbers in search.failed.items():
            log.info("%s: not found by its neighbours: %s", name, numbers)

    def try_asterisms_on_rest(self) -> None:
        """Try asterisms on every unsolved frame; a solution helps the next ones."""
        known = False
        for frame in filter(self.rich, self.unsolved):
            if known and self.try_orientations(frame):
                continue
            # Of another rotation each, as without a derotator, they share place and scale.
            nearest = self.nearest_solved(frame)
            scale = nearest.scale / frame.scale
            start = None
            if self.lost:
                start = moved_map(frame, nearest)
            elif abs(scale - 1) > self.settings.scale_error:
                start = reoriented_map(frame, nearest.local_matrix())
            known |= self.try_frame(frame, wide=True, pixel_to_world=start, asterisms=True)

    def reject_odd_orientations(self) -> None:
        """Take back weak matches that disagree with the orientation of most other frames."""
        matrices = {frame.name: frame.local_matrix() for frame in self.solved}
        for frame in self.solved:
            helped = frame.by_neighbours or frame.by_few
            if helped or chance_of(frame) < self.settings.log_chance - 6:
                continue
            own = matrices[frame.name]
            others = [m for name, m in matrices.items() if name != frame.name]
            if not others or sum(same_orientation(own, m) for m in others) * 2 >= len(others):
                continue
            match, frame.match = frame.match, None
            assert match is not None
            frame.pixel_to_world = self.from_header[frame.name][0]
            log.warning("%s: orientation unlike the other frames': %s", frame.name, match)
            if not self.try_orientations(frame):
                self.failed[frame.name] = f"unlike others: {match.brief}"


def chance_of(frame: AstrometryFrame) -> float:
    """Return how probable the match of an identified frame is by chance (log10)."""
    assert frame.match is not None
    return frame.match.log_chance


def identify_all(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    settings: AstrometrySettings,
    *,
    neighbours: bool = False,
    corrections: Sequence[PointingCorrection] = (),
) -> dict[str, str]:
    """Identify all frames of a camera; orientation and stars of one help to find the others.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        `match` and `pixel_to_world` of those that are found are set, and `by_neighbours`.
    reference : Reference
    settings : AstrometrySettings
    neighbours : bool
        Whether the stars of frames that are solved serve as reference for the others. That comes
        before asterisms (any rotation, scale, mirror image), which take ten times longer.
    corrections : sequence of PointingCorrection
        Pointing corrections of frames that are already solved.

    Returns
    -------
    dict
        Name of each frame that is not found: the numbers of its best hypothesis.
    """
    search = Search(frames, reference, settings)
    search.corrections = list(corrections)
    search.try_pointings()
    if not search.solved:
        search.try_asterisms_on_richest()
        if search.lost:
            search.follow_solved()
    search.apply_orientations()
    search.reject_odd_orientations()
    if neighbours and search.solved and search.unsolved:
        search.match_to_neighbours()
    if search.solved and search.unsolved:
        search.try_asterisms_on_rest()
        search.reject_odd_orientations()
    search.match_few_stars(search.unsolved)
    return search.failed
