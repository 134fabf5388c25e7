"""The joint solution of identified frames: by SCAMP or by our own fit, whichever predicts best."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lib.astrometry.crossvalidation import best_solution, degrees_allowed, validate_degrees
from lib.astrometry.firstsolution import refine
from lib.astrometry.frames import AstrometryFrame
from lib.astrometry.jointfit import fit_jointly
from lib.astrometry.pixelmaps import PixelMap
from lib.astrometry.residuals import residuals
from lib.astrometry.scamp import run_scamp
from lib.astrometry.starlists import Reference, thin_reference
from lib.core.programs import ProgramFailed
from lib.core.settings import AstrometrySettings
from lib.core.stats import mad_std

log = logging.getLogger("autoproc")

MIN_STARS_TO_VALIDATE = 12
"""Reference stars below which nothing is left out of the fit to predict it."""

MIN_STARS_TO_SOLVE = 5
"""Reference stars below which frames are not solved together."""


@dataclass
class JointSolution:
    """How the frames of a stack were solved together.

    Parameters
    ----------
    reference_stars : int
        Different reference stars identified.
    crossid : float
        Radius of identification that SCAMP is given [arcsec].
    method : {'own', 'scamp'}
    degree : int
        Degree of the fitted distortion.
    crossvalidation : dict
        Method to degree to residual of stars left out of the fit [mas].
    scamp_failed : str
        Why SCAMP was left out; empty where it was not.
    """

    reference_stars: int
    crossid: float
    method: str = "own"
    degree: int = 1
    crossvalidation: dict[str, dict[int, float]] = field(default_factory=dict)
    scamp_failed: str = ""

    @contextmanager
    def without_scamp_if_it_fails(self) -> Iterator[None]:
        """Go on without SCAMP where it fails in the block."""
        try:
            yield
        except ProgramFailed as why:
            log.warning("SCAMP failed and is left out: %s", why)
            self.scamp_failed = str(why)


def solve_jointly(
    frames: Sequence[AstrometryFrame], reference: Reference, settings: AstrometrySettings
) -> JointSolution:
    """Refine the maps of identified frames, all together; set map and `degree` of each.

    SCAMP runs loose (each frame for itself, first order), then jointly; `fit_jointly` solves
    the same problem by itself. Method and degree are those that predict left-out reference stars
    best; SCAMP failing leaves the other.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames with `match`.
    reference : Reference
    settings : AstrometrySettings

    Returns
    -------
    JointSolution
    """
    for frame in frames:
        if not frame.by_neighbours:
            refine(frame, reference)
    near = residuals(frames, reference, tolerance=4.0 * max(frame.scale for frame in frames))
    known = len(np.unique(near.reference))
    if known < MIN_STARS_TO_SOLVE:
        # Too few for scale and rotation: each frame keeps those it has, and its shift.
        return JointSolution(known, 3.0 * frames[0].scale)
    reference = thin_reference(frames, reference[np.unique(near.reference)])
    keep_better_maps(frames, reference, fit_jointly(frames, reference, 1))

    found = residuals(frames, reference)
    number = len(np.unique(found.reference))
    spread, scale = mad_std(np.r_[found.dx, found.dy]), frames[0].scale
    solution = JointSolution(number, float(np.clip(8 * spread, 0.7 * scale, 3.0 * scale)))
    scamp = partial(run_scamp, settings=settings)

    methods: dict[str, Callable[..., list[PixelMap]]] = {"own": fit_jointly}
    with solution.without_scamp_if_it_fails():
        loose = scamp(frames, reference, 1, crossid=3 * scale, passes="loose")
        keep_better_maps(frames, reference, loose)
        methods["scamp"] = partial(scamp, crossid=solution.crossid, quiet=True)
    enough = number >= MIN_STARS_TO_VALIDATE
    degrees = degrees_allowed(number, settings.degree) if enough else []
    for method, fit in methods.items():
        with solution.without_scamp_if_it_fails():
            solution.crossvalidation[method] = validate_degrees(
                frames, reference, number, degrees, fit
            )
        # Both fit the same polynomial: the degree that the stars can carry is known now.
        degrees = degrees and [best_solution(solution.crossvalidation)[1]]
    method, degree = best_solution(solution.crossvalidation)
    maps = None
    with solution.without_scamp_if_it_fails():
        maps = methods[method](frames, reference, degree)
    if maps is None:
        method, maps = "own", fit_jointly(frames, reference, degree)
    keep_better_maps(frames, reference, maps, degree)
    solution.method, solution.degree = method, degree
    return solution


def keep_better_maps(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    maps: Sequence[PixelMap],
    degree: int = 1,
) -> None:
    """Give each frame its new map, unless the present one fits clearly better."""
    before = residuals(frames, reference)
    after = residuals(frames, reference, maps)
    for k, (frame, pixel_to_world) in enumerate(zip(frames, maps, strict=True)):
        old, new = before.of_frame(k), after.of_frame(k)
        old_rms, new_rms = old.rms_of_both(), new.rms_of_both()
        fits_more = len(new) >= 1.2 * len(old)
        fits_well = len(new) >= 0.8 * len(old) and new_rms <= 1.5 * old_rms + 1e-3
        frame.own_solution = not (len(old) < 3 or fits_more or fits_well)
        if not frame.own_solution:
            frame.pixel_to_world, frame.degree = pixel_to_world, degree
            continue
        log.warning(
            "%s: joint solution (%d stars, %.3f arcsec) is worse than its own (%d, %.3f)",
            frame.name,
            len(new),
            new_rms,
            len(old),
            old_rms,
        )
