"""Rule solve: the astrometric solution of all frames of one stack.

Stars are detected on each frame (`lib.astrometry.detection`), identified in the reference by a
ladder of ever fewer assumptions (`lib.astrometry.firstsolution`), and all frames are solved
jointly, by SCAMP or by a fit of our own, of whatever degree predicts stars best that the fit did
not know. With no
reference the frames are aligned with each other.
"""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits

from lib.astrometry.crossvalidation import best_solution, degrees_allowed, validate_degrees
from lib.astrometry.detection import detect, frame_name
from lib.astrometry.firstsolution import align, identify_group, refine
from lib.astrometry.jointfit import fit_jointly
from lib.astrometry.pixelmaps import fit_cards, starting_sky
from lib.astrometry.residuals import plot_residuals, residuals, weighted_rms
from lib.astrometry.scamp import run_scamp
from lib.astrometry.starlists import epoch_of, reference_extent, reference_from_table, spread_out
from lib.core.files import atomic_path
from lib.core.programs import ProgramFailed
from lib.core.stats import mad_std
from lib.frame.file import FrameRejected

log = logging.getLogger("autoproc")

DEFAULTS = {
    "detect_threshold": 3.0,
    "detect_minarea": 5,
    "min_snr": 8.0,
    "min_stars": 6,
    "min_matched": 5,
    "min_contrast": 2.0,
    "log_chance": -6.0,
    "search_radius": None,
    "wide_radius": 0.4,
    "scale_error": 0.08,
    "degree": "auto",
    "match_resolution": 1.0,
    "timeout": 300.0,
}


def solve(paths, table, options, *, threads=1):
    """Detect and solve the frames of a stack.

    Parameters
    ----------
    paths : list of path-like
        Frame files.
    table : astropy.table.Table
        Reference; may have no row.
    options : dict
        Overrides of `DEFAULTS`.
    threads : int
        Frames searched for stars at once.

    Returns
    -------
    As `solve_group`; frames with too few stars are entered as rejected.
    """
    options = DEFAULTS | {k: v for k, v in (options or {}).items() if v is not None}
    exposures, rejected = detect_all(paths, options, threads)
    band = exposures[0].header.get("BAND", "") if exposures else ""
    reference = reference_from_table(table, band)
    result, *rest = solve_group(
        exposures,
        reference,
        options,
        catalogue=str(table.meta.get("source", "reference")) if len(reference) else "NONE",
        reason=str(table.meta.get("reason", "")) or "no reference",
    )
    result["frames"] |= rejected
    return result, *rest


def solve_group(exposures, reference, options, *, catalogue, reason=""):
    """Solve the frames of one camera, filter and target.

    Parameters
    ----------
    exposures : list of Exposure
        With stars; `sky` and `radius` are set here from the headers.
    reference : Reference
        May be empty.
    options : dict
        See `DEFAULTS`.
    catalogue, reason : str
        Source of the reference; why it is empty.

    Returns
    -------
    result : dict
        As written by the rule, for these frames.
    reference : Reference
        What they were solved against.
    found : dict
        Residuals of the frames that are solved.
    """
    trust_headers(exposures, reference, options)
    solved, failed = [], {}
    if exposures and len(reference):
        failed = identify_group(exposures, reference, options, neighbours=True)
        solved = [e for e in exposures if e.match]
        if not solved:
            best = "; ".join(f"{name}: {numbers}" for name, numbers in failed.items())
            reason = f"no frame matched {catalogue}: {best}"
            log.warning("%s", reason)
    if solved:
        summary = solve_jointly(solved, reference, options)
    elif exposures:
        catalogue = "NONE"
        solved, reference, failed = align(exposures, options)
        summary = {"method": "internal", "degree": max(e.degree for e in solved)}
    else:
        catalogue = catalogue if len(reference) else "NONE"
        summary = {"method": "none", "degree": 1}
    found = residuals(solved, reference)
    frames = {name: rejection("NO_MATCH", numbers) for name, numbers in failed.items()}
    frames |= {e.name: frame_entry(e, found, k) for k, e in enumerate(solved)}
    offset = [np.median(found[a]) if len(found[a]) else np.nan for a in ("dx", "dy")]
    summary |= {
        "catalogue": catalogue,
        "reason": reason if catalogue == "NONE" else "",
        "solved": len(solved),
        "rms": [mas(weighted_rms(found[a], found["error"])) for a in ("dx", "dy")],
        "offset": [mas(value) for value in offset],
        "frames": frames,
    }
    return summary, reference, found


# --- Stars and headers --------------------------------------------------------------------


def detect_all(paths, options, threads):
    """Detect the stars of all frames.

    Returns
    -------
    exposures : list of Exposure
    rejected : dict
        Entries of the frames without enough stars, by name.

    Raises
    ------
    ProgramFailed
        Where no frame can be searched, or one no longer that could be before: that is the
        machine's fault, not the frames'.
    """

    def one(path):
        try:
            return detect(path, options)
        except FrameRejected as why:
            return why

    with ThreadPoolExecutor(max(1, threads)) as pool:
        outcomes = dict(zip(paths, pool.map(one, paths), strict=True))
    # Once more, for what fails twice; then a frame that could be searched tells whose fault it is.
    again = {path: one(path) for path in paths if unsearched(outcomes[path])}
    outcomes |= again
    broken = [outcome for outcome in again.values() if unsearched(outcome)]
    if broken:
        sound = [path for path in paths if not isinstance(outcomes[path], FrameRejected)][:1]
        if len(broken) == len(paths) or any(unsearched(one(path)) for path in sound):
            raise ProgramFailed("source-extractor", broken[0].numbers)
    rejected, exposures = {}, []
    for path, outcome in outcomes.items():
        if isinstance(outcome, FrameRejected):
            name = frame_name(path, fits.getheader(path))
            log.warning("%s: %s", name, outcome)
            rejected[name] = rejection(outcome.code, outcome.numbers)
        else:
            exposures.append(outcome)
    return exposures, rejected


def unsearched(outcome):
    """Tell whether a frame could not be searched, whatever it holds."""
    return isinstance(outcome, FrameRejected) and outcome.code == "DETECTION_FAILED"


def trust_headers(exposures, reference, options):
    """Set map and uncertainty of each frame to what its header says."""
    extent = reference_extent(reference)
    for exposure in exposures:
        exposure.sky, radius = starting_sky(exposure.header, exposure.shape, extent)
        exposure.radius = 3600.0 * (options["search_radius"] or radius or 0.1)


# --- The joint solution -------------------------------------------------------------------


def solve_jointly(exposures, reference, options):
    """Refine the maps of identified frames, all together; set `sky` and `degree` of each.

    SCAMP runs loose (each exposure for itself, first order), then jointly; `fit_jointly` solves
    the same problem by itself. Method and degree are those that predict left-out reference stars
    best; SCAMP failing leaves the other.

    Returns
    -------
    dict
        Numbers of the group: method, degree, crossvalidation [mas] per method and degree.
    """
    for exposure in exposures:
        if not exposure.by_neighbours:
            refine(exposure, reference)
    near = residuals(exposures, reference, tolerance=4.0 * max(e.scale for e in exposures))
    reference = spread_out(exposures, reference[np.unique(near["ref"])])
    keep_better(exposures, reference, fit_jointly(exposures, reference, 1))

    found = residuals(exposures, reference)
    number = len(np.unique(found["ref"]))
    spread, scale = mad_std(np.r_[found["dx"], found["dy"]]), exposures[0].scale
    crossid = float(np.clip(8 * spread, 0.7 * scale, 3.0 * scale))
    summary = {"reference_stars": number, "crossid": crossid}
    scamp = partial(run_scamp, options=options)

    methods = {"own": fit_jointly}
    with scamp_may_fail(summary):
        loose = scamp(exposures, reference, 1, crossid=3 * scale, passes="loose")
        keep_better(exposures, reference, loose)
        methods["scamp"] = partial(scamp, crossid=crossid, quiet=True)
    degrees = degrees_allowed(number, options["degree"]) if number >= 12 else ()
    validated = {}
    for method, fit in methods.items():
        with scamp_may_fail(summary):
            validated[method] = validate_degrees(exposures, reference, number, degrees, fit)
        # Both fit the same polynomial: the degree that the stars can carry is known now.
        degrees = degrees and [best_solution(validated)[1]]
    method, degree = best_solution(validated)
    maps = None
    with scamp_may_fail(summary):
        maps = methods[method](exposures, reference, degree)
    if maps is None:
        method, maps = "own", fit_jointly(exposures, reference, degree)
    keep_better(exposures, reference, maps, degree)
    crossvalidation = {
        method: {str(degree): finite(value) for degree, value in values.items()}
        for method, values in validated.items()
    }
    return summary | {"method": method, "degree": degree, "crossvalidation": crossvalidation}


@contextmanager
def scamp_may_fail(summary):
    """Go on without SCAMP where it fails; `summary` says why."""
    try:
        yield
    except ProgramFailed as why:
        log.warning("SCAMP failed and is left out: %s", why)
        summary["scamp_failed"] = str(why)


def keep_better(exposures, reference, maps, degree=1):
    """Take each map unless the one before fits clearly better."""
    before = residuals(exposures, reference)
    after = residuals(exposures, reference, sky=maps)
    for k, (exposure, sky) in enumerate(zip(exposures, maps, strict=True)):
        (had, old), (has, new) = (number_and_rms(found, k) for found in (before, after))
        fits_more = has >= 1.2 * had
        fits_well = has >= 0.8 * had and new <= 1.5 * old + 1e-3
        exposure.alone = not (had < 3 or fits_more or fits_well)
        if not exposure.alone:
            exposure.sky, exposure.degree = sky, degree
            continue
        log.warning(
            "%s: joint solution (%d stars, %.3f arcsec) is worse than its own (%d, %.3f)",
            exposure.name,
            has,
            new,
            had,
            old,
        )


def number_and_rms(found, k):
    """Number of stars of frame `k`, and rms of both axes together [arcsec]."""
    mine = found["frame"] == k
    dx, dy, error = (found[name][mine] for name in ("dx", "dy", "error"))
    return np.count_nonzero(mine), weighted_rms(np.r_[dx, dy], np.r_[error, error])


# --- The file of the rule -----------------------------------------------------------------


def frame_entry(exposure, found, k):
    """Entry of a solved frame, frame `k` of `found` (from `residuals`)."""
    cards, error = fit_cards(exposure.sky, exposure.shape)
    mine = found["frame"] == k
    match = exposure.match
    return {
        "status": "OK",
        "cards": cards,
        "rms": [mas(weighted_rms(found[a][mine], found["error"][mine])) for a in ("dx", "dy")],
        "nstars": int(mine.sum()),
        "detected": len(exposure.stars),
        "contrast": match.contrast if match else None,
        "log_chance": match.log_chance if match else None,
        "rung": "neighbours" if exposure.by_neighbours else match.rung if match else "header",
        "degree": exposure.degree,
        "own": exposure.alone,
        "epoch": epoch_of([exposure]),
        "pixel_scale": exposure.scale,
        "card_error_mas": 1000 * error,
    }


def rejection(code, numbers):
    """Entry of a frame that is not solved."""
    return {"status": "REJECTED", "code": code, "numbers": numbers}


def finite(value):
    """A float for JSON; None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def mas(value):
    """Milliarcseconds of arcseconds, for JSON."""
    return finite(1000 * value)


def write_result(path, result):
    """Write the solution as JSON, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


if "snakemake" in globals():
    import warnings

    from astropy.table import Table
    from astropy.wcs import FITSFixedWarning

    from lib.frame.step import start_log

    start_log(snakemake.log[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        result, reference, found = solve(
            snakemake.input.frames,
            Table.read(snakemake.input.reference, format="ascii.ecsv"),
            snakemake.params.settings,
            threads=snakemake.threads,
        )
    result["stack"] = snakemake.wildcards.stack
    plot_residuals(
        Path(snakemake.output[0]).with_suffix(".png"),
        reference,
        found,
        "{stack}: {solved} frames, {catalogue}, degree {degree}".format(**result),
    )
    write_result(snakemake.output[0], result)
