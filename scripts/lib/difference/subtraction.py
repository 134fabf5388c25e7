"""A coadd less its template: by each method that there is, of which the best is taken."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from lib.core.programs import ProgramFailed, ProgramMissing
from lib.core.settings import DifferenceSettings
from lib.difference.hotpants import run_hotpants
from lib.difference.matched import Matched
from lib.difference.planes import Plane, mask_bits
from lib.difference.psfstamps import region_stamps, stamp_half
from lib.difference.quality import Difference, assess, penalty
from lib.difference.regions import Regions, choose_regions
from lib.difference.sfft import SolverMissing, kernel_half, match_kernels
from lib.difference.stars import SharedStars
from lib.difference.zogy import subtract_properly
from lib.frame.file import FrameRejected

log = logging.getLogger("autoproc")

METHODS = ("sfft", "zogy", "hotpants")
"""In the order in which they are tried, and preferred if equally good."""

CLEARLY = 0.97
"""A later method is taken where it is better than the ones before by this factor."""


CLEAN = 1.25
"""Scatter about stars over the errors below which several regions can gain nothing."""

REGIONS_HELP = 0.93
"""Several regions are taken where they are better than one by this factor: each has fewer stars."""


@dataclass(frozen=True)
class Subtraction:
    """A difference image, how it was made, and how others compared.

    Parameters
    ----------
    difference : Difference
    method : str
    convolved : {'template', 'coadd', 'both'}
    half : int
        Half side of the kernels [pixel]; 0 where there is none.
    kernel_sum : float
        Median of the kernels' sums: flux after over flux before.
    bits : ndarray of uint8, shape (ny, nx)
        Why pixels have no weight: sums of `lib.difference.planes.DIFF_MASK`.
    tried : dict of str to tuple of float
        Method -> `penalty`, error of a point source, and scatter at sources over the errors.
    missing : list of str
        Methods that are not there, and why.
    """

    difference: Difference
    method: str
    convolved: str
    half: int
    kernel_sum: float
    bits: np.ndarray
    tried: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def subtract(
    coadd: Plane, template: Plane, stars: SharedStars, occupied: np.ndarray,
    settings: DifferenceSettings,
) -> Subtraction:  # fmt: skip
    """Subtract a template from a coadd.

    Parameters
    ----------
    coadd, template : Plane
        On one grid, in the same units.
    stars : SharedStars
    occupied : ndarray of bool, shape (ny, nx)
        Pixels of sources in either.
    settings : DifferenceSettings

    Returns
    -------
    Subtraction

    Raises
    ------
    FrameRejected
        NO_METHOD: the one that is asked for is not there.
    """
    asked = 0 if isinstance(settings.regions, str) else settings.regions
    most = choose_regions(coadd.image.shape, int(stars.constant.sum()), asked)
    # Many kernels follow the seeing over the field, one kernel has more stars.
    grids = [most] if asked or most.number == 1 else [Regions(most.shape, 1), most]
    wanted = METHODS if settings.method == "auto" else (settings.method,)
    best: Subtraction | None = None
    tried: dict[str, tuple[float, float, float]] = {}
    missing: list[str] = []
    for method in wanted:
        try:
            one, measured = _best_grid(method, coadd, template, stars, occupied, grids, settings)
        except (SolverMissing, ProgramMissing) as error:
            missing.append(f"{method}: {error}")
            log.info("%s", error)
            continue
        except ProgramFailed as error:
            missing.append(str(error))
            log.warning("%s", error)
            continue
        tried[method] = measured
        if best is None or measured[0] < CLEARLY * tried[best.method][0]:
            best = one
    if best is None:
        raise FrameRejected("NO_METHOD", "; ".join(missing))
    return replace(best, tried=tried, missing=missing)


def _best_grid(
    method: str, coadd: Plane, template: Plane, stars: SharedStars, occupied: np.ndarray,
    grids: list[Regions], settings: DifferenceSettings,
) -> tuple[Subtraction, tuple[float, float, float]]:  # fmt: skip
    """Return the better difference of those with one region and with several, and its figures."""
    found: list[tuple[Subtraction, tuple[float, float, float]]] = []
    for regions in grids:
        if found and found[0][1][2] < CLEAN:
            break
        one = subtract_by(method, coadd, template, stars, occupied, regions, settings)
        empty = ~occupied & (one.difference.variance > 0)
        figures = penalty(one.difference, empty), one.difference.depth(empty), one.difference.chi
        log.info(
            "%s, %d regions: error of a point source %.4g, scatter at sources %.2f times the "
            "errors, %.2g of their light left, empty apertures %.3f",
            method, regions.number**2, *figures[1:], one.difference.left, one.difference.pull,
        )  # fmt: skip
        found.append((one, figures))
    best = found[0]
    for pair in found[1:]:
        if pair[1][0] < REGIONS_HELP * best[1][0]:
            best = pair
    return best


def subtract_by(
    method: str, coadd: Plane, template: Plane, stars: SharedStars, occupied: np.ndarray,
    regions: Regions, settings: DifferenceSettings,
) -> Subtraction:  # fmt: skip
    """Subtract a template from a coadd by one method; see `subtract`."""
    bits = mask_bits(coadd, template)
    if method == "zogy":
        half = stamp_half(coadd, max(coadd.fwhm, template.fwhm))
        ours, theirs = (
            region_stamps(one, stars.x, stars.y, stars.flux, regions, half)
            for one in (coadd, template)
        )
        matched = subtract_properly(coadd, template, ours, theirs, regions)
        convolved, half, kernel_sum, stamps = "both", 0, 1.0, matched.stamps
        fwhm = stamp_fwhm(stamps[len(stamps) // 2])
    else:
        matched, convolved, half = _convolve(method, coadd, template, stars, regions, settings)
        kernel_sum = float(np.median(matched.sums))
        wide = template if convolved == "coadd" else coadd
        fwhm = wide.fwhm
        stamps = region_stamps(wide, stars.x, stars.y, stars.flux, regions, stamp_half(wide, fwhm))
    difference = assess(
        matched.image, matched.variance, stamps, regions, fwhm, (coadd, template), occupied, stars
    )
    bits |= matched.reached
    return Subtraction(difference, method, convolved, half, kernel_sum, bits)


def _convolve(
    method: str, coadd: Plane, template: Plane, stars: SharedStars, regions: Regions,
    settings: DifferenceSettings,
) -> tuple[Matched, str, int]:  # fmt: skip
    """Return the difference by a method that convolves one image, which one, and the half side."""
    side = settings.convolve
    if side == "auto":
        side = "template" if template.fwhm <= coadd.fwhm else "coadd"
    sharp, wide = (template, coadd) if side == "template" else (coadd, template)
    half = (
        kernel_half(sharp.fwhm, wide.fwhm)
        if isinstance(settings.kernel, str)
        else settings.kernel
    )  # fmt: skip
    work: Callable[..., Matched] = match_kernels if method == "sfft" else run_hotpants
    matched = work(sharp, wide, stars, regions, half)
    if side == "coadd":
        # A new source has been convolved, too: as a star of the coadd to one of the template.
        matched = replace(matched, image=-matched.image)
    return matched, side, half


def stamp_fwhm(stamp: np.ndarray) -> float:
    """Return the FWHM of the image of a point source, by the area above half of its peak."""
    area = np.count_nonzero(stamp > 0.5 * stamp.max())
    return 2 * float(np.sqrt(area / np.pi))
