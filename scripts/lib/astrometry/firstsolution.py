"""First solution of each frame: which of its stars are which, by a ladder of assumptions.

The matching itself is in `lib.astrometry.matching`; here are the frames, and what one
teaches of the others.
"""

import logging

import numpy as np
from astropy.wcs import WCS

from lib.astrometry.crossvalidation import best_solution, degrees_allowed, validate_degrees
from lib.astrometry.jointfit import fit_alone
from lib.astrometry.matching import Mapping, NoMatch, match_stars, same_orientation
from lib.astrometry.pixelmaps import remembering, sky_from_wcs, system_cards
from lib.astrometry.starlists import merged_stars, on_one_plane, pair_up
from lib.core.sphere import deproject, project

log = logging.getLogger("autoproc")

TRIAL_SCALES = (1.0, 2.0, 0.5, 1.15, 0.87, 1.32, 0.76, 1.52, 0.66, 1.75, 0.57)
"""Scales tried for a frame whose header scale is wrong; first the likely binning mistakes."""


# --- One frame ----------------------------------------------------------------------------


def identify(
    exposure, reference, options, *, sky=None, radius=None, asterisms=False, scales=(1.0,)
):
    """Identify the stars of a frame in the reference and correct the frame's map by the result.

    Parameters
    ----------
    exposure : Exposure
    reference : Reference
    options : dict
        Configuration of the step: min_matched, min_contrast, log_chance, scale_error.
    sky : callable, optional
        Map to start from instead of the exposure's.
    radius : float, optional
        Uncertainty of the pointing [arcsec] instead of the exposure's.
    asterisms, scales
        See `lib.astrometry.matching.match_stars`.

    Returns
    -------
    match : Match
    sky : callable

    Raises
    ------
    NoMatch
    """
    sky = sky or exposure.sky
    stars, known, centre = on_one_plane(exposure, reference, sky)
    scale = np.sqrt(abs(np.linalg.det(exposure.local_matrix(sky))))
    match = match_stars(
        stars,
        exposure.magnitude,
        known,
        reference.magnitude,
        size=float(np.sqrt(np.prod(exposure.shape)) * scale),
        tolerance=max(2.0 * scale, 0.6),
        radius=exposure.radius if radius is None else radius,
        first_radius=max(10 * scale, 5.0),
        min_matched=options["min_matched"],
        contrast=options["min_contrast"],
        log_chance=options["log_chance"],
        scale_error=options["scale_error"],
        asterisms=asterisms,
        scales=scales,
    )
    return match, moved(sky, match.mapping, centre)


def moved(sky, mapping, centre):
    """Return the map `sky` followed by a linear map of the tangent plane about `centre`."""

    @remembering
    def changed(x, y):
        return deproject(mapping(project(*sky(x, y), *centre)), *centre)

    return changed


def turned_like(exposure, matrix):
    """Map of a frame, with the linear part that another frame was found to have.

    Parameters
    ----------
    exposure : Exposure
    matrix : ndarray, shape (2, 2)
        Arcseconds per pixel on the tangent plane.
    """
    turn = Mapping(matrix @ np.linalg.inv(exposure.local_matrix()), np.zeros(2))
    return moved(exposure.sky, turn, exposure.centre())


def absorb_turn(exposure):
    """Put rotation and scale found for a frame before the distortion of its header, not after.

    A distortion of seventh order grows by 0.7 % when the frame is 0.1 % larger than its header
    says, which a linear term applied after it does not follow.

    Parameters
    ----------
    exposure : Exposure
        Identified: `sky` is the header's map followed by a linear one.

    Returns
    -------
    callable
        Map of the header with its CD matrix turned and CRVAL shifted, agreeing with `sky` in the
        middle of the frame to first order.
    """
    wcs = WCS(system_cards(exposure.header), naxis=2)
    ra, dec = exposure.centre()
    for _ in range(2):
        sky = sky_from_wcs(wcs)
        turn = exposure.local_matrix() @ np.linalg.inv(exposure.local_matrix(sky))
        wcs.wcs.cd = turn @ wcs.wcs.cd if wcs.wcs.has_cd() else turn @ wcs.pixel_scale_matrix
        for _ in range(2):
            now_ra, now_dec = exposure.centre(sky_from_wcs(wcs))
            wcs.wcs.crval = wcs.wcs.crval + [(ra - now_ra + 180) % 360 - 180, dec - now_dec]
            wcs.wcs.set()
    return sky_from_wcs(wcs)


def refine(exposure, reference):
    """Fit the map of an identified frame to first order; the known distortion keeps its shape."""
    if "PV1_1" in exposure.header and exposure.match.mapping.parity == 1:
        before = exposure.sky
        exposure.sky = fit_alone(exposure, reference, 1)
        exposure.sky = absorb_turn(exposure)
        tolerance = 2 * exposure.scale
        now, then = (
            len(pair_up(exposure, reference, tolerance, sky)[0]) for sky in (exposure.sky, before)
        )
        if now < 0.8 * then:
            exposure.sky = before
    for _ in range(2):
        exposure.sky = fit_alone(exposure, reference, 1)


# --- All frames of a camera ---------------------------------------------------------------


class Search:
    """The search for all frames of a camera; one that is not found has the map of its header.

    Parameters
    ----------
    exposures : list of Exposure
        `match` and `sky` of those that are found are set.
    reference : Reference
    options : dict
        Configuration of the step.
    """

    def __init__(self, exposures, reference, options):
        self.exposures, self.reference, self.options = exposures, reference, options
        self.wide_radius = 3600.0 * options["wide_radius"]
        self.claimed = {e.name: (e.sky, e.local_matrix()) for e in exposures}
        self.failed = {}

    @property
    def solved(self):
        return [e for e in self.exposures if e.match]

    @property
    def unsolved(self):
        return [e for e in self.exposures if not e.match]

    def attempt(self, exposure, *, wide=False, **how):
        """Identify a frame, `wide` beyond the uncertainty of its pointing; return success."""
        if wide:
            how["radius"] = max(exposure.radius, self.wide_radius)
        try:
            exposure.match, sky = identify(exposure, self.reference, self.options, **how)
        except NoMatch as why:
            self.failed[exposure.name] = str(why)
            return False
        self.failed.pop(exposure.name, None)
        exposure.sky = sky
        log.info("%s: %s: %s", exposure.name, exposure.match.rung, exposure.match)
        return True

    def attempt_by_header(self):
        """Look for each frame near where its header says, and then farther away."""
        for exposure in self.exposures:
            if not self.attempt(exposure) and exposure.radius < self.wide_radius:
                self.attempt(exposure, wide=True)

    def attempt_blindly(self):
        """Try asterisms on the richest frames: a few are enough to know that none will do."""
        richest = sorted(self.exposures, key=lambda e: -len(e.stars))
        for exposure in richest[:3]:
            if self.attempt(exposure, wide=True, asterisms=True):
                return
        self.attempt(richest[0], wide=True, asterisms=True, scales=TRIAL_SCALES[1:])

    def learn(self, exposure):
        """Try the orientations of the frames solved, as they are and relative to their header."""
        claimed = exposure.local_matrix()
        tried = []
        for teacher in sorted(self.solved, key=lambda e: e.match.log_chance):
            found = teacher.local_matrix()
            relative = found @ np.linalg.inv(self.claimed[teacher.name][1])
            for matrix in (found, relative @ claimed):
                if any(same_orientation(matrix, t, 0.3, 0.003) for t in tried):
                    continue
                tried.append(matrix)
                if self.attempt(exposure, wide=True, sky=turned_like(exposure, matrix)):
                    return True
            if len(tried) >= 4:
                break
        return False

    def teach(self):
        """Try what the frames solved tell of the camera on the others."""
        if self.solved:
            for exposure in self.unsolved:
                self.learn(exposure)

    def ask_neighbours(self):
        """Identify frames that show too few reference stars by the stars of frames solved."""
        solved, rest = self.solved, self.unsolved
        before = [e.sky for e in solved]
        for exposure in solved:
            exposure.sky = fit_alone(exposure, self.reference, 1)
        common = merged_stars(solved)
        for exposure, sky in zip(solved, before, strict=True):
            exposure.sky = sky
        search = Search(rest, common, self.options)
        search.attempt_by_header()
        search.teach()
        search.doubt()
        for exposure in rest:
            if exposure.match:
                exposure.sky = fit_alone(exposure, common, 1)
                exposure.by_neighbours = True
                self.failed.pop(exposure.name, None)
        for name, numbers in search.failed.items():
            log.info("%s: not found by its neighbours: %s", name, numbers)

    def attempt_the_rest_blindly(self):
        """Try asterisms on every frame that is not solved; who is found teaches the others."""
        taught = False
        for exposure in self.unsolved:
            if not (taught and self.learn(exposure)):
                taught |= self.attempt(exposure, wide=True, asterisms=True)

    def doubt(self):
        """Take back weak matches that disagree with the orientation of most other frames."""
        matrices = {e.name: e.local_matrix() for e in self.solved}
        for exposure in self.solved:
            if exposure.by_neighbours:
                continue
            if exposure.match.log_chance < self.options["log_chance"] - 6:
                continue
            own = matrices[exposure.name]
            others = [m for name, m in matrices.items() if name != exposure.name]
            if not others or sum(same_orientation(own, m) for m in others) * 2 >= len(others):
                continue
            match, exposure.match = exposure.match, None
            exposure.sky = self.claimed[exposure.name][0]
            log.warning("%s: orientation unlike the other frames': %s", exposure.name, match)
            if not self.learn(exposure):
                self.failed[exposure.name] = f"unlike others: {match.brief}"


def identify_group(exposures, reference, options, *, neighbours=False):
    """Identify all frames of a camera; what one frame teaches of the camera helps the others.

    Parameters
    ----------
    exposures : list of Exposure
        `match` and `sky` of those that are found are set, and `by_neighbours`.
    reference : Reference
    options : dict
        Configuration of the step.
    neighbours : bool
        Whether the stars of frames that are solved serve as reference for the others. That comes
        before asterisms (any rotation, scale, mirror image), which take ten times longer.

    Returns
    -------
    dict
        Name of each frame that is not found: the numbers of its best hypothesis.
    """
    search = Search(exposures, reference, options)
    search.attempt_by_header()
    if not search.solved:
        search.attempt_blindly()
    search.teach()
    search.doubt()
    if neighbours and search.solved and search.unsolved:
        search.ask_neighbours()
    if search.solved and search.unsolved:
        search.attempt_the_rest_blindly()
        search.doubt()
    return search.failed


def align(exposures, options):
    """Align frames with each other: the one with most stars keeps its header's system.

    Each frame is identified in the merged stars of those before it, then all but the first
    are fitted to the mean positions, three times over: linearly, and by a polynomial of the degree
    that predicts left-out stars best, for frames that see a star through different parts of the
    optics.

    Returns
    -------
    aligned : list of Exposure
        The first is the one that leads; `sky` and `degree` are set.
    reference : Reference
        Mean positions.
    failed : dict
        Name to numbers of those that match no other.
    """
    waiting = sorted(exposures, key=lambda e: -len(e.stars))
    aligned, failed = [waiting.pop(0)], {}
    while waiting:
        reference = merged_stars(aligned)
        size = max(max(e.shape) * e.scale for e in aligned)
        for exposure in waiting:
            exposure.radius = max(2 * exposure.radius, 0.5 * size)
        failed = identify_group(waiting, reference, options)
        found = [e for e in waiting if e.match]
        if not found:
            break
        for exposure in found:
            exposure.sky = fit_alone(exposure, reference, 1)
        aligned += found
        waiting = [e for e in waiting if not e.match]
    fit_to_mean(aligned, 1)
    degree = alignment_degree(aligned, options)
    if degree > 1:
        fit_to_mean(aligned, degree)
    reference = merged_stars(aligned)
    if len(aligned) > 1:
        # A star on one frame only agrees with itself: it says nothing about the alignment.
        reference = reference[reference.seen > 1]
    return aligned, reference, failed


def fit_to_mean(exposures, degree, rounds=3):
    """Fit aligned frames to the mean positions of their stars; the first keeps its map.

    Before, once to the stars of the first alone: the mean holds what the others have in common.
    """
    for number in range(rounds + 1):
        reference = merged_stars(exposures if number else exposures[:1])
        maps = maps_to_mean(exposures, reference, degree)
        for exposure, sky in zip(exposures, maps, strict=True):
            exposure.sky, exposure.degree = sky, degree


def maps_to_mean(exposures, reference, degree):
    """Return the map of each frame, fitted to mean positions; that of the first as it is."""
    first, *others = exposures
    return [first.sky, *(fit_alone(exposure, reference, degree) for exposure in others)]


def alignment_degree(exposures, options):
    """Return the degree of the maps that predict left-out stars of aligned frames best."""
    reference = merged_stars(exposures)
    reference = reference[reference.seen > 1]
    if len(exposures) < 2 or len(reference) < 12:
        return 1
    degrees = degrees_allowed(len(reference), options["degree"])
    validated = validate_degrees(exposures, reference, len(reference), degrees, maps_to_mean)
    return best_solution({"own": validated})[1]
