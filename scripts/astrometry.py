"""Rule astrometry: put the solution that rule solve found into the header of one frame."""

import json
import re

OLD_WCS = re.compile(
    r"(WCSAXES|WCSNAME|CTYPE\d|CUNIT\d|CRVAL\d|CRPIX\d|CRDER\d|CSYER\d|CDELT\d|CROTA\d"
    r"|CD\d_\d|CD00\d00\d|PC\d_\d|PC00\d00\d|PV\d_\d+|PS\d_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS"
    r"|EQUINOX|EPOCH|A_ORDER|B_ORDER|AP_ORDER|BP_ORDER|A_DMAX|B_DMAX|[AB]P?_\d_\d"
    r"|WAT\d_\d+|WCSDIM|LTV\d|LTM\d_\d|PPO\d+|AMD[XY]\d+|PLTRAH|ASTR(MS1|MS2|NST|CONT|CAT|EPOC|DEG)"
    r")[A-Z]?"
)
"""Cards of any world coordinate system that a solution replaces, alternatives included."""


def apply_solution(header, solution, catalogue):
    """Replace the world coordinate system of a header by a solution.

    The result is a plain TAN or TPV system (CD matrix, PV polynomial), which astropy (wcslib),
    SWarp and DS9 read alike.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Changed copy is returned.
    solution : dict
        Entry of a frame in the file of rule solve: cards, rms [mas], nstars, contrast, degree,
        epoch [yr].
    catalogue : str
        Source of the reference, or 'NONE' for frames aligned with each other only.

    Returns
    -------
    astropy.io.fits.Header
    """
    header = header.copy()
    for key in {key for key in header if OLD_WCS.fullmatch(key)}:
        header.remove(key, remove_all=True)
    for key, value in solution["cards"].items():
        header[key] = value
    rms = solution.get("rms") or [None, None]
    for axis in (1, 2):
        if rms[axis - 1] is not None:
            header[f"ASTRMS{axis}"] = (round(rms[axis - 1], 2), "[mas] rms against the reference")
    header["ASTRNST"] = (solution["nstars"], "stars identified in the reference")
    if solution.get("contrast") is not None:
        header["ASTRCONT"] = (
            round(solution["contrast"], 2),
            "identified stars over those expected by chance",
        )
    header["ASTRCAT"] = (catalogue[:60], "source of the reference positions")
    if solution.get("epoch") is not None:
        header["ASTREPOC"] = (round(solution["epoch"], 4), "[yr] epoch of the reference positions")
    header["ASTRDEG"] = (solution["degree"], "degree of the fitted distortion")
    return header


def find_solution(solved, frame):
    """Return the entry of a frame, or raise why it has none.

    Raises
    ------
    FrameRejected
        With the code and numbers of rule solve.
    KeyError
        Where rule solve was not given this frame.
    """
    from lib.frame.file import FrameRejected

    solution = solved["frames"][frame]
    if solution["status"] != "OK":
        raise FrameRejected(solution["code"], solution.get("numbers", ""))
    return solution


def run(source, target, solved, frame, version, log_path):
    """Write a frame with its solution; only the header changes.

    Parameters
    ----------
    source, target : path-like
    solved : dict
        File of rule solve.
    frame : str
    version : int
        Of the step.
    log_path : path-like, or None
    """
    from lib.frame.file import Frame
    from lib.frame.step import process

    def work(frame_file):
        solution = find_solution(solved, frame)
        return Frame(None, None, apply_solution(frame_file.header, solution, solved["catalogue"]))

    process(
        "astrometry", version, source, target, work, log_path=log_path,
        parameters={"catalogue": solved["catalogue"]}, header_only=True,
    )  # fmt: skip


if "snakemake" in globals():
    with open(snakemake.input.solution) as file:
        solved = json.load(file)
    run(
        snakemake.input.frame,
        snakemake.output[0],
        solved,
        snakemake.wildcards.frame,
        snakemake.params.version,
        snakemake.log[0],
    )
