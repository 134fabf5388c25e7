"""The solution of a frame in its header."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astropy.io import fits

from lib.frame.file import Frame, FrameRejected
from lib.frame.step import process

COORDINATE_CARD = re.compile(
    r"(WCSAXES|WCSNAME|CTYPE\d|CUNIT\d|CRVAL\d|CRPIX\d|CRDER\d|CSYER\d|CDELT\d|CROTA\d"
    r"|CD\d_\d|CD00\d00\d|PC\d_\d|PC00\d00\d|PV\d_\d+|PS\d_\d+|LONPOLE|LATPOLE|RADESYS|RADECSYS"
    r"|EQUINOX|EPOCH|A_ORDER|B_ORDER|AP_ORDER|BP_ORDER|A_DMAX|B_DMAX|[AB]P?_\d_\d"
    r"|WAT\d_\d+|WCSDIM|LTV\d|LTM\d_\d|PPO\d+|AMD[XY]\d+|PLTRAH|ASTR(MS1|MS2|NST|CONT|CAT|EPOC|DEG|HOW)"
    r")[A-Z]?"
)
"""Keywords of any world coordinate system that a solution replaces, alternatives included."""


def apply_solution(header: fits.Header, solution: Mapping[str, Any], catalogue: str) -> fits.Header:
    """Replace the world coordinate system of a header by a solution.

    The result is a plain TAN or TPV system (CD matrix, PV polynomial), which astropy (wcslib),
    SWarp and DS9 read alike.

    Parameters
    ----------
    header : astropy.io.fits.Header
    solution : mapping
        Entry of a frame in the file of rule solve: cards, rms [mas], nstars, contrast, degree,
        epoch [yr], pointing [deg].
    catalogue : str
        Source of the reference, or 'NONE' for frames aligned with each other only.

    Returns
    -------
    astropy.io.fits.Header
        A changed copy.
    """
    header = header.copy()
    pointing = solution.get("pointing") if catalogue != "NONE" else None
    for key in {key for key in header if COORDINATE_CARD.fullmatch(key)}:
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
    if solution.get("rung"):
        header["ASTRHOW"] = (solution["rung"], "how it was identified")
    header["ASTRDEG"] = (solution["degree"], "degree of the fitted distortion")
    if pointing is not None:
        header["RASOL"] = (pointing[0], "[deg] pointing, by the solution")
        header["DECSOL"] = (pointing[1], "[deg] pointing, by the solution")
    return header


def find_solution(solved: Mapping[str, Any], frame: str) -> Mapping[str, Any]:
    """Return the entry of a frame, or raise why it has none.

    Raises
    ------
    FrameRejected
        The code and numbers are those of rule solve.
    KeyError
        Rule solve was not given this frame.
    """
    solution = solved["frames"][frame]
    if solution["status"] != "OK":
        raise FrameRejected(solution["code"], solution.get("numbers", ""))
    return solution


def write_solved_frame(
    source: str | Path, target: str | Path, solved: Mapping[str, Any], frame: str, version: int
) -> None:
    """Write a frame with its solution; only the header changes.

    Parameters
    ----------
    source, target : path-like
    solved : mapping
        File of rule solve.
    frame : str
    version : int
        Version of the step.
    """

    def work(frame_file: Frame) -> Frame:
        solution = find_solution(solved, frame)
        header = apply_solution(frame_file.header, solution, solved["catalogue"])
        return Frame.without_image(header)

    process(
        "astrometry", version, source, target, work,
        parameters={"catalogue": solved["catalogue"]}, header_only=True,
    )  # fmt: skip
