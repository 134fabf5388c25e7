"""Joint solution of frames by SCAMP, which is given the identification and does no matching."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from lib.astrometry.detection import CATALOGUE_COLUMNS, run_again_if_killed
from lib.astrometry.frames import AstrometryFrame, epoch_of
from lib.astrometry.pixelmaps import Cards, PixelMap, cached_map, map_from_tpv, tan_cards
from lib.astrometry.starlists import Reference
from lib.core.files import scratch_folder
from lib.core.programs import ProgramFailed, find_program
from lib.core.settings import AstrometrySettings
from lib.core.sphere import project
from lib.frame.fitsbytes import read_head, write_ldac


class UndistortedFrame:
    """A frame from which the distortion of its present map is removed.

    SCAMP gets pixels of an ideal TAN frame, so it need not find again the known distortion of the
    instrument, and a low degree is enough for the rest.

    Parameters
    ----------
    frame : AstrometryFrame
    """

    def __init__(self, frame: AstrometryFrame) -> None:
        self.pixel_to_world = frame.pixel_to_world
        self.middle = frame.middle
        self.centre = frame.centre()
        self.matrix = frame.local_matrix()
        self.inverse = np.linalg.inv(self.matrix)

    def undistort(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return undistorted pixel coordinates."""
        p = project(*self.pixel_to_world(x, y), *self.centre)
        u, v = (p @ self.inverse.T + self.middle).T
        return u, v

    def followed_by(self, undistorted_to_world: PixelMap) -> PixelMap:
        """Return the map from pixels, given the one from undistorted pixels."""
        return cached_map(lambda x, y: undistorted_to_world(*self.undistort(x, y)))

    def cards(self) -> Cards:
        """Return the TAN cards of the undistorted frame."""
        cards = tan_cards(self.centre, self.middle, self.matrix / 3600.0)
        return cards | {"RADESYS": "ICRS", "EQUINOX": 2000.0}


def write_stars(path: Path, frame: AstrometryFrame, undistorted: UndistortedFrame) -> None:
    """Write the stars of a frame, undistorted, as the catalogue that SCAMP reads."""
    cards = {
        "SIMPLE": True,
        "BITPIX": -32,
        "NAXIS": 2,
        "NAXIS1": frame.shape[1],
        "NAXIS2": frame.shape[0],
        "EXPTIME": float(frame.header.get("EXPTIME", 1.0)),
        "FILTER": "one",
        "MJD-OBS": frame.mjd,
    }
    u, v = undistorted.undistort(frame.x, frame.y)
    columns = {"XWIN_IMAGE": u, "YWIN_IMAGE": v}
    columns |= {name: frame.stars[name] for name in CATALOGUE_COLUMNS[2:10]}
    columns["FLAGS"] = np.zeros(len(u), np.int16)
    write_ldac(path, cards | undistorted.cards(), columns)


def write_reference(path: Path, reference: Reference, epoch: float) -> None:
    """Write a reference as the catalogue that SCAMP reads; `epoch` as a Julian year."""
    finite = np.isfinite(reference.magnitude)
    faint = reference.magnitude[finite].max() if finite.any() else 20.0
    columns = {
        "X_WORLD": reference.ra,
        "Y_WORLD": reference.dec,
        "ERRA_WORLD": reference.error / 3600.0,
        "ERRB_WORLD": reference.error / 3600.0,
        "ERRTHETA_WORLD": np.zeros(len(reference)),
        "MAG": np.where(finite, reference.magnitude, faint),
        "MAGERR": np.full(len(reference), 0.05),
        "OBSDATE": np.full(len(reference), epoch),
    }
    write_ldac(path, {"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}, columns)


def scamp_parameters(
    degree: int, settings: AstrometrySettings, crossid: float, passes: str, quiet: bool
) -> dict[str, object]:
    """Return SCAMP's parameters by name; see `run_scamp`."""
    return {
        "ASTREF_CATALOG": "FILE",
        "ASTREFCAT_NAME": "reference.ldac",
        "MATCH": "N",
        "MATCH_RESOL": settings.match_resolution,
        "CROSSID_RADIUS": crossid,
        "ASTRINSTRU_KEY": "FILTER",
        "STABILITY_TYPE": "INSTRUMENT" if passes == "joint" else "EXPOSURE",
        "PROJECTION_TYPE": "TPV" if degree > 1 else "SAME",
        "DISTORT_DEGREES": degree,
        "SN_THRESHOLDS": f"{settings.min_snr},50.0",
        "FWHM_THRESHOLDS": "0.0,1000.0",
        "ELLIPTICITY_MAX": 0.9,
        "SOLVE_PHOTOM": "N",
        "PHOTINSTRU_KEY": "FILTER",
        "CHECKPLOT_TYPE": "NONE",
        "CHECKPLOT_DEV": "NULL",
        "WRITE_XML": "N",
        "VERBOSE_TYPE": "QUIET" if quiet else "NORMAL",
        # Several threads add up in an order that varies: the last digits would, too.
        "NTHREADS": 1,
    }


def run_scamp(
    frames: Sequence[AstrometryFrame],
    reference: Reference,
    degree: int,
    settings: AstrometrySettings,
    *,
    crossid: float,
    passes: Literal["loose", "joint"] = "joint",
    quiet: bool = False,
) -> list[PixelMap]:
    """Solve frames jointly with SCAMP.

    Parameters
    ----------
    frames : sequence of AstrometryFrame
        Frames whose maps are accurate to a pixel.
    reference : Reference
    degree : int
        Degree of the distortion shared by the frames.
    settings : AstrometrySettings
        match_resolution, min_snr, timeout.
    crossid : float
        Radius of identification [arcsec].
    passes : {'loose', 'joint'}
        'loose' solves each frame for itself.
    quiet : bool
        Whether SCAMP's own report is left out of the log.

    Returns
    -------
    list of callable
        Map of each frame to the sky.

    Raises
    ------
    ProgramFailed
        SCAMP timed out or crashed, or its output is missing or makes no sense.
    """
    parameters = scamp_parameters(degree, settings, crossid, passes, quiet)
    names = [f"{k:05d}.ldac" for k in range(len(frames))]
    argv: list[Any] = [find_program("scamp"), *names, "-c", "empty.scamp"]
    for key, value in parameters.items():
        argv += [f"-{key}", value]
    undistorted = [UndistortedFrame(frame) for frame in frames]
    with scratch_folder("scamp") as folder:
        (folder / "empty.scamp").write_text("# all settings are on the command line\n")
        for name, frame, ideal in zip(names, frames, undistorted, strict=True):
            write_stars(folder / name, frame, ideal)
        write_reference(folder / "reference.ldac", reference, epoch_of(frames))
        run_again_if_killed(argv, timeout=settings.timeout, cwd=folder)
        maps = []
        for name, ideal in zip(names, undistorted, strict=True):
            try:
                inner = map_from_tpv(read_head(folder / name.replace(".ldac", ".head")))
            except (OSError, ValueError) as why:
                raise ProgramFailed("scamp", str(why)) from why
            maps.append(ideal.followed_by(inner))
    return maps
